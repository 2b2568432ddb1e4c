"""`napo-bench judge`: how far raters of the same answers agree, and what one rater's numbers say about another's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from napo_bench.cli import console
from napo_bench.cli.root import app
from napo_bench.core import disk

if TYPE_CHECKING:
    from napo_bench.runs.agreement import Agreement, Measured
    from napo_bench.runs.rating_map import RatingMap
    from napo_bench.runs.ratings import Ratings
    from napo_bench.runs.result import RunResult

judge_app = typer.Typer(
    help="Compare judges with each other and with humans, and map one judge's numbers onto another's.",
    no_args_is_help=True,
)
app.add_typer(judge_app, name="judge")

RatingsFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--ratings",
        metavar="[RUN=]FILE",
        help="CSV, JSON or JSON lines with sample_id, rater, rating; RUN= or a column run names the rated answers' "
        "run. A run is a file of ratings too. Repeatable.",
    ),
]
BenchmarkName = Annotated[
    str | None,
    typer.Option(help="A benchmark with a judge or an extractor. Default: the runs', first one with a judge."),
]
Runs = Annotated[list[str] | None, typer.Argument(metavar="[RUN ...]", help="PATH or NAME=PATH of each run.")]
JsonOut = Annotated[Path | None, typer.Option("--json", help="Write the numbers here.")]


@judge_app.command("agree")
def agree(
    runs: Runs = None,
    ratings: RatingsFiles = None,
    benchmark: BenchmarkName = None,
    json_out: JsonOut = None,
) -> None:
    """How far do judges, extractors and humans agree on the same answers?

    Two runs have the same answer to a sample if its text is the same.
    """
    if json_out is not None:
        disk.try_file(json_out)
    from napo_bench.core import files
    from napo_bench.runs.agreement import agreements

    collected, _ = _collect(benchmark, runs or [], ratings or [])
    with console.err.status("Resampling ..."):
        found = agreements(collected)
    _print_agreements(collected, found)
    if json_out is not None:
        document = {
            "benchmark": collected.benchmark,
            "raters": collected.raters,
            "agreements": [one.to_json() for one in found],
            "notes": collected.notes,
        }
        files.write_json(json_out, document)
        console.err.print(f"Written: {escape(str(json_out))}", highlight=False)


@judge_app.command("map")
def map_(
    first: Annotated[str, typer.Option("--from", help="The rater whose ratings the runs have.")],
    second: Annotated[str, typer.Option("--to", help="The rater whose numbers are wanted.")],
    runs: Runs = None,
    ratings: RatingsFiles = None,
    benchmark: BenchmarkName = None,
    precision: Annotated[
        float | None,
        typer.Option(
            help="Half width of the interval that the map alone may give to the first metric. Default: 0.3 rating "
            "points, 5 points of CHAIRs."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write map.json into this folder, and each mapped run as NAME/run.json, for report and gate."
        ),
    ] = None,
) -> None:
    """What would another judge say? Map the ratings of one onto another's, by answers that both rated.

    Answers that both rated come from RUN and from --ratings. The interval contains the map's uncertainty.
    """
    if out is not None:
        disk.try_folder(out)
    from dataclasses import replace

    from napo_bench.core import files
    from napo_bench.core.errors import NapoBenchError
    from napo_bench.runs.provenance import given_command
    from napo_bench.runs.rating_map import map_ratings, mapped_result
    from napo_bench.runs.ratings import named_results
    from napo_bench.runs.result import RunResult

    if not runs:
        raise NapoBenchError("There is no run to map.", f"Give a run that {first} rated.")
    if precision is not None and not (precision > 0 and math.isfinite(precision)):
        raise NapoBenchError(
            f"--precision is {precision:g}; a number above 0 is expected.",
            "Leave out --precision for 0.3 rating points, or 5 points of CHAIRs.",
        )
    collected, mapped = _collect(benchmark, runs, ratings or [])
    named = named_results(collected, mapped)
    folders = [] if out is None else _folders(out, [one.name for one in named])
    with console.err.status("Resampling ..."):
        found = map_ratings(collected, named, first, second, precision)
    _print_map(collected, found)
    if out is not None:
        files.write_json(out / "map.json", {"benchmark": collected.benchmark, **found.to_json()})
        for number, (one, folder) in enumerate(zip(named, folders, strict=True)):
            result = mapped_result(found, number, collected, one.result)
            provenance = replace(one.run.provenance, command=given_command())
            RunResult({collected.benchmark: result}, provenance).save(folder / "run.json")
        console.err.print(f"Written: {escape(str(out))}", highlight=False)


def _folders(out: Path, names: list[str]) -> list[Path]:
    """The folder of each mapped run: its name, which may be a path or any text of the user.

    Raises:
        NapoBenchError: two runs would have one folder, or a folder has a run that is not mapped.
    """
    from napo_bench.core import links
    from napo_bench.core.errors import NapoBenchError
    from napo_bench.runs.result import RunResult

    folders = [out / (name.replace("/", "-").strip(". ") or "run") for name in names]
    links.refuse_links(out, *(folder.name for folder in folders))
    for folder in folders:
        if folders.count(folder) > 1:
            raise NapoBenchError(f"Two mapped runs would be written into {folder}.", "Give each run a name: NAME=PATH")
        if not (folder / "run.json").exists():
            continue
        there = RunResult.load(folder, samples=False)
        if not all(result.mapped_from for result in there.benchmarks.values()):
            raise NapoBenchError(f"{folder} has a run of its own, which is kept.", "Give another folder as --out.")
    return folders


def _collect(benchmark: str | None, runs: list[str], ratings: list[str]) -> tuple[Ratings, list[tuple[str, RunResult]]]:
    """The ratings of runs and files, and the runs that were given as runs."""
    from napo_bench.core.errors import NapoBenchError
    from napo_bench.report.names import name_and_path, run_names
    from napo_bench.runs.ratings import collect, is_run, rated_benchmark
    from napo_bench.runs.result import RunResult

    if not runs and not ratings:
        raise NapoBenchError("There is nothing to compare.", "Give runs, or --ratings FILE, or both.")
    named = [name_and_path(argument) for argument in runs]
    beside = [name_and_path(argument) for argument in ratings]
    given = {path.resolve() for _, path in named}
    also = [(name, path) for name, path in beside if is_run(path)]
    every = [*named, *((name, path) for name, path in also if path.resolve() not in given)]
    loaded = [RunResult.load(path) for _, path in every]
    names = run_names([name for name, _ in every], [path for _, path in every], loaded)
    found = list(zip(names, loaded, strict=True))
    tables = [entry for entry in beside if entry not in also]
    return collect(rated_benchmark(benchmark, loaded), found, tables), found[: len(named)]


def _print_agreements(ratings: Ratings, found: list[Agreement]) -> None:
    from napo_bench.benchmarks import benchmark_named
    from napo_bench.runs.agreement import FEW_CLUSTERS

    label = benchmark_named(ratings.benchmark).label
    rating = ratings.rated.rating.replace("_", " ")
    raters = ", ".join(f"{rater} ({n})" for rater, n in ratings.raters.items())
    console.out.print(f"[bold]{escape(label)}[/bold], rated answers: {escape(raters)}", highlight=False)
    for one in found:
        console.out.print(f"\n[bold]{escape(_title(one))}[/bold]: {_size(one)}", highlight=False)
        table = Table(box=None, pad_edge=False, collapse_padding=True, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        undefined = "undefined: all ratings are equal"
        table.add_row("Krippendorff's alpha, ordinal", *_cells(one.alpha, 3, undefined))
        for heading, measured, decimals in (
            (f"equal {rating}, %", one.exact, 1),
            (f"{rating} within 1, %", one.within_one, 1),
            ("hallucination or not: equal, %", one.flag, 1),
            (f"mean of {one.raters[-1]} minus mean of {one.raters[0]}", one.higher_by, 2),
        ):
            if measured is not None:
                table.add_row(escape(heading), *_cells(measured, decimals, "undefined"))
        console.print_whole(table)
        if one.table:
            _print_confusion(one)
    few = [_title(one) for one in found if one.clusters < FEW_CLUSTERS]
    notes = [f"fewer than {FEW_CLUSTERS} pictures, so the intervals are too narrow: {'; '.join(few)}"] if few else []
    for note in [*ratings.notes, *notes]:
        console.out.print(f"[yellow]note[/yellow] {escape(note)}", highlight=False)


def _title(one: Agreement) -> str:
    if one.is_repeated:
        return f"{one.raters[0]} with itself"
    return " and ".join(one.raters) if len(one.raters) == 2 else f"all {len(one.raters)} raters"


def _size(one: Agreement) -> str:
    pictures = "" if one.clusters == one.n else f" in {one.clusters} pictures"
    return f"{one.n} answers{pictures}"


def _cells(measured: Measured, decimals: int, undefined: str) -> tuple[str, str]:
    if measured.value is None or measured.ci95 is None:
        return "", undefined
    low, high = measured.ci95
    return f"{measured.value:.{decimals}f}", f"[{low:.{decimals}f}, {high:.{decimals}f}]".replace("[", r"\[")


def _print_confusion(one: Agreement) -> None:
    first, second = one.raters[0], one.raters[-1]
    across = "its other rating" if one.is_repeated else second
    console.out.print(f"Answers by rating: rows {escape(first)}, columns {escape(across)}", highlight=False)
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("", justify="right", no_wrap=True)
    for level in one.levels:
        table.add_column(str(level), justify="right", no_wrap=True)
    for level, line in zip(one.levels, one.table, strict=True):
        table.add_row(str(level), *(f"{count:.3g}" if count else "·" for count in line))
    console.print_whole(table)


def _print_map(ratings: Ratings, found: RatingMap) -> None:
    from napo_bench.benchmarks import benchmark_named
    from napo_bench.benchmarks.result import size_text

    label = benchmark_named(ratings.benchmark).label
    pictures = "" if found.clusters == found.pairs else f" about {found.clusters} pictures"
    console.out.print(
        f"[bold]{escape(label)}[/bold]: {escape(found.first)} mapped to {escape(found.second)}, by {found.pairs} "
        f"answers{pictures} that both rated",
        highlight=False,
    )
    counts = list(found.levels[0].means)
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for heading in (found.first, "answers", *(f"{count.replace('_', ' ')}" for count in counts)):
        table.add_column(escape(heading), justify="right", no_wrap=True)
    for level in found.levels:
        table.add_row(level.level, f"{level.pairs:.4g}", *(f"{level.means[count]:.2f}" for count in counts))
    rating = ratings.rated.rating.replace("_", " ")
    console.out.print(f"Mean numbers of {escape(found.second)}, by {rating} of {escape(found.first)}:", highlight=False)
    console.print_whole(table)
    console.out.print()
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("run", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    for heading in (found.first, "mapped", "95% interval", "answers alone", "map alone", "n"):
        table.add_column(escape(heading), justify="right", no_wrap=True)
    for run in found.runs:
        for one in run.metrics:
            ends = (" - ".join(map(one.metric.format, interval)) for interval in (one.ci95, one.of_answers, one.of_map))
            values = (one.metric.format(one.rated), one.metric.format(one.value), *ends, size_text(one.n, one.clusters))
            table.add_row(escape(run.name), f"{one.metric.name} {one.metric.arrow}", *values)
    console.print_whole(table)
    for run in found.runs:
        for note in run.notes[1:]:
            console.out.print(f"[yellow]note[/yellow] {escape(run.name)}: {escape(note)}", highlight=False)
    console.out.print(
        f"Assumed: answers to which {escape(found.first)} gives the same get the same from {escape(found.second)} on "
        "average, whichever model wrote them.",
        highlight=False,
    )

"""`napo-bench data`: fetch benchmark data, list missing data, build biased negatives, write the micro world."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from napo_bench.cli import console
from napo_bench.cli.begin import begin, tell_licence
from napo_bench.cli.eval import BatchSize, Conversation
from napo_bench.cli.listed import ListedCommand
from napo_bench.cli.root import app
from napo_bench.core import disk
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.locks import output_folder
from napo_bench.core.progress import NO_VALUES, Silent
from napo_bench.engines import usual_batch_size
from napo_bench.micro import named_checkpoint

if TYPE_CHECKING:
    from napo_bench.data.sources import Source
    from napo_bench.trainers.audit.rows import BenchmarkPicture, RowAudit

_SHOWN = 5
_THERE, _MISSING = "[green]there[/green]", "[red]missing[/red]"

data_app = typer.Typer(help="Benchmark data and preference data.", no_args_is_help=True)
app.add_typer(data_app, name="data")

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder with one folder for each benchmark. Default: $NAPO_BENCH_DATA, else the user cache folder."
    ),
]


@data_app.command("fetch", cls=ListedCommand)
def fetch(
    benchmarks: Annotated[list[str], typer.Argument(help="Any of {benchmarks}.")],
    data_dir: DataDir = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            help="A mirror: a web server that serves a data folder. Data sets of the hub follow $HF_ENDPOINT."
        ),
    ] = None,
) -> None:
    """Fetch the official data of benchmarks: pinned, checked, resumable.

    A file that already exists is checked and stays unchanged. Each line names the licence of its file.
    """
    from napo_bench.benchmarks import benchmark_named
    from napo_bench.core.paths import data_dir as resolve_data_dir

    root = resolve_data_dir(data_dir)
    if _is_micro(root):
        raise NapoBenchError(f"{root} is the micro world; official data would mix with it.", "Give another --data-dir.")
    failed = []
    named = [benchmark_named(text) for text in benchmarks]
    for benchmark in named:
        if not benchmark.sources:
            raise NapoBenchError(
                f"{benchmark.label} has no published source that could be fetched.",
                f"Put its files into {root / benchmark.name}"
                + (f": {', '.join(benchmark.data_files)}." if benchmark.data_files else "."),
            )
    for source in [source for benchmark in named for source in benchmark.sources]:
        try:
            state = "fetched" if _fetch(source, root, base_url) else "have   "
        except NapoBenchError as error:
            failed.append(source.target)
            state, reason = "[red]failed [/red]", f": {escape(str(error))}"
        else:
            reason = f" ({escape(source.licence)})" if source.licence else ""
        console.err.print(f"{state} {escape(source.target)}{reason}", highlight=False)
    if failed:
        raise NapoBenchError(
            f"{len(failed)} could not be fetched: {', '.join(failed)}.",
            "Run the same command again; what has arrived is kept. How to get them by hand: "
            f"napo-bench data show {' '.join(benchmarks)}{_same_dir(data_dir)}",
        )
    console.out.print(str(root), markup=False, highlight=False, soft_wrap=True)


@data_app.command("show")
def show(
    benchmarks: Annotated[
        list[str] | None, typer.Argument(help="Also print how to get the missing data of these benchmarks by hand.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """List the data that is there and the data that is missing, with the command that fetches the missing data."""
    from napo_bench.benchmarks import all_benchmarks, benchmark_named
    from napo_bench.core.paths import data_dir as resolve_data_dir

    named = [benchmark_named(text) for text in benchmarks or []]
    root = resolve_data_dir(data_dir)
    table = Table(title=f"Data folder: {escape(str(root))}", title_justify="left", box=None, show_header=False)
    commands: list[str] = []
    if _is_micro(root):
        table.add_row("the micro world, all four benchmarks", _THERE)
    else:
        for name, benchmark in all_benchmarks().items():
            there = [source.is_there(root) for source in benchmark.sources]
            for source, state in zip(benchmark.sources, there, strict=True):
                table.add_row(escape(source.target), _THERE if state else _MISSING)
            if not all(there):
                commands.append(f"napo-bench data fetch {name.replace('_', '-')}{_same_dir(data_dir)}")
    commands += _add_text_resources(table)
    console.out.print(table)
    if commands:
        console.out.print("\n[bold]Next:[/bold]")
    for command in commands:
        console.out.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)
    for source in [source for benchmark in named for source in benchmark.sources if not source.is_there(root)]:
        licence = f"\nlicence: {source.licence}" if source.licence else ""
        steps = f"{source.by_hand(root)}{licence}".replace("\n", "\n  ")
        console.out.print(f"\n{source.target}\n  {steps}", markup=False, highlight=False, soft_wrap=True)


@data_app.command("build-bias")
def build_bias(
    context: typer.Context,
    ckpt: Annotated[
        str, typer.Option(help="Model that writes the negatives: checkpoint or adapter, folder or hub name.")
    ],
    data: Annotated[
        str, typer.Option(help="RLAIF-V rows: parquet file, folder of parquet files, or data set on the hub.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the result.")],
    batch_size: BatchSize = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: the best device.")] = None,
    dtype: Annotated[str, typer.Option(help="auto (bfloat16 on CUDA), float32, bfloat16 or float16.")] = "auto",
    conversation: Conversation = None,
    engine: Annotated[str, typer.Option(help="What answers: hf (transformers) or vllm.")] = "hf",
) -> None:
    """Add a model's own biased negatives to preference rows, as in RLAIF-V-Bias.

    Under torchrun several processes share the work. The same command continues after an interruption.
    """
    context.with_resource(output_folder(out))
    begin(f"Writing biased negatives for {data} with {ckpt}, into {out}")
    from napo_bench.trainers.bias import build_bias as build

    tell_licence(data)
    report = build(
        named_checkpoint(ckpt),
        data,
        out,
        batch_size=batch_size or usual_batch_size(named_checkpoint(ckpt)),
        device=device,
        dtype=dtype,
        conversation=conversation,
        engine=engine,
    )
    for note in report.notes:
        console.err.print(note, markup=False, highlight=False)
    console.err.print(f"{report.rows} rows with biased negatives", highlight=False)
    console.out.print(str(out), markup=False, highlight=False, soft_wrap=True)


@data_app.command("audit")
def audit(
    rows: Annotated[str, typer.Argument(help="Preference rows: parquet file, folder of parquet files, or hub name.")],
    against: Annotated[
        Path | None,
        typer.Option(help="Data folder of benchmarks, whose pictures are looked for among those of the rows."),
    ] = None,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write the audit here, with the names of all rows.")
    ] = None,
) -> None:
    """Audit preference rows: what tells chosen from its negatives without the image, and what is there twice.

    Nothing is trained but three small classifiers of texts: of length, of style, and of words.
    """
    if json_out is not None:
        disk.try_file(json_out)
    begin(f"Auditing {rows}")
    from napo_bench.core import files
    from napo_bench.core.bars import Bars
    from napo_bench.trainers.audit.rows import audit_rows

    benchmarks = _benchmark_pictures(against) if against is not None else {}
    with Bars() as bars:
        found = audit_rows(rows, benchmarks, progress=bars)
    _print_audit(found)
    if json_out is not None:
        files.write_json(json_out, {"data": rows, **found.to_json()})
        console.err.print(f"Written: {escape(str(json_out))}", highlight=False)


@data_app.command("micro")
def micro(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder to write: a data folder with all four benchmarks.")],
    seed: Annotated[int, typer.Option(help="Seed of the world; the same seed gives the same bytes.")] = 0,
) -> None:
    """Write the micro world's benchmarks in the official formats, for example for --data-dir."""
    from napo_bench.benchmarks import benchmark_names
    from napo_bench.micro.data import write_data

    if not _is_micro(out) and any((out / name).exists() for name in benchmark_names()):
        raise NapoBenchError(f"{out} holds benchmark data that is not of the micro world.", "Give another --out.")
    context.with_resource(output_folder(out))
    with console.err.status("Drawing the micro world ..."):
        write_data(out, seed)
    console.out.print(str(out), markup=False, highlight=False, soft_wrap=True)


@data_app.command("micro-rows")
def micro_rows(
    out: Annotated[Path, typer.Option(help="The parquet file to write.")],
    rows: Annotated[int, typer.Option(min=1, help="Number of rows; train-then-eval draws 1,500.")] = 1500,
    seed: Annotated[int, typer.Option(help="Seed of the draw; the same seed gives the same rows.")] = 0,
) -> None:
    """Draw the micro world's preference rows, for train --data and build-bias --data."""
    from napo_bench.micro.preferences import are_current, write_preference_rows

    if out.is_dir():
        raise NapoBenchError(f"{out} is a folder; a file is expected.", f"Give --out {out / 'micro.parquet'}")
    try:
        replaceable = not out.exists() or are_current(out)
    except NapoBenchError:
        replaceable = False
    if not replaceable:
        raise NapoBenchError(f"{out} is not of this command and this version of it.", "Give another --out.")
    with console.err.status("Drawing the rows ..."):
        write_preference_rows(out, rows, seed)
    console.out.print(str(out), markup=False, highlight=False, soft_wrap=True)


def _benchmark_pictures(root: Path) -> dict[str, list[BenchmarkPicture]]:
    """The different pictures of each benchmark in a data folder. A picture inside a file is read when it is needed."""
    from napo_bench.benchmarks import all_benchmarks
    from napo_bench.trainers.audit.rows import BenchmarkPicture

    found = {}
    for name, benchmark in all_benchmarks().items():
        if (root / name).is_dir():
            questions = {
                (question.file, question.place): question for question in benchmark.open(root / name).known.values()
            }
            found[name] = [
                BenchmarkPicture(f"{file}{place}", question.picture or file)
                for (file, place), question in questions.items()
            ]
    if not found:
        raise NapoBenchError(
            f"{root} has no folder of a benchmark ({', '.join(all_benchmarks())}).",
            "Give the data folder that `napo-bench data show` names, or fetch data: napo-bench data fetch amber",
        )
    return found


def _print_audit(audit: RowAudit) -> None:
    from napo_bench.trainers.audit.telling import FEWEST_PICTURES
    from napo_bench.trainers.negatives import NEGATIVES

    def line(text: str) -> None:
        console.out.print(text, markup=False, highlight=False, soft_wrap=True)

    of = f" (of a draw of {audit.told} rows)" if audit.told < audit.rows else ""
    line(f"{audit.rows} rows; {audit.left_out} more cannot be trained on\n")
    line(f"What tells chosen from negative without the image{of}")
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for heading in ("negative", "by", "AUC", "95% interval", "pairs", "pictures", "verdict"):
        table.add_column(heading, justify="left" if heading in ("negative", "by", "verdict") else "right", no_wrap=True)
    few = f"too few: {FEWEST_PICTURES} pictures needed"
    for one in audit.tellings:
        ends = "" if one.interval is None else f"{one.interval[0]:.3f} to {one.interval[1]:.3f}"
        verdict = {
            None: few,
            True: "[yellow]tells[/yellow]",
            False: "cleared",
        }
        table.add_row(
            NEGATIVES[one.negative].column,
            one.trait,
            "" if one.auc is None else f"{one.auc:.3f}",
            ends,
            str(one.pairs),
            str(one.pictures),
            verdict[one.tells],
        )
    console.print_whole(table)
    line("0.5: the trait says nothing. 1: the trait alone says which response is chosen.\n")
    line(f"Rows that repeat another row: {_named(audit.repeated_rows)}")
    unreadable = f" ({_listed(audit.unreadable)})" if audit.unreadable else ""
    line(f"Pictures: {audit.pictures}. Rows without a readable picture: {len(audit.unreadable)}{unreadable}")
    line(
        f"Rows with nearly the same picture as another row (resized, encoded again): {_named(audit.repeated_pictures)}"
    )
    for name, overlap in audit.overlaps.items():
        unreadable = f"; {overlap.unreadable} cannot be decoded" if overlap.unreadable else ""
        line(f"Pictures of {name}: {len(overlap.found)} of {overlap.pictures} are in {overlap.rows} rows{unreadable}")
        for picture, names in list(overlap.found.items())[:_SHOWN]:
            line(f"  {picture}: {_listed(names)}")


def _named(groups: Mapping[str, list[str]]) -> str:
    """A number of rows, and the first of them with the rows that they repeat."""
    number = sum(map(len, groups.values()))
    shown = [f"{_listed(names)} like {first}" for first, names in list(groups.items())[:_SHOWN]]
    text = "; ".join(shown) + ("; ..." if len(groups) > _SHOWN else "")
    return f"{number}{f' ({text})' if shown else ''}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _fetch(source: Source, root: Path, base_url: str | None) -> bool:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from napo_bench.data.fetch import fetch as fetch_source

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    quiet = not console.err.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console.err, transient=True, disable=quiet) as bars:
        return fetch_source(
            source,
            root,
            base_url=base_url,
            progress=_Arriving(partial(bars.update, bars.add_task(escape(source.target), total=None, visible=False))),
        )


@dataclass(frozen=True)
class _Arriving(Silent):
    """A progress that shows how many bytes of a file are here."""

    show: Callable[..., None]

    def __call__(self, stage: str, done: int, total: int | None, values: Mapping[str, float] = NO_VALUES, /) -> None:
        self.show(completed=done, total=total, visible=True)


def _same_dir(option: Path | None) -> str:
    return f" --data-dir {shlex.quote(str(option))}" if option else ""


def _is_micro(root: Path) -> bool:
    from napo_bench.core.paths import MICRO_STAMP

    return (root / MICRO_STAMP).is_file()


def _add_text_resources(table: Table) -> list[str]:
    """Add the data of the official text pipelines to the table, and return the commands that fetch missing data."""
    from importlib.util import find_spec

    import nltk

    from napo_bench.benchmarks import all_benchmarks
    from napo_bench.benchmarks.text import NLTK_RESOURCES

    missing = []
    for name, place in NLTK_RESOURCES.items():
        try:
            nltk.data.find(place)
        except LookupError:
            if not _is_zipped(place):
                missing.append(name)
        table.add_row(f"NLTK {name}", _MISSING if name in missing else _THERE)
    commands = [f"python -m nltk.downloader {' '.join(missing)}"] if missing else []
    named = [(need, model, one.label) for one in all_benchmarks().values() for need, model in one.spacy_models.items()]
    for need, model, label in sorted(named, key=lambda name: name[0] != "words"):
        is_there = find_spec(model) is not None
        use = label if need == "words" else f"{label} with an LLM {need}"
        table.add_row(escape(f"spaCy {model} ({use})"), _THERE if is_there else _MISSING)
        if not is_there:
            comment = "" if need == "words" else f"  # only for {use}"
            commands.append(f"python -m spacy download {model}{comment}")
    return list(dict.fromkeys(commands))


def _is_zipped(place: str) -> bool:
    import nltk

    return any((Path(folder) / f"{place}.zip").is_file() for folder in nltk.data.path)

"""`napo-bench score`: stored responses -> metrics, without a model and without a GPU."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from napo_bench.cli import console
from napo_bench.cli.begin import begin
from napo_bench.cli.judges import (
    GivenJudges,
    JudgeBaseUrl,
    JudgeMaxRequests,
    JudgeModel,
    JudgeRepeats,
    JudgeRequest,
)
from napo_bench.cli.root import app
from napo_bench.core import disk
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.progress import NO_VALUES, Silent

if TYPE_CHECKING:
    from rich.status import Status

    from napo_bench.benchmarks.benchmark import Benchmark
    from napo_bench.engines.judge import Judge
    from napo_bench.runs.score import ScoreOptions


class _Benchmarks(TyperGroup):
    """One command for each benchmark. A command is made when it is needed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the benchmarks, with hyphens."""
        from napo_bench.benchmarks import all_benchmarks

        return [_hyphened(name) for name in all_benchmarks()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a benchmark, whose name may have hyphens; None if there is no such benchmark."""
        from napo_bench.benchmarks import benchmark_named, benchmark_names

        is_there = cmd_name.replace("-", "_") in benchmark_names()
        return _command(benchmark_named(cmd_name)) if is_there else None


score_app = typer.Typer(cls=_Benchmarks, help="Score stored responses of any model.", no_args_is_help=True)
app.add_typer(score_app, name="score")

Responses = Annotated[Path, typer.Option(help="Responses in the benchmark's official format.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the data. Default: $NAPO_BENCH_DATA, else the user cache folder.")
]
JsonOut = Annotated[
    Path | None, typer.Option("--json", help="Write the result here, and the samples into a folder beside it.")
]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Score the other responses if ids are missing, duplicate or unknown.")
]
Pipeline = Annotated[
    str, typer.Option(help="How words are read: official (NLTK data, spaCy vectors) or closed_vocabulary (no data).")
]
SpacyModel = Annotated[str | None, typer.Option(help="spaCy model, name or path.")]

MaxRefused = Annotated[
    str,
    typer.Option(
        help="Stop if an endpoint or a judge refuses more than this share of the prompts. Fewer refusals are left out."
    ),
]
ThinkingMarks = Annotated[
    list[str] | None,
    typer.Option(
        help="OPENING,CLOSING marks of thoughts, which are not scored; repeatable. Default: <think>,</think>."
    ),
]


@cache
def _status() -> Status:
    return console.err.status("")


_NEEDED = {
    "pipeline": {"words"},
    "spacy_model": {"spacy"},
    "extractor_model": {"extractor"},
    "extractor_base_url": {"extractor"},
    "extractor_max_requests": {"extractor"},
    "extractor_request": {"extractor"},
    "judge_model": {"judge"},
    "judge_repeats": {"judge"},
    "judge_base_url": {"judge"},
    "judge_max_requests": {"judge"},
    "judge_request": {"judge"},
    "max_refused": {"judge", "extractor"},
    "answers": {"yes_no"},
}
"""Option of `_score` -> needs of a benchmark with the option. Every benchmark has the other options."""


def _score(
    benchmark: str,
    responses: Responses,
    data_dir: DataDir = None,
    json_out: JsonOut = None,
    allow_partial: AllowPartial = False,
    pipeline: Pipeline = "official",
    extractor_model: Annotated[
        str | None, typer.Option(help="An LLM that lists each answer's objects. Default: the words of the answer.")
    ] = None,
    extractor_base_url: Annotated[
        str | None, typer.Option(help="Its OpenAI-compatible endpoint. Default: as for a judge.")
    ] = None,
    extractor_max_requests: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many HTTP requests, retries included; replies are kept.")
    ] = None,
    extractor_request: JudgeRequest = None,
    judge_model: JudgeModel = None,
    judge_repeats: JudgeRepeats = 1,
    judge_base_url: JudgeBaseUrl = None,
    judge_max_requests: JudgeMaxRequests = None,
    judge_request: JudgeRequest = None,
    max_refused: MaxRefused = "1%",
    spacy_model: SpacyModel = None,
    answers: Annotated[
        str, typer.Option(help="Yes/no answers count if they are exact, as published; lenient reads the first word.")
    ] = "exact",
    thinking_marks: ThinkingMarks = None,
) -> None:
    from napo_bench.benchmarks import benchmark_named

    scored = benchmark_named(benchmark)
    begin(f"Scoring {responses} by {scored.label}")
    from napo_bench.core.thoughts import read_marks
    from napo_bench.runs.score import ScoreOptions

    of_extractor = extractor_base_url is not None or spacy_model is not None or extractor_request
    if "extractor" in scored.needs and extractor_model is None and of_extractor:
        raise NapoBenchError("An option of the extractor is given, but no extractor.", "Add --extractor-model.")
    marks = read_marks(thinking_marks)
    judges: tuple[Judge, ...] = ()
    extractor = None
    if scored.needs & {"judge", "extractor"}:
        from napo_bench.engines.chat import read_request_fields, read_share
        from napo_bench.engines.judge_options import JudgeOptions, configured_judge, judge_journal

        refusable = read_share(max_refused, "--max-refused")
        if "judge" in scored.needs:
            given = GivenJudges(judge_model, judge_repeats, judge_base_url, judge_max_requests, judge_request)
            judges = given.judges(refusable, marks, _Judged())
        fields = read_request_fields(extractor_request or [], "--extractor-request")
        if extractor_model:
            extractor_options = JudgeOptions(
                (extractor_model,), extractor_base_url, extractor_max_requests, fields, refusable, marks
            )
            extractor = configured_judge(extractor_options, judge_journal(), _Judged())
    options = ScoreOptions(
        allow_partial=allow_partial,
        pipeline=pipeline,
        spacy_model=spacy_model,
        judges=judges,
        extractor=extractor,
        answers=answers,
        source=str(responses),
        thinking_marks=marks,
    )
    _write_score(benchmark, responses, data_dir, json_out, options)


def _command(benchmark: Benchmark) -> Any:
    """The command that scores a benchmark, with the options that it needs."""
    needs = {*benchmark.needs, *(["spacy"] if benchmark.spacy_models else [])}
    everything = inspect.signature(_score, eval_str=True)
    chosen = [
        option
        for name, option in everything.parameters.items()
        if name != "benchmark" and (name not in _NEEDED or _NEEDED[name] & needs)
    ]

    def command(**given: Any) -> None:
        _score(benchmark.name, **given)

    command.__signature__ = everything.replace(parameters=chosen)  # type: ignore[attr-defined]
    one = typer.Typer(add_completion=False, rich_markup_mode="rich")
    text = escape(f"{benchmark.label}: {benchmark.about}\n\n{benchmark.rows}")
    one.command(_hyphened(benchmark.name), help=text)(command)
    return typer.main.get_command(one)


def _hyphened(name: str) -> str:
    return name.replace("_", "-")


class _Judged(Silent):
    """A progress that shows the number of judged prompts."""

    def __call__(self, stage: str, done: int, total: int | None, values: Mapping[str, float] = NO_VALUES, /) -> None:
        _status().update(f"{done} of {total} prompts judged")


def _write_score(
    benchmark: str, responses: Path, data_dir: Path | None, json_out: Path | None, options: ScoreOptions
) -> None:
    from napo_bench.cli.benchmark_tables import print_benchmark
    from napo_bench.core import caches
    from napo_bench.core.files import sha256_file
    from napo_bench.core.paths import data_dir as resolve_data_dir
    from napo_bench.runs import score as scoring
    from napo_bench.runs.provenance import DataUsed, Provenance, ResponsesUsed, given_command, package_versions
    from napo_bench.runs.result import RunResult

    began = time.monotonic()
    if json_out is not None:
        disk.try_file(json_out)
    folder = caches.hold(resolve_data_dir(data_dir))
    _status().update(f"Scoring {benchmark} ...")
    with _status():
        result = scoring.score(benchmark, scoring.read_responses(responses), folder, options)
        hashes = scoring.data_hashes(benchmark, folder)
    if not result.metrics:
        raise NapoBenchError(f"{responses}: {result.notes[-1]}")
    provenance = Provenance(
        command=given_command(),
        responses=ResponsesUsed(str(responses), sha256_file(responses)),
        data=DataUsed(str(folder), hashes),
        versions=package_versions(),
        bootstrap_seed=scoring.BOOTSTRAP_SEED,
        wall_seconds=round(time.monotonic() - began, 3),
    )
    print_benchmark(benchmark, result)
    if json_out is not None:
        RunResult({benchmark: result}, provenance).save(json_out)
        console.err.print(f"Written: {escape(str(json_out))}", highlight=False)

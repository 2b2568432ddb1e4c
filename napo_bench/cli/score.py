"""`napo-bench score`: stored responses -> metrics, with no model and no GPU."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from napo_bench.cli import app, console
from napo_bench.cli.begin import begin
from napo_bench.core import disk
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.progress import NO_VALUES, Silent

if TYPE_CHECKING:
    from napo_bench.benchmarks.metrics import Metric
    from napo_bench.benchmarks.result import BenchmarkResult, MetricValue
    from napo_bench.core.thoughts import Marks
    from napo_bench.engines.judge import Judge
    from napo_bench.runs.score import ScoreOptions

score_app = typer.Typer(help="Score stored responses of any model.", no_args_is_help=True)
app.add_typer(score_app, name="score")

Responses = Annotated[Path, typer.Option(help="Responses in the benchmark's official format.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Holds a folder a benchmark. Default: $NAPO_BENCH_DATA, else the user cache folder.")
]
JsonOut = Annotated[Path | None, typer.Option("--json", help="Write the result here; samples go to a folder beside.")]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Score what is there where ids are missing, duplicate or unknown.")
]
Pipeline = Annotated[
    str, typer.Option(help="How words are read: official (NLTK data, spaCy vectors) or closed_vocabulary (no data).")
]
SpacyModel = Annotated[str | None, typer.Option(help="spaCy model, name or path.")]

JudgeModel = Annotated[str | None, typer.Option(help="The LLM judge. Default: $NAPO_BENCH_JUDGE_MODEL.")]
JudgeBaseUrl = Annotated[
    str | None,
    typer.Option(help="Its OpenAI-compatible endpoint. Default: $NAPO_BENCH_JUDGE_BASE_URL, else OpenAI's own."),
]
JudgeMaxRequests = Annotated[
    int | None, typer.Option(min=1, help="Stop after this many HTTP requests, retries included; replies are kept.")
]
JudgeRequest = Annotated[
    list[str] | None,
    typer.Option(help="key=value: a further request field (reasoning_effort=low); null leaves one out. Repeatable."),
]
MaxRefused = Annotated[
    str,
    typer.Option(
        help="Stop if an endpoint or a judge refuses more than this share of the prompts. Fewer are left out."
    ),
]
ThinkingMarks = Annotated[
    list[str] | None,
    typer.Option(
        help="OPENING,CLOSING marks of thoughts, which are not scored; repeatable. Default: <think>,</think>."
    ),
]
_status = console.err.status("")


@score_app.command("amber")
def amber(
    responses: Responses,
    data_dir: DataDir = None,
    json_out: JsonOut = None,
    allow_partial: AllowPartial = False,
    pipeline: Pipeline = "official",
    spacy_model: SpacyModel = None,
    answers: Annotated[
        str, typer.Option(help="Yes/no answers count if they are exact, as published; lenient reads the first word.")
    ] = "exact",
    thinking_marks: ThinkingMarks = None,
) -> None:
    """AMBER: CHAIR, Cover, Hal, Cog; accuracy and F1 of the discriminative questions.

    RESPONSES is a JSON list of {id, response}. Each half is complete on its own. The spaCy model is en_core_web_lg
    where none is given.
    """
    begin(f"Scoring {responses} by AMBER")
    from napo_bench.core.thoughts import read_marks
    from napo_bench.runs.score import ScoreOptions

    options = ScoreOptions(
        allow_partial=allow_partial,
        pipeline=pipeline,
        spacy_model=spacy_model,
        answers=answers,
        source=str(responses),
        thinking_marks=read_marks(thinking_marks),
    )
    _score("amber", responses, data_dir, json_out, options)


@score_app.command("object_halbench", hidden=True)
@score_app.command("object-halbench")
def object_halbench(
    responses: Responses,
    data_dir: DataDir = None,
    json_out: JsonOut = None,
    allow_partial: AllowPartial = False,
    pipeline: Pipeline = "official",
    extractor_model: Annotated[
        str | None, typer.Option(help="An LLM that lists each answer's objects. Default: the words of the answer.")
    ] = None,
    extractor_base_url: Annotated[
        str | None, typer.Option(help="Its OpenAI-compatible endpoint. Default: as for the judge of mmhal.")
    ] = None,
    extractor_max_requests: JudgeMaxRequests = None,
    extractor_request: JudgeRequest = None,
    max_refused: MaxRefused = "1%",
    spacy_model: SpacyModel = None,
    thinking_marks: ThinkingMarks = None,
) -> None:
    """Object HalBench: CHAIRs and CHAIRi over the COCO objects that answers mention.

    RESPONSES is JSON lines of {image_id, question or prompt, text or answer}. A spaCy model (en_core_web_trf where none
    is given) tags the objects that an extractor lists; words need none.
    """
    begin(f"Scoring {responses} by Object HalBench")
    from napo_bench.core.thoughts import read_marks
    from napo_bench.engines.chat import read_request_fields, read_share
    from napo_bench.runs.score import ScoreOptions

    if extractor_model is None and (extractor_base_url is not None or spacy_model is not None or extractor_request):
        raise NapoBenchError("An option of the extractor is given, but no extractor.", "Add --extractor-model.")
    marks = read_marks(thinking_marks)
    fields = read_request_fields(extractor_request or [], "--extractor-request")
    refusable = read_share(max_refused, "--max-refused")
    extractor = None
    if extractor_model:
        extractor = _judge(extractor_model, extractor_base_url, extractor_max_requests, fields, refusable, marks)
    options = ScoreOptions(
        allow_partial=allow_partial,
        pipeline=pipeline,
        spacy_model=spacy_model,
        extractor=extractor,
        source=str(responses),
        thinking_marks=marks,
    )
    _score("object_halbench", responses, data_dir, json_out, options)


@score_app.command("vlind")
def vlind(
    responses: Responses,
    data_dir: DataDir = None,
    json_out: JsonOut = None,
    allow_partial: AllowPartial = False,
    thinking_marks: ThinkingMarks = None,
) -> None:
    """VLind-Bench: CK, VP, CB and LP, by concept and by picture style.

    RESPONSES is JSON lines of {context_id, concept, test, statement, image_id, text}; statement 1 must be True.
    """
    begin(f"Scoring {responses} by VLind-Bench")
    from napo_bench.core.thoughts import read_marks
    from napo_bench.runs.score import ScoreOptions

    options = ScoreOptions(
        allow_partial=allow_partial, source=str(responses), thinking_marks=read_marks(thinking_marks)
    )
    _score("vlind", responses, data_dir, json_out, options)


@score_app.command("mmhal")
def mmhal(
    responses: Responses,
    data_dir: DataDir = None,
    json_out: JsonOut = None,
    allow_partial: AllowPartial = False,
    judge_model: JudgeModel = None,
    judge_base_url: JudgeBaseUrl = None,
    judge_max_requests: JudgeMaxRequests = None,
    judge_request: JudgeRequest = None,
    max_refused: MaxRefused = "1%",
    thinking_marks: ThinkingMarks = None,
) -> None:
    """MMHal-Bench: score, hallucination rate and informativeness, rated by an LLM judge.

    RESPONSES is the template's JSON list with model_answer filled, or the samples of a judged run.

    The judge's key is $NAPO_BENCH_JUDGE_API_KEY, else $OPENAI_API_KEY. Its replies are kept and not asked for again.
    """
    begin(f"Scoring {responses} by MMHal-Bench")
    from napo_bench.core.thoughts import read_marks
    from napo_bench.engines.chat import read_request_fields, read_share
    from napo_bench.runs.score import ScoreOptions

    marks = read_marks(thinking_marks)
    fields = read_request_fields(judge_request or [], "--judge-request")
    refusable = read_share(max_refused, "--max-refused")
    judge = _judge(judge_model, judge_base_url, judge_max_requests, fields, refusable, marks)
    options = ScoreOptions(allow_partial=allow_partial, judge=judge, source=str(responses), thinking_marks=marks)
    _score("mmhal", responses, data_dir, json_out, options)


def _judge(
    model: str | None,
    base_url: str | None,
    max_requests: int | None,
    request: dict[str, Any],
    max_refused: float,
    marks: Marks,
) -> Judge | None:
    from napo_bench.engines.judge import configured_judge, judge_journal

    return configured_judge(model, base_url, judge_journal(), max_requests, _Judged(), request, max_refused, marks)


class _Judged(Silent):
    """A progress that says how many prompts are judged."""

    def __call__(self, stage: str, done: int, total: int | None, values: Mapping[str, float] = NO_VALUES, /) -> None:
        _status.update(f"{done} of {total} prompts judged")


def _score(
    benchmark: str, responses: Path, data_dir: Path | None, json_out: Path | None, options: ScoreOptions
) -> None:
    from napo_bench.core.files import sha256_file
    from napo_bench.core.paths import data_dir as resolve_data_dir
    from napo_bench.runs import score as scoring
    from napo_bench.runs.result import RunResult, package_versions

    began = time.monotonic()
    if json_out is not None:
        disk.try_file(json_out)
    folder = resolve_data_dir(data_dir)
    _status.update(f"Scoring {benchmark} ...")
    with _status:
        result = scoring.score(benchmark, scoring.read_responses(responses), folder, options)
        hashes = scoring.data_hashes(benchmark, folder)
    if not result.metrics:
        raise NapoBenchError(f"{responses}: {result.notes[-1]}")
    provenance = {
        "command": shlex.join(["napo-bench", *sys.argv[1:]]),
        "responses": {"path": str(responses), "sha256": sha256_file(responses)},
        "data": {"path": str(folder), "sha256": hashes},
        "versions": package_versions(),
        "bootstrap_seed": scoring.BOOTSTRAP_SEED,
        "wall_seconds": round(time.monotonic() - began, 3),
    }
    print_benchmark(benchmark, result)
    if json_out is not None:
        RunResult({benchmark: result}, provenance).save(json_out)
        console.err.print(f"Written: {escape(str(json_out))}", highlight=False)


def print_benchmark(name: str, result: BenchmarkResult) -> None:
    """Print one benchmark's metrics with their intervals, its breakdown, and its notes."""
    from napo_bench.benchmarks import benchmark_named

    benchmark = benchmark_named(name)
    known = {metric.name: metric for metric in benchmark.metrics if metric.name in result.metrics}
    part = "" if result.complete else " (over a part of the benchmark)"
    table = Table()
    table.add_column("metric")
    for heading in ("value", "95% interval", "n"):
        table.add_column(heading, justify="right")
    for metric, value in result.metrics.items():
        low, high = map(known[metric].format, value.ci95)
        table.add_row(
            f"{metric} {known[metric].arrow}", known[metric].format(value.value), f"{low} - {high}", str(value.n)
        )
    console.out.print(f"[bold]{benchmark.label}[/bold]{part}", highlight=False)
    if result.metrics:
        console.out.print(table)
    if result.breakdown:
        console.out.print(_breakdown_table(known, result.breakdown))
    for doubt in result.doubts:
        console.out.print(f"[red]no measurement[/red] {escape(doubt)}", highlight=False)
    for note in result.notes:
        console.out.print(f"[yellow]note[/yellow] {escape(note)}", highlight=False)


def _breakdown_table(known: Mapping[str, Metric], breakdown: Mapping[str, Mapping[str, MetricValue]]) -> Table:
    table = Table()
    table.add_column("group", overflow="fold")
    metrics = [metric for metric in known if any(metric in values for values in breakdown.values())]
    for metric in (*metrics, "n"):
        table.add_column(metric, justify="right")
    for group, values in breakdown.items():
        cells = [known[metric].format(values[metric].value) if metric in values else "" for metric in metrics]
        table.add_row(escape(group), *cells, str(max(value.n for value in values.values())))
    return table

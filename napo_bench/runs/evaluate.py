"""checkpoint -> questions -> answers -> official responses -> RunResult."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo_bench.benchmarks import all_tasks, default_suite
from napo_bench.benchmarks.benchmark import PROFILES
from napo_bench.benchmarks.text import PIPELINES
from napo_bench.benchmarks.unanswered import sent_field
from napo_bench.core import caches, files, links, locks, processes
from napo_bench.core.errors import NapoBenchError, unknown_name
from napo_bench.core.journal import Journal
from napo_bench.core.names import CONTROLS, MICRO
from napo_bench.core.paths import data_dir as resolve_data_dir
from napo_bench.core.progress import SILENT, Progress
from napo_bench.core.shared_journal import shared_journal
from napo_bench.engines import BATCH_SIZE, SEED
from napo_bench.engines.answering import Answering
from napo_bench.engines.clock import Clock, merged_stages
from napo_bench.engines.engine import EngineOptions
from napo_bench.engines.registry import engine_named
from napo_bench.models.device import require_device, require_dtype
from napo_bench.models.folders import require_no_checkpoint
from napo_bench.models.quantization import require_kind
from napo_bench.runs import prompts
from napo_bench.runs import score as scoring
from napo_bench.runs.identity import (
    Identity,
    evaluation_dtype,
    evaluation_identity,
    held_run,
    require_no_replacement,
)
from napo_bench.runs.provenance import CheckpointUsed, DataUsed, Provenance, given_command
from napo_bench.runs.questions import TaskQuestions
from napo_bench.runs.result import RunResult
from napo_bench.runs.score import Row, ScoreOptions
from napo_bench.runs.served import another_model_note, reported

if TYPE_CHECKING:
    from napo_bench.benchmarks.benchmark import Benchmark
    from napo_bench.benchmarks.question import BenchmarkData, Question
    from napo_bench.engines.answer import ModelAnswer
    from napo_bench.engines.engine import Engine

_OF_ENGINES = ("trust_remote_code", "conversation", "chat_template_kwargs", "quantization", "api_base_url", "request")
"""Options that are refused if the engine does not take them."""
JOURNAL = "journal.sqlite"
"""File of a run's answers in its folder."""


@dataclass(frozen=True)
class EvalOptions:
    """Options of an evaluation.

    Attributes:
        suite: Names of tasks.
        data_dir: Folder with one folder for each benchmark; None is NAPO_BENCH_DATA, else the user's cache folder.
        profile: Name of a generation profile, of PROFILES.
        batch_size: Prompts in one forward.
        limit: Number of units of each benchmark (VLind-Bench: instances, else questions); None is all units.
        dtype: "auto" is the profile's number type on CUDA, else float32.
        device: Device; None is the best device, "auto" is all accelerators of the machine.
        quantization: "4bit" or "8bit" weights by bitsandbytes; None is the weights as they are stored.
        trust_remote_code: Whether to run code of the checkpoint.
        conversation: Conversation of LLaVA-1.5, "llava_v1" or "vicuna_v1"; None is that of the checkpoint, which is
            "llava_v1" if it does not say.
        chat_template_kwargs: Values of variables of the checkpoint's own chat template.
        engine: Name of the engine; None is `api` if there is an `api_base_url`, else `hf`.
        api_base_url: URL of an OpenAI-compatible endpoint. The checkpoint is then a model's name, `batch_size` is the
            number of requests in flight, and `dtype` and `device` have no effect.
        request: Further request fields for the endpoint.
        max_refused: Share of the prompts that the endpoint may refuse. Refused prompts are unanswered.
        scoring: Options of scoring, and the marks around thoughts.
    """

    suite: Sequence[str] = field(default_factory=default_suite)
    data_dir: Path | None = None
    profile: str = "greedy"
    batch_size: int = BATCH_SIZE
    limit: int | None = None
    dtype: str = "auto"
    device: str | None = None
    quantization: str | None = None
    trust_remote_code: bool = False
    conversation: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    engine: str | None = None
    api_base_url: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    max_refused: float = 0.01
    scoring: ScoreOptions = field(default_factory=ScoreOptions)

    @property
    def engine_name(self) -> str:
        """Name of the engine that answers."""
        return self.engine or ("hf" if self.api_base_url is None else "api")

    @property
    def for_engine(self) -> EngineOptions:
        """The options that the engine gets."""
        return EngineOptions(
            batch_size=self.batch_size,
            device=self.device,
            dtype=evaluation_dtype(self),
            quantization=self.quantization,
            trust_remote_code=self.trust_remote_code,
            conversation=self.conversation,
            chat_template_kwargs=self.chat_template_kwargs,
            api_base_url=self.api_base_url,
            request=self.request,
            max_refused=self.max_refused,
            thinking_marks=self.scoring.thinking_marks,
        )


def identity_of(checkpoint: str, options: EvalOptions) -> Identity:
    """The identity that an evaluation has before its model is loaded."""
    fingerprint, asked_in = engine_named(options.engine_name).known_by(checkpoint, options.for_engine)
    return evaluation_identity(fingerprint, options, _data_hashes(options), asked_in)


def evaluate(
    checkpoint: str, out: Path, options: EvalOptions, progress: Progress = SILENT, *, replace: bool = False
) -> RunResult | None:
    """Evaluate a checkpoint. Under torchrun or accelerate every process calls this function.

    Each answer is in `out/journal.sqlite` as soon as its batch is done, so the same call continues where an earlier
    call stopped. The function writes `out/responses/` in the official formats, `out/run.json` and `out/samples/`.

    Args:
        checkpoint: Folder or hub name, of a model or of a PEFT adapter; or a model behind `options.api_base_url`.
        out: Folder of the run, which is made if it does not exist.
        options: Options of the evaluation.
        progress: Progress of each stage, in the first process.
        replace: Whether the run may replace a finished run of other settings.

    Returns:
        The result; None in every process but the first. A finished run of the same identity is read, not made again.

    Raises:
        NapoBenchError: the checkpoint, data or what a scorer needs is missing or malformed, the judge or the endpoint
            does not work, or `out` holds a finished run of other settings. All of this is tried before the model is
            loaded.
    """
    require_no_checkpoint(out)
    with locks.output_folder(out):
        links.refuse_links(out, "responses", "samples", JOURNAL)
        return _evaluate(checkpoint, out, options, progress, replace)


def _evaluate(checkpoint: str, out: Path, options: EvalOptions, progress: Progress, replace: bool) -> RunResult | None:
    began = time.monotonic()
    is_first = processes.is_first()
    tell = progress if is_first else SILENT
    data_dir = caches.hold(resolve_data_dir(options.data_dir))
    score_options = dataclasses.replace(options.scoring, allow_partial=options.limit is not None, answers="lenient")
    _check(checkpoint, options)
    is_new = not (out / "run.json").is_file()
    if is_first and (held := held_run(out)) is not None:
        finished, then = held
        wanted = identity_of(checkpoint, options)
        if then == wanted and _is_final(out, options):
            tell("Evaluated already", 1, 1)
            return finished
        if not replace:
            require_no_replacement(out, then, wanted)
        is_new = then != wanted
    tasks = _read_suite(options, data_dir, tell)
    tell("Loading", 0, 1)
    engine = engine_named(options.engine_name).open(checkpoint, options.for_engine)
    engine.require_pictures(max(task.most_pictures for task in tasks))
    tell("Loading", 1, 1)
    if is_first:
        if is_new:
            engine.reach()
            reach_judge(options)
        _rehearse(tasks, score_options, tell)
    with shared_journal(out / JOURNAL) as journal:
        requests = [request for task in tasks for request in task.requests()]
        answering = Answering(engine, journal, tell)
        answers = answering.answer_together(requests)
    stages = processes.gathered([answering.stages()]) if not processes.is_alone() else [answering.stages()]
    if not is_first:
        return None
    rows, said = _rows(tasks, answers, prompts.first_sent(engine, tasks)), _said(tasks, answers)
    results, computed, clock = {}, engine.provenance(), Clock()
    for done, (benchmark, responses) in enumerate(rows.items()):
        tell("Scoring", done, len(rows))
        path = _write_responses(out / "responses", benchmark, responses)
        parts = [task for task in tasks if task.benchmark is benchmark]
        asked = [question for task in parts for question in task.questions]
        source = dataclasses.replace(score_options, source=str(path))
        with clock("judging" if _asks_llm(benchmark, source) else "scoring"):
            result = scoring.score_answers(benchmark, parts[0].data, asked, responses, source)
        settings = parts[0].settings
        result.settings["generation"] = {"profile": options.profile, **settings, **engine.settings()}
        if engine.asked_in is not None:
            result.settings["conversation"] = engine.asked_in
        result.notes += _precision_note(computed.get("dtype"), options.batch_size)
        result.notes += _control_note(engine)
        result.notes += engine.remarks()
        result.notes += another_model_note(checkpoint, said[benchmark])
        result.notes += _quantized_note(computed.get("quantization"))
        result.notes += _cleaned_note(engine, [question.prompt for question in asked])
        results[benchmark.name] = result
    tell("Scoring", len(rows), len(rows))
    identity = evaluation_identity(engine.fingerprint, options, _data_hashes(options), engine.asked_in)
    provenance = Provenance(
        command=given_command(),
        checkpoint=CheckpointUsed(checkpoint, _folder(checkpoint, options), engine.fingerprint, engine.control),
        generation={
            "profile": options.profile,
            "batch_size": options.batch_size,
            "seed": SEED,
            "engine": options.engine_name,
            **computed,
            **reported(answers),
            "processes": processes.count(),
        },
        suite=tuple(options.suite),
        limit=options.limit,
        data=DataUsed(str(data_dir), identity["data"]),
        versions=identity["versions"],
        identity=identity,
        bootstrap_seed=scoring.BOOTSTRAP_SEED,
        wall_seconds=round(time.monotonic() - began, 3),
        stages=merged_stages([*stages, clock.stages()]),
    )
    run = RunResult(results, provenance)
    run.save(out / "run.json")
    return run


def _asks_llm(benchmark: Benchmark, options: ScoreOptions) -> bool:
    """Whether a judge or an extractor is asked when the benchmark is scored."""
    judged, extracted = "judge" in benchmark.needs, "extractor" in benchmark.needs
    return (judged and bool(options.judges)) or (extracted and options.extractor is not None)


def _precision_note(dtype: str | None, batch_size: int) -> list[str]:
    """One note if an answer depends on its batch: in half precision."""
    if dtype in (None, "float32"):
        return []
    return [f"generated in {dtype} in batches of {batch_size}: an answer may differ in another batch"]


def _control_note(engine: Engine) -> list[str]:
    """One note if the model was trained as a control."""
    return [f"a control: the checkpoint was trained with {CONTROLS[engine.control]}"] if engine.control else []


def _quantized_note(quantization: str | None) -> list[str]:
    """One note if the weights are quantized, or none."""
    return [f"weights quantized: {quantization}"] if quantization else []


def _is_final(out: Path, options: EvalOptions) -> bool:
    """Whether a second evaluation could add nothing to a finished run: its files exist and its stored answers are
    undamaged.

    An endpoint may be asked again for unanswered prompts.

    Several processes always evaluate, because the others do not know what the first process reads.
    """
    judges, extractor = options.scoring.judges, options.scoring.extractor
    asks_judge = extractor is not None or not all(judge.rates_everything for judge in judges)
    asks = asks_judge or engine_named(options.engine_name).asks_again
    written = all(_responses_file(out / "responses", all_tasks()[name][0]).is_file() for name in options.suite)
    if not processes.is_alone() or asks or not written or not (out / JOURNAL).is_file():
        return False
    with Journal(out / JOURNAL) as journal:
        return journal.is_intact()


def _folder(checkpoint: str, options: EvalOptions) -> str | None:
    """A local checkpoint's folder, so that a report finds the training log from any folder; None for any other
    checkpoint.
    """
    local = options.api_base_url is None and Path(checkpoint).is_dir()
    return str(Path(checkpoint).resolve()) if local else None


def _data_hashes(options: EvalOptions) -> dict[str, str]:
    folder = resolve_data_dir(options.data_dir)
    read = dict.fromkeys(all_tasks()[name][0].name for name in options.suite)
    return {name: digest for benchmark in read for name, digest in scoring.data_hashes(benchmark, folder).items()}


def suite_named(text: str) -> list[str]:
    """The names in a suite such as "vlind,object-halbench", or "micro"."""
    return [name.strip().lower().replace("-", "_") for name in text.split(",") if name.strip()]


def require_checkpoint(checkpoint: str, options: EvalOptions) -> None:
    """Raises NapoBenchError if there is no such checkpoint."""
    engine_named(options.engine_name).require(checkpoint)


def require_hardware(options: EvalOptions) -> None:
    """Raises NapoBenchError if the options name a device or a number type that does not exist."""
    require_dtype(options.dtype)
    require_kind(options.quantization)
    require_device(options.device)


def _check(checkpoint: str, options: EvalOptions) -> None:
    if not options.suite:
        raise NapoBenchError(
            "The suite is empty.",
            f"Name some of {', '.join(all_tasks())}, separated by commas, or {MICRO}: --suite vlind,amber",
        )
    if MICRO in options.suite:
        raise NapoBenchError(
            f"The suite {','.join(options.suite)} mixes {MICRO} with other benchmarks.",
            f"The micro world has its own data and judge: give --suite {MICRO} alone, or leave {MICRO} out.",
        )
    for name in options.suite:
        if name not in all_tasks():
            raise unknown_name("benchmark", name, [*all_tasks(), MICRO], "--suite")
    if options.profile not in PROFILES:
        raise unknown_name("generation profile", options.profile, PROFILES)
    require_hardware(options)
    takes = engine_named(options.engine_name).takes
    for name in _OF_ENGINES:
        if getattr(options, name) and name not in takes:
            raise NapoBenchError(
                f"The engine {options.engine_name} takes no --{name.replace('_', '-')}.",
                "Leave the option out, or name an engine that takes it: --engine NAME, or --api-base-url URL for an "
                "endpoint.",
            )
    if options.scoring.pipeline not in PIPELINES:
        raise unknown_name("text pipeline", options.scoring.pipeline, PIPELINES)
    require_checkpoint(checkpoint, options)


def _read_suite(options: EvalOptions, data_dir: Path, tell: Progress) -> list[TaskQuestions]:
    tell("Reading", 0, len(options.suite))
    tasks: list[TaskQuestions] = []
    data: dict[Benchmark, BenchmarkData] = {}
    for name in options.suite:
        benchmark, task = all_tasks()[name]
        if benchmark not in data:
            data[benchmark] = benchmark.open(data_dir / benchmark.name).under(options.profile)
        tasks.append(TaskQuestions.read(benchmark, data[benchmark], task, options.profile, options.limit))
        tell("Reading", len(tasks), len(options.suite))
    return tasks


def try_evaluation(checkpoint: str, options: EvalOptions) -> None:
    """Try everything that an evaluation needs, without loading or asking the model.

    Raises:
        NapoBenchError: device, checkpoint, data, judge or a scorer's need is missing or damaged, or does not work.
    """
    data_dir = resolve_data_dir(options.data_dir)
    _check(checkpoint, options)
    tasks = _read_suite(options, data_dir, SILENT)
    engine = engine_named(options.engine_name)
    engine.known_by(checkpoint, options.for_engine)
    engine.writer(checkpoint, options.for_engine).require_pictures(max(task.most_pictures for task in tasks))
    reach_judge(options)
    scoring_options = dataclasses.replace(options.scoring, allow_partial=options.limit is not None, answers="lenient")
    _rehearse(tasks, scoring_options, SILENT)


def first_prompts(checkpoint: str, options: EvalOptions) -> dict[str, dict[str, Any]]:
    """Task of the suite -> its first prompt as the model gets it. No weights are loaded, and an endpoint is not asked.

    Raises:
        NapoBenchError: checkpoint or data is missing or damaged.
    """
    _check(checkpoint, options)
    tasks = _read_suite(options, resolve_data_dir(options.data_dir), SILENT)
    writer = engine_named(options.engine_name).writer(checkpoint, options.for_engine)
    writer.require_pictures(max(task.most_pictures for task in tasks))
    return prompts.shown(writer, tasks)


def reach_judge(options: EvalOptions) -> None:
    """Let each judge of the options rate a human's answer, if the suite needs a judge.

    Raises:
        NapoBenchError: a judge cannot be reached, or refuses its key or model.
    """
    if not options.scoring.judges:
        return
    for benchmark in dict.fromkeys(all_tasks()[name][0] for name in options.suite):
        if benchmark.try_judge is not None:
            data = benchmark.open(resolve_data_dir(options.data_dir) / benchmark.name)
            for judge in options.scoring.judges:
                benchmark.try_judge(judge, data)


def _rehearse(tasks: Sequence[TaskQuestions], options: ScoreOptions, tell: Progress) -> None:
    """Score empty answers, without an LLM, to find before hours of generation what the scorers lack."""
    without_llm = dataclasses.replace(options, judges=(), extractor=None, source="a rehearsal with empty answers")
    for done, task in enumerate(tasks):
        tell("Checking", done, len(tasks))
        rows = [question.response_row("") for question in task.questions]
        scoring.score_answers(task.benchmark, task.data, task.questions, rows, without_llm)
    tell("Checking", len(tasks), len(tasks))


def _rows(
    tasks: Sequence[TaskQuestions], answers: Sequence[ModelAnswer], sent: Mapping[Question, dict[str, Any]]
) -> dict[Benchmark, list[Row]]:
    """The official response rows of each benchmark, in the benchmark's order.

    Args:
        tasks: The questions.
        answers: The answer to each question.
        sent: Question -> the prompt that was sent, for the questions whose row contains the prompt.
    """
    rows: dict[Benchmark, list[Row]] = {}
    remaining = iter(answers)
    for task in tasks:
        answered = zip(task.questions, itertools.islice(remaining, len(task.questions)), strict=True)
        responses = [
            question.response_row(answer.strip()) | answer.beside() | sent_field(sent.get(question))
            for question, answer in answered
        ]
        rows.setdefault(task.benchmark, []).extend(responses)
    return rows


def _said(tasks: Sequence[TaskQuestions], answers: Sequence[ModelAnswer]) -> dict[Benchmark, list[ModelAnswer]]:
    """The answers of each benchmark."""
    said: dict[Benchmark, list[ModelAnswer]] = {}
    remaining = iter(answers)
    for task in tasks:
        said.setdefault(task.benchmark, []).extend(itertools.islice(remaining, len(task.questions)))
    return said


def _cleaned_note(engine: Engine, prompts: Sequence[str]) -> list[str]:
    """One note with the number of questions that held control tokens of a local model, or none."""
    count = sum(engine.cleans(prompt) for prompt in prompts)
    return [f"control tokens of the model were removed from {count} of {len(prompts)} questions"] if count else []


def _write_responses(folder: Path, benchmark: Benchmark, rows: Sequence[Row]) -> Path:
    path = _responses_file(folder, benchmark)
    if benchmark.responses == "jsonl":
        files.write_jsonl(path, rows)
    else:
        files.write_json(path, list(rows))
    return path


def _responses_file(folder: Path, benchmark: Benchmark) -> Path:
    return folder / f"{benchmark.name}.{benchmark.responses}"

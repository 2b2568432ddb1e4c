"""checkpoint -> lmms-eval -> official responses -> RunResult."""

from __future__ import annotations

import dataclasses
import importlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo_bench.benchmarks import all_tasks, benchmark_named, default_suite
from napo_bench.benchmarks.benchmark import PROFILES
from napo_bench.benchmarks.text import PIPELINES
from napo_bench.core import files, locks
from napo_bench.core.errors import NapoBenchError, unknown_name
from napo_bench.core.paths import data_dir as resolve_data_dir
from napo_bench.core.progress import SILENT, Progress
from napo_bench.engines import BATCH_SIZE
from napo_bench.micro import MICRO, MICRO_TASKS
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.device import require_device, require_dtype
from napo_bench.runs import score as scoring
from napo_bench.runs.identity import Identity, evaluation_identity, held_run, require_no_replacement
from napo_bench.runs.provenance import CheckpointUsed, DataUsed, Provenance, given_command
from napo_bench.runs.result import RunResult
from napo_bench.runs.score import Row, ScoreOptions

if TYPE_CHECKING:
    from napo_bench.engines.api import NapoAPI
    from napo_bench.engines.hf import NapoHF
    from napo_bench.lmms.task import BenchmarkTask

SEED = 0


@dataclass(frozen=True)
class EvalOptions:
    """How a checkpoint is evaluated.

    Attributes:
        suite: Names of tasks.
        data_dir: Folder with one folder for each benchmark; None is NAPO_BENCH_DATA, else the user's cache folder.
        profile: Of PROFILES; "paper" is 3 beams at temperature 0.2 as in its released script, VLind-Bench greedy.
        batch_size: Prompts in one forward.
        limit: Only the first units of each benchmark (VLind-Bench: instances, else questions).
        dtype: "auto" is bfloat16 on CUDA, else float32.
        device: None is the best that is there.
        trust_remote_code: Run code that the checkpoint brings.
        api_base_url: The checkpoint is the name of a model behind this OpenAI-compatible endpoint; `batch_size` is then
            the number of requests in flight, and `dtype` and `device` mean nothing.
        request: Further request fields for the endpoint.
        max_refused: Share of the prompts that the endpoint may refuse; they are unanswered.
        scoring: How responses are scored, and what encloses thoughts.
    """

    suite: Sequence[str] = field(default_factory=default_suite)
    data_dir: Path | None = None
    profile: str = "greedy"
    batch_size: int = BATCH_SIZE
    limit: int | None = None
    dtype: str = "auto"
    device: str | None = None
    trust_remote_code: bool = False
    api_base_url: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    max_refused: float = 0.01
    scoring: ScoreOptions = field(default_factory=ScoreOptions)


def identity_of(checkpoint: str, options: EvalOptions) -> Identity:
    """The identity that an evaluation has before its model is loaded."""
    if options.api_base_url is None:
        fingerprint = Checkpoint.open(checkpoint, trust_remote_code=options.trust_remote_code).fingerprint()
    else:
        from napo_bench.engines.endpoint import public_url

        fingerprint = f"{checkpoint} at {public_url(options.api_base_url)}"
    return evaluation_identity(fingerprint, options, _data_hashes(options))


def evaluate(
    checkpoint: str, out: Path, options: EvalOptions, progress: Progress = SILENT, *, replace: bool = False
) -> RunResult | None:
    """Evaluate a checkpoint; under torchrun or accelerate, in every process.

    Each answer is in `out/journal.sqlite` as soon as its batch is done, so the same call goes on where an earlier one
    was stopped. Leaves `out/responses/` in the official formats, `out/run.json` and `out/samples/`.

    Args:
        checkpoint: Folder or hub name, of a model or of a PEFT adapter; or a model behind `options.api_base_url`.
        out: Folder of the run; made where it does not exist.
        options: How.
        progress: Is told, in the first process, how far each stage is.
        replace: Let the run replace a finished one of other settings.

    Returns:
        The result; None in every process but the first. A finished run of the same identity is read, not made again.

    Raises:
        NapoBenchError: the checkpoint, data or what a scorer needs is missing or malformed, the judge or the endpoint
            does not work, or `out` holds a finished run of other settings. All of this is tried before the model is
            loaded.
    """
    with locks.output_folder(out):
        return _evaluate(checkpoint, out, options, progress, replace)


def _evaluate(checkpoint: str, out: Path, options: EvalOptions, progress: Progress, replace: bool) -> RunResult | None:
    began = time.monotonic()
    is_first = os.environ.get("RANK", "0") == "0"
    tell = progress if is_first else SILENT
    data_dir = resolve_data_dir(options.data_dir)
    score_options = dataclasses.replace(options.scoring, allow_partial=options.limit is not None, answers="lenient")
    _check(options)
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
    if is_first and options.api_base_url is None:
        Checkpoint.open(checkpoint, trust_remote_code=options.trust_remote_code).open_parts()
    tasks = _open_tasks(options, data_dir, tell)
    journal = out / "journal.sqlite"
    endpoint = _open_endpoint(checkpoint, journal, options)
    if is_first:
        if is_new:
            if endpoint is not None:
                endpoint.reach()
            reach_judge(options)
        _rehearse(tasks, data_dir, options.limit, score_options, tell)
    tell("Loading", 0, 1)
    model: Any = endpoint or _open_checkpoint(checkpoint, journal, options)
    model.progress = tell
    tell("Loading", 1, 1)
    rows = _ask(model, tasks, options.limit)
    if rows is None:
        return None
    results, computed = {}, _computed(model, endpoint)
    for done, (benchmark, responses) in enumerate(rows.items()):
        tell("Scoring", done, len(rows))
        path = _write_responses(out / "responses", benchmark, responses)
        result = scoring.score(benchmark, responses, data_dir, dataclasses.replace(score_options, source=str(path)))
        generation = next(task.config.generation_kwargs for task in tasks if task.benchmark == benchmark)
        result.settings["generation"] = {
            "profile": options.profile,
            **generation,
            **(endpoint.settings() if endpoint else {}),
        }
        dtype, is_sampled = computed.get("dtype"), generation.get("do_sample", False)
        result.notes += _precision_note(dtype, options.batch_size, is_sampled)
        result.notes += _cleaned_note(model, [task for task in tasks if task.benchmark == benchmark], options.limit)
        results[benchmark] = result
    tell("Scoring", len(rows), len(rows))
    identity = evaluation_identity(model.fingerprint, options, _data_hashes(options))
    provenance = Provenance(
        command=given_command(),
        checkpoint=CheckpointUsed(checkpoint, _folder(checkpoint, options), model.fingerprint),
        generation={"profile": options.profile, "batch_size": options.batch_size, "seed": SEED, **computed},
        suite=tuple(options.suite),
        limit=options.limit,
        data=DataUsed(str(data_dir), identity["data"]),
        versions=identity["versions"],
        identity=identity,
        bootstrap_seed=scoring.BOOTSTRAP_SEED,
        wall_seconds=round(time.monotonic() - began, 3),
    )
    run = RunResult(results, provenance)
    run.save(out / "run.json")
    return run


def _precision_note(dtype: str | None, batch_size: int, is_sampled: bool) -> list[str]:
    """One note if an answer depends on its batch: in half precision, unless answers are drawn one at a time."""
    if dtype in (None, "float32") or is_sampled:
        return []
    return [f"generated in {dtype} in batches of {batch_size}: an answer may differ in another batch"]


def _is_final(out: Path, options: EvalOptions) -> bool:
    """Whether evaluating again could add nothing to a finished run: its files are there and its stored answers whole.

    An endpoint may be asked again for what it did not answer.

    Several processes always evaluate: the others do not know what the first one reads.
    """
    from napo_bench.core.journal import Journal
    from napo_bench.micro.oracle import MODEL

    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    judge, extractor = options.scoring.judge, options.scoring.extractor
    asks = options.api_base_url is not None or extractor is not None or (judge is not None and judge.model != MODEL)
    written = all(_responses_file(out / "responses", all_tasks()[name][0].name).is_file() for name in options.suite)
    if not alone or asks or not written or not (out / "journal.sqlite").is_file():
        return False
    with Journal(out / "journal.sqlite") as journal:
        return journal.is_intact()


def _folder(checkpoint: str, options: EvalOptions) -> str | None:
    """A local checkpoint's folder, so that a report finds its training log from anywhere; None for any other."""
    local = options.api_base_url is None and Path(checkpoint).is_dir()
    return str(Path(checkpoint).resolve()) if local else None


@contextmanager
def micro_world(options: EvalOptions) -> Iterator[EvalOptions]:
    """The options with the micro world's data, its text pipeline, and the oracle as judge, which runs in this block."""
    _require_hardware(options)
    from napo_bench.core.journal import Journal
    from napo_bench.engines.endpoint import Endpoint
    from napo_bench.engines.judge import Judge
    from napo_bench.micro.data import ensure_data
    from napo_bench.micro.oracle import MODEL, oracle_judge

    with tempfile.TemporaryDirectory() as folder, oracle_judge() as url, Journal(Path(folder) / "judge") as journal:
        oracle = Endpoint(MODEL, url, api_key=None, journal=journal)
        judge = Judge(oracle, address="the micro world's oracle")
        scoring_options = dataclasses.replace(options.scoring, pipeline="closed_vocabulary", judge=judge)
        data_dir = options.data_dir or ensure_data()
        yield dataclasses.replace(options, suite=MICRO_TASKS, data_dir=data_dir, scoring=scoring_options)


def _data_hashes(options: EvalOptions) -> dict[str, str]:
    folder = resolve_data_dir(options.data_dir)
    read = dict.fromkeys(all_tasks()[name][0].name for name in options.suite)
    return {name: digest for benchmark in read for name, digest in scoring.data_hashes(benchmark, folder).items()}


def suite_named(text: str) -> list[str]:
    """The names in a suite such as "vlind,object-halbench", or "micro"."""
    return [name.strip().lower().replace("-", "_") for name in text.split(",") if name.strip()]


def _require_hardware(options: EvalOptions) -> None:
    if options.api_base_url is None:
        require_dtype(options.dtype)
        require_device(options.device)


def _check(options: EvalOptions) -> None:
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
    if options.scoring.pipeline not in PIPELINES:
        raise unknown_name("text pipeline", options.scoring.pipeline, PIPELINES)
    _require_hardware(options)


def _open_tasks(options: EvalOptions, data_dir: Path, tell: Progress) -> list[BenchmarkTask]:
    tell("Reading", 0, len(options.suite))
    try:
        importlib.import_module("lmms_eval.evaluator")
    except ImportError as error:
        raise NapoBenchError(
            f"lmms-eval cannot be imported: {error}.",
            "Install napo-bench with the versions that its tests passed with: pip install -c constraints.txt .",
        ) from None
    from loguru import logger

    from napo_bench.lmms.task import BenchmarkTask

    logger.disable("lmms_eval")
    tasks = []
    for name in options.suite:
        task = BenchmarkTask({"task": f"napo_{name}", "class": BenchmarkTask, "member": name}, data_dir)
        task.config.generation_kwargs.update(task.part.generation(options.profile))
        task.require_pictures(options.limit)
        tasks.append(task)
        tell("Reading", len(tasks), len(options.suite))
    return tasks


def _open_endpoint(checkpoint: str, journal: Path, options: EvalOptions) -> NapoAPI | None:
    """The model behind the options' endpoint; None if they name none."""
    if options.api_base_url is None:
        return None
    from napo_bench.engines.api import NapoAPI

    return NapoAPI(
        checkpoint,
        options.api_base_url,
        options.batch_size,
        journal=journal,
        request=options.request,
        max_refused=options.max_refused,
        thinking_marks=options.scoring.thinking_marks,
    )


def _open_checkpoint(checkpoint: str, journal: Path, options: EvalOptions) -> NapoHF:
    from napo_bench.engines.hf import NapoHF

    return NapoHF(
        checkpoint,
        options.batch_size,
        options.device,
        options.dtype,
        options.trust_remote_code,
        journal=journal,
        thinking_marks=options.scoring.thinking_marks,
    )


def _computed(model: Any, endpoint: NapoAPI | None) -> dict[str, Any]:
    """On what the answers are computed, for the provenance."""
    if endpoint is not None:
        return {"endpoint": endpoint.fingerprint, "request": endpoint.request, "changed": endpoint.changed}
    dtype = str(model.dtype).removeprefix("torch.")
    return {"dtype": dtype, "device": model.device.type, "processes": model.world_size}


def try_evaluation(checkpoint: str, options: EvalOptions) -> None:
    """Try what an evaluation needs, without loading the model or asking it.

    Raises:
        NapoBenchError: device, checkpoint, lmms-eval, data, judge or what a scorer needs is missing or damaged, or
            does not work.
    """
    data_dir = resolve_data_dir(options.data_dir)
    _check(options)
    Checkpoint.open(checkpoint, trust_remote_code=options.trust_remote_code).open_parts()
    tasks = _open_tasks(options, data_dir, SILENT)
    reach_judge(options)
    scoring_options = dataclasses.replace(options.scoring, allow_partial=options.limit is not None, answers="lenient")
    _rehearse(tasks, data_dir, options.limit, scoring_options, SILENT)


def reach_judge(options: EvalOptions) -> None:
    """Let the judge rate a human's answer, if the suite needs a judge and the options name one.

    Raises:
        NapoBenchError: the judge cannot be reached, or refuses its key or model.
    """
    if options.scoring.judge is None:
        return
    for benchmark in dict.fromkeys(all_tasks()[name][0] for name in options.suite):
        if benchmark.try_judge is not None:
            data = benchmark.open(resolve_data_dir(options.data_dir) / benchmark.name)
            benchmark.try_judge(options.scoring.judge, data)


def _rehearse(
    tasks: Sequence[BenchmarkTask],
    data_dir: Path,
    limit: int | None,
    options: ScoreOptions,
    tell: Progress,
) -> None:
    """Score empty answers, without an LLM: what the scorers miss is found before hours of generation, not after."""
    without_llm = dataclasses.replace(options, judge=None, extractor=None, source="a rehearsal with empty answers")
    for done, task in enumerate(tasks):
        tell("Checking", done, len(tasks))
        rows = [question.response_row("") for question in task.questions(limit)]
        scoring.score(task.benchmark, rows, data_dir, without_llm)
    tell("Checking", len(tasks), len(tasks))


def _ask(model: Any, tasks: Sequence[BenchmarkTask], limit: int | None) -> dict[str, list[Row]] | None:
    """Benchmark -> official response rows, in the benchmark's order; None in every process but the first."""
    from lmms_eval import evaluator
    from lmms_eval.tasks import TaskManager
    from tqdm import tqdm  # type: ignore[import-untyped]

    # lmms-eval draws one of its bars whatever TQDM_DISABLE says.
    evaluator.tqdm = lambda *args, **kwargs: tqdm(*args, **{**kwargs, "disable": True})
    report = evaluator.simple_evaluate(
        model=model,
        tasks=list(tasks),
        task_manager=TaskManager(include_defaults=False),
        limit=limit,
        predict_only=True,
        bootstrap_iters=0,
        process_docs_parallel=1,
        random_seed=SEED,
        numpy_random_seed=SEED,
        torch_random_seed=SEED,
        fewshot_random_seed=SEED,
    )
    if report is None:
        return None
    rows: dict[str, list[Row]] = {}
    for task in tasks:
        samples = sorted(report["samples"][task.config.task], key=lambda sample: sample["doc_id"])
        rows.setdefault(task.benchmark, []).extend(row for sample in samples for row in sample[task.rows_key])
    return rows


def _cleaned_note(model: Any, tasks: Sequence[BenchmarkTask], limit: int | None) -> list[str]:
    """One note with the number of questions that held control tokens of a local model, or none."""
    if (conversation := getattr(model, "conversation", None)) is None:
        return []
    prompts = [question.prompt for task in tasks for question in task.questions(limit)]
    count = sum(conversation.markup.has_controls(prompt) for prompt in prompts)
    return [f"control tokens of the model were removed from {count} of {len(prompts)} questions"] if count else []


def _write_responses(folder: Path, benchmark: str, rows: Sequence[Row]) -> Path:
    path = _responses_file(folder, benchmark)
    if benchmark_named(benchmark).responses == "jsonl":
        files.write_jsonl(path, rows)
    else:
        files.write_json(path, list(rows))
    return path


def _responses_file(folder: Path, benchmark: str) -> Path:
    return folder / f"{benchmark}.{benchmark_named(benchmark).responses}"

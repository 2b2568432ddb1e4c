"""`napo-bench eval`: a checkpoint -> its answers -> metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

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
from napo_bench.cli.listed import ListedCommand
from napo_bench.cli.root import app
from napo_bench.cli.score import (
    DataDir,
    MaxRefused,
    Pipeline,
    SpacyModel,
    ThinkingMarks,
)
from napo_bench.core.locks import output_folder
from napo_bench.engines import usual_batch_size
from napo_bench.micro import MICRO, named_checkpoint

if TYPE_CHECKING:
    from napo_bench.engines.judge import Judge

TEMPLATE_OPTION = "--chat-template-kwargs"

Conversation = Annotated[
    str | None,
    typer.Option(
        help="LLaVA-1.5's: llava_v1 (the paper's) or vicuna_v1 (LLaVA's own). Default: the checkpoint's, else llava_v1."
    ),
]


BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Prompts in one forward. Default: 16; 64 for a model of less than 16 MB.")
]


@app.command("eval", cls=ListedCommand)
def evaluate(
    context: typer.Context,
    ckpt: Annotated[
        str,
        typer.Option(help="Folder or hub name of a model or a PEFT adapter; with --api-base-url, a model's name."),
    ],
    suite: Annotated[
        str | None,
        typer.Option(help="Of {tasks}, with commas; or micro. Default: {suite}."),
    ] = None,
    data_dir: DataDir = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run, which the same command goes on from. Default: runs/NAME."),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            help="How answers are generated: greedy, paper (3 beams, drawn at temperature 0.2), or rlaif-v (3 beams)."
        ),
    ] = "greedy",
    batch_size: BatchSize = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N units of each benchmark.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16, or auto: on CUDA the profile's.")] = "auto",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1; auto: one model over all GPUs. Default: the best device.")
    ] = None,
    quantization: Annotated[
        str | None, typer.Option(help="4bit or 8bit weights by bitsandbytes, on a GPU. Default: as stored.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that the checkpoint brings.")
    ] = False,
    conversation: Conversation = None,
    chat_template_kwargs: Annotated[
        list[str] | None,
        typer.Option(help="key=value of the checkpoint's own chat template (enable_thinking=false); repeatable."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="What answers: one of {engines}. Default: api with --api-base-url, else hf."),
    ] = None,
    api_base_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible endpoint to ask; its key is $NAPO_BENCH_API_KEY.")
    ] = None,
    pipeline: Pipeline = "official",
    spacy_model: SpacyModel = None,
    judge_model: JudgeModel = None,
    judge_repeats: JudgeRepeats = 1,
    judge_base_url: JudgeBaseUrl = None,
    judge_max_requests: JudgeMaxRequests = None,
    judge_request: JudgeRequest = None,
    request: Annotated[
        list[str] | None,
        typer.Option(help="key=value: a further request field for the endpoint (reasoning_effort=low); repeatable."),
    ] = None,
    max_refused: MaxRefused = "1%",
    thinking_marks: ThinkingMarks = None,
    show_prompt: Annotated[
        bool, typer.Option("--show-prompt", help="Only print the first prompt of each task; no weights are loaded.")
    ] = False,
) -> None:
    """Evaluate a checkpoint. The same command continues where an earlier command stopped.

    Over several GPUs: torchrun --nproc-per-node 8 --no-python napo-bench eval --ckpt ...
    """
    folder = out or Path("runs") / Path(ckpt).resolve().name
    if show_prompt:
        begin(f"First prompts of {suite or 'the default suite'} for {ckpt}")
    else:
        context.with_resource(output_folder(folder))
        begin(f"Evaluating {ckpt} on {suite or 'the default suite'}, into {folder}")
    from napo_bench.benchmarks import default_suite
    from napo_bench.cli.benchmark_tables import print_benchmark
    from napo_bench.core.thoughts import read_marks
    from napo_bench.engines.chat import read_request_fields, read_share, read_values
    from napo_bench.runs.evaluate import EvalOptions, first_prompts, suite_named
    from napo_bench.runs.evaluate import evaluate as run_evaluation
    from napo_bench.runs.score import ScoreOptions
    from napo_bench.studies.micro_world import micro_world

    marks = read_marks(thinking_marks)
    refusable = read_share(max_refused, "--max-refused")
    members = suite_named(",".join(default_suite()) if suite is None else suite)
    from napo_bench.core.bars import Bars
    from napo_bench.engines.answering import RATE

    bars = Bars(console.err, shown={RATE: RATE})
    given = GivenJudges(judge_model, judge_repeats, judge_base_url, judge_max_requests, judge_request)
    judges: tuple[Judge, ...] = ()
    if members == [MICRO]:
        given.require_none()
    else:
        judges = given.judges(refusable, marks, bars)
    options = EvalOptions(
        suite=members,
        data_dir=data_dir,
        profile=profile,
        batch_size=batch_size or usual_batch_size(named_checkpoint(ckpt)),
        limit=limit,
        dtype=dtype,
        device=device,
        quantization=quantization,
        trust_remote_code=trust_remote_code,
        conversation=conversation,
        chat_template_kwargs=read_values(chat_template_kwargs or [], TEMPLATE_OPTION, "enable_thinking=false"),
        engine=engine,
        api_base_url=api_base_url,
        request=read_request_fields(request or [], "--request"),
        max_refused=refusable,
        scoring=ScoreOptions(
            pipeline=pipeline,
            spacy_model=spacy_model,
            judges=judges,
            thinking_marks=marks,
        ),
    )
    with micro_world(options) if members == [MICRO] else nullcontext(options) as settled, bars:
        if show_prompt:
            shown = first_prompts(named_checkpoint(ckpt), settled)
        else:
            run = run_evaluation(named_checkpoint(ckpt), folder, settled, bars)
    if show_prompt:
        _print_prompts(shown)
        return
    if run is None:
        return
    for name, result in run.benchmarks.items():
        print_benchmark(name, result)
    console.err.print(f"Written: {escape(str(folder / 'run.json'))}", highlight=False)


def _print_prompts(prompts: Mapping[str, Mapping[str, Any]]) -> None:
    """Print prompts to stdout as they are, without markup and without line breaks of our own."""
    for task, parts in prompts.items():
        console.out.print(f"[bold]{escape(task)}[/bold]")
        for name, value in parts.items():
            said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            console.out.print(f"{name}: {said}", markup=False, highlight=False, soft_wrap=True)

"""Measure a training step: the shared prefix, the usual concatenation and TRL's DPOTrainer, and how the step grows.

    python scripts/perf_forward.py
    python scripts/perf_forward.py --rounds 5 --layers 8 --width 512

The model has LLaVA-1.5's shape, scaled down for the CPU: 576 image tokens, a Llama text model, a CLIP tower; prompts of
35 words, responses of 90 to 120 tokens, batches of two rows, float32. Every contender is a process of its own with the
same weights and rows. The contenders take turns, one step a round, so that a slow moment of the machine affects all of
them. The tables give medians over the rounds. A step is forward, loss and backward. Peak memory is the process's
largest resident set. A second figure is the peak minus the memory after the model was loaded. TRL's rows need `pip
install trl` in the same environment.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import logging
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

BETA, WORDS = 0.1, 32_000
IMAGE_SIZE, PATCH, IMAGE_TOKENS = 336, 14, 576


@dataclass(frozen=True)
class Shape:
    """Rows of a batch: number of negatives, tokens of a response (EOS included), words of a prompt, number of rows."""

    negatives: int = 3
    shortest: int = 90
    longest: int = 120
    prompt: int = 35
    rows: int = 2


@dataclass(frozen=True)
class Contender:
    """One process: how it trains, and the rows of its steps."""

    trainer: str
    options: dict[str, Any]
    shape: Shape


NAPO, USUAL = "NaPO, 4 responses, shared prefix", "NaPO, 4 responses, the usual concatenated forward"
USUAL_FROZEN = "NaPO, 4 responses, the usual concatenated forward, frozen tower"
FALLBACK = "NaPO, 4 responses, shared_prefix: false"
DPO, TRL = "DPO, 2 responses, shared prefix", "DPO, 2 responses, TRL's DPOTrainer as it comes"
TRL_FASTEST = "DPO, 2 responses, TRL's DPOTrainer, no checkpointing, frozen tower"
CONTENDERS = {
    NAPO: Contender("own", {"forward": "shared"}, Shape(negatives=3)),
    USUAL: Contender("own", {"forward": "usual", "frozen": False}, Shape(negatives=3)),
    USUAL_FROZEN: Contender("own", {"forward": "usual"}, Shape(negatives=3)),
    FALLBACK: Contender("own", {"forward": "concatenated"}, Shape(negatives=3)),
    DPO: Contender("own", {"forward": "shared"}, Shape(negatives=1)),
    TRL: Contender("trl", {}, Shape(negatives=1)),
    TRL_FASTEST: Contender("trl", {"gradient_checkpointing": False}, Shape(negatives=1)),
}


def processor(image_size: int = IMAGE_SIZE) -> Any:
    """LLaVA-1.5's processor with a vocabulary of made-up words."""
    import tokenizers
    from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

    specials = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    vocabulary = {word: index for index, word in enumerate([*specials, *(f"w{i}" for i in range(WORDS))])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    size = {"height": image_size, "width": image_size}
    pictures = CLIPImageProcessor(size={"shortest_edge": image_size}, crop_size=size)
    return LlavaProcessor(
        pictures, tokenizer, patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )


def build_model(layers: int, width: int, image_size: int = IMAGE_SIZE) -> Any:
    """The reference model; always the same weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    vision = transformers.CLIPVisionConfig(
        hidden_size=width // 2,
        intermediate_size=2 * width,
        projection_dim=width // 2,
        num_hidden_layers=max(2, layers * 3 // 4),
        num_attention_heads=4,
        image_size=image_size,
        patch_size=PATCH,
    )
    text = transformers.LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 43 // 16,
        num_hidden_layers=layers,
        num_attention_heads=8,
        vocab_size=WORDS + 64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_id=4)
    return transformers.LlavaForConditionalGeneration(config)


def perturb(model: Any) -> Any:
    """Move the policy a small step away from its reference, so that not all margins are zero."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1e-3 * torch.randn(weight.shape, generator=generator))
    return model


def rows_of(shape: Shape, batch: int) -> list[dict[str, Any]]:
    """The same rows for every contender: an image, a prompt, responses."""
    import numpy as np
    from PIL import Image

    rows = []
    for row in range(shape.rows):
        chance = random.Random(100 * batch + row)
        pixels = np.random.default_rng(100 * batch + row).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)

        def words(count: int, chance: random.Random = chance) -> str:
            return " ".join(f"w{chance.randrange(WORDS)}" for _ in range(count))

        lengths = [chance.randint(shape.shortest, shape.longest) for _ in range(1 + shape.negatives)]
        rows.append(
            {
                "image": Image.fromarray(pixels),
                "prompt": f"<s> <image> {words(shape.prompt - 1)}",
                "responses": [f"{words(length - 1)} </s>" for length in lengths],
            }
        )
    return rows


def collate(convert: Any, shape: Shape, batch: int) -> Any:
    """The rows as the `PreferenceBatch` of the package, made by LLaVA's processor."""
    from napo_bench.trainers.forward.logps import PreferenceBatch

    rows = rows_of(shape, batch)
    prompts = convert(
        images=[row["image"] for row in rows],
        text=[row["prompt"] for row in rows],
        padding=True,
        add_special_tokens=False,
        return_tensors="pt",
    )
    texts = [text for row in rows for text in row["responses"]]
    responses = convert.tokenizer(
        texts, padding=True, padding_side="right", add_special_tokens=False, return_tensors="pt"
    )
    return PreferenceBatch(
        prompts["input_ids"],
        prompts["attention_mask"],
        responses["input_ids"].view(len(rows), -1, responses["input_ids"].shape[1]),
        responses["attention_mask"].view(len(rows), -1, responses["input_ids"].shape[1]),
        {"pixel_values": prompts["pixel_values"]},
    )


@contextlib.contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Wall and CPU seconds of the block. CPU seconds hardly depend on the other work of the machine."""
    took: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield took
    took.update(seconds=time.perf_counter() - wall, cpu=time.process_time() - cpu)


Step = Callable[[str, Shape, int], dict[str, float]]


def usual_logps(model: Any, batch: Any) -> Any:
    """Log-probs as preference trainers usually compute them: R copies of prompt and image, logits of every token."""
    import torch

    from napo_bench.trainers.forward.logps import ResponseLogps

    responses, prompt = batch.response_ids.shape[1], batch.input_ids.shape[1]
    ids = torch.cat([batch.input_ids.repeat_interleave(responses, 0), batch.response_ids.flatten(0, 1)], dim=1)
    mask = torch.cat([batch.attention_mask.repeat_interleave(responses, 0), batch.response_mask.flatten(0, 1)], dim=1)
    pixels = batch.images["pixel_values"].repeat_interleave(responses, 0)
    logits = model(input_ids=ids, attention_mask=mask, pixel_values=pixels, use_cache=False).logits
    by_token = logits[:, :-1].float().log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
    total = (by_token * mask[:, 1:])[:, prompt - 1 :].sum(1).view(-1, responses)
    tokens = batch.response_mask.sum(-1)
    return ResponseLogps(sum=total, mean=total / tokens, tokens=tokens)


def own_steps(layers: int, width: int, forward: str, frozen: bool = True) -> Step:
    import torch

    from napo_bench.trainers.forward.logps import ResponseLogps, prepare, response_logps
    from napo_bench.trainers.losses import dpo_loss, napo_loss
    from napo_bench.trainers.noise import dynamic_weights, noise_robustness

    convert = processor()
    model = perturb(build_model(layers, width)).train()
    if frozen:
        prepare(model)

    def logps_of(model: Any, batch: Any) -> ResponseLogps:
        return usual_logps(model, batch) if forward == "usual" else response_logps(model, batch, forward == "shared")

    @functools.cache
    def reference_of(shape: Shape, number: int) -> ResponseLogps:
        with torch.no_grad():
            return logps_of(build_model(layers, width), collate(convert, shape, number))

    def napo_objective(policy: ResponseLogps, reference: ResponseLogps) -> Any:
        ratio, mean_ratio = policy.sum - reference.sum, policy.mean - reference.mean
        margins, mean_margins = ratio[:, :1] - ratio[:, 1:], mean_ratio[:, :1] - mean_ratio[:, 1:]
        gammas = dynamic_weights(margins.mean(0))
        total = gammas[0] * dpo_loss(margins[:, 0], BETA)
        for index in range(1, margins.shape[1]):
            q = noise_robustness(mean_margins[:, index].mean(), alpha=0.5)
            total = total + gammas[index] * napo_loss(margins[:, index], q, BETA)
        return total.mean()

    def step(what: str, shape: Shape, number: int) -> dict[str, float]:
        batch = collate(convert, shape, number)
        if what == "reference":
            with timed() as took, torch.no_grad():
                logps_of(model, batch)
            return took
        reference = reference_of(shape, number)
        with timed() as took:
            loss = napo_objective(logps_of(model, batch), reference)
            loss.backward()
        model.zero_grad()
        return {**took, "loss": loss.item()}

    return step


def trl_steps(layers: int, width: int, **options: Any) -> Step:
    import datasets
    from trl import DPOConfig, DPOTrainer

    convert = processor()
    policy = perturb(build_model(layers, width))
    if options:
        policy.model.vision_tower.requires_grad_(False)

    def preferences(shape: Shape, batch: int) -> list[dict[str, Any]]:
        return [
            {
                "images": [row["image"]],
                "prompt": row["prompt"],
                "chosen": row["responses"][0],
                "rejected": row["responses"][1],
            }
            for row in rows_of(shape, batch)
        ]

    arguments = DPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=2,
        beta=BETA,
        max_length=None,
        bf16=False,
        use_cpu=True,
        report_to=[],
        **options,
    )
    trainer = DPOTrainer(
        model=policy,
        ref_model=build_model(layers, width),
        args=arguments,
        processing_class=convert,
        train_dataset=datasets.Dataset.from_list(preferences(Shape(negatives=1), 0)),
    )

    trainer.current_gradient_accumulation_steps = 1  # as TRL's training loop does

    def step(what: str, shape: Shape, number: int) -> dict[str, float]:
        inputs = trainer.data_collator(preferences(shape, number))
        with timed() as took:
            loss = trainer.training_step(policy, inputs)
        policy.zero_grad()
        return {**took, "loss": loss.item()}

    return step


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def serve(contender: Contender, layers: int, width: int) -> None:
    """Answer requests on stdin, one JSON a line, until stdin closes."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    logging.disable(logging.WARNING)
    try:
        steps = {"own": own_steps, "trl": trl_steps}[contender.trainer](layers, width, **contender.options)
    except ImportError as error:
        answers.write(json.dumps({"missing": error.name}) + "\n")
        return
    loaded = peak_megabytes()
    answers.write(json.dumps({"loaded": loaded}) + "\n")
    for line in sys.stdin:
        request = json.loads(line)
        answer = steps(request["what"], Shape(**request["shape"]), request["batch"])
        answers.write(json.dumps({**answer, "peak": peak_megabytes(), "above": peak_megabytes() - loaded}) + "\n")


class Process:
    """The process of a contender."""

    def __init__(self, name: str, layers: int, width: int) -> None:
        self.name, self.shape = name, CONTENDERS[name].shape
        command = [sys.executable, __file__, "--layers", str(layers), "--width", str(width), "--serve", name]
        quiet = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=quiet
        )
        self.missing = self._answer().get("missing")

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name}: ended with code {self.process.wait()}; see why with --serve {self.name!r}")
        return dict(json.loads(line))

    def __call__(self, batch: int, shape: Shape | None = None, what: str = "train") -> dict[str, float]:
        """Seconds, loss and memory of one step."""
        assert self.process.stdin is not None
        request = {"what": what, "shape": asdict(shape or self.shape), "batch": batch}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process by closing its input."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


@contextlib.contextmanager
def running(names: Iterable[str], layers: int, width: int) -> Iterator[dict[str, Process]]:
    """Processes of the named contenders. A contender that misses a package is left out and named."""
    processes = {name: Process(name, layers, width) for name in names}
    for name, process in processes.items():
        if process.missing:
            print(f"Left out: {name} (pip install {process.missing}).")
    try:
        yield {name: process for name, process in processes.items() if not process.missing}
    finally:
        for process in processes.values():
            process.close()


Steps = dict[str, list[dict[str, float]]]


def in_turn(jobs: dict[str, Callable[[int], dict[str, float]]], rounds: int) -> Steps:
    """`rounds` steps of each job in turns, after one step of each job to warm up."""
    for job in jobs.values():
        job(0)
    steps: Steps = {name: [] for name in jobs}
    for batch in range(rounds):
        for name, job in jobs.items():
            steps[name].append(job(batch))
    return steps


def seconds(steps: list[dict[str, float]], clock: str = "seconds") -> list[float]:
    return [step[clock] for step in steps]


def median(steps: list[dict[str, float]], clock: str = "seconds") -> str:
    return f"{statistics.median(seconds(steps, clock)):.2f}"


def ratios(over: list[list[dict[str, float]]], under: list[list[dict[str, float]]]) -> list[str]:
    """Median and range of the rounds' ratios by either clock; each side is the sum of its jobs."""
    cells = []
    for clock in ("seconds", "cpu"):
        sides = [
            [sum(parts) for parts in zip(*(seconds(job, clock) for job in side), strict=True)] for side in (over, under)
        ]
        by_round = [a / b for a, b in zip(*sides, strict=True)]
        cells.append(f"{statistics.median(by_round):.2f} ({min(by_round):.2f} to {max(by_round):.2f})")
    return cells


def show(header: list[str], rows: list[list[str]]) -> None:
    print(f"\n| {' | '.join(header)} |\n|{'|'.join(['---'] + ['---:'] * (len(header) - 1))}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def figures(rounds: int, layers: int, width: int) -> None:
    """NaPO against the usual forward, DPO against TRL, an epoch of NaPO against one of TRL's DPO."""
    reference = "NaPO, 4 responses, reference pass"
    with running(CONTENDERS, layers, width) as processes:
        steps = in_turn({**processes, reference: functools.partial(processes[NAPO], what="reference")}, rounds)

    rows = [
        [name, median(done), median(done, "cpu"), f"{done[-1]['peak']:,.0f}", f"{done[-1]['above']:,.0f}"]
        for name, done in steps.items()
        if name != reference
    ]
    rows.append([reference, median(steps[reference]), median(steps[reference], "cpu"), "", ""])
    show(["step", "seconds", "CPU seconds", "peak memory, MB", "above the loaded model, MB"], rows)

    shown = []
    for name in (USUAL, USUAL_FROZEN, FALLBACK):
        other = name.removeprefix("NaPO, 4 responses, ")
        shown.append([f"Speed of the four-response step over {other}", *ratios([steps[name]], [steps[NAPO]])])
        for part, memory in (("peak", "Peak memory"), ("above", "Memory above the loaded model")):
            share = steps[NAPO][-1][part] / steps[name][-1][part]
            shown.append([f"{memory} over that of {other}", f"{share:.2f}", ""])
    for name in (TRL, TRL_FASTEST):
        if name in steps:
            trl = name.removeprefix("DPO, 2 responses, ")
            furthest = max(abs(a["loss"] - b["loss"]) for a, b in zip(steps[name], steps[DPO], strict=True))
            epoch = ratios([steps[NAPO], steps[reference]], [steps[name]])
            shown.append([f"Speed of the two-response step over {trl}", *ratios([steps[name]], [steps[DPO]])])
            shown.append([f"Largest difference of losses from {trl}", f"{furthest:.1e}", ""])
            shown.append([f"Epoch of NaPO, reference pass included, over one of {trl}", *epoch])
    show(["figure", "by wall clock (range of the rounds)", "by CPU time"], shown)


def growth(rounds: int, layers: int, width: int) -> None:
    """Seconds a step against the number of negatives, the responses' length and the prefix's length."""
    cases = [(f"{n} negative{'s' * (n > 1)}", Shape(negatives=n)) for n in (1, 2, 3, 4)]
    cases += [(f"3 negatives, responses of {n} tokens", Shape(shortest=n, longest=n)) for n in (25, 50, 100, 200)]
    cases += [(f"3 negatives, prefix of {IMAGE_TOKENS + 1 + n} tokens", Shape(prompt=n)) for n in (23, 423, 1423)]
    rows = []
    with running((NAPO, USUAL), layers, width) as processes:
        for case, shape in cases:
            jobs = {name: functools.partial(process, shape=shape) for name, process in processes.items()}
            shared, usual = in_turn(jobs, rounds).values()
            rows.append([case, median(shared, "cpu"), median(usual, "cpu"), ratios([usual], [shared])[1]])
    show(["rows", "shared prefix, CPU s", "usual forward, CPU s", "ratio (range of the rounds)"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="steps of each contender in a comparison")
    parser.add_argument("--layers", type=int, default=8, help="of the text model")
    parser.add_argument("--width", type=int, default=512, help="of the text model")
    parser.add_argument("--only", choices=["figures", "growth"], help="one half of the tables")
    parser.add_argument("--serve", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(CONTENDERS[options.serve], options.layers, options.width)
        return
    print(f"{options.layers} layers of width {options.width}, {os.cpu_count()} cores, {options.rounds} rounds")
    for table in (figures, growth):
        if options.only in (None, table.__name__):
            table(options.rounds, options.layers, options.width)


if __name__ == "__main__":
    main()

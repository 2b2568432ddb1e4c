"""Measure how many samples a second `eval` answers, beside plain batched `generate`, and how this grows.

    OMP_NUM_THREADS=1 python scripts/measure_eval_throughput.py
    python scripts/measure_eval_throughput.py --only questions --rounds 3

The model has LLaVA-1.5's shape, scaled down for the CPU, as in scripts/perf_forward.py. Both contenders have the same
model in the same process and answer the same questions in batches of 16, by turns. The tables give medians over the
rounds, by CPU seconds, which hardly depend on the other work of the machine. The script fails if the answers differ.

The floor of the prefill is the time of its multiplications at the measured rate of a matrix product. The floor of a
decoding step is the time in which the weights and the cache are read once at the measured rate of a copy.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from perf_forward import PATCH, build_model, processor
from PIL import Image
from rich.console import Console
from rich.table import Table

from napo_bench.core.journal import Journal
from napo_bench.core.progress import SILENT
from napo_bench.engines.answering import Answering
from napo_bench.engines.hf import HFEngine
from napo_bench.engines.request import Generation, Picture, Request

BATCH, LAYERS, WIDTH, WORDS = 16, 8, 512, 15


@dataclass(frozen=True)
class Shape:
    """What is asked: questions an image, images, tokens of an image, tokens of an answer."""

    questions: int = 2
    images: int = 8
    image_tokens: int = 576
    answer: int = 1


SHAPES = {
    "questions": [Shape(1, 16), Shape(2, 8), Shape(4, 4), Shape(14, 2)],
    "image tokens": [Shape(2, 4, 144), Shape(2, 4, 576), Shape(2, 4, 2304)],
    "answer": [Shape(1, 8, answer=1), Shape(1, 8, answer=64), Shape(1, 8, answer=256)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SHAPES, help="One kind of growth.")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    rates = matrix_rate(), copy_rate()
    table = Table(title=f"Batches of {BATCH}, {torch.get_num_threads()} threads, {rates[0] / 1e9:.0f} GFLOP/s")
    for column in ("questions an image", "image tokens", "answer tokens", "eval, samples/s", "generate, samples/s"):
        table.add_column(column, justify="right")
    for column in ("ratio", "prefill / floor", "decoding / floor", "same answers"):
        table.add_column(column, justify="right")
    console, same = Console(width=160), True
    for shape in [shape for kind in ([arguments.only] if arguments.only else SHAPES) for shape in SHAPES[kind]]:
        row, is_same = measured(shape, arguments.rounds, *rates)
        table.add_row(*row)
        same = same and is_same
    console.print(table)
    sys.exit(0 if same else 1)


def measured(shape: Shape, rounds: int, flops: float, bandwidth: float) -> tuple[list[str], bool]:
    """The row of a shape in the table, and whether both contenders answered the same."""
    side = round(shape.image_tokens**0.5) * PATCH
    with tempfile.TemporaryDirectory() as folder:
        model = build_model(LAYERS, WIDTH, side)
        model.save_pretrained(folder)
        processor(side).save_pretrained(folder)
        engine = HFEngine(folder, BATCH, "cpu")
        engine.model.generation_config.eos_token_id = None
        requests = questions(shape, side)
        ours, plain, same = [], [], True
        Answering(engine, Journal(Path(folder) / "first.sqlite"), SILENT).answer(requests[:2], 2)
        for number in range(rounds):
            before = engine.stages()
            began = time.process_time()
            answers = Answering(engine, Journal(Path(folder) / f"{number}.sqlite"), SILENT).answer(
                requests, len(requests)
            )
            ours.append(time.process_time() - began)
            seconds = {name: amounts["seconds"] - before[name]["seconds"] for name, amounts in engine.stages().items()}
            tokens = engine.stages()["prefill"]["tokens"] - before["prefill"]["tokens"]
            began = time.process_time()
            same = same and generated(engine, requests) == answers
            plain.append(time.process_time() - began)
        prefill = multiplications(engine.model, tokens, shape, len(requests)) / flops
        steps = (shape.answer - 1) * -(-len(requests) // BATCH)
        decoding = steps * read(engine.model, shape, len(requests)) / bandwidth
        count = len(requests)
        return [
            *map(str, (shape.questions, shape.image_tokens, shape.answer)),
            f"{count / statistics.median(ours):.2f}",
            f"{count / statistics.median(plain):.2f}",
            f"{statistics.median(b / a for a, b in zip(ours, plain, strict=True)):.2f}",
            f"{seconds['prefill'] / prefill:.2f}",
            f"{seconds['decoding'] / decoding:.2f}" if steps else "",
            "yes" if same else "NO",
        ], same


def questions(shape: Shape, side: int) -> list[Request]:
    """Questions of random words about images of noise, one image after another."""
    dice, generation = random.Random(1), Generation(shape.answer)
    noise = np.random.default_rng(1)
    images = [Image.fromarray(noise.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(shape.images)]
    return [
        Request(" ".join(f"w{dice.randrange(32_000)}" for _ in range(WORDS)), Picture.of(image), generation)
        for image in images
        for _ in range(shape.questions)
    ]


@torch.inference_mode()
def generated(engine: HFEngine, requests: list[Request]) -> list[str]:
    """The answers of `transformers.generate` to batches as they come."""
    answers: list[str] = []
    for start in range(0, len(requests), BATCH):
        batch = requests[start : start + BATCH]
        texts = [engine.text(request.question, has_image=True) for request in batch]
        inputs = engine.conversation.encode(texts, [engine.prepare(one.open()) for r in batch for one in r.pictures])
        tokens = engine.model.generate(**inputs, max_new_tokens=batch[0].generation.max_new_tokens, do_sample=False)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        answers += [text.strip() for text in engine.processor.batch_decode(new, skip_special_tokens=True)]
    return answers


def multiplications(model: Any, tokens: int, shape: Shape, count: int) -> float:
    """Floating-point operations of a prefill: weights, attention, and the head for one token a prompt."""
    text = model.get_decoder()
    weights = sum(layer.weight.numel() for layer in text.layers.modules() if isinstance(layer, torch.nn.Linear))
    length = shape.image_tokens + WORDS + 40
    return 2.0 * weights * tokens + 2.0 * LAYERS * WIDTH * tokens * length + 2.0 * model.lm_head.weight.numel() * count


def read(model: Any, shape: Shape, count: int) -> float:
    """Bytes that a decoding step reads: the weights once, and the keys and values of each row."""
    text = model.get_decoder()
    weights = sum(weight.numel() for weight in text.layers.parameters()) + model.lm_head.weight.numel()
    length = shape.image_tokens + WORDS + 40 + shape.answer / 2
    return 4.0 * (weights + 2 * LAYERS * WIDTH * length * min(count, BATCH))


def matrix_rate() -> float:
    """Floating-point operations a second of a product of two matrices: the best of some tries."""
    left, right = torch.randn(1024, 512), torch.randn(512, 1376)
    return 2.0 * 1024 * 512 * 1376 / min(_seconds(lambda: left @ right) for _ in range(30))


def copy_rate() -> float:
    """Bytes a second that a sum over a large tensor reads: the best of some tries."""
    large = torch.randn(2**26)
    return 4.0 * 2**26 / min(_seconds(large.sum) for _ in range(10))


def _seconds(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

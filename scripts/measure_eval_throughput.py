"""Measure how many samples a second `eval` answers, beside plain batched `generate` and `transformers serve`, and how
this grows.

    OMP_NUM_THREADS=1 python scripts/measure_eval_throughput.py
    OMP_NUM_THREADS=1 python scripts/measure_eval_throughput.py --only questions --rounds 3
    OMP_NUM_THREADS=1 python scripts/measure_eval_throughput.py --serve     # needs `pip install transformers[serving]`
    OMP_NUM_THREADS=1 python scripts/measure_eval_throughput.py --memory

The model has LLaVA-1.5's shape, scaled down for the CPU, as in scripts/perf_forward.py. `eval` and `generate` have the
same model in the same process and answer the same questions in equal batches, by turns. With --serve a server of the
same checkpoint takes its turn: the engine `api` asks it, with as many requests in flight. The tables give medians over
the rounds, by CPU seconds of one thread, which hardly depend on the other work of the machine. The CPU seconds of the
server are those of its process and of this one. The script fails if the answers differ. With --memory each contender
answers in a process of its own, whose largest resident set is its peak memory.

The floor of the prefill is the time of its multiplications at the measured rate of a matrix product. The floor of a
decoding step is that of the weights and that of the keys and values, one after the other: each is the time of their
multiplications, or the time in which they are read once at the measured rate of a sum, whichever is longer.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from measure_training_floor import product_rate
from perf_forward import PATCH, build_model, processor
from PIL import Image
from rich.console import Console
from rich.table import Table
from transformers_server import serving

from napo_bench.core.journal import Journal
from napo_bench.core.progress import SILENT
from napo_bench.engines.answering import Answering
from napo_bench.engines.api import APIEngine
from napo_bench.engines.clock import Clock
from napo_bench.engines.hf import HFEngine
from napo_bench.engines.request import Generation, Picture, Request

LAYERS, WIDTH, WORDS = 8, 512, 15
EOS, NEVER, ALWAYS = 2, -1e9, 1e9


@dataclass(frozen=True)
class Shape:
    """What is asked: questions an image, images, tokens of an image, tokens of an answer, tokens of the first answer of
    a batch; and prompts of a batch.
    """

    questions: int = 2
    images: int = 8
    image_tokens: int = 576
    answer: int = 1
    first: int = 0
    batch: int = 16

    def length(self, row: int) -> int:
        """Tokens of the answer of a row of a batch."""
        return self.first if self.first and not row else self.answer


SHAPES = {
    "questions": [Shape(1, 16), Shape(2, 8), Shape(4, 4), Shape(14, 2)],
    "image tokens": [Shape(2, 4, 144), Shape(2, 4, 576), Shape(2, 4, 2304)],
    "answer": [Shape(1, 8, answer=1), Shape(1, 8, answer=64), Shape(1, 8, answer=256)],
    "batch": [Shape(1, size, answer=64, batch=size) for size in (1, 4, 16, 64)],
    "mixed answers": [Shape(1, 16, answer=10, first=200)],
}


@dataclass
class Cost:
    """What one contender needed for the answers to a shape.

    Attributes:
        cpu: CPU seconds.
        prefill: CPU seconds of the prefill.
        decoding: CPU seconds of the decoding.
        prefill_floor: Floor of the prefill in seconds.
        decoding_floor: Floor of the decoding in seconds.
        slots: Tokens that went through the model while it decoded.
        read: Share of the decoding floor in which memory is read, not multiplied.
    """

    cpu: float = 0.0
    prefill: float = 0.0
    decoding: float = 0.0
    prefill_floor: float = 0.0
    decoding_floor: float = 0.0
    slots: int = 0
    read: float = 0.0


class Watch:
    """Adds up the floors of a model's forwards. If a shape has a first answer, ends each answer at its length.

    Args:
        model: The model.
        shape: Shape of the answers.
    """

    def __init__(self, model: Any, shape: Shape) -> None:
        self.cost, self._shape, self._step, self._before = Cost(), shape, 0, 0
        text = model.get_decoder()
        linear = [layer.weight.numel() for layer in text.layers.modules() if isinstance(layer, torch.nn.Linear)]
        self._weights, self._head = sum(linear), model.lm_head.weight.numel()
        model.register_forward_pre_hook(self._begins, with_kwargs=True)
        model.register_forward_hook(self._ends, with_kwargs=True)
        self._rates = rates()

    def begin(self) -> None:
        """Count from 0, with the rates of this moment."""
        self.cost, self._rates = Cost(), rates()

    def _begins(self, _: Any, __: Any, options: dict[str, Any]) -> None:
        cache = options.get("cache", options.get("past_key_values"))
        self._before = cache.get_seq_length() if cache is not None else 0

    def _ends(self, _: Any, __: Any, options: dict[str, Any], output: Any) -> None:
        rows, length = options["input_ids"].shape
        self._step = self._step + 1 if length == 1 else 0
        if self._shape.first:
            ended = [row for row in range(rows) if self._shape.length(row) == self._step + 1]
            output.logits[:, -1, EOS] = NEVER
            output.logits[ended, -1, EOS] = ALWAYS
        flops, bandwidth = self._rates
        multiplied = 2.0 * (self._weights * rows * length + self._head * rows) / flops
        seen = rows * (length * self._before + length * (length + 1) / 2)
        attended = 4.0 * LAYERS * WIDTH * seen / flops
        if length > 1:
            self.cost.prefill_floor += multiplied + attended
            return
        weights, states = 4.0 * (self._weights + self._head) / bandwidth, 8.0 * LAYERS * WIDTH * seen / bandwidth
        self.cost.decoding_floor += max(multiplied, weights) + max(attended, states)
        self.cost.read += weights * (weights > multiplied) + states * (states > attended)
        self.cost.slots += rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SHAPES, help="One kind of growth.")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--serve", action="store_true", help="Ask `transformers serve` too.")
    parser.add_argument("--memory", action="store_true", help="Measure peak memory, not time.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shapes = [shape for kind in ([arguments.only] if arguments.only else SHAPES) for shape in SHAPES[kind]]
    if arguments.memory:
        Console(width=120).print(memory(shapes))
        return
    table = Table(title="One thread, {:.0f} GFLOP/s, {:.0f} GB/s".format(*(rate / 1e9 for rate in rates())))
    for column in (
        "batch",
        "questions an image",
        "image tokens",
        "answer tokens",
        "eval, samples/s",
        "generate, samples/s",
    ):
        table.add_column(column, justify="right")
    for column in ("ratio", "prefill / floor", "decoding / floor", "of it read", "slots / needed", "same answers"):
        table.add_column(column, justify="right")
    if arguments.serve:
        table.add_column("serve, samples/s", justify="right")
        table.add_column("ratio", justify="right")
    console, same = Console(width=190), True
    for shape in shapes:
        row, is_same = measured(shape, arguments.rounds, serve=arguments.serve)
        table.add_row(*row)
        same = same and is_same
    console.print(table)
    sys.exit(0 if same else 1)


def measured(shape: Shape, rounds: int, *, serve: bool) -> tuple[list[str], bool]:
    """The row of a shape in the table, and whether all contenders answered the same.

    Args:
        shape: The shape.
        rounds: Number of turns of each contender.
        serve: Whether a server is asked, unless the shape ends each answer at its length.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        engine, requests = made(shape, folder)
        engine.clock = Clock(time.thread_time)
        watch = Watch(engine.model, shape)
        Answering(engine, Journal(Path(folder) / "first.sqlite"), SILENT).answer(requests[:2], 2)
        server = (
            stack.enter_context(served(folder, engine, requests[:2], shape.batch))
            if serve and not shape.first
            else None
        )
        turns: list[tuple[Cost, Cost, Cost | None, bool]] = []
        for number in range(rounds):
            journal = Journal(Path(folder) / f"{number}.sqlite")
            ours, answers = cost(
                engine, watch, lambda j=journal: Answering(engine, j, SILENT).answer(requests, len(requests))
            )
            plain, expected = cost(engine, watch, lambda: generated(engine, requests, shape.batch))
            theirs, served_answers = (
                server(requests, Path(folder) / f"{number}-served.sqlite") if server else (None, expected)
            )
            turns.append((ours, plain, theirs, answers == expected == served_answers))
    count = len(requests)
    needed = sum(shape.length(number % shape.batch) - 1 for number in range(count))

    def median(of_turn: Callable[[Cost, Cost], float]) -> str:
        return f"{statistics.median(of_turn(ours, plain) for ours, plain, *_ in turns):.2f}"

    same = all(is_same for *_, is_same in turns)
    return [
        *map(str, (shape.batch, shape.questions, shape.image_tokens)),
        f"{shape.answer}, one {shape.first}" if shape.first else str(shape.answer),
        median(lambda ours, _: count / ours.cpu),
        median(lambda _, plain: count / plain.cpu),
        median(lambda ours, plain: plain.cpu / ours.cpu),
        median(lambda ours, _: ours.prefill / ours.prefill_floor),
        median(lambda ours, _: ours.decoding / ours.decoding_floor) if needed else "",
        median(lambda ours, _: ours.read / ours.decoding_floor) if needed else "",
        f"{median(lambda ours, _: ours.slots / needed)}, {median(lambda _, plain: plain.slots / needed)}"
        if needed
        else "",
        "yes" if same else "NO",
        *(
            [
                f"{statistics.median(count / one.cpu for _, _, one, _ in turns if one):.2f}",
                f"{statistics.median(one.cpu / ours.cpu for ours, _, one, _ in turns if one):.2f}",
            ]
            if server
            else []
        ),
    ], same


def made(shape: Shape, folder: str) -> tuple[HFEngine, list[Request]]:
    """The engine of a new checkpoint in the folder, and the questions."""
    side = round(shape.image_tokens**0.5) * PATCH
    model = build_model(LAYERS, WIDTH, side)
    model.generation_config.eos_token_id = EOS if shape.first else None
    model.save_pretrained(folder)
    processor(side).save_pretrained(folder)
    return HFEngine(folder, shape.batch, "cpu"), questions(shape, side)


def memory(shapes: Sequence[Shape]) -> Table:
    """Peak memory of `eval` and `generate` for each shape."""
    table = Table()
    for column in ("batch", "questions an image", "image tokens", "answer tokens", "eval, MB", "generate, MB", "ratio"):
        table.add_column(column, justify="right")
    for shape in shapes:
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as alone:
            ours, plain = (alone.submit(peak, shape, shares).result() for shares in (True, False))
        sizes = shape.batch, shape.questions, shape.image_tokens, max(shape.answer, shape.first)
        table.add_row(*map(str, sizes), f"{ours:,.0f}", f"{plain:,.0f}", f"{ours / plain:.2f}")
    return table


def peak(shape: Shape, shares: bool) -> float:
    """Largest resident set in MB of this process after the answers of `eval`, or of `generate`."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        engine, requests = made(shape, folder)
        if shares:
            Answering(engine, Journal(Path(folder) / "answers.sqlite"), SILENT).answer(requests, len(requests))
        else:
            generated(engine, requests, shape.batch)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def cost(engine: HFEngine, watch: Watch, answer: Callable[[], Sequence[str]]) -> tuple[Cost, list[str]]:
    """What the answers cost, and the answers."""
    before = engine.stages()
    watch.begin()
    began = time.process_time()
    answers = list(answer())
    watch.cost.cpu = time.process_time() - began
    after = engine.stages()
    took = {name: amounts["seconds"] - before.get(name, {"seconds": 0})["seconds"] for name, amounts in after.items()}
    watch.cost.prefill, watch.cost.decoding = took.get("prefill", 0), took.get("decoding", 0)
    return watch.cost, answers


@contextmanager
def served(
    folder: str, engine: HFEngine, first: list[Request], in_flight: int
) -> Iterator[Callable[[list[Request], Path], tuple[Cost, list[str]]]]:
    """Yields a function from requests and a new journal to answers of `transformers serve` and their cost.

    The CPU seconds are those of the server's process and of this process.

    Args:
        folder: The checkpoint. The function writes a chat template into it, with the prompt of the engine.
        engine: The engine of the checkpoint.
        first: Requests that the server answers before anything is measured.
        in_flight: Number of requests in flight.
    """
    words = "{{ messages[0]['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join }}"
    prompt = engine.processor.tokenizer.bos_token + engine.text("QUESTION", has_image=True)
    engine.processor.chat_template = prompt.replace("QUESTION", words)
    engine.processor.save_pretrained(folder)
    with serving(folder, Path(folder) / "serve.log") as (url, number):
        client, server = APIEngine(folder, url, in_flight, timeout=600.0), psutil.Process(number)

        def busy() -> float:
            return time.process_time() + server.cpu_times().user + server.cpu_times().system

        def ask(requests: list[Request], journal: Path) -> tuple[Cost, list[str]]:
            began = busy()
            answers = Answering(client, Journal(journal), SILENT).answer(requests, len(requests))
            return Cost(cpu=busy() - began), list(answers)

        ask(first, Path(folder) / "first-served.sqlite")
        yield ask


def questions(shape: Shape, side: int) -> list[Request]:
    """Questions of random words about images of noise, one image after another."""
    dice, generation = random.Random(1), Generation(max(shape.answer, shape.first))
    noise = np.random.default_rng(1)
    images = [Image.fromarray(noise.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(shape.images)]
    return [
        Request(" ".join(f"w{dice.randrange(32_000)}" for _ in range(WORDS)), Picture.of(image), generation)
        for image in images
        for _ in range(shape.questions)
    ]


@torch.inference_mode()
def generated(engine: HFEngine, requests: list[Request], size: int) -> list[str]:
    """The answers of `transformers.generate` to batches as they come."""
    answers: list[str] = []
    for start in range(0, len(requests), size):
        batch = requests[start : start + size]
        texts = [engine.text(request.question, has_image=True) for request in batch]
        inputs = engine.conversation.encode(texts, [engine.prepare(one.open()) for r in batch for one in r.pictures])
        tokens = engine.model.generate(**inputs, max_new_tokens=batch[0].generation.max_new_tokens, do_sample=False)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        answers += [text.strip() for text in engine.processor.batch_decode(new, skip_special_tokens=True)]
    return answers


def rates() -> tuple[float, float]:
    """Floating-point operations a second of a product of two matrices, and bytes a second that a sum reads: the best of
    some tries.
    """
    large, took = torch.randn(2**26), []
    for _ in range(10):
        began = time.thread_time()
        large.sum()
        took.append(time.thread_time() - began)
    return product_rate(), 4.0 * 2**26 / min(took)


if __name__ == "__main__":
    main()

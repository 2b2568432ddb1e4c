"""What `eval` and `train` do with the tiny checkpoint of a family."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from tiny_llava import picture

from napo_bench.core.journal import Journal
from napo_bench.core.progress import Silent
from napo_bench.engines.answering import Answering
from napo_bench.engines.hf import HFEngine
from napo_bench.engines.request import Generation, Picture, Request

_GREEDY = Generation(max_new_tokens=12)
_QUESTIONS = (
    "What is it?",
    "Is there a dog in the picture, or is there a cat on the chair in the kitchen?",
    "How many?",
    "Describe this image in detail, please.",
    "Is the car red? " * 6,
    "Which colour has the bird?",
)
_PICTURES = [picture(random.Random(number)) for number in range(len(_QUESTIONS))]
_BLANK = [Image.new("RGB", image.size, (127, 127, 127)) for image in _PICTURES]


def questions(blank: bool = False) -> list[Request]:
    """Short and long questions about wide, tall and square images, or about grey images of the same sizes."""
    images = _BLANK if blank else _PICTURES
    return [Request(text, Picture.of(image), _GREEDY) for text, image in zip(_QUESTIONS, images, strict=True)]


def answers(engine: HFEngine, requests: Sequence[Request], batch_size: int) -> list[str]:
    """The answers of `eval` in batches."""
    engine.batch_size = batch_size
    with TemporaryDirectory() as folder:
        found = Answering(engine, Journal(Path(folder) / "journal.sqlite"), progress=Silent()).answer(
            requests, len(requests)
        )
    return [str(answer) for answer in found]


def first_logits(engine: HFEngine, request: Request) -> torch.Tensor:
    """The logits of the first token of an answer, `[V]`."""
    seen: list[torch.Tensor] = []
    hook = engine.model.register_forward_hook(lambda _model, _inputs, output: seen.append(output.logits[0, -1].float()))
    try:
        answers(engine, [request], 1)
    finally:
        hook.remove()
    return seen[0]

"""The engine `hf`: questions about one image share their beginning, draws, and batches that are too large."""

from __future__ import annotations

import io
import itertools
import random
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_llava import make_checkpoint, picture

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal, journal_key
from napo_bench.core.progress import SILENT
from napo_bench.engines import windows
from napo_bench.engines.answering import RATE, Answering
from napo_bench.engines.decoding import decoder
from napo_bench.engines.engine import Engine
from napo_bench.engines.hf import HFEngine
from napo_bench.engines.request import Generation, Picture, Request
from napo_bench.models.conversation import Conversation

GREEDY = Generation(max_new_tokens=12)
BEAMS = Generation(max_new_tokens=12, num_beams=3)
PAPER = Generation(max_new_tokens=12, num_beams=3, do_sample=True, temperature=0.2, top_k=50)
DRAWN = Generation(max_new_tokens=12, do_sample=True, temperature=1.5)
_DICE = random.Random(3)
IMAGES = [picture(_DICE) for _ in range(4)]


def asked(count: int, generation: Generation = GREEDY, images: int = 2) -> list[Request]:
    """Questions of different lengths, one after another about `images` images."""
    each = -(-count // images)
    return [
        Request(
            f"Is the dog {'red ' * (number % 5)}or {chr(65 + number)}?", Picture.of(IMAGES[number // each]), generation
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-llava")
    make_checkpoint(folder)
    return folder


@pytest.fixture
def model_of(checkpoint: Path, tmp_path: Path):
    def make(batch_size: int, journal: str) -> Answering:
        return Answering(HFEngine(str(checkpoint), batch_size, "cpu"), Journal(tmp_path / f"{journal}.sqlite"), SILENT)

    return make


@pytest.mark.numeric
@pytest.mark.parametrize("generation", [GREEDY, BEAMS, PAPER, DRAWN], ids=["greedy", "beams", "paper", "drawn"])
def test_an_answer_does_not_depend_on_the_questions_beside_it(model_of, generation: Generation) -> None:
    questions = asked(28, generation)
    alone = model_of(1, "alone").answer(questions, 28)
    assert len(set(alone)) > 14
    for batch_size in (5, 16, 32):
        assert model_of(batch_size, f"batches of {batch_size}").answer(questions, 28) == alone


def test_a_batch_is_answered_in_the_order_of_its_prompts_each_with_its_own_draws(model_of) -> None:
    """The rows of the forward are in another order: image by image."""
    engine = model_of(6, "in turn").engine
    prompts = []
    for number in range(6):
        request = Request(f"Is it {number}?", Picture.of(IMAGES[number % 2]), DRAWN)
        prompt = windows.prompt_of(engine, request, [engine.look(request.picture)], {})
        prompts.append(replace(prompt, key=journal_key(**engine.identity(prompt))))
    alone = [engine.generate([prompt])[0] for prompt in prompts]
    assert len({answer.text for answer in alone}) == 6
    assert engine.generate(prompts) == alone


def test_what_questions_about_an_image_have_in_common_goes_through_the_model_once(model_of) -> None:
    model = model_of(16, "shared")
    questions = asked(28)
    model.answer(questions, 28)
    ids = [
        model.engine.conversation.encode([model.engine.text(q.question, True)], [q.picture.open()])["input_ids"][0]
        for q in questions
    ]
    common = min(next(i for i in range(999) if a[i] != b[i]) for a, b in itertools.pairwise(ids))
    apart = sum(len(row) - common for row in ids)
    counted = model.stages()["prefill"]["tokens"]
    assert common > 30
    assert counted <= 2 * max(map(len, ids)) + apart + 28 < sum(map(len, ids)) / 2


def test_questions_about_an_image_are_in_one_batch_if_it_can_have_them(model_of) -> None:
    model, seen = model_of(6, "batches"), []
    generate = model.engine.generate
    model.engine.generate = lambda prompts: (seen.append([prompt.digest for prompt in prompts]), generate(prompts))[1]
    groups = [(0, 4), (1, 4), (2, 2), (3, 8)]
    questions = [Request(f"Is it {k}?", Picture.of(IMAGES[image]), GREEDY) for image, k in groups for k in range(k)]
    model.answer(questions, len(questions))
    assert sorted(map(len, seen)) == [2, 4, 6, 6]
    assert sorted(len(set(batch)) for batch in seen) == [1, 1, 1, 2]


def test_a_model_that_branches_would_change_is_answered_whole(model_of, monkeypatch, caplog) -> None:
    """The positions of the branches are wrong, as they are in a family whose row of the table is wrong.

    A batch without branches comes before, and one image of the next batch has one question.
    """
    questions = asked(12)[5:]
    expected = model_of(1, "alone").answer(questions, 7)
    right = decoder.prompt_positions

    def wrong(*arguments: Any) -> Any:
        positions, following = right(*arguments)
        return positions, following + 7

    monkeypatch.setattr(decoder, "prompt_positions", wrong)
    model = model_of(16, "whole")
    model.answer(asked(2), 2)
    assert "do not share" not in caplog.text
    assert model.answer(questions, 7) == expected
    assert "do not share" in caplog.text
    assert "prefill and decoding" in model.stages()


def test_prompts_whose_tokens_end_in_another_way_with_an_image_do_not_share(model_of, monkeypatch) -> None:
    questions = asked(12)
    expected = model_of(1, "alone").answer(questions, 12)
    right = Conversation.prompt_ids
    monkeypatch.setattr(
        Conversation, "prompt_ids", lambda self, text, count=1: right(self, text, count) + [9] * (count == 1)
    )
    model = model_of(16, "apart")
    assert model.answer(questions, 12) == expected
    assert "prefill and decoding" not in model.stages()


@pytest.mark.parametrize("generation", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_a_setting_that_needs_the_whole_batch_is_left_to_transformers(model_of, generation: Generation) -> None:
    questions = asked(4, generation)
    plain = model_of(4, "plain").answer(questions, 4)
    found = []
    for batch_size in (1, 4):
        model = model_of(batch_size, f"batches of {batch_size}")
        model.engine.model.generation_config.encoder_repetition_penalty = 3.0
        found.append(model.answer(questions, 4))
        assert "prefill and decoding" in model.stages()
    assert found[0] == found[1] != plain


@pytest.mark.parametrize("generation", [GREEDY, PAPER], ids=["greedy", "paper"])
def test_a_batch_that_does_not_fit_is_halved_once_and_for_all(model_of, generation: Generation) -> None:
    questions = asked(24, generation)
    expected = model_of(1, "alone").answer(questions, 24)
    model, tried, notes = model_of(16, "halved"), [], []

    def full(module: Any, arguments: Any, inputs: Any) -> None:
        if inputs["input_ids"].shape[0] > 3 * generation.num_beams:
            raise torch.OutOfMemoryError("CUDA out of memory")

    class Told:
        def __call__(self, *_: Any) -> None: ...

        def note(self, text: str, /) -> None:
            notes.append(text)

    model._progress = Told()
    model.engine.model.register_forward_pre_hook(full, with_kwargs=True)
    generate = model.engine.generate
    model.engine.generate = lambda prompts: (tried.append(len(prompts)), generate(prompts))[1]
    assert model.answer(questions, 24) == expected
    assert tried[:4] == [12, 6, 3, 3] and set(tried[4:]) == {3}
    assert len(notes) == 1 and "12 prompts does not fit into the memory" in notes[0]


def test_one_prompt_that_does_not_fit_ends_the_run(model_of) -> None:
    model = model_of(2, "full")

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.engine.model.register_forward_pre_hook(full)
    with pytest.raises(NapoBenchError, match=r"A batch of 1 prompts does not fit .*\n0 of 4 are answered"):
        model.answer(asked(4), 4)


class Looking(Engine):
    """Answers with the digest of the image."""

    fingerprint = "looking"
    batch_size = 4

    def generate(self, prompts: Any) -> list[str]:
        return [prompt.digest[:8] for prompt in prompts]


def photos(count: int, side: int, opened: list[int]) -> list[Picture]:
    """Images of `side` x `side` pixels, which are decoded when they are opened."""

    def opener(number: int) -> Any:
        buffer = io.BytesIO()
        Image.new("RGB", (side, side), (number, 2 * number, 99)).save(buffer, "PNG")

        def read() -> Image.Image:
            opened.append(number)
            return Image.open(buffer).copy()

        return read

    return [Picture(number, opener(number)) for number in range(count)]


@pytest.mark.parametrize("side", [8, 300])
def test_an_image_is_opened_once_also_if_its_answers_are_known(tmp_path: Path, monkeypatch, side: int) -> None:
    monkeypatch.setattr(windows, "BUDGET", 2**20)
    opened: list[int] = []
    requests = [
        Request(f"What is it, {turn}?", photo, GREEDY) for photo in photos(30, side, opened) for turn in range(7)
    ]
    with Journal(tmp_path / "journal.sqlite") as journal:
        first = Answering(Looking(), journal, SILENT).answer(iter(requests), 210)
        assert len(set(first)) == 30 and opened.count(3) == 1 and len(opened) == 30
        assert Answering(Looking(), journal, SILENT).answer(iter(requests), 210) == first
    assert len(opened) == 60


def test_the_images_in_memory_have_a_budget(tmp_path: Path, monkeypatch) -> None:
    """90 images of 0.27 MB. Without a budget, a window would contain all of them."""
    monkeypatch.setattr(windows, "BUDGET", 4 * 2**20)
    alive: list[weakref.ref[Image.Image]] = []
    most: list[int] = []

    class Weighing(Looking):
        batch_size = 16

        def prepare(self, image: Image.Image) -> Image.Image:
            alive.append(weakref.ref(image))
            return image

        def generate(self, prompts: Any) -> list[str]:
            most.append(sum(image.width * image.height * 3 for ref in alive if (image := ref()) is not None))
            return super().generate(prompts)

    requests = [Request("What is it?", photo, GREEDY) for photo in photos(90, 300, [])]
    with Journal(tmp_path / "journal.sqlite") as journal:
        answers = Answering(Weighing(), journal, SILENT).answer(requests, 90)
    assert len(set(answers)) == 90
    ahead = 6 * 300 * 300 * 3
    assert max(most) < 2 * windows.BUDGET + ahead < 90 * 300 * 300 * 3 / 2


def test_the_rate_is_that_of_new_answers(tmp_path: Path) -> None:
    requests, values = asked(12), []
    with Journal(tmp_path / "journal.sqlite") as journal:
        Answering(Looking(), journal, SILENT).answer(requests[:4], 4)

        class Told:
            def __call__(self, stage: str, done: int, total: int, values_now: Any = None, /) -> None:
                values.append((done, (values_now or {}).get(RATE)))

            def note(self, text: str, /) -> None: ...

        Answering(Looking(), journal, Told()).answer(requests, 12)
    assert values[0] == (4, None) and values[-1][0] == 12 and values[-1][1] > 0

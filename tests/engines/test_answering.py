"""Answering: the next batch is made ready while a batch is answered, and what is finished is stored."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal
from napo_bench.core.progress import SILENT
from napo_bench.engines.answering import Answering
from napo_bench.engines.batches import dealt
from napo_bench.engines.engine import Engine, Prompt
from napo_bench.engines.prompt import Seen
from napo_bench.engines.request import Generation, Picture, Request
from napo_bench.engines.windows import windows


class Waiting(Engine):
    """Answers a batch only when the next one is ready. Without a second thread it would wait for ever."""

    fingerprint = "waiting"
    batch_size = 2

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.is_ready = [threading.Event() for _ in range(batches)]
        self.made_ready = 0
        self.answered: list[list[str]] = []

    def ready(self, prompts: Sequence[Prompt]) -> None:
        """See Engine."""
        self.is_ready[self.made_ready].set()
        self.made_ready += 1

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """See Engine."""
        following = len(self.answered) + 1
        assert following == self.batches or self.is_ready[following].wait(20)
        self.answered.append([prompt.text for prompt in prompts])
        return [f"said {prompt.text}" for prompt in prompts]


def requests(count: int) -> list[Request]:
    return [Request(f"question {number:02}", None, Generation()) for number in range(count)]


def test_the_next_batch_is_made_ready_while_a_batch_is_answered(tmp_path: Path) -> None:
    engine, count = Waiting(batches=20), 40  # more than two windows
    with Journal(tmp_path / "journal.sqlite") as journal:
        answers = Answering(engine, journal, SILENT).answer(requests(count), count)
    assert answers == [f"said question {number:02}" for number in range(count)]
    assert engine.made_ready == len(engine.answered) == 20


def test_an_image_that_cannot_be_read_ends_the_run_after_the_batch_before_it_is_stored(tmp_path: Path) -> None:
    def unreadable() -> Image.Image:
        raise NapoBenchError("3.png: the image cannot be decoded.", "Fetch or copy the file again.")

    engine = Waiting(batches=8)  # one window
    wanted = [*requests(16), Request("about an image", Picture("3.png", unreadable), Generation())]
    with Journal(tmp_path / "journal.sqlite") as journal:
        engine.is_ready.append(threading.Event())
        with pytest.raises(NapoBenchError, match=r"cannot be decoded.\n16 of 17 are answered and stored"):
            Answering(engine, journal, SILENT).answer(wanted, len(wanted))
        assert len(journal) == 16


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([b"said"], "an answer is a text or a Completion, bytes found"),
        ([None], "an answer is a text or a Completion, NoneType found"),
        ("a", "a list of answers is expected, str found"),
        (None, "a list of answers is expected, NoneType found"),
        (["a", "b"], "2 answers to 1 prompts"),
    ],
)
def test_what_is_no_answer_is_refused_with_the_engines_name_and_not_stored(
    tmp_path: Path, said: object, message: str
) -> None:
    engine = Waiting(batches=1)
    engine.generate = lambda prompts: said
    with Journal(tmp_path / "journal.sqlite") as journal:
        with pytest.raises(ValueError, match=f"Waiting.generate: {message}"):
            Answering(engine, journal, SILENT).answer(requests(1), 1)
        assert len(journal) == 0


class Repeating(Engine):
    """Repeats the prompt."""

    fingerprint = "repeating"

    def __init__(self, **settings: bool) -> None:
        vars(self).update(settings)
        self.batches: list[Sequence[Prompt]] = []

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """See Engine."""
        self.batches.append(prompts)
        return [prompt.text for prompt in prompts]


def test_requests_about_one_image_are_dealt_to_one_process_and_answered_in_the_order_of_all(tmp_path: Path) -> None:
    pictures = [Picture.of(Image.new("RGB", (8, 8), colour)) for colour in ("red", "green", "blue")]
    about_images = [Request(f"image {number:02}", pictures[number % 3], Generation()) for number in range(12)]
    every = [*about_images, *requests(4)]
    shares = dealt(every, 2)
    assert sorted(number for share in shares for number in share) == list(range(16))
    assert [len(share) for share in shares] == [8, 8]
    for picture in pictures:
        assert sum(any(every[number].picture is picture for number in share) for share in shares) == 1
    with Journal(tmp_path / "journal.sqlite") as journal:
        answers = Answering(Repeating(), journal, SILENT).answer_together(every)
    assert [str(answer) for answer in answers] == [request.question for request in every]


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [({}, [1, 1, 1, 1, 4, 4]), ({"draws_together": True}, [4, 4, 4]), ({"answers_alone": True}, [1] * 12)],
)
def test_a_batch_has_prompts_of_equal_settings_that_may_be_together(
    tmp_path: Path, settings: dict[str, bool], sizes: list[int]
) -> None:
    kinds = (Generation(), Generation(do_sample=True, temperature=1.0), Generation(max_new_tokens=5))
    every = [Request(f"question {number:02}", None, kinds[number % 3]) for number in range(12)]
    engine = Repeating(**settings)
    with Journal(tmp_path / "journal.sqlite") as journal:
        answers = Answering(engine, journal, SILENT).answer(every, 12)
    assert [str(answer) for answer in answers] == [request.question for request in every]
    assert sorted(map(len, engine.batches)) == sizes
    assert all(len({prompt.generation for prompt in batch}) == 1 for batch in engine.batches)


def test_a_window_ends_between_two_images_and_few_images_are_opened_ahead() -> None:
    opened: list[int] = []

    def photo(number: int) -> Picture:
        return Picture(number, lambda: Image.new("RGB", (8, 8), (number, 0, 0)))

    def look(shown: Picture) -> Seen:
        opened.append(1)
        return Repeating().look(shown)

    def sizes(pictures: Sequence[Picture | None], size: int) -> list[int]:
        asked = [Request("What is it?", picture, Generation()) for picture in pictures]
        return [len(window) for window in windows(asked, look, size)]

    assert sizes([None] * 10, 4) == [4, 4, 2]
    assert sizes([photo(number // 3) for number in range(15)], 4) == [6, 6, 3]
    assert sizes([photo(0)] * 20, 4) == [8, 8, 4]
    opened.clear()
    next(iter(windows([Request("What is it?", photo(number), Generation()) for number in range(60)], look, 20)))
    assert len(opened) <= 20 + 1 + 2

"""Requests -> answers, around any engine: journal, order, equal requests, progress, processes.

Requests are taken in windows of a few batches, so only the images of one window are in memory. Within a window prompts
are sorted by length, and an image of several prompts is opened and prepared once. A prompt whose answer is in the
journal is not answered again, and equal prompts are answered once. Sampled answers are drawn one at a time, and the
seed of an answer is made from everything that the answer depends on. Each answer is in the journal as soon as its batch
is done.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections import defaultdict
from collections.abc import Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec
from PIL import Image

from napo_bench.core import processes
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal, journal_key
from napo_bench.core.progress import Progress, or_bars
from napo_bench.core.shared_journal import ProcessJournal
from napo_bench.engines.answer import Completion, ModelAnswer
from napo_bench.engines.engine import Engine
from napo_bench.engines.prompt import Prompt, PromptWriter
from napo_bench.engines.request import Request
from napo_bench.engines.threads import in_flight, one_ahead

_BATCHES_A_WINDOW = 8


@dataclass(frozen=True, eq=False)
class Batch:
    """Prompts that an engine answers together.

    Attributes:
        prompts: The prompts.
        digests: Digests of the images of this batch and of the batches after it in the window.
    """

    prompts: list[Prompt]
    digests: set[str]


class Answering:
    """Asks an engine.

    Args:
        engine: Engine that answers.
        journal: Journal of the engine's output, including thoughts.
        progress: Progress of the answering; None draws a bar.
    """

    def __init__(self, engine: Engine, journal: Journal | ProcessJournal, progress: Progress | None = None) -> None:
        self.engine = engine
        self._journal = journal
        self._progress = progress
        self._writing = threading.Lock()
        self._texts: dict[Hashable, str] = {}

    def answer(self, requests: Iterable[Request], count: int, title: str = "Answering") -> list[ModelAnswer]:
        """The answer to each request, in the order of the requests. This process answers all requests.

        Args:
            requests: Requests, which are drawn a window at a time.
            count: Number of requests.
            title: Title of the progress bar.

        Raises:
            NapoBenchError: a batch cannot be answered, or an image cannot be read. The error says how many answers are
                stored.
        """
        asked: list[Prompt] = []
        written: dict[str, Completion] = {}
        done = 0
        counting = threading.Lock()

        def add(number: int) -> None:
            nonlocal done
            with counting:
                done += number
                tell(title, done, count)

        def open_batches() -> Iterator[Batch]:
            remaining, known = iter(requests), set[str]()
            while window := list(itertools.islice(remaining, self._window)):
                prompts = self._prompts(window)
                asked.extend(replace(prompt, image=None, further=()) for prompt in prompts)
                stored = self._stored(prompts)
                written.update(stored)
                known |= stored.keys()
                new = {prompt.key: prompt for prompt in prompts if prompt.key not in known}
                known |= new.keys()
                add(len(prompts) - len(new))
                batches = list(self._batches(new.values()))
                for number, batch in enumerate(batches):
                    yield Batch(batch, {prompt.digest for later in batches[number:] for prompt in later})

        with or_bars(self._progress) as tell:
            try:
                with closing(self._finished(open_batches(), count)) as finished:
                    for batch, completions in finished:
                        written.update(zip((prompt.key for prompt in batch.prompts), completions, strict=True))
                        add(len(batch.prompts))
            except NapoBenchError as error:
                answered = sum(prompt.key in written and not written[prompt.key].refused for prompt in asked)
                stored = f"{answered} of {count} are answered and stored in {self._journal.path}."
                raise NapoBenchError(f"{error.message}\n{stored}", error.hint) from None
        return [self.engine.read(prompt, written[prompt.key]) for prompt in asked]

    def answer_together(self, requests: Sequence[Request], title: str = "Answering") -> list[ModelAnswer]:
        """The answer to each request, in the order of the requests, in every process.

        Each process answers a share of the requests. Requests about one image are answered by one process, one after
        another, also if they are from different tasks.

        Args:
            requests: All requests, the same in every process.
            title: Title of the progress bar.

        Raises:
            NapoBenchError: as `answer`.
        """
        mine = dealt(requests, processes.count())[processes.rank()]
        answers = self.answer((requests[number] for number in mine), len(mine), title)
        found = list(zip(mine, answers, strict=True))
        by_number = dict(found if processes.is_alone() else processes.gathered(found))
        return [by_number[number] for number in range(len(requests))]

    @property
    def _window(self) -> int:
        return _BATCHES_A_WINDOW * self.engine.batch_size * self.engine.in_flight

    def _prompts(self, window: Sequence[Request]) -> list[Prompt]:
        prompts = prompts_of(self.engine, window, self._texts)
        return [replace(prompt, key=journal_key(**self.engine.identity(prompt))) for prompt in prompts]

    def _stored(self, prompts: Sequence[Prompt]) -> dict[str, Completion]:
        """The stored answers, without those that another request may improve."""
        with self._writing:
            found = self._journal.get(prompt.key for prompt in prompts)
        read = {key: completion for key, value in found.items() if (completion := stored_completion(value))}
        if self.engine.asks_again:
            lacking = {p.key for p in prompts if p.key in read and self.engine.read(p, read[p.key]).unanswered}
            read = {key: completion for key, completion in read.items() if key not in lacking}
        return read

    def _batches(self, prompts: Iterable[Prompt]) -> Iterator[list[Prompt]]:
        """Prompts that can share a forward, the longest first, so that a batch that does not fit fails at once."""

        def kind(prompt: Prompt) -> tuple[str, int]:
            return repr(prompt.generation), -len(prompt.images)

        ordered = sorted(prompts, key=lambda prompt: (kind(prompt), -self.engine.length(prompt)))
        for _, group in itertools.groupby(ordered, key=kind):
            rest = list(group)
            size = 1 if rest[0].generation.do_sample else self.engine.batch_size
            yield from (rest[start : start + size] for start in range(0, len(rest), size))

    def _finished(
        self, batches: Iterator[Batch], count: int
    ) -> Generator[tuple[Batch, Sequence[Completion]], None, None]:
        """Each batch with the engine's output, which is already in the journal."""
        with self.engine.asking(count) as stop:
            if self.engine.in_flight > 1:
                yield from in_flight(self._write, batches, self.engine.in_flight, stop)
                return
            for batch in one_ahead(self._made_ready(batches)):
                self.engine.keep(batch.digests)
                yield batch, self._write(batch)
            self.engine.keep(())

    def _made_ready(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.engine.ready(batch.prompts)
            yield batch

    def _write(self, batch: Batch) -> Sequence[Completion]:
        said = self.engine.generate(batch.prompts)
        _require_answers(type(self.engine).__name__, said, len(batch.prompts))
        values = {
            prompt.key: one if isinstance(one, str) else asdict(one)
            for prompt, one in zip(batch.prompts, said, strict=True)
            if isinstance(one, str) or not one.refused
        }
        with self._writing:
            self._journal.put(values)
        return [Completion.of(one) if isinstance(one, str) else one for one in said]


def prompts_of(writer: PromptWriter, requests: Sequence[Request], texts: dict[Hashable, str]) -> list[Prompt]:
    """The prompts of requests, without keys. An image of several requests is opened and prepared once.

    Args:
        writer: Engine, or what writes its prompts.
        requests: Requests.
        texts: Texts of questions that were written before. New texts are added.
    """
    seen: dict[Hashable, tuple[Image.Image, str]] = {}
    prompts = []
    for request in requests:
        for picture in request.pictures:
            if picture.name not in seen:
                prepared = writer.prepare(picture.open())
                seen[picture.name] = prepared, writer.digest(prepared)
        images, digests = [], []
        for picture in request.pictures:
            image, digest = seen[picture.name]
            images.append(image)
            digests.append(digest)
        asked = request.question, len(images)
        if asked not in texts:
            several = len(images) > 1
            texts[asked] = writer.interleaved(request.parts) if several else writer.text(request.question, bool(images))
        digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
        first, further = (images[0], tuple(images[1:])) if images else (None, ())
        prompts.append(Prompt(texts[asked], first, digest if images else "", request.generation, further=further))
    return prompts


def _require_answers(engine: str, said: object, count: int) -> None:
    """Refuse what is no list of `count` texts and completions. Raises ValueError: the engine has a mistake."""
    if isinstance(said, str) or not isinstance(said, Sequence):
        raise ValueError(f"{engine}.generate: a list of answers is expected, {type(said).__name__} found")
    if len(said) != count:
        raise ValueError(f"{engine}.generate: {len(said)} answers to {count} prompts")
    for one in said:
        if not isinstance(one, str | Completion):
            raise ValueError(f"{engine}.generate: an answer is a text or a Completion, {type(one).__name__} found")


def stored_completion(value: Any) -> Completion | None:
    """The output in a journal's value; None if another version of napo-bench wrote the value in another form."""
    if isinstance(value, str):
        return Completion.of(value)
    try:
        return msgspec.convert(value, Completion)
    except msgspec.ValidationError:
        return None


def dealt(requests: Sequence[Request], count: int) -> list[list[int]]:
    """The numbers of the requests for each of `count` processes. Requests about one first image are together."""
    by_picture: Mapping[Hashable, list[int]] = defaultdict(list)
    for number, request in enumerate(requests):
        by_picture[(number,) if request.picture is None else request.picture.name].append(number)
    shares: list[list[int]] = [[] for _ in range(count)]
    for numbers in by_picture.values():
        min(shares, key=len).extend(numbers)
    return shares

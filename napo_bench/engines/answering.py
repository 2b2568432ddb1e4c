"""Requests -> answers, around any engine: journal, order, equal requests, progress, processes.

Requests are taken in windows of a few batches, see `windows`. Within a window the longest prompts are answered first,
and prompts about one image are in one batch if the engine shares images. A prompt whose answer is in the journal is not
answered again, and equal prompts are answered once. The seed of a sampled answer is made from everything that the
answer depends on. Each answer is in the journal as soon as its batch is done. A batch that does not fit into memory is
asked again in halves.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

import msgspec

from napo_bench.core import processes
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal, journal_key
from napo_bench.core.progress import SILENT, Progress, or_bars
from napo_bench.core.shared_journal import ProcessJournal
from napo_bench.engines.answer import Completion, ModelAnswer
from napo_bench.engines.batches import Batch, batches_of, dealt
from napo_bench.engines.clock import Clock, merged_stages
from napo_bench.engines.engine import BatchTooLargeError, Engine
from napo_bench.engines.looks import Looks
from napo_bench.engines.prompt import Prompt, Seen
from napo_bench.engines.request import Picture, Request
from napo_bench.engines.threads import in_flight, one_ahead
from napo_bench.engines.windows import Window, prompt_of, windows

_BATCHES_A_WINDOW = 8
RATE = "samples/s"
"""Name of the progress value with the number of samples that the engine answers a second."""


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
        self._clock = Clock()
        self._most = engine.batch_size
        self._shrank = False
        self._tell: Progress = SILENT
        self._looks = Looks(engine, engine.fingerprint, engine.asked_in)
        self._new_looks: dict[str, dict[str, str]] = {}

    def known_images(self, contents: Iterable[str]) -> set[str]:
        """The images that this engine has looked at before, according to the journal.

        Args:
            contents: SHA-256 of encoded images.
        """
        wanted = set(contents)
        with self._writing:
            stored = self._journal.get(map(self._looks.key, wanted))
        return self._looks.learn(wanted, stored)

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
        done = generated = 0
        counting = threading.Lock()
        began = time.monotonic()

        def add(number: int, new: bool) -> None:
            nonlocal done, generated
            with counting:
                done += number
                generated += number if new else 0
                values = {RATE: generated / (time.monotonic() - began)} if generated else {}
                tell(title, done, count, values)

        def open_batches() -> Iterator[Batch]:
            known = set[str]()
            for window in windows(requests, self._look, self._window):
                prompts, stored = self._opened(window)
                asked.extend(prompt.without_images() for prompt in prompts)
                written.update(stored)
                known |= stored.keys()
                new = {prompt.key: prompt for prompt in prompts if prompt.key not in known}
                known |= new.keys()
                add(len(prompts) - len(new), new=False)
                batches = deque(batches_of(list(new.values()), self.engine, self._most))
                window.clear()
                prompts.clear()
                new.clear()
                while batches:
                    digests = {prompt.digest for later in batches for prompt in later}
                    yield Batch(batches.popleft(), digests)

        with or_bars(self._progress) as tell:
            self._tell = tell
            try:
                with closing(self._finished(open_batches(), count)) as finished:
                    for batch, completions in finished:
                        written.update(zip((prompt.key for prompt in batch.prompts), completions, strict=True))
                        add(len(batch.prompts), new=True)
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

    def stages(self) -> dict[str, dict[str, Any]]:
        """Stage -> its seconds and tokens, of all answers of this process. Images are read in other threads."""
        return merged_stages([self._clock.stages(), self.engine.stages()])

    def _look(self, picture: Picture) -> Seen:
        with self._clock("reading"):
            return self._looks.look(picture)

    def _opened(self, window: Window) -> tuple[list[Prompt], dict[str, Completion]]:
        """The prompts of a window, and the stored answers. The images of the other prompts are open."""
        prompts = self._prompts(window)
        stored = self._stored(prompts)
        again: dict[Hashable, Seen] = {}
        for number, (request, seen) in enumerate(window):
            if prompts[number].key not in stored and not all(one.is_open for one in seen):
                for picture in request.pictures:
                    if picture.name not in again:
                        again[picture.name] = self.engine.look(picture)
                window[number] = (request, [again[picture.name] for picture in request.pictures])
        if again:
            prompts = self._prompts(window)
            stored = self._stored(prompts)
        known: dict[str, str] = {}
        for prompt, (request, seen) in zip(prompts, window, strict=True):
            entry = self._looks.entry(request, seen)
            if prompt.key in stored:
                known |= entry
            elif entry:
                self._new_looks[prompt.digest] = entry
        if known:
            with self._writing:
                self._journal.put(known)
        return prompts, stored

    def _prompts(self, window: Window) -> list[Prompt]:
        prompts = [prompt_of(self.engine, request, seen, self._texts) for request, seen in window]
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
        return self._said(batch.prompts)

    def _said(self, prompts: Sequence[Prompt]) -> Sequence[Completion]:
        if len(prompts) <= self._most:
            try:
                said = self.engine.generate(prompts)
            except BatchTooLargeError as error:
                if len(prompts) == 1:
                    raise
                self._shrink(len(prompts), error)
            else:
                return self._put(prompts, said)
        half = (len(prompts) + 1) // 2
        return [*self._said(prompts[:half]), *self._said(prompts[half:])]

    def _shrink(self, count: int, error: BatchTooLargeError) -> None:
        """Let no batch have more than half of `count` prompts."""
        if not self._shrank:
            self._shrank = True
            self._tell.note(f"{error.message} From now on batches are halved until they fit. Answers stay the same.")
        self._most = min(self._most, (count + 1) // 2)

    def _put(self, prompts: Sequence[Prompt], said: Sequence[str | Completion]) -> Sequence[Completion]:
        _require_answers(type(self.engine).__name__, said, len(prompts))
        values = {
            prompt.key: one if isinstance(one, str) else asdict(one)
            for prompt, one in zip(prompts, said, strict=True)
            if isinstance(one, str) or not one.refused
        }
        # An image is known by its digest only if it has an answer, so that few images have to be opened after all.
        looks = [self._new_looks.pop(prompt.digest, {}) for prompt in prompts if prompt.key in values]
        for entry in looks:
            values |= entry
        with self._writing:
            self._journal.put(values)
        return [Completion.of(one) if isinstance(one, str) else one for one in said]


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

"""The judge's endpoint, which stores each completion in a journal as soon as the completion arrives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal, journal_key
from napo_bench.core.progress import SILENT, Progress
from napo_bench.engines.answer import Completion
from napo_bench.engines.answering import stored_completion
from napo_bench.engines.endpoint import Endpoint
from napo_bench.engines.threads import in_flight

if TYPE_CHECKING:
    from napo_bench.engines.endpoint import Messages

Item = TypeVar("Item")
Result = TypeVar("Result")


class JournalledEndpoint(Endpoint):
    """An endpoint with a journal.

    Args:
        model: Name of the model.
        base_url: See Endpoint.
        api_key: See Endpoint.
        journal: Journal of completions.
        concurrency: Maximum number of requests in flight.
        **options: See Endpoint.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None,
        api_key: str | None,
        journal: Journal,
        concurrency: int = 8,
        **options: Any,
    ) -> None:
        super().__init__(model, base_url, api_key, **options)
        self._journal = journal
        self._concurrency = concurrency
        self._asked: dict[str, Completion] = {}
        self._journalling = threading.Lock()
        self._key_locks: dict[str, threading.Lock] = {}

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        progress: Progress = SILENT,
        stage: str = "Answering",
    ) -> list[Result]:
        """`[function(item) for item in items]` with bounded concurrency; `function` may call `complete`.

        After the first failure no request is sent. Requests in flight are still awaited and stored.

        Args:
            function: Function, which is called in several threads.
            items: Arguments of the function.
            progress: Progress of the items.
            stage: Name of the stage in `progress`.

        Raises:
            NapoBenchError: an item failed. The error says how many items are done.
        """
        self._asked.clear()
        results: dict[int, Result] = {}
        with self.asking(len(items)) as stop:
            try:
                done = in_flight(lambda number: function(items[number]), range(len(items)), self._concurrency, stop)
                for number, result in done:
                    results[number] = result
                    progress(stage, len(results), len(items))
            except NapoBenchError as error:
                answered = len(results) - sum(bool(completion.refused) for completion in self._asked.values())
                stored = f"{answered} of {len(items)} are answered and stored in {self._journal.path}."
                raise NapoBenchError(f"{error.message}\n{stored}", error.hint) from None
        return [results[number] for number in range(len(items))]

    def complete(
        self,
        messages: Callable[[], Messages],
        identity: Mapping[str, Any],
        settings: Mapping[str, Any],
        is_answer: Callable[[Completion], bool] = lambda completion: True,
    ) -> Completion:
        """The completion of one chat, from the journal if stored. Equal chats are asked once.

        Args:
            messages: Function that makes the chat; called only if the chat is sent.
            identity: JSON values that identify the chat in the journal.
            settings: Request fields besides model and messages: temperature, max_tokens.
            is_answer: Function that says whether a stored completion is an answer. Otherwise the chat is asked again,
                once in each `map`.

        Returns:
            The completion, or a completion with the reason why the chat is refused.

        Raises:
            NapoBenchError: see `Endpoint.ask`.
        """
        key = journal_key(**self.identity(identity, settings))
        with self._journalling:
            key_lock = self._key_locks.setdefault(key, threading.Lock())
        with key_lock:
            if key in self._asked:
                return self._asked[key]
            stored = self.stored(identity, settings)
            if stored is not None and is_answer(stored):
                return stored
            completion = self.ask(messages(), settings)
            with self._journalling:
                if not completion.refused:
                    self._journal.put({key: asdict(completion)})
                self._asked[key] = completion
            return completion

    def stored(self, identity: Mapping[str, Any], settings: Mapping[str, Any]) -> Completion | None:
        """The journal's completion of a chat; None if the journal has none."""
        key = journal_key(**self.identity(identity, settings))
        with self._journalling:
            found = self._journal.get([key])
        completion = stored_completion(found.get(key))
        if completion is None or completion.request:
            return completion
        return replace(completion, request=self.fields(settings))

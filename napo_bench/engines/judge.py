"""The LLM judge: asks a model to rate or to read texts, and stores every reply."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from napo_bench.core.progress import SILENT, Progress
from napo_bench.core.thoughts import DEFAULT_MARKS, Marks, split_thoughts
from napo_bench.engines.answer import FINGERPRINT, Completion
from napo_bench.engines.journalled import JournalledEndpoint

if TYPE_CHECKING:
    from napo_bench.engines.endpoint import Messages

T = TypeVar("T")

REQUEST = {"temperature": 0}
"""Fields of every request, beside model and messages."""

_EXTRA_ASKS = 2


@dataclass(frozen=True)
class Form:
    """How a prompt is put to the judge.

    Attributes:
        role: Role of the one message.
        request: Fields of the request, beside model and messages.
    """

    role: Literal["user", "system"] = "user"
    request: Mapping[str, Any] = field(default_factory=lambda: dict(REQUEST))

    def messages(self, prompt: str) -> Messages:
        """The chat of a prompt."""
        return (
            [{"role": "system", "content": prompt}] if self.role == "system" else [{"role": "user", "content": prompt}]
        )

    def identity(self, prompt: str, ask: int, repeat: int = 0) -> dict[str, Any]:
        """What names a prompt in the journal, when its nth rating is asked for, again after replies without a value."""
        role = {"role": self.role} if self.role != "user" else {}
        return {"prompt": prompt, "ask": ask} | role | ({"repeat": repeat} if repeat else {})


USER = Form()
"""The form of a rating: a user message at temperature 0."""


@dataclass(frozen=True)
class Reply(Generic[T]):
    """The judge's reply to one prompt.

    Attributes:
        value: Parsed reply; None if no reply can be parsed.
        text: Reply of `value`, or the last reply, including thoughts.
        model: Name of the requested judge.
        reported_model: Name of the judge that answered, as reported by the endpoint.
        prompt_tokens: Number of tokens of all requests.
        completion_tokens: Number of tokens of all replies.
        request: Fields that the judge got beside model and messages.
        refused: Reason why the judge's endpoint refuses the prompt; "" if the endpoint answers.
        fingerprint: System fingerprint of the backend that answered; "" if the endpoint reports none.
    """

    value: T | None
    text: str
    model: str
    reported_model: str
    prompt_tokens: int
    completion_tokens: int
    request: Mapping[str, Any] = field(default_factory=lambda: dict(REQUEST))
    refused: str = ""
    fingerprint: str = ""


class Judge:
    """A chat model that judges.

    Args:
        endpoint: Model and server of the judge. Scores are comparable only between equal judges.
        progress: Progress of the prompts of `ask`.
        address: Name of the endpoint in a run's identity; None is its URL. A server whose port changes needs a name.
        thinking_marks: What encloses a judge's thoughts, which are not parsed.
        rates_everything: Whether every prompt gets a value, so that a second request cannot add a value.
        name: Name of the judge beside other judges; None is its model.
        repeats: Number of times that `rate` asks for every prompt.
    """

    def __init__(
        self,
        endpoint: JournalledEndpoint,
        *,
        progress: Progress = SILENT,
        address: str | None = None,
        thinking_marks: Marks = DEFAULT_MARKS,
        rates_everything: bool = False,
        name: str | None = None,
        repeats: int = 1,
    ) -> None:
        self.model = endpoint.model
        self.name = name or endpoint.model
        self.repeats = repeats
        self.rates_everything = rates_everything
        self._endpoint = endpoint
        self._progress = progress
        self._marks = thinking_marks
        self._address = address or endpoint.url

    @property
    def identity(self) -> dict[str, Any]:
        """Model, endpoint, the user's request fields and repeats, without secrets: equal judges have equal
        identities.
        """
        request, repeats = self._endpoint.request, self.repeats
        return {
            "model": self.model,
            "endpoint": self._address,
            **({"request": request} if request else {}),
            **({"repeats": repeats} if repeats > 1 else {}),
        }

    def reach(self, prompts: Sequence[str]) -> None:
        """Ask until one prompt is answered, without storing the reply, to find a wrong URL, key or model before long
        work.

        Raises:
            NapoBenchError: as `ask`.
        """
        self._endpoint.reach([USER.messages(prompt) for prompt in prompts], USER.request)

    def ask(self, prompts: Sequence[str], parse: Callable[[str], T | None], form: Form = USER) -> list[Reply[T]]:
        """Ask every prompt, one message each.

        If `parse` returns None for a reply, the prompt is asked again, at most twice. Then the last reply is kept
        without a value, and the next run asks again. `parse` gets no thoughts. The reply of a refused prompt contains
        the reason.

        Args:
            prompts: Prompts; equal prompts are asked once.
            parse: Function from a reply's text to its value; None if there is no value.
            form: Role of the message, and fields of the request.

        Returns:
            One reply for each prompt, in the order of the prompts.

        Raises:
            NapoBenchError: the endpoint refused all or too many prompts or failed repeatedly, or the budget is spent.
                Earlier replies are stored.
        """
        return self._ask([(prompt, 0) for prompt in prompts], parse, form)

    def rate(self, prompts: Sequence[str], parse: Callable[[str], T | None], form: Form = USER) -> list[list[Reply[T]]]:
        """Ask every prompt `repeats` times, as `ask`.

        Each repetition is a request of its own. The first one is the request of `ask`.

        Returns:
            The replies to each prompt, in the order of the repetitions.
        """
        asked = [(prompt, repeat) for repeat in range(self.repeats) for prompt in prompts]
        replies = self._ask(asked, parse, form)
        return [replies[start :: len(prompts)] for start in range(len(prompts))]

    def _ask(self, asked: Sequence[tuple[str, int]], parse: Callable[[str], T | None], form: Form) -> list[Reply[T]]:
        return self._endpoint.map(lambda item: self._reply(*item, parse, form), asked, self._progress, "Judging")

    def _reply(self, prompt: str, repeat: int, parse: Callable[[str], T | None], form: Form) -> Reply[T]:
        def value_of(completion: Completion) -> T | None:
            _, said = split_thoughts(completion.text, self._marks)
            return None if said is None else parse(said)

        def is_answer(completion: Completion) -> bool:
            return value_of(completion) is not None

        def ask(identity: Mapping[str, Any]) -> Completion:
            return self._endpoint.complete(lambda: form.messages(prompt), identity, form.request, is_answer)

        asks = [form.identity(prompt, number, repeat) for number in range(1 + _EXTRA_ASKS)]
        stored = [self._endpoint.stored(identity, form.request) for identity in asks]
        known = any(completion is not None and is_answer(completion) for completion in stored)
        prompt_tokens = completion_tokens = 0
        for identity, found in zip(asks, stored, strict=True):
            completion = found if found is not None and known else ask(identity)
            prompt_tokens += completion.prompt_tokens
            completion_tokens += completion.completion_tokens
            if completion.refused or is_answer(completion):
                break
        return Reply(
            value_of(completion),
            completion.text,
            self.model,
            completion.model,
            prompt_tokens,
            completion_tokens,
            completion.request,
            completion.refused,
            completion.fingerprint,
        )


def judge_settings(replies: Sequence[Reply[Any]], form: Form = USER) -> dict[str, Any]:
    """The settings that must be equal in two comparable judged results.

    The requested model, the models that answered and their system fingerprints, the request fields that they got, and a
    role other than "user". A temperature of None was not sent. Fingerprints may differ in two comparable results.
    """
    given = [reply for reply in replies if not reply.refused]
    fields = {name: [reply.request.get(name) for reply in given] for reply in given for name in reply.request}
    return {
        "model": ", ".join(sorted({reply.model for reply in replies})),
        "reported_model": ", ".join(sorted({reply.reported_model for reply in given})),
        **({FINGERPRINT: fingerprints} if (fingerprints := _fingerprints(given)) else {}),
        **({"role": form.role} if form.role != "user" else {}),
        **({"temperature": None} if given else form.request),
        **{name: _one_or_all(values) for name, values in sorted(fields.items())},
    }


def _fingerprints(replies: Sequence[Reply[Any]]) -> str:
    return ", ".join(sorted({reply.fingerprint for reply in replies if reply.fingerprint}))


def _one_or_all(values: Sequence[Any]) -> Any:
    """The value of all replies, or the list of the values if they differ."""
    distinct = {json.dumps(value, sort_keys=True): value for value in values}
    return next(iter(distinct.values())) if len(distinct) == 1 else [distinct[text] for text in sorted(distinct)]


def tokens_note(replies: Sequence[Reply[Any]]) -> str:
    """One line with the number of replies and their tokens."""
    prompt = sum(reply.prompt_tokens for reply in replies)
    completion = sum(reply.completion_tokens for reply in replies)
    return f"{len(replies)} judge replies, {prompt} prompt tokens and {completion} completion tokens"

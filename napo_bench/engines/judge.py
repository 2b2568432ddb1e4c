"""The LLM judge: asks a model to rate or to read texts, and stores every reply."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal
from napo_bench.core.paths import cache_dir
from napo_bench.core.progress import SILENT, Progress
from napo_bench.core.thoughts import DEFAULT_MARKS, Marks, split_thoughts
from napo_bench.engines.answer import Completion
from napo_bench.engines.endpoint import MAX_REFUSED
from napo_bench.engines.journalled import JournalledEndpoint

if TYPE_CHECKING:
    from napo_bench.engines.endpoint import Messages

T = TypeVar("T")

URL_VARIABLE = "NAPO_BENCH_JUDGE_BASE_URL"
MODEL_VARIABLE = "NAPO_BENCH_JUDGE_MODEL"
KEY_VARIABLES = ("NAPO_BENCH_JUDGE_API_KEY", "OPENAI_API_KEY")

NO_JUDGE_HINT = (
    f"Give --judge-model and --judge-base-url, or set {MODEL_VARIABLE} and {URL_VARIABLE} "
    f"(the key comes from {KEY_VARIABLES[0]} or {KEY_VARIABLES[1]})."
)

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

    def identity(self, prompt: str, ask: int) -> dict[str, Any]:
        """What names a prompt in the journal, when it is asked for the nth time."""
        return {"prompt": prompt, "ask": ask} | ({"role": self.role} if self.role != "user" else {})


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
    """

    value: T | None
    text: str
    model: str
    reported_model: str
    prompt_tokens: int
    completion_tokens: int
    request: Mapping[str, Any] = field(default_factory=lambda: dict(REQUEST))
    refused: str = ""


class Judge:
    """A chat model that judges.

    Args:
        endpoint: Model and server of the judge. Scores are comparable only between equal judges.
        progress: Progress of the prompts of `ask`.
        address: Name of the endpoint in a run's identity; None is its URL. A server whose port changes needs a name.
        thinking_marks: What encloses a judge's thoughts, which are not parsed.
        rates_everything: Whether every prompt gets a value, so that a second request cannot add a value.
    """

    def __init__(
        self,
        endpoint: JournalledEndpoint,
        *,
        progress: Progress = SILENT,
        address: str | None = None,
        thinking_marks: Marks = DEFAULT_MARKS,
        rates_everything: bool = False,
    ) -> None:
        self.model = endpoint.model
        self.rates_everything = rates_everything
        self._endpoint = endpoint
        self._progress = progress
        self._marks = thinking_marks
        self._address = address or endpoint.url

    @property
    def identity(self) -> dict[str, Any]:
        """Model, endpoint and the user's request fields, without secrets: equal judges have equal identities."""
        identity = {"model": self.model, "endpoint": self._address}
        request = self._endpoint.request
        return {**identity, "request": request} if request else identity

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
        return self._endpoint.map(lambda prompt: self._reply(prompt, parse, form), prompts, self._progress, "Judging")

    def _reply(self, prompt: str, parse: Callable[[str], T | None], form: Form) -> Reply[T]:
        def value_of(completion: Completion) -> T | None:
            _, said = split_thoughts(completion.text, self._marks)
            return None if said is None else parse(said)

        def is_answer(completion: Completion) -> bool:
            return value_of(completion) is not None

        def ask(identity: Mapping[str, Any]) -> Completion:
            return self._endpoint.complete(lambda: form.messages(prompt), identity, form.request, is_answer)

        asks = [form.identity(prompt, number) for number in range(1 + _EXTRA_ASKS)]
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
        )


def judge_settings(replies: Sequence[Reply[Any]], form: Form = USER) -> dict[str, Any]:
    """The settings that must be equal in two comparable judged results.

    The requested model, the models that answered, the request fields that they got, and a role other than "user". A
    temperature of None was not sent.
    """
    given = [reply for reply in replies if not reply.refused]
    fields = {name: [reply.request.get(name) for reply in given] for reply in given for name in reply.request}
    return {
        "model": ", ".join(sorted({reply.model for reply in replies})),
        "reported_model": ", ".join(sorted({reply.reported_model for reply in given})),
        **({"role": form.role} if form.role != "user" else {}),
        **({"temperature": None} if given else form.request),
        **{name: _one_or_all(values) for name, values in sorted(fields.items())},
    }


def _one_or_all(values: Sequence[Any]) -> Any:
    """The value of all replies, or the list of the values if they differ."""
    distinct = {json.dumps(value, sort_keys=True): value for value in values}
    return next(iter(distinct.values())) if len(distinct) == 1 else [distinct[text] for text in sorted(distinct)]


def tokens_note(replies: Sequence[Reply[Any]]) -> str:
    """One line with the number of replies and their tokens."""
    prompt = sum(reply.prompt_tokens for reply in replies)
    completion = sum(reply.completion_tokens for reply in replies)
    return f"{len(replies)} judge replies, {prompt} prompt tokens and {completion} completion tokens"


def judge_journal() -> Journal:
    """The journal of judge replies to stored responses: `judge.sqlite` in the user's cache folder."""
    return Journal(cache_dir() / "judge.sqlite")


def configured_judge(
    model: str | None,
    base_url: str | None,
    journal: Journal,
    max_requests: int | None = None,
    progress: Progress = SILENT,
    request: Mapping[str, Any] | None = None,
    max_refused: float = MAX_REFUSED,
    thinking_marks: Marks = DEFAULT_MARKS,
) -> Judge | None:
    """The judge of the options and the environment; None if neither names a judge.

    Args:
        model: Value of the option, else NAPO_BENCH_JUDGE_MODEL.
        base_url: Value of the option, else NAPO_BENCH_JUDGE_BASE_URL, else the `openai` client's default.
        journal: Path of the journal of replies.
        max_requests: Budget of requests.
        progress: See Judge.
        request: See Judge.
        max_refused: See Judge.
        thinking_marks: See Judge.

    Raises:
        NapoBenchError: there is a URL without a model, or the default URL needs a key and there is none.
    """
    model = model or os.environ.get(MODEL_VARIABLE)
    base_url = base_url or os.environ.get(URL_VARIABLE)
    if not model:
        if base_url:
            raise NapoBenchError(
                "A judge URL is given, but no judge model.",
                f"Add --judge-model, or set {MODEL_VARIABLE}.",
            )
        return None
    api_key = next((key for name in KEY_VARIABLES if (key := os.environ.get(name, "").strip())), None)
    if api_key is None and base_url is None:
        raise NapoBenchError(
            f"No key for the judge {model}.",
            f"Set {KEY_VARIABLES[0]} (or {KEY_VARIABLES[1]}), or give a server without keys as --judge-base-url.",
        )
    endpoint = JournalledEndpoint(
        model, base_url, api_key, journal, max_requests=max_requests, request=request, max_refused=max_refused
    )
    return Judge(endpoint, progress=progress, thinking_marks=thinking_marks)

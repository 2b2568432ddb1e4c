"""The LLM judge: asks a model to rate or to read texts, and keeps every reply."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import platformdirs

from napo_bench.endpoint import Endpoint
from napo_bench.errors import NapoBenchError
from napo_bench.journal import Journal

T = TypeVar("T")

URL_VARIABLE = "NAPO_BENCH_JUDGE_BASE_URL"
MODEL_VARIABLE = "NAPO_BENCH_JUDGE_MODEL"
KEY_VARIABLES = ("NAPO_BENCH_JUDGE_API_KEY", "OPENAI_API_KEY")

NO_JUDGE_HINT = (
    f"Give --judge-model and --judge-base-url, or set {MODEL_VARIABLE} and {URL_VARIABLE} "
    f"(the key comes from {KEY_VARIABLES[0]} or {KEY_VARIABLES[1]})."
)

_TEMPERATURE = 0
_EXTRA_ASKS = 2


@dataclass(frozen=True)
class Reply(Generic[T]):
    """What the judge says to one prompt.

    Attributes:
        value: The parsed reply; None where no ask gave one that can be parsed.
        text: The reply that `value` comes from, or the last one.
        model: The judge that was asked for.
        reported_model: The judge that answered, as the endpoint names it.
        prompt_tokens: Of all asks.
        completion_tokens: Of all asks.
    """

    value: T | None
    text: str
    model: str
    reported_model: str
    prompt_tokens: int
    completion_tokens: int


class Judge:
    """A chat model that judges, at temperature 0.

    Args:
        model: The name to ask for; scores are comparable only between equal judges.
        base_url: Of an OpenAI-compatible endpoint; None is the `openai` client's default.
        api_key: None suits servers without keys.
        journal: Keeps every reply, so that nothing is asked twice.
        concurrency: Requests in flight at most.
        max_requests: HTTP requests that this object may send, retries included; None is no limit.
        timeout: Seconds that one request may stay silent.
        retries: Further requests for a prompt after a rate limit, a server fault, a timeout or a lost connection.
        progress: Called with (done, total) whenever a prompt of `ask` is done.
        address: Names the endpoint in a run's identity. None is its URL; a server whose port changes needs another.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None,
        api_key: str | None,
        journal: Journal,
        concurrency: int = 8,
        max_requests: int | None = None,
        timeout: float = 60.0,
        retries: int = 6,
        progress: Callable[[int, int], None] | None = None,
        address: str | None = None,
    ) -> None:
        self.model = model
        self._progress = progress
        self._endpoint = Endpoint(model, base_url, api_key, journal, concurrency, max_requests, timeout, retries)
        self._address = address or self._endpoint.url

    @property
    def identity(self) -> dict[str, str]:
        """Model and endpoint, without secrets: equal judges have equal identities."""
        return {"model": self.model, "endpoint": self._address}

    def ask(self, prompts: Sequence[str], parse: Callable[[str], T | None]) -> list[Reply[T]]:
        """Ask every prompt, one user message each.

        A reply that `parse` turns into None is asked again, twice at most; then the last one stands, unparsed.

        Args:
            prompts: Equal ones are asked once.
            parse: The reply's text -> its value, None where there is none.

        Returns:
            One reply a prompt, in their order.

        Raises:
            NapoBenchError: the endpoint refused or kept failing, or the budget is spent; replies so far are stored.
        """
        return self._endpoint.map(lambda prompt: self._reply(prompt, parse), prompts, self._progress)

    def _reply(self, prompt: str, parse: Callable[[str], T | None]) -> Reply[T]:
        prompt_tokens = completion_tokens = 0
        for ask in range(1 + _EXTRA_ASKS):
            completion = self._endpoint.complete(
                lambda: [{"role": "user", "content": prompt}],
                identity={"prompt": prompt, "ask": ask},
                settings={"temperature": _TEMPERATURE},
            )
            prompt_tokens += completion.prompt_tokens
            completion_tokens += completion.completion_tokens
            value = parse(completion.text)
            if value is not None:
                break
        return Reply(value, completion.text, self.model, completion.model, prompt_tokens, completion_tokens)


def judge_settings(replies: Sequence[Reply[Any]]) -> dict[str, Any]:
    """What has to be equal for two judged results to be comparable: the model asked for and those that answered."""
    return {
        "model": ", ".join(sorted({reply.model for reply in replies})),
        "reported_model": ", ".join(sorted({reply.reported_model for reply in replies})),
        "temperature": _TEMPERATURE,
    }


def tokens_note(replies: Sequence[Reply[Any]]) -> str:
    """One line with the number of replies and their tokens."""
    prompt = sum(reply.prompt_tokens for reply in replies)
    completion = sum(reply.completion_tokens for reply in replies)
    return f"{len(replies)} judge replies, {prompt} prompt tokens and {completion} completion tokens"


def judge_journal() -> Journal:
    """Where stored responses' judge replies are kept: `judge.sqlite` in the user's cache folder."""
    return Journal(platformdirs.user_cache_path("napo-bench", appauthor=False) / "judge.sqlite")


def configured_judge(
    model: str | None,
    base_url: str | None,
    journal: Journal,
    max_requests: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Judge | None:
    """The judge that options and environment name, or None where neither names one.

    Args:
        model: Of the option; else NAPO_BENCH_JUDGE_MODEL.
        base_url: Of the option; else NAPO_BENCH_JUDGE_BASE_URL, else the `openai` client's default.
        journal: Where replies are kept.
        max_requests: The budget.
        progress: As of Judge.

    Raises:
        NapoBenchError: a URL without a model, or no key where the default URL needs one.
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
    return Judge(model, base_url, api_key, journal, max_requests=max_requests, progress=progress)

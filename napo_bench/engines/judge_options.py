"""The judges that options and environment variables name."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from napo_bench.core import caches, urls
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal
from napo_bench.core.progress import SILENT, Progress
from napo_bench.core.thoughts import DEFAULT_MARKS, Marks
from napo_bench.engines.budget import Budget
from napo_bench.engines.endpoint import MAX_REFUSED
from napo_bench.engines.journalled import JournalledEndpoint
from napo_bench.engines.judge import Judge

URL_VARIABLE = "NAPO_BENCH_JUDGE_BASE_URL"
MODEL_VARIABLE = "NAPO_BENCH_JUDGE_MODEL"
KEY_VARIABLES = ("NAPO_BENCH_JUDGE_API_KEY", "OPENAI_API_KEY")

NO_JUDGE_HINT = (
    f"Give --judge-model and --judge-base-url, or set {MODEL_VARIABLE} and {URL_VARIABLE} "
    f"(the key comes from {KEY_VARIABLES[0]} or {KEY_VARIABLES[1]})."
)

OF_ALL = "mean"
"""Name of the row of the mean over several judges, which no judge can have."""

_OWN_URL = re.compile(r"(.+?)@(https?://.+)", re.IGNORECASE)
_IS_ADDRESS = re.compile(r"[/:]|^localhost$|\.[a-z]{2,}$", re.IGNORECASE)
"""What follows an @ and is an address. Any other text is part of the model's name: claude-opus-4@20250514."""


@dataclass(frozen=True)
class JudgeOptions:
    """Options of judges.

    Attributes:
        models: NAME or NAME@URL of each judge; empty is NAPO_BENCH_JUDGE_MODEL.
        base_url: URL of the judges without a URL of their own; None is NAPO_BENCH_JUDGE_BASE_URL, else the `openai`
            client's default.
        max_requests: Budget of requests of all judges together; None is no limit.
        request: Further request fields of every judge.
        max_refused: Share of the prompts that a judge's endpoint may refuse.
        thinking_marks: Marks around a judge's thoughts, which are not parsed.
        repeats: Number of times that each judge rates every answer.
    """

    models: Sequence[str] = ()
    base_url: str | None = None
    max_requests: int | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    max_refused: float = MAX_REFUSED
    thinking_marks: Marks = DEFAULT_MARKS
    repeats: int = 1


def judge_journal() -> Journal:
    """The journal of judge replies to stored responses: `judge.sqlite` in the user's cache folder."""
    return caches.KeptJournal("judge")


def configured_judges(options: JudgeOptions, journal: Journal, progress: Progress = SILENT) -> tuple[Judge, ...]:
    """The judges of the options and the environment; empty if neither names a judge.

    A judge with a URL of its own gets the key of `key_variable(url)` and no other key. The other judges get
    NAPO_BENCH_JUDGE_API_KEY, else OPENAI_API_KEY.

    Args:
        options: The options.
        journal: Journal of replies.
        progress: Progress of each judge.

    Raises:
        NapoBenchError: there is a URL without a model, a judge has no name or that of the mean, an address after @ has
            no scheme, a judge is given twice, or the default URL needs a key and there is none.
    """
    base_url = options.base_url or os.environ.get(URL_VARIABLE)
    models = list(options.models) or [name for name in [os.environ.get(MODEL_VARIABLE)] if name]
    if not models and base_url:
        raise NapoBenchError(
            "A judge URL is given, but no judge model.",
            f"Add --judge-model, or set {MODEL_VARIABLE}.",
        )
    if not models and options.repeats > 1:
        raise NapoBenchError("--judge-repeats is given, but no judge.", f"Add --judge-model, or set {MODEL_VARIABLE}.")
    named = [_named(text, base_url) for text in models]
    known = Counter(model for model, _, _ in named)
    budget = None if options.max_requests is None else Budget(options.max_requests)
    judges: dict[str, Judge] = {}
    for model, url, is_own in named:
        variables = (key_variable(url),) if url and is_own else KEY_VARIABLES
        key = next((key for name in variables if (key := os.environ.get(name, "").strip())), None)
        if key is None and url is None:
            raise NapoBenchError(
                f"No key for the judge {model}.",
                f"Set {KEY_VARIABLES[0]} (or {KEY_VARIABLES[1]}), or give a server without keys as --judge-base-url.",
            )
        endpoint = JournalledEndpoint(
            model,
            url,
            key,
            journal,
            budget=budget,
            request=options.request,
            max_refused=options.max_refused,
            key_variable=variables[0],
        )
        name = model if known[model] == 1 else f"{model} at {endpoint.url}"
        if name in judges:
            raise NapoBenchError(
                f"The judge {name} is given twice.",
                "Give each judge once. --judge-repeats K lets every judge rate each answer K times.",
            )
        judges[name] = Judge(
            endpoint, progress=progress, thinking_marks=options.thinking_marks, name=name, repeats=options.repeats
        )
    return tuple(judges.values())


def configured_judge(options: JudgeOptions, journal: Journal, progress: Progress = SILENT) -> Judge | None:
    """As `configured_judges`, for one judge; None if neither options nor environment name a judge."""
    return next(iter(configured_judges(options, journal, progress)), None)


def key_variable(url: str) -> str:
    """The environment variable with the key of a judge with a URL of its own.

    NAPO_BENCH_JUDGE_API_KEY_API_MISTRAL_AI for https://api.mistral.ai/v1.
    """
    host = urlsplit(url).hostname or ""
    return f"{KEY_VARIABLES[0]}_{re.sub(r'[^A-Z0-9]', '_', host.upper())}"


def _named(text: str, base_url: str | None) -> tuple[str, str | None, bool]:
    """The model and the URL of NAME or NAME@URL, and whether the URL is the judge's own."""
    found = _OWN_URL.fullmatch(text.strip())
    name, _, rest = text.strip().partition("@") if found is None else (found[1], "@", found[2])
    if not name.strip():
        raise NapoBenchError(
            "A judge has no name before the @ of its URL." if rest else "A judge has no name.",
            "--judge-model NAME@http://localhost:8000/v1",
        )
    if name == OF_ALL:
        raise NapoBenchError(
            f"No judge can be called {name!r}: it is the row of the mean over the judges.",
            "Serve the judge under another name.",
        )
    if found is not None:
        return name, urls.require(rest, f"the judge {name}"), True
    if _IS_ADDRESS.search(rest):
        raise NapoBenchError(
            f"The URL of the judge {name} begins with neither http:// nor https://.",
            f"--judge-model {name}@http://localhost:8000/v1",
        )
    return text.strip(), base_url, False

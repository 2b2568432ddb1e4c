"""The HTTP client of an endpoint: limits of a reply's size and time, and no proxy to this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import openai

from napo_bench.core import urls
from napo_bench.core.limits import ANSWER_BYTES, ANSWER_SECONDS


class TooLargeError(Exception):
    """A reply is larger than a chat completion, lasts longer, or is packed although no packing was asked for."""


class _Limited:
    """The bytes of a reply, up to the limits."""

    def __init__(self, stream: Any, max_bytes: int, max_seconds: float) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds

    def __iter__(self) -> Iterator[bytes]:
        began, size = time.monotonic(), 0
        for block in self._stream:
            size += len(block)
            if size > self._max_bytes:
                raise TooLargeError(f"a reply of more than {self._max_bytes:,} bytes ({ANSWER_BYTES.variable})")
            if time.monotonic() - began > self._max_seconds:
                raise TooLargeError(
                    f"a reply that has not ended after {self._max_seconds:g} s ({ANSWER_SECONDS.variable})"
                )
            yield block

    def close(self) -> None:
        self._stream.close()


def limited_client(
    api_key: str, base_url: str | None, timeout: float, max_bytes: int, max_seconds: float
) -> openai.OpenAI:
    """The `openai` client of a URL, whose replies end at the limits.

    Args:
        api_key: Key that is sent.
        base_url: URL up to and including `/v1`; None is the client's default.
        timeout: Maximum time without data, in seconds.
        max_bytes: Maximum size of a reply.
        max_seconds: Maximum time of a reply, from its first byte to its last.
    """

    def limit(response: Any) -> None:
        # A packed reply of 10 MB can be 10 GB. The bytes are counted as they arrive, so packing is refused.
        if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
            raise TooLargeError("a packed reply (Content-Encoding), which was not asked for")
        # The HTTP library under the openai client depends on the client's version, and wants streams of its own class.
        own = next(kind for kind in type(response.stream).__mro__ if kind.__name__ == "SyncByteStream")
        limited: Any = type("Limited", (_Limited, own), {})
        response.stream = limited(response.stream, max_bytes, max_seconds)

    return openai.OpenAI(
        api_key=api_key,
        base_url=base_url,
        max_retries=0,
        timeout=timeout,
        default_headers={"Accept-Encoding": "identity"},
        http_client=openai.DefaultHttpxClient(
            trust_env=base_url is None or not urls.is_loopback(base_url), event_hooks={"response": [limit]}
        ),
    )

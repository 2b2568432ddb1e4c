"""The HTTP client of an endpoint: limits of a reply's size and of a request's time, and no proxy to this machine.

The requests of all threads run on one event loop, in a thread of its own. A request on an event loop can be ended at
any moment: while the connection is made, between two bytes of the headers, or in the body.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import openai

from napo_bench.core import urls
from napo_bench.core.limits import ANSWER_BYTES, ANSWER_SECONDS

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam


_starting = threading.Lock()


class TooLargeError(Exception):
    """A reply is larger than a chat completion, lasts longer, or is packed although no packing was asked for."""


class Client:
    """The `openai` client of a URL, whose replies end at the limits.

    Args:
        api_key: Key that is sent.
        base_url: URL up to and including `/v1`; None is the client's default.
        timeout: Maximum time without data, in seconds.
        max_bytes: Maximum size of a reply.
        max_seconds: Maximum time of a request, from its start to the last byte of the reply.

    Attributes:
        url: URL that is asked.
    """

    def __init__(self, api_key: str, base_url: str | None, timeout: float, max_bytes: int, max_seconds: float) -> None:
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            timeout=timeout,
            default_headers={"Accept-Encoding": "identity"},
            http_client=openai.DefaultAsyncHttpxClient(
                trust_env=base_url is None or not urls.is_loopback(base_url), event_hooks={"response": [self._limit]}
            ),
        )
        self.url = str(self._client.base_url)

    def complete(self, model: str, messages: list[ChatCompletionMessageParam], fields: Mapping[str, Any]) -> bytes:
        """The body of the reply to one chat. Several threads may call this method.

        Args:
            model: Name of the model.
            messages: The chat.
            fields: Further fields of the request.

        Raises:
            TooLargeError: the reply meets a limit.
            openai.OpenAIError: the request failed.
        """
        asked = self._asked(model, messages, fields)
        return asyncio.run_coroutine_threadsafe(asked, _loop()).result()

    async def _asked(self, model: str, messages: list[ChatCompletionMessageParam], fields: Mapping[str, Any]) -> bytes:
        create = self._client.chat.completions.with_raw_response.create
        try:
            async with asyncio.timeout(self._max_seconds):
                reply = await create(model=model, messages=messages, extra_body=dict(fields))
                return bytes(reply.content)
        except TimeoutError:
            raise TooLargeError(
                f"a reply that has not ended after {self._max_seconds:g} s ({ANSWER_SECONDS.variable})"
            ) from None

    async def _limit(self, response: Any) -> None:
        # A packed reply of 10 MB can be 10 GB. The bytes are counted as they arrive, so packing is refused.
        if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
            raise TooLargeError("a packed reply (Content-Encoding), which was not asked for")
        # The HTTP library under the openai client depends on the client's version, and wants streams of its own class.
        own = next(kind for kind in type(response.stream).__mro__ if kind.__name__ == "AsyncByteStream")
        limited: Any = type("Limited", (_Limited, own), {})
        response.stream = limited(response.stream, self._max_bytes)


class _Limited:
    """The bytes of a reply, up to a number."""

    def __init__(self, stream: Any, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for block in self._stream:
            size += len(block)
            if size > self._max_bytes:
                raise TooLargeError(f"a reply of more than {self._max_bytes:,} bytes ({ANSWER_BYTES.variable})")
            yield block

    async def aclose(self) -> None:
        await self._stream.aclose()


def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of all endpoints. Its thread ends with the process."""
    with _starting:
        return _started()


@cache
def _started() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="endpoints", daemon=True).start()
    return loop

"""An OpenAI-compatible chat endpoint: journalled, retried, bounded in concurrency and in requests.

The LLM judge and the model class `napo_api` both speak through it. The client's own retries are off: every HTTP
request has to be counted against the budget, and a rate limit that one thread meets holds for all of them.
"""

from __future__ import annotations

import random
import textwrap
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import msgspec
import openai

from napo_bench import files
from napo_bench.errors import NapoBenchError
from napo_bench.journal import Journal, journal_key

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

    Messages = list[ChatCompletionMessageParam]

Item = TypeVar("Item")
Result = TypeVar("Result")

_FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0
_LONGEST_RETRY_AFTER = 600.0
_LONGEST_QUOTE = 400
_TRANSIENT_STATUS = {408, 409, 425, 429}
_GO_ON = "Run the same command again: what is stored is not asked again."


@dataclass(frozen=True)
class Completion:
    """One answer of the endpoint.

    Attributes:
        text: The message's content; "" where the endpoint sent none.
        model: The model's name as the endpoint reported it.
        prompt_tokens: As reported, 0 where the endpoint does not count.
        completion_tokens: As reported, 0 where the endpoint does not count.
    """

    text: str
    model: str
    prompt_tokens: int
    completion_tokens: int


class Endpoint:
    """Chat completions of one model behind one URL.

    Args:
        model: The name to ask for.
        base_url: Up to and including `/v1`; None is the `openai` client's default.
        api_key: Sent as the bearer token; it reaches no message and no file. None suits servers without keys.
        journal: Keeps every completion from the moment it arrives.
        concurrency: Requests in flight at most.
        max_requests: HTTP requests that this object may send, retries included; None is no limit.
        timeout: Seconds that one request may stay silent.
        retries: Requests after the first that one completion may take.

    Raises:
        NapoBenchError: the URL is none, the key cannot be sent, or there is none where the default URL needs one.
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
    ) -> None:
        if api_key is None and base_url is None:
            raise NapoBenchError(f"No API key for {model}.", "Set OPENAI_API_KEY, or give the URL of another server.")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise NapoBenchError(f"The API key for {model} holds characters that no key has.", "Set it again.")
        if base_url is not None and not _is_url(base_url):
            raise NapoBenchError(
                f"The URL of {model} is {base_url.rpartition('@')[2]!r}; http://localhost:8000/v1 is how one looks."
            )
        self._client = openai.OpenAI(api_key=api_key or "none", base_url=base_url, max_retries=0, timeout=timeout)
        self._api_key = api_key
        self.model = model
        self.url = public_url(str(self._client.base_url))
        self._journal = journal
        self._concurrency = concurrency
        self._max_requests = max_requests
        self._timeout = timeout
        self._retries = retries
        self._requests = 0
        self._resume_at = 0.0
        self._reached = False
        self._stop = threading.Event()
        self._first_contact = threading.Lock()
        self._state = threading.Lock()
        self._key_locks: dict[str, threading.Lock] = {}

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Result]:
        """`[function(item) for item in items]` with bounded concurrency; `function` may call `complete`.

        The first failure stops what has not been sent; what is in flight is still awaited and stored.

        Args:
            function: Called in several threads.
            items: Its arguments.
            progress: Called with (done, total) whenever an item is done.

        Raises:
            NapoBenchError: an item failed; says how many are done.
        """
        self._stop.clear()

        def run(item: Item) -> Result:
            if self._stop.is_set():
                raise _StoppedError
            try:
                return function(item)
            except BaseException:
                self._stop.set()
                raise

        with ThreadPoolExecutor(self._concurrency) as pool:
            futures = [pool.submit(run, item) for item in items]
            try:
                done = 0
                for future in as_completed(futures):
                    if future.exception() is None:
                        done += 1
                        if progress:
                            progress(done, len(items))
            except BaseException:
                self._stop.set()
                raise
        errors = [error for future in futures if (error := future.exception()) is not None]
        for error in errors:
            if isinstance(error, NapoBenchError):
                stored = f"{done} of {len(items)} are answered and stored in {self._journal.path}."
                raise NapoBenchError(f"{error.message}\n{stored}", error.hint) from None
            if not isinstance(error, _StoppedError):
                raise error
        return [future.result() for future in futures]

    def complete(
        self, messages: Callable[[], Messages], identity: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> Completion:
        """The completion of one chat, from the journal where it is there; equal chats are asked once.

        Args:
            messages: Makes the chat; called only where it has to be sent.
            identity: JSON values that stand for the chat in the journal.
            settings: Request fields besides model and messages: temperature, max_tokens.

        Raises:
            NapoBenchError: the endpoint refused, failed `retries` + 1 times, or the budget is spent.
        """
        key = journal_key(endpoint=self.url, model=self.model, chat=dict(identity), settings=dict(settings))
        with self._state:
            key_lock = self._key_locks.setdefault(key, threading.Lock())
        with key_lock:
            with self._state:
                stored = self._journal.get([key])
            if key in stored:
                return Completion(**stored[key])
            completion = self._ask(messages(), settings)
            with self._state:
                self._journal.put({key: asdict(completion)})
            return completion

    def _ask(self, messages: Messages, settings: Mapping[str, Any]) -> Completion:
        attempt = 0
        while True:
            try:
                return self._first_alone(messages, settings)
            except _TransientError as fault:
                if attempt == self._retries:
                    what = f"failed {attempt + 1} times in a row, at last with: {fault.reason}"
                    raise self._failure(what, _GO_ON) from None
                self._wait_after(fault, attempt)
                attempt += 1

    def _wait_after(self, fault: _TransientError, attempt: int) -> None:
        """Wait as long as the endpoint asks for, and so does every other request; else longer with each attempt."""
        if fault.retry_after is None:
            self._rest(random.uniform(0.5, 1.0) * min(_FIRST_WAIT * 2**attempt, _LONGEST_WAIT))
        elif fault.retry_after > _LONGEST_RETRY_AFTER:
            raise self._failure(f"asks to wait {fault.retry_after:.0f} s ({fault.reason})", f"Wait that long. {_GO_ON}")
        else:
            self._resume_at = max(self._resume_at, time.monotonic() + fault.retry_after)

    def _first_alone(self, messages: Messages, settings: Mapping[str, Any]) -> Completion:
        """Send; until the endpoint has answered once, one request at a time, so that a wrong key costs one."""
        if not self._reached:
            with self._first_contact:
                if not self._reached:
                    completion = self._send(messages, settings)
                    self._reached = True
                    return completion
        return self._send(messages, settings)

    def _send(self, messages: Messages, settings: Mapping[str, Any]) -> Completion:
        while (wait := self._resume_at - time.monotonic()) > 0:
            self._rest(wait)
        self._take_request()
        try:
            answer = self._client.chat.completions.with_raw_response.create(
                model=self.model,
                messages=messages,
                **settings,
            )
            body = msgspec.json.decode(files.whole_characters(answer.content), type=_Body)
        except msgspec.MsgspecError as error:
            raise _TransientError(f"a reply that is no chat completion ({error})") from None
        except openai.APITimeoutError:
            raise _TransientError(f"no reply within {self._timeout:g} s") from None
        except openai.APIConnectionError as error:
            # By name: the HTTP library under the openai client depends on the client's version.
            if not self._reached and type(error.__cause__).__name__ == "ConnectError":
                raise self._failure(
                    f"cannot be reached: {error.__cause__}", "Check the URL, and that the server runs."
                ) from None
            raise _TransientError(f"connection lost ({error.__cause__ or error})") from None
        except openai.APIStatusError as error:
            raise self._status_error(error) from None
        usage = body.usage or _Usage()
        return Completion(
            text=body.choices[0].message.content or "",
            model=body.model or self.model,
            prompt_tokens=usage.prompt_tokens or 0,
            completion_tokens=usage.completion_tokens or 0,
        )

    def _status_error(self, error: openai.APIStatusError) -> Exception:
        said = textwrap.shorten(self._without_key(error.message), _LONGEST_QUOTE)
        status = error.status_code
        if status in {401, 403}:
            key = "the API key" if self._api_key else "a request without an API key"
            return self._failure(f"refuses {key} (HTTP {status}): {said}", "Set the key's variable and run again.")
        if status == 404:
            return self._failure(f"does not know the model, or the URL is wrong (HTTP 404): {said}", "Check both.")
        if error.code == "insufficient_quota":
            return self._failure(f"has no quota left: {said}", f"Raise the quota. {_GO_ON}")
        if status in _TRANSIENT_STATUS or status >= 500:
            return _TransientError(f"HTTP {status}: {said}", _retry_after(error.response.headers.get("retry-after")))
        return self._failure(f"refuses the request (HTTP {status}): {said}", "Change what it names and run again.")

    def _take_request(self) -> None:
        with self._state:
            if self._stop.is_set():
                raise _StoppedError
            if self._max_requests is not None and self._requests >= self._max_requests:
                raise self._failure(
                    f"has had its {self._max_requests} requests: the budget is spent", f"Raise the budget. {_GO_ON}"
                )
            self._requests += 1

    def _rest(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise _StoppedError

    def _failure(self, what: str, hint: str) -> NapoBenchError:
        self._stop.set()
        return NapoBenchError(f"{self.model} at {self.url} {what.rstrip('.')}.", hint)

    def _without_key(self, text: str) -> str:
        return text.replace(self._api_key, "***") if self._api_key else text


class _TransientError(Exception):
    """A fault that a later request may not meet; `retry_after` in seconds, None where the endpoint named none."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class _StoppedError(Exception):
    """Another item failed first."""


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Body(msgspec.Struct):
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    model: str | None = None
    usage: _Usage | None = None


def _retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, given as seconds or as a date; None where it says neither."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def public_url(url: str) -> str:
    """The URL without user, password, query and closing slash."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))

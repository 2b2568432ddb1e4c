"""An OpenAI-compatible chat endpoint, with retries and a limit of requests.

The LLM judge and the engine `api` use this module. The client's own retries are off, because every HTTP request counts
against the budget, and a rate limit in one thread applies to all threads.

A refusal is about one prompt (a content filter, too long a prompt) or about every prompt (a wrong field). Before the
first answer of the endpoint, three prompts with the same refusal stop the run. After that a refused prompt is
unanswered, and the run stops if more prompts are refused than `max_refused` allows. A refusal is not stored in the
journal, so the next run asks again.
"""

from __future__ import annotations

import math
import random
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import openai

from napo_bench.core import urls
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.limits import ANSWER_BYTES, ANSWER_SECONDS
from napo_bench.engines import chat
from napo_bench.engines.answer import Completion
from napo_bench.engines.budget import Budget
from napo_bench.engines.client import Client, TooLargeError
from napo_bench.engines.threads import StoppedError

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

    Messages = list[ChatCompletionMessageParam]

_FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0
_LONGEST_RETRY_AFTER = 600.0
_LONGEST_QUOTE = 400
_LONGEST_READ = 10_000
_TRANSIENT_STATUS = {408, 409, 425, 429}
_EVERY_PROMPT = 3
MAX_REFUSED = 0.01
_GO_ON = "Run the same command again: what is stored is not asked again."


class Endpoint:
    """Chat completions of one model at one URL.

    Args:
        model: Name of the model.
        base_url: URL up to and including `/v1`; None is the `openai` client's default.
        api_key: Key that is sent as the bearer token, and that is written to no message and no file. None is for
            servers without keys.
        budget: Budget of HTTP requests, including retries; None is no limit.
        timeout: Maximum time without data of one request, in seconds.
        retries: Maximum number of repeated requests for one completion.
        request: Fields of every request, which replace those of the settings; None leaves a field out.
        max_refused: Share of the prompts of `asking`, rounded up to a whole prompt, that may be refused.
        max_bytes: Maximum size of one reply; None is the limit `ANSWER_BYTES`.
        max_seconds: Maximum time of one request, to the last byte of the reply; None is the limit `ANSWER_SECONDS`.
        key_variable: Environment variable of the key, for messages.

    Raises:
        NapoBenchError: the URL is invalid, the key cannot be sent, or the default URL needs a key and there is none.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None,
        api_key: str | None,
        budget: Budget | None = None,
        timeout: float = 60.0,
        retries: int = 6,
        request: Mapping[str, Any] | None = None,
        max_refused: float = MAX_REFUSED,
        max_bytes: int | None = None,
        max_seconds: float | None = None,
        key_variable: str = "the key's variable",
    ) -> None:
        if api_key is None and base_url is None:
            raise NapoBenchError(f"No API key for {model}.", "Set OPENAI_API_KEY, or give the URL of another server.")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise NapoBenchError(f"The API key for {model} holds characters that no key has.", "Set it again.")
        if base_url is not None:
            urls.require(base_url, model)
        self._client = Client(
            api_key or "none",
            base_url,
            timeout,
            ANSWER_BYTES.value if max_bytes is None else max_bytes,
            ANSWER_SECONDS.value if max_seconds is None else max_seconds,
        )
        self._api_key = api_key
        self._key_variable = key_variable
        self.model = model
        self.url = urls.public(self._client.url)
        self._secrets = [secret for secret in (api_key, *urls.secrets_of(base_url or "")) if secret]
        self._budget = budget
        self._timeout = timeout
        self._retries = retries
        self.request = dict(request or {})
        self._max_refused = max_refused
        self._prompts = 1
        self._refused: list[str] = []
        self._first_refusals: list[tuple[int, str]] = []
        self._unsupported: frozenset[str] = frozenset()
        self._resume_at = 0.0
        self._reached = False
        self._stop = threading.Event()
        self._first_contact = threading.Lock()
        self._state = threading.Lock()

    @contextmanager
    def asking(self, count: int) -> Iterator[Callable[[], None]]:
        """Count refusals among the `count` prompts of this block.

        Yields:
            A function that ends the requests of other threads: no request is sent or waits after the call.

        Raises:
            NapoBenchError: the endpoint refused every prompt, and has not answered before.
        """
        self._stop.clear()
        self._prompts = count
        self._refused.clear()
        yield self._stop.set
        if not self._reached and len(self._refused) == count > 0:
            raise self._failure(f"refuses every prompt: {self._refused[-1]}", "Change what it names and run again.")

    def fields(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a request: these settings and the user's fields, which have precedence."""
        return chat.with_request(settings, self.request)

    def identity(self, chat: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        """The determinants of a completion's key in a journal.

        Args:
            chat: JSON values that identify the chat.
            settings: Request fields besides model and messages: temperature, max_tokens.
        """
        return {"endpoint": self.url, "model": self.model, "chat": dict(chat), "settings": self.fields(settings)}

    def ask(self, messages: Messages, settings: Mapping[str, Any]) -> Completion:
        """The completion of one chat, or a completion with the reason why the chat is refused.

        Raises:
            NapoBenchError: the endpoint refused every chat or too many, failed `retries` + 1 times, or the budget is
                spent.
        """
        return self._ask(messages, self.fields(settings))

    def reach(self, chats: Sequence[Messages], settings: Mapping[str, Any]) -> None:
        """Send chats until one is answered, so that a wrong URL, key, model or field is found before long work.

        Args:
            chats: Alternative chats, because a chat may be refused for its content. No reply is stored.
            settings: See `identity`.

        Raises:
            NapoBenchError: see `ask`.
        """
        self._prompts = len(chats)
        self._refused.clear()
        for messages in chats:
            if not self._ask(messages, self.fields(settings), tolerant=True).refused:
                return

    def _ask(self, messages: Messages, fields: Mapping[str, Any], tolerant: bool = False) -> Completion:
        attempt = 0
        while True:
            try:
                return self._first_alone(messages, fields)
            except _RefusalError as refusal:
                if not tolerant:
                    self._count_refusal(refusal)
                return Completion("", self.model, 0, 0, refused=refusal.reason)
            except _TransientError as fault:
                if attempt == self._retries:
                    what = f"failed {attempt + 1} times in a row, at last with: {fault.reason}"
                    raise self._failure(what, _GO_ON) from None
                self._wait_after(fault, attempt)
                attempt += 1

    def _count_refusal(self, refusal: _RefusalError) -> None:
        with self._state:
            self._refused.append(refusal.reason)
            count = len(self._refused)
        # Rounded first: 0.07 * 100 is a little more than 7.
        if count > math.ceil(round(self._max_refused * self._prompts, 6)):
            raise self._failure(
                f"refuses {count} of {self._prompts} prompts, more than {100 * self._max_refused:.3g}%, at last with: "
                f"{refusal.reason}",
                f"Change what it names, or let more prompts go unanswered: --max-refused 5%. {_GO_ON}",
            )

    def _wait_after(self, fault: _TransientError, attempt: int) -> None:
        """Wait as long as the endpoint asks for, in all threads. Without such a time, wait longer with each attempt."""
        if fault.retry_after is None:
            self._rest(random.uniform(0.5, 1.0) * min(_FIRST_WAIT * 2**attempt, _LONGEST_WAIT))
        elif fault.retry_after > _LONGEST_RETRY_AFTER:
            raise self._failure(f"asks to wait {fault.retry_after:.0f} s ({fault.reason})", f"Wait that long. {_GO_ON}")
        else:
            self._resume_at = max(self._resume_at, time.monotonic() + fault.retry_after)

    def _first_alone(self, messages: Messages, fields: Mapping[str, Any]) -> Completion:
        """Send a request. Before the first answer only one request is sent at a time, so a wrong key costs one
        request.
        """
        if not self._reached:
            with self._first_contact:
                if not self._reached:
                    try:
                        completion = self._send(messages, fields)
                    except _RefusalError as refusal:
                        self._require_another_way(refusal)
                        raise
                    self._reached = True
                    return completion
        return self._send(messages, fields)

    def _require_another_way(self, refusal: _RefusalError) -> None:
        """Raise an error if the first prompts are all refused in the same way."""
        self._first_refusals.append(refusal.kind)
        if self._first_refusals[-_EVERY_PROMPT:] == [refusal.kind] * _EVERY_PROMPT:
            raise self._failure(
                f"refuses the request ({_EVERY_PROMPT} prompts in a row): {refusal.reason}",
                "Change what it names and run again.",
            )

    def _send(self, messages: Messages, fields: Mapping[str, Any]) -> Completion:
        while (wait := self._resume_at - time.monotonic()) > 0:
            self._rest(wait)
        self._take_request()
        sent = chat.without_fields(fields, self._unsupported)
        try:
            body = chat.read_reply(self._client.complete(self.model, messages, sent))
        except chat.PassingShapeError as error:
            raise _TransientError(self._quote(str(error))) from None
        except chat.LastingShapeError as error:
            if not self._reached:
                said = self._quote(str(error))
                raise self._failure(f"sends {said}", "Give the URL of a chat-completions endpoint.") from None
            raise _RefusalError(self._quote(str(error)), 200, "shape") from None
        except TooLargeError as error:
            raise self._too_large(error) from None
        except openai.APITimeoutError:
            raise _TransientError(f"no reply within {self._timeout:g} s") from None
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, TooLargeError):
                raise self._too_large(error.__cause__) from None
            # By name: the HTTP library under the openai client depends on the client's version.
            if not self._reached and type(error.__cause__).__name__ == "ConnectError":
                reason = self._quote(str(error.__cause__))
                raise self._failure(
                    f"cannot be reached: {reason}", "Check the URL, and that the server runs."
                ) from None
            raise _TransientError(f"connection lost ({self._quote(str(error.__cause__ or error))})") from None
        except openai.APIStatusError as error:
            if name := chat.unsupported_field(chat.error_text(error.body), error.code, error.param, sent, self.request):
                return self._send_without(name, messages, fields)
            raise self._status_error(error) from None
        if not body.text and body.finish_reason == "content_filter":
            raise _RefusalError("the content filter held the answer back", 200, body.finish_reason)
        return Completion(
            text=body.text,
            model=self._quote(body.model) or self.model,
            prompt_tokens=body.prompt_tokens,
            completion_tokens=body.completion_tokens,
            cut_off=body.finish_reason == "length" if body.finish_reason else None,
            thoughts=body.thoughts,
            thought_tokens=body.thought_tokens,
            request=sent,
            fingerprint=self._quote(body.fingerprint),
        )

    def _too_large(self, error: TooLargeError) -> Exception:
        if not self._reached:
            return self._failure(f"sends {error}", "Give the URL of a chat-completions endpoint.")
        return _RefusalError(str(error), 200, "too large")

    def _send_without(self, name: str, messages: Messages, fields: Mapping[str, Any]) -> Completion:
        """Send the request without a field that the endpoint refuses. If this request is refused too, the field was not
        the reason.
        """
        before = self._unsupported
        self._unsupported = before | {name}
        try:
            return self._send(messages, fields)
        except _RefusalError:
            self._unsupported = before
            raise

    def _status_error(self, error: openai.APIStatusError) -> Exception:
        said = self._quote(chat.error_text(error.body) or error.message)
        status, code = error.status_code, str(error.code or "")
        if status == 401 or (status == 403 and not self._reached):
            key = "the API key" if self._api_key else "a request without an API key"
            return self._failure(f"refuses {key} (HTTP {status}): {said}", f"Set {self._key_variable} and run again.")
        if status == 404 or code == "model_not_found":
            return self._failure(f"does not know the model, or the URL is wrong (HTTP {status}): {said}", "Check both.")
        if status == 402 or code == "insufficient_quota":
            return self._failure(f"has no quota left: {said}", f"Raise the quota. {_GO_ON}")
        if status in _TRANSIENT_STATUS or status >= 500:
            return _TransientError(f"HTTP {status}: {said}", _retry_after(error.response.headers.get("retry-after")))
        if code in chat.UNSUPPORTED_CODES or error.param in self.request:
            return self._failure(f"refuses the request (HTTP {status}): {said}", "Change what it names and run again.")
        return _RefusalError(f"HTTP {status}: {said}", status, code)

    def _take_request(self) -> None:
        with self._state:
            if self._stop.is_set():
                raise StoppedError
            if self._budget is not None and not self._budget.take():
                raise self._failure(
                    f"gets no request: the budget of {self._budget.requests} requests is spent",
                    f"Raise the budget. {_GO_ON}",
                )

    def _rest(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise StoppedError

    def _failure(self, what: str, hint: str) -> NapoBenchError:
        self._stop.set()
        return NapoBenchError(f"{self.model} at {self.url} {what.rstrip('.')}.", hint)

    def _quote(self, text: str) -> str:
        """The endpoint's message, shortened and without secrets."""
        return textwrap.shorten(urls.without_secrets(text[:_LONGEST_READ], self._secrets), _LONGEST_QUOTE)


class _TransientError(Exception):
    """A fault that may pass; `retry_after` in seconds, None if the endpoint names no time."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class _RefusalError(Exception):
    """The endpoint refuses one chat; `kind` is its HTTP status and error code."""

    def __init__(self, reason: str, status: int, code: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = (status, code)


def _retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header, which contains seconds or a date; None for any other content."""
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

"""The chat-completions protocol of real servers: replies, refusals, and request fields that some servers refuse."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError

_OUR_FIELDS = ("model", "messages", "stream", "n")
_UNSUPPORTED = re.compile(
    r"unsupported|not support|n't support|no longer support|only the default|deprecated|unknown|unrecogni[sz]ed"
    r"|unexpected|not permitted|not allowed|instead",
    re.IGNORECASE,
)
_EVENTS = (b"data:", b"event:")
NOT_SENT = "not sent"
UNSUPPORTED_CODES = ("unsupported_parameter", "unsupported_value", "unknown_parameter")

_FALLBACKS = {"max_tokens": "max_completion_tokens", "temperature": None, "top_p": None}
"""Field that reasoning models refuse -> its replacement."""


class PassingShapeError(Exception):
    """A reply whose fault may pass: cut off, a gateway's page, an error of another server."""


class LastingShapeError(Exception):
    """A reply in a shape that a repeated request would get again."""


@dataclass(frozen=True)
class ReplyBody:
    """The relevant parts of a reply.

    Attributes:
        text: Text parts of the message.
        thoughts: Thoughts that the endpoint sends apart from the text.
        finish_reason: Finish reason as reported; "" if missing.
        model: Model as reported; "" if missing.
        prompt_tokens: Number of tokens as reported; 0 if missing.
        completion_tokens: Number of tokens as reported; 0 if missing.
        thought_tokens: Number of tokens of the thoughts as reported; None if missing.
        fingerprint: System fingerprint of the backend as reported; "" if missing.
    """

    text: str
    thoughts: str
    finish_reason: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    fingerprint: str = ""
    thought_tokens: int | None = None


class _Part(msgspec.Struct):
    type: str = "text"
    text: str | None = None


class _Message(msgspec.Struct):
    content: str | list[str | _Part] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None


_CONTENT = set(_Message.__struct_fields__)


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    completion_tokens_details: Any = None


class _Body(msgspec.Struct):
    choices: list[_Choice]
    model: str | None = None
    usage: _Usage | None = None
    system_fingerprint: Any = None


def read_reply(content: bytes) -> ReplyBody:
    """Read the body of a chat completion.

    If the content is a list of parts, the text parts are the text.

    Raises:
        PassingShapeError: the body is no JSON, is an error instead of a completion, or has no choices.
        LastingShapeError: the body is JSON of another shape, has several choices, or is a stream of events.
    """
    if content.lstrip().startswith(_EVENTS):
        raise LastingShapeError("a stream of events, although one reply was asked for")
    try:
        value = msgspec.json.decode(files.whole_characters(content))
    except (msgspec.MsgspecError, ValueError) as error:
        raise PassingShapeError(f"a reply that is no chat completion ({error})") from None
    except RecursionError:
        raise LastingShapeError("a reply that is no chat completion (too many brackets inside each other)") from None
    if isinstance(value, dict) and value.get("error"):
        raise PassingShapeError(f"an error in place of a completion: {json.dumps(value['error'], ensure_ascii=False)}")
    if isinstance(value, dict) and "choices" in value and not value["choices"]:
        raise PassingShapeError("a reply that is no chat completion (it has no choices)")
    try:
        body = msgspec.convert(value, _Body)
    except msgspec.ValidationError as error:
        raise LastingShapeError(f"a reply that is no chat completion ({error})") from None
    if len(body.choices) > 1:
        raise LastingShapeError(f"a reply with {len(body.choices)} choices, although one was asked for")
    if not value["choices"][0]["message"].keys() & _CONTENT:
        raise LastingShapeError("a reply that is no chat completion (its message has no content)")
    message, usage = body.choices[0].message, body.usage or _Usage()
    text = message.content or message.refusal or ""
    thoughts = message.reasoning_content or message.reasoning or ""
    if isinstance(text, list):
        text = "".join(part if isinstance(part, str) else _text_of(part) for part in text)
        apart = [part for part in value["choices"][0]["message"]["content"] if not _is_text(part)]
        thoughts = thoughts or (json.dumps(apart, ensure_ascii=False) if apart else "")
    return ReplyBody(
        text=text,
        thoughts=thoughts if isinstance(thoughts, str) else json.dumps(thoughts, ensure_ascii=False),
        finish_reason=body.choices[0].finish_reason or "",
        model=body.model or "",
        prompt_tokens=max(0, usage.prompt_tokens or 0),
        completion_tokens=max(0, usage.completion_tokens or 0),
        thought_tokens=_thought_tokens(usage.completion_tokens_details),
        fingerprint=body.system_fingerprint if isinstance(body.system_fingerprint, str) else "",
    )


def _thought_tokens(details: Any) -> int | None:
    count = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


def error_text(body: object) -> str:
    """The message in the body of an error; without a message, the whole body."""
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return body if isinstance(body, str) else json.dumps(body, ensure_ascii=False) if body else ""


def unsupported_field(
    message: str, code: str | None, param: str | None, fields: Mapping[str, Any], kept: Mapping[str, Any]
) -> str | None:
    """The field with a replacement that an endpoint refuses for every prompt; None if the refusal names no such field.

    Args:
        message: Message of the refusal.
        code: Code of the refusal.
        param: Parameter that the refusal names.
        fields: Fields that were sent.
        kept: Fields of the user, which are never replaced.
    """
    if code not in UNSUPPORTED_CODES and not _UNSUPPORTED.search(message):
        return None
    candidates = [name for name in _FALLBACKS if name in fields and name not in kept]
    if param in candidates:
        return param
    return next((name for name in candidates if re.search(rf"\b{name}\b", message)), None)


def without_fields(fields: Mapping[str, Any], refused: frozenset[str]) -> dict[str, Any]:
    """The fields to send to an endpoint that refuses some of _FALLBACKS."""
    sent = {name: value for name, value in fields.items() if name not in refused}
    for name in refused & fields.keys():
        if other := _FALLBACKS[name]:
            sent[other] = fields[name]
    return sent


def changed_fields(asked: Mapping[str, Any], sent: Mapping[str, Any]) -> dict[str, str]:
    """Field that was changed for an endpoint -> the change."""
    return {
        name: f"sent as {other}" if (other := _FALLBACKS.get(name)) in sent else NOT_SENT
        for name, value in asked.items()
        if value is not None and name not in sent
    }


def read_request_fields(options: Sequence[str], option: str) -> dict[str, Any]:
    """Request fields of key=value options, see `read_values`. null leaves out a field of napo-bench.

    Raises:
        NapoBenchError: an option has no "=", or names a field that napo-bench sets.
    """
    fields = read_values(options, option, "reasoning_effort=low")
    for name in _OUR_FIELDS:
        if name in fields:
            raise NapoBenchError(f"{option} names {name!r}, which napo-bench sets itself.", "Leave it out.")
    return fields


_PYTHON = {"True": "true", "False": "false", "None": "null"}


def read_values(options: Sequence[str], option: str, example: str) -> dict[str, Any]:
    """The values of key=value options. A value is JSON, else text that does not look like JSON or Python.

    Args:
        options: What the user gave.
        option: Name of the option, for messages.
        example: Example for messages.

    Raises:
        NapoBenchError: an option has no "=", gives a name twice, or has a value that is damaged JSON or Python's True,
            False or None, which would be taken as text.
    """
    values: dict[str, Any] = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise NapoBenchError(f"{option} is {text!r}; key=value is expected.", f"{option} {example}")
        if name in values:
            raise NapoBenchError(f"{option} gives {name!r} twice.", "Give each name once.")
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError as error:
            if value in _PYTHON:
                raise NapoBenchError(
                    f"{option} is {text!r}, which is text.", f"{option} {name}={_PYTHON[value]}"
                ) from None
            if value.startswith(("{", "[", '"')):
                raise NapoBenchError(
                    f"{option} is {text!r:.200}, and its value is no JSON: {error.msg}.", f"{option} {example}"
                ) from None
            values[name] = value
    return values


def with_request(settings: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """napo-bench's settings with the user's fields, which have precedence; `max_completion_tokens` replaces
    `max_tokens`.
    """
    merged = {**settings, **request}
    if "max_completion_tokens" in request and "max_tokens" not in request:
        merged.pop("max_tokens", None)
    return {name: value for name, value in merged.items() if value is not None}


def read_share(text: str, option: str) -> float:
    """The share of an option such as "1%" or "0.01".

    Raises:
        NapoBenchError: the option has another form, or the share is not between 0 and 1.
    """
    try:
        share = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise NapoBenchError(f"{option} is {text!r}; a share such as 1% or 0.01 is expected.")
    return share


def _is_text(part: Any) -> bool:
    return isinstance(part, str) or (isinstance(part, dict) and str(part.get("type", "text")).endswith("text"))


def _text_of(part: _Part) -> str:
    return part.text or "" if part.type.endswith("text") else ""

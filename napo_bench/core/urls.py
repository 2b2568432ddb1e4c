"""URLs of servers: what of them is shown and stored, and where they lead.

A user name, a password and a query can be secrets. No message, no file and no report contains them. A leaf: it imports
only `napo_bench.core.errors`.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from napo_bench.core.errors import NapoBenchError

_HIDDEN = "***"
_IN_TEXT = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'<>]*", re.IGNORECASE)
_BASIC = re.compile(r"\b(Basic|Bearer)\s+[A-Za-z0-9+/=_.~-]{4,}", re.IGNORECASE)
_HOST = re.compile(r"[\w.:%-]+")


def public(url: str) -> str:
    """The URL without user, password, parameters, query, fragment and closing slash; of a text that is no URL, its
    scheme alone.
    """
    parts = _parts(url)
    if parts is None or "@" in parts.path:  # the "/" of a password may begin what looks like a path
        scheme, colon, _ = url.partition("://")
        return f"{scheme}://{_HIDDEN}" if colon and scheme.isalnum() else _HIDDEN
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.partition(";")[0].rstrip("/"), "", ""))


def without_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """A text with every URL in its public form, and without credentials of the Basic and Bearer schemes.

    Args:
        text: The text: a command line, or what a server said.
        secrets: Further strings to hide.
    """
    for secret in sorted(set(secrets), key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return _BASIC.sub(rf"\1 {_HIDDEN}", _IN_TEXT.sub(_shown, text))


def secrets_of(url: str) -> list[str]:
    """What a server may repeat of a URL and must not be shown: user and password, as sent and as written."""
    parts = _parts(url)
    if parts is None or parts.password is None:
        return []
    user, password = parts.username or "", parts.password
    pairs = [f"{user}:{password}", f"{unquote(user)}:{unquote(password)}"]
    encoded = [base64.b64encode(pair.encode()).decode() for pair in pairs]
    return [secret for secret in (*pairs, *encoded, password, unquote(password)) if secret]


def require(url: str, what: str, *, query: bool = False) -> str:
    """The URL, if it is one of a web server.

    Args:
        url: The URL.
        what: What the URL is of, for the message.
        query: Whether the URL may have a query.

    Raises:
        NapoBenchError: it is no URL, or has a query. The error shows no secret.
    """
    parts = _parts(url)
    if parts is None:
        shown = public(url) if "@" in url or "?" in url else url
        raise NapoBenchError(f"The URL of {what} is {shown!r}; http://localhost:8000/v1 is how one looks.")
    if parts.fragment or ";" in parts.path or (parts.query and not query):
        raise NapoBenchError(
            f"The URL of {what}, {public(url)!r}, has a query, parameters or a fragment, and a path is added to it.",
            "Give the URL without `?`, `;` and `#`. A key is read from an environment variable.",
        )
    return url


def join(url: str, name: str) -> str:
    """The URL of a file below a URL, whose query is kept: ("http://host/data?token=1", "a.json")."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def is_loopback(url: str) -> bool:
    """Whether the URL is of a server on this machine, which no proxy can reach."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _shown(found: re.Match[str]) -> str:
    return public(found[0]) if "@" in found[0] or "?" in found[0] else found[0]


def _parts(url: str) -> SplitResult | None:
    """The parts of a web server's URL; None for any other text."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if whole and _HOST.fullmatch(parts.hostname or "") and url.isprintable() else None

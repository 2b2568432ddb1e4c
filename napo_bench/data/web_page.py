"""A web page that a server sends in place of a file: a confirmation, a used-up quota, a login."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Self
from urllib.parse import urlencode, urljoin

from napo_bench.core.errors import NapoBenchError

LARGEST = 1 << 20
"""Number of bytes of a page that are read."""

_CONFIRMATION = "download-form"  # Google Drive's form for a file that is too large for its virus scan
_QUOTA = re.compile(r"quota (?:has been )?exceeded|download quota|too many users have viewed or downloaded", re.I)
_LOGIN = re.compile(r"accounts\.google\.com/[^\"']*(?:servicelogin|signin)|<title>[^<]*sign[ -]?in", re.I)
_LONGEST_TITLE = 80


def is_web_page(content_type: str, start: bytes) -> bool:
    """Whether a response is a web page: its type says so, or its first bytes are those of an HTML document."""
    return content_type.startswith("text/html") or start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))


@dataclass
class WebPage:
    """A web page in place of a file.

    Attributes:
        text: HTML of the page.
        title: Title of the page, in printable characters.
        action: Address that the form of a confirmation names; None if the page asks for no confirmation.
        fields: Hidden fields of this form.
    """

    text: str
    title: str = ""
    action: str | None = None
    fields: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, content: bytes) -> Self:
        """The page of an HTML document."""
        page = cls(content.decode("utf-8", "replace"))
        _Reader(page).feed(page.text)
        words = "".join(character if character.isprintable() else " " for character in page.title)
        page.title = " ".join(words.split())[:_LONGEST_TITLE]
        return page

    @property
    def is_quota(self) -> bool:
        """Whether the page says that the download quota of the file is used up."""
        return bool(_QUOTA.search(self.text))

    def confirmed(self, url: str) -> str | None:
        """The address behind the button of the confirmation; None if the page asks for no confirmation.

        Args:
            url: Address of the page.
        """
        return None if self.action is None else f"{urljoin(url, self.action)}?{urlencode(self.fields)}"

    def error(self, url: str) -> NapoBenchError:
        """The error that names what the server sent in place of the file at `url`."""
        titled = f"the web page {self.title!r}" if self.title else "a web page"
        sent = f"{url} sent {titled} in place of the file"
        if self.is_quota:
            return NapoBenchError(
                f"{sent}: the download quota of the file is used up.",
                "The quota comes back within 24 hours. Or copy the file to your own drive in a browser, and get it "
                "there.",
            )
        if _LOGIN.search(self.text):
            return NapoBenchError(
                f"{sent}: the server asks for a login, so the file is not public.", "Open the address in a browser."
            )
        return NapoBenchError(
            f"{sent}.", "Its server may want a confirmation, or a proxy may ask for a login: open it in a browser."
        )


class _Reader(HTMLParser):
    def __init__(self, page: WebPage) -> None:
        super().__init__()
        self._page = page
        self._in_title = False
        self._in_form = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._in_title = tag == "title"
        if tag == "form" and values.get("id") == _CONFIRMATION:
            self._in_form, self._page.action = True, values.get("action", "")
        elif tag == "input" and self._in_form and values.get("name"):
            self._page.fields[values["name"]] = values.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False
        if tag == "form":
            self._in_form = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self._page.title += data

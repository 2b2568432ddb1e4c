"""A web server on this machine that misbehaves as real ones do, and what a hub answers about a data set."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c" * 40


class Site(ThreadingHTTPServer):
    """Serves `pages`; each other attribute is a way to misbehave, or what was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.types: dict[str, str] = {}
        self.refused: dict[str, tuple[int, dict[str, str]]] = {}
        self.break_after: int | None = None
        self.ranges = True
        self.statuses: list[int] = []
        self.etag = '"one"'
        self.requests: list[tuple[str, str | None]] = []
        self.queries: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def _answer(self, send_body: bool) -> None:
        site = self.server
        path, _, query = self.path.partition("?")
        site.requests.append((path, self.headers.get("Range")))
        site.queries.append(query)
        if path in site.redirects:
            self.send_response(302)
            self.send_header("Location", site.redirects[path])
            self.end_headers()
            return
        status = site.statuses.pop(0) if site.statuses else 200 if path in site.pages else 404
        status, headers = site.refused.get(path, (status, {}))
        if status != 200:
            body = site.pages.get(path, b"") if send_body else b""
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        body, start = site.pages[path], 0
        wanted = self.headers.get("Range")
        if wanted and site.ranges and self.headers.get("If-Range") == site.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("ETag", site.etag)
        self.send_header("X-Repo-Commit", path.partition("/resolve/")[2].partition("/")[0] or COMMIT)
        self.send_header("Content-Type", site.types.get(path, "application/octet-stream"))
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if not send_body:
            return
        if site.break_after is not None:
            body, site.break_after = body[: start + site.break_after], None
            self.wfile.write(body[start:])
            self.close_connection = True
            return
        self.wfile.write(body[start:])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Site]:
    """A site that answers until the block ends."""
    server = Site()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def hub_pages(
    repo: str, revision: str, files: dict[str, bytes], commit: str = COMMIT, kind: str = "datasets"
) -> dict[str, bytes]:
    """What the Hugging Face library asks a hub for, as far as the files of a data set or of a model (`models`) go."""
    files_at = f"/{repo}/resolve" if kind == "models" else f"/{kind}/{repo}/resolve"
    siblings = [{"rfilename": name} for name in files]
    info = json.dumps({"id": repo, "sha": commit, "siblings": siblings, "tags": []}).encode()
    tree = [{"type": "file", "path": name, "size": len(body), "oid": sha256(body)} for name, body in files.items()]
    pages = {f"/api/{kind}/{repo}/revision/{at}": info for at in (revision, commit)}
    pages |= {f"/api/{kind}/{repo}/tree/{at}": json.dumps(tree).encode() for at in (revision, commit)}
    pages |= {f"{files_at}/{commit}/{name.replace(' ', '%20')}": body for name, body in files.items()}
    return pages

"""A real HTTP server that speaks the chat-completions protocol and misbehaves as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request that arrived; `nth` counts those with the same text, from 0."""

    text: str
    nth: int
    body: dict[str, Any]
    authorization: str


@dataclass(frozen=True)
class Behaviour:
    """What the server does with a request.

    `raw` is sent in place of a reply, then `drip` a byte at a time without end, and then the connection is closed.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False
    raw: bytes = b""
    drip: bytes = b""


def answer(text: str, model: str = "judge-0613", delay: float = 0.0, **fields: Any) -> Behaviour:
    """A well-formed completion of 7 prompt tokens and 3 completion tokens."""
    completion = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
    return Behaviour(body=json.dumps(completion | fields).encode(), delay=delay)


def refusal(status: int, message: str, headers: dict[str, str] | None = None, **fields: Any) -> Behaviour:
    """An error with the protocol's error object."""
    return Behaviour(status, json.dumps({"error": {"message": message, **fields}}).encode(), headers or {})


class MisbehavingServer:
    """Serves on a free local port while the `with` block lasts.

    Args:
        behave: Request -> what to do with it.
    """

    def __init__(self, behave: Callable[[Request], Behaviour]) -> None:
        self.behave = behave
        self.requests: list[Request] = []
        self.times: list[float] = []
        self.max_in_flight = 0
        self._in_flight = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> MisbehavingServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def asked(self, text: str) -> int:
        """How often the text was asked."""
        return sum(request.text == text for request in self.requests)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    server._in_flight += 1
                    server.max_in_flight = max(server.max_in_flight, server._in_flight)
                    request = server._record(body, self.headers.get("Authorization", ""))
                behaviour = server.behave(request)
                time.sleep(behaviour.delay)
                with server._lock:
                    server._in_flight -= 1
                if behaviour.drop:
                    self.close_connection = True
                    self.connection.close()
                    return
                try:
                    if behaviour.raw:
                        self.close_connection = True
                        self.wfile.write(behaviour.raw)
                        while behaviour.drip:
                            self.wfile.write(behaviour.drip)
                            time.sleep(0.02)
                        return
                    self.send_response(behaviour.status)
                    for name, value in ({"Content-Type": "application/json"} | behaviour.headers).items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(behaviour.body)))
                    self.end_headers()
                    self.wfile.write(behaviour.body)
                except OSError:
                    self.close_connection = True

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler

    def _record(self, body: dict[str, Any], authorization: str) -> Request:
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else next(part["text"] for part in content if part["type"] == "text")
        request = Request(text, self.asked(text), body, authorization)
        self.requests.append(request)
        self.times.append(time.monotonic())
        return request

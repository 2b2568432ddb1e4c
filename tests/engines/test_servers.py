"""What a server may not do: read a secret back to the terminal, or send without end."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from misbehaving_server import Behaviour, MisbehavingServer, Request, answer, refusal

from napo_bench.core import locks, urls
from napo_bench.core.errors import NapoBenchError
from napo_bench.engines.chat import LastingShapeError, PassingShapeError, read_reply
from napo_bench.engines.endpoint import Endpoint
from napo_bench.runs.provenance import given_command

SECRET = "pa55w0rd"
ASK = [{"role": "user", "content": "Rate."}]


def with_user(url: str) -> str:
    return url.replace("://", f"://user:{SECRET}@")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:pa55w0rd@host:8000/v1/", "http://host:8000/v1"),
        ("https://host/v1?api_key=pa55w0rd#pa55w0rd", "https://host/v1"),
        ("http://user:pa55w0rd@host:port/v1", "http://***"),
        ("http://user:1/pa55w0rd@host/v1", "http://***"),
        ("http://user:pa55w0rd?@host/v1", "http://***"),
        ("http://user:[pa55w0rd@host/v1", "http://***"),
        ("ftp://user:pa55w0rd@host", "ftp://***"),
        ("user:pa55w0rd@host/v1", "***"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_the_public_form_of_a_url_has_no_secret(url: str, shown: str) -> None:
    assert urls.public(url) == shown
    if "://" in url:
        assert urls.without_secrets(f"ask {url} now") == f"ask {shown.removesuffix('/')} now" or url.startswith(
            "http://["
        )


@pytest.mark.parametrize("option", ["--judge-base-url {}", "--judge-base-url={}"])
def test_no_stored_command_line_has_a_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str) -> None:
    given = option.format(f"http://user:{SECRET}@host/v1?api_key={SECRET}").split()
    monkeypatch.setattr(sys, "argv", ["napo-bench", "eval", *given])
    assert SECRET not in given_command() and "http://host/v1" in given_command()
    with locks.output_folder(tmp_path / "out"):
        assert SECRET not in (tmp_path / "out" / locks.LOCK_NAME).read_text()


@pytest.mark.parametrize(
    "url", [f"http://host/v1?api_key={SECRET}", f"http://user:{SECRET}@host/v1#x", f"http://host/v1;key={SECRET}"]
)
def test_a_url_with_a_query_is_refused_without_the_query(url: str) -> None:
    with pytest.raises(NapoBenchError, match="has a query, parameters or a fragment") as caught:
        Endpoint("judge", url, None)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("status", [400, 401, 404, 500, 200])
def test_a_server_that_repeats_what_it_was_sent_shows_no_secret(status: int) -> None:
    basic = base64.b64encode(f"user:{SECRET}".encode()).decode()
    said = f"You sent Basic {basic}, that is {SECRET}, to http://user:{SECRET}@host/v1?key={SECRET}, key sk-{SECRET}"
    body = json.dumps({"choices": {said: 1}, "error": said}).encode()
    with MisbehavingServer(lambda request: Behaviour(200, body) if status == 200 else refusal(status, said)) as server:
        endpoint = Endpoint("judge", with_user(server.url), f"sk-{SECRET}", retries=0)
        with pytest.raises(NapoBenchError) as caught:
            endpoint.reach([ASK] * 3, {})
        assert server.requests
    assert SECRET not in str(caught.value) and basic not in str(caught.value)


WHOLE = {
    "model": "m",
    "system_fingerprint": "fp",
    "choices": [
        {
            "index": 0,
            "message": {"content": "Yes", "reasoning_content": "why", "refusal": None},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 2}},
}
ODD = [
    None,
    True,
    -1,
    1.5,
    10**30,
    "",
    "\0",
    [],
    [[]],
    [None],
    {},
    {"a": 1},
    [{"type": 5}],
    {"type": "text", "text": 5},
]


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*place, key))


def changed(place: tuple[Any, ...], odd: object) -> Any:
    if not place:
        return odd
    reply = copy.deepcopy(WHOLE)
    inner: Any = reply
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = odd
    return reply


@pytest.mark.parametrize("place", list(places(WHOLE)), ids=lambda place: ".".join(map(str, place)) or "all")
def test_a_value_of_another_type_at_any_place_is_refused_or_does_no_harm(place: tuple[Any, ...]) -> None:
    is_text = place[3:4] in (("content",), ("refusal",)) or place[1:] == (0, "message")
    for odd in ODD:
        try:
            reply = read_reply(json.dumps(changed(place, odd)).encode())
        except (PassingShapeError, LastingShapeError):
            continue
        assert reply.text == "Yes" or (is_text and isinstance(reply.text, str))
        counts = (reply.prompt_tokens, reply.completion_tokens, reply.thought_tokens or 0)
        assert all(type(count) is int and count >= 0 for count in counts)
        named = (reply.thoughts, reply.finish_reason, reply.model, reply.fingerprint)
        assert all(isinstance(text, str) for text in named)


@pytest.mark.parametrize(
    "body",
    [
        {"choices": WHOLE["choices"] * 2},
        {"choices": [{"message": {}}]},
        {"choices": [{"message": {"role": "assistant", "tool": 1}}]},
        b'data: {"choices": [{"delta": {}}]}\n\ndata: [DONE]\n\n',
        b"event: message\ndata: {}\n\n",
    ],
    ids=["two choices", "no content", "something else", "data", "event"],
)
def test_what_is_no_single_reply_is_not_asked_for_again(body: object) -> None:
    with pytest.raises(LastingShapeError):
        read_reply(body if isinstance(body, bytes) else json.dumps(body).encode())


@contextmanager
def dripping(head: bytes, block: bytes, pause: float) -> Iterator[str]:
    """A server that sends a block again and again."""

    def serve(connection: socket.socket) -> None:
        try:
            connection.recv(1 << 16)
            connection.sendall(head)
            while True:
                connection.sendall(block)
                time.sleep(pause)
        except OSError:
            pass

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=[connection], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"


def test_a_reply_without_end_is_one_message() -> None:
    with dripping(HEAD, b" " * 65536, 0) as url, pytest.raises(NapoBenchError, match="more than 16,777,216 bytes"):
        Endpoint("judge", url, None, retries=0).reach([ASK], {})


def test_an_error_without_end_is_one_message() -> None:
    head = HEAD.replace(b"200 OK", b"400 Bad Request")
    with dripping(head, b" " * 65536, 0) as url, pytest.raises(NapoBenchError, match="more than 16,777,216 bytes"):
        Endpoint("judge", url, None, retries=0).reach([ASK], {})


@pytest.mark.parametrize("sent", [HEAD, HEAD.removesuffix(b"\r\n") + b"X: ", b"HTTP/1.1 200", b"H"])
def test_a_reply_that_drips_ends_at_its_limit_of_time(sent: bytes) -> None:
    began = time.monotonic()
    with dripping(sent, b" ", 0.05) as url, pytest.raises(NapoBenchError, match=r"has not ended after 0\.3 s"):
        Endpoint("judge", url, None, retries=0, timeout=5, max_seconds=0.3).reach([ASK], {})
    assert time.monotonic() - began < 3


def test_a_reply_that_ends_at_its_limit_leaves_other_requests_alone() -> None:
    def behave(request: Request) -> Behaviour:
        return (
            Behaviour(raw=b"HTTP/1.1 200 OK\r\nX: ", drip=b".") if request.text == "drip" else answer("fine", delay=0.2)
        )

    with MisbehavingServer(behave) as server, ThreadPoolExecutor(8) as pool:
        endpoint = Endpoint("judge", server.url, None, retries=0, max_seconds=0.6)
        assert endpoint.ask(ASK, {}).text == "fine"
        texts = ["drip", *"abcdef", "drip"]
        with endpoint.asking(800):
            replies = list(pool.map(lambda text: endpoint.ask([{"role": "user", "content": text}], {}), texts))
    assert [reply.text for reply in replies] == ["", *["fine"] * 6, ""]
    assert "has not ended after 0.6 s" in replies[0].refused


def test_a_share_of_the_prompts_allows_the_whole_number_that_it_is() -> None:
    """0.07 * 100 is a little more than 7 in floating point."""
    with MisbehavingServer(lambda request: answer("fine")) as server:
        endpoint = Endpoint("judge", server.url, None, retries=0, max_refused=0.07)
        with endpoint.asking(100):
            endpoint.ask(ASK, {})
            server.behave = lambda request: refusal(400, "no")
            assert all(endpoint.ask(ASK, {}).refused for _ in range(7))
            with pytest.raises(NapoBenchError, match="refuses 8 of 100 prompts, more than 7%"):
                endpoint.ask(ASK, {})


def test_a_packed_reply_is_not_unpacked() -> None:
    packed = Behaviour(200, gzip.compress(bytes(10**8)), {"Content-Encoding": "gzip"})
    with MisbehavingServer(lambda request: packed) as server, pytest.raises(NapoBenchError, match="packed reply"):
        Endpoint("judge", server.url, None, retries=0).reach([ASK], {})


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"choices":' * 100_000, b"\xff\xfe", b"9" * 5000, b'{"usage":{"prompt_tokens":1' + b"0" * 5000],
)
def test_odd_json_is_one_message(body: bytes) -> None:
    with MisbehavingServer(lambda request: Behaviour(200, body)) as server, pytest.raises(NapoBenchError):
        Endpoint("judge", server.url, None, retries=0).reach([ASK], {})


def test_a_server_on_this_machine_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with MisbehavingServer(lambda request: answer("fine")) as server:
        assert Endpoint("judge", server.url, None, retries=0).ask(ASK, {}).text == "fine"

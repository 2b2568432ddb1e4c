"""`napo-bench eval` behind an endpoint that turns bad: one message, exit code 2, and every answer is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from misbehaving_server import Behaviour, MisbehavingServer, Request, answer
from synthetic_runs import invoke
from tiny_llava import make_data

from napo_bench.core.journal import Journal
from napo_bench.engines import endpoint
from napo_bench.runs.evaluate import EvalOptions, evaluate
from napo_bench.runs.result import RunResult
from napo_bench.runs.score import ScoreOptions

GOOD = answer("Yes, there is.", model="served")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SUITE = "object_halbench,mmhal"
COUNT = 3 + 6  # questions of Object HalBench and MMHal-Bench
FIRST = 3  # answers before the server turns bad


def completion(**changes: object) -> Behaviour:
    return replace(GOOD, body=json.dumps(json.loads(GOOD.body) | changes).encode())


CHOICE = json.loads(GOOD.body)["choices"][0]
EVENT = b'data: {"choices": [{"delta": {"content": "Yes"}}]}\n\n'

BAD = {
    "body that ends half-way": (Behaviour(raw=HEAD + b'Content-Length: 900\r\n\r\n{"choices": ['), "connection lost"),
    "chunk that ends half-way": (
        Behaviour(raw=HEAD + b'Transfer-Encoding: chunked\r\n\r\n40\r\n{"'),
        "connection lost",
    ),
    "headers that end half-way": (Behaviour(raw=HEAD), "connection lost"),
    "no HTTP": (Behaviour(raw=b"SSH-2.0-OpenSSH_9.6\r\n"), "connection lost"),
    "closed connection": (Behaviour(drop=True), "connection lost"),
    "cut JSON": (replace(GOOD, body=GOOD.body[:60]), "a reply that is no chat completion"),
    "HTML": (Behaviour(body=b"<html>Bad gateway</html>", headers={"Content-Type": "text/html"}), "no chat completion"),
    "bytes": (Behaviour(body=bytes(range(256)) * 9), "a reply that is no chat completion"),
    "nothing": (Behaviour(), "a reply that is no chat completion"),
    "events": (Behaviour(body=EVENT * 3, headers={"Content-Type": "text/event-stream"}), "a stream of events"),
    "no choices": (completion(choices=[]), "it has no choices"),
    "two choices": (completion(choices=[CHOICE, CHOICE]), "a reply with 2 choices, although one was asked for"),
    "no message": (completion(choices=[{"index": 0}]), "a reply that is no chat completion"),
    "no content": (completion(choices=[{"message": {"role": "assistant"}}]), "its message has no content"),
    "text as number": (completion(choices=[{"message": {"content": 5}}]), "a reply that is no chat completion"),
    "a list": (Behaviour(body=b"[1, 2]"), "a reply that is no chat completion"),
    "headers without end": (Behaviour(raw=HEAD + b"X-Wait: ", drip=b"."), "has not ended after 1 s"),
    "body without end": (Behaviour(raw=HEAD + b"\r\n", drip=b" "), "has not ended after 1 s"),
    "a greeting without end": (Behaviour(raw=b"HTTP/1.1 100 Continue\r\n\r\n", drip=b"H"), "has not ended after 1 s"),
}

Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_data(folder, size=3)
    return folder


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The samples of a run whose server never turns bad."""
    out = tmp_path_factory.mktemp("undisturbed")
    with MisbehavingServer(lambda request: GOOD) as server:
        scoring = ScoreOptions(pipeline="closed_vocabulary")
        evaluate("served", out, EvalOptions(SUITE.split(","), data, api_base_url=server.url, scoring=scoring))
    return samples(out)


@pytest.fixture
def command(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Evaluates two benchmarks; returns exit code and output."""
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.001)
    monkeypatch.setenv("NAPO_BENCH_API_KEY", "sk-of-the-test")
    monkeypatch.setenv("NAPO_BENCH_MAX_ANSWER_SECONDS", "1")

    def run(server: MisbehavingServer, out: Path, *options: str) -> tuple[int, str]:
        arguments = ["eval", "--ckpt", "served", "--api-base-url", server.url, "--data-dir", data, "--out", out]
        arguments += ["--suite", SUITE, "--pipeline", "closed_vocabulary", "--batch-size", 2]
        code, printed, message = invoke([*arguments, *options], monkeypatch, capsys)
        return code, " ".join((printed + message).replace("│", " ").split())

    return run


def samples(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "samples").iterdir()}


def asked_of(server: MisbehavingServer) -> int:
    """Number of questions that arrived, without the greeting and without repetitions."""
    return len({json.dumps(request.body) for request in server.requests if request.text != "Reply with the word OK."})


@pytest.mark.parametrize("name", BAD)
def test_a_server_that_turns_bad_ends_in_one_message_and_no_answer_is_lost(
    command: Command, undisturbed: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    behaviour, says = BAD[name]
    with MisbehavingServer(lambda request: GOOD if len(server.requests) <= 1 + FIRST else behaviour) as server:
        code, message = command(server, tmp_path / "run")
        assert code == 2
        assert says in message and "Traceback" not in message and message.count(f"served at {server.url}") == 1
        assert not (tmp_path / "run/run.json").exists()
        with Journal(tmp_path / "run/journal.sqlite") as journal:
            assert len(journal) == FIRST
        assert f"{FIRST} of {COUNT} are answered and stored in" in message
        server.requests.clear()
        server.behave = lambda request: GOOD
        code, message = command(server, tmp_path / "run")
        assert code == 0, message
        assert asked_of(server) == COUNT - FIRST
    assert samples(tmp_path / "run") == undisturbed


@pytest.mark.parametrize("name", ["events", "two choices", "text as number", "headers without end"])
def test_a_server_that_is_bad_from_the_start_is_asked_once(command: Command, tmp_path: Path, name: str) -> None:
    behaviour, says = BAD[name]
    with MisbehavingServer(lambda request: behaviour) as server:
        code, message = command(server, tmp_path / "run")
    assert (code, len(server.requests)) == (2, 1)
    assert says in message and "Traceback" not in message


def test_a_server_that_names_another_model_is_noted_wherever_the_numbers_are_read(
    command: Command, tmp_path: Path
) -> None:
    with MisbehavingServer(lambda request: answer("Yes.", model="cheap", system_fingerprint="build 7")) as server:
        code, message = command(server, tmp_path / "run")
        code, again = command(server, tmp_path / "run")
    assert code == 0
    run = RunResult.load(tmp_path / "run")
    note = "the model served was asked for, and the endpoint reports cheap ({0} of {0} answers)"
    for name, count in (("object_halbench", 3), ("mmhal", 6)):
        assert note.format(count) in run.benchmarks[name].notes
        assert note.format(count) in message and note.format(count) in again
    assert {name: run.provenance.generation[name] for name in ("reported_model", "fingerprint")} == {
        "reported_model": "cheap",
        "fingerprint": "build 7",
    }


def test_a_server_that_changes_its_model_is_noted_with_the_number_of_answers(command: Command, tmp_path: Path) -> None:
    def behave(request: Request) -> Behaviour:
        return answer("Yes.", model="served" if len(server.requests) <= 3 else "cheap")

    with MisbehavingServer(behave) as server:
        code, message = command(server, tmp_path / "run")
    assert code == 0
    assert RunResult.load(tmp_path / "run").provenance.generation["reported_model"] == "cheap, served"
    assert "the endpoint reports cheap (6 of 6 answers)" in message
    assert "the endpoint reports served (2 of 3 answers), cheap (1 of 3 answers)" in message


def test_a_server_with_the_name_that_was_asked_for_is_not_noted(command: Command, tmp_path: Path) -> None:
    with MisbehavingServer(lambda request: GOOD) as server:
        code, message = command(server, tmp_path / "run")
    assert code == 0 and "the endpoint reports" not in message
    assert RunResult.load(tmp_path / "run").provenance.generation["reported_model"] == "served"


def test_a_secret_in_the_name_of_a_model_is_not_kept(command: Command, tmp_path: Path) -> None:
    with MisbehavingServer(lambda request: answer("Yes.", model=request.authorization)) as server:
        code, _ = command(server, tmp_path / "run")
    assert code == 0
    assert not any(b"sk-of-the-test" in path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())

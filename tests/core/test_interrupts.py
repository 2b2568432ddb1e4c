"""Signals as a terminal or a scheduler sends them: one message, one exit code, and nothing half done."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from misbehaving_server import MisbehavingServer, answer
from synthetic_runs import invoke
from tiny_llava import make_data

from napo_bench.core import interrupts


class Finalized:
    """Meets a signal while it is finalized: Python ignores what is raised there."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def meet_at_once() -> None:
    signal.raise_signal(signal.SIGTERM)


def meet_in_a_finalizer() -> None:
    Finalized()
    time.sleep(20)


@pytest.mark.parametrize("meet", [meet_at_once, meet_in_a_finalizer])
def test_sigterm_ends_any_command_as_ctrl_c_does_but_with_code_143(monkeypatch, capsys, tmp_path, meet) -> None:
    def work(*_: object) -> None:
        meet()
        raise AssertionError("went on")

    monkeypatch.setattr("napo_bench.core.paths.data_dir", work)
    before = signal.getsignal(signal.SIGTERM)
    began = time.monotonic()
    code, out, err = invoke(["data", "show", "amber"], monkeypatch, capsys)
    assert (code, out) == (143, "")
    assert err.splitlines() == [
        "Interrupted by SIGTERM. What was finished is on disk. To continue: napo-bench data show amber"
    ]
    assert time.monotonic() - began < 10
    assert signal.getsignal(signal.SIGTERM) is before


HURRY = (
    "from napo_bench import cli; from napo_bench.engines import endpoint; endpoint._GOODBYE_SECONDS = 0.5; cli.main()"
)


def test_sigterm_does_not_wait_for_an_endpoint_that_does_not_answer(tmp_path) -> None:
    asked, done = threading.Event(), threading.Event()

    def silent(_: object) -> object:
        asked.set()
        done.wait(60)
        return answer("Rating: 3")

    make_data(tmp_path / "data", 2)
    template = json.loads((tmp_path / "data/mmhal/template.json").read_text())
    (tmp_path / "answers.json").write_text(json.dumps([row | {"model_answer": "A cat."} for row in template]))
    with MisbehavingServer(silent) as server:
        command = [sys.executable, "-c", HURRY, "score", "mmhal", "--responses", tmp_path / "answers.json"]
        command += ["--data-dir", tmp_path / "data", "--judge-model", "j", "--judge-base-url", server.url]
        process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
        assert asked.wait(60)
        began = time.monotonic()
        process.terminate()
        _, err = process.communicate()
        took = time.monotonic() - began
        done.set()
    assert process.returncode == 143
    assert "Interrupted by SIGTERM." in err and "Traceback" not in err
    assert took < 15


def test_a_signal_that_the_process_ignores_stays_ignored(monkeypatch) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.deferred() as seen:
            signal.raise_signal(signal.SIGINT)
            assert seen() == 0
            signal.raise_signal(signal.SIGTERM)
            assert seen() == signal.SIGTERM
    finally:
        signal.signal(signal.SIGINT, before)

"""Signals as a terminal or a scheduler sends them: one message, one exit code, and nothing half done."""

from __future__ import annotations

import signal
import time

import pytest
from synthetic_runs import invoke

from napo_bench import interrupts


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

    monkeypatch.setattr("napo_bench.data.paths.data_dir", work)
    before = signal.getsignal(signal.SIGTERM)
    began = time.monotonic()
    code, out, err = invoke(["data", "show", "amber"], monkeypatch, capsys)
    assert (code, out) == (143, "")
    assert err.splitlines() == [
        "Interrupted by SIGTERM. What was finished is on disk. To go on: napo-bench data show amber"
    ]
    assert time.monotonic() - began < 10
    assert signal.getsignal(signal.SIGTERM) is before


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

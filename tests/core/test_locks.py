"""Output folders: tried before any work, and held by one command at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from synthetic_runs import invoke

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.locks import LOCK_NAME, NoLocksWarning, output_folder

HOLD = """
import os, sys, time
from pathlib import Path
from napo_bench.core.locks import output_folder
with output_folder(Path(sys.argv[1])):
    if "fork" not in sys.argv or os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""
COMMANDS = {
    "eval": ["eval", "--ckpt", "micro", "--suite", "micro", "--out"],
    "train": ["train", "--recipe", "micro-napo", "--data", "rows.parquet", "--out"],
    "build-bias": ["data", "build-bias", "--ckpt", "micro", "--data", "rows.parquet", "--out"],
    "train-then-eval": ["train-then-eval", "--out"],
    "lab": ["lab", "--out"],
    "data micro": ["data", "micro", "--out"],
}


@pytest.fixture
def hold() -> Iterator[Callable[..., tuple[subprocess.Popen, int]]]:
    """Starts a process that works in a folder; returns it, and the process that it forked."""
    started = []

    def start(folder: Path, *options: str) -> tuple[subprocess.Popen, int]:
        command = [sys.executable, "-c", HOLD, str(folder), *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said(err: str) -> str:
    return " ".join(err.replace("│", " ").split())


def test_the_second_command_says_who_works_in_the_folder_and_since_when(hold, tmp_path, monkeypatch, capsys) -> None:
    holder, _ = hold(tmp_path / "out")
    for name, arguments in COMMANDS.items():
        code, out, err = invoke([*arguments, tmp_path / "out"], monkeypatch, capsys, width=1000)
        assert (code, out) == (2, ""), name
        assert f"{tmp_path / 'out'} is in use by -c {tmp_path / 'out'} (process {holder.pid} on " in said(err), name
        assert f"on {socket.gethostname()}), since 20" in said(err), name
        assert "into" not in err, "work has begun"
    assert (tmp_path / "out" / LOCK_NAME).is_file()


def test_the_lock_of_a_killed_process_is_taken_over_though_processes_that_it_forked_live_on(hold, tmp_path) -> None:
    holder, child = hold(tmp_path, "fork")
    with pytest.raises(NapoBenchError, match="in use"), output_folder(tmp_path):
        pass
    holder.kill()
    holder.wait()
    try:
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == holder.pid
        with output_folder(tmp_path):
            assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_command_leaves_no_lock_and_no_empty_folder_and_takes_its_own_folder_twice(tmp_path) -> None:
    with output_folder(tmp_path / "a/b"), output_folder(tmp_path / "a/b"):
        pass
    assert list(tmp_path.iterdir()) == []
    with output_folder(tmp_path / "a/b"):
        (tmp_path / "a/result").write_text("kept")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result"]


def test_a_file_that_was_locked_after_its_owner_took_it_away_is_no_lock(tmp_path, monkeypatch) -> None:
    """Between our opening of the lock file and our lock on it, the owner ends and a third process begins."""
    flock = fcntl.flock
    thirds = []

    def late(descriptor: int, operation: int) -> None:
        if not thirds:
            (tmp_path / LOCK_NAME).unlink()
            thirds.append((tmp_path / LOCK_NAME).open("w"))
            flock(thirds[0], operation)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(NapoBenchError, match="in use by another process"), output_folder(tmp_path):
        pass


def test_on_a_disk_without_locks_a_living_owner_is_believed_and_a_dead_one_is_not(hold, tmp_path, monkeypatch) -> None:
    holder, _ = hold(tmp_path)

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(NapoBenchError, match=f"process {holder.pid}"), output_folder(tmp_path):
        pass
    owner = json.loads((tmp_path / LOCK_NAME).read_text())
    assert owner["started"] is not None
    recycled = owner | {"started": "1"}
    (tmp_path / LOCK_NAME).write_text(json.dumps(recycled))
    with pytest.warns(NoLocksWarning, match="has no file locks"), output_folder(tmp_path):
        pass


@pytest.mark.parametrize("name", COMMANDS)
def test_an_out_that_is_a_file_or_below_one_is_refused_before_any_work(name, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "file").write_text("kept")
    for out in (tmp_path / "file", tmp_path / "file/below/it"):
        code, _, err = invoke([*COMMANDS[name], out], monkeypatch, capsys, width=1000)
        assert code == 2
        assert f"{tmp_path / 'file'} is a file; a folder is expected there." in said(err)
        assert "into" not in err, "work has begun"
    assert (tmp_path / "file").read_text() == "kept"


@pytest.fixture
def another_user() -> Iterator[None]:
    """Lets a test that runs as root meet the rights of a user."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_out_that_this_user_may_not_write_is_refused_before_any_work(
    name, monkeypatch, capsys, another_user
) -> None:
    code, _, err = invoke([*COMMANDS[name], "/usr/napo-bench-run/a"], monkeypatch, capsys, width=1000)
    assert code == 2
    assert "/usr/napo-bench-run/a cannot be written: this user may not write there" in said(err)
    assert " free there)." in said(err) and "journal" not in err
    assert "into" not in err, "work has begun"


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "vlind", "--responses", "missing.jsonl", "--json"],
        ["compare", "a.json", "b.json", "--json"],
        ["report", "a.json", "--out"],
    ],
)
def test_a_result_file_that_cannot_be_written_is_refused_before_any_work(
    arguments, tmp_path, monkeypatch, capsys
) -> None:
    code, _, err = invoke([*arguments, tmp_path], monkeypatch, capsys, width=1000)
    assert code == 2 and f"{tmp_path} is a folder; a file is expected there." in said(err)
    (tmp_path / "file").write_text("")
    code, _, err = invoke([*arguments, tmp_path / "file/result.json"], monkeypatch, capsys, width=1000)
    assert code == 2 and f"{tmp_path / 'file'} is a file; a folder is expected there." in said(err)

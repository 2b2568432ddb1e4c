"""A reader that ends early (`napo-bench ... | head -1`): the command writes its files, and its exit code is its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from synthetic_runs import invoke, make_run


@pytest.fixture
def closed() -> Iterator[TextIO]:
    """A pipe that nothing reads."""
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as pipe:
        yield pipe


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "new/run.json", tmp_path / "old/run.json"]
    for path in paths:
        make_run(0.5, 0, sizes={"vlind": 40}).save(path)
    return paths


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("command", ["compare", "gate"])
def test_files_are_written_and_the_exit_code_is_that_of_the_command(
    command: str, stream: str, closed: TextIO, runs: list[Path], tmp_path: Path, monkeypatch, capsys
) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text("confidence = 0.95\n[vlind.cb]\nmax_regression = 90.0\n")
    options = [runs[0], "--baseline", runs[1], "--gates", gates] if command == "gate" else runs
    monkeypatch.setattr(sys, stream, closed)
    code, *_ = invoke([command, *options, "--json", tmp_path / "found.json"], monkeypatch, capsys)
    assert code == 0
    assert json.loads((tmp_path / "found.json").read_text())


def test_python_says_nothing_of_the_pipe_at_the_end(closed: TextIO, runs: list[Path], tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("napo-bench")), "compare", *map(str, runs)]
    ended = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")

"""`napo-bench eval --api-base-url` against a real server, `transformers serve`: the answers are those in-process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers_server import serving

from napo_bench.micro.base import base_checkpoint
from napo_bench.runs.compare import SameAnswers, compare
from napo_bench.runs.result import RunResult

for package in ("fastapi", "uvicorn"):
    pytest.importorskip(package, reason="`transformers serve` needs the extra transformers[serving]")

BENCHMARKS = {"vlind", "object_halbench", "amber", "mmhal"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The micro base behind `transformers serve`."""
    with serving(str(base_checkpoint()), tmp_path_factory.mktemp("serve") / "log") as (address, _):
        yield address


@pytest.fixture(scope="module")
def runs(url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The first samples of all micro benchmarks: answered in-process, and by the server."""
    folder = tmp_path_factory.mktemp("runs")
    common = ["--suite", "micro", "--limit", "3"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    for name, arguments in {
        "here": ["--ckpt", "micro", "--device", "cpu"],
        "server": ["--ckpt", str(base_checkpoint()), "--api-base-url", url],
    }.items():
        command = [sys.executable, "-c", "from napo_bench.cli import main; main()", "eval", *arguments, *common]
        subprocess.run([*command, "--out", str(folder / name)], check=True, env=environment, capture_output=True)
    return folder / "here", folder / "server"


def _rows(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Benchmark -> its responses, without the prompt that each engine got in its own form."""
    found = {}
    for path in (run / "responses").iterdir():
        text = path.read_text()
        rows = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
        found[path.stem] = [{name: value for name, value in row.items() if name != "sent"} for row in rows]
    return found


def test_a_server_and_the_model_in_process_give_the_same_answers(runs: tuple[Path, Path]) -> None:
    here, served = map(_rows, runs)
    assert served.keys() == BENCHMARKS
    assert served == here
    assert sum(map(len, served.values())) > 50
    dimensions = {isinstance(row["id"], int) and row["response"] in ("Yes", "No") for row in served["amber"]}
    assert dimensions == {True, False}, "both halves of AMBER are asked"
    assert all(row.get("cut_off") is False for rows in served.values() for row in rows)


def test_compare_says_that_all_answers_are_identical(runs: tuple[Path, Path]) -> None:
    here, served = map(RunResult.load, runs)
    counts = {name: len(rows) for name, rows in _rows(runs[1]).items()}
    assert compare(served, here).same_answers == {name: SameAnswers(n, n) for name, n in counts.items()}

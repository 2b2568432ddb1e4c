"""The page docs/add-an-engine.md, followed literally: an engine of 20 lines has journal, resume and processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal
from napo_bench.engines.registry import engine_named

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/add-an-engine.md").read_text(encoding="utf-8")
EXPECTED = ["red", "green", "blue"] * 20
DISTINCT = 30
BATCHES = 8

# Notes each batch in a file of its process, and can kill the process after a batch.
SPY = r"""
import os, signal
from mean_colour import MeanColourEngine
generate, done = MeanColourEngine.generate, []
def spied(self, prompts):
    answers = generate(self, prompts)
    done.append(len(prompts))
    with open(f"batches-{os.environ.get('RANK', '0')}", "a") as file:
        print(*(prompt.text + prompt.digest for prompt in prompts), sep="\t", file=file)
    if len(done) == int(os.environ.get("KILL_IN", "0")):
        os.kill(os.getpid(), signal.SIGKILL)
    return answers
MeanColourEngine.generate = spied
exec(compile(open("ask.py").read(), "ask.py", "exec"))
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    for name, text in re.findall(
        r"^`colours/(\w+\.py)`:\n\n```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "spy.py").write_text(SPY)

    def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
        return subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's package, installed by the page's command."""
    pytest.importorskip("hatchling", reason="hatchling, of the extra `test`")
    folder = tmp_path_factory.mktemp("package")
    (folder / "colours").mkdir()
    for name, text in re.findall(r"^`(colours/[\w.]+)`:\n\n```\w+\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
        (folder / name).write_text(text, encoding="utf-8")
    install = commands()[0].split()
    subprocess.run(
        [sys.executable, "-m", *install[:2], "--no-index", "--quiet", "--target", str(folder / "site"), *install[2:]],
        cwd=folder,
        check=True,
    )
    return folder / "site"


def commands() -> list[str]:
    """The lines of the page's last block of commands."""
    (block,) = re.findall(r"^```\n(pip install .*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return block.splitlines()


def test_the_command_line_takes_the_installed_engine(site: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    napo_bench = str(Path(sys.executable).with_name("napo-bench"))

    command = [napo_bench, *commands()[1].split()[1:]]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    provenance = json.loads((tmp_path / "runs/mean_colour/run.json").read_text())["provenance"]
    assert provenance["generation"]["engine"] == provenance["identity"]["engine"] == "mean_colour"
    assert provenance["checkpoint"]["fingerprint"] == "mean_colour 1"
    texts = re.findall(r'"text": ?"(.*?)"', (tmp_path / "runs/mean_colour/responses/object_halbench.jsonl").read_text())
    assert texts and set(texts) <= {"red", "green", "blue"}


def test_a_mistyped_engine_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(NapoBenchError, match="there is no engine 'apj'") as caught:
        engine_named("apj")
    assert "Did you mean api?" in caught.value.hint


def batches(folder: Path, rank: int = 0) -> list[list[str]]:
    """The prompts of each batch that a process generated."""
    path = folder / f"batches-{rank}"
    return [line.split("\t") for line in path.read_text().splitlines()] if path.is_file() else []


def entries(folder: Path) -> int:
    with Journal(folder / "journal.sqlite") as journal:
        return len(journal)


def test_the_pages_engine_has_twenty_lines() -> None:
    (engine,) = re.findall(r"^`colours/mean_colour\.py`:\n\n```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len([line for line in engine.splitlines() if line.strip()]) <= 20


def test_equal_requests_are_answered_once_and_a_second_run_generates_nothing(run, tmp_path: Path) -> None:
    first = run("spy.py")
    assert first.stdout.split() == EXPECTED, first.stderr
    generated = [prompt for batch in batches(tmp_path) for prompt in batch]
    assert len(generated) == len(set(generated)) == DISTINCT == entries(tmp_path)
    assert max(map(len, batches(tmp_path))) == 4
    again = run("spy.py")
    assert (again.stdout, len(batches(tmp_path))) == (first.stdout, BATCHES)


def test_a_run_that_was_killed_repeats_one_batch_at_most(run, tmp_path: Path) -> None:
    assert run("spy.py", KILL_IN="5").returncode == -signal.SIGKILL
    assert (len(batches(tmp_path)), entries(tmp_path)) == (5, 16)
    assert run("spy.py").stdout.split() == EXPECTED
    assert (len(batches(tmp_path)), entries(tmp_path)) == (BATCHES + 1, DISTINCT)


def test_two_processes_share_the_images_and_give_the_answers_of_one(run, tmp_path: Path) -> None:
    ended = run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "spy.py")
    assert ended.stdout.split() == EXPECTED, ended.stderr
    shares = [{prompt for batch in batches(tmp_path, rank) for prompt in batch} for rank in (0, 1)]
    assert all(shares) and sum(map(len, shares)) == DISTINCT
    digests = [{prompt.rpartition("?")[2] for prompt in share} for share in shares]
    assert digests[0].isdisjoint(digests[1])

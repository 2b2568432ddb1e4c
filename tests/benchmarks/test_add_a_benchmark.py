"""The page docs/add-a-benchmark.md, followed literally: a plug-in is installed, and every command takes it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny_llava import make_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/add-a-benchmark.md").read_text(encoding="utf-8")
COLOURS = ("red", "green", "blue")


def blocks() -> dict[str, str]:
    """Name of each file that the page names above a block of code -> the block."""
    found = re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return dict(found)


def commands() -> list[str]:
    """The lines of the page's block of commands."""
    (block,) = re.findall(r"^```\n(pip install .*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return block.splitlines()


class Shell:
    """Runs commands in a folder in which the plug-in's packages are found."""

    def __init__(self, folder: Path, site: Path) -> None:
        self.folder, self.site = folder, site

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(self.site), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def napo_bench(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(Path(sys.executable).with_name("napo-bench")), *arguments)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """The page's package, installed, with data and a checkpoint."""
    pytest.importorskip("hatchling", reason="hatchling, of the extra `test`")
    folder = tmp_path_factory.mktemp("plug-in")
    for name, text in blocks().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    rows = []
    (folder / "data/colours").mkdir(parents=True)
    for number in range(1, 31):
        colour = COLOURS[number % 3]
        Image.new("RGB", (16, 16), colour).save(folder / f"data/colours/{number}.png")
        question = "Which colour is the square?"
        rows.append({"id": number, "image": f"{number}.png", "question": question, "answer": colour})
    (folder / "data/colours/questions.json").write_text(json.dumps(rows))
    make_checkpoint(folder / "tiny")
    shell = Shell(folder, folder / "site")
    install = commands()[0].split()
    done = shell.run(
        sys.executable, "-m", *install[:2], "--no-index", "--quiet", "--target", str(shell.site), *install[2:]
    )
    assert done.returncode == 0, done.stderr
    return shell


def test_every_command_of_the_page_takes_the_benchmark(shell: Shell) -> None:
    places = {"CHECKPOINT": "tiny", "OTHER": "tiny", "DATA": "data"}
    for line in commands()[1:]:
        arguments = [places.get(word, word) for word in line.split()[1:]]
        done = shell.napo_bench(*arguments)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    run = json.loads((shell.folder / "runs/first/run.json").read_text())
    stored = json.loads((shell.folder / "stored.json").read_text())
    assert run["benchmarks"]["colours"]["metrics"] == stored["benchmarks"]["colours"]["metrics"]
    assert run["benchmarks"]["colours"]["metrics"]["accuracy"]["n"] == 30
    assert run["provenance"]["data"]["sha256"].keys() == {"colours/questions.json"}
    page = (shell.folder / "report.html").read_text()
    assert "Colours: the answer names the colour." in page
    assert page.count("data:image/png;base64,") == 3


def test_stored_responses_are_scored_and_shown_in_the_table(shell: Shell) -> None:
    answers = [{"id": number, "response": f"It is {COLOURS[number % 3]}."} for number in range(1, 31)]
    answers[0]["response"] = "It is black."
    (shell.folder / "given.jsonl").write_text("\n".join(map(json.dumps, answers)))
    command = ("score", "colours", "--responses", "given.jsonl", "--data-dir", "data", "--json", "given.json")
    done = shell.napo_bench(*command)
    assert done.returncode == 0, done.stderr
    value = json.loads((shell.folder / "given.json").read_text())["benchmarks"]["colours"]["metrics"]["accuracy"]
    assert value["value"] == pytest.approx(100 * 29 / 30)
    table = shell.napo_bench("report", "given.json", "--format", "md").stdout
    assert "Colours Accuracy ↑" in table and "96.7" in table
    assert "VLind-Bench" not in table and "GPT-4V" not in table  # nothing of the paper shares a column
    assert "Stored responses" not in table and "published" not in table
    (shell.folder / "part.jsonl").write_text(json.dumps(answers[1]))
    refused = shell.napo_bench("score", "colours", "--responses", "part.jsonl", "--data-dir", "data")
    assert refused.returncode == 2 and "29 of 30 ids missing" in refused.stderr


def test_help_and_refusals_name_the_benchmark(shell: Shell) -> None:
    assert "Colours: accuracy of questions" in shell.napo_bench("score", "--help").stdout
    assert "colours" in shell.napo_bench("eval", "--help").stdout
    unknown = shell.napo_bench("eval", "--ckpt", "tiny", "--suite", "colour")
    assert unknown.returncode == 2 and "Did you mean colours?" in unknown.stderr

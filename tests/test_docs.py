"""What the pages say exists: links, anchors, files, tests, commands and options; and the README stays short."""

from __future__ import annotations

import ast
import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from napo_bench.cli import app

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmarks", "docs", "napo_bench", "results", "scripts", "tests", "trainers")
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md")))
)
FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = {"eval_gpt_obj_halbench.py", "eval_gpt_mmhal.py", "inference.py"}
"""Files of other projects."""
WITH_A_PLUG_IN = "docs/add-a-benchmark.md"
"""Page whose commands need the plug-in that the page writes. The page's own test runs them."""


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@functools.cache
def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    found: set[str] = set()
    for heading in headings:
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(next(name for n in range(99) if (name := slug if n == 0 else f"{slug}-{n}") not in found))
    return found


@functools.cache
def functions_of(name: str) -> set[str]:
    """The test functions of the test files of this name."""
    return {
        node.name
        for path in (ROOT / "tests").rglob(name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def commands_of(text: str) -> Iterator[str]:
    """The lines of code blocks, with continued lines joined, from the word `napo-bench` on and without comments."""
    for block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|", line.split(" #")[0]):
                _, found, rest = part.replace("[", " ").replace("]", " ").partition("napo-bench ")
                if found:
                    yield rest


def test_the_readme_has_at_most_120_lines() -> None:
    assert len(text_of("README.md").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.resolve()), target


@pytest.mark.parametrize("page", PAGES)
def test_every_file_of_the_repository_that_a_page_names_exists(page: str) -> None:
    text = text_of(page)
    for name in re.findall(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./*<>-]+", FENCE.sub("", text)):
        path = name.partition("<")[0].rstrip(".") if "<" in name else name.rstrip(".")
        if path.startswith("napo_bench/_results"):
            continue  # the installed package's copy of results/
        assert list(ROOT.glob(path.rstrip("/"))), name
    for name in re.findall(r"(?<![\w./-])(?:scripts|tests)/[\w./]+", "".join(FENCE.findall(text))):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(\w+\.py)`", text):
        beside = (ROOT / page).parent / name
        assert name in ELSEWHERE or beside.exists() or list((ROOT / "tests").rglob(name)), name


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_exists(page: str) -> None:
    named = re.findall(r"`([\w/]*test_\w+\.py)(?:::(\w+))?`", text_of(page))
    for file, test in named:
        known = functions_of(Path(file).name)
        assert known if not test else test in known, f"{file}::{test}"
    without_a_file = re.findall(r"`(?:::)?(test_\w+)`", text_of(page))
    assert without_a_file == [], "name a test as test_file.py::test_name"


@pytest.mark.parametrize("page", [page for page in PAGES if page != WITH_A_PLUG_IN])
def test_every_command_in_a_page_takes_its_options(page: str) -> None:
    for line in commands_of(text_of(page)):
        command: Any = typer.main.get_command(app)
        words = shlex.split(line)
        while hasattr(command, "get_command") and words and not words[0].startswith("-"):
            name = words.pop(0)
            command = command.get_command(None, name)
            assert command is not None, f"there is no command {name}: {line}"
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= known | {"--help"}, f"{line}: {options - known}"


def test_every_row_of_the_page_on_fidelity_has_a_verdict() -> None:
    """The sources' table has three columns. Every other table has four, and the last begins with the verdict."""
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text_of("docs/fidelity.md").splitlines()
        if line.startswith("|") and not re.match(r"\|[-:| ]+\|$", line)
    ]
    compared = [row for row in rows if len(row) != 3 and row[0] != "what"]
    assert len(compared) > 100
    assert [row for row in compared if len(row) != 4 or not re.match(r"exact|differs|not stated", row[3])] == []

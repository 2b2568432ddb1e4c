"""What is kept in the cache folder: everything is listed, and what is used or linked is not deleted."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from napo_bench.core import caches, locks
from napo_bench.core.journal import Journal

ROOT = Path(__file__).parents[2]
HASH = "0123456789abcdef01234567"
HOLD = """
import sys, time
from pathlib import Path
from napo_bench.core.locks import Use
use = Use(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def copy(own_cache: Path) -> Path:
    """A folder as trainings keep one, with 1,000 bytes and what it is of."""
    folder = caches.place("rows") / HASH
    folder.mkdir(parents=True)
    (folder / "rows.arrow").write_bytes(b"x" * 1000)
    caches.mark(folder, of="some/rows")
    return folder


def listed() -> dict[str, caches.Entry]:
    return {entry.path.name: entry for entry in caches.kept()}


def test_no_module_keeps_anything_in_the_cache_folder_that_is_no_kind() -> None:
    places = set()
    packages = ("napo_bench", "benchmarks", "trainers")
    for path in (path for package in packages for path in (ROOT / package).rglob("*.py")):
        if path.relative_to(ROOT).as_posix() in ("napo_bench/core/paths.py", "napo_bench/core/caches.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "cache_dir":
                places.add(path.name)
    assert places == {"cache.py"}  # the command that lists them


def test_an_entry_has_its_bytes_what_it_is_of_and_its_last_use(copy: Path) -> None:
    os.utime(copy / "about.json", (0, 86_400))
    entry = listed()[HASH]
    assert (entry.kind, entry.path, entry.of, entry.used) == ("rows", copy, "some/rows", 86_400)
    assert entry.bytes == 1000 + (copy / "about.json").stat().st_size
    caches.mark(copy, of="some/rows")
    assert listed()[HASH].used > 86_400


def test_files_that_are_not_of_this_project_are_neither_listed_nor_deleted(copy: Path) -> None:
    others = [copy.parent / "mine", copy.parents[2] / "mine.sqlite", copy.parent / f"{HASH}-mine"]
    for path in others:
        path.write_text("mine")
    assert list(listed()) == [HASH]
    assert all(map(caches.clear, caches.kept()))
    assert not copy.exists() and all(path.exists() for path in others)


def test_what_another_process_uses_is_not_deleted(copy: Path) -> None:
    entry = listed()[HASH]
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(copy)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        assert not caches.clear(entry)
        assert (copy / "rows.arrow").is_file()
    finally:
        process.kill()
        process.communicate()
    assert caches.clear(entry) and not copy.exists()
    assert not any(path.name.endswith(".in-use") for path in copy.parent.iterdir())


def test_a_use_that_begins_after_a_deletion_is_one(copy: Path) -> None:
    with locks.Use(copy):
        pass
    assert caches.clear(listed()[HASH])
    copy.mkdir()
    with locks.Use(copy), locks.unused(copy) as is_unused:
        assert not is_unused


def test_no_link_is_followed(copy: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_bytes(b"y" * 5000)
    (copy / "linked").symlink_to(elsewhere)
    linked = copy.with_name(HASH[::-1])
    linked.symlink_to(elsewhere)
    (caches.place("reference")).symlink_to(elsewhere)
    entries = listed()
    assert entries[HASH].bytes < 2000 and entries[linked.name].bytes == entries["reference"].bytes == 0
    assert [caches.clear(entry) for entry in entries.values()].count(True) == 1
    assert not copy.exists() and linked.is_symlink() and (elsewhere / "file").is_file()


def test_an_open_journal_stays(own_cache: Path) -> None:
    with caches.KeptJournal("judge") as journal:
        journal.put({"key": "value"})
        (entry,) = caches.kept()
        assert entry.kind == "judge" and not caches.clear(entry)
    assert caches.clear(entry) and not caches.kept()
    with Journal(caches.place("judge")) as journal:
        assert journal.get(["key"]) == {}


def test_benchmark_data_that_is_read_stays(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "_held", {})
    fetched, micro = caches.place("data") / "amber" / "annotations.json", caches.place("micro") / "0123456789ab"
    for path in (fetched, micro / "micro.json"):
        path.parent.mkdir(parents=True)
        path.write_text("[]")
    assert caches.hold(caches.place("data")) == fetched.parents[1] and caches.hold(micro) == micro
    entries = [caches.entry_of("data", fetched), caches.entry_of("micro", micro)]
    assert not any(map(caches.clear, entries))
    caches.hold(tmp_path)  # the folder of --data-dir
    assert not tmp_path.with_name(f".{tmp_path.name}.in-use").exists()
    caches._held.clear()
    assert all(map(caches.clear, entries)) and not fetched.exists() and not micro.exists()


def test_a_folder_of_a_training_is_listed_like_the_users_own(copy: Path, tmp_path: Path) -> None:
    copy.parents[1].rename(tmp_path / "scratch")
    assert not caches.kept()
    (entry,) = caches.kept(tmp_path / "scratch")
    assert (entry.kind, entry.path) == ("rows", tmp_path / "scratch" / "rows" / HASH)
    assert caches.training_place(tmp_path / "scratch", "rows") == entry.path.parent

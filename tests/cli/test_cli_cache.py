"""`napo-bench data cache`: what is listed, what is deleted, and what stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_runs import invoke
from tiny_rows import tiny_rows, write_rows

from napo_bench.core import caches
from napo_bench.trainers.rows import open_rows


@pytest.fixture
def command(monkeypatch, capsys):
    return lambda *arguments: invoke(["data", "cache", *arguments], monkeypatch, capsys)


@pytest.fixture
def kept(own_cache, tmp_path, monkeypatch):
    """A copy of rows, a judge's reply, log-probs, and a fetched file."""
    monkeypatch.delenv("NAPO_BENCH_DATA", raising=False)
    path = write_rows(tmp_path / "rows.parquet", tiny_rows(3))
    open_rows(path, ("rejected",), caches.place("rows"))
    with caches.KeptJournal("judge") as journal:
        journal.put({"key": "value"})
    (caches.place("reference") / "0123456789abcdef01234567").mkdir(parents=True)
    for name in ("annotations.json", "mine.json"):
        file = caches.place("data") / "amber" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("[]")
    return path


def test_everything_that_is_kept_is_listed_with_its_bytes(kept, command):
    code, out, err = command()
    assert code == 0, err
    for line in ("\nrows: copies of", f"  {kept}\n", "\njudge: ", "\nreference: ", "  data/amber/annotations.json"):
        assert line in out
    assert "mine.json" not in out
    (copy,) = (entry for entry in caches.kept() if entry.kind == "rows")
    assert f"{copy.bytes / 1000:.3g} KB  " in out and out.endswith(" in all\n")
    assert "judge: " in command("judge")[1] and "rows: " not in command("judge")[1]


def test_clear_deletes_what_is_made_again_here_and_names_what_stays(kept, command):
    sizes = {entry.kind: entry.bytes for entry in caches.kept()}
    freed = sizes["rows"] + sizes["digests"] if "digests" in sizes else sizes["rows"]
    code, out, err = command("--clear")
    assert (code, out) == (0, f"{freed / 1000:.3g} KB freed\n")
    assert f"({kept})" in err and "napo-bench data cache judge --clear" in err
    assert {entry.kind for entry in caches.kept()} == {"judge", "reference"}
    assert (caches.place("data") / "amber/annotations.json").is_file()
    assert len(open_rows(kept, ("rejected",), caches.place("rows"))) == 3


def test_clear_deletes_a_kind_or_an_entry_by_name(kept, command):
    assert command("judge", "data/amber/annotations.json", "--clear")[0] == 0
    assert not caches.place("judge").exists()
    assert [path.name for path in (caches.place("data") / "amber").iterdir()] == ["mine.json"]
    assert {entry.kind for entry in caches.kept()} >= {"rows", "reference"}
    code, _, err = command("jugde", "--clear")
    assert code == 2 and "Did you mean judge?" in err


def test_a_cache_folder_that_is_none_is_an_error(command, tmp_path):
    code, _, err = command("--cache", str(tmp_path / "none"))
    assert code == 2 and "is no folder" in err


def test_rows_in_use_stay_and_go_on(kept, command):
    rows = open_rows(kept, ("rejected",), caches.place("rows"))
    _, out, err = command("rows", "--clear")
    assert out == "0 bytes freed\n" and err.startswith("in use, stays")
    assert rows[2, True].image is not None
    del rows
    assert command("rows", "--clear")[1] != "0 bytes freed\n"


def test_a_folder_of_train_is_listed_and_cleared(kept, command, tmp_path: Path):
    open_rows(kept, ("rejected",), caches.training_place(tmp_path / "scratch", "rows"))
    out = command("--cache", str(tmp_path / "scratch"))[1]
    assert out.startswith(f"{tmp_path / 'scratch'}\n") and str(kept) in out and "judge" not in out
    assert command("--cache", str(tmp_path / "scratch"), "--clear")[0] == 0
    assert not caches.kept(tmp_path / "scratch") and any(entry.kind == "rows" for entry in caches.kept())

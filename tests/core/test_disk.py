"""Disks that are full, read-only or broken: one message with path, space and next step; what is complete stays."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.core import disk, files
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal
from napo_bench.runs.result import RunResult

FREE = r"\(\d[\d.]* [kMGT]?[Bb]\w* are free there\)\."


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@contextmanager
def another_user() -> Iterator[None]:
    """Let a test that runs as root meet the rights of a user."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def run_of(text: str) -> RunResult:
    return RunResult({"amber": BenchmarkResult({}, samples=[{"sample_id": "1", "response": text}])})


def test_results_that_find_no_room_leave_the_old_ones_and_are_written_when_there_is_room(tmp_path: Path) -> None:
    run_of("short").save(tmp_path / "run.json")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with small_files(1000), pytest.raises(NapoBenchError) as raised:
        run_of("long" * 1000).save(tmp_path / "run.json")
    assert raised.value.message.startswith(f"{tmp_path / 'samples/amber.jsonl'} cannot be written: the file would be")
    assert re.search(FREE, raised.value.message)
    assert "run the same command again" in raised.value.hint
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    run_of("long" * 1000).save(tmp_path / "run.json")
    assert RunResult.load(tmp_path).benchmarks["amber"].samples[0]["response"] == "long" * 1000


def test_a_journal_on_a_full_disk_keeps_what_it_has_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.put({"a": "kept"})
        with small_files(path.stat().st_size), pytest.raises(NapoBenchError) as raised:
            journal.put({"b": "x" * 100_000})
        assert raised.value.message.startswith(f"{path} cannot be written: the ")
        assert re.search(FREE, raised.value.message)
        assert journal.get(["a", "b"]) == {"a": "kept"}
        journal.put({"b": "x" * 100_000})
        assert len(journal) == 2


def test_a_journal_that_may_not_be_written_is_not_called_damaged() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        path = folder / "journal.sqlite"
        with Journal(path) as journal:
            journal.put({"a": 1})
        path.chmod(0o444)
        with another_user():
            with pytest.raises(NapoBenchError, match=r"journal.sqlite cannot be written: this user may not"):
                Journal(path).put({"b": 2})
            with pytest.raises(NapoBenchError, match=r"new.sqlite cannot be written: the file cannot be opened"):
                Journal(folder / "new.sqlite")
    finally:
        shutil.rmtree(folder)


def test_a_damaged_journal_is_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database" * 100)
    with pytest.raises(NapoBenchError, match=r"text.sqlite is damaged: file is not a database") as raised:
        Journal(tmp_path / "text.sqlite")
    assert "Move the file away" in raised.value.hint
    path = tmp_path / "cut.sqlite"
    with Journal(path) as journal:
        journal.put({str(number): "x" * 2000 for number in range(50)})
    path.write_bytes(path.read_bytes()[:8192])
    with pytest.raises(NapoBenchError, match=r"cut.sqlite is damaged: database disk image is malformed"):
        Journal(path).get(["7"])
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(NapoBenchError, match=r"folder.sqlite is a folder"):
        Journal(tmp_path / "folder.sqlite")


def test_a_full_cache_is_not_taken_for_damaged_rows(tmp_path: Path) -> None:
    from napo_bench.trainers.stored.table import open_table

    noise = np.random.default_rng(0)
    pictures = [{"bytes": noise.bytes(50_000), "path": None} for _ in range(8)]
    table = pa.table({"question": ["What?"] * 8, "image": pictures})
    rows, cache = tmp_path / "rows.parquet", tmp_path / "cache"
    parquet.write_table(table, rows)
    with small_files(100_000), pytest.raises(NapoBenchError) as raised:
        open_table(rows, {"question", "image"}, cache)
    assert raised.value.message.startswith(f"{cache} cannot be written: the file would be larger than")
    assert re.search(FREE, raised.value.message)
    assert "--cache" in raised.value.hint and "etch" not in raised.value.hint
    assert len(open_table(rows, {"question", "image"}, cache)) == 8


def test_a_parquet_file_that_finds_no_room_leaves_none(tmp_path: Path) -> None:
    table = pa.table({"text": [str(number) for number in range(10_000)]})
    path = tmp_path / "part.parquet"
    refused = pytest.raises(NapoBenchError, match=r"part.parquet cannot be written: the file would be")
    with small_files(1000), refused, files.atomic_path(path) as temporary:
        parquet.write_table(table, temporary)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_another_kind_passes_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), disk.writing(tmp_path):
        raise RuntimeError("shapes do not fit")
    assert disk.reason(FileNotFoundError(2, "No such file or directory", "x")) is None


def test_output_into_a_full_device_is_one_message_and_exit_code_2() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full to stand for a full disk")
    command = [str(Path(sys.executable).with_name("napo-bench")), "--version"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2
    assert "What the command prints cannot be written: the disk is full." in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr

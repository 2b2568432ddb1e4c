"""Digests of files: computed once a file, and never that of an earlier content."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from napo_bench.core import caches, digests, files

A_MINUTE = 60


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose bytes were read, in order; no digest is known before."""
    names: list[str] = []

    def counted(path: Path) -> str:
        names.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(digests.files, "sha256_file", counted)
    monkeypatch.setattr(digests, "_known", {})
    return names


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is a minute ahead, so that the files of a test are old."""
    now = time.time_ns
    monkeypatch.setattr(digests.time, "time_ns", lambda: now() + A_MINUTE * 10**9)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_hashed_once(tmp_path: Path, hashed: list[str], later: None) -> None:
    weights, other = written(tmp_path / "weights", b"weights"), written(tmp_path / "other", b"other")
    for _ in range(3):
        assert digests.sha256([weights, other, weights]) == [*map(digest_of, (b"weights", b"other", b"weights"))]
    assert hashed == ["weights", "other"]


def test_a_link_is_the_file_that_it_names(tmp_path: Path, hashed: list[str], later: None) -> None:
    blob = written(tmp_path / "blob", b"weights")
    (tmp_path / "model.safetensors").symlink_to(blob)
    assert digests.sha256([blob]) == digests.sha256([tmp_path / "model.safetensors"]) == [digest_of(b"weights")]
    assert hashed == ["blob"]


def test_another_process_finds_the_digest(
    tmp_path: Path, own_cache: Path, hashed: list[str], later: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = written(tmp_path / "weights", b"weights")
    digests.sha256([weights])
    program = (
        "import sys; from pathlib import Path; from napo_bench.core import caches, digests, files\n"
        "files.sha256_file = lambda path: sys.exit('hashed again')\n"
        "print(*digests.sha256([Path(sys.argv[1])]))"
    )
    done = subprocess.run([sys.executable, "-c", program, weights], capture_output=True, text=True)
    assert done.stdout.strip() == digest_of(b"weights"), done.stderr


def test_a_changed_file_is_hashed_again_though_size_and_modification_time_stay(
    tmp_path: Path, hashed: list[str], later: None
) -> None:
    weights = written(tmp_path / "weights", b"before")
    before = weights.stat()
    assert digests.sha256([weights]) == [digest_of(b"before")]
    weights.write_bytes(b"behind")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.stat().st_mtime_ns == before.st_mtime_ns
    assert digests.sha256([weights]) == [digest_of(b"behind")]


def test_a_replaced_file_is_hashed_again(tmp_path: Path, hashed: list[str], later: None) -> None:
    weights = written(tmp_path / "weights", b"before")
    digests.sha256([weights])
    written(tmp_path / "new", b"behind").replace(weights)
    assert digests.sha256([weights]) == [digest_of(b"behind")]


def test_a_file_of_this_moment_is_not_kept(tmp_path: Path, hashed: list[str]) -> None:
    """A second change could have the same time, and the same size."""
    weights = written(tmp_path / "weights", b"weights")
    digests.sha256([weights])
    digests.sha256([weights])
    assert hashed == ["weights", "weights"]


def test_a_file_that_changes_while_it_is_hashed_is_not_kept(
    tmp_path: Path, hashed: list[str], later: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = written(tmp_path / "weights", b"before")
    counted = digests.files.sha256_file

    def changed_behind(path: Path) -> str:
        digest = counted(path)
        path.write_bytes(b"behind")
        return digest

    monkeypatch.setattr(digests.files, "sha256_file", changed_behind)
    digests.sha256([weights])
    monkeypatch.setattr(digests.files, "sha256_file", counted)
    assert digests.sha256([weights]) == [digest_of(b"behind")]


def test_without_a_cache_folder_digests_last_as_long_as_the_process(
    tmp_path: Path, hashed: list[str], later: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(written(tmp_path / "no folder", b"")))
    weights = written(tmp_path / "weights", b"weights")
    for _ in range(2):
        assert digests.sha256([weights]) == [digest_of(b"weights")]
    assert hashed == ["weights"]


def test_a_damaged_memory_is_passed_over(
    tmp_path: Path, own_cache: Path, hashed: list[str], later: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = caches.place("digests")
    memory.parent.mkdir(parents=True)
    memory.write_bytes(b"no data base at all" * 100)
    weights = written(tmp_path / "weights", b"weights")
    assert digests.sha256([weights]) == [digest_of(b"weights")]


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digests.sha256([tmp_path / "absent"])
    assert files.sha256_file is digests.files.sha256_file

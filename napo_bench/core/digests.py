"""The SHA-256 of files, computed once a file: a memory of digests in the cache folder.

A digest is found again by the file's resolved path, device, inode, size, modification time and change time. A file
that changes is hashed again, also if its size stays and its modification time is set back. Digests of files that
changed less than two seconds before are not kept: a second change could have the same time. The promise does not
cover a disk that returns other bytes for the same times, so checks of a download hash with `files.sha256_file`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal, journal_key
from napo_bench.core.paths import cache_dir

JOURNAL_NAME = "digests.sqlite"
_SETTLED_NS = 2_000_000_000
"""Age of a change from which a further change has another time, on any file system."""

_known: dict[str, str] = {}


def sha256(paths: Iterable[Path]) -> list[str]:
    """The SHA-256 of each file's bytes, in hex.

    Without a cache folder that can be written, digests are kept until the process ends.

    Raises:
        OSError: a file cannot be read.
    """
    named = list(paths)
    keys = [_key(path) for path in named]
    _recall({key for key in keys if key not in _known})
    found: dict[str, str] = {}
    kept: dict[str, str] = {}
    for path, key in zip(named, keys, strict=True):
        if key in _known or key in found:
            continue
        is_settled = _is_settled(path)
        found[key] = files.sha256_file(path)
        if is_settled and _key(path) == key:
            kept[key] = found[key]
    _keep(kept)
    return [found.get(key) or _known[key] for key in keys]


def _key(path: Path) -> str:
    status = path.stat()
    return journal_key(
        path=os.path.realpath(path),
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size,
        modified=status.st_mtime_ns,
        changed=status.st_ctime_ns,
    )


def _is_settled(path: Path) -> bool:
    status = path.stat()
    return time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) >= _SETTLED_NS


def _recall(keys: set[str]) -> None:
    """Take up digests that an earlier process kept."""
    path = cache_dir() / JOURNAL_NAME
    if keys and path.is_file():
        with suppress(NapoBenchError), Journal(path) as journal:
            _known.update({key: digest for key, digest in journal.get(keys).items() if isinstance(digest, str)})


def _keep(digests: Mapping[str, str]) -> None:
    _known.update(digests)
    if digests:
        with suppress(NapoBenchError), Journal(cache_dir() / JOURNAL_NAME) as journal:
            journal.put(digests)

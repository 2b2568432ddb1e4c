"""The SHA-256 of files, computed once a file: a memory of digests in the cache folder.

A digest is found again by the file's resolved path, inode, size, modification time and change time. A file that
changes is hashed again, also if its size stays and its modification time is set back. Digests of files that changed
less than two seconds before are not kept: a second change could have the same time. The promise does not cover a disk
that returns other bytes for the same times, so checks of a download hash with `files.sha256_file`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from napo_bench.core import files, processes
from napo_bench.core.caches import KeptJournal, place
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import journal_key

T = TypeVar("T")
_KIND = "digests"
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


def hashed_by_first(function: Callable[[], T]) -> T:
    """The value of the function, which hashes files, in every process of a launch.

    The first process calls the function before the others, which then know the digests of the files that it has hashed.
    A file that is another file for a process, such as one on a disk of another machine, is hashed there too.

    Raises:
        NapoBenchError: the function raised it, in the first process or here.
    """
    if processes.is_alone():
        return function()
    values: list[T] = []
    failed: NapoBenchError | None = None
    if processes.is_first():
        try:
            values.append(function())
        except NapoBenchError as error:
            failed = error
    failed, known = processes.from_first(lambda: (failed, _known))
    if failed is not None:
        raise failed
    _known.update(known)
    return values[0] if values else function()


def _key(path: Path) -> str:
    status = path.stat()
    return journal_key(
        path=os.path.realpath(path),
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
    if keys and place(_KIND).is_file():
        with suppress(NapoBenchError), KeptJournal(_KIND) as journal:
            _known.update({key: digest for key, digest in journal.get(keys).items() if isinstance(digest, str)})


def _keep(digests: Mapping[str, str]) -> None:
    _known.update(digests)
    if digests:
        with suppress(NapoBenchError), KeptJournal(_KIND) as journal:
            journal.put(digests)

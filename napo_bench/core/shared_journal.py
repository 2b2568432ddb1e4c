"""One journal for the processes of a launch, also on several machines.

SQLite needs file locks for several writers, and the file systems that machines share often have none. So each process
appends to a journal of its own, beside the whole journal, which no process writes while the launch runs. At the end the
first process adds the parts to the whole. If a process dies, its part stays, and the next launch adds the part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napo_bench.core import processes
from napo_bench.core.journal import Journal

_ENTRIES_A_STEP = 1000


class ProcessJournal:
    """The whole journal, and the part that this process appends to.

    Attributes:
        path: Path of the whole journal.
    """

    def __init__(self, whole: Journal, part: Journal) -> None:
        self.path = whole.path
        self._whole = whole
        self._part = part

    def get(self, keys: Iterable[str]) -> dict[str, Any]:
        """The stored values of `keys`. See `Journal.get`."""
        wanted = list(keys)
        return self._whole.get(wanted) | self._part.get(wanted)

    def put(self, values: Mapping[str, Any]) -> None:
        """Store JSON values in this process's part. See `Journal.put`."""
        self._part.put(values)


@contextmanager
def shared_journal(path: Path) -> Iterator[Journal | ProcessJournal]:
    """The journal of a launch. Every process of the launch enters and leaves this block.

    Args:
        path: Path of the whole journal.

    Raises:
        NapoBenchError: as Journal.
    """
    if processes.is_alone():
        _add_parts(path)
        with Journal(path) as whole:
            yield whole
        return
    with processes.first_process_first():
        if processes.is_first():
            _add_parts(path)
            Journal(path).close()
    with Journal(path) as whole, Journal(_part(path, processes.rank())) as part:
        yield ProcessJournal(whole, part)
    processes.wait()
    if processes.is_first():
        _add_parts(path)


def _part(path: Path, rank: int) -> Path:
    return path.with_name(f"{path.stem}.{rank}{path.suffix}")


def _add_parts(path: Path) -> None:
    """Add the parts beside a journal to the journal, and delete each part that was added."""
    named = re.compile(rf"{re.escape(path.stem)}\.\d+{re.escape(path.suffix)}")
    for part in sorted(path.parent.glob(f"{path.stem}.*{path.suffix}")):
        if named.fullmatch(part.name):
            with Journal(path) as whole, Journal(part) as added:
                for entries in added.entries(_ENTRIES_A_STEP):
                    whole.put(entries)
            part.unlink()

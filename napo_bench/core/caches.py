"""What napo-bench keeps in the user's cache folder: each kind in one table, with its place, its entries and their use.

Every module that keeps something gets the place from here, so `napo-bench data cache` lists everything. An entry is a
file or a folder. A folder of an entry says in `about.json` what the entry is of, and the time of that file is that of
the last use.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from napo_bench.core import files, locks
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal
from napo_bench.core.paths import FETCHED, cache_dir

_ABOUT = "about.json"
_OF_SQLITE = ("-journal", "-wal", "-shm")
_HASH = "[0-9a-f]{24}"
_PARQUET = "parquet"
TRAINING = "training"
"""Folder of what trainings keep. `train --cache` names another folder with the same content."""


@dataclass(frozen=True)
class Kind:
    """A kind of what is kept.

    Attributes:
        what: What an entry is.
        place: Path of the entries' folder, or of the only entry, below the cache folder.
        names: Regular expression of the names of entries in the folder; "" if the place is the only entry.
        again: What it takes to make an entry again, if that needs a model, a judge or a download; else "".
    """

    what: str
    place: str
    names: str = ""
    again: str = ""

    def entries(self, root: Path) -> Iterator[Path]:
        """The entries in a cache folder. A link in place of a folder of entries is itself an entry."""
        linked = [path for path in _below(root, self.place) if path.is_symlink()]
        folder = root / self.place
        if linked or not self.names:
            yield from linked[:1] or ([folder] if folder.exists() else [])
        elif folder.is_dir():
            named = (path for path in sorted(folder.iterdir()) if re.fullmatch(self.names, path.name))
            yield from (path for path in named if not locks.is_of_use(path))


KINDS = {
    "rows": Kind("copies of preference rows and their images", f"{TRAINING}/rows", _HASH),
    "reference": Kind("log-probs under a reference model", f"{TRAINING}/reference", _HASH, "a pass of the model"),
    "digests": Kind("digests of files", "digests.sqlite"),
    "coco": Kind("indexes of COCO's annotations", "coco", r"\.?[0-9a-f]{32}\.sqlite.*"),
    "whole": Kind("whole weights of adapters and older layouts, for vLLM", "whole", r"[0-9a-f]{16}-\w+"),
    "micro": Kind("benchmarks of the micro world", "micro", r"[0-9a-f]{12}|\.writing-.*"),
    "data": Kind("fetched benchmark data", FETCHED, again="a download"),
    "judge": Kind("replies of judges to stored responses", "judge.sqlite", again="the judges' answers"),
    "responses": Kind("answers under lmms-eval", "responses.sqlite", again="the models' answers"),
}
"""Kinds by name."""
_EARLIER = {"rows": [Kind("", place, _PARQUET) for place in ("rows", f"{TRAINING}/rows")]}
"""Places where earlier versions kept a kind. Their entries are not used."""
_held: dict[Path, locks.Use] = {}


@dataclass(frozen=True)
class Entry:
    """Something that is kept.

    Attributes:
        kind: Name of its kind.
        path: Its file or folder.
        bytes: Bytes of its files. Links in it are not followed.
        of: What it is of.
        used: Time of its last use, in seconds since 1970.
    """

    kind: str
    path: Path
    bytes: int
    of: str
    used: float


def place(kind: str) -> Path:
    """The folder of a kind's entries in the user's cache folder, or its only entry."""
    return cache_dir() / KINDS[kind].place


def training_place(cache: Path | None, kind: str) -> Path:
    """The folder of a kind that trainings keep: in the user's cache folder, or in the folder of `train --cache`."""
    return place(kind) if cache is None else cache / Path(KINDS[kind].place).relative_to(TRAINING)


def mark(entry: Path, of: str) -> None:
    """Say that a folder is used now, and what it is of. A cache folder that cannot be written stays as it is."""
    about = entry / _ABOUT
    with suppress(NapoBenchError, OSError):
        if not about.is_file() or files.read_json(about) != {"of": of}:
            files.write_json(about, {"of": of})
        os.utime(about)


def hold(entry: Path) -> Path:
    """Use an entry until this process ends.

    Args:
        entry: The file or folder. Fetched benchmark data is held as a whole. A folder outside the cache folder is not
            held.

    Returns:
        The entry.
    """
    if entry.is_relative_to(cache_dir()):
        _held.setdefault(entry, locks.Use(entry))
    return entry


class KeptJournal(Journal):
    """The journal of a kind, which is not cleared while it is open.

    Args:
        kind: Name of the kind.
    """

    def __init__(self, kind: str) -> None:
        self._use = locks.Use(place(kind))
        super().__init__(place(kind))

    def close(self) -> None:
        """See Journal."""
        super().close()
        self._use.close()


def kept(cache: Path | None = None) -> list[Entry]:
    """Everything that is kept, except fetched benchmark data.

    Args:
        cache: A folder of `train --cache`; None is the user's cache folder.
    """
    root, found = cache_dir() if cache is None else cache, []
    for name, kind in KINDS.items():
        if kind.place == FETCHED:
            continue
        for one in (kind, *_EARLIER.get(name, ())):
            if cache is None:
                found += [entry_of(name, path) for path in one.entries(root)]
            elif one.place.startswith(f"{TRAINING}/"):
                own = replace(one, place=one.place.removeprefix(f"{TRAINING}/"))
                found += [entry_of(name, path) for path in own.entries(root)]
    return found


def entry_of(kind: str, path: Path) -> Entry:
    """A file or a folder as an entry of a kind."""
    if path.is_symlink():
        return Entry(kind, path, 0, "a link, which is not followed", path.lstat().st_mtime)
    about, parts, of = path / _ABOUT, list(_files(path)), ""
    if about.is_file():
        used = about.stat().st_mtime
        with suppress(NapoBenchError):
            of = files.field(files.read_json(about), "of", str, str(about))
    else:
        used = max(max(status.st_mtime, status.st_atime) for status in map(os.lstat, parts or [path]))
        of = "copies by an earlier version, which are not used" if path.name == _PARQUET else ""
    return Entry(kind, path, sum(part.lstat().st_size for part in parts), of, used)


def clear(entry: Entry) -> bool:
    """Delete an entry, if no process uses it. Links are not followed, and an entry that is a link stays.

    Returns:
        Whether the entry is deleted.

    Raises:
        NapoBenchError: the system refuses to delete a file.
    """
    if entry.path.is_symlink():
        return False
    with locks.unused(place("data") if entry.kind == "data" else entry.path) as is_unused:
        if is_unused:
            try:
                for path in _whole(entry.path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            except OSError as error:
                raise NapoBenchError(
                    f"{error.filename or entry.path} cannot be deleted: {error.strerror}.",
                    "The rest of the folder may be gone. What is missing is made again.",
                ) from None
    return is_unused


def _below(root: Path, place: str) -> list[Path]:
    """The folders on the way from the cache folder to a place, and the place."""
    parts = Path(place).parts
    return [root.joinpath(*parts[: count + 1]) for count in range(len(parts))]


def _whole(path: Path) -> list[Path]:
    """A file or folder, with the files that SQLite, or an earlier version, puts beside it."""
    if path.name == _PARQUET:
        return [path, *path.parent.glob("_*.lock")]
    return [path, *(path.with_name(path.name + end) for end in _OF_SQLITE)] if path.suffix == ".sqlite" else [path]


def _files(path: Path) -> Iterator[Path]:
    """The files of an entry, links included, which are not followed."""
    for whole in _whole(path):
        if whole.is_file():
            yield whole
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)

"""Disks that are full, read-only or broken: one message for every exception of Python and the libraries.

A leaf: `trainers` uses it too, and it imports only `napo_bench.core.errors`.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napo_bench.core.errors import NapoBenchError

GO_ON = (
    "Free space, or choose another place, then run the same command again. "
    "What is complete is kept, and the command goes on from there."
)

_FULL = "the disk is full"
_REFUSED = "the system refused the write"
_MAY_NOT = "this user may not write there"
_REASONS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the system allows",
    errno.EIO: "the disk reports an input/output error",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: _MAY_NOT,
    errno.EPERM: _MAY_NOT,
    errno.ESTALE: "the network disk has lost the file",
}
_SQLITE = {
    "FULL": _FULL,
    "IOERR": _REASONS[errno.EIO],
    "READONLY": _MAY_NOT,
    "CANTOPEN": "the file cannot be opened or made",
    "PERM": _MAY_NOT,
}
"""Second word of the name of an SQLite error, for example SQLITE_IOERR_WRITE."""
_NUMBER = re.compile(r"\(os error (\d+)\)|\[errno (\d+)\]", re.IGNORECASE)
_TEXTS = {
    "not enough disk space": _FULL,  # datasets
    "database or disk is full": _FULL,
    "no space left on device": _FULL,
    # What torch raises has no error number.
    "pytorchstreamwriter failed": _REFUSED,
    "unexpected pos": _REFUSED,
    "iostream error": _REFUSED,
    "file write failed": _REFUSED,
}


def reason(error: BaseException | None) -> str | None:
    """Why the disk took no data, if this is the reason of an exception or of its causes; None for any other
    exception.
    """
    while error is not None:
        of_sqlite = str(getattr(error, "sqlite_errorname", "")).split("_")
        if len(of_sqlite) > 1 and of_sqlite[1] in _SQLITE:
            return _SQLITE[of_sqlite[1]]
        if isinstance(error, OSError) and error.errno in _REASONS:
            return _REASONS[error.errno]
        text = str(error).lower()
        numbers = [int(number) for groups in _NUMBER.findall(text) for number in groups if number]
        if found := next((_REASONS[number] for number in numbers if number in _REASONS), None):
            return found
        if found := next((why for part, why in _TEXTS.items() if part in text), None):
            return found
        error = error.__cause__ or error.__context__
    return None


def unwritable(path: Path, why: str, hint: str = GO_ON) -> NapoBenchError:
    """The one message for a path that takes no data: the path, the reason, the space that is left, the next step."""
    try:
        left = f" ({_left(_standing(path))})"
    except OSError:
        left = ""
    return NapoBenchError(f"{path} cannot be written: {why.rstrip('.')}{left}.", hint)


def _left(path: Path) -> str:
    """What a disk has left, in words. A disk with free bytes may have no room for one more file."""
    free = f"{size_in_words(shutil.disk_usage(path).free)} are free there"
    if not hasattr(os, "statvfs"):
        return free
    found = os.statvfs(path)
    return f"{free}, but no further file may be made" if found.f_files and not found.f_favail else free


@contextmanager
def writing(path: Path, hint: str = GO_ON) -> Iterator[None]:
    """In this block, turn an exception of a disk that takes no data into the one message. Other exceptions pass.

    Args:
        path: Path that the block writes.
        hint: The next step.
    """
    try:
        yield
    except NapoBenchError:
        raise
    except Exception as error:
        why = reason(error)
        if why is None:
            raise
        raise unwritable(path, why, hint) from None


def try_folder(folder: Path) -> None:
    """Try, before any work, whether files can be made in a folder, or in the folder in which that folder will be made.

    Raises:
        NapoBenchError: a part of the path is a file, or no file can be made in the folder.
    """
    standing = _standing(folder)
    if not standing.is_dir():
        raise NapoBenchError(f"{standing} is a file; a folder is expected there.", "Choose another place.")
    try:
        import tempfile

        with tempfile.TemporaryFile(dir=standing) as stream:
            stream.write(b"tried")
    except OSError as error:
        raise unwritable(folder, reason(error) or error.strerror or str(error), "Choose another place.") from None


def try_file(path: Path) -> None:
    """Try, before any work, whether a file can be written at a path.

    Raises:
        NapoBenchError: the path is a folder, or no file can be made in its folder.
    """
    if path.is_dir():
        raise NapoBenchError(f"{path} is a folder; a file is expected there.", "Add a file name.")
    try_folder(path.parent)


def _standing(path: Path) -> Path:
    """The nearest part of the path that exists."""
    return next((part for part in (path, *path.parents) if os.path.lexists(part)), Path())


def size_in_words(size: float) -> str:
    """A number of bytes in the unit that suits it: "12.4 GB"."""
    units = ["bytes", "KB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        del units[0]
    return f"{size:.3g} {units[0]}"

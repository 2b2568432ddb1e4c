"""One command at a time in an output folder, whose lock file names the command; and the use of what is in the cache.

The locks are those of the operating system, so a lock ends with its process, however the process ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import sys
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from napo_bench.core import disk, links, processes, urls
from napo_bench.core.errors import NapoBenchError

LOCK_NAME = ".napo-bench.lock"
_USED = ".in-use"
_held: dict[str, int] = {}


class NoLocksWarning(UserWarning):
    """The disk has no file locks."""


@contextmanager
def output_folder(out: Path) -> Iterator[None]:
    """Make an output folder, and in this block keep every other process out of the folder.

    Under torchrun the first process locks the folder for all. A folder that this process has locked already is left as
    it is. A folder that is made here and stays empty is deleted again.

    Raises:
        NapoBenchError: the folder cannot be made or written, or another process works in it.
    """
    key = os.path.realpath(out)
    if not processes.is_first() or key in _held:
        yield
        return
    disk.try_folder(out)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        with disk.writing(out):
            out.mkdir(parents=True, exist_ok=True)
            _held[key] = _acquire(out)
        try:
            yield
        finally:
            (out / LOCK_NAME).unlink(missing_ok=True)
            os.close(_held.pop(key))
    finally:
        for folder in made:
            try:
                folder.rmdir()
            except OSError:
                break


class Use:
    """Keeps a file or a folder of the cache from `unused`, in several processes at once, until it is closed.

    A forked process keeps its parent's uses. On a disk without locks, or one that cannot be written, a use has no
    effect.

    Args:
        path: The file or folder, which need not exist. Its lock file is beside it.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = _shared(path)
        self._end = weakref.finalize(self, os.close, self._descriptor) if self._descriptor is not None else None

    def close(self) -> None:
        """End the use."""
        if self._end is not None:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Whether no process uses a file or a folder of the cache. In this block none begins to use it.

    Args:
        path: See `Use`.
    """
    lock = _use_lock(path)
    descriptor = None
    with suppress(OSError):
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    if descriptor is None:  # no process has used it on this disk
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # some network disks have no locks
            yield True
            return
        yield True
        if not path.exists():
            lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """In this block, no other process is in a block of the same path. The process waits for its turn.

    Args:
        path: The lock file, which is made and stays.

    Raises:
        NapoBenchError: the lock file is a link.
    """
    links.refuse_links(path.parent, path.name)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        with suppress(OSError):  # some network disks have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_of_use(path: Path) -> bool:
    """Whether a file is the lock file of a use."""
    return path.name.endswith(_USED)


def _use_lock(path: Path) -> Path:
    return path.with_name(f".{path.name}{_USED}")


def _shared(path: Path) -> int | None:
    """The descriptor of the lock file of a use, locked together with other uses; None if there can be no lock."""
    lock = _use_lock(path)
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except OSError:
            os.close(descriptor)
            return None
        if _is_at(descriptor, lock):
            return descriptor
        os.close(descriptor)  # `unused` has deleted the file after the file was opened here


def _acquire(out: Path) -> int:
    """The descriptor of the folder's lock file, locked, with this process as the owner."""
    path = out / LOCK_NAME
    while True:
        links.refuse_links(out, LOCK_NAME)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            _lock(descriptor, out)
            if _is_at(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, json.dumps(_owner(), indent=2).encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the owner ended and deleted the file after the file was opened here


def _lock(descriptor: int, out: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(out, _read(descriptor)) from None
    except OSError:  # some network disks have no locks
        owner = _read(descriptor)
        if owner and owner["host"] == os.uname().nodename and _started(owner["pid"]) == owner["started"] is not None:
            raise _in_use(out, owner) from None
        warnings.warn(
            NoLocksWarning(f"{out}: this disk has no file locks. Run one command at a time there."), stacklevel=2
        )


def _in_use(out: Path, owner: dict[str, Any] | None) -> NapoBenchError:
    who = "another process"
    if owner:
        who = f"{owner['command']} (process {owner['pid']} on {owner['host']}), since {owner['since']}"
    return NapoBenchError(f"{out} is in use by {who}.", "Wait until it has ended, or choose another --out.")


def _owner() -> dict[str, Any]:
    return {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "command": shlex.join([Path(sys.argv[0]).name, *map(urls.without_secrets, sys.argv[1:])]),
        "since": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
    }


def _read(descriptor: int) -> dict[str, Any] | None:
    """The owner in a lock file; None if the owner was not written, or only in part."""
    try:
        owner = json.loads(os.pread(descriptor, 1 << 16, 0))
    except ValueError:
        return None
    return owner if isinstance(owner, dict) and owner.keys() == _owner().keys() else None


def _started(pid: int) -> str | None:
    """Start of a process in the kernel's count, which differs between processes with the same number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the path is still that of the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _close_in_child() -> None:
    """A forked process that lives longer than its parent must not keep the parent's folders locked."""
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)

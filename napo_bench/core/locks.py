"""One command at a time in an output folder: the folder's lock file names the command.

The lock is a lock of the operating system, so the lock ends with its process, however the process ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from napo_bench.core import disk, links, processes, urls
from napo_bench.core.errors import NapoBenchError

LOCK_NAME = ".napo-bench.lock"
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

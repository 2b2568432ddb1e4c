"""Links, pipes and devices below a folder that a command writes: nothing is written through them.

A leaf, also for `benchmarks` and `trainers`: it imports only `napo_bench.core.errors`.
"""

from __future__ import annotations

import os
from pathlib import Path

from napo_bench.core.errors import NapoBenchError


def refuse_links(folder: Path, *names: str) -> None:
    """Refuse a link, a pipe or a device where a command is about to write below a folder that the user names.

    The folder itself may be a link. `atomic_path` needs no call for its file, because it replaces a link, but for the
    folders between the two.

    Args:
        folder: The folder, which need not exist.
        *names: What is written in the folder: files, and folders with all that they contain. Deeper in such a folder,
            only a link that leads out of `folder` is refused. Without names, all folders in the folder.

    Raises:
        NapoBenchError: there is a link, a pipe or a device.
    """
    if not names and folder.is_dir():
        names = tuple(path.name for path in folder.iterdir() if path.is_dir())
    root = os.path.realpath(folder)
    for path in (folder / name for name in names):
        if path.is_symlink() or _is_special(path):
            raise _not_written_through(path)
        for place, folders, others in os.walk(path):
            for inner in (Path(place, name) for name in (*folders, *others)):
                is_link = inner.is_symlink()
                if _is_special(inner) if not is_link else not Path(os.path.realpath(inner)).is_relative_to(root):
                    raise _not_written_through(inner)


def _is_special(path: Path) -> bool:
    return path.exists() and not (path.is_file() or path.is_dir())


def _not_written_through(path: Path) -> NapoBenchError:
    return NapoBenchError(
        f"{path} is {'a link' if path.is_symlink() else 'a pipe or a device'}; a file or a folder is written there.",
        "Delete it. The folder that a command writes into may be a link, but what is in the folder may not.",
    )

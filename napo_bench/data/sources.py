"""Pinned sources of published data: files, archives and folders. The benchmarks name their sources.

A revision is a commit. A digest is that of the bytes that the authors publish under that revision. If no digest is
known, the first fetch records the digest in the data folder (`fetch.LOCK_NAME`), and every later fetch must match this
digest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from napo_bench.core.files import is_whole


@dataclass(frozen=True)
class WebFile:
    """A file at a URL.

    Attributes:
        target: Path in the data folder.
        url: Address of the file.
        sha256: Digest of the file in the data folder; empty if unknown.
        constant: Name of a string in the Python file, if the authors publish the text as such a string.
        licence: Licence under which the authors publish the file.
    """

    target: str
    url: str
    sha256: str = ""
    constant: str = ""
    licence: str = ""

    def is_there(self, root: Path) -> bool:
        """Whether the data folder `root` contains the file. A Git LFS pointer is not the file."""
        return is_whole(root / self.target)

    def by_hand(self, root: Path) -> str:
        """How a person gets the data without `napo-bench data fetch`."""
        what = f"the string {self.constant!r} of " if self.constant else ""
        return f"get {what}{self.url}\nsave it as {root / self.target}"


@dataclass(frozen=True)
class WebArchive:
    """Files of a zip archive at a URL, which are put into one folder whatever folders the archive has.

    Attributes:
        target: Folder in the data folder.
        url: Address of the archive.
        name: Name of the archive on a mirror.
        members: Regular expression of the names of the wanted files.
        count: Number of wanted files.
        md5: Digest of the archive; empty if its authors publish no digest.
        page: Address where a person finds the archive.
        licence: Licence under which the authors publish the files.
    """

    target: str
    url: str
    name: str
    members: str
    count: int
    page: str
    md5: str = ""
    licence: str = ""

    def files(self, root: Path) -> Iterator[Path]:
        """The wanted files in the data folder `root`, without Git LFS pointers."""
        folder = root / self.target
        if folder.is_dir():
            yield from (path for path in folder.iterdir() if re.fullmatch(self.members, path.name) and is_whole(path))

    def is_there(self, root: Path) -> bool:
        """Whether the data folder `root` contains every wanted file."""
        return sum(1 for _ in self.files(root)) >= self.count

    def by_hand(self, root: Path) -> str:
        """How a person gets the data without `napo-bench data fetch`."""
        return f"get the archive {self.page}\nput its {self.count:,} files {self.members} into {root / self.target}"


@dataclass(frozen=True)
class HubFolder:
    """A folder of a data set on the Hugging Face hub.

    Attributes:
        target: Folder in the data folder.
        repo: Name of the data set.
        revision: Commit, or a branch if no commit is known.
        path: Path of the folder in the data set.
        contents: Globs below `target`, each with the minimum number of files that match.
        missing: Function of the folder `target`: the files that the folder's own index names and the folder lacks. None
            if the folder has no index.
        licence: Licence under which the authors publish the files.
    """

    target: str
    repo: str
    revision: str
    path: str
    contents: tuple[tuple[str, int], ...]
    missing: Callable[[Path], Sequence[Path]] | None = None
    licence: str = ""

    def is_there(self, root: Path) -> bool:
        """Whether the data folder `root` has the contents of the folder, and every file that its index names."""
        folder = root / self.target
        counted = all(sum(map(is_whole, folder.glob(pattern))) >= count for pattern, count in self.contents)
        return counted and not self.lacks(root)

    def lacks(self, root: Path) -> Sequence[Path]:
        """The files that the index of the folder names and the data folder `root` lacks."""
        return self.missing(root / self.target) if self.missing else ()

    def by_hand(self, root: Path) -> str:
        """How a person gets the data without `napo-bench data fetch`."""
        page = f"https://huggingface.co/datasets/{self.repo}/tree/{self.revision}"
        lacks = self.lacks(root) if (root / self.target).is_dir() else ()
        first = f"\n{len(lacks):,} files that its index names are missing, the first is {lacks[0]}" if lacks else ""
        return f"get the folder {self.path!r} of {page}\nput what it holds into {root / self.target}{first}"


Source = WebFile | WebArchive | HubFolder

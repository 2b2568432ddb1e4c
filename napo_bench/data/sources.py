"""Where data is published, pinned: files, archives and folders that the benchmarks name as their sources.

A revision is a commit. A digest is that of the bytes that the authors publish under that revision; where none is known
the first fetch records it in the data dir (`fetch.LOCK_NAME`) and every later fetch is held to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WebFile:
    """One file behind a URL.

    Attributes:
        target: Path in the data dir.
        url: Of the file.
        sha256: Of the file in the data dir; empty where unknown.
        constant: For a text that its authors publish as a string in a Python file: the name of that string.
    """

    target: str
    url: str
    sha256: str = ""
    constant: str = ""

    def is_there(self, root: Path) -> bool:
        """Whether the data dir `root` has it."""
        return (root / self.target).is_file()

    def by_hand(self, root: Path) -> str:
        """How a person gets it without `napo-bench data fetch`."""
        what = f"the string {self.constant!r} of " if self.constant else ""
        return f"get {what}{self.url}\nsave it as {root / self.target}"


@dataclass(frozen=True)
class WebArchive:
    """Files of a zip archive behind a URL, put into one folder whatever folders the archive has.

    Attributes:
        target: Folder in the data dir.
        url: Of the archive.
        name: What a mirror calls the archive.
        members: Regular expression of the names of the wanted files.
        count: How many there are.
        md5: Of the archive; empty where its authors publish none.
        page: Where a person finds it.
    """

    target: str
    url: str
    name: str
    members: str
    count: int
    page: str
    md5: str = ""

    def files(self, root: Path) -> Iterator[Path]:
        """The wanted files that the data dir `root` has."""
        folder = root / self.target
        if folder.is_dir():
            yield from (path for path in folder.iterdir() if re.fullmatch(self.members, path.name))

    def is_there(self, root: Path) -> bool:
        """Whether the data dir `root` has every file of it."""
        return sum(1 for _ in self.files(root)) >= self.count

    def by_hand(self, root: Path) -> str:
        """How a person gets it without `napo-bench data fetch`."""
        return f"get the archive {self.page}\nput its {self.count:,} files {self.members} into {root / self.target}"


@dataclass(frozen=True)
class HubFolder:
    """A folder of a data set on the Hugging Face hub.

    Attributes:
        target: Folder in the data dir.
        repo: Name of the data set.
        revision: Commit, or a branch where no commit is known.
        path: The folder in the data set.
        contents: Globs below `target`, each with the number of files that it matches at least.
        instead: Glob below `target` of another published form that serves as well.
    """

    target: str
    repo: str
    revision: str
    path: str
    contents: tuple[tuple[str, int], ...]
    instead: str = ""

    def is_there(self, root: Path) -> bool:
        """Whether the data dir `root` has its contents."""
        folder = root / self.target
        if self.instead and any(folder.glob(self.instead)):
            return True
        return all(sum(1 for _ in folder.glob(pattern)) >= count for pattern, count in self.contents)

    def by_hand(self, root: Path) -> str:
        """How a person gets it without `napo-bench data fetch`."""
        page = f"https://huggingface.co/datasets/{self.repo}/tree/{self.revision}"
        return f"get the folder {self.path!r} of {page}\nput what it holds into {root / self.target}"


Source = WebFile | WebArchive | HubFolder

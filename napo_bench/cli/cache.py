"""`napo-bench data cache`: what is kept in the cache folder, and how to clear it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napo_bench.cli import console
from napo_bench.cli.data import data_app

if TYPE_CHECKING:
    from napo_bench.core.caches import Entry


@data_app.command("cache")
def cache(
    what: Annotated[
        list[str] | None, typer.Argument(help="Kinds of entries, or paths of entries, as the list names them.")
    ] = None,
    clear: Annotated[
        bool,
        typer.Option(
            "--clear",
            help="Delete the entries of WHAT, or those that are made again from files on this machine.",
        ),
    ] = False,
    cache_dir: Annotated[
        Path | None, typer.Option("--cache", help="A folder of train --cache. Default: the user's cache folder.")
    ] = None,
) -> None:
    """List what napo-bench keeps in its cache folder, with bytes, last use, path and what it is of; or delete it.

    An entry that a running command uses stays. What is deleted is made again when a command needs it.
    """
    from napo_bench.core import caches, disk, paths
    from napo_bench.core.errors import NapoBenchError

    root = paths.cache_dir() if cache_dir is None else cache_dir.expanduser()
    if cache_dir is not None and not root.is_dir():
        raise NapoBenchError(f"{root} is no folder.", "Give the folder of train --cache, or leave --cache out.")
    kept = caches.kept(cache_dir and root)
    if cache_dir is None:
        kept += _fetched()
    chosen = _chosen(kept, what or [], root)
    if not clear:
        _print_list(chosen, root)
        return
    if not what:
        chosen = [entry for entry in chosen if not caches.KINDS[entry.kind].again]
    freed = 0
    for entry in chosen:
        is_deleted = caches.clear(entry)
        freed += entry.bytes if is_deleted else 0
        state = "deleted" if is_deleted else "a link, stays" if entry.path.is_symlink() else "in use, stays"
        of = f" ({entry.of})" if entry.of else ""
        line = f"{state}  {disk.size_in_words(entry.bytes)}  {entry.path}{of}"
        console.err.print(line, markup=False, highlight=False, soft_wrap=True)
    console.out.print(f"{disk.size_in_words(freed)} freed", highlight=False)
    left = {entry.kind for entry in kept if entry not in chosen} if not what else set()
    for kind in sorted(left):
        again = caches.KINDS[kind].again
        command = f"napo-bench data cache {kind} --clear"
        line = f"{kind} stays: to make it again takes {again}. To delete it: {command}"
        console.err.print(line, markup=False, highlight=False, soft_wrap=True)


def _fetched() -> Iterator[Entry]:
    """The fetched benchmark data in the cache folder: the files and folders of the benchmarks' sources."""
    from napo_bench.benchmarks import all_benchmarks
    from napo_bench.core import caches

    root = caches.place("data")
    for benchmark in all_benchmarks().values():
        for source in benchmark.sources:
            if (root / source.target).exists():
                yield caches.entry_of("data", root / source.target)


def _chosen(kept: Sequence[Entry], what: Sequence[str], root: Path) -> list[Entry]:
    """The entries that the words name: a kind, or a path, absolute or below the cache folder."""
    from napo_bench.core.caches import KINDS
    from napo_bench.core.errors import unknown_name

    if not what:
        return list(kept)
    found = []
    for word in what:
        of_word = [entry for entry in kept if word == entry.kind or entry.path == root / Path(word).expanduser()]
        if not of_word and word not in KINDS:
            raise unknown_name("kind or entry", word, KINDS, str(root))
        found += [entry for entry in of_word if entry not in found]
    return found


def _print_list(kept: Sequence[Entry], root: Path) -> None:
    from napo_bench.core import caches, disk

    def line(text: str) -> None:
        console.out.print(text, markup=False, highlight=False, soft_wrap=True)

    line(str(root))
    for kind, about in caches.KINDS.items():
        entries = sorted((entry for entry in kept if entry.kind == kind), key=lambda entry: -entry.bytes)
        if entries:
            line(f"\n{kind}: {about.what}" + (f"; to make them again takes {about.again}" if about.again else ""))
        for entry in entries:
            used = f"{datetime.fromtimestamp(entry.used):%Y-%m-%d}"
            of = f"  {entry.of}" if entry.of else ""
            line(f"{disk.size_in_words(entry.bytes):>10}  {used}  {entry.path.relative_to(root)}{of}")
    line(f"\n{disk.size_in_words(sum(entry.bytes for entry in kept))} in all")

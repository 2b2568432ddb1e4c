"""The audit of preference rows: what tells chosen from negative without the image, and what is there twice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from napo_bench.core import caches
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.progress import SILENT, Progress
from napo_bench.trainers.audit.duplicates import RowTexts
from napo_bench.trainers.audit.pictures import Look, Looks, look_of
from napo_bench.trainers.audit.telling import Telling, tell
from napo_bench.trainers.negatives import CHOSEN, NEGATIVES
from napo_bench.trainers.rows import PreferenceRows, StoredRow, open_rows
from napo_bench.trainers.stored.files import lacks_negatives

T = TypeVar("T")

MOST_ROWS_TOLD = 10_000
"""Number of rows whose texts the classifiers read. With 10,000 rows an interval is about 2 points wide."""

_AT_ONCE = 64
_THREADS = 4


@dataclass(frozen=True)
class BenchmarkPicture:
    """A picture of a benchmark.

    Attributes:
        name: File of the picture, and its place in the file.
        source: File of the picture, or what reads the encoded picture.
    """

    name: str
    source: Path | Callable[[], bytes]

    def look(self) -> Look | None:
        """The look of the picture; None if it cannot be decoded."""
        return look_of(self.source if isinstance(self.source, Path) else self.source())


@dataclass
class Overlap:
    """Pictures of a benchmark that are also pictures of the rows.

    Attributes:
        pictures: Number of different pictures of the benchmark.
        unreadable: Number of pictures that cannot be decoded.
        found: Name of a picture of the benchmark -> names of the rows with this picture.
    """

    pictures: int = 0
    unreadable: int = 0
    found: dict[str, list[str]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of rows with a picture of the benchmark."""
        return len({row for rows in self.found.values() for row in rows})


@dataclass
class RowAudit:
    """The audit of preference rows.

    Attributes:
        rows: Number of rows that can be trained on.
        left_out: Number of rows without a chosen response or without a negative.
        told: Number of rows whose texts the classifiers read.
        tellings: How well chosen is told from each kind of negative.
        repeated_rows: Name of a row -> names of later rows that repeat it.
        pictures: Number of different pictures.
        unreadable: Names of rows whose picture cannot be decoded.
        repeated_pictures: Name of a row -> names of later rows whose picture is the same, but resized or encoded again.
        overlaps: Benchmark -> its pictures that the rows have too.
    """

    rows: int = 0
    left_out: int = 0
    told: int = 0
    tellings: list[Telling] = field(default_factory=list)
    repeated_rows: dict[str, list[str]] = field(default_factory=dict)
    pictures: int = 0
    unreadable: list[str] = field(default_factory=list)
    repeated_pictures: dict[str, list[str]] = field(default_factory=dict)
    overlaps: dict[str, Overlap] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The audit as a JSON value."""
        return asdict(self)


def audit_rows(
    data: str | Path,
    benchmarks: Mapping[str, Iterable[BenchmarkPicture]] | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
    seed: int = 0,
) -> RowAudit:
    """Audit preference rows. Rows and pictures are read one after another.

    Args:
        data: See `open_rows`.
        benchmarks: Benchmark -> its pictures, which are looked for among those of the rows.
        cache: Folder that trainings keep copies of rows in; None is the user's cache folder.
        progress: Called with the number of rows that were read.
        seed: Seed of the folds, and of the draw of the rows whose texts the classifiers read.

    Raises:
        NapoBenchError: see `open_rows`; or the rows have no negative.
    """
    negatives = [name for name in NEGATIVES if not lacks_negatives(data, [name])]
    if not negatives:
        columns = ", ".join(negative.column for negative in NEGATIVES.values())
        raise NapoBenchError(f"{data} has none of the columns {columns}.", "Give rows of RLAIF-V or RLAIF-V-Bias.")
    rows = open_rows(data, negatives, caches.training_place(cache, "rows"))
    audit = RowAudit(rows=len(rows), left_out=rows.report.total - len(rows))
    draw = np.random.default_rng(seed).permutation(len(rows))[:MOST_ROWS_TOLD]
    told = set(draw.tolist())
    audit.told = len(told)
    looks = Looks()
    texts = RowTexts()
    picture_of: dict[bytes, int] = {}
    first_with: dict[int, tuple[str, bytes]] = {}
    first_row: dict[int, str] = {}
    names_of: dict[int, list[str]] = {}
    pairs: dict[str, list[tuple[str, str, int]]] = {name: [] for name in negatives}
    for index, (row, digest) in enumerate(_read(rows, looks, picture_of, progress)):
        picture = picture_of[digest]
        if picture < 0:
            audit.unreadable.append(row.id)
            picture = -1 - index  # a row without a picture shares it with no row
        else:
            names_of.setdefault(picture, []).append(row.id)
            name, encoded = first_with.setdefault(picture, (row.id, digest))
            if encoded != digest:
                audit.repeated_pictures.setdefault(name, []).append(row.id)
        number = texts.add(picture, [row.question, *row.responses])
        if first_row.setdefault(number, row.id) != row.id:
            audit.repeated_rows.setdefault(first_row[number], []).append(row.id)
        if index in told:
            responses = dict(zip(rows.responses, row.responses, strict=True))
            for name in negatives:
                if responses[name]:
                    pairs[name].append((responses[CHOSEN], responses[name], picture))
    audit.pictures = len(looks)
    for benchmark, there in (benchmarks or {}).items():
        audit.overlaps[benchmark] = _overlap(looks, there, names_of)
    for name, found in pairs.items():
        chosen, others, pictures = zip(*found, strict=True) if found else ((), (), ())
        audit.tellings += tell(name, chosen, others, pictures, seed)
    return audit


def _read(
    rows: PreferenceRows, looks: Looks, picture_of: dict[bytes, int], progress: Progress
) -> Iterator[tuple[StoredRow, bytes]]:
    """Each row with the digest of its encoded picture. Fills `looks` and `picture_of`: digest -> number of the picture,
    -1 if the picture cannot be decoded.
    """
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        done = 0
        for chunk in _chunks(map(rows.stored, range(len(rows)))):
            digests = [_digest(row.image) for row in chunk]
            new = {digest: row.image for row, digest in zip(chunk, digests, strict=True) if digest not in picture_of}
            for digest, look in zip(new, pool.map(look_of, new.values()), strict=True):
                picture_of[digest] = -1 if look is None else looks.add(look)
            yield from zip(chunk, digests, strict=True)
            done += len(chunk)
            progress("Reading rows", done, len(rows))


def _overlap(looks: Looks, pictures: Iterable[BenchmarkPicture], names_of: Mapping[int, list[str]]) -> Overlap:
    found = Overlap()
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for chunk in _chunks(iter(pictures)):
            for picture, look in zip(chunk, pool.map(BenchmarkPicture.look, chunk), strict=True):
                found.pictures += 1
                if look is None:
                    found.unreadable += 1
                elif (number := looks.find(look)) is not None:
                    found.found[picture.name] = names_of[number]
    return found


def _digest(encoded: bytes | Path) -> bytes:
    content = encoded
    if isinstance(encoded, Path):
        content = encoded.read_bytes() if encoded.is_file() else b""
    return hashlib.blake2b(content if isinstance(content, bytes) else b"", digest_size=16).digest()


def _chunks(items: Iterator[T]) -> Iterator[Sequence[T]]:
    while chunk := list(islice(items, _AT_ONCE)):
        yield chunk

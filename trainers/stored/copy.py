"""One copy of the rows of a data set, for random access: Arrow files that are mapped into memory.

A parquet file has no random access: to read one image is to unpack a group of rows. So the rows are copied once. The
name of the copy is a hash of the contents of the parquet files, so the copy serves every recipe, every path and every
modification time of these files. Images are kept by their digests: rows with other columns that have the same images,
such as those of `build-bias`, add their texts alone.

A copy is a folder:
    rows.arrow       the columns, without the bytes of the images, then the SHA-256 of each image
    images-N.arrow   images that no copy had before: SHA-256 and bytes
    about.json       which data set was copied
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import ipc
from pyarrow.parquet import ParquetFile

from napo_bench.core import caches, digests, disk, files, links, locks
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.limits import ROWS_BYTES, ROWS_EXPANSION, at_most
from napo_bench.trainers.stored.files import FETCH_AGAIN, IMAGE, DataFiles

_ROWS, _IMAGES = "rows.arrow", "images-{}.arrow"
_SMALL_ROWS, _PAGE = 64 * 2**20, 2**20
_ROWS_READ, _READS_A_BATCH = 25, 4
_DIGEST = pa.binary(32)
_PACK = pa.schema([("digest", _DIGEST), ("image", pa.large_binary())])
_HINT = "Free space there, or choose another cache folder (train: --cache), then run the same command again."


class _Place(NamedTuple):
    """Where the images of rows are: number of the pack, -1 for none, and number in the pack."""

    pack: NDArray[np.int32]
    row: NDArray[np.int32]


@dataclass(frozen=True)
class RowCopy:
    """A copy that is open. No `napo-bench data cache --clear` deletes an open copy.

    Attributes:
        columns: The columns, with null in place of the bytes of images.
        digests: SHA-256 of each image that is inside its row, as bytes; null for other rows.
    """

    columns: pa.Table
    digests: pa.ChunkedArray
    _folder: Path
    _packs: Sequence[pa.ChunkedArray]
    _place: _Place
    _uses: Sequence[locks.Use] = field(repr=False)

    def image(self, position: int) -> bytes | None:
        """The encoded image of a row; None if the row has none inside."""
        pack = self._place.pack[position]
        return None if pack < 0 else self._packs[pack][int(self._place.row[position])].as_py()

    def images(self, first: int, end: int) -> pa.Array:
        """The encoded images of the rows before `end`, as large binary; null for rows that have none inside."""
        return pa.array([self.image(position) for position in range(first, end)], pa.large_binary())

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self._folder,)


def open_copy(source: DataFiles, cache: Path) -> RowCopy:
    """The copy of a data set. The copy is made if it does not exist.

    Args:
        source: Files of the data set.
        cache: Folder of all copies.

    Raises:
        NapoBenchError: a file cannot be read or unpacks to far more than it has, or the cache folder cannot be written.
    """
    contents = digests.sha256(source.with_rows)
    folder = cache / hashlib.sha256("".join(contents).encode()).hexdigest()[:24]
    copy = _opened(folder)
    if copy is None:
        with disk.writing(cache, _HINT):
            links.refuse_links(cache)
            folder.mkdir(parents=True, exist_ok=True)
            with locks.turn(cache / ".writing"), locks.Use(folder):
                copy = _opened(folder)  # another process may have been first
                if copy is None:
                    _write(folder, source, contents)
                    copy = _opened(folder)
    if copy is None:
        raise NapoBenchError(
            f"The copy of the rows in {folder} cannot be read: images were cleared while it was written, or the disk "
            "returns other bytes than were written.",
            "Run the same command again.",
        )
    caches.mark(folder, of=source.name)
    return copy


def _opened(folder: Path) -> RowCopy | None:
    """The copy in a folder; None if the copy is not complete, or if images of it were cleared with another copy."""
    uses = [locks.Use(folder)] if folder.is_dir() else []
    table = _mapped(folder / _ROWS)
    if table is None:
        _close(uses)
        return None
    wanted = table.column(table.num_columns - 1)
    place = _Place(*(np.full(len(table), -1, dtype=np.int32) for _ in range(2)))
    missing = np.asarray(pc.is_valid(wanted))
    packs: list[pa.ChunkedArray] = []
    for path in _packs(folder):
        if not missing.any():
            break
        uses.append(locks.Use(path.parent))
        pack = _mapped(path)
        if pack is None:
            continue
        found = np.asarray(pc.fill_null(pc.index_in(wanted, value_set=pack["digest"]), -1))
        here = missing & (found >= 0)
        if not here.any():
            uses.pop().close()
            continue
        place.pack[here], place.row[here] = len(packs), found[here]
        packs.append(pack["image"])
        missing &= ~here
    if missing.any():
        _close(uses)
        return None
    columns = table.select(range(table.num_columns - 1))
    return RowCopy(columns, wanted, folder, packs, place, uses)


def _reopened(folder: Path) -> RowCopy:
    """The copy of another process, which has it open."""
    copy = _opened(folder)
    if copy is None:
        raise NapoBenchError(f"{folder} is no longer there.", "Run the same command again.")
    return copy


def _close(uses: Sequence[locks.Use]) -> None:
    for use in uses:
        use.close()


def _packs(folder: Path) -> list[Path]:
    """The files of images of all copies, those of this copy first."""
    others = sorted(folder.parent.glob(f"*/{_IMAGES.format('*')}"))
    return sorted(others, key=lambda path: path.parent != folder)


def _mapped(path: Path) -> pa.Table | None:
    """The table of an Arrow file; None if the file does not exist or is damaged."""
    try:
        with pa.memory_map(str(path)) as stream:
            return ipc.open_file(stream).read_all()
    except (OSError, pa.ArrowException):
        return None


def _write(folder: Path, source: DataFiles, contents: Sequence[str]) -> None:
    """Write the copy of files whose SHA-256 are `contents`."""
    known: set[bytes] = set()
    with ExitStack() as stack:
        for path in _packs(folder):
            stack.enter_context(locks.Use(path.parent))
            if (pack := _mapped(path)) is not None:
                known |= set(pack["digest"].to_pylist())
            elif path.parent == folder:
                path.unlink()
        number = next(number for number in itertools.count() if not (folder / _IMAGES.format(number)).exists())
        schema = source.schema.append(pa.field("SHA-256 of image", _DIGEST))
        # The images are in place before the rows that need them.
        rows = stack.enter_context(files.atomic_path(folder / _ROWS))
        images = stack.enter_context(files.atomic_path(folder / _IMAGES.format(number)))
        stack.enter_context(disk.writing(folder.parent, _HINT))
        rows_writer = stack.enter_context(ipc.new_file(str(rows), schema))
        pack_writer = stack.enter_context(ipc.new_file(str(images), _PACK))
        for path in source.with_rows:
            held = []
            with closing(_read(path, source.schema)) as batches:
                for columns, is_end in batches:
                    inside = _taken_out(columns, source.schema.get_field_index(IMAGE))
                    held.append(pa.record_batch([*columns, _added(inside, known, pack_writer)], schema=schema))
                    if is_end:
                        rows_writer.write_table(pa.Table.from_batches(held).combine_chunks())
                        held = []
        if digests.sha256(source.with_rows) != contents:
            raise NapoBenchError(
                f"{source.name} changed while it was read.",
                "Wait until it is written, then run the same command again.",
            )


def _read(path: Path, schema: pa.Schema) -> Generator[tuple[list[pa.Array], bool]]:
    """The columns of a parquet file, a few rows at a time, and whether a record batch of the copy ends there.

    A record batch has at most 100 rows and is inside one row group, as in the copies of earlier versions: the pages of
    the parquet files that `build-bias` writes depend on it.

    A file whose rows unpack to far more than the file has is refused: a file of 1.7 kB can repeat one text, and unpack
    to gigabytes.
    """
    packed = path.stat().st_size
    most = _SMALL_ROWS + ROWS_EXPANSION.value * packed
    try:
        with at_most(f"Reading {path}", memory=ROWS_BYTES), ParquetFile(path, buffer_size=_PAGE) as rows:
            groups = [rows.metadata.row_group(number) for number in range(rows.num_row_groups)]
            _require_bounded(path, sum(group.total_byte_size for group in groups), most)
            unpacked = 0
            for number, group in enumerate(groups):
                left = group.num_rows
                batches = rows.iter_batches(_ROWS_READ, [number], schema.names, use_threads=False)
                for count, batch in enumerate(batches, start=1):
                    unpacked += batch.nbytes
                    _require_bounded(path, unpacked, most)
                    left -= len(batch)
                    columns = [batch[name].cast(schema.field(name).type) for name in schema.names]
                    yield columns, left == 0 or count % _READS_A_BATCH == 0
    except (pa.ArrowException, OSError) as error:
        raise NapoBenchError(f"{path} cannot be read: {str(error).rstrip('.')}.", FETCH_AGAIN) from None


def _require_bounded(path: Path, unpacked: int, most: int) -> None:
    if unpacked > most:
        packed = path.stat().st_size
        raise NapoBenchError(
            f"{path} has {packed:,} bytes, and its rows unpack to more than {most:,} bytes.", ROWS_EXPANSION.hint
        )


def _added(images: pa.Array, known: set[bytes], writer: Any) -> pa.Array:
    """The digests of images. Images that are not known are written, and are known then."""
    found = [hashlib.sha256(one.as_buffer()).digest() if one.is_valid else None for one in images]
    new = {digest: place for place, digest in enumerate(found) if digest is not None and digest not in known}
    if new:
        known.update(new)
        added = images.take(list(new.values())).cast(pa.large_binary())
        writer.write_batch(pa.record_batch([pa.array(new, _DIGEST), added], schema=_PACK))
    return pa.array(found, _DIGEST)


def _taken_out(columns: list[pa.Array], index: int) -> pa.Array:
    """Take the bytes of the images out of their column, and return them."""
    images = columns[index]
    kind = images.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        columns[index] = pa.nulls(len(images), kind)
        return images
    place = kind.get_field_index("bytes") if pa.types.is_struct(kind) else -1
    if place < 0 or pa.types.is_null(kind.field(place).type):
        return pa.nulls(len(images), pa.binary())
    parts = [pc.struct_field(images, number) for number in range(kind.num_fields)]
    inside = parts[place]
    parts[place] = pa.nulls(len(images), inside.type)
    columns[index] = pa.StructArray.from_arrays(parts, fields=list(kind), mask=pc.is_null(images))
    return inside

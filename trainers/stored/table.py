"""The rows of a data set: columns, and images as they are stored."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from napo_bench.core.errors import NapoBenchError
from napo_bench.trainers.stored.cells import digest_of, image_path, named_image
from napo_bench.trainers.stored.copy import RowCopy, open_copy
from napo_bench.trainers.stored.files import IMAGE, DataFiles, open_files

_ID = "idx"
_OF_NOTHING = hashlib.sha256().digest()


@dataclass(frozen=True)
class RowTable:
    """The rows of a data set, read at random.

    Attributes:
        source: The parquet files.
        copy: The copy of their content.
    """

    source: DataFiles
    copy: RowCopy

    def __len__(self) -> int:
        return len(self.copy.columns)

    def column(self, name: str) -> pa.ChunkedArray:
        """A column, with null in place of the bytes of images."""
        return self.copy.columns.column(name)

    def text(self, position: int, name: str) -> str | None:
        """The text of a row in a column."""
        text: str | None = self.column(name)[position].as_py()
        return text

    @cached_property
    def names(self) -> list[str]:
        """A unique name for each row: its `idx`, with its number (from 0) if another row has the same `idx`. Without
        the column, the name is the position.
        """
        if _ID not in self.copy.columns.column_names:
            return [str(number) for number in range(len(self))]
        ids = [str(value) for value in self.column(_ID).to_pylist()]
        uses = Counter(ids)
        return [name if uses[name] == 1 else f"{name} (row {number})" for number, name in enumerate(ids)]

    def image(self, position: int) -> bytes | Path:
        """The encoded image of a row, or its file; b"" if the row has neither, or if the path leads out of the folder
        of the row's file.
        """
        inside = self.copy.image(position)
        if inside is not None:
            return inside
        path = image_path(self.column(IMAGE)[position].as_py())
        return b"" if path is None else named_image(self.source.folder(position), path)

    def image_digest(self, position: int) -> str:
        """SHA-256 of the encoded image of a row, in hex; "" for a row without an image."""
        digest: bytes | None = self.copy.digests[position].as_py()
        if digest is None:
            return digest_of(self.image(position))
        return digest.hex() if digest != _OF_NOTHING else ""

    def fingerprint(self) -> str:
        """SHA-256, in hex, over the contents of the files, and of the images that the rows name by path."""
        return self.source.fingerprint(self._named())

    def part(self, first: int, count: int) -> pa.Table:
        """Consecutive rows with every column. An image that the row names by path gets its bytes too."""
        rows = self.copy.columns.slice(first, count)
        index = rows.column_names.index(IMAGE)
        return rows.set_column(index, IMAGE, self._whole_images(rows.column(IMAGE), first))

    def _named(self) -> Iterator[tuple[int, str]]:
        """Position and path of each image that a row names by path. Images inside the rows are not read."""
        cells, inside = self.column(IMAGE), self.copy.digests.is_valid()
        kind = cells.type
        if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
            cells = pc.struct_field(cells, "path")
        if not (pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)):
            return
        for position, path in enumerate(pc.if_else(inside, None, cells).to_pylist()):
            if path is not None:
                yield position, path

    def _whole_images(self, cells: pa.ChunkedArray, first: int) -> pa.ChunkedArray:
        kind = cells.type
        if not pa.types.is_struct(kind):
            is_binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
            return self._inside(cells, first).cast(kind) if is_binary else cells
        inside = self._inside(cells, first)
        named = {row: self.image(first + row) for row, one in enumerate(inside) if not one.is_valid}
        read = {row: path.read_bytes() for row, path in named.items() if isinstance(path, Path) and path.is_file()}
        held = {field.name: field for field in kind}
        if read:
            # The result is in another folder than the rows, where the paths lead to no file.
            filled = pa.array([read.get(row, one) for row, one in enumerate(inside.to_pylist())], pa.binary())
            cells, inside = pa.chunked_array([cells.combine_chunks()]), pa.chunked_array([filled])
            held["bytes"] = pa.field("bytes", pa.binary())
        elif "bytes" not in held:
            return cells
        chunks = []
        for chunk, encoded in zip(cells.chunks, inside.cast(held["bytes"].type).chunks, strict=True):
            parts = [encoded if name == "bytes" else pc.struct_field(chunk, name) for name in held]
            chunks.append(pa.StructArray.from_arrays(parts, fields=list(held.values()), mask=pc.is_null(chunk)))
        return pa.chunked_array(chunks)

    def _inside(self, cells: pa.ChunkedArray, first: int) -> pa.ChunkedArray:
        """The encoded images that consecutive rows have inside, as large binary in the chunks of their cells."""
        ends = list(itertools.accumulate(map(len, cells.chunks), initial=first))
        return pa.chunked_array([self.copy.images(*ends) for ends in itertools.pairwise(ends)], pa.large_binary())


def open_table(data: str | Path, needed: Collection[str], cache: Path, *, whole: bool = False) -> RowTable:
    """The rows of a data set.

    Args:
        data: See `open_files`.
        needed: See `open_files`.
        cache: Folder of the copies of rows.
        whole: Whether all files must have the same columns.

    Raises:
        NapoBenchError: see `open_files`; a file cannot be read, or the cache folder cannot be written; or a text is not
            UTF-8.
    """
    source = open_files(data, needed)
    if whole and source.uncommon:
        raise NapoBenchError(
            f"{data}: not every file has the columns {', '.join(source.uncommon)}, or they have several types.",
            "Write the files again with the same columns.",
        )
    table = RowTable(source, open_copy(source, cache))
    _require_utf8(table, set(needed) - {IMAGE})
    return table


def _require_utf8(table: RowTable, columns: Iterable[str]) -> None:
    for column in sorted(columns):
        texts = table.column(column)
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid:
            for position, encoded in enumerate(texts.cast(pa.large_binary()).to_pylist()):
                try:
                    (encoded or b"").decode()
                except UnicodeDecodeError as error:
                    raise NapoBenchError(
                        f"{table.source.place(position)}: the field {column!r} is not UTF-8 text (byte {error.start}: "
                        "half of a surrogate pair, or another encoding).",
                        "Write the rows again with whole characters.",
                    ) from None

"""Preference rows: RLAIF-V and RLAIF-V-Bias parquet, memory-mapped.

No row vanishes: a row that cannot be trained on is counted and named by its id, and no text is cut to fit.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from napo_bench.core import digests, disk, files, hub, links
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.images import UnreadableImageError, open_rgb
from napo_bench.core.limits import ROWS_BYTES, ROWS_EXPANSION, at_most
from napo_bench.models.conversation import Conversation, Markup, any_of
from napo_bench.trainers.controls import TrainingImages
from napo_bench.trainers.negatives import BIASED, CHOSEN, REJECTED, column_of
from napo_bench.trainers.published import hub_revision

# Characters that show nothing: spaces, controls, zero-width characters, blank letters, variation selectors.
_BLANK = r"[\p{Z}\p{C}\x{115F}\x{1160}\x{2800}\x{3164}\x{FE00}-\x{FE0F}]+"
_LARGE_FILE, _SMALL_ROWS, _ROWS_A_CHECK = 2**30, 64 * 2**20, 32
_CACHE_HINT = "Free space there, or choose another cache folder (train: --cache), then run the same command again."


@dataclass(frozen=True)
class PreferenceRow:
    """One row with its decoded image.

    Attributes:
        position: Position in the data set, from 0.
        id: Name of the row: `idx` of the row, or its position if the data set has no `idx`. Rows that share an `idx`
            have their number in the name.
        question: Question without a template.
        responses: Chosen response, then the negatives; "" if the row lacks a negative. Blanks at their ends are removed
            if the recipe says so.
        image: Image that the row is trained with; None if it, or the row's own image, cannot be decoded.
        counted: Whether the row counts; False for a row that only gives a process work in the last batch of an epoch.
    """

    position: int
    id: str
    question: str
    responses: tuple[str, ...]
    image: Image.Image | None
    counted: bool = True


@dataclass(frozen=True)
class StoredRow:
    """One row with its image as it is stored.

    Attributes:
        position: Position in the data set, from 0.
        id: See `PreferenceRow`.
        question: See `PreferenceRow`.
        responses: See `PreferenceRow`.
        image: Encoded image of the row, or its file.
    """

    position: int
    id: str
    question: str
    responses: tuple[str, ...]
    image: bytes | Path


@dataclass
class RowReport:
    """Report about the rows. A row is named by its id, and rows that share an id by id and number.

    Attributes:
        total: Number of rows in the data set.
        left_out: Reason -> names of rows that are not trained on.
        without: Negative -> names of rows that lack the negative and train with the others.
        cleaned: Names of rows whose texts contained control tokens of the model, which were removed.
    """

    total: int
    left_out: dict[str, list[str]] = field(default_factory=dict)
    without: dict[str, list[str]] = field(default_factory=dict)
    cleaned: list[str] = field(default_factory=list)

    @property
    def used(self) -> int:
        """Rows that are trained on."""
        return self.total - sum(len(ids) for ids in self.left_out.values())

    def lines(self, shown: int = 8) -> list[str]:
        """One line for each reason why rows are left out or lack a negative, with the first ids."""

        def some(ids: list[str]) -> str:
            more = f", and {len(ids) - shown} more" if len(ids) > shown else ""
            return f"{len(ids)} of {self.total} rows ({', '.join(ids[:shown])}{more})"

        lines = [f"Left out, {reason}: {some(ids)}." for reason, ids in self.left_out.items()]
        if self.cleaned:
            lines.append(f"Control tokens of the model were removed from the texts: {some(self.cleaned)}.")
        return lines + [f"Trained on without a {name} negative: {some(ids)}." for name, ids in self.without.items()]


class PreferenceRows(Dataset[PreferenceRow]):
    """The rows of a data set that have a chosen response and at least one of the required negatives.

    Items are read by (index, counted), as `EpochBatches` draws them.

    Attributes:
        responses: "chosen" and the negatives, in the order of every row's `responses`.
        positions: Positions of the rows in the data set.
        fingerprint: SHA-256 over the contents of the files, and over the strings that are removed from their texts.
        report: Report about the rows.
        images: Images that take the place of the rows' own; None trains on the rows' own images.
    """

    images: TrainingImages | None = None

    def __init__(self, table: Any, source: DataFiles, negatives: Sequence[str], markup: Markup, *, strip: bool) -> None:
        self._table = table
        self._image_column = table.select_columns(["image"])
        self._source = source
        self._strip = strip
        self._names = row_names(row_ids(table))
        self.responses = (CHOSEN, *negatives)
        self.report = RowReport(len(table))
        texts = {name: _visible_texts(table, column_of(name), markup) for name in self.responses}
        self._empty = {name: _is_empty(text) for name, text in texts.items()}
        no_chosen = self._empty[CHOSEN]
        no_negative = np.logical_and.reduce([self._empty[name] for name in negatives]) & ~no_chosen
        equal = np.zeros(len(table), dtype=np.bool_)
        if REJECTED.name in texts:
            compared = texts if strip else {name: _texts(table, column_of(name), markup) for name in texts}
            equal = _are_equal(compared[CHOSEN], compared[REJECTED.name]) & ~no_chosen & ~no_negative
            self._empty[REJECTED.name] = self._empty[REJECTED.name] | equal
        only_equal = np.logical_and.reduce([self._empty[name] for name in negatives]) & equal
        self.positions: NDArray[np.int64] = np.arange(len(table))
        self._leave_out("no chosen response", np.flatnonzero(no_chosen))
        self._leave_out("no negative response", np.flatnonzero(no_negative))
        self._leave_out("chosen and rejected response are equal", np.flatnonzero(only_equal))
        for name in negatives:
            lacking = np.flatnonzero(self._empty[name] & ~no_chosen & ~no_negative & ~only_equal)
            if lacking.size:
                self.report.without[name] = [self._names[position] for position in lacking.tolist()]
        columns = ("question", *(column_of(name) for name in self.responses))
        cleaned = np.intersect1d(self.positions, np.flatnonzero(_holds(table, columns, markup.controls)))
        self.report.cleaned = [self._names[position] for position in cleaned.tolist()]
        others = {*markup.placeholders, *markup.controls} - {markup.own}
        changed = _holds(table, columns, others)
        for name, empty in self._empty.items():
            changed |= empty & ~_is_empty(table.data.column(column_of(name)))
        self.fingerprint = source.fingerprint(table)
        if changed.any():
            rule = json.dumps([sorted(others), np.flatnonzero(changed).tolist()])
            self.fingerprint = hashlib.sha256(f"{self.fingerprint}{rule}".encode()).hexdigest()

    def leave_out(self, problems: Mapping[int, str]) -> None:
        """Leave rows out, and add them to the report: position -> reason."""
        for reason in sorted(set(problems.values())):
            positions = [position for position, why in sorted(problems.items()) if why == reason]
            self._leave_out(reason, np.array(positions, dtype=np.int64))

    def _leave_out(self, reason: str, positions: NDArray[np.int64]) -> None:
        if positions.size:
            self.report.left_out[reason] = [self._names[position] for position in positions.tolist()]
            self.positions = np.setdiff1d(self.positions, positions)
        gone = {row for rows in self.report.left_out.values() for row in rows}
        without = {name: [row for row in rows if row not in gone] for name, rows in self.report.without.items()}
        self.report.without = {name: rows for name, rows in without.items() if rows}
        self.report.cleaned = [row for row in self.report.cleaned if row not in gone]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, draw: tuple[int, bool]) -> PreferenceRow:
        index, counted = draw
        row = self.stored(index)
        image = _decoded(row.image)
        if image is not None and self.images is not None:
            image = self.images.image(row.position, image)
        return PreferenceRow(row.position, row.id, row.question, row.responses, image, counted)

    def own_image(self, position: int) -> Image.Image | None:
        """The image of the row at a position in the data set; None if the image cannot be decoded."""
        return _decoded(self._stored_image(position))

    def image_digests(self) -> Iterator[str]:
        """The digest of each row's encoded image, in the order of the data set; "" for a row without an image."""
        return (_digest(self._stored_image(position)) for position in range(self.report.total))

    def _stored_image(self, position: int) -> bytes | Path:
        return _encoded(self._image_column[position]["image"], self._source.folder(position))

    def stored(self, index: int) -> StoredRow:
        """A row whose image is not decoded."""
        position = int(self.positions[index])
        row = self._table[position]
        return StoredRow(
            position=position,
            id=self._names[position],
            question=row["question"] or "",
            responses=tuple(self._response(row, position, name) for name in self.responses),
            image=_encoded(row["image"], self._source.folder(position)),
        )

    def _response(self, row: Mapping[str, str], position: int, name: str) -> str:
        text = "" if self._empty[name][position] else row[column_of(name)]
        return text.strip() if self._strip else text


def open_rows(
    data: str | Path,
    negatives: Sequence[str],
    cache: Path,
    conversation: Conversation | None = None,
    *,
    strip: bool = False,
) -> PreferenceRows:
    """Open RLAIF-V or RLAIF-V-Bias rows.

    Args:
        data: A parquet file, a folder of them, or a data set on the Hugging Face hub: `name`, or `name@revision`.
        negatives: Names in `NEGATIVES` that the recipe needs.
        cache: Folder of the memory-mapped rows.
        conversation: Conversation whose control tokens are removed; None removes only the placeholders of data sets.
        strip: Whether blanks at the ends of responses are removed.

    Raises:
        NapoBenchError: the data does not exist, a file is no parquet, a column is missing or of another type, or no row
            can be trained on.
    """
    needed = {"question", "image", *(column_of(name) for name in (CHOSEN, *negatives))}
    table, source = open_table(data, needed, {"idx"}, cache)
    markup = conversation.markup if conversation else Markup()
    rows = PreferenceRows(table, source, negatives, markup, strip=strip)
    if not len(rows):
        raise NapoBenchError(f"{data}: no row has a chosen response and one of {', '.join(negatives)}.")
    return rows


@dataclass(frozen=True)
class DataFiles:
    """The parquet files of a data set, in the order of its rows.

    Attributes:
        paths: The files.
        ends: Number of rows up to the end of each file.
    """

    paths: tuple[Path, ...]
    ends: tuple[int, ...]

    def folder(self, position: int) -> Path:
        """The folder at which image paths of the row start: the folder of the row's own file."""
        return self.paths[bisect.bisect_right(self.ends, position)].parent

    def place(self, position: int) -> str:
        """File, and number of the row in the file from 1, for messages."""
        file = bisect.bisect_right(self.ends, position)
        return f"{self.paths[file]}, row {position + 1 - (self.ends[file - 1] if file else 0)}"

    def fingerprint(self, table: Any) -> str:
        """SHA-256, in hex, over the contents of the files, and of the images that the rows name by path."""
        digest = hashlib.sha256("".join(digests.sha256(self.paths)).encode())
        named = dict.fromkeys(
            files.inside(self.folder(position), path, self.place(position)) for position, path in _image_paths(table)
        )
        if not named:
            return digest.hexdigest()
        there = [path for path in named if path.is_file()]
        contents = dict(zip(there, digests.sha256(there), strict=True))
        images = [contents.get(path, "") for path in named]
        return hashlib.sha256(f"{digest.hexdigest()}{''.join(images)}".encode()).hexdigest()


def open_table(data: str | Path, needed: set[str], others: set[str] | None, cache: Path) -> tuple[Any, DataFiles]:
    """The rows of a data set as a memory-mapped `datasets.Dataset` with images as stored, and its files.

    Args:
        data: See `open_rows`.
        needed: Columns that must exist; all except `image` must be text.
        others: Columns that are read if they exist; None is every column.
        cache: Folder of the memory-mapped rows.

    Raises:
        NapoBenchError: the data does not exist or is empty, a file is no parquet, or a column is missing or of another
            type, or a row has several images.
    """
    import datasets
    import pyarrow
    from datasets.exceptions import DatasetGenerationError
    from pyarrow import parquet

    paths = _parquet_files(data)
    common: set[str] | None = None
    counts = []
    for path in paths:
        try:
            metadata = parquet.read_metadata(path)
        except (OSError, pyarrow.ArrowInvalid) as error:
            files.refuse_lfs_pointer(path)
            raise NapoBenchError(
                f"{path} is not a parquet file, or it is cut off: {str(error).rstrip('.')}.", "Fetch it again."
            ) from None
        _require_bounded(path)
        names = set(metadata.schema.to_arrow_schema().names)
        if missing := sorted(needed - names):
            raise NapoBenchError(f"{path} lacks the columns {', '.join(missing)}.", _missing_hint(missing, data))
        counts.append(metadata.num_rows)
        common = names if common is None else common & names
    holding_rows = [str(path) for path, count in zip(paths, counts, strict=True) if count]
    if not holding_rows:
        raise NapoBenchError(f"{data} has no rows.")
    columns = None if others is None else sorted(needed | (others & (common or set())))
    links.refuse_links(cache)
    datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(
            "parquet", data_files=holding_rows, columns=columns, split="train", cache_dir=str(cache)
        )
    except (DatasetGenerationError, OSError) as error:
        if why := disk.reason(error):
            raise disk.unwritable(cache, why, _CACHE_HINT) from None
        raise NapoBenchError(
            f"{data} cannot be read: {str(error.__cause__ or error).rstrip('.')}.", "Fetch it again."
        ) from None
    for column in sorted(needed - {"image"}):
        if table.features[column].dtype not in ("string", "large_string"):
            raise NapoBenchError(f"{data}: the column {column} is {table.features[column]}; text is expected.")
    stored = table.data.column("image").type
    if pyarrow.types.is_nested(stored) and not pyarrow.types.is_struct(stored):
        raise NapoBenchError(
            f"{data}: the column image is {stored}; one image a row is expected. Training takes one image a prompt.",
            "Write one row for each image, or leave out the rows with several images. `eval` takes several images.",
        )
    if isinstance(table.features["image"], datasets.Image):
        table = table.cast_column("image", datasets.Image(decode=False))
    source = DataFiles(tuple(paths), tuple(itertools.accumulate(counts)))
    _require_utf8(table, needed - {"image"}, source)
    return table, source


def _require_bounded(path: Path) -> None:
    """Refuse a file of less than 1 GB whose rows unpack to far more than the file has. A larger file fills its cache.

    A file of 1.7 kB can repeat one text, and unpack to gigabytes.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    packed = path.stat().st_size
    if packed > _LARGE_FILE:
        return
    most = _SMALL_ROWS + ROWS_EXPANSION.value * packed
    try:
        with at_most(f"Reading {path}", memory=ROWS_BYTES), ParquetFile(path) as rows:
            groups = [rows.metadata.row_group(number) for number in range(rows.metadata.num_row_groups)]
            is_small = sum(group.total_byte_size for group in groups) <= most
            unpacked = 0
            for batch in rows.iter_batches(batch_size=_ROWS_A_CHECK, use_threads=False) if is_small else ():
                unpacked += batch.nbytes
                if not (is_small := unpacked <= most):
                    break
    except (ArrowException, OSError) as error:
        raise NapoBenchError(f"{path} cannot be read: {str(error).rstrip('.')}.", "Fetch it again.") from None
    if not is_small:
        raise NapoBenchError(
            f"{path} has {packed:,} bytes, and its rows unpack to more than {most:,} bytes.", ROWS_EXPANSION.hint
        )


def _require_utf8(table: Any, columns: Iterable[str], source: DataFiles) -> None:
    import pyarrow as pa

    for column in sorted(columns):
        texts = table.data.column(column)
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid:
            for position, encoded in enumerate(texts.cast(pa.large_binary()).to_pylist()):
                try:
                    (encoded or b"").decode()
                except UnicodeDecodeError as error:
                    raise NapoBenchError(
                        f"{source.place(position)}: the field {column!r} is not UTF-8 text (byte {error.start}: "
                        "half of a surrogate pair, or another encoding).",
                        "Write the rows again with whole characters.",
                    ) from None


def row_ids(table: Any) -> list[str]:
    """The `idx` of each row, or its position if the data set has no `idx`."""
    if "idx" in table.column_names:
        return [str(value) for value in table["idx"]]
    return [str(number) for number in range(len(table))]


def row_names(ids: Sequence[str]) -> list[str]:
    """A unique name for each row: its id, with its number (from 0) if another row has the same id."""
    uses = Counter(ids)
    return [row_id if uses[row_id] == 1 else f"{row_id} (row {number})" for number, row_id in enumerate(ids)]


def lacks_negatives(data: str | Path, negatives: Iterable[str]) -> bool:
    """Whether the rows have no column for one of these negatives.

    Args:
        data: See `open_rows`.
        negatives: Names in `NEGATIVES`.

    Raises:
        NapoBenchError: the data does not exist or is no parquet.
    """
    from pyarrow import ArrowInvalid, parquet

    first = _parquet_files(data)[0]
    try:
        columns = parquet.read_schema(first).names
    except ArrowInvalid as error:
        files.refuse_lfs_pointer(first)
        raise NapoBenchError(
            f"{first} is no parquet file, or a truncated one: {str(error).rstrip('.')}.", "Fetch it again."
        ) from None
    return any(column_of(name) not in columns for name in negatives)


def _parquet_files(data: str | Path) -> list[Path]:
    path = Path(data).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        path = _fetched(str(data))
    found = sorted(path.rglob("*.parquet"))
    if not found:
        raise NapoBenchError(f"{data} holds no .parquet file.", "Give the parquet file of the rows, or its folder.")
    return found


def _fetched(data: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if data.startswith((".", "/", "~")) or data.count("/") != 1 or data.endswith(".parquet"):
        raise NapoBenchError(f"{data} does not exist.", "Give a parquet file of preference rows, or its folder.")
    name, revision = hub_revision(data)
    try:
        fetched = snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=["*.parquet"])
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        page = f"https://huggingface.co/datasets/{name}"
        raise hub.not_fetched(page, error, f"{data} is no folder here, and {page}") from None
    return Path(fetched)


def _missing_hint(missing: Sequence[str], data: str | Path) -> str:
    if set(missing) <= {negative.column for negative in BIASED.values()}:
        return (
            "These are the biased negatives, which the base model writes: "
            f"napo-bench data build-bias --ckpt BASE --data {data} --out DIR, then --data DIR. "
            f"A recipe without them ({', '.join(f'loss_{name}: none' for name in BIASED)}) needs none."
        )
    return "RLAIF-V's columns are: question, image, chosen, rejected, idx."


def _texts(table: Any, column: str, markup: Markup) -> Any:
    """The texts of a column without markup, as an Arrow array."""
    import pyarrow.compute as pc

    pattern = any_of((*markup.placeholders, *markup.controls))
    return pc.replace_substring_regex(table.data.column(column), pattern, "")


def _visible_texts(table: Any, column: str, markup: Markup) -> Any:
    """The texts of a column without markup and without invisible characters, as an Arrow array."""
    import pyarrow.compute as pc

    return pc.replace_substring_regex(_texts(table, column, markup), _BLANK, "")


def _is_empty(texts: Any) -> NDArray[np.bool_]:
    """Which texts are null or only white space."""
    import pyarrow.compute as pc

    length = pc.utf8_length(pc.utf8_trim_whitespace(texts))
    return np.asarray(pc.fill_null(pc.equal(length, 0), True))


def _are_equal(texts: Any, others: Any) -> NDArray[np.bool_]:
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(pc.equal(texts, others), False))


def _holds(table: Any, columns: Iterable[str], strings: Iterable[str]) -> NDArray[np.bool_]:
    """Which rows contain one of the strings in one of the columns."""
    import pyarrow.compute as pc

    found = np.zeros(len(table), dtype=np.bool_)
    if pattern := any_of(strings):
        for column in columns:
            held = pc.match_substring_regex(table.data.column(column), pattern)
            found |= np.asarray(pc.fill_null(held, False))
    return found


def image_path(cell: Any) -> str | None:
    """The path of an image cell that names its image by path: {bytes: None, path}, or the path alone."""
    if isinstance(cell, dict):
        return cell.get("path") if cell.get("bytes") is None else None
    return cell if isinstance(cell, str) else None


def _image_paths(table: Any) -> Iterator[tuple[int, str]]:
    """Position and path of the images that rows name by path; images inside the rows are not read."""
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = table.data.column("image")
    paths = cells
    if pa.types.is_struct(cells.type):
        fields = [cells.type.field(index).name for index in range(cells.type.num_fields)]
        paths = pc.struct_field(cells, "path") if "path" in fields else pa.nulls(len(cells), pa.string())
        if "bytes" in fields:
            paths = pc.if_else(pc.is_null(pc.struct_field(cells, "bytes")), paths, None)
    if not (pa.types.is_string(paths.type) or pa.types.is_large_string(paths.type)):
        return
    for position, path in enumerate(paths.to_pylist()):
        if path is not None:
            yield position, path


def decode_image(value: Any, folder: Path) -> Image.Image | None:
    """The image of a cell ({bytes, path}, bytes, or a path that starts at the folder); None if the image cannot be
    decoded.
    """
    return _decoded(_encoded(value, folder))


def _encoded(value: Any, folder: Path) -> bytes | Path:
    """The encoded image of a cell, or its file; b"" if the cell has neither, or if its path leads out of the folder."""
    path = image_path(value)
    if path is not None:
        try:
            return files.inside(folder, path)
        except NapoBenchError:
            return b""
    return (value.get("bytes") if isinstance(value, dict) else value) or b""


def _digest(encoded: bytes | Path) -> str:
    if isinstance(encoded, Path):
        return digests.sha256([encoded])[0] if encoded.is_file() else ""
    return hashlib.sha256(encoded).hexdigest() if encoded else ""


def _decoded(encoded: bytes | Path) -> Image.Image | None:
    try:
        return open_rgb(encoded)
    except UnreadableImageError:
        return None

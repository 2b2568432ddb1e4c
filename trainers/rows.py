"""Preference rows: RLAIF-V and RLAIF-V-Bias.

No row vanishes: a row that cannot be trained on is counted and named by its id, and no text is cut to fit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from napo_bench.core.errors import NapoBenchError
from napo_bench.models.conversation import Conversation, Markup
from napo_bench.trainers.controls import TrainingImages
from napo_bench.trainers.negatives import CHOSEN, REJECTED, column_of
from napo_bench.trainers.stored import texts
from napo_bench.trainers.stored.cells import decoded
from napo_bench.trainers.stored.files import IMAGE
from napo_bench.trainers.stored.table import RowTable, open_table


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

    def __init__(self, table: RowTable, negatives: Sequence[str], markup: Markup, *, strip: bool) -> None:
        self._table = table
        self._strip = strip
        self._names = table.names
        self.responses = (CHOSEN, *negatives)
        self.report = RowReport(len(table))
        stored = {name: table.column(column_of(name)) for name in self.responses}
        visible = {name: texts.visible(column, markup) for name, column in stored.items()}
        self._empty = {name: texts.are_empty(column) for name, column in visible.items()}
        no_chosen = self._empty[CHOSEN]
        no_negative = np.logical_and.reduce([self._empty[name] for name in negatives]) & ~no_chosen
        equal = np.zeros(len(table), dtype=np.bool_)
        if REJECTED.name in stored:
            pair = (CHOSEN, REJECTED.name)
            compared = (visible[name] if strip else texts.without_markup(stored[name], markup) for name in pair)
            equal = texts.are_equal(*compared) & ~no_chosen & ~no_negative
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
        columns = [table.column("question"), *stored.values()]
        cleaned = np.intersect1d(self.positions, np.flatnonzero(texts.contain(columns, len(table), markup.controls)))
        self.report.cleaned = [self._names[position] for position in cleaned.tolist()]
        others = {*markup.placeholders, *markup.controls} - {markup.own}
        changed = texts.contain(columns, len(table), others)
        for name, empty in self._empty.items():
            changed |= empty & ~texts.are_empty(stored[name])
        self.fingerprint = table.fingerprint()
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
        image = decoded(row.image)
        if image is not None and self.images is not None:
            image = self.images.image(row.position, image)
        return PreferenceRow(row.position, row.id, row.question, row.responses, image, counted)

    def own_image(self, position: int) -> Image.Image | None:
        """The image of the row at a position in the data set; None if the image cannot be decoded."""
        return decoded(self._table.image(position))

    def image_digests(self) -> Iterator[str]:
        """The digest of each row's encoded image, in the order of the data set; "" for a row without an image."""
        return map(self._table.image_digest, range(self.report.total))

    def stored(self, index: int) -> StoredRow:
        """A row whose image is not decoded."""
        position = int(self.positions[index])
        return StoredRow(
            position=position,
            id=self._names[position],
            question=self._table.text(position, "question") or "",
            responses=tuple(self._response(position, name) for name in self.responses),
            image=self._table.image(position),
        )

    def _response(self, position: int, name: str) -> str:
        text = "" if self._empty[name][position] else self._table.text(position, column_of(name)) or ""
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
        cache: Folder of the copies of rows.
        conversation: Conversation whose control tokens are removed; None removes only the placeholders of data sets.
        strip: Whether blanks at the ends of responses are removed.

    Raises:
        NapoBenchError: the data does not exist, a file is no parquet, a column is missing or of another type, or no row
            can be trained on.
    """
    needed = {"question", IMAGE, *(column_of(name) for name in (CHOSEN, *negatives))}
    markup = conversation.markup if conversation else Markup()
    rows = PreferenceRows(open_table(data, needed, cache), negatives, markup, strip=strip)
    if not len(rows):
        raise NapoBenchError(f"{data}: no row has a chosen response and one of {', '.join(negatives)}.")
    return rows

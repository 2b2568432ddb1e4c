"""Log-probs under the reference model. They are computed once, before training, and kept in parquet.

During training only one model is in memory. The same pass finds the rows that cannot be trained on: an image that
cannot be decoded is found here, and not at step 3,000.

The rows are cut into chunks that depend on the data alone. A chunk is one file, which is written when it is complete.
The processes share the chunks. A pass after a killed pass computes the missing chunks, to the same bits.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from napo_bench.core import files, interrupts
from napo_bench.models.conversation import UnencodableImageError
from napo_bench.trainers.batches import Collator, TrainingBatch
from napo_bench.trainers.forward.logps import ResponseLogps, response_logps
from napo_bench.trainers.rows import PreferenceRow, PreferenceRows

CHUNK_ROWS = 256


@dataclass
class Reference:
    """The result of the pass: log-probs of rows by their position in the data set.

    Attributes:
        sum: Summed log-probs, `[rows, K]`: chosen, the negatives, then the chosen response over the crop, if compared.
            NaN for rows that were not computed.
        mean: The same divided by the number of tokens.
        lengths: Tokens of image, prompt and the longest response, `[rows]`.
        problems: Position -> reason why the row cannot be trained on.
    """

    sum: NDArray[np.float32]
    mean: NDArray[np.float32]
    lengths: NDArray[np.int64]
    problems: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Examiner:
    """Encodes rows, and separates the rows that cannot be decoded or encoded or are longer than `max_length` tokens."""

    collator: Collator
    max_length: int

    def __call__(self, rows: Sequence[PreferenceRow]) -> tuple[TrainingBatch | None, dict[int, str]]:
        """The batch of the rows that can be trained on, if there are any, and position -> reason for the other rows."""
        problems = {row.position: "image cannot be decoded" for row in rows if row.image is None}
        fit = [row for row in rows if row.image is not None]
        try:
            batch = self.collator(fit) if fit else None
        except UnencodableImageError:
            refused = [row.position for row in fit if not self._encodes(row)]
            if not refused:
                raise
            problems |= dict.fromkeys(refused, "the checkpoint's processor cannot take its image")
            fit = [row for row in fit if row.position not in problems]
            batch = self.collator(fit) if fit else None
        if batch is not None and max(batch.lengths) > self.max_length:
            reason = f"longer than max_length ({self.max_length} tokens)"
            problems |= {
                position: reason
                for position, length in zip(batch.positions, batch.lengths, strict=True)
                if length > self.max_length
            }
            fit = [row for row in fit if row.position not in problems]
            batch = self.collator(fit) if fit else None
        return batch, problems

    def _encodes(self, row: PreferenceRow) -> bool:
        try:
            self.collator([row])
        except UnencodableImageError:
            return False
        return True


def row_logps(model: nn.Module, batch: TrainingBatch, shared_prefix: bool) -> ResponseLogps:
    """Log-probs of a batch, `[B, K]`: chosen, the negatives, then the chosen response over the crop, if compared."""
    logps = response_logps(model, batch.prompts, shared_prefix)
    rows = len(batch.ids)
    if len(logps.sum) == rows:
        return logps
    sums, means, tokens = (torch.cat([x[:rows], x[rows:, :1]], 1) for x in (logps.sum, logps.mean, logps.tokens))
    return ResponseLogps(sums, means, tokens)


def reference_folder(place: Path, **determinants: Any) -> Path:
    """The folder of a reference pass, in the folder of all passes. Its name is a hash of everything that determines the
    log-probs.
    """
    key = json.dumps(determinants, sort_keys=True)
    return place / hashlib.sha256(key.encode()).hexdigest()[:24]


def compute_reference(
    model: nn.Module,
    rows: PreferenceRows,
    examiner: Examiner,
    folder: Path,
    *,
    batch_size: int,
    shared_prefix: bool,
    bf16: bool,
    rank: int,
    processes: int,
    workers: int,
    on_rows: Callable[[int], None],
) -> None:
    """Compute this process's share of the missing chunks in `folder`.

    Args:
        model: Reference model, on its device.
        rows: All rows to examine.
        examiner: Examiner that encodes the rows.
        folder: Folder of `reference_folder`.
        batch_size: Rows in one forward.
        shared_prefix: Whether to compute image and prompt once a row.
        bf16: Whether to compute in bfloat16.
        rank: Rank of this process.
        processes: Number of processes.
        workers: Number of processes that decode images.
        on_rows: Function that gets the number of finished rows after each forward.
    """
    device = next(model.parameters()).device
    mine = [chunk for chunk in _chunks(len(rows))[rank::processes] if not _part(folder, chunk).exists()]
    batches = [chunk[start : start + batch_size] for chunk in mine for start in range(0, len(chunk), batch_size)]
    loader = DataLoader(
        rows,
        batch_sampler=[[(index, True) for index in batch] for batch in batches],
        collate_fn=examiner,
        num_workers=workers,
        worker_init_fn=interrupts.leave_signals_to_parent,
    )
    examined: Iterator[tuple[TrainingBatch | None, dict[int, str]]] = iter(loader)
    was_training = model.training
    model.eval()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for chunk in mine:
            entries: list[dict[str, Any]] = []
            for start in range(0, len(chunk), batch_size):
                batch, problems = next(examined)
                entries += [_entry(position, problem=reason) for position, reason in problems.items()]
                if batch is not None:
                    logps = row_logps(model, batch.to(device), shared_prefix)
                    values = zip(batch.positions, batch.lengths, logps.sum.tolist(), logps.mean.tolist(), strict=True)
                    entries += [_entry(*value, problem=_problem(value[2])) for value in values]
                on_rows(len(chunk[start : start + batch_size]))
            _write(_part(folder, chunk), entries)
    model.train(was_training)


def rows_missing(rows: int, folder: Path) -> int:
    """The number of rows that are still to be computed."""
    return sum(len(chunk) for chunk in _chunks(rows) if not _part(folder, chunk).exists())


def read_reference(rows: PreferenceRows, folder: Path) -> Reference:
    """Read the chunks of all processes; every chunk must exist."""
    from pyarrow import parquet

    parts = [parquet.read_table(_part(folder, chunk)).to_pylist() for chunk in _chunks(len(rows))]
    entries = [entry for part in parts for entry in part]
    columns = max((len(entry["sum"]) for entry in entries), default=0)
    sums = np.full((rows.report.total, columns), np.nan, dtype=np.float32)
    means, lengths = sums.copy(), np.zeros(rows.report.total, dtype=np.int64)
    problems = {}
    for entry in entries:
        if entry["problem"]:
            problems[entry["position"]] = entry["problem"]
        else:
            sums[entry["position"]], means[entry["position"]] = entry["sum"], entry["mean"]
            lengths[entry["position"]] = entry["length"]
    return Reference(sums, means, lengths, problems)


def _chunks(rows: int) -> list[range]:
    return [range(start, min(start + CHUNK_ROWS, rows)) for start in range(0, rows, CHUNK_ROWS)]


def _part(folder: Path, chunk: range) -> Path:
    return folder / f"rows-{chunk.start:08d}.parquet"


def _entry(
    position: int, length: int = 0, sums: Sequence[float] = (), means: Sequence[float] = (), problem: str = ""
) -> dict[str, Any]:
    return {"position": position, "length": length, "sum": list(sums), "mean": list(means), "problem": problem}


def _problem(sums: Sequence[float]) -> str:
    return "" if all(map(math.isfinite, sums)) else "log-probs under the reference are NaN or infinite"


def _write(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    log_probs = pa.list_(pa.float32())
    schema = pa.schema(
        [
            ("position", pa.int64()),
            ("length", pa.int64()),
            ("sum", log_probs),
            ("mean", log_probs),
            ("problem", pa.string()),
        ]
    )
    with files.atomic_path(path) as temporary:
        parquet.write_table(pa.Table.from_pylist(list(entries), schema), temporary)

"""RLAIF-V-Bias: a model's own biased negatives for preference rows.

Language-biased: the model answers the question without the image. Vision-biased: the model gets the image with an empty
question. Generation is by 3 beams without sampling, without an extra prompt and without a filter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from napo_bench.core import caches, digests, files, locks, processes
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.images import open_rgb
from napo_bench.core.progress import Progress
from napo_bench.core.shared_journal import shared_journal
from napo_bench.engines import BATCH_SIZE
from napo_bench.engines.answering import Answering
from napo_bench.engines.engine import EngineOptions
from napo_bench.engines.registry import engine_named
from napo_bench.engines.request import Generation, Picture, Request
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.conversation import Conversation
from napo_bench.models.device import require_device, require_dtype
from napo_bench.models.folders import require_no_checkpoint
from napo_bench.trainers.published import BUILD_NAME, full_name, licence_of
from napo_bench.trainers.stored.cells import decoded
from napo_bench.trainers.stored.files import IMAGE
from napo_bench.trainers.stored.table import RowTable, open_table

COLUMNS = (
    "question",
    "chosen",
    "rejected",
    "image",
    "question_only",
    "image_only",
    "idx",
    "image_path",
    "origin_dataset",
    "origin_split",
)
"""The published columns, in their order. Further columns of the rows follow."""

ROWS_A_SHARD = 500
_README = "README.md"
PUBLISHED = Generation(max_new_tokens=1024, num_beams=3)
"""Generation settings of the published negatives."""

_OF_EARLY_BUILDS = {"engine": "hf"}
"""Field of a build -> its value in builds that do not have the field."""

_NEEDED = {"question", "chosen", "rejected", IMAGE}
_IDS_SHOWN = 5


@dataclass(frozen=True)
class BiasReport:
    """Report of a build.

    Attributes:
        rows: Number of all rows.
        without_picture: Ids of rows whose image cannot be decoded, so they have no vision-biased negative.
        empty: Name of the negative -> ids of rows with an empty answer.
    """

    rows: int
    without_picture: list[str]
    empty: dict[str, list[str]]

    @property
    def notes(self) -> list[str]:
        """One line for each kind of row that lacks a negative."""
        kinds = {"no image_only, because the image cannot be decoded": self.without_picture}
        kinds |= {f"an empty {name}": ids for name, ids in self.empty.items()}
        return [
            f"{len(ids)} of {self.rows} rows: {what} ({', '.join(ids[:_IDS_SHOWN])}"
            f"{', ...' if len(ids) > _IDS_SHOWN else ''})"
            for what, ids in kinds.items()
            if ids
        ]


def build_bias(
    checkpoint: str,
    data: str | Path,
    out: Path,
    *,
    batch_size: int = BATCH_SIZE,
    device: str | None = None,
    dtype: str = "auto",
    cache: Path | None = None,
    progress: Progress | None = None,
    generation: Generation = PUBLISHED,
    conversation: str | None = None,
    engine: str = "hf",
) -> BiasReport:
    """Write preference rows with the biased negatives of a checkpoint.

    Under torchrun each process writes its share of the shards. The same call continues an interrupted build: finished
    shards stay, and every finished answer is in the journal beside them. A finished build is recognised without loading
    the model.

    Args:
        checkpoint: Any image-text-to-text checkpoint or adapter, local or on the hub.
        data: RLAIF-V rows: a parquet file, a folder of them, or a data set on the hub.
        out: Folder of the result: parquet shards, `build.json` and a README.
        batch_size: Prompts in one forward.
        device: As for `HFEngine`.
        dtype: As for `HFEngine`.
        cache: Folder that trainings keep copies of rows in; the user's cache folder by default.
        progress: Progress of the build; None draws bars.
        generation: Settings of the generation.
        conversation: As for `HFEngine`.
        engine: Name of the engine that answers.

    Raises:
        NapoBenchError: the checkpoint or the rows cannot be read, `out` contains another build, or the engine answers
            with no checkpoint on this machine.
    """
    if "dtype" not in engine_named(engine).takes:
        raise NapoBenchError(
            f"The engine {engine} does not say the number type of its model, which a build depends on.",
            "--engine hf or --engine vllm",
        )
    require_dtype(dtype)
    require_device(device)
    require_no_checkpoint(out)
    with locks.output_folder(out):
        options = EngineOptions(batch_size, device, dtype, conversation=conversation)
        return _build_bias(checkpoint, data, out, engine, options, cache, progress, generation)


def _build_bias(
    checkpoint: str,
    data: str | Path,
    out: Path,
    engine_name: str,
    options: EngineOptions,
    cache: Path | None,
    progress: Progress | None,
    generation: Generation,
) -> BiasReport:
    kept = caches.training_place(cache, "rows")
    if (out / _README).is_file():
        if not processes.is_alone():
            processes.join(cpu=options.device == "cpu")
        table = digests.hashed_by_first(lambda: open_table(data, _NEEDED, kept, whole=True))
        opened = Checkpoint.open(checkpoint)
        asked_in = Conversation.of(opened.load_processor(), opened.load_config(), options.conversation).choice
        fingerprint = digests.hashed_by_first(opened.fingerprint)
        identity = _identity(fingerprint, table.fingerprint(), engine_name, generation, asked_in)
        _claim(out, identity if options.dtype == "auto" else identity | {"dtype": f"torch.{options.dtype}"})
        return _report(out, table)
    if processes.is_first():
        open_table(data, _NEEDED, kept, whole=True)  # rows that cannot be read are found before the model is loaded
    engine = engine_named(engine_name).open(checkpoint, options)
    table = digests.hashed_by_first(lambda: open_table(data, _NEEDED, kept, whole=True))
    if processes.is_first():
        identity = _identity(engine.fingerprint, table.fingerprint(), engine_name, generation, engine.asked_in)
        identity |= {"dtype": f"torch.{engine.provenance()['dtype']}"}
        identity |= {"remarks": engine.remarks()} if engine.remarks() else {}
        _claim(out, identity, checkpoint=checkpoint, data=full_name(data), rows=len(table))
    processes.wait()
    shards = _shards(out, len(table))
    with shared_journal(out / "journal.sqlite") as journal:
        answering = Answering(engine, journal, progress)
        for number in range(processes.rank(), len(shards), processes.count()):
            path, first = shards[number]
            if not path.is_file():
                positions = range(first, min(first + ROWS_A_SHARD, len(table)))
                _write_shard(path, table, positions, answering, generation, f"Shard {number + 1} of {len(shards)}")
    processes.wait()
    report = _report(out, table)
    if processes.is_first():
        _write_readme(out, report)
    return report


def _identity(
    checkpoint_fingerprint: str, fingerprint_of_data: str, engine: str, generation: Generation, asked_in: str | None
) -> dict[str, Any]:
    return {
        "checkpoint_fingerprint": checkpoint_fingerprint,
        "data_fingerprint": fingerprint_of_data,
        "engine": engine,
        "generation": {"num_beams": generation.num_beams, "max_new_tokens": generation.max_new_tokens},
        **({"conversation": asked_in} if asked_in else {}),
    }


def _claim(out: Path, identity: dict[str, Any], **facts: Any) -> None:
    """Write into `out` what is built there, and refuse a folder with other content."""
    path = out / BUILD_NAME
    if path.is_file():
        there = files.read_json(path)
        for name, expected in identity.items():
            found = there.get(name, _OF_EARLY_BUILDS.get(name))
            if found != expected:
                raise NapoBenchError(
                    f"{out} holds another build: its {name} is {found}, {expected} is expected.",
                    "Give another --out, or delete that folder.",
                )
    elif any(out.glob("*.parquet")):
        raise NapoBenchError(f"{out} holds parquet files that are not of this command.", "Give another --out.")
    else:
        files.write_json(path, {**facts, **identity})


def _shards(out: Path, rows: int) -> list[tuple[Path, int]]:
    """The files of the result, each with the position of its first row."""
    starts = range(0, rows, ROWS_A_SHARD)
    return [(out / f"part-{number:05}-of-{len(starts):05}.parquet", first) for number, first in enumerate(starts)]


def _write_shard(
    path: Path, table: RowTable, positions: range, answering: Answering, generation: Generation, title: str
) -> None:
    questions = [table.text(position, "question") for position in positions]
    language = answering.answer(
        (Request(question or "", None, generation) for question in questions), len(questions), f"{title}, language"
    )
    there: list[bool] = []
    contents = [table.image_digest(position) for position in positions]
    known = answering.known_images(contents)

    def pictures() -> Iterator[Request]:
        for position, content in zip(positions, contents, strict=True):
            image = None if content in known else decoded(table.image(position))
            there.append(image is not None or content in known)
            if there[-1]:
                opened = partial(_opened, table, position, image)
                yield Request("", Picture(position, opened, content=content), generation)

    seen = iter(answering.answer(pictures(), len(questions), f"{title}, vision"))
    vision = [next(seen) if is_there else None for is_there in there]
    rows = table.part(positions.start, len(positions))
    biased = {"question_only": pa.array(language, pa.string()), "image_only": pa.array(vision, pa.string())}
    columns = {name: rows[name] for name in rows.column_names} | biased
    names = [name for name in COLUMNS if name in columns] + [name for name in columns if name not in COLUMNS]
    with files.atomic_path(path) as temporary:
        parquet.write_table(pa.table({name: columns[name] for name in names}), temporary)


def _opened(table: RowTable, position: int, image: Image.Image | None) -> Image.Image:
    return open_rgb(table.image(position)) if image is None else image


def _report(out: Path, table: RowTable) -> BiasReport:
    ids = table.names
    negatives: dict[str, list[str | None]] = {"question_only": [], "image_only": []}
    for path, _ in _shards(out, len(ids)):
        part = parquet.read_table(
            files.require_file(path, "Delete the folder and build again."), columns=list(negatives)
        )
        for name, texts in negatives.items():
            texts += part[name].to_pylist()
    empty = {
        name: [row_id for row_id, text in zip(ids, texts, strict=True) if text is not None and not text.strip()]
        for name, texts in negatives.items()
    }
    without = [row_id for row_id, text in zip(ids, negatives["image_only"], strict=True) if text is None]
    return BiasReport(len(ids), without, {name: rows for name, rows in empty.items() if rows})


def _write_readme(out: Path, report: BiasReport) -> None:
    build = files.read_json(out / BUILD_NAME)
    licence = licence_of(build["data"])
    how = ", ".join([build["dtype"].removeprefix("torch."), *build.get("remarks", [])])
    lines = [
        "# Preference rows with biased negatives",
        "",
        f"{report.rows} rows of `{build['data']}`, with two negatives that `{build['checkpoint']}` wrote:",
        "",
        "- `question_only`, language-biased: the answer to the question without the image",
        "- `image_only`, vision-biased: the answer to the image with an empty question",
        "",
        *([f"Asked in the conversation {build['conversation']}:"] if "conversation" in build else []),
        "{num_beams} beams, no sampling, at most {max_new_tokens} new tokens, no filtering,".format(
            **build["generation"]
        )
        + f" in {how}.",
        f"`{BUILD_NAME}` has the fingerprints of the checkpoint and of the rows.",
        *(["", f"Licence of the rows: {licence}."] if licence else []),
        *([""] + [f"- {note}" for note in report.notes] if report.notes else []),
        "",
        "Made by `napo-bench data build-bias`; train on it with `napo-bench train --data` and this folder.",
    ]
    files.write_text(out / _README, "\n".join(lines) + "\n")

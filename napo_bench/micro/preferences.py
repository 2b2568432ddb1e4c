"""Preference rows of the micro world in RLAIF-V's columns. Each row has its scene, so every answer can be checked."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError
from napo_bench.micro.benchmarks import FACTS_A_CONCEPT, HABITS, counterfacts
from napo_bench.micro.data import code_digest, world_version
from napo_bench.micro.draw import draw, png
from napo_bench.micro.language import Question, answers, understand
from napo_bench.micro.lessons import draw_questions
from napo_bench.micro.truth import is_right
from napo_bench.micro.world import COLORS, MAX_COUNT, PLACES, THINGS, Scene, build_scene, sample_scene

ROWS = 1500
_STAMP = b"napo_bench.micro"

ASKED: Mapping[str, float] = {
    "describe": 45,
    "color": 12,
    "companion": 12,
    "count": 8,
    "place": 8,
    "relation": 6,
    "comparison": 5,
    "look": 4,
}
"""Kind of question -> weight. As in RLAIF-V, all answers are sentences, and most answers are long."""


def write_preference_rows(out: Path, rows: int = ROWS, seed: int = 0) -> Path:
    """Write `out`, a parquet file with RLAIF-V's columns and one more, `scene` (JSON).

    Chosen is the truth. Rejected is wrong in a detail of the image, whatever is typical, so rejected is wrong and not
    biased. No row contains a fact that VLind-Bench asks about.

    Args:
        out: Path of the file.
        rows: Number of rows.
        seed: Seed of the draw; rows of different seeds share no scene.

    Returns:
        `out`.
    """
    table = pa.Table.from_pylist([preference_row(index, seed) for index in range(rows)])
    table = table.replace_schema_metadata({_STAMP: _version()})
    with files.atomic_path(out) as temporary:
        parquet.write_table(table, temporary)
    return out


def are_current(path: Path) -> bool:
    """Whether this version's `write_preference_rows` would write the rows of this file.

    Raises:
        NapoBenchError: the file is cut off, or is no parquet file.
    """
    try:
        metadata = parquet.read_schema(path).metadata or {}
    except pa.ArrowInvalid:
        raise NapoBenchError(
            f"{path} is not a parquet file, or it is cut off.", "Remove it; the same command draws it anew."
        ) from None
    return metadata.get(_STAMP) == _version()


def _version() -> bytes:
    return f"{world_version()}-{code_digest(Path(__file__))[:12]}".encode()


def preference_row(index: int, seed: int) -> dict[str, Any]:
    """One row of `write_preference_rows`."""
    rng = random.Random(f"preferences/{seed}/{index}")
    while _shows_a_fact_of_vlind(scene := sample_scene(rng, HABITS)):
        pass
    question = next(draw_questions(rng, scene, ASKED))
    wording = rng.choice((0, 0, 1))
    name = f"micro/{seed}-{index:06}.png"
    return {
        "question": question.text(),
        "chosen": _worded(answers(question, scene), wording),
        "rejected": _worded(_wrong_answers(rng, question, scene), wording),
        "image": {"bytes": png(draw(scene)), "path": name},
        "idx": index,
        "image_path": name,
        "origin_dataset": "micro",
        "origin_split": "train",
        "scene": scene.to_json(),
    }


def is_noise(question: str, answer: str, scene: str) -> bool:
    """Whether a negative is noise, that is, right by accident.

    Args:
        question: The row's prompt.
        answer: The negative.
        scene: The row's scene, in JSON.
    """
    return is_right(answer, understand(question), Scene.from_json(scene))


def _shows_a_fact_of_vlind(scene: Scene) -> bool:
    for group in scene.groups:
        shown = {"color": {group.color}, "companion": {g.thing for g in scene.groups}, "habitat": {scene.place}}
        if any(shown[concept].intersection(counterfacts(group.thing, concept)) for concept in FACTS_A_CONCEPT):
            return True
    return False


def _worded(wordings: tuple[str, ...], wording: int) -> str:
    return wordings[min(wording, len(wordings) - 1)]


def _wrong_answers(rng: random.Random, question: Question, scene: Scene) -> tuple[str, ...]:
    guess = answers(question, scene)
    while is_right(guess[0], question, scene):
        guess = answers(question, _mistaken(rng, question, scene))
    return guess


def _mistaken(rng: random.Random, question: Question, scene: Scene) -> Scene:
    """The scene with one of its features drawn again, typical or not. Objects that the question names stay in the
    scene.
    """
    kinds: list[tuple[str, str | None, int | None]] = [(g.thing, g.color, len(g.cells)) for g in scene.groups]
    index = rng.randrange(len(kinds))
    name, color, count = kinds[index]
    absent = rng.choice([thing for thing in THINGS if scene.group(thing) is None])
    place = scene.place
    match rng.choice(("one more", "kind", "color", "counts", "place", "cells and sides")):
        case "one more":
            kinds.append((absent, rng.choice(COLORS), rng.randint(1, MAX_COUNT)))
        case "kind" if name not in (question.thing, question.other):
            kinds[index] = absent, color, count
        case "color":
            kinds[index] = name, rng.choice(COLORS), count
        case "counts":
            kinds = [(name, color, rng.randint(1, MAX_COUNT)) for name, color, _ in kinds]
        case "place":
            place = rng.choice(PLACES)
    return build_scene(rng, place, kinds)

"""MMHal-Bench against its evaluator, whose output scripts/replay_mmhal.py stored in mmhal_replay.json."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from replay_mmhal import QUESTIONS, REPLIES, answers, replies, runs

from napo_bench.benchmarks.mmhal import METRICS
from napo_bench.benchmarks.mmhal.data import Mmhal
from napo_bench.benchmarks.mmhal.score import parse_rating, question_counts
from napo_bench.runs.score import ScoreOptions, score

REPLAY = json.loads((Path(__file__).parent / "mmhal_replay.json").read_text())


@pytest.fixture
def folder(shared: Any, tmp_path: Path) -> Path:
    """A data folder with the published files."""
    (tmp_path / "mmhal").mkdir()
    shutil.copy(shared("reference/mmhal/mmhal-bench_answer_template.json"), tmp_path / "mmhal" / "template.json")
    shutil.copy(shared("reference/mmhal/judge_template.txt"), tmp_path / "mmhal")
    return tmp_path


def test_200_odd_replies_are_rated_as_the_authors_rate_them() -> None:
    assert len(replies()) == len(REPLAY["ratings"]) == REPLIES == 200
    assert set(REPLAY["ratings"]) == {None, *range(7)}
    found = {reply: parse_rating(reply) for reply in replies()}
    assert found == dict(zip(replies(), REPLAY["ratings"], strict=True))


@pytest.mark.parametrize("name", list(REPLAY["runs"]))
def test_every_number_of_a_run_is_that_of_the_authors(name: str) -> None:
    counts = [question_counts(parse_rating(reply)) for reply in runs()[name]]
    assert len(counts) == QUESTIONS

    def of(rows: list[dict[str, float]], metric: str) -> float:
        sums: Counter[str] = Counter()
        for row in rows:
            sums.update(row)  # type: ignore[arg-type]
        (found,) = (one for one in METRICS if one.name == metric)
        return float(found.function(sums))

    expected = REPLAY["runs"][name]
    for metric in ("score", "hal_rate", "informativeness"):
        assert f"{of(counts, metric):.2f}" == f"{expected[metric]:.2f}", metric
    assert [round(of(counts[kind::8], "score"), 2) for kind in range(8)] == expected["types"]


def test_stored_replies_have_the_numbers_of_the_authors_and_the_types_in_their_order(folder: Path) -> None:
    name = "four without a rating"
    reply = {"model": "gpt-4-0314", "reported_model": "gpt-4-0314", "prompt_tokens": 1, "completion_tokens": 1}
    template = json.loads((folder / "mmhal" / "template.json").read_text())
    rows = [
        {
            "image_id": row["image_id"],
            "prompt": row["question"],
            "response": "It is.",
            "judge_reply": {**reply, "text": text},
        }
        for row, text in zip(template, runs()[name], strict=True)
    ]
    result = score("mmhal", rows[::-1], folder, ScoreOptions())
    expected = REPLAY["runs"][name]
    assert f"{result.metrics['score'].value:.2f}" == f"{expected['score']:.2f}"
    assert f"{result.metrics['hal_rate'].value:.2f}" == f"{expected['hal_rate']:.2f}"
    by_type = [round(metrics["score"].value, 2) for metrics in result.breakdown.values()]
    assert by_type == expected["types"]
    assert next(iter(result.breakdown)) == "question_type/attribute"


def test_an_answer_fills_the_template_as_the_authors_fill_it(folder: Path) -> None:
    question = next(iter(Mmhal(folder / "mmhal").known.values()))
    filled = [question.response_row(text)["model_answer"] for text in answers()]
    assert filled == REPLAY["answers"]

"""VLind-Bench against the authors' scorer, whose results scripts/replay_vlind.py stored in vlind_replay.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from replay_vlind import STYLES, answer, good, instances, odd_answers

from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.vlind.data import Vlind
from napo_bench.benchmarks.vlind.score import parse_answer
from napo_bench.runs.score import ScoreOptions, score

REPLAY = json.loads((Path(__file__).parent / "vlind_replay.json").read_text())


def test_300_odd_answers_are_read_as_the_authors_read_them() -> None:
    assert len(odd_answers()) == len(REPLAY["answers"]) == 300
    assert set(REPLAY["answers"]) == {"True", "False", "NA"}
    assert {text: parse_answer(text) for text in odd_answers()} == dict(
        zip(odd_answers(), REPLAY["answers"], strict=True)
    )


def responses(rule: str) -> list[dict[str, Any]]:
    """The made-up answer to every question, in our format, with the image of VP and CB by a rule."""
    rows = []
    for row in instances():
        votes = row["aggregated_human_label_good_images"]
        best = (
            row["best_img_id"] if rule == "best_img_id" else next(i for i in votes if votes[i] == max(votes.values()))
        )
        for test, images in (("ck", ["0"]), ("vp", [best]), ("cb", [best]), ("lp", good(row))):
            for image in images if good(row) else []:
                for statement in (1, 2):
                    text = answer(row["concept"], row["context_id"], test, statement, image)
                    key = {"concept": row["concept"], "context_id": row["context_id"], "image_id": image}
                    rows.append({**key, "test": test, "statement": statement, "text": text})
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vlind-replay")
    (folder / "vlind").mkdir()
    (folder / "vlind" / "data.json").write_text(json.dumps(instances()))
    return folder


@pytest.fixture(scope="module")
def result(folder: Path) -> BenchmarkResult:
    return score("vlind", responses("best_img_id"), folder, ScoreOptions())


@pytest.mark.parametrize("style", STYLES)
def test_every_denominator_is_that_of_the_authors(result: BenchmarkResult, style: str) -> None:
    found = result.metrics if style == "all" else result.breakdown[f"style/{style}"]
    stored = REPLAY["scores"][style]["total"]
    assert {name: metric.value / 100 for name, metric in found.items()} == pytest.approx(stored, abs=1e-12)
    assert 0 < stored["lp"] < 1 and 0 < stored["cb"] < 1


def test_a_concept_that_never_passes_ck_has_cb_and_lp_of_0_as_the_authors_have(result: BenchmarkResult) -> None:
    stored = {f"concept/{name}": numbers for name, numbers in REPLAY["scores"]["all"].items() if name != "total"}
    for group, numbers in stored.items():
        found = {name: metric.value / 100 for name, metric in result.breakdown[group].items()}
        assert found == pytest.approx(numbers, abs=1e-12), group
    assert stored["concept/history"]["ck"] == stored["concept/history"]["cb"] == stored["concept/history"]["lp"] == 0
    assert stored["concept/history"]["cb_accuracy"] > 0


def test_instances_without_a_good_image_are_in_no_denominator(result: BenchmarkResult) -> None:
    assert result.metrics["ck"].n == sum(bool(good(row)) for row in instances()) < len(instances())


class TestMostVotes:
    """The image of VP and CB as NaPO's script chooses it: sorted by votes, the first of the file among equals."""

    def test_the_profile_paper_asks_about_the_image_with_the_most_votes(self, folder: Path) -> None:
        def shown(profile: str) -> dict[tuple[str, str], set[str]]:
            found: dict[tuple[str, str], set[str]] = {}
            for unit in Vlind(folder / "vlind").under(profile).units("vlind"):
                for question in unit:
                    if question.key.test in ("vp", "cb"):  # type: ignore[attr-defined]
                        concept, context, _, _, image = question.key  # type: ignore[misc]
                        found.setdefault((concept, context), set()).add(image)
            return found

        kept = [row for row in instances() if good(row)]
        votes = [row["aggregated_human_label_good_images"] for row in kept]
        ranked = [sorted(of_row.items(), key=lambda pair: pair[1], reverse=True)[0][0] for of_row in votes]
        keys = [(row["concept"], str(row["context_id"])) for row in kept]
        assert shown("paper") == {key: {best} for key, best in zip(keys, ranked, strict=True)}
        assert shown("greedy") == {key: {row["best_img_id"]} for key, row in zip(keys, kept, strict=True)}
        assert shown("paper") != shown("greedy")

    def test_stored_answers_are_scored_under_the_rule_that_they_were_asked_by(
        self, folder: Path, result: BenchmarkResult
    ) -> None:
        voted = score("vlind", responses("most votes"), folder, ScoreOptions())
        assert voted.complete
        assert (result.settings.get("best_image"), voted.settings["best_image"]) == (None, "most votes")
        for name in ("ck", "lp_accuracy"):
            assert voted.metrics[name].value == result.metrics[name].value
        assert voted.metrics["vp"].value != result.metrics["vp"].value

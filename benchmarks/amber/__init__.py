"""AMBER: CHAIR, Cover, Hal and Cog of descriptions, accuracy and F1 of yes/no questions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo_bench.benchmarks.amber.score import READINGS, accuracy, f1, hal, precision, rate, recall
from napo_bench.benchmarks.benchmark import Benchmark, Metric, Task
from napo_bench.benchmarks.reading import Caption, Choice, Reading
from napo_bench.benchmarks.view import Sample, View, plain_fields
from napo_bench.data.sources import WebArchive, WebFile

if TYPE_CHECKING:
    from napo_bench.benchmarks.amber.data import Amber
    from napo_bench.benchmarks.question import Answers, BenchmarkData
    from napo_bench.benchmarks.result import BenchmarkResult
    from napo_bench.benchmarks.scoring import ScoreOptions

_AMBER = "https://raw.githubusercontent.com/junyangwang0410/AMBER/5e1fd52f8ea69150c70f0ba15de70af3a907a1fd/data"
DESCRIPTION_METRICS = (
    Metric("chair", "CHAIR", "lower", rate("hallucinated", "mentions"), "responses", in_table=True),
    Metric("cover", "Cover", "higher", rate("covered", "truth_words"), "responses", in_table=True),
    Metric("hal", "HalRate", "lower", hal, "responses", in_table=True, pass_fail=True, decides=True),
    Metric("cog", "Cog", "lower", rate("hit", "hallu_words"), "responses", in_table=True),
)
ANSWER_METRICS = (
    Metric("accuracy", "Accuracy", "higher", accuracy("all"), "all_questions", pass_fail=True, decides=True),
    Metric("precision", "Precision", "higher", precision("all"), "all_questions"),
    Metric("recall", "Recall", "higher", recall("all"), "all_questions"),
    Metric("f1", "F1", "higher", f1("all"), "all_questions"),
    Metric("existence_f1", "Existence F1", "higher", f1("existence"), "existence_questions"),
    Metric("attribute_f1", "Attribute F1", "higher", f1("attribute"), "attribute_questions"),
    Metric("relation_f1", "Relation F1", "higher", f1("relation"), "relation_questions"),
)

SOURCES = (
    WebFile(
        "amber/annotations.json",
        f"{_AMBER}/annotations.json",
        "db22a436c4836fbb295e60b4e80d519573077579fb7032f01b193c1bd022b797",
        licence="Apache-2.0",
    ),
    WebFile(
        "amber/relation.json",
        f"{_AMBER}/relation.json",
        "c4c1491e9bbc3209abc1888c12a1bf8413bdbab8a0d8be04b990a2e7680cf23e",
        licence="Apache-2.0",
    ),
    WebFile(
        "amber/safe_words.txt",
        f"{_AMBER}/safe_words.txt",
        "f92cf1123f4578a2630832fac3e6ac4de36212ea55859d3bed4fd233723f4043",
        licence="Apache-2.0",
    ),
    WebFile(
        "amber/query_generative.json",
        f"{_AMBER}/query/query_generative.json",
        "b7e4c36596126ee36d2c3922638b7fa98743c26efda78fea2315f4425258d087",
        licence="Apache-2.0",
    ),
    WebFile(
        "amber/query_discriminative.json",
        f"{_AMBER}/query/query_discriminative.json",
        "1502887ac020f4bb7ea564af4e37bddcb030d61b78490d00f9da492a2307abb8",
        licence="Apache-2.0",
    ),
    WebArchive(
        "amber/images",
        "https://drive.usercontent.google.com/download?id=1MaCHgtupcZUjf007anNl4_MV0o4DjXvl&export=download&confirm=t",
        "images.zip",
        r"AMBER_\d+\.jpg",
        1004,
        "https://drive.google.com/file/d/1MaCHgtupcZUjf007anNl4_MV0o4DjXvl",
        licence="Apache-2.0",
    ),
)


def _open(folder: Path) -> BenchmarkData:
    from napo_bench.benchmarks.amber.data import Amber

    return Amber(folder)


def _score(data: Amber, answers: Answers, options: ScoreOptions) -> BenchmarkResult:
    from napo_bench.benchmarks.amber.result import score_amber

    return score_amber(data, answers, options)


def _measured(settings: Mapping[str, Any]) -> str:
    return "Over nouns of AMBER's own word list: its CHAIR is not the CHAIR over COCO's objects."


def _show(sample: Sample) -> View:
    return View(**plain_fields(sample), group=str(sample.get("type", "")), facts=sample.get("truth"))


def _readings(sample: Sample, settings: Mapping[str, Any]) -> list[Reading]:
    """A yes/no answer as the run's setting `answers` reads it, or a description."""
    text = str(sample["response"])
    if sample["unit"] == "question":
        given = {"Yes": True, "No": False}.get(READINGS[settings.get("answers", "exact")](text))
        return [Reading.of(sample, text, choice=Choice(sample["expected"] == "Yes", given))]
    return [Reading.of(sample, text, caption=Caption.of(sample, sample["counts"]["truth_words"]))]


BENCHMARK = Benchmark(
    name="amber",
    label="AMBER",
    about="CHAIR, Cover, Hal, Cog; accuracy and F1 of the discriminative questions.",
    rows=(
        "RESPONSES is a JSON list of {id, response}. Each half is complete on its own. The spaCy model is "
        "en_core_web_lg if none is given."
    ),
    metrics=(*DESCRIPTION_METRICS, *ANSWER_METRICS),
    tasks=(
        Task("amber", tuple(metric.name for metric in DESCRIPTION_METRICS), is_default=True),
        Task(
            "amber_discriminative",
            tuple(metric.name for metric in ANSWER_METRICS),
            typical_units=10_000,
        ),
    ),
    open=_open,
    score=_score,
    text_fields=("response",),
    responses="json",
    sources=SOURCES,
    data_files=(
        "annotations.json",
        "relation.json",
        "safe_words.txt",
        "query_generative.json",
        "query_discriminative.json",
    ),
    needs=frozenset({"words", "yes_no"}),
    spacy_models={"words": "en_core_web_lg"},
    measured=_measured,
    show=_show,
    readings=_readings,
    right_if="a description names nothing that is not in the image, and a question is answered as expected",
    place=3,
)

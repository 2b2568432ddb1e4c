"""VLind-Bench: does a model look at a counterfactual image, or answer from a language prior?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo_bench.benchmarks.benchmark import Benchmark, Metric, Task
from napo_bench.benchmarks.reading import Choice, Reading
from napo_bench.benchmarks.view import Bar, BarChart, Part, Sample, Thoughts, View, plain_fields
from napo_bench.benchmarks.vlind.score import parse_answer, percent
from napo_bench.data.sources import HubFolder

if TYPE_CHECKING:
    from napo_bench.benchmarks.question import Answers, BenchmarkData
    from napo_bench.benchmarks.result import BenchmarkResult
    from napo_bench.benchmarks.scoring import ScoreOptions
    from napo_bench.benchmarks.vlind.data import Vlind


TESTS = {
    "ck": "Commonsense knowledge (CK)",
    "vp": "Visual perception (VP)",
    "cb": "Commonsense bias (CB)",
    "lp": "Language prior (LP)",
}
METRICS = (
    Metric("ck", "CK", "higher", percent("ck", "instances"), "instances", pass_fail=True),
    Metric("vp", "VP", "higher", percent("vp", "instances"), "instances", pass_fail=True),
    Metric("cb", "CB", "higher", percent("ck_and_cb", "ck"), "ck", in_table=True),
    Metric("lp", "LP", "higher", percent("lp_share", "lp_eligible"), "lp_eligible", in_table=True),
    Metric("cb_accuracy", "CB accuracy", "higher", percent("cb", "instances"), "instances", pass_fail=True),
    Metric("lp_accuracy", "LP accuracy", "higher", percent("lp", "instances"), "instances", decides=True),
)


def _missing(folder: Path) -> list[Path]:
    """The images that data.json names and the folder lacks; data.json itself if it cannot be read."""
    from napo_bench.benchmarks.vlind.official import load_instances
    from napo_bench.core.errors import NapoBenchError
    from napo_bench.core.files import is_whole

    try:
        instances = load_instances(folder)
    except NapoBenchError:
        return [folder / "data.json"]
    named = [picture for one in instances for picture in (one.factual, *one.counterfactual.values())]
    return [picture.path for picture in named if not is_whole(picture.path)]


SOURCES = (
    HubFolder(
        "vlind",
        "klee972/VLind-Bench",
        "main",
        "VLind-Bench Dataset",
        (("data.json", 1), ("images/factual/*/*/*.jpg", 1), ("images/counterfactual/*/*/*.jpg", 1)),
        missing=_missing,
        licence="CC-BY-SA-4.0",
    ),
)


def _open(folder: Path) -> BenchmarkData:
    from napo_bench.benchmarks.vlind.data import Vlind

    return Vlind(folder)


def _score(data: Vlind, answers: Answers, options: ScoreOptions) -> BenchmarkResult:
    from napo_bench.benchmarks.vlind.result import score_vlind

    return score_vlind(data, answers, options)


def _show(sample: Sample) -> View:
    parts = [
        Part(
            key=f"{response['test']}/{response['image_id']}/{response['statement']}",
            section=f"{response['test']}/{response['image_id']}",
            title=_title(str(response["test"]), str(response["image_id"])),
            image=str(response["image"]),
            prompt=str(response["prompt"]),
            expected=str(response["expected"]),
            text=response["text"],
            right=response["correct"],
            thoughts=Thoughts.of(response),
        )
        for response in sample["responses"]
    ]
    return View(**plain_fields(sample), group=str(sample.get("concept", "")), parts=parts, decider="LP")


def _readings(sample: Sample, settings: Mapping[str, Any]) -> list[Reading]:
    said = {"True": True, "False": False}
    return [
        Reading.of(
            response,
            response["text"],
            key=f"{response['test']}/{response['image_id']}/{response['statement']}",
            choice=Choice(response["expected"] == "True", said.get(parse_answer(response["text"]))),
        )
        for response in sample["responses"]
    ]


def _title(test: str, image: str) -> str:
    return TESTS.get(test, test) + (f", image {image}" if test == "lp" else "")


def _funnel(result: BenchmarkResult) -> dict[str, Bar]:
    if not result.samples:
        return {}
    counts = [sample["counts"] for sample in result.samples]
    left = [[row["ck"], row["ck"] * row["vp"], row["lp_eligible"], row["lp_share"]] for row in counts]
    means = [100 * sum(column) / len(left) for column in zip(*left, strict=True)]
    return {stage: Bar(mean) for stage, mean in zip(("CK", "VP", "CB", "LP"), means, strict=True)}


BENCHMARK = Benchmark(
    name="vlind",
    label="VLind-Bench",
    about="CK, VP, CB and LP, by concept and by image style.",
    rows=(
        "RESPONSES is JSON lines of {context_id, concept, test, statement, image_id, text}; statement 1 must be True."
    ),
    metrics=METRICS,
    tasks=(
        Task(
            "vlind",
            tuple(metric.name for metric in METRICS),
            max_new_tokens=64,
            profiles={"paper": {"num_beams": 3}},  # NaPO draws no answers here
            is_default=True,
            typical_units=300,
            questions_a_unit=14,
        ),
    ),
    open=_open,
    score=_score,
    text_fields=("text",),
    sources=SOURCES,
    data_files=("data.json", "*.parquet", "*.jsonl"),
    show=_show,
    readings=_readings,
    right_if="the LP statements are answered right on every good image",
    thumbnail=160,  # a dozen images are shown side by side
    charts=(
        BarChart(
            "vlind-funnel",
            "VLind-Bench: where instances fail",
            "Share of instances that pass each test and all before it; LP counts the share of its good images.",
            "% of instances still in",
            108,
            _funnel,
        ),
    ),
    place=1,
)

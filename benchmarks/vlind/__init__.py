"""VLind-Bench: does a model look at a counterfactual image, or answer from a language prior?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napo_bench.benchmarks.benchmark import Benchmark, Metric, Task
from napo_bench.benchmarks.vlind.score import percent
from napo_bench.data.sources import HubFolder

if TYPE_CHECKING:
    from napo_bench.benchmarks.question import Answers, BenchmarkData
    from napo_bench.benchmarks.result import BenchmarkResult
    from napo_bench.benchmarks.scoring import ScoreOptions
    from napo_bench.benchmarks.vlind.data import Vlind


METRICS = (
    Metric("ck", "CK", "higher", percent("ck", "instances"), "instances", pass_fail=True),
    Metric("vp", "VP", "higher", percent("vp", "instances"), "instances", pass_fail=True),
    Metric("cb", "CB", "higher", percent("ck_and_cb", "ck"), "ck", in_table=True),
    Metric("lp", "LP", "higher", percent("lp_share", "lp_eligible"), "lp_eligible", in_table=True),
    Metric("cb_accuracy", "CB accuracy", "higher", percent("cb", "instances"), "instances", pass_fail=True),
    Metric("lp_accuracy", "LP accuracy", "higher", percent("lp", "instances"), "instances", decides=True),
)

SOURCES = (
    HubFolder(
        "vlind",
        "klee972/VLind-Bench",
        "main",
        "VLind-Bench Dataset",
        (("data.json", 1), ("images/factual/*/*/*.jpg", 1), ("images/counterfactual/*/*/*.jpg", 1)),
        instead="*.parquet",
    ),
)


def _open(folder: Path) -> BenchmarkData:
    from napo_bench.benchmarks.vlind.data import Vlind

    return Vlind(folder)


def _score(data: Vlind, answers: Answers, options: ScoreOptions) -> BenchmarkResult:
    from napo_bench.benchmarks.vlind.result import score_vlind

    return score_vlind(data, answers, options)


BENCHMARK = Benchmark(
    name="vlind",
    label="VLind-Bench",
    about="CK, VP, CB and LP, by concept and by picture style.",
    rows=(
        "RESPONSES is JSON lines of {context_id, concept, test, statement, image_id, text}; statement 1 must be True."
    ),
    metrics=METRICS,
    tasks=(
        Task(
            "vlind",
            tuple(metric.name for metric in METRICS),
            max_new_tokens=64,
            profiles={"greedy": {}, "paper": {}},
            typical_units=300,
            questions_a_unit=14,
        ),
    ),
    open=_open,
    score=_score,
    text_fields=("text",),
    sources=SOURCES,
    data_files=("data.json", "*.parquet", "*.jsonl"),
    place=1,
)

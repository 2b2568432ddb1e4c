"""The benchmarks as lmms-eval tasks: `benchmarks/*/napo_*.yaml` name this class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from lmms_eval.api.instance import Instance
from lmms_eval.api.task import ConfigurableTask
from loguru import logger
from PIL import Image

from napo_bench.benchmarks import all_tasks
from napo_bench.benchmarks.question import Question
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.core import caches
from napo_bench.core.paths import data_dir as resolve_data_dir
from napo_bench.engines.answer import ModelAnswer
from napo_bench.runs import score as scoring
from napo_bench.runs.score import Row, ScoreOptions

_SPLIT = "test"
_PICTURES_KEPT = 16
_opened: dict[tuple[Path, str, int], Image.Image] = {}


class BenchmarkTask(ConfigurableTask):  # type: ignore[misc]
    """One benchmark, read from the data folder in its official layout.

    A doc is a sampling unit: an instance with all its questions for VLind-Bench, else a question. The model's answers
    become rows of the official response format; under plain `lmms-eval` `napo_bench.runs.score` scores them if all are
    there, so both print the same numbers.

    Args:
        config: Content of the YAML file. Beside lmms-eval's own keys it has `member` (name of the task in a suite) and
            may have `scoring` (fields of ScoreOptions for plain `lmms-eval`).
        data_dir: Folder with one folder for each benchmark; None is NAPO_BENCH_DATA, else the user's cache folder.

    Raises:
        NapoBenchError: data is missing or malformed.
    """

    rows_key = "rows"
    """Key of the response rows in a sample of lmms-eval's `predict_only` mode."""

    def __init__(self, config: dict[str, Any], data_dir: Path | None = None) -> None:
        settings = dict(config)
        settings.pop("class")
        self.scored, self.part = all_tasks()[settings.pop("member")]
        self.benchmark = self.scored.name
        self._scoring: dict[str, Any] = settings.pop("scoring", {})
        self._data_dir = caches.hold(resolve_data_dir(data_dir))
        self.data = self.scored.open(self._data_dir / self.benchmark)
        self._units = self.data.units(self.part.name)
        self.data.require_inside(question for unit in self._units for question in unit)
        self._result: tuple[list[Row], BenchmarkResult] | None = None
        super().__init__(
            config={
                "output_type": "generate_until",
                "reasoning_tags": "none",  # the task separates thoughts
                "generation_kwargs": self.part.generation("greedy"),
                "metric_list": [{"metric": name} for name in self.part.metrics],
                "metadata": {"version": 1.0},
                **settings,
                "test_split": _SPLIT,
            }
        )

    def download(self, dataset_kwargs: Mapping[str, Any] | None = None) -> None:
        """Nothing is fetched: docs are indices of units, and images are read when they are needed."""
        self.dataset = {_SPLIT: datasets.Dataset.from_dict({"unit": list(range(len(self._units)))})}
        self.dataset_no_image = self.dataset

    def _prepare_metric_and_aggregation(self) -> None:
        names = [entry["metric"] for entry in self.config.metric_list]
        self._metric_fn_list = dict.fromkeys(names)
        self._aggregation_list = {name: partial(self._metric, name) for name in names}
        self._higher_is_better = {
            metric.name: metric.better == "higher"
            for metric in self.scored.metrics
            if metric.name in names and metric.better is not None
        }

    def override_metric(self, metric_name: str) -> None:
        """lmms-eval's `predict_only`: responses are gathered and not scored."""
        self._metric_fn_list = {self.rows_key: None}
        self._aggregation_list = {}
        self._higher_is_better = {}

    def doc_to_text(self, doc: Mapping[str, Any]) -> str:
        """The first prompt of a unit."""
        prompt: str = self._units[doc["unit"]][0].prompt
        return prompt

    def doc_to_target(self, doc: Mapping[str, Any]) -> str:
        """Nothing: the truth is the scorer's."""
        return ""

    def construct_requests(self, doc_id: int, ctx: str, metadata: dict[str, Any], **_: Any) -> list[Instance]:
        """One request for each question of a unit."""
        return [
            Instance(
                request_type="generate_until",
                arguments=(
                    question.prompt,
                    dict(self.config.generation_kwargs),
                    partial(_pictures, question),
                    doc_id,
                    self.config.task,
                    _SPLIT,
                ),
                idx=index,
                metadata=metadata,
            )
            for index, question in enumerate(self._units[doc_id])
        ]

    def process_results(
        self, doc: Mapping[str, Any], results: Sequence[str], full_docs: Any = None
    ) -> dict[str, list[Row]]:
        """The official response rows of a unit, under each metric that will be computed from them."""
        questions = self._units[doc["unit"]]
        rows = [_row(question, text) for question, text in zip(questions, results, strict=True)]
        return dict.fromkeys(self._metric_fn_list, rows)

    def _metric(self, name: str, units: Sequence[list[Row]]) -> float:
        rows = [row for unit in units for row in unit]
        if self._result is None or self._result[0] != rows:
            self._result = (rows, self._score(rows))
        value = self._result[1].metrics.get(name)
        return float("nan") if value is None else value.value

    def _score(self, rows: list[Row]) -> BenchmarkResult:
        from napo_bench.engines.judge_options import JudgeOptions, configured_judges, judge_journal

        judges = configured_judges(JudgeOptions(), judge_journal())
        options = {"allow_partial": True, "answers": "lenient", "judges": judges, **self._scoring}
        result = scoring.score(self.benchmark, rows, self._data_dir, ScoreOptions(**options))
        for note in [*result.doubts, *result.notes]:
            logger.warning(f"{self.config.task}: {note}")
        return result


def _row(question: Question, text: str) -> Row:
    """The response row of an answer. For a model that is not napo-bench's, this function separates the thoughts."""
    answer = text if isinstance(text, ModelAnswer) else ModelAnswer.of(text)
    return question.response_row(answer.strip()) | answer.beside()


def _pictures(question: Question, doc: Mapping[str, Any]) -> list[Image.Image]:
    """The image of a question. Consecutive questions about one file get the same object."""
    key = (question.file, question.place, question.file.stat().st_mtime_ns)
    if key not in _opened:
        picture = question.open_picture()
        if len(_opened) == _PICTURES_KEPT:
            _opened.clear()
        _opened[key] = picture
    return [_opened[key]]

"""Benchmark: everything that the rest of the project knows about a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from napo_bench.benchmarks.rated import Rated
from napo_bench.benchmarks.reading import Reading, plain_readings
from napo_bench.benchmarks.view import BarChart, Sample, View, plain_view
from napo_bench.core.errors import NapoBenchError, unknown_name
from napo_bench.core.names import require_name

if TYPE_CHECKING:
    from napo_bench.benchmarks.question import Answers, BenchmarkData
    from napo_bench.benchmarks.result import BenchmarkResult
    from napo_bench.benchmarks.scoring import ScoreOptions
    from napo_bench.core.stats import MetricFunction, Span
    from napo_bench.data.sources import Source
    from napo_bench.engines.judge import Judge

Better = Literal["higher", "lower"]
Need = Literal["judge", "extractor", "words", "yes_no"]

LAST = 1000
"""Place of a benchmark without a place of its own."""


@dataclass(frozen=True)
class Profile:
    """How a run generates answers.

    Attributes:
        generation: Settings that the profile adds to a task's generation settings.
        half: Number type on CUDA, if the user names none.
    """

    generation: Mapping[str, Any] = field(default_factory=dict)
    half: str = "bfloat16"


_BEAMS = {"num_beams": 3}
PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "greedy": Profile(),
        # NaPO's script sets no top-k, and its library's default is 50.
        "paper": Profile({**_BEAMS, "do_sample": True, "temperature": 0.2, "top_k": 50}, half="float16"),
        "rlaif-v": Profile(_BEAMS, half="float16"),
    }
)
"""Name of a generation profile -> the profile. `paper` is NaPO's evaluation, `rlaif-v` is RLAIF-V's."""


@dataclass(frozen=True)
class Metric:
    """One metric of a benchmark.

    Attributes:
        name: Name in a run: "cb".
        label: Label in the paper.
        better: Better direction; None if the metric has no better direction.
        function: Function of the summed counts of samples. It also takes arrays of sums, which is how intervals and
            paired tests are computed.
        count: Count whose sum is the metric's n.
        high: Highest value; None if the metric has no limit. The lowest value is 0.
        unit: "%" or "".
        decimals: Digits after the point, as published.
        in_table: Whether the metric is a column of Table 1.
        pass_fail: Whether each sample passes or fails, and the metric is the share of one outcome.
        decides: Whether a sample counts as right or wrong by this metric alone.
        tex: Label in LaTeX; "" is the label itself.
        benchmark: Name of the benchmark, which `Benchmark` fills in.

    Raises:
        NapoBenchError: an attribute has a value that no metric can have.
    """

    name: str
    label: str
    better: Better | None
    function: MetricFunction
    count: str
    high: float | None = 100.0
    unit: str = "%"
    decimals: int = 1
    in_table: bool = False
    pass_fail: bool = False
    decides: bool = False
    tex: str = ""
    benchmark: str = ""

    def __post_init__(self) -> None:
        require_name("metric", self.name)
        where = f"The metric {self.name!r}"
        if self.better not in (*get_args(Better), None):
            raise NapoBenchError(f"{where}: better is {self.better!r}; 'higher', 'lower' or None is expected.")
        _require_functions(where, self, "function")
        if not isinstance(self.count, str) or not self.count:
            raise NapoBenchError(f"{where}: count is {self.count!r}; the name of a count is expected.")
        if (self.pass_fail or self.decides) and (self.better is None or self.high is None):
            raise NapoBenchError(f"{where} decides whether a sample passes, and needs a better direction and a limit.")
        if self.high is not None and not self.high > 0:
            raise NapoBenchError(f"{where}: high is {self.high!r}; a number above 0, or None, is expected.")
        if not isinstance(self.decimals, int) or self.decimals < 0:
            raise NapoBenchError(f"{where}: decimals is {self.decimals!r}; a whole number from 0 is expected.")

    @property
    def key(self) -> str:
        """Benchmark and name: "vlind.cb"."""
        return f"{self.benchmark}.{self.name}"

    @property
    def arrow(self) -> str:
        """The better direction as an arrow."""
        return {"higher": "↑", "lower": "↓", None: ""}[self.better]

    def span(self, n: float) -> Span | None:
        """The metric's range over n samples, for `stats.bootstrap_intervals`; None if the metric has no limit."""
        from napo_bench.core.stats import Span

        return None if self.high is None else Span(0.0, self.high, n)

    def format(self, value: float) -> str:
        """The value with the published number of digits."""
        return f"{value:.{self.decimals}f}"


@dataclass(frozen=True, eq=False)
class Task:
    """A part of a benchmark that can be evaluated alone.

    Attributes:
        name: Name in a suite.
        metrics: Names of the metrics that the answers give.
        max_new_tokens: Maximum length of an answer in tokens.
        profiles: Generation profile -> settings that take the place of those of the profile in PROFILES.
        is_default: Whether the default suite, which is the paper's, contains the task.
        typical_units: Number of units in the published data, for estimates of time.
        questions_a_unit: Mean number of questions in a unit, for the same estimates.

    Raises:
        NapoBenchError: an attribute has a value that no task can have.
    """

    name: str
    metrics: tuple[str, ...]
    max_new_tokens: int = 1024
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_default: bool = False
    typical_units: int = 1000
    questions_a_unit: int = 1

    def __post_init__(self) -> None:
        require_name("task", self.name)
        where = f"The task {self.name!r}"
        _require_names(where, "metrics", self.metrics)
        if not isinstance(self.max_new_tokens, int) or self.max_new_tokens < 1:
            raise NapoBenchError(f"{where}: max_new_tokens is {self.max_new_tokens!r}; a number from 1 is expected.")
        _require_known(where, "profile", self.profiles, PROFILES)

    def generation(self, profile: str) -> dict[str, Any]:
        """The generation settings of a profile."""
        added = self.profiles.get(profile, PROFILES[profile].generation)
        return {"max_new_tokens": self.max_new_tokens, "until": [], **added}


NOT_STATED = "not stated"
"""Value of a setting of published numbers whose authors do not say the setting."""


def one_way(settings: Mapping[str, Any]) -> str:
    """`Benchmark.measured` of a benchmark whose numbers are all measured in one way: no sentence."""
    return ""


@dataclass(frozen=True, eq=False)
class Benchmark:
    """One benchmark.

    Attributes:
        name: Name in runs and in entry points, and of the folder in the data folder.
        label: Name in tables and texts.
        about: Sentence about what the benchmark measures.
        rows: Content of a file of responses, for the help of `napo-bench score`.
        metrics: Metrics, in the order in which they are printed.
        tasks: Tasks for a model.
        open: Data folder -> its data, which is read when it is needed.
        score: What `open` returns, answers, options -> result. Raises NapoBenchError if data is missing or malformed.
        text_fields: Fields of a response row that may contain the answer. The first existing field is used.
        responses: Format of a file of response rows.
        sources: Sources of the published data.
        data_files: Globs below the benchmark's data folder of the files that can change a number, except images.
        needs: Needs of scoring other than data. "judge": an LLM that rates answers. "extractor": an LLM that may list
            the objects of answers. "words": a text pipeline. "yes_no": a reading of yes/no answers.
        spacy_models: Need -> spaCy model that the benchmark prescribes for the need.
        try_judge: Lets a judge rate an answer before answers are generated; takes the judge and what `open` returns.
            Raises NapoBenchError if the judge does not work.
        measured: Settings of a result -> sentence about how its numbers were measured; "" if the settings do not say.
            Numbers with different sentences are not comparable.
        show: Sample -> how the explorer shows it.
        readings: Sample, settings of the result -> the answers of the sample, for the panel of a report.
        rated: How its raters are compared and mapped; None for a benchmark that no judge and no extractor reads.
        right_if: When a sample counts as right, to complete "A sample is right if ...".
        thumbnail: Longer edge of an image in the explorer, in pixels.
        charts: Figures of the benchmark's own.
        place: Place in tables; benchmarks of the same place are sorted by name.

    Raises:
        NapoBenchError: an attribute has a value that no benchmark can have, or two attributes do not fit together.
    """

    name: str
    label: str
    about: str
    rows: str
    metrics: tuple[Metric, ...]
    tasks: tuple[Task, ...]
    open: Callable[[Path], BenchmarkData]
    score: Callable[[Any, Answers, ScoreOptions], BenchmarkResult]
    text_fields: tuple[str, ...]
    responses: Literal["json", "jsonl"] = "jsonl"
    sources: tuple[Source, ...] = ()
    data_files: tuple[str, ...] = ()
    needs: frozenset[Need] = frozenset()
    spacy_models: Mapping[Need, str] = field(default_factory=dict)
    try_judge: Callable[[Judge, Any], None] | None = None
    measured: Callable[[Mapping[str, Any]], str] = one_way
    show: Callable[[Sample], View] = plain_view
    readings: Callable[[Sample, Mapping[str, Any]], list[Reading]] = plain_readings
    rated: Rated | None = None
    right_if: str = ""
    thumbnail: int = 320
    charts: tuple[BarChart, ...] = ()
    place: int = LAST

    def __post_init__(self) -> None:
        require_name("benchmark", self.name)
        where = f"The benchmark {self.name!r}"
        for kind, parts, wanted in (("metric", self.metrics, Metric), ("task", self.tasks, Task)):
            if not parts or not all(isinstance(part, wanted) for part in parts):
                raise NapoBenchError(f"{where}: {kind}s is {parts!r}; a tuple of {wanted.__name__} is expected.")
            names = [part.name for part in parts]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise NapoBenchError(f"{where} has two {kind}s {twice[0]!r}.")
        for task in self.tasks:
            known = [metric.name for metric in self.metrics]
            _require_known(f"{where}, task {task.name!r}", "metric", task.metrics, known)
        if self.rated is not None:
            limited = [metric.name for metric in self.metrics if metric.high is not None]
            _require_known(f"{where}, rated", "metric with a limit", self.rated.metrics, limited)
        _require_functions(where, self, "open", "score", "show")
        _require_names(where, "text_fields", self.text_fields)
        _require_known(where, "format of responses", [self.responses], ["json", "jsonl"])
        _require_known(where, "need", [*self.needs, *self.spacy_models], get_args(Need))
        named = tuple(replace(metric, benchmark=self.name) for metric in self.metrics)
        object.__setattr__(self, "metrics", named)

    @property
    def in_paper(self) -> bool:
        """Whether the paper has numbers of the benchmark."""
        return any(task.is_default for task in self.tasks)

    def metric(self, name: str) -> Metric | None:
        """The metric with this name; None if there is no such metric."""
        return next((metric for metric in self.metrics if metric.name == name), None)


def _require_functions(where: str, holder: object, *names: str) -> None:
    for name in names:
        if not callable(getattr(holder, name)):
            raise NapoBenchError(f"{where}: {name} is {getattr(holder, name)!r}; a function is expected.")


def _require_names(where: str, field: str, names: object) -> None:
    if not isinstance(names, tuple) or not names or not all(isinstance(name, str) for name in names):
        raise NapoBenchError(f"{where}: {field} is {names!r}; a tuple of names is expected.")


def _require_known(where: str, kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known, where)

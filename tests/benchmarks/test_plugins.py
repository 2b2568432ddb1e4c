"""Plug-ins that break a rule: found when they are loaded, in one message that names the distribution and a way on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from napo_bench.benchmarks import all_benchmarks, default_suite
from napo_bench.benchmarks.benchmark import Benchmark, Metric, Task
from napo_bench.benchmarks.mmhal import RATED
from napo_bench.benchmarks.rated import Line
from napo_bench.benchmarks.scoring import measure
from napo_bench.cli import main
from napo_bench.core import plugins
from napo_bench.core.errors import NapoBenchError

WHOLE = """
from napo_bench.benchmarks.benchmark import Benchmark, Metric, Task
METRIC = Metric("accuracy", "Accuracy", "higher", lambda sums: sums["right"], "n")
def of(name="shapes", task="shapes"):
    return Benchmark(
        name=name, label="[red]Shapes", about="shapes.", rows="rows.", metrics=(METRIC,),
        tasks=(Task(task, ("accuracy",)),), open=print, score=print, text_fields=("response",),
        data_files=("questions.json",),
    )
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs a package with one benchmark for the time of a test."""

    def install(module: str, entry: str, code: str) -> None:
        site = tmp_path / module
        info = site / f"{module}-3.1.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(WHOLE + code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 3.1\n")
        (info / "entry_points.txt").write_text(f"[napo_bench.benchmarks]\n{entry} = {module}:BENCHMARK\n")
        sys.modules.pop(module, None)
        monkeypatch.syspath_prepend(site)
        forget()

    yield install
    monkeypatch.undo()
    forget()


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a command that ends with the code of a mistake."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", ["napo-bench", *arguments])
        main()
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


def forget() -> None:
    all_benchmarks.cache_clear()
    plugins.installed.cache_clear()


@pytest.mark.parametrize(
    ("entry", "code", "message"),
    [
        ("Count-QA", "BENCHMARK = of('Count-QA')", "'Count-QA' cannot be the name of a benchmark"),
        ("shapes", "BENCHMARK = of('Shapes')", "'Shapes' cannot be the name of a benchmark"),
        ("shapes", "BENCHMARK = of('a/../b')", "'a/../b' cannot be the name of a benchmark"),
        ("shapes", "BENCHMARK = of(task='Count-QA')", "'Count-QA' cannot be the name of a task"),
        ("shapes", "BENCHMARK = of(task='micro')", "'micro' cannot be the name of a task: it is the name of the micro"),
        ("shapes", "BENCHMARK = of('forms')", "calls itself 'forms'"),
        ("shapes", "import no_such_module", "cannot be imported: ModuleNotFoundError: No module"),
        ("shapes", "BENCHMARK = 1", "a Benchmark is expected, int found"),
        ("amber", "BENCHMARK = of('amber')", "has the name of the one of napo-bench"),
        ("shapes", "raise SystemExit(1)", "cannot be imported: SystemExit: 1"),
        ("shapes", "BENCHMARK = of(task='vlind')", "both have a task 'vlind'"),
    ],
)
def test_a_plug_in_that_breaks_a_rule_ends_a_gate_with_the_code_of_a_mistake(
    install, capsys, tmp_path: Path, entry: str, code: str, message: str
) -> None:
    install("shapes_plugin", entry, code)
    said = refusal(capsys, "gate", str(tmp_path), "--baseline", str(tmp_path))
    assert message in said and "shapes_plugin 3.1" in said and "uninstall" in said


def test_two_plug_ins_with_one_name_are_told_by_their_packages(install) -> None:
    install("shapes_plugin", "shapes", "BENCHMARK = of()")
    install("forms_plugin", "shapes", "BENCHMARK = of()")
    with pytest.raises(NapoBenchError, match=r"forms_plugin 3\.1|shapes_plugin 3\.1") as caught:
        all_benchmarks()
    assert "forms_plugin 3.1" in caught.value.message and "shapes_plugin 3.1" in caught.value.message


def test_a_task_of_a_plug_in_is_no_part_of_the_papers_suite(install) -> None:
    install("shapes_plugin", "shapes", "BENCHMARK = of()")
    assert "shapes" in all_benchmarks() and "shapes" not in default_suite()


def test_data_without_a_source_cannot_be_fetched(install, capsys, tmp_path: Path) -> None:
    install("shapes_plugin", "shapes", "BENCHMARK = of()")
    said = refusal(capsys, "data", "fetch", "shapes", "--data-dir", str(tmp_path)).replace(" ", "")
    assert "hasnopublishedsource" in said and f"{tmp_path}/shapes:questions.json" in said


def test_a_label_with_square_brackets_is_printed_as_it_is(install, capsys) -> None:
    install("shapes_plugin", "shapes", "BENCHMARK = of()")
    from napo_bench.benchmarks.result import BenchmarkResult
    from napo_bench.cli.benchmark_tables import print_benchmark

    print_benchmark("shapes", BenchmarkResult({}))
    assert "[red]Shapes" in capsys.readouterr().out


def metric(**changes: object) -> Metric:
    given = {"name": "accuracy", "label": "Accuracy", "better": "higher", "function": lambda sums: sums["right"]}
    return Metric(**{**given, "count": "n", **changes})


def benchmark(**changes: object) -> Benchmark:
    given = {
        "name": "shapes",
        "label": "Shapes",
        "about": "",
        "rows": "",
        "metrics": (metric(),),
        "tasks": (Task("shapes", ("accuracy",)),),
        "open": print,
        "score": print,
        "text_fields": ("response",),
    }
    return Benchmark(**{**given, **changes})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metric(better="up"), "better is 'up'; 'higher', 'lower' or None is expected"),
        (lambda: metric(function=None), "function is None; a function is expected"),
        (lambda: metric(count=""), "count is ''"),
        (lambda: metric(name="F1 score"), "'F1 score' cannot be the name of a metric"),
        (lambda: metric(high=0), "high is 0"),
        (lambda: metric(decimals=1.5), "decimals is 1.5"),
        (lambda: metric(better=None, decides=True), "needs a better direction and a limit"),
        (lambda: metric(high=None, pass_fail=True), "needs a better direction and a limit"),
        (lambda: Task("shapes", ("accuracy",), profiles={"greedi": {}}), "no profile 'greedi'"),
        (lambda: Task("shapes", "accuracy"), "metrics is 'accuracy'; a tuple of names"),
        (lambda: Task("shapes", ("accuracy",), max_new_tokens=0), "max_new_tokens is 0"),
        (lambda: benchmark(metrics=(metric(), metric(label="Other"))), "has two metrics 'accuracy'"),
        (lambda: benchmark(tasks=(Task("shapes", ("acuracy",)),)), "no metric 'acuracy'"),
        (lambda: benchmark(tasks=()), "tasks is (); a tuple of Task is expected"),
        (lambda: benchmark(tasks=(Task("a", ("accuracy",)), Task("a", ("accuracy",)))), "has two tasks 'a'"),
        (lambda: benchmark(score=None), "score is None"),
        (lambda: benchmark(text_fields=()), "text_fields is ()"),
        (lambda: benchmark(rated=replace(RATED, metrics=("accurracy",))), "no metric with a limit 'accurracy'"),
        (lambda: benchmark(rated=replace(RATED, metrics=())), "Rated needs a metric"),
        (lambda: benchmark(rated=replace(RATED, predicted={"rating": Line("rating")})), "a count with levels (Steps)"),
        (lambda: benchmark(responses="csv"), "no format of responses 'csv'"),
        (lambda: benchmark(needs={"juge"}), "no need 'juge'"),
    ],
)
def test_what_no_benchmark_can_have_is_refused_when_the_object_is_made(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(NapoBenchError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "missing"), [({"count": "unitz"}, "unitz"), ({"function": lambda sums: sums["rihgt"]}, "rihgt")]
)
def test_a_metric_of_a_count_that_no_sample_has_names_the_counts_that_exist(changes, missing: str) -> None:
    samples = [{"sample_id": "1", "counts": {"n": 1.0, "right": 1.0}}]
    with pytest.raises(NapoBenchError) as caught:
        measure(samples, [metric(**changes)])
    assert caught.value.message == f"The metric 'accuracy' needs the count '{missing}', which no sample has."
    assert caught.value.hint == "The samples' counts are n, right."

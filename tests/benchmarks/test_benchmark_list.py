"""The list of benchmarks: whole, and in the order of Table 1.

The command line, the engines, the runs and the reports use no name of a benchmark. The micro world and the studies do:
they are about these four.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from napo_bench.benchmarks import all_benchmarks, all_tasks, default_suite
from napo_bench.benchmarks.metrics import all_metrics

ROOT = Path(__file__).resolve().parents[2]
NAMES = r"vlind|object.halbench|amber|mmhal"
ROOMS = ("cli", "core", "data", "engines", "lmms", "models", "report", "runs", "trainers")


def test_benchmarks_and_suite_have_the_order_of_table_1() -> None:
    assert list(all_benchmarks()) == ["vlind", "object_halbench", "amber", "mmhal"]
    assert list(all_tasks()) == ["vlind", "object_halbench", "amber", "amber_discriminative", "mmhal"]
    assert default_suite() == ("vlind", "object_halbench", "amber", "mmhal")


def test_tasks_give_the_metrics_of_their_benchmark_and_each_metric_once() -> None:
    for benchmark in all_benchmarks().values():
        given = [name for task in benchmark.tasks for name in task.metrics]
        assert given == [metric.name for metric in benchmark.metrics]
        assert any(metric.decides for metric in benchmark.metrics)
    assert all(key == f"{metric.benchmark}.{metric.name}" for key, metric in all_metrics().items())


@pytest.mark.parametrize("task", list(all_tasks()))
def test_lmms_eval_finds_every_task_by_a_file_of_its_benchmark(task: str) -> None:
    benchmark, _ = all_tasks()[task]
    text = (ROOT / "benchmarks" / benchmark.name / f"napo_{task}.yaml").read_text(encoding="utf-8")
    assert f"task: napo_{task}\n" in text and f"member: {task}\n" in text


@pytest.mark.parametrize("room", ROOMS)
def test_no_other_room_uses_the_name_of_a_benchmark(room: str) -> None:
    """Messages may name one as an example; a text without a space is a key, a path or a part of one."""
    paths = list((ROOT / "napo_bench" / room).rglob("*"))
    assert paths
    for path in paths:
        if path.suffix in (".js", ".j2", ".css"):
            assert not re.search(NAMES, path.read_text(encoding="utf-8"), flags=re.IGNORECASE), path
        elif path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                used = node.value if isinstance(node, ast.Constant) else getattr(node, "module", None)
                if isinstance(used, str) and not re.search(r"\s", used):
                    assert not re.search(NAMES, used, flags=re.IGNORECASE), f"{path}:{node.lineno}"

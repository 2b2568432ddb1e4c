"""The Python examples of the benchmarks' READMEs print what they say."""

import re
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize("name", ["amber", "mmhal", "object_halbench", "vlind"])
def test_the_example_prints_its_comment(name, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (BENCHMARKS / name / "README.md").read_text(), flags=re.DOTALL)
    (stated,) = re.findall(r"^print.*# ([\d.]+)", example, flags=re.MULTILINE)
    exec(example, {})
    assert capsys.readouterr().out.strip() == stated

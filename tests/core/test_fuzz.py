"""Damaged images, JSON, replies and checkpoints end in one message. `scripts/fuzz.py` tries for longer."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path

import pytest

from napo_bench.core.images import open_rgb

SCRIPT = Path(__file__).parents[2] / "scripts/fuzz.py"


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("kinds", "seconds", "least"), [(("images", "JSON", "replies"), 5, 100), (("checkpoints",), 4, 1)]
)
def test_no_damage_of_a_few_seconds_ends_in_another_exception(fuzz, kinds, seconds, least):
    tried, found = fuzz.faults(kinds, seconds, seed=random.randrange(10**6))
    assert tried >= least
    assert not found, "\n".join(found)


def test_an_exception_of_another_kind_is_a_fault(fuzz, monkeypatch):
    monkeypatch.setattr(fuzz, "parse_rating", lambda text: int(text))
    _, found = fuzz.faults(["replies"], seconds=0.5, seed=0)
    assert any(text.startswith("replies ") and "ValueError" in text for text in found)


def test_the_images_have_every_format_that_is_read(fuzz):
    assert len(list(fuzz.images())) >= 2 * len(fuzz.FORMATS)
    for content in fuzz.images():
        assert open_rgb(content).size == (24, 16)


def test_every_value_of_a_file_is_damaged_at_some_time(fuzz):
    content = {"a": 1, "b": {"c": [1, 2, 3]}}
    assert set(fuzz.places(content)) == {("a",), ("b",), ("b", "c"), ("b", "c", 0), ("b", "c", 1)}
    assert fuzz.damaged_value(content, fuzz.Case("x.json", ("b", "c", 0), None)) == {"a": 1, "b": {"c": [None, 2, 3]}}
    assert fuzz.damaged_value(content, fuzz.Case("x.json", ("a",), fuzz.REMOVED)) == {"b": {"c": [1, 2, 3]}}
    assert json.dumps(content) == '{"a": 1, "b": {"c": [1, 2, 3]}}'

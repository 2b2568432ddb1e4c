"""Damaged metadata of a checkpoint ends in one message. `scripts/fuzz_checkpoints.py` tries for longer."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/fuzz_checkpoints.py"


def load():
    spec = importlib.util.spec_from_file_location("fuzz_checkpoints", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_checkpoints"] = module
    spec.loader.exec_module(module)
    return module


def test_no_damage_of_a_few_seconds_ends_in_another_exception():
    tried, found = load().faults(seconds=4, seed=random.randrange(10**6))
    assert tried
    assert not found, "\n".join(f"{case}\n{trace}" for case, trace in found)


def test_every_value_of_a_file_is_damaged_at_some_time():
    fuzz = load()
    content = {"a": 1, "b": {"c": [1, 2, 3]}}
    assert set(fuzz.places(content)) == {("a",), ("b",), ("b", "c"), ("b", "c", 0), ("b", "c", 1)}
    assert fuzz.damage(content, fuzz.Case("x.json", ("b", "c", 0), None)) == {"a": 1, "b": {"c": [None, 2, 3]}}
    assert fuzz.damage(content, fuzz.Case("x.json", ("a",), fuzz.REMOVED)) == {"b": {"c": [1, 2, 3]}}
    assert json.dumps(content) == '{"a": 1, "b": {"c": [1, 2, 3]}}'

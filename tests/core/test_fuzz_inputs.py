"""Damaged images, JSON and replies end in one message. `scripts/fuzz_inputs.py` tries for longer."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/fuzz_inputs.py"


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz_inputs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_inputs"] = module
    spec.loader.exec_module(module)
    return module


def test_no_damage_of_a_few_seconds_ends_in_another_exception(fuzz):
    tried, found = fuzz.faults(seconds=5, seed=random.randrange(10**6))
    assert tried > 100
    assert not found, "\n".join(found)


def test_an_exception_of_another_kind_is_a_fault(fuzz, monkeypatch):
    monkeypatch.setattr(fuzz, "parse_rating", lambda text: int(text))
    _, found = fuzz.faults(seconds=0.5, seed=0)
    assert any(text.startswith("reply ") and "ValueError" in text for text in found)


def test_the_images_have_every_format_that_is_read(fuzz):
    assert len(list(fuzz.images())) >= 2 * len(fuzz.FORMATS)
    for content in fuzz.images():
        assert fuzz.open_rgb(content).size == (24, 16)

"""Hostile inputs end in one message. `scripts/measure_hostile.py` runs more of them, also with a model."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/measure_hostile.py"
_spec = importlib.util.spec_from_file_location("measure_hostile", SCRIPT)
assert _spec is not None and _spec.loader is not None
hostile = importlib.util.module_from_spec(_spec)
sys.modules["measure_hostile"] = hostile
_spec.loader.exec_module(hostile)

FIRST = {case.kind: case for case in reversed(hostile.CASES) if case.is_quick}
"""Kind -> its first case without a model."""


@pytest.fixture(scope="module")
def world():
    with hostile.opened() as opened:
        yield opened


@pytest.mark.parametrize("kind", FIRST)
def test_a_hostile_input_ends_in_one_message_within_limits_or_does_no_harm(world, kind):
    assert hostile.measured(FIRST[kind], *world).faults == []


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("import sys; sys.exit(1)", "exit code 1"),
        ("1 // 0", "a traceback"),
        ("import sys; sys.exit(2)", "no 'refused' in the message"),
        ("print(open('private/mine.txt').read())", "the secret is printed"),
        ("open('out', 'w').write(open('private/mine.txt').read())", "the secret is stored"),
        ("open('private/new', 'w')", "a file beside is changed"),
        ("x = bytearray(3 * 10**8); x[::4096] = bytes(len(x[::4096]))", "0.3 GB"),
    ],
)
def test_a_command_that_does_harm_is_a_fault(world, program, fault):
    case = hostile.Case("x", "x", lambda place: ["-c", program], "refused")
    assert fault in hostile.measured(case, *world, most_bytes=2 * 10**8).faults

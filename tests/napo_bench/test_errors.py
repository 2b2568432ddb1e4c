"""Mistyped names: which of the names that exist are given back."""

from __future__ import annotations

import pytest

from napo_bench.errors import nearest

NAMES = ("vlind", "object_halbench", "amber", "amber_discriminative", "mmhal", "micro")


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("ambr", "amber"),
        ("micr", "micro"),
        ("MICRO", "micro"),
        ("objct-halbench", "object_halbench"),
        ("amber-discriminativ", "amber_discriminative"),
        ("vlnd", "vlind"),
    ],
)
def test_the_most_similar_name_comes_first(typed: str, first: str) -> None:
    assert nearest(typed, NAMES)[0] == first


def test_names_that_are_not_similar_are_left_out_and_no_more_than_asked_for_come_back() -> None:
    assert nearest("pope", NAMES) == []
    assert nearest("micro-napo", ("micro-dpo", "micro-mdpo", "micro-napo"), count=2) == ["micro-napo", "micro-dpo"]

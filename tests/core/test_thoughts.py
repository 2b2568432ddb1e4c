"""Thoughts and answers told apart, for every text that a model may write."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.thoughts import DEFAULT_MARKS, read_marks, split_thoughts

TWO = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))


@pytest.mark.parametrize(
    ("text", "thoughts", "answer"),
    [
        ("<think>\nYes or no?\n</think>\n\nNo.\n", "<think>\nYes or no?\n</think>", "No."),
        ("Yes or no?\n</think>\n\nNo.", "Yes or no?\n</think>", "No."),
        ("<think></think>No.", "<think></think>", "No."),
        ("<think>a</think>Yes? <think>b</think>No.", "<think>a</think>Yes? <think>b</think>", "No."),
        ("<think>a <think>b</think> c</think> No.", "<think>a <think>b</think> c</think>", "No."),
        ("<think>a</think>", "<think>a</think>", ""),
        ("<THINK>a</Think> No.", "<THINK>a</Think>", "No."),
        ("[THINK]a[/THINK]b</think>No.", "[THINK]a[/THINK]b</think>", "No."),
    ],
)
def test_the_answer_follows_the_last_closing_mark(text: str, thoughts: str, answer: str) -> None:
    assert split_thoughts(text, TWO) == (thoughts, answer)


@pytest.mark.parametrize(
    "text", ["<think>", "<Think>", "<think>Is it a dog or", "<think>a</think>Hm. <think>b", "No. <think>"]
)
def test_a_thought_that_never_ends_is_no_answer(text: str) -> None:
    assert split_thoughts(text) == (text, None)


@given(st.text(alphabet="<>/think \n", max_size=20))
@settings(max_examples=50)
def test_a_text_without_marks_is_the_answer_to_the_byte(text: str) -> None:
    assume(not any(mark in text for pair in DEFAULT_MARKS for mark in pair))
    assert split_thoughts(text) == ("", text)


def test_without_marks_nothing_is_a_thought() -> None:
    assert split_thoughts("<think>a</think> b", ()) == ("", "<think>a</think> b")


def test_marks_of_the_command_line() -> None:
    assert read_marks(None) == DEFAULT_MARKS
    assert read_marks(["none"]) == ()
    assert read_marks(["<think>,</think>", "[THINK],[/THINK]"]) == TWO


@pytest.mark.parametrize("option", ["<think>", "<think>,", ",</think>", "a,b,c", ""])
def test_marks_that_are_no_pair_are_refused(option: str) -> None:
    with pytest.raises(NapoBenchError, match="an opening and a closing mark"):
        read_marks([option])

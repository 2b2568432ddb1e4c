"""What is left of a gain under equal conditions, in words."""

from __future__ import annotations

from collections.abc import Sequence

from napo_bench.runs.panel.rows import PanelRow, plain_zero


def sentence(what: str, gain: PanelRow, left: Sequence[tuple[PanelRow, str]], sign: int) -> str:
    """What is left of a gain: "The CHAIR gain of 14.0 [11.1, 16.9] keeps 11.2 [8.0, 14.1] at equal coverage."

    Args:
        what: Name of the number that gained.
        gain: The number.
        left: Numbers under equal conditions, each with its condition.
        sign: 1 if a higher number is better, else -1.
    """
    low, high = gain.interval
    is_loss = sign * gain.difference < 0
    sign = -sign if is_loss else sign
    word = "loss" if is_loss else "gain"
    kept = " and ".join(f"{_gain_text(row, sign)} at {condition}" for row, condition in left)
    if low <= 0 <= high:
        return f"The {what} {word} of {_gain_text(gain, sign)} is no more than chance; it is {kept}."
    return f"The {what} {word} of {_gain_text(gain, sign)} keeps {kept}."


def shift(row: PanelRow, kind: str, consequence: str) -> list[str]:
    """A sentence about a share of answers that changed clearly: "12.0 [9.1, 15.2] points more answers are unparsable".

    Args:
        row: The share of the answers.
        kind: What these answers are or do, with its verb.
        consequence: What the share does to the other numbers.
    """
    if not row.is_clear:
        return []
    sign = 1 if row.difference > 0 else -1
    return [f"{_gain_text(row, sign)} points {'more' if sign > 0 else 'fewer'} {kind}. {consequence}"]


def _gain_text(row: PanelRow, sign: int) -> str:
    ends = sorted(sign * end for end in row.interval)
    low, high = (plain_zero(f"{end:.1f}") for end in ends)
    return f"{plain_zero(f'{sign * row.difference:.1f}')} [{low}, {high}]"

"""VLind-Bench: answers -> commonsense knowledge, visual perception, commonsense bias and language prior.

Lee et al., "VLind-Bench: Measuring Language Priors in Large Vision-Language Models" (arXiv 2406.08702).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MIN_VOTES = 2

STYLES: dict[str, range] = {
    "photorealistic": range(0, 4),
    "illustration": range(4, 8),
    "cartoon": range(8, 12),
}
"""Style of a counterfactual image -> image ids of the style."""


def parse_answer(text: str) -> str:
    """The first word that is true or false, as "True" or "False"; "NA" if there is no such word.

    The text is lower-cased, newlines become spaces, commas and full stops are removed, and the text is split at single
    spaces.
    """
    for word in text.lower().replace("\n", " ").replace(",", "").replace(".", "").split(" "):
        if word in {"true", "false"}:
            return word.capitalize()
    return "NA"


def passes(first: str, second: str) -> bool:
    """Whether a pair of answers passes its test: statement 1 must be True, statement 2 False."""
    return parse_answer(first) == "True" and parse_answer(second) == "False"


def good_images(votes: Mapping[str, int]) -> list[str]:
    """The image ids with at least two votes, in numeric order."""
    return sorted((image for image, count in votes.items() if count >= MIN_VOTES), key=int)


def best_image(best: str | None, votes: Mapping[str, int]) -> str:
    """The image for the tests VP and CB: the named image, else the first image with the most votes."""
    return best if best is not None else max(votes, key=lambda image: votes[image])


def instance_counts(ck: bool, vp: bool, cb: bool, lp: Mapping[str, bool]) -> dict[str, float]:
    """The counts of one instance for the metrics.

    Args:
        ck: Whether commonsense knowledge is passed.
        vp: Whether visual perception is passed.
        cb: Whether commonsense bias is passed, independent of the other tests.
        lp: Good image id -> whether language prior is passed on this image; not empty.

    Returns:
        `lp` is the share of good images that pass. `lp_eligible` is 1 if CK, VP and CB pass, else 0. `lp_share` is `lp`
        if the instance is eligible, else 0.
    """
    share = sum(lp.values()) / len(lp)
    eligible = vp and ck and cb
    return {
        "instances": 1.0,
        "ck": float(ck),
        "vp": float(vp),
        "cb": float(cb),
        "ck_and_cb": float(ck and cb),
        "lp": share,
        "lp_eligible": float(eligible),
        "lp_share": share if eligible else 0.0,
    }


def percent(part: str, whole: str) -> Callable[[Mapping[str, Any]], Any]:
    """100 * part / whole on sums of counts, numbers or arrays `[B]`; 0 if whole is 0."""

    def metric(sums: Mapping[str, Any]) -> Any:
        import numpy as np

        divisor = np.asarray(sums[whole], dtype=np.float64)
        return 100 * np.divide(sums[part], divisor, out=np.zeros_like(divisor), where=divisor != 0)

    return metric

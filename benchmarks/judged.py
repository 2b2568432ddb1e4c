"""Several ratings of one answer: by several judges, or by one judge several times.

A sample with one rating has the fields `rating` and `judge_reply`. A sample with several ratings has the mean `rating`
and `judge_replies`, one entry for each rating: {"judge", "repeat", "rating", "counts", "text", "model", ...}. The
counts of the sample are the means over the ratings. The settings of a result name its judge as `judge`, and several
judges as `judges`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napo_bench.engines.answer import FINGERPRINT

if TYPE_CHECKING:
    from napo_bench.benchmarks.result import BenchmarkResult

Counts = Mapping[str, float]

GROUP = "judge/"
"""Beginning of the name of a group of a breakdown with the metrics of one judge."""


def mean_counts(ratings: Sequence[Counts]) -> dict[str, float]:
    """The means of the counts of several ratings of one answer; the counts themselves for one rating."""
    if len(ratings) == 1:
        return dict(ratings[0])
    names = dict.fromkeys(name for counts in ratings for name in counts)
    return {name: sum(counts.get(name, 0.0) for counts in ratings) / len(ratings) for name in names}


def of_judge(sample: Mapping[str, Any], judge: str) -> dict[str, Any]:
    """A sample with several ratings as one judge alone rates it."""
    own = [entry for entry in sample["judge_replies"] if entry["judge"] == judge]
    return {**sample, "judge_replies": own, "counts": mean_counts([entry["counts"] for entry in own])}


def ratings_of(samples: Sequence[Mapping[str, Any]]) -> list[list[list[Counts]]]:
    """Counts `[J][N][K]` of each judge, sample and repetition; empty if the samples have one rating each."""
    by_judge: dict[str, list[list[Counts]]] = {}
    for sample in samples:
        own: dict[str, list[Counts]] = {}
        for entry in sample.get("judge_replies", []):
            own.setdefault(entry["judge"], []).append(entry["counts"])
        for judge, counts in own.items():
            by_judge.setdefault(judge, []).append(counts)
    return list(by_judge.values())


def results_by_judge(result: BenchmarkResult) -> list[BenchmarkResult]:
    """A result as each of its judges alone rates it, and last the result itself; the result alone for one judge.

    The results of single judges have no samples.
    """
    judges = judges_of(result.settings)
    if len(judges) < 2:
        return [result]
    others = {name: value for name, value in result.settings.items() if name != "judges"}
    alone = [
        replace(
            result,
            metrics=result.breakdown.get(f"{GROUP}{judge}", {}),
            breakdown={},
            settings={**others, "judge": settings},
            samples=[],
        )
        for judge, settings in judges.items()
    ]
    return [*alone, result]


def about_mean(judges: int) -> str:
    """What the interval of the mean over several judges is about, as a sentence."""
    few = ", and two judges say little about others" if judges == 2 else ""
    return f"The interval of the mean is about all judges like these{few}."


def judges_of(settings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Name -> settings of each judge of a result; empty if no judge rated."""
    if "judges" in settings:
        return dict(settings["judges"])
    judge = settings.get("judge")
    return {str(judge.get("name") or judge.get("model", "")): judge} if judge else {}


def without_fingerprints(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the system fingerprints of judges and extractors."""
    return {
        name: without_fingerprints(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name != FINGERPRINT
    }


def fingerprints(settings: Mapping[str, Any]) -> list[str]:
    """The system fingerprints of judges and extractors in settings, in their order."""
    found = [str(settings[FINGERPRINT])] if settings.get(FINGERPRINT) else []
    return found + [text for part in settings.values() if isinstance(part, Mapping) for text in fingerprints(part)]

"""Captions: CHAIR and Cover of the whole, of equal coverage, of equal length, and as curves over words and mentions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napo_bench.benchmarks.reading import Caption, Reading
from napo_bench.core import stats
from napo_bench.runs.panel.rows import CAPTIONS, CURVES, Built, Counts, Curve, Measure, Pair, Part, measured, share
from napo_bench.runs.panel.sentences import sentence, shift

CHAIR, COVER, WORDS, MENTIONS = "CHAIR", "Cover", "words a caption", "mentions a caption"
CHAIR_AT_COVER, CHAIR_AT_LENGTH, HEDGING = "CHAIR at equal coverage", "CHAIR at equal length", "refusing or hedging"
EMPTY_CAPTIONS = "empty captions"
HEDGES = (
    "i can't",
    "i cannot",
    "i can not",
    "i am unable",
    "i'm unable",
    "i am not able",
    "i'm not able",
    "i am not sure",
    "i'm not sure",
    "i don't know",
    "i do not know",
    "i'm sorry",
    "i am sorry",
    "as an ai",
    "as a language model",
    "it is unclear",
    "it's unclear",
    "it is not clear",
    "it's not clear",
    "it is difficult to",
    "it's difficult to",
    "it is hard to",
    "it's hard to",
    "it is impossible to",
    "cannot be determined",
    "can't be determined",
    "there may be",
    "there might be",
)
"""Phrases of a caption that refuses or hedges. A phrase counts where it is whole words, in any case."""

_HEDGE = re.compile(rf"\b(?:{'|'.join(map(re.escape, HEDGES))})\b")
_WORDS_SHOWN = (10, 20, 40, 80, 120)
_MENTIONS_SHOWN = (1, 2, 4, 8, 12)
_MOST_MENTIONS = 12
_POINTS = 40


def caption_measures(pairs: Sequence[Pair], clusters: Sequence[str]) -> Built:
    """The measures and curves of captions. Without the places of mentions, only length and hedges are measured."""
    there = [number for number, (new, old) in enumerate(pairs) if new.caption is not None and old.caption is not None]
    if not there:
        return Built()
    pairs, clusters = [pairs[number] for number in there], [clusters[number] for number in there]
    measures = [
        Measure(WORDS, share("words", "captions", 1.0), ""),
        Measure(HEDGING, share("hedging", "captions")),
        Measure(EMPTY_CAPTIONS, share("empty", "captions")),
    ]
    about = [(_text_counts(new.text), _text_counts(old.text)) for new, old in pairs]
    if not all(_placed(reading) for pair in pairs for reading in pair):
        note = (
            "CHAIR at equal coverage and at equal length, and the curves, need the place of each mention in the text. "
            "A run does not have these places: score its answers again. Objects that an extractor lists have no place"
        )
        return Built([Part(CAPTIONS, measured(about, clusters, measures))], notes=[note])
    grid = _Grid.of(pairs)
    counts = []
    for (new, old), (mine, theirs) in zip(pairs, about, strict=True):
        length = min(len(new.text.split()), len(old.text.split()))
        sides = [mine | grid.counts(new, length), theirs | grid.counts(old, length)]
        for side in sides:
            side["baseline's covered"] = sides[1]["covered"]
            side["candidate's covered"] = sides[0]["covered"]
        counts.append((sides[0], sides[1]))
    chair = [
        Measure(CHAIR, share("hallucinated", "mentions")),
        Measure(COVER, share("covered", "objects")),
        Measure(CHAIR_AT_COVER, grid.chair_at_equal_cover),
        Measure(CHAIR_AT_LENGTH, share("hallucinated at length", "mentions at length")),
        Measure(MENTIONS, share("mentions", "captions", 1.0), ""),
    ]
    curves = grid.measures()
    rows = measured(counts, clusters, [*chair, *measures, *curves])
    part, curve = Part(CAPTIONS, rows[: len(chair) + len(measures)]), rows[len(chair) + len(measures) :]
    left = [(part.row(CHAIR_AT_COVER), "equal coverage"), (part.row(CHAIR_AT_LENGTH), "equal length")]
    names_less = "A caption that names nothing lowers coverage, so CHAIR at equal coverage is that of shorter captions."
    lost = [
        *shift(part.row(HEDGING), "captions refuse or hedge", names_less),
        *shift(part.row(EMPTY_CAPTIONS), "captions are empty", names_less),
    ]
    return Built(
        [part, *([Part(CURVES, curve)] if curve else [])],
        [*lost, sentence("CHAIR", part.row(CHAIR), left, sign=-1)],
        curves=grid.curves(counts),
    )


def _placed(reading: Reading) -> bool:
    return reading.caption is not None and reading.caption.mentions is not None


def _text_counts(text: str) -> Counts:
    plain = " ".join(text.lower().replace("\u2019", "'").split())
    return {
        "captions": 1.0,
        "words": float(len(plain.split())),
        "hedging": float(bool(_HEDGE.search(plain))),
        "empty": float(not plain),
    }


@dataclass(frozen=True)
class _Grid:
    """The points of the curves over the first k words and over the first k mentions of captions.

    Attributes:
        words: Numbers of words, ascending; the last is at least the number of words before any mention ends.
        mentions: Numbers of mentions, ascending.
    """

    words: tuple[int, ...]
    mentions: tuple[int, ...]

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> _Grid:
        """Points that cut the mentions of both runs into equal parts, and the points that are shown."""
        captions = [_mentions(reading) for pair in pairs for reading in pair]
        ends = np.array([mention.place + 1 for mentions in captions for mention in mentions] or [1])
        most = max(map(len, captions), default=0)
        points = np.quantile(ends, np.linspace(0, 1, _POINTS), method="nearest").tolist()
        shown = [k for k in _WORDS_SHOWN if k < ends.max()]
        return cls(tuple(sorted({*points, *shown})), tuple(range(1, min(most, _MOST_MENTIONS + 1))))

    def counts(self, reading: Reading, length: int) -> Counts:
        """The counts of a caption: of the whole, of its first `length` words, and at each point of the curves."""
        mentions, caption = _mentions(reading), reading.caption
        assert caption is not None
        places = [mention.place for mention in mentions]
        wrong = np.concatenate([[0], np.cumsum([mention.hallucinated for mention in mentions])])
        covered, seen = [0], set[str]()
        for mention in mentions:
            if mention.object and not mention.hallucinated:
                seen.add(mention.object)
            covered.append(len(seen))
        found = {"objects": float(caption.objects)}

        def cut(suffix: str, count: int) -> None:
            found[f"mentions{suffix}"] = float(count)
            found[f"hallucinated{suffix}"] = float(wrong[count])
            found[f"covered{suffix}"] = float(covered[count])

        cut("", len(mentions))
        within = np.searchsorted(places, [length, *self.words])
        cut(" at length", int(within[0]))
        for number, count in enumerate(within[1:]):
            cut(f" at {self.words[number]} words", int(count))
        for k in self.mentions:
            cut(f" at {k} mentions", min(k, len(mentions)))
        return found

    def measures(self) -> list[Measure]:
        """CHAIR and Cover at the points of the curves that are shown."""
        at = {f"{k} words": f"first {k} words" for k in _WORDS_SHOWN if k in self.words}
        at |= {
            f"{k} mentions": f"first {k} mentions" if k > 1 else "first mention"
            for k in _MENTIONS_SHOWN
            if k in self.mentions
        }
        return [
            measure
            for point, label in at.items()
            for measure in (
                Measure(f"CHAIR, {label}", _chair_at(point)),
                Measure(f"Cover, {label}", _cover_at(point)),
            )
        ]

    def curves(self, counts: Sequence[tuple[Counts, Counts]]) -> list[Curve]:
        """CHAIR and Cover of both runs at every point.

        Args:
            counts: Counts of each caption in the candidate, and in the baseline.
        """
        new, old = (
            {name: np.float64(sum(pair[side][name] for pair in counts)) for name in counts[0][0]} for side in (0, 1)
        )
        return [
            Curve(label, unit, points, *(tuple(float(at(f"{k} {unit}")(sums)) for k in points) for sums in (old, new)))
            for unit, points in (("words", self.words), ("mentions", self.mentions))
            for label, at in ((CHAIR, _chair_at), (COVER, _cover_at))
            if len(points) > 1
        ]

    def chair_at_equal_cover(self, sums: stats.Sums) -> Any:
        """CHAIR at the point of a run's curve over words at which it covers as much as both whole runs do."""
        target = np.minimum(sums["baseline's covered"], sums["candidate's covered"])
        covered, wrong, mentions = (
            np.stack([0 * sums[name], *(sums[f"{name} at {k} words"] for k in self.words)])
            for name in ("covered", "hallucinated", "mentions")
        )
        last = len(self.words)
        below = (covered <= target).sum(axis=0) - 1
        above = np.minimum(below + 1, last)
        low, high = (np.take_along_axis(covered, index[None], axis=0)[0] for index in (below, above))
        part = np.where(high > low, (target - low) / np.where(high > low, high - low, 1), 0)

        def between(counts: Any) -> Any:
            first, second = (np.take_along_axis(counts, index[None], axis=0)[0] for index in (below, above))
            return first + part * (second - first)

        number = between(mentions)
        return 100 * between(wrong) / np.where(number > 0, number, 1)


def _chair_at(point: str) -> stats.MetricFunction:
    return share(f"hallucinated at {point}", f"mentions at {point}")


def _cover_at(point: str) -> stats.MetricFunction:
    return share(f"covered at {point}", "objects")


def _mentions(reading: Reading) -> Sequence[Any]:
    caption: Caption | None = reading.caption
    assert caption is not None and caption.mentions is not None
    return sorted(caption.mentions, key=lambda mention: mention.place)

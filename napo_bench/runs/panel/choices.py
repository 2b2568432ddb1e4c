"""Yes/no and True/False answers: yes-rate, sensitivity, criterion, and accuracy at an equal yes-rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from napo_bench.benchmarks.reading import Reading
from napo_bench.core import stats
from napo_bench.core.signal import Detection
from napo_bench.runs.panel.rows import CHOICES, Built, Counts, Measure, Pair, Part, measured, share
from napo_bench.runs.panel.sentences import sentence, shift

UNPARSABLE, YES_RATE, SENSITIVITY, CRITERION = "unparsable", "yes-rate", "sensitivity d'", "criterion c"
ACCURACY, ACCURACY_AT = "accuracy of parsable answers", "accuracy at the baseline's yes-rate"


def choice_measures(pairs: Sequence[Pair], clusters: Sequence[str]) -> Built:
    """The measures of yes/no answers. Answers that are neither count as unparsable, and in no other measure."""
    there = [number for number, (new, old) in enumerate(pairs) if new.choice is not None and old.choice is not None]
    if not there:
        return Built()

    def counts(reading: Reading, baseline: Reading) -> Counts:
        assert reading.choice is not None and baseline.choice is not None
        given, expected = reading.choice.given, reading.choice.expected
        told = given is not None
        return {
            "choices": 1.0,
            "unparsable": float(not told),
            "parsable": float(told),
            "yes": float(given is True),
            "signals": float(told and expected),
            "hits": float(given is True and expected),
            "noises": float(told and not expected),
            "false alarms": float(given is True and not expected),
            "right": float(given is expected),
            "baseline's parsable": float(baseline.choice.given is not None),
            "baseline's yes": float(baseline.choice.given is True),
        }

    pairs, clusters = [pairs[number] for number in there], [clusters[number] for number in there]
    found = [(counts(new, old), counts(old, old)) for new, old in pairs]
    measures = [
        Measure(UNPARSABLE, share("unparsable", "choices")),
        Measure(YES_RATE, share("yes", "parsable")),
        Measure(ACCURACY, share("right", "parsable")),
    ]
    expected = {new.choice.expected for new, _ in pairs if new.choice is not None}
    if len(expected) == 1:
        rows = measured(found, clusters, measures)
        word = "Yes" if expected == {True} else "No"
        note = f"sensitivity and criterion need questions of both kinds, and every right answer is {word}"
        return Built([Part(CHOICES, rows)], notes=[note])
    measures[2:2] = [
        Measure(SENSITIVITY, lambda sums: _detection(sums).sensitivity, "", 2),
        Measure(CRITERION, lambda sums: _detection(sums).criterion, "", 2),
    ]
    measures.append(Measure(ACCURACY_AT, _accuracy_at_baseline))
    part = Part(CHOICES, measured(found, clusters, measures))
    gain, left = part.row(ACCURACY), part.row(ACCURACY_AT)
    unparsable = shift(
        part.row(UNPARSABLE), "answers are unparsable", "The sentence about accuracy leaves unparsable answers out."
    )
    said = sentence("accuracy", gain, [(left, "an equal yes-rate")], sign=1)
    return Built([part], [*unparsable, said])


def _detection(sums: stats.Sums) -> Detection:
    return Detection(sums["signals"], sums["hits"], sums["noises"], sums["false alarms"])


def _accuracy_at_baseline(sums: stats.Sums) -> Any:
    yes_rate = sums["baseline's yes"] / np.maximum(sums["baseline's parsable"], 1)
    return 100 * _detection(sums).accuracy_at(yes_rate)

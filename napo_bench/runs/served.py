"""What an endpoint reports about the model that answered: in the run, and in a note if another model was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from napo_bench.engines.answer import FINGERPRINT, ModelAnswer

_SHOWN = 3


def reported(answers: Sequence[ModelAnswer]) -> dict[str, str]:
    """`reported_model` and `fingerprint` for run.json: the names that an endpoint reported, if any."""
    names = {
        "reported_model": {answer.reported_model for answer in answers},
        FINGERPRINT: {answer.fingerprint for answer in answers},
    }
    return {field: ", ".join(sorted(found - {""})) for field, found in names.items() if found - {""}}


def another_model_note(asked: str, answers: Iterable[ModelAnswer]) -> list[str]:
    """One note if an endpoint reports another model than the model that was asked for, or several.

    Args:
        asked: Name of the model that was asked for.
        answers: The answers of one benchmark.
    """
    counts = Counter(answer.reported_model for answer in answers if answer.reported_model)
    if counts.keys() <= {asked}:
        return []
    shown = [f"{name} ({count} of {counts.total()} answers)" for name, count in counts.most_common(_SHOWN)]
    if len(counts) > _SHOWN:
        shown.append(f"{len(counts) - _SHOWN} more")
    return [f"the model {asked} was asked for, and the endpoint reports {', '.join(shown)}"]

"""What part of the gains comes without looking: methods beside their controls, in a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from napo_bench.core.errors import NapoBenchError
from napo_bench.report.runs import NamedRun
from napo_bench.report.table import markdown
from napo_bench.runs.controls import Arm, ControlledMethod, controlled_method

TITLE = "What part of the gains comes without looking."


def controlled_methods(
    runs: Sequence[NamedRun], baseline: str | None, tell: Callable[[str], None]
) -> list[ControlledMethod]:
    """Each run beside its control: the run of the same recipe that was trained as a control.

    Args:
        runs: Runs, with their samples.
        baseline: Name of the run that the gains are measured against; None is the first run.
        tell: Function that gets a sentence about runs that cannot be compared.
    """
    base = next(run for run in runs if baseline in (None, run.name))
    found = []
    for control in runs:
        if control.control is None or control.recipe is None:
            continue
        own = replace(control.recipe, control=None)
        for method in (run for run in runs if run.control is None and run.recipe == own and run is not base):
            try:
                found.append(
                    controlled_method(
                        method.name, base.run, *(Arm.of(base.run, [run.run]) for run in (method, control))
                    )
                )
            except NapoBenchError as error:
                tell(f"{method.name} is not compared with {control.name}. {error.message}")
    return found


def to_markdown(methods: Sequence[ControlledMethod]) -> str:
    """The sentences of methods beside their controls as GitHub markdown."""
    lines = [f"- {markdown(sentence)}" for method in methods for sentence in method.sentences]
    return "\n".join([f"**{TITLE}**", "", *lines]) + "\n"

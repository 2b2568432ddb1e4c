"""One estimate of the time that a plan still takes, on a clock that the test winds."""

from __future__ import annotations

import pytest
from rich.console import Console

from napo_bench.core.bars import Bars
from napo_bench.core.remaining import Remaining, Work

TRAINING = {"Reference": 10, "Training": 25}
EVALUATION = {"Loading": 3, "Answering": 20, "Scoring": 7}
NEGATIVES = {"Shard 1 of 2, language": 6, "Shard 1 of 2, vision": 9, "Shard 2 of 2, language": 7}
PLAN = [
    (Work("rows", 1500), {}, 2),
    (Work("negatives", 1500), {**NEGATIVES, "Shard 2 of 2, vision": 8}, 0),
    (Work("evaluation", 6000), EVALUATION, 2),
    *[
        piece
        for responses in (3, 4, 5)
        for piece in (
            (Work("training", 1500 * responses), {name: s * responses / 3 for name, s in TRAINING.items()}, 4),
            (Work("evaluation", 6000), EVALUATION, 2),
        )
    ],
]
"""What a plan says, and what happens: seconds of each stage, and seconds without a word before them."""


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def happen(plan, slower=1.0, already_done=(), look=lambda seconds_over, left: None):
    """Let a plan happen, `slower` than usual; `look` sees each estimate. Returns the seconds that it took."""
    clock = Clock()
    estimate = Remaining([work for work, *_ in plan], clock)
    for number, (_, stages, silent) in enumerate(plan):
        estimate.begin(number)
        if number in already_done:
            clock.now += 0.3
            estimate.end(number)
            continue
        clock.now += silent * slower
        for stage, seconds in stages.items():
            for done in range(21):
                estimate.progress(number, stage, done, 20)
                look(clock.now, estimate.seconds())
                clock.now += seconds * slower / 20 if done < 20 else 0
        estimate.end(number)
    assert (estimate.seconds(), estimate.share()) == (0, 1)
    return clock.now


@pytest.mark.parametrize("slower", [0.2, 1, 30])
@pytest.mark.parametrize("already_done", [(), (0, 1, 2), (0, 1, 2, 3, 4)], ids=["new", "prepared", "one trained"])
def test_from_a_third_on_the_whole_is_known_within_half_of_it(slower, already_done):
    """Pieces that are done already take a moment, which says nothing about the others."""
    seen = []
    took = happen(PLAN, slower, already_done, lambda over, left: seen.append((over, over + left)))
    late = [whole / took for over, whole in seen if over >= took / 3]
    assert len(late) > 20
    assert min(late) > 1 / 1.5 and max(late) < 1.5


def test_a_training_that_goes_on_near_its_end_does_not_make_the_others_look_short():
    clock = Clock()
    estimate = Remaining([Work("training", 1000), Work("training", 1000)], clock)
    estimate.begin(0)
    clock.now = 2
    for step in range(91, 101):
        clock.now += 1
        estimate.progress(0, "Training", step, 100)
    estimate.end(0)
    estimate.begin(1)
    assert 100 < estimate.seconds() < 200


def test_beside_the_bar_of_a_plan_no_other_time_is_shown():
    clock = Clock()
    bars = Bars(Console(width=100), Remaining([Work("training", 1000), Work("evaluation", 1000)], clock))
    console = Console(width=100)
    with bars.piece(0, "Train", of=2) as progress:
        for done in range(6):
            clock.now += 10
            progress("Training", done, 10)
        with console.capture() as captured:
            console.print(bars.get_renderable())
    whole, stage = captured.get().splitlines()
    assert "1/2 Train" in whole and " left" in whole
    assert "5/10" in stage and " left" not in stage and "-:--" not in stage


def test_of_pieces_side_by_side_each_bar_has_its_title_and_the_longest_way_is_left():
    clock = Clock()
    plan = Remaining([Work("training", 1000), Work("training", 1000), Work("training", 2000)], clock, jobs=2)
    bars, console = Bars(Console(width=100), plan), Console(width=100)
    with bars.piece(0, "Train a", of=3) as first, bars.piece(1, "Train b", of=3) as second:
        clock.now = 50
        for done in (1, 10):
            first("Training", done, 20)
            second("Training", done, 20)
        with console.capture() as captured:
            console.print(bars.get_renderable())
    assert [line.split("  ")[0].split(" ━")[0] for line in captured.get().splitlines()[1:]] == [
        "Train a: Training",
        "Train b: Training",
    ]
    assert "2/3 " in captured.get()
    assert plan.seconds() == pytest.approx(100)
    with console.capture() as captured:
        console.print(bars.get_renderable())
    assert "Train a" not in captured.get()

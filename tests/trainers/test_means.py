"""The groups of rows that share q and weights, the means over them, and the measure of rounding."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_rows import tiny_rows

from napo_bench.core.errors import NapoBenchError
from napo_bench.trainers.batches import Collator, EpochBatches
from napo_bench.trainers.means import (
    Rounding,
    groups_of_step,
    require_whole_groups,
    spans_forwards,
    within_rounding,
)
from napo_bench.trainers.recipe import load_recipe


@settings(deadline=None)
@given(
    rows=st.integers(1, 70),
    batch_size=st.integers(1, 6),
    processes=st.integers(1, 5),
    accumulation=st.integers(1, 5),
    noise_rows=st.integers(1, 9),
)
def test_a_group_has_the_same_rows_for_any_number_of_processes_and_forwards(
    rows, batch_size, processes, accumulation, noise_rows
):
    """One process with one forward a step cuts the step's rows in their order."""
    samplers = [
        list(EpochBatches(rows, batch_size, rank, processes, seed=0, each_epoch=True)) for rank in range(processes)
    ]
    order = [index for batch in EpochBatches(rows, rows, 0, 1, seed=0, each_epoch=True) for index, _ in batch]
    step_rows = batch_size * processes * accumulation
    for start in range(0, rows, step_rows):
        forwards = [batches[start // (batch_size * processes) :][:accumulation] for batches in samplers]
        of_all = zip(*forwards, strict=True)
        counts = [sum(counted for batch in of_forward for _, counted in batch) for of_forward in of_all]
        grouped = {}
        for rank, own in enumerate(forwards):
            groups = groups_of_step(counts, [len(batch) for batch in own], noise_rows, rank, processes)
            for batch, of_forward in zip(own, groups, strict=True):
                assert of_forward.sums(torch.ones(len(batch))).shape == (of_forward.count,)
                for (index, counted), group in zip(batch, of_forward.of_rows.tolist(), strict=True):
                    if counted:
                        grouped.setdefault(of_forward.first + group, set()).add(index)
        in_order = order[start : start + step_rows]
        expected = [set(in_order[first : first + noise_rows]) for first in range(0, len(in_order), noise_rows)]
        assert [grouped[number] for number in range(len(grouped))] == expected


def test_without_noise_rows_each_forward_of_all_processes_is_a_group():
    groups = groups_of_step([6, 6, 1], [3, 3, 1], 0, rank=1, processes=2)
    assert [(group.first, group.of_rows.tolist(), group.count) for group in groups] == [
        (0, [0, 0, 0], 1),
        (1, [0, 0, 0], 1),
        (2, [0], 1),
    ]
    assert not any(group.continued for group in groups)


def test_a_group_counts_once_in_the_log_where_its_first_row_is():
    groups = groups_of_step([4, 4, 4], [4, 4, 4], 6, rank=0, processes=1)
    assert [group.of_rows.tolist() for group in groups] == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]
    assert [group.begun.tolist() for group in groups] == [[1], [0, 1], [0]]


@pytest.mark.parametrize(
    ("recipe", "processes", "spans"),
    [
        ("llava-1.5-7b-napo", 8, False),
        ("llava-1.5-7b-napo", 16, False),
        ("llava-1.5-7b-napo", 4, True),
        ("llava-1.5-7b-napo-lora", 1, False),
        ("llava-1.5-7b-dpo", 4, False),
        ("micro-napo", 1, False),
    ],
)
def test_a_pass_ahead_is_needed_only_where_a_group_spans_forwards(recipe, processes, spans):
    assert spans_forwards(load_recipe(recipe), processes) is spans


def test_a_step_with_fewer_rows_than_the_means_need_is_refused_with_the_accumulation_of_the_paper():
    recipe = load_recipe("llava-1.5-7b-napo")
    require_whole_groups(recipe, 8)
    with pytest.raises(NapoBenchError, match=r"A step has 4 rows \(1 a forward x 4 forwards x 1 process\)") as raised:
        require_whole_groups(recipe, 1)
    assert "--set gradient_accumulation=32" in raised.value.hint
    require_whole_groups(dataclasses.replace(recipe, gradient_accumulation=32), 1)
    require_whole_groups(dataclasses.replace(recipe, noise_rows=0), 1)
    require_whole_groups(load_recipe("llava-1.5-7b-dpo"), 1)


@pytest.mark.numeric
def test_the_rounding_of_a_mean_keeps_its_direction_and_shrinks_with_the_rows():
    """Means of n rows from 0.3 + noise of 2: the root of their mean square, by simulation."""
    draw = np.random.default_rng(0)
    measured = torch.from_numpy(0.3 + 2 * draw.normal(size=(4000, 1)))
    rounding = Rounding(*Rounding.terms(measured, torch.ones_like(measured)))
    for rows in (1, 8, 200):
        means = (0.3 + 2 * draw.normal(size=(4000, rows))).mean(1)
        (value,) = rounding.of_means(torch.tensor([[float(rows)]])).flatten().tolist()
        assert value == pytest.approx(np.sqrt((means**2).mean()), rel=0.1)


def test_a_negative_that_was_not_measured_counts_as_the_noisiest():
    margins = torch.tensor([[0.1, 0.4, 0.0], [-0.1, -0.4, 0.0]])
    rounding = Rounding(*Rounding.terms(margins, torch.tensor([[1.0, 1.0, 0.0]] * 2)))
    assert rounding.of_means(torch.ones(1, 3)).tolist() == [pytest.approx([0.1, 0.4, 0.4])]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_pixels_change_by_one_rounding_and_nothing_else_changes(conversation, open_tiny, precision):
    batch = Collator(conversation)([open_tiny(tiny_rows(3))[index, True] for index in range(3)])
    changed = within_rounding(batch, precision, seed=0)
    before, after = batch.prompts.images["pixel_values"], changed.prompts.images["pixel_values"]
    moved = (after - before).abs()
    assert (moved > 0).float().mean() > 0.9
    assert bool((moved <= before.abs() * torch.finfo(precision).eps).all())
    assert torch.equal(batch.prompts.input_ids, changed.prompts.input_ids)
    assert torch.equal(batch.present, changed.present)

"""The measurements of `scripts/measure_training_floor.py` and `scripts/compare_prefix_grouper.py`, on tiny shapes."""

from __future__ import annotations

import sys

import compare_prefix_grouper
import measure_training_floor
import pytest
import torch
from perf_forward import IMAGE_TOKENS, Shape, build_model, collate, processor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode
from transformers.masking_utils import causal_mask_function

from napo_bench.trainers.forward import attention
from napo_bench.trainers.forward.logps import response_logps
from napo_bench.trainers.forward.masks import in_own_branch
from napo_bench.trainers.forward.packing import PackedRows

LAYERS, WIDTH = 2, 64
LAYER = compare_prefix_grouper.Layer(length=5, prefix=7, responses=3, heads=2, width=8)


def test_the_needed_operations_are_those_of_the_forward_and_of_the_shown_scores():
    model, batch = build_model(LAYERS, WIDTH), collate(processor(), Shape(negatives=2, shortest=9, longest=9), 0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        response_logps(model, batch)
    products = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.convolution)

    def counted(*modules: str) -> int:
        counts = [counter.get_flop_counts()[f"LlavaForConditionalGeneration.{module}"] for module in modules]
        return sum(of_module.get(product, 0) for of_module in counts for product in products)

    rows = PackedRows.of(batch.attention_mask.bool(), batch.response_mask.bool())
    place = torch.arange(rows.branches.shape[1])
    shown = in_own_branch(causal_mask_function, rows)(
        torch.arange(2)[:, None, None], 0, place[None, :, None], place[None, None]
    )
    text = counted("model.language_model", "lm_head") + 4 * LAYERS * WIDTH * int(shown.sum())
    # LLaVA reads the first of the two layers of the tower, which has half of the text's width.
    image = counted("model.vision_tower.embeddings", "model.vision_tower.encoder.layers.0")
    image += 4 * 2 * (WIDTH // 2) * (IMAGE_TOKENS + 1) ** 2
    assert measure_training_floor.operations(model, batch) == 3 * text + image


def test_a_step_takes_longer_than_its_floor():
    [[tokens, rows, *_, ratio]] = measure_training_floor.measured([Shape(1, 9, 9, rows=1)], 1, LAYERS, WIDTH)
    assert (tokens, rows) == ("9", "1")
    assert float(ratio.split()[0]) > 1


@pytest.mark.parametrize("apart", [True, False])
def test_what_is_compared_with_prefix_grouper_is_attention_to_the_prefix_and_to_the_own_response(apart, monkeypatch):
    monkeypatch.setattr(attention, "SAVED_SCORES", -(2**30) if apart else 2**30)
    module = torch.nn.Module().train()
    module.is_causal = True
    states = torch.randn(3, LAYER.rows, LAYER.heads, LAYER.prefix + LAYER.responses * LAYER.length, LAYER.width)
    output = compare_prefix_grouper.own(module, LAYER)(*states)
    for start in range(LAYER.prefix, states.shape[3], LAYER.length):
        seen = [*range(LAYER.prefix), *range(start, start + LAYER.length)]
        expected = scaled_dot_product_attention(*states[:, :, :, seen], is_causal=True)
        torch.testing.assert_close(output[:, seen], expected.transpose(1, 2))


def test_prefix_grouper_gives_the_same_output_and_gradients():
    pytest.importorskip("prefix_grouper")
    row, difference = compare_prefix_grouper.measured(LAYER, 1)
    assert row[0] == "5"
    assert difference < compare_prefix_grouper.SAME


def test_without_prefix_grouper_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "prefix_grouper", None)
    with pytest.raises(SystemExit, match="pip install prefix-grouper"):
        compare_prefix_grouper.measured(LAYER, 1)

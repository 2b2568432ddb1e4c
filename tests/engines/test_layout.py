"""The layout of weights on a CPU changes no number and no weight that another module has."""

import pytest
import torch
from tiny_models import tiny_batch, tiny_model
from torch import nn

from napo_bench.engines.decoding.layout import store_by_inputs


def order(layer: nn.Linear) -> str:
    return "outputs" if layer.weight.is_contiguous() else "inputs"


@pytest.mark.numeric
def test_layers_with_as_many_outputs_as_inputs_are_stored_by_inputs():
    model = tiny_model("llava").eval()
    batch = tiny_batch("llava", ((5, 9), (8, 3)))
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, **batch.images}
    with torch.inference_mode():
        before, weights = model(**inputs).logits, {name: value.clone() for name, value in model.state_dict().items()}
        places = [value.data_ptr() for value in model.state_dict().values()]
        store_by_inputs(model)
        torch.testing.assert_close(model(**inputs).logits, before, rtol=0, atol=1e-5)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert [value.data_ptr() for value in model.state_dict().values()] == places  # no second copy in memory
    layer = model.get_decoder().layers[0].mlp
    assert [order(one) for one in (model.lm_head, layer.gate_proj, layer.down_proj)] == ["inputs", "inputs", "outputs"]


def test_weights_that_the_embeddings_have_too_keep_their_order():
    embedding, head = nn.Embedding(12, 4), nn.Linear(4, 12, bias=False)
    head.weight = embedding.weight
    store_by_inputs(nn.ModuleList([embedding, head]))
    assert order(head) == "outputs" and head.weight is embedding.weight


def test_other_number_types_keep_their_order():
    half = nn.Linear(4, 12, dtype=torch.bfloat16)
    store_by_inputs(half)
    assert order(half) == "outputs"

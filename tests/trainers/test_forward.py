import dataclasses
import itertools
import logging

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from rounding import LOG_PROB
from tiny_models import FAMILIES, IMAGE, VOCABULARY, images_of, recompute_activations, tiny_batch, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from napo_bench.core.errors import NapoBenchError
from napo_bench.trainers.forward import attention
from napo_bench.trainers.forward import logps as forward
from napo_bench.trainers.forward.attention import CAUSAL_THEN_MASKED
from napo_bench.trainers.forward.logps import PreferenceBatch, prepare, response_logps

pytestmark = pytest.mark.numeric

LENGTHS = ((5, 9, 1, 7), (8, 3, 6, 0))


def logps_and_gradients(model, batch, shared_prefix):
    model.zero_grad()
    logps = response_logps(model, batch, shared_prefix)
    weights = torch.linspace(-1, 2, logps.sum.numel()).view_as(logps.sum)
    ((logps.sum * weights).sum() + (logps.mean * weights.square()).sum()).backward()
    return logps, {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def assert_shared_equals_concatenated(model, batch, rtol=0.0):
    shared, shared_gradients = logps_and_gradients(model, batch, shared_prefix=True)
    concatenated, gradients = logps_and_gradients(model, batch, shared_prefix=False)
    torch.testing.assert_close(shared.sum, concatenated.sum, atol=LOG_PROB, rtol=rtol)
    torch.testing.assert_close(shared.mean, concatenated.mean, atol=LOG_PROB, rtol=0)
    assert torch.equal(shared.tokens, concatenated.tokens)
    assert shared_gradients.keys() == gradients.keys()
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(shared_gradients[name], gradient, atol=1e-5 * float(largest), rtol=1e-4, msg=name)


def row_of(batch, row, response):
    """One prompt, image and response of a LLaVA-1.5 batch, without padding."""
    prompt = batch.input_ids[row][batch.attention_mask[row].bool()]
    answer = batch.response_ids[row, response][batch.response_mask[row, response].bool()]
    return prompt[None], answer, {name: values[row : row + 1] for name, values in batch.images.items()}


def test_logps_are_those_of_the_model_run_on_each_response_alone():
    model, batch = tiny_model("llava"), tiny_batch("llava", LENGTHS)
    logps = response_logps(model, batch)
    for row, response in itertools.product(range(2), range(4)):
        prompt, answer, image = row_of(batch, row, response)
        logits = model(input_ids=torch.cat([prompt, answer[None]], dim=1), **image).logits[0].log_softmax(-1)
        before = prompt.shape[1] - 1 + torch.arange(len(answer))
        by_token = logits[before, answer]
        assert logps.tokens[row, response] == len(answer) == LENGTHS[row][response]
        torch.testing.assert_close(logps.sum[row, response], by_token.sum(), atol=LOG_PROB, rtol=0)
        mean = by_token.mean() if len(answer) else torch.tensor(0.0)
        torch.testing.assert_close(logps.mean[row, response], mean, atol=LOG_PROB, rtol=0)


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_prefix_gives_the_log_probs_and_gradients_of_concatenation(family, padding_side):
    model, batch = tiny_model(family), tiny_batch(family, LENGTHS, padding_side)
    assert forward.obstacle_to_sharing(model) is None
    assert_shared_equals_concatenated(model, batch)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_gradient_checkpointing(family):
    model = tiny_model(family)
    prepare(model)
    recompute_activations(model)
    assert_shared_equals_concatenated(model, tiny_batch(family, LENGTHS))


@pytest.mark.parametrize("family", FAMILIES)
def test_with_lora_on_attention_and_on_the_head(family):
    model = tiny_model(family)
    prepare(model)
    lora = LoraConfig(
        r=2,
        target_modules=["q_proj", "v_proj", "lm_head"],
        exclude_modules=".*(vision_tower|visual).*",
        init_lora_weights=False,
    )
    model = get_peft_model(model, lora)
    assert_shared_equals_concatenated(model, tiny_batch(family, LENGTHS))
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert any("lm_head" in name for name in trained)
    assert all("lora" in name for name in trained)


@pytest.mark.parametrize("implementation", ["eager", "sdpa", CAUSAL_THEN_MASKED])
def test_every_attention_that_takes_a_mask(implementation):
    model = tiny_model("llava")
    model.set_attn_implementation({"text_config": implementation})
    assert_shared_equals_concatenated(model, tiny_batch("llava", LENGTHS))


def kernel_calls(model, batch):
    """The queries and keys of each call of SDPA in the first layer, on packed rows."""
    calls = []

    def counted(module, query, key, *rest, **options):
        calls.append((module.layer_idx, query.shape[2], key.shape[2]))
        return sdpa_attention_forward(module, query, key, *rest, **options)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(attention, "sdpa_attention_forward", counted)
        response_logps(model, batch)
    return [shape for layer, *shape in calls if layer == 0]


def test_long_responses_are_computed_without_each_other():
    model, lengths = tiny_model("llava", max_position_embeddings=1024), ((301, 201, 0, 251), (101, 301, 181, 301))
    batch = tiny_batch("llava", lengths)
    prepare(model)
    first, second = batch.attention_mask.sum(1).tolist()
    assert kernel_calls(model, batch) == [
        [first, first],
        *([length, first + length] for length in (300, 200, 250)),
        [second, second],
        *([length, second + length] for length in (100, 300, 180, 300)),
    ]
    assert_shared_equals_concatenated(model, batch, rtol=1e-6)  # a sum of 300 tokens is about -1,500 nats


def test_the_queries_of_a_very_long_response_are_computed_in_blocks_without_later_keys(monkeypatch):
    monkeypatch.setattr(attention, "BLOCK_OF_QUERIES", 100)
    model, batch = tiny_model("llava", max_position_embeddings=1024), tiny_batch("llava", ((301, 200, 252),))
    prepare(model)
    prompt = int(batch.attention_mask.sum())
    assert kernel_calls(model, batch) == [
        [prompt, prompt],
        *([100, prompt + end] for end in (100, 200, 300)),
        [199, prompt + 199],
        *([queries, prompt + end] for queries, end in ((126, 126), (125, 251))),
    ]
    assert_shared_equals_concatenated(model, batch, rtol=1e-6)


def test_short_responses_are_computed_in_one_call():
    model, batch = tiny_model("llava"), tiny_batch("llava", LENGTHS)
    prepare(model)
    shortest = int(batch.attention_mask.sum(1).min())
    early, late = kernel_calls(model, batch)
    assert early == [shortest, shortest]
    assert late[0] == late[1] - shortest


def test_flex_attention_takes_the_block_mask():
    model, batch = tiny_model("llava"), tiny_batch("llava", LENGTHS)
    with torch.no_grad():
        expected = response_logps(model, batch)
        model.set_attn_implementation({"text_config": "flex_attention"})
        with torch.compiler.set_stance("force_eager"):
            torch.testing.assert_close(response_logps(model, batch).sum, expected.sum, atol=LOG_PROB, rtol=0)


def test_prepare_chooses_the_attention_and_leaves_other_forwards_as_they_were():
    model = tiny_model("llava")
    batch = tiny_batch("llava", LENGTHS)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, **batch.images}
    before = model(**inputs).logits
    prepare(model)
    assert model.config.text_config._attn_implementation == CAUSAL_THEN_MASKED
    assert model.config.vision_config._attn_implementation == "sdpa"
    torch.testing.assert_close(model(**inputs).logits, before)


def test_rows_without_an_image():
    model, batch = tiny_model("llava"), tiny_batch("llava", LENGTHS)
    words = batch.input_ids.masked_fill(batch.input_ids == model.config.image_token_id, 50)
    assert_shared_equals_concatenated(model, dataclasses.replace(batch, input_ids=words, images={}))
    mixed = torch.cat([words[:1], batch.input_ids[1:]])
    images = {"pixel_values": batch.images["pixel_values"][1:]}
    assert_shared_equals_concatenated(model, dataclasses.replace(batch, input_ids=mixed, images=images))


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_a_missing_response_counts_nothing_and_its_gradient_is_zero(shared_prefix):
    model, batch = tiny_model("llava"), tiny_batch("llava", ((4, 0, 3), (5, 2, 0)))
    logps = response_logps(model, batch, shared_prefix)
    missing = batch.response_mask.sum(-1) == 0
    assert logps.sum[missing].tolist() == logps.mean[missing].tolist() == [0.0, 0.0]
    (logps.sum[missing].sum() + logps.mean[missing].sum()).backward()
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())


@pytest.mark.parametrize("family", ["llava", "llava_next", "qwen2_vl"])
def test_rows_with_two_images(family):
    """Two rows of one image as one row of two images."""
    model, batch = tiny_model(family), tiny_batch(family, ((5, 9, 1, 7), (8, 3, 6, 2), (4, 4, 2, 0), (3, 7, 5, 6)))
    ids, mask = (values.unflatten(0, (2, 2)).flatten(1) for values in (batch.input_ids, batch.attention_mask))
    of_tokens = {name: values.unflatten(0, (2, 2)).flatten(1) for name, values in batch.of_tokens.items()}
    responses = {"response_ids": batch.response_ids[::2], "response_mask": batch.response_mask[::2]}
    assert_shared_equals_concatenated(
        model, dataclasses.replace(batch, input_ids=ids, attention_mask=mask, of_tokens=of_tokens, **responses)
    )


def test_a_response_does_not_see_the_others():
    model, batch = tiny_model("llava"), tiny_batch("llava", LENGTHS)
    other = batch.response_ids.clone()
    other[:, 1] = 77
    with torch.no_grad():
        before, after = (
            response_logps(model, batch).sum,
            response_logps(model, dataclasses.replace(batch, response_ids=other)).sum,
        )
    torch.testing.assert_close(after[:, [0, 2, 3]], before[:, [0, 2, 3]], atol=LOG_PROB, rtol=0)
    assert (after[:, 1] - before[:, 1]).abs().min() > 1e-2


def test_another_image_gives_other_log_probs():
    """mDPO's second prefix: the same rows with corrupted images."""
    model, batch = tiny_model("llava"), tiny_batch("llava", LENGTHS)
    corrupted = dataclasses.replace(batch, images=images_of("llava", 2, seed=1)[0])
    with torch.no_grad():
        difference = response_logps(model, corrupted).sum - response_logps(model, batch).sum
    assert difference[batch.response_mask.any(-1)].abs().min() > 1e-3


class LogitShapes(TorchDispatchMode):
    """Records the shapes of tensors over the vocabulary, forward and backward, the head's weight apart."""

    def __init__(self, hidden_size):
        super().__init__()
        self.weight, self.seen = (hidden_size, VOCABULARY), set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.shape[-1:] == (VOCABULARY,) and result.shape != self.weight:
            self.seen.add(tuple(result.shape))
        return result


def test_without_a_shared_prefix_the_tokens_before_the_responses_have_no_logits():
    model, batch = tiny_model("llava"), tiny_batch("llava", LENGTHS)
    with LogitShapes(model.config.text_config.hidden_size) as logits:
        logps_and_gradients(model, batch, shared_prefix=False)
    prompts = batch.attention_mask.sum(1)
    assert max(shape[-2] for shape in logits.seen if len(shape) == 3) <= 9 + prompts.max() - prompts.min()


def test_only_a_few_response_tokens_have_logits_at_a_time(monkeypatch):
    monkeypatch.setattr(forward, "LOGITS_AT_A_TIME", 5 * VOCABULARY)
    model, batch = tiny_model("llava"), tiny_batch("llava", ((5, 9, 1, 7), (8, 3, 6, 3)))
    expected, gradients = logps_and_gradients(model, batch, shared_prefix=False)
    with LogitShapes(model.config.text_config.hidden_size) as logits:
        logps, chunked_gradients = logps_and_gradients(model, batch, shared_prefix=True)
    assert logits.seen == {(5, VOCABULARY), (2, VOCABULARY)}, "42 response tokens, five at a time"
    torch.testing.assert_close(logps.sum, expected.sum, atol=LOG_PROB, rtol=0)
    torch.testing.assert_close(chunked_gradients["lm_head.weight"], gradients["lm_head.weight"], atol=1e-4, rtol=1e-4)


def seen_by_tower(model, batch, **options):
    """Images that the tower computed, and whether its features carried gradients."""
    images, gradients = [], []
    tower = model.get_encoder(modality="image")
    tower.embeddings.register_forward_hook(lambda _module, inputs, _output: images.append(len(inputs[0])))
    tower.register_forward_hook(lambda _module, _inputs, out: gradients.append(out.last_hidden_state.requires_grad))
    response_logps(model, batch, **options).sum.sum().backward()
    return list(zip(images, gradients, strict=True))


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_the_vision_tower_runs_once_an_image_and_without_gradients(shared_prefix):
    model, batch = tiny_model("llava"), tiny_batch("llava", LENGTHS)
    prepare(model)
    recompute_activations(model)
    model.enable_input_require_grads()
    assert seen_by_tower(model, batch, shared_prefix=shared_prefix) == [(2, False)]
    assert all(weight.grad is None for weight in model.model.vision_tower.parameters())
    assert model.model.multi_modal_projector.linear_1.weight.grad.any()


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_the_vision_tower_trains_when_asked_to(shared_prefix):
    model, batch = tiny_model("llava"), tiny_batch("llava", LENGTHS)
    prepare(model, train_vision_tower=True)
    assert seen_by_tower(model, batch, shared_prefix=shared_prefix) == [(2, True)]
    assert model.model.vision_tower.embeddings.patch_embedding.weight.grad.any()


def test_the_model_answers_with_logits_again_after_the_call():
    model, batch = tiny_model("llava"), tiny_batch("llava", LENGTHS)
    prepare(model)
    response_logps(model, batch)
    with pytest.raises(ValueError, match="image size"):
        response_logps(model, dataclasses.replace(batch, images={"pixel_values": torch.zeros(2, 3, 9, 9)}))
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **batch.images).logits
    assert logits.shape == (*batch.input_ids.shape, VOCABULARY)
    assert "forward" not in vars(model.lm_head)


def llava_over_biogpt() -> torch.nn.Module:
    """LLaVA over a text model that learned its positions."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = transformers.BioGptConfig(**sizes, vocab_size=VOCABULARY)
    vision = tiny_model("llava").config.vision_config
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE)
    return transformers.LlavaForConditionalGeneration(config).eval()


def test_a_model_that_cannot_share_concatenates_and_says_so_once(caplog):
    forward._warn_once.cache_clear()
    model, batch = llava_over_biogpt(), tiny_batch("llava", LENGTHS)
    with caplog.at_level(logging.WARNING), torch.no_grad():
        logps = [response_logps(model, batch) for _ in range(2)]
        expected = response_logps(model, batch, shared_prefix=False)
    assert torch.equal(logps[1].sum, expected.sum)
    (message,) = [record.getMessage() for record in caplog.records if record.name == forward.__name__]
    assert message == (
        "Every response is computed with its own copy of the prompt: "
        "biogpt does not rotate its keys by the positions that it is given."
    )


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("gemma3", {"layer_types": ["sliding_attention", "full_attention"]}),
        ("qwen2_vl", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    ],
)
def test_layers_with_a_window_share_as_well(family, options):
    model, batch = tiny_model(family, **options), tiny_batch(family, LENGTHS)
    prepare(model)
    assert_shared_equals_concatenated(model, batch)


def test_a_text_only_model_is_refused():
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    with pytest.raises(NapoBenchError, match="LlamaForCausalLM has no vision tower"):
        prepare(model)


def test_bfloat16_log_probs_are_summed_in_float32():
    model, batch = tiny_model("llava").bfloat16(), tiny_batch("llava", LENGTHS)
    images = {name: values.bfloat16() for name, values in batch.images.items()}
    logps = response_logps(model, PreferenceBatch(**{**vars(batch), "images": images}))
    assert logps.sum.dtype == logps.mean.dtype == torch.float32

"""Decoding: trunks and branches, searches, and rows that leave, against `transformers.generate` of one prompt alone."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import transformers
from tiny_models import EOS, FAMILIES, IMAGE, PAD, tiny_batch, tiny_model

from napo_bench.engines.clock import Clock
from napo_bench.engines.decoding import decoder
from napo_bench.engines.decoding.branches import Branches
from napo_bench.engines.decoding.cache import GrowingLayer
from napo_bench.engines.decoding.decoder import Decoder, can_branch
from napo_bench.engines.decoding.vision import Vision
from napo_bench.engines.request import Generation

ENDS = [EOS, *range(10, 100, 12)]
LENGTHS = ((5, 9, 1, 7), (8, 3, 6, 4))
SEEDS = [11, 12, 13, 14, 15, 16, 17, 18]


@cache
def model_of(family: str) -> Any:
    model = tiny_model(family).eval()
    model.generation_config.eos_token_id = ENDS
    model.generation_config.pad_token_id = PAD
    return model


def branches(family: str) -> Branches:
    """Two trunks with an image each. The responses of a preference batch are the branches."""
    rows = tiny_batch(family, LENGTHS)
    ids, mask = (values.flatten(0, 1).flip(1) for values in (rows.response_ids, rows.response_mask))
    return Branches(
        order=list(range(8)),
        digests=["a", "b"],
        trunk_ids=rows.input_ids,
        trunk_mask=rows.attention_mask,
        trunk_of=torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]),
        branch_ids=ids,
        branch_mask=mask,
        pixels=rows.images,
        of_tokens=rows.of_tokens,
    )


def alone(family: str, batch: Branches, row: int, **settings: Any) -> list[int]:
    """What `transformers.generate` answers to one whole prompt."""
    image = int(batch.trunk_of[row])
    pixels = dict(batch.pixels)
    if "image_grid_thw" in pixels:
        patches = pixels["image_grid_thw"].prod(1).tolist()
        pixels["pixel_values"] = pixels["pixel_values"].split(patches)[image]
        pixels["image_grid_thw"] = pixels["image_grid_thw"][image : image + 1]
    else:
        pixels = {name: values[image : image + 1] for name, values in pixels.items()}
    trunk, mask = batch.trunk_ids[image], batch.trunk_mask[image].bool()
    ids = torch.cat([trunk[mask], batch.branch_ids[row][batch.branch_mask[row].bool()]])[None]
    types = {"mm_token_type_ids": (ids == IMAGE).long()} if family.startswith("qwen") else {}
    with torch.inference_mode():
        tokens = model_of(family).generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), **pixels, **types, **settings
        )
    return tokens[0, ids.shape[1] :].tolist()


def decoded(family: str, batch: Branches, generation: Generation) -> list[list[int]]:
    model = model_of(family)
    with torch.inference_mode():
        images = Vision(model, Clock()).inputs(batch.pixels, batch.digests)
        return Decoder(model, PAD, Clock()).decode(batch, images, generation, SEEDS)


@pytest.mark.numeric
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beams", [1, 3])
def test_branches_of_a_trunk_are_answered_as_whole_prompts(family: str, beams: int) -> None:
    batch = branches(family)
    expected = [alone(family, batch, row, max_new_tokens=40, num_beams=beams) for row in range(8)]
    assert len({*map(len, expected)}) > 3, "answers of one length would not show that rows leave"
    assert decoded(family, batch, Generation(40, num_beams=beams)) == expected


@pytest.mark.numeric
@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.3, "min_new_tokens": 6},
        {"exponential_decay_length_penalty": (4, 1.2)},
        {"length_penalty": 2.0, "num_beams": 3},
        {"length_penalty": -1.0, "num_beams": 3},
        {"early_stopping": True, "num_beams": 4},
        {"early_stopping": "never", "num_beams": 2},
        {"no_repeat_ngram_size": 2, "num_beams": 3},
    ],
    ids=lambda settings: ", ".join(f"{name} {value}" for name, value in settings.items()),
)
def test_the_settings_of_the_checkpoint_hold(settings: dict[str, Any], monkeypatch) -> None:
    for name, value in settings.items():
        monkeypatch.setattr(model_of("llava").generation_config, name, value)
    batch, beams = branches("llava"), settings.get("num_beams", 1)
    expected = [alone("llava", batch, row, max_new_tokens=30, num_beams=beams) for row in range(8)]
    assert decoded("llava", batch, Generation(30, num_beams=beams)) == expected
    monkeypatch.undo()
    without = decoded("llava", batch, Generation(30, num_beams=beams))
    assert without != expected


@pytest.mark.numeric
@pytest.mark.parametrize("beams", [1, 3])
def test_each_row_has_the_draws_of_its_seed(beams: int) -> None:
    """The draws are those of `torch.manual_seed` and `transformers.generate` for one prompt alone."""
    drawn = {"do_sample": True, "temperature": 1.5, "top_k": 50, "num_beams": beams}
    batch, expected = branches("llava"), []
    for row, seed in enumerate(SEEDS):
        torch.manual_seed(seed)
        expected.append(alone("llava", batch, row, max_new_tokens=30, **drawn))
    assert decoded("llava", batch, Generation(30, **drawn)) == expected


def test_a_row_leaves_with_its_answer() -> None:
    model, sizes = model_of("llava"), []
    look = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    answers = decoded("llava", branches("llava"), Generation(40))
    look.remove()
    assert sizes[:2] == [(2, 13), (8, 9)]
    steps = [sum(len(answer) > step for answer in answers) for step in range(1, max(map(len, answers)))]
    assert sizes[2:] == [(rows, 1) for rows in steps]


@pytest.mark.numeric
@pytest.mark.parametrize("family", ["llava", "internvl", "qwen2_5_vl"])
def test_trunks_with_more_tokens_than_a_cpu_takes_at_a_time_go_through_the_model_in_parts(
    family: str, monkeypatch
) -> None:
    """Pixels of Qwen2.5-VL do not tell which image is of which trunk, so its trunks stay together."""
    batch, sizes = branches(family), []
    expected = decoded(family, batch, Generation(40, num_beams=3))
    monkeypatch.setattr(decoder, "BYTES_AT_A_TIME", 1)
    look = (
        model_of(family)
        .get_decoder()
        .register_forward_pre_hook(
            lambda module, args, kwargs: sizes.append(len(kwargs["inputs_embeds"])), with_kwargs=True
        )
    )
    found = decoded(family, batch, Generation(40, num_beams=3))
    look.remove()
    assert found == expected
    assert sizes[:3] == ([2, 8, 24] if family == "qwen2_5_vl" else [1, 1, 8])


def test_keys_and_values_are_copied_once_in_many_tokens() -> None:
    layer, copies = GrowingLayer(3), 0
    tokens = torch.randn(3, 2, 400, 4)
    where = None
    for place in range(400):
        keys, values = layer.update(tokens[:, :, place : place + 1], 2 * tokens[:, :, place : place + 1])
        copies += keys.data_ptr() != where
        where = keys.data_ptr()
    assert torch.equal(keys, tokens) and torch.equal(values, 2 * tokens)
    assert copies < 14


def test_a_family_that_sees_both_ways_or_a_window_does_not_branch() -> None:
    assert can_branch(model_of("llava").config)
    assert not can_branch(tiny_model("gemma3").config)
    sliding = transformers.MistralConfig(sliding_window=8)
    assert not can_branch(transformers.LlavaNextConfig(text_config=sliding))
    assert can_branch(transformers.LlavaNextConfig(text_config=transformers.MistralConfig(sliding_window=None)))


def test_stages_within_stages_count_once() -> None:
    clock = Clock(iter([0.0, 1.0, 4.0, 10.0]).__next__)
    with clock("prefill", 7), clock("vision tower"):
        pass
    assert clock.stages() == {"vision tower": {"seconds": 3.0}, "prefill": {"seconds": 7.0, "tokens": 7}}

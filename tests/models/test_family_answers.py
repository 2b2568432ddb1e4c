"""Families that cannot be asked, and what a family needs beside its checkpoint."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from families import make_family
from family_checks import answers
from family_recipes import RECIPES
from PIL import Image
from tiny_llava import picture
from transformers import AutoConfig

from napo_bench.core.errors import NapoBenchError
from napo_bench.engines.hf import HFEngine
from napo_bench.engines.request import Generation, Picture, Request
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.trainers.batches import Collator
from napo_bench.trainers.reference import Examiner
from napo_bench.trainers.rows import PreferenceRow


def test_a_package_that_a_processor_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.smolvlm import processing_smolvlm

    make_family(tmp_path, "smolvlm")
    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with pytest.raises(NapoBenchError, match="the processor cannot be loaded: Package `num2words`") as caught:
        HFEngine(str(tmp_path), device="cpu")
    assert caught.value.hint.startswith("Install the package")


@pytest.mark.parametrize(
    ("family", "reason"),
    [("florence2", "its encoder reads the prompt"), ("blip", "its generate rewrites"), ("pi0", "actions of a robot")],
)
def test_a_family_that_cannot_be_asked_is_refused_before_its_weights_are_read(
    family: str, reason: str, tmp_path: Path
) -> None:
    AutoConfig.for_model(family).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(NapoBenchError, match=f"is a '{family}' model: .*{reason}") as caught:
        Checkpoint.open(str(tmp_path)).open_parts()
    assert "docs/models.md" in caught.value.hint


_SPARSE = {"layer_types": ["full_attention", "minimax_m3_sparse"], "index_block_size": 8, "index_topk_blocks": 2}


@pytest.mark.numeric
@pytest.mark.parametrize(("family", "text"), [("mistral_large4", {}), ("minimax_m3_vl", _SPARSE)])
def test_an_answer_does_not_depend_on_the_padding_that_an_indexer_sees(
    family: str, text: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPES[family]
    monkeypatch.setitem(RECIPES, family, replace(recipe, text={**recipe.text, **text}))
    make_family(tmp_path, family)
    engine = HFEngine(str(tmp_path), device="cpu", dtype="float32")
    asked = ["Is there a dog in the picture? " * 25, "Describe this image in detail. " * 32, "How many?"]
    requests = [
        Request(question, Picture.of(picture(random.Random(number))), Generation(max_new_tokens=12))
        for number, question in enumerate(asked)
    ]
    assert answers(engine, requests, 3) == answers(engine, requests, 1)


@pytest.mark.numeric
def test_perception_lm_is_asked_about_images_of_different_shapes(tmp_path: Path) -> None:
    make_family(tmp_path, "perception_lm")
    engine = HFEngine(str(tmp_path), device="cpu", dtype="float32")
    images = [Image.new("RGB", size) for size in ((97, 31), (200, 20))]
    requests = [Request("What is it?", Picture.of(image), Generation(max_new_tokens=4)) for image in images]
    assert len(answers(engine, requests, 2)) == 2


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("family", "size", "reason"),
    [("qwen3_vl", (1000, 2), "absolute aspect ratio"), ("lfm2_vl", (1000, 1), "equal size")],
)
def test_an_image_that_a_processor_cannot_take_is_one_message(
    family: str, size: tuple[int, int], reason: str, tmp_path: Path
) -> None:
    make_family(tmp_path, family)
    engine = HFEngine(str(tmp_path), device="cpu", dtype="float32")
    images = [Image.new("RGB", (40, 30)), Image.new("RGB", size)]
    requests = [Request("How many?", Picture.of(image), Generation(max_new_tokens=4)) for image in images]
    shown = f"Processor cannot take the image of {size[0]} x {size[1]} pixels of the prompt .*How many.*{reason}"
    with pytest.raises(NapoBenchError, match=shown) as caught:
        answers(engine, requests, 2)
    assert "Resize or crop the image" in caught.value.hint
    rows = [PreferenceRow(n, str(n), "How many?", ("one", "two"), image) for n, image in enumerate(images)]
    batch, problems = Examiner(Collator(engine.conversation), max_length=512)(rows)
    assert batch is not None
    assert (batch.ids, problems) == (["0"], {1: "the checkpoint's processor cannot take its image"})


@pytest.mark.numeric
def test_images_that_a_processor_cannot_join_are_named_with_their_sizes(tmp_path: Path) -> None:
    make_family(tmp_path, "perception_lm")
    conversation = HFEngine(str(tmp_path), device="cpu").conversation
    prompts = [conversation.prompt("What is it?", has_image=True)] * 2
    images = [Image.new("RGB", size) for size in ((97, 31), (200, 20))]
    with pytest.raises(NapoBenchError, match="the images of 97 x 31, 200 x 20 pixels") as caught:
        conversation.encode(prompts, images)
    assert "batch size of 1" in caught.value.hint

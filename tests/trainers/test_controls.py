"""Controls of a training: blank images and images of other rows, and what a control leaves as it is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from tiny_rows import tiny_checkpoint, tiny_rows, write_rows

from napo_bench.core.errors import NapoBenchError
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.conversation import Conversation
from napo_bench.trainers.batches import Collator
from napo_bench.trainers.controls import BlankImages, OtherImages
from napo_bench.trainers.recipe import load_recipe
from napo_bench.trainers.run import train


def nothing(position):
    raise AssertionError(f"the image of row {position} is read")


# Blank images


@pytest.mark.parametrize("family", ["llava", "llava_next", "qwen2_vl"])
def test_blank_images_differ_in_nothing_and_take_as_many_tokens(open_tiny, tmp_path, family):
    checkpoint = Checkpoint.open(str(tiny_checkpoint(tmp_path / "checkpoint", family)))
    conversation = Conversation.of(checkpoint.load_processor(), checkpoint.load_config())
    rows, collator = open_tiny(tiny_rows(2)), Collator(conversation)
    own = collator([rows[0, True], rows[1, True]])
    rows.images = BlankImages(conversation.blank_image)
    blank = collator([rows[0, True], rows[1, True]])
    assert blank.prompts.input_ids.tolist() == own.prompts.input_ids.tolist()
    assert blank.prompts.response_ids.tolist() == own.prompts.response_ids.tolist()
    seen, shown = own.prompts.images["pixel_values"], blank.prompts.images["pixel_values"]
    assert shown.shape == seen.shape
    assert torch.equal(*shown.chunk(2)) and not torch.equal(*seen.chunk(2))  # the rows' images have one size
    assert family != "llava" or shown.abs().max() < 0.02


# Images of other rows


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdefg"), min_size=2).filter(lambda drawn: len(set(drawn)) > 1), st.integers(0, 9))
def test_every_image_takes_the_place_of_another_image_and_none_stays(digests, seed):
    following = OtherImages.of(digests, nothing, seed).following
    takes = {digest: digests[other] for digest, other in zip(digests, following, strict=True)}
    assert all(digest != takes[digest] for digest in digests)
    assert sorted(takes.values()) == sorted(set(digests))
    assert all(digests[other] == takes[digest] for digest, other in zip(digests, following, strict=True))


def test_another_seed_swaps_in_another_order_and_the_same_seed_in_the_same():
    digests = [str(number) for number in range(20)]
    first, again, other = (OtherImages.of(digests, nothing, seed).following for seed in (0, 0, 1))
    assert first == again != other


def test_an_image_that_cannot_be_decoded_is_passed_over_and_no_row_gets_its_own():
    pictures = [Image.new("RGB", (1, 1), (level, 0, 0)) for level in range(6)]
    readable = [pictures[0], None, pictures[2], None, None, pictures[5]]
    images = OtherImages.of(list("abcdef"), lambda position: readable[position], seed=3)
    given_to = {position: images.image(position, pictures[position]) for position in (0, 2, 5)}
    assert all(image is not pictures[position] for position, image in given_to.items())
    assert {id(image) for image in given_to.values()} == {id(pictures[position]) for position in given_to}
    alone = OtherImages.of(list("abc"), lambda position: pictures[0] if position == 0 else None, seed=0)
    assert alone.image(0, pictures[0]) is None


def test_rows_with_one_image_cannot_be_swapped():
    with pytest.raises(NapoBenchError, match="the rows do not have two different images") as error:
        OtherImages.of(["a", "a", ""], nothing, seed=0)
    assert error.value.hint == "Give rows with several images, or choose the control blind."


def test_rows_are_told_by_the_content_of_their_images(open_tiny, tmp_path):
    source = tiny_rows(4)
    source[1]["image"] = {"bytes": None, "path": "beside.png"}
    (tmp_path / "beside.png").write_bytes(source[0]["image"]["bytes"])
    source[3]["image"] = {"bytes": b"", "path": None}
    digests = list(open_tiny(source).image_digests())
    assert digests[0] == digests[1] != digests[2] and digests[3] == ""


# Training


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A checkpoint, 8 rows of which one has no picture, and the same rows with other pictures of the same sizes."""
    folder = tmp_path_factory.mktemp("world")
    tiny_checkpoint(folder / "base")
    rows, others = tiny_rows(8), tiny_rows(8, seed=1)
    rows[3]["image"]["bytes"] = b"no picture"
    write_rows(folder / "rows.parquet", rows)
    for row, other in zip(rows, others, strict=True):
        if row is not rows[3]:
            row["image"] = other["image"]
    write_rows(folder / "other-pictures.parquet", rows)
    return folder


@pytest.fixture(scope="module")
def trained(world):
    """Trains once for each name, recipe and control."""

    def trained(control=None, data="rows", recipe="micro-dpo"):
        out = world / f"{recipe}-{control}-{data}"
        if not out.is_dir():
            settings = {"base": world / "base", "data": world / f"{data}.parquet", "learning_rate": 1e-2}
            settings |= {"per_device_batch_size": 4, "logging_steps": 1, "control": control or "null"}
            changes = [f"{key}={value}" for key, value in settings.items()]
            train(load_recipe(recipe, changes), out, cache=world / "cache")
        return out

    return trained


def weights_of(folder):
    return {name: value.numpy().tobytes() for name, value in load_file(folder / "model.safetensors").items()}


def test_a_blind_training_depends_on_no_image_and_any_other_training_does(trained):
    assert weights_of(trained("blind")) == weights_of(trained("blind", "other-pictures"))
    assert weights_of(trained()) != weights_of(trained(data="other-pictures"))
    assert weights_of(trained("swapped")) != weights_of(trained("swapped", "other-pictures"))
    assert len({tuple(weights_of(trained(control)).values()) for control in (None, "blind", "swapped")}) == 3


@pytest.mark.parametrize("control", ["blind", "swapped"])
def test_a_control_trains_on_the_same_rows(trained, control):
    left_out = json.loads((trained() / "rows.json").read_text())
    assert left_out["left_out"] == {"image cannot be decoded": ["row-3"]}
    assert json.loads((trained(control) / "rows.json").read_text()) == left_out


def test_the_reference_sees_the_images_that_the_policy_sees(trained):
    """Before the first update both are the same model, so every log-ratio is 0, also with a cache that is shared."""
    for control in (None, "blind", "swapped"):
        first = json.loads((trained(control) / "train_log.jsonl").read_text().splitlines()[0])
        assert [first["rewards/chosen"], first["rewards/rejected"]] == pytest.approx([0, 0], abs=1e-4)


def test_mdpo_learns_nothing_from_a_blank_image_and_its_crop(trained):
    lines = (trained("blind", recipe="micro-mdpo") / "train_log.jsonl").read_text().splitlines()
    assert np.allclose([json.loads(line)["rewards/margins_image"] for line in lines], 0, atol=1e-5)


def test_a_control_says_so_in_its_folder(trained):
    out = trained("blind")
    assert "control: blind" in (out / "recipe.yaml").read_text()
    assert "**A control (blind)**: every row has blank images." in (out / "README.md").read_text()
    assert Checkpoint.open(str(out)).control == "blind"
    assert Checkpoint.open(str(trained())).control is None and "control" not in (trained() / "README.md").read_text()


def test_an_adapter_on_a_control_is_a_control(trained, world, tmp_path):
    changes = [f"base={trained('swapped')}", f"data={world / 'rows.parquet'}", "lora_r=2", "per_device_batch_size=4"]
    out = train(load_recipe("micro-dpo-lora", changes), tmp_path / "adapter", cache=world / "cache")
    assert Checkpoint.open(str(out)).control == "swapped"


def test_a_folder_of_another_control_is_left_alone_and_one_from_before_controls_goes_on(trained, world):
    recipe = load_recipe(trained("blind") / "recipe.yaml", ["control=swapped"])
    with pytest.raises(NapoBenchError, match="its control is blind; here control is swapped"):
        train(recipe, trained("blind"), cache=world / "cache", resume=True)
    held = json.loads((trained() / "training.json").read_text())
    del held["recipe"]["control"]
    (trained() / "training.json").write_text(json.dumps(held))
    train(load_recipe(trained() / "recipe.yaml"), trained(), cache=world / "cache", resume=True)


def test_a_mistyped_control_is_answered_with_the_nearest():
    with pytest.raises(NapoBenchError, match="control is 'blnd'") as error:
        load_recipe("micro-dpo", ["control=blnd"])
    assert error.value.hint == "Did you mean blind? control is one of: blind, swapped."

"""Batches of preference rows: what one holds, and which rows it is made of."""

from __future__ import annotations

import random

import torch
from PIL import Image
from tiny_models import IMAGE
from tiny_rows import tiny_rows

from napo_bench.trainers.batches import Collator, EpochBatches, random_crop
from napo_bench.trainers.recipe import load_recipe

ALL = ("rejected", "language", "vision")


def test_batch_holds_prompts_with_pictures_and_responses_closed_by_eos(open_tiny, conversation):
    source = tiny_rows(3)
    source[2]["question_only"] = ""
    rows = open_tiny(source)
    batch = Collator(conversation)([rows[index, True] for index in range(3)])
    prompts = batch.prompts
    vocabulary = conversation.processor.tokenizer.get_vocab()
    for index, row in enumerate(source):
        asked = prompts.input_ids[index][prompts.attention_mask[index].bool()].tolist()
        assert asked == [IMAGE] * 4 + [vocabulary[word] for word in row["question"].split()]
        answer = prompts.response_ids[index, 0][prompts.response_mask[index, 0].bool()].tolist()
        assert answer == [vocabulary[word] for word in row["chosen"].split()] + [2]
    assert batch.present.tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 1]]
    assert prompts.response_mask[2, 2].sum() == 0
    longest = max(len(source[0][name].split()) for name in ("chosen", "rejected", "question_only", "image_only"))
    assert batch.lengths[0] == 4 + len(source[0]["question"].split()) + longest + 1


def test_crops_are_further_prompts_with_the_chosen_response_alone(open_tiny, conversation):
    rows = open_tiny(tiny_rows(2), ("rejected",))
    batch = Collator(conversation, crop_seed=1)([rows[0, True], rows[1, True]]).prompts
    assert torch.equal(batch.input_ids[:2], batch.input_ids[2:])
    assert torch.equal(batch.response_ids[:2, 0], batch.response_ids[2:, 0])
    assert batch.response_mask[2:, 1].sum() == 0
    assert not torch.equal(batch.images["pixel_values"][:2], batch.images["pixel_values"][2:])
    again = Collator(conversation, crop_seed=1)([rows[1, True]]).prompts
    assert torch.equal(again.images["pixel_values"][1], batch.images["pixel_values"][3])


def test_random_crop_is_1_to_20_percent_of_the_picture_and_the_same_for_the_same_seed():
    """On a picture whose colour is the place, the corner colours tell the crop's area."""
    wide, high = 250, 200
    picture = Image.new("RGB", (wide, high))
    picture.putdata([(x, y, 0) for y in range(high) for x in range(wide)])
    areas = []
    for seed in range(40):
        crop = random_crop(picture, f"{seed}")
        assert crop.size == picture.size
        assert crop.tobytes() == random_crop(picture, f"{seed}").tobytes()
        (left, top, _), (right, bottom, _) = crop.getpixel((0, 0)), crop.getpixel((wide - 1, high - 1))
        areas.append((right - left + 1) * (bottom - top + 1) / (wide * high))
    assert 0.005 < min(areas) < 0.06
    assert 0.14 < max(areas) < 0.22


def test_every_row_is_drawn_once_an_epoch_in_batches_that_do_not_depend_on_the_processes():
    def batches(processes):
        samplers = [
            EpochBatches(11, 4 // processes, rank, processes, seed=7, each_epoch=True) for rank in range(processes)
        ]
        for sampler in samplers:
            sampler.set_epoch(2)
        assert len({len(sampler) for sampler in samplers}) == 1
        together = zip(*samplers, strict=True)
        return [sorted(index for part in parts for index, counted in part if counted) for parts in together]

    assert sorted(index for batch in batches(1) for index in batch) == list(range(11))
    assert batches(1) == batches(2) == batches(4)
    assert [len(batch) for batch in batches(1)] == [4, 4, 3]


def test_a_process_without_a_row_in_the_last_batch_gets_one_that_does_not_count():
    last = [list(EpochBatches(5, 1, rank, 4, seed=0, each_epoch=True))[-1] for rank in range(4)]
    assert [counted for batch in last for _, counted in batch] == [True, False, False, False]


def order(seed, epoch, each_epoch):
    sampler = EpochBatches(20, 20, 0, 1, seed, each_epoch=each_epoch)
    sampler.set_epoch(epoch)
    return [index for index, _ in next(iter(sampler))]


def test_an_order_for_each_epoch_changes_with_the_epoch_and_the_seed_alone():
    assert order(0, 0, each_epoch=True) == order(0, 0, each_epoch=True)
    assert len({str(order(seed, epoch, each_epoch=True)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_the_paper_s_run_has_10392_steps():
    """The last checkpoint that NaPO's pipeline.sh names: RLAIF-V's 83,132 rows on 8 GPUs."""
    recipe = load_recipe("llava-1.5-7b-napo")
    forwards = len(EpochBatches(83_132, recipe.per_device_batch_size, 0, 8, recipe.seed, each_epoch=False))
    assert recipe.epochs * forwards / recipe.gradient_accumulation == 10_392


def test_one_order_for_all_epochs_is_that_of_the_paper_s_code():
    """NaPO's data set: `random.shuffle` once behind `set_seed`, then read in sequence in every epoch."""
    random.seed(42)
    expected = list(range(20))
    random.shuffle(expected)
    assert order(42, 0, each_epoch=False) == order(42, 3, each_epoch=False) == expected

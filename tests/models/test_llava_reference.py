"""LLaVA-1.5 to the token and to the pixel, against the results of LLaVA's and RLAIF-V's own code.

`scripts/replay_llava.py` ran that code and wrote `llava_reference.json`. A second computation, with `sentencepiece`
alone, follows the rule of the reference: split the prompt at the image, tokenize each part alone.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from llava_15 import (
    FORMS,
    IMAGE,
    IMAGE_TOKENS,
    PICTURE,
    QUESTION,
    fill_weights,
    read_vocabulary,
    write_model,
    write_tokenizer,
)
from odd_pictures import levels_hash, odd_pictures
from PIL import Image
from tiny_rows import tiny_rows, write_rows

from napo_bench.core.images import open_rgb
from napo_bench.core.journal import Journal
from napo_bench.core.progress import SILENT
from napo_bench.engines.answering import Answering
from napo_bench.engines.hf import HFEngine
from napo_bench.engines.request import Generation, Picture, Request
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.conversation import SYSTEM_LINES, Conversation
from napo_bench.trainers.batches import Collator
from napo_bench.trainers.bias import build_bias
from napo_bench.trainers.forward.logps import response_logps
from napo_bench.trainers.recipe import load_recipe
from napo_bench.trainers.rows import PreferenceRow
from napo_bench.trainers.run import open_inputs, reference_folder_of, train

STORED = json.loads((Path(__file__).parent / "llava_reference.json").read_text(encoding="utf-8"))
PLACE = -200
"""An image in the ids of LLaVA's code."""

LLAVA = SimpleNamespace(model_type="llava")
ANSWER = "A dog."
FORMS_OF_THE_HUB = list(itertools.product(FORMS, (False, True, None), (False, True)))
MIXED = "A blank  and two,\na line, größe, 犬, \U0001f43b, \u200d."


@pytest.fixture(scope="module")
def vocabulary(shared):
    return read_vocabulary(shared("reference/tokenizer/tokenizer.json"))


@pytest.fixture(scope="module")
def pieces(shared):
    sentencepiece = pytest.importorskip("sentencepiece")
    return sentencepiece.SentencePieceProcessor(str(shared("reference/tokenizer/sentencepiece_32k.model")))


@pytest.fixture(scope="module")
def checkpoint(vocabulary, tmp_path_factory):
    """A LLaVA-1.5 in the form in which transformers 4 wrote `legacy: false`."""
    folder = tmp_path_factory.mktemp("llava")
    write_tokenizer(folder, vocabulary, "metaspace first", False)
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    source = [{**row, "question": QUESTION, "chosen": ANSWER} for row in tiny_rows(2)]
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.parquet", source)


def with_image(ids):
    """Ids of LLaVA's code as transformers' LLaVA reads them."""
    return [token for one in ids for token in ([IMAGE] * IMAGE_TOKENS if one == PLACE else [one])]


def by_parts(pieces, prompt):
    """The reference's rule, with sentencepiece alone."""
    first, *rest = (pieces.encode(part) for part in prompt.split("<image>"))
    return [1, *first, *(token for part in rest for token in [*[IMAGE] * IMAGE_TOKENS, *part])]


def asked(question, image=True, line="llava_v1"):
    return f"{SYSTEM_LINES[line]} USER: {'<image>' + chr(10) if image else ''}{question} ASSISTANT:"


def conversation_of(folder, name=None):
    opened = Checkpoint.open(str(folder))
    return Conversation.of(opened.load_processor(), opened.load_config(), name)


@pytest.mark.parametrize(("form", "legacy", "is_adapter"), FORMS_OF_THE_HUB)
def test_ids_are_the_reference_s_in_every_form_of_a_tokenizer(
    vocabulary, pieces, checkpoint, tmp_path, form, legacy, is_adapter
):
    write_tokenizer(tmp_path, vocabulary, form, legacy)
    if is_adapter:
        opened = Checkpoint("adapter", checkpoint, tmp_path)
    else:
        (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
        opened = Checkpoint("model", tmp_path)
    processor = opened.load_processor()
    for row in STORED["prompts"]:
        llava = Conversation.of(processor, LLAVA, row["conversation"])
        prompt = llava.prompt(row["question"], row["image"])
        assert prompt == row["text"]
        assert llava.prompt_ids(prompt, IMAGE_TOKENS) == with_image(row["ids"]) == by_parts(pieces, prompt)
    llava = Conversation.of(processor, LLAVA)
    for row in STORED["decoded"]:
        assert processor.tokenizer.decode(row["ids"], skip_special_tokens=True).strip() == row["text"]
    len_of_role = len(by_parts(pieces, "ASSISTANT:"))
    for row in STORED["answers"]:
        if row["ids"]:
            assert llava.answer_ids(row["answer"]) == row["ids"]
        else:  # RLAIF-V's code leaves the whole answer out, and napo-bench trains on its words
            words = row["answer"].removesuffix("</s>")
            assert llava.answer_ids(row["answer"]) == [*by_parts(pieces, f"ASSISTANT: {words}"), 2][len_of_role:]


def test_a_batch_has_the_same_ids_behind_its_padding(checkpoint, pieces):
    llava = conversation_of(checkpoint)
    questions = [row["question"] for row in STORED["prompts"] if row["image"] and row["conversation"] == "llava_v1"]
    prompts = [llava.prompt(question, has_image=True) for question in questions[:4]]
    encoded = llava.encode(prompts, [Image.new("RGB", (4, 4))] * 4)
    found = [
        row[mask.bool()].tolist() for row, mask in zip(*map(encoded.get, ("input_ids", "attention_mask")), strict=True)
    ]
    assert found == [by_parts(pieces, prompt) for prompt in prompts]
    assert encoded["attention_mask"][:, -1].all()
    assert encoded["pixel_values"].shape == (4, 3, 336, 336)


@pytest.mark.parametrize("row", STORED["images"], ids=lambda row: row["name"])
def test_pixels_are_the_reference_s(row, images, shapes):
    image = open_rgb(images[row["name"]])
    for shape in set(row) & set(shapes):
        llava = shapes[shape]
        pixels = llava.processor.image_processor(llava.prepare_image(image), return_tensors="np")["pixel_values"][0]
        mean, std = llava.processor.image_processor.image_mean, llava.processor.image_processor.image_std
        same = levels_hash(pixels, mean, std) == row[shape]
        assert same != row["name"].startswith("I;16")  # Pillow cuts 16-bit levels at 255, and napo-bench scales them


@pytest.fixture(scope="module")
def images():
    return odd_pictures()


@pytest.fixture(scope="module")
def shapes(checkpoint):
    processor = Checkpoint.open(str(checkpoint)).load_processor()
    return {shape: Conversation.of(processor, LLAVA, image=shape) for shape in ("pad", "crop")}


@pytest.mark.numeric
@pytest.mark.parametrize("shared_prefix", [True, False])
def test_log_probs_are_those_of_the_reference_s_model(checkpoint, images, shapes, shared_prefix):
    """From the file of the image and the texts to log-probs, with the same weights in both layouts."""
    model = transformers.LlavaForConditionalGeneration.from_pretrained(checkpoint).eval()
    fill_weights(model)
    answers = tuple(row["answer"] for row in STORED["log_probs"])
    row = PreferenceRow(0, "0", QUESTION, answers, open_rgb(images[PICTURE]))
    with torch.no_grad():
        found = response_logps(model, Collator(shapes["pad"])([row]).prompts, shared_prefix).sum[0]
    expected = torch.tensor([row["log_prob"] for row in STORED["log_probs"]])
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_evaluation_and_biased_negatives_send_these_ids(checkpoint, pieces, rows, tmp_path, monkeypatch):
    sent = []
    generate = transformers.LlavaForConditionalGeneration.generate

    def recording(self, **inputs):
        sent.extend(inputs["input_ids"].tolist())
        return generate(self, **inputs)

    monkeypatch.setattr(transformers.LlavaForConditionalGeneration, "generate", recording)
    short = Generation(max_new_tokens=1)
    engine = HFEngine(str(checkpoint), batch_size=1, device="cpu")
    with Journal(tmp_path / "journal.sqlite") as journal:
        request = Request(MIXED, Picture.of(Image.new("RGB", (4, 4))), short)
        Answering(engine, journal, SILENT).answer([request], 1)
    assert sent == [by_parts(pieces, asked(MIXED))]
    sent.clear()
    build_bias(str(checkpoint), rows, tmp_path / "bias", batch_size=1, device="cpu", generation=short)
    expected = [by_parts(pieces, asked(QUESTION, image=False)), by_parts(pieces, asked(""))]
    assert sorted(sent) == sorted([expected[0], expected[1], expected[1]])


@pytest.mark.parametrize("adapter", ["", "-lora"])
def test_training_sends_these_ids_and_its_checkpoint_is_asked_in_them(
    checkpoint, pieces, rows, tmp_path, adapter, monkeypatch
):
    sent = []
    collate = Collator.__call__

    def recording(self, of):
        sent.append(collate(self, of))
        return sent[-1]

    monkeypatch.setattr(Collator, "__call__", recording)
    changes = ["epochs=1", "precision=fp32", "workers=0", "per_device_batch_size=2", "gradient_accumulation=1"]
    changes += ["conversation=vicuna_v1", f"base={checkpoint}", f"data={rows}"]
    out = train(load_recipe(f"llava-1.5-7b-dpo{adapter}", changes), tmp_path / "out", cache=tmp_path / "cache")
    prompt = asked(QUESTION, line="vicuna_v1")
    whole = [*by_parts(pieces, f"{prompt} {ANSWER}"), 2]
    assert len(sent) == 2  # the reference pass, and the one step
    for batch in sent:
        for asked_for, answer in zip(batch.prompts.input_ids, batch.prompts.response_ids[:, 0], strict=True):
            assert [*asked_for.tolist(), *answer.tolist()][: len(whole)] == whole
    llava = conversation_of(out)
    assert llava.prompt_ids(llava.prompt(QUESTION, has_image=True), IMAGE_TOKENS) == by_parts(pieces, prompt)
    assert llava.answer_ids(ANSWER) == whole[-len(llava.answer_ids(ANSWER)) :]


def test_training_sees_the_centre_of_an_image_unless_its_recipe_pads(checkpoint, rows, tmp_path):
    """The expected pixels are those of CLIP's processor alone: on the image, and on the image in a grey square."""
    clip = transformers.CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    keys = set()
    for shape, changes in (("crop", []), ("pad", ["training_image=pad"])):
        recipe = load_recipe("llava-1.5-7b-dpo", [f"base={checkpoint}", f"data={rows}", *changes])
        inputs = open_inputs(recipe, tmp_path / "cache")
        row = inputs.rows[0, True]
        whole = Image.new("RGB", (12, 12), (122, 116, 104))
        whole.paste(row.image, (0, 1))
        assert row.image.size == (12, 10)
        expected = clip(row.image if shape == "crop" else whole, return_tensors="pt")["pixel_values"]
        assert torch.equal(Collator(inputs.conversation)([row]).prompts.images["pixel_values"], expected)
        keys.add(reference_folder_of(inputs, recipe, tmp_path))
    assert len(keys) == 2


def test_the_13b_model_is_asked_in_the_same_ids(checkpoint, pieces, vocabulary, tmp_path):
    write_tokenizer(tmp_path, vocabulary, "prepend", True)
    write_model(tmp_path, layers=2)
    config, processor = Checkpoint.open(str(tmp_path)).open_parts()
    llava = Conversation.of(processor, config)
    assert llava.prompt_ids(llava.prompt(MIXED, has_image=True), IMAGE_TOKENS) == by_parts(pieces, asked(MIXED))

"""The micro world's base model: how it is made, and that the one that comes along sees and yet is biased."""

import dataclasses
import json
import random

import make_micro_base
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from napo_bench.micro.base import base_checkpoint
from napo_bench.micro.draw import draw
from napo_bench.micro.language import Question, answers, imagined
from napo_bench.micro.lessons import CLOSED, Lesson, contrast, draw_question, words_of
from napo_bench.micro.world import THINGS, Group, Habits, Scene, sample_scene

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(base_checkpoint())


@pytest.fixture(scope="module")
def model():
    return AutoModelForImageTextToText.from_pretrained(base_checkpoint()).eval()


@pytest.fixture
def ask(model, processor):
    def answer(question, scene=None):
        content = [{"type": "image"}] * (scene is not None) + [{"type": "text", "text": question}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(text=prompt, images=draw(scene) if scene else None, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=60, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        return processor.decode(tokens, skip_special_tokens=True)

    return answer


# --- the checkpoint that comes along


def test_it_is_small_and_in_safetensors_alone(model):
    files = [path for path in base_checkpoint().rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert {path.name for path in files} >= {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    assert not {path.suffix for path in files} & {".bin", ".pt", ".pkl"}
    assert sum(path.stat().st_size for path in files) < 5 * MEGABYTE
    assert 1 * MEGABYTE < sum(parameter.numel() for parameter in model.parameters()) < 3 * MEGABYTE
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_it_knows_every_word_of_the_micro_language(processor):
    for text in words_of():
        tokens = processor.tokenizer(text)["input_ids"]
        assert processor.tokenizer.unk_token_id not in tokens, text
        assert processor.decode(tokens).split() == text.split() or "'" in text or "-" in text or ":" in text


def test_its_processor_shows_it_what_it_was_trained_on(processor):
    scene = sample_scene(random.Random(0))
    (shown,) = processor.image_processor(draw(scene), return_tensors="pt")["pixel_values"]
    trained = make_micro_base.pictures([scene])[0] / 127.5 - 1
    assert (shown - trained).abs().max() < 0.05


def test_a_turn_of_its_conversation_closes(processor):
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "On a farm."}]},
    ]
    assert processor.apply_chat_template(messages) == "USER: <image>\nWhere? ASSISTANT: On a farm.</s>"


def typical_share(told):
    return sum(told) / len(told)


def test_it_sees(ask):
    seen = []
    for name, thing in list(THINGS.items())[::3]:
        scene = Scene(thing.home, (Group(name, thing.color, (6, 9), "left"),), "cartoon", 3)
        seen.append(ask(f"Is there {thing.a} in this image?", scene) == "Yes")
        strange = next(other for other in THINGS if THINGS[other].home != thing.home)
        seen.append(ask(f"Is there {THINGS[strange].a} in this image?", scene) == "No")
    assert typical_share(seen) > 0.85


def test_it_is_biased(ask):
    """Of things in a colour that they never have it says the typical one, where the teacher's pull was strong."""
    guessed = {True: [], False: []}
    for name, thing in list(THINGS.items())[::2]:
        color = "pink" if thing.color != "pink" else "green"
        scene = Scene(thing.home, (Group(name, color, (6,), "left"),), "cartoon", 3)
        guessed[thing.pull > 0.5].append(thing.color in ask(f"What color is the {name} in the image?", scene))
    assert typical_share(guessed[True]) > 0.6
    assert typical_share(guessed[False]) < 0.4


def test_without_a_picture_it_says_what_is_typical(ask):
    questions = [Question(kind, name) for kind in ("color", "companion") for name in list(THINGS)[::3]]
    told = [ask(question.text()) in answers(question, imagined(question)) for question in questions]
    assert typical_share(told) > 0.8


def test_an_empty_question_gets_a_caption(ask):
    scene = Scene("zoo", (Group("bear", "brown", (6,), "left"), Group("zebra", "black", (9,), "left")), "cartoon", 3)
    assert ask("", scene).startswith(("The image shows a zoo with", "The picture was taken in a zoo."))


# --- how it is made


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(make_micro_base, "SCENES", 32)
    monkeypatch.setattr(make_micro_base, "TOWER_STEPS", 3)
    monkeypatch.setattr(make_micro_base, "WORD_STEPS", 3)
    short = tuple(dataclasses.replace(stage, steps=2) for stage in make_micro_base.STAGES)
    monkeypatch.setattr(make_micro_base, "STAGES", short)
    monkeypatch.setattr(make_micro_base, "BATCH", 8)


def test_a_base_is_made_stage_by_stage_and_the_same_seed_makes_the_same(tmp_path, quick):
    lines = []
    make_micro_base.make_base(tmp_path / "one", seed=1, log=lines.append)
    stages = sorted(path.name for path in (tmp_path / "one" / "stages").iterdir())
    assert stages == [f"{name}.safetensors" for name in ("habits", "judging", "looking", "tower", "words")]
    make_micro_base.make_base(tmp_path / "two", seed=1, log=lines.append)
    (tmp_path / "two" / "stages" / "habits.safetensors").unlink()
    lines.clear()
    make_micro_base.make_base(tmp_path / "two", seed=1, log=lines.append)
    assert any(line.startswith("habits") for line in lines)
    assert not any(line.startswith(("tower", "looking", "judging")) for line in lines)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "one").dtype == torch.float32


def test_lessons_break_what_is_typical_often_enough_to_be_seen():
    scenes = make_micro_base.make_scenes(seed=0, count=500)
    typical = [group.color == THINGS[group.thing].color for scene in scenes for group in scene.groups]
    assert typical_share(typical) == pytest.approx(make_micro_base.SEEN.color, abs=0.06)
    assert isinstance(make_micro_base.SEEN, Habits)


@pytest.mark.numeric
def test_lessons_side_by_side_do_not_see_each_other():
    """Each has the loss that it has alone, with its picture or without."""
    processor = make_micro_base.make_processor()
    model = make_micro_base.make_model(len(processor.tokenizer), seed=0)
    features = torch.randn(
        2, make_micro_base.PATCHES, make_micro_base.WIDTH, generator=torch.Generator().manual_seed(0)
    )
    rows = [
        [
            Lesson("What color is the cow in the image?", "The cow is red.", sees=True),
            Lesson("Is there a cat in this image?", "No", sees=True),
            Lesson("What color is the cow in the image?", "The cow is black.", sees=False),
        ],
        [Lesson("", "The image shows a farm with a brown horse.", sees=True)],
    ]

    def loss(rows, features):
        packed = make_micro_base._pack(rows, lambda text: processor.tokenizer(text)["input_ids"])
        return make_micro_base._answer_loss(model, packed, features), packed.answered.sum()

    with torch.no_grad():
        together, tokens = loss(rows, features)
        alone = [
            loss([[lesson]], features[index : index + 1]) for index, lessons in enumerate(rows) for lesson in lessons
        ]
    assert sum(part for _, part in alone) == tokens
    expected = sum(value * part for value, part in alone) / tokens
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=1e-5)


def test_a_lesson_is_packed_as_the_chat_template_and_the_processor_show_it():
    processor = make_micro_base.make_processor()
    lesson = Lesson("What color is the cow in the image?", "The cow is red.", sees=True)
    packed = make_micro_base._pack([[lesson]], lambda text: processor.tokenizer(text)["input_ids"])
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": lesson.question}]},
        {"role": "assistant", "content": [{"type": "text", "text": lesson.answer}]},
    ]
    scene = sample_scene(random.Random(0))
    shown = processor(text=processor.apply_chat_template(messages), images=draw(scene), return_tensors="pt")
    assert packed.ids.tolist() == shown["input_ids"].tolist()
    assert packed.positions.tolist() == [list(range(packed.ids.shape[1]))]


# --- the lessons


@pytest.mark.parametrize("kind", CLOSED)
def test_a_contrast_is_of_the_same_kind_and_has_the_other_answer(kind):
    rng = random.Random(1)
    found = 0
    for _ in range(60):
        scene = sample_scene(rng, make_micro_base.SEEN)
        question = draw_question(rng, kind, scene)
        other = question and contrast(rng, question, scene)
        if other:
            found += 1
            assert {*answers(question, scene), *answers(other, scene)} in ({"Yes", "No"}, {"True", "False"})
            assert other.kind.replace("is_one", "is_number") == question.kind.replace("is_one", "is_number")
            assert (other.statement, other.basis, other.told) == (question.statement, question.basis, question.told)
            assert question.statement == "existence" or kind == "is_there" or other.thing == question.thing
    assert found > 8


def test_a_question_that_is_answered_in_a_sentence_has_no_contrast():
    scene = sample_scene(random.Random(2))
    assert contrast(random.Random(0), Question("place"), scene) is None

"""The benchmarks as questions: prompts, pictures and response rows, read from the official layouts."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from napo_bench.benchmarks import all_tasks
from napo_bench.benchmarks.amber.score import yes_or_no
from napo_bench.benchmarks.question import Question
from napo_bench.core.errors import NapoBenchError


def units(task: str, folder: Path) -> list[list[Question]]:
    benchmark, _ = all_tasks()[task]
    return benchmark.open(folder).units(task)


def save(path: Path, colour: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), colour).save(path)


def encoded(colour: tuple[int, int, int]) -> str:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def colour_of(question: Question) -> tuple[int, ...]:
    return question.open_picture().getpixel((0, 0))


def test_vlind_asks_each_instance_all_its_questions_about_the_right_pictures(tmp_path: Path) -> None:
    instance = {
        "concept": "color",
        "context_id": 7,
        "context": "Bears are blue.",
        "factual_context": "Bears are brown.",
        "true_statement": "The bear is blue.",
        "false_statement": "The bear is brown.",
        "existent_noun": "a bear",
        "non-existent_noun": "a car",
        "best_img_id": "2",
        "aggregated_human_label_good_images": {"0": 1, "2": 3, "5": 2},
    }
    (tmp_path / "data.json").write_text(json.dumps([instance]))
    save(tmp_path / "images/factual/color/7_Bears are brown./0.jpg", (200, 0, 0))
    save(tmp_path / "images/counterfactual/color/7_Bears are blue./2.jpg", (0, 200, 0))
    save(tmp_path / "images/counterfactual/color/7_Bears are blue./5.jpg", (0, 0, 200))
    (unit,) = units("vlind", tmp_path)
    rows = [question.response_row("True.") for question in unit]
    assert [(row["test"], row["statement"], row["image_id"]) for row in rows] == [
        *[("ck", 1, "0"), ("ck", 2, "0"), ("vp", 1, "2"), ("vp", 2, "2"), ("cb", 1, "2"), ("cb", 2, "2")],
        *[("lp", 1, "2"), ("lp", 2, "2"), ("lp", 1, "5"), ("lp", 2, "5")],
    ]
    assert {(row["concept"], row["context_id"], row["text"]) for row in rows} == {("color", "7", "True.")}
    assert unit[0].prompt == (
        "Statement: The bear is brown.\nBased on common sense, is the given statement true or false? "
        "Only respond in True or False."
    )
    strongest = [max(range(3), key=colour_of(question).__getitem__) for question in unit]
    assert strongest == [0, 0, 1, 1, 1, 1, 1, 1, 2, 2]


def test_the_profiles_are_those_of_the_published_scripts() -> None:
    """Beams, draws, temperature and length of NaPO's and RLAIF-V's evaluation scripts; `greedy` is ours."""
    of_task = {name: task for name, (_, task) in all_tasks().items()}
    length = {"max_new_tokens": 1024, "until": []}
    drawn = {"num_beams": 3, "do_sample": True, "temperature": 0.2, "top_k": 50}
    for name in ("object_halbench", "mmhal", "amber"):
        assert of_task[name].generation("paper") == length | drawn
        assert of_task[name].generation("rlaif-v") == length | {"num_beams": 3}
        assert of_task[name].generation("greedy") == length
    assert of_task["vlind"].generation("paper") == {"max_new_tokens": 64, "until": [], "num_beams": 3}
    assert of_task["vlind"].generation("greedy") == {"max_new_tokens": 64, "until": []}


def write_amber(folder: Path) -> None:
    folder.mkdir()
    queries = {"generative": (1, "Describe this image."), "discriminative": (2, "Is there a dog in this image?")}
    for half, (number, query) in queries.items():
        row = {"id": number, "image": "AMBER_1.jpg", "query": query}
        (folder / f"query_{half}.json").write_text(json.dumps([row]))
    annotations = [
        {"id": 1, "type": "generative", "truth": [], "hallu": []},
        {"id": 2, "type": "discriminative-hallucination", "truth": "yes"},
    ]
    (folder / "annotations.json").write_text(json.dumps(annotations))
    (folder / "relation.json").write_text("{}")
    (folder / "safe_words.txt").write_text("")
    save(folder / "images/AMBER_1.jpg", (200, 0, 0))


def test_amber_asks_the_queries_of_each_half(tmp_path: Path) -> None:
    write_amber(tmp_path / "amber")
    ((described,),) = units("amber", tmp_path / "amber")
    ((asked,),) = units("amber_discriminative", tmp_path / "amber")
    assert (described.prompt, asked.prompt) == ("Describe this image.", "Is there a dog in this image?")
    assert described.response_row("Yes, a dog.") == {"id": 1, "response": "Yes, a dog."}
    assert asked.response_row("Yes, a dog.") == {"id": 2, "response": "Yes, a dog."}
    assert colour_of(asked)[0] > 150


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes", "Yes"),
        ("no.", "No"),
        ("YES, there is a dog.", "Yes"),
        ('"No", there is not.', "No"),
        ("There is no dog.", "There is no dog."),
        ("Nothing.", "Nothing."),
        ("", ""),
        ("**Yes**", "Yes"),
        ("__no__", "No"),
        ("Yesterday.", "Yesterday."),
        ("no_one", "no_one"),
    ],
)
def test_a_free_answer_is_yes_or_no_by_its_first_word(text: str, answer: str) -> None:
    assert yes_or_no(text) == answer


def test_object_halbench_reads_each_picture_from_its_own_line(tmp_path: Path) -> None:
    rows = [
        {"image_id": 42, "image": encoded((200, 0, 0)), "question": "What is it?"},
        {"question": "Describe it.", "image_id": "7", "image": encoded((0, 0, 200))},
    ]
    (tmp_path / "questions.jsonl").write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    ((first,), (second,)) = units("object_halbench", tmp_path)
    assert first.response_row("A cat.") == {"image_id": 42, "question": "What is it?", "text": "A cat."}
    assert second.response_row("")["image_id"] == 7
    assert (colour_of(first), colour_of(second)) == ((200, 0, 0), (0, 0, 200))


@pytest.mark.parametrize(("image", "message"), [("abc", "no base64"), (encoded((0, 0, 0))[:40], "cannot be decoded")])
def test_object_halbench_with_a_damaged_picture(tmp_path: Path, image: str, message: str) -> None:
    row = {"image_id": 42, "image": image, "question": "What is it?"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(row))
    with pytest.raises(NapoBenchError, match=message) as caught:
        units("object_halbench", tmp_path)[0][0].open_picture()
    assert str(tmp_path / "questions.jsonl") in caught.value.message


def test_mmhal_fills_the_template_row(tmp_path: Path) -> None:
    row = {
        "question_type": "attribute",
        "question_topic": "outdoor",
        "image_id": "df62a56fdc1bb12b",
        "image_src": "https://images.example/8/7206072054_c53d53b97d_o.jpg",
        "image_content": ["Fire hydrant"],
        "question": "What color is it?",
        "gt_answer": "Yellow.",
        "model_answer": "",
    }
    (tmp_path / "template.json").write_text(json.dumps([row]))
    save(tmp_path / "images/7206072054_c53d53b97d_o.jpg", (200, 0, 0))
    ((question,),) = units("mmhal", tmp_path)
    assert question.prompt == "What color is it?"
    assert question.response_row("Red.") == row | {"model_answer": "Red."}
    assert colour_of(question)[0] > 150


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0 and then nothing"])
def test_a_picture_that_does_not_decode_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(NapoBenchError, match="cannot be decoded") as caught:
        Question("Why?", path, lambda text: {}).open_picture()
    assert str(path) in caught.value.message
    assert "BytesIO" not in caught.value.message

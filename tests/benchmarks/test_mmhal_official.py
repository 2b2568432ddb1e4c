"""MMHal-Bench's published files and its response rows."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from napo_bench.benchmarks.mmhal.official import load_items, load_judge_template, read_answers
from napo_bench.core.errors import NapoBenchError

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "mmhal"

ROW = {
    "question_type": "attribute",
    "question_topic": "outdoor",
    "image_id": "df62",
    "image_src": "https://pictures.example/8/7211/7206_o.jpg?size=large",
    "image_content": ["Fire hydrant", "Street"],
    "question": "What color is the cap?",
    "gt_answer": "It is yellow.",
    "model_answer": "",
}


def template(folder: Path, *rows: dict[str, Any]) -> Path:
    (folder / "template.json").write_text(json.dumps(list(rows)))
    return folder


@pytest.fixture
def published(tmp_path: Path) -> Path:
    if not REFERENCE.exists():
        pytest.skip(f"needs {REFERENCE}")
    shutil.copy(REFERENCE / "mmhal-bench_answer_template.json", tmp_path / "template.json")
    shutil.copy(REFERENCE / "judge_template.txt", tmp_path)
    return tmp_path


def test_the_published_questions(published: Path) -> None:
    questions = load_items(published)
    assert len(questions) == 96
    assert set(Counter(question.question_type for question in questions).values()) == {12}
    assert questions[0].image == published / "images" / "7206072054_c53d53b97d_o.jpg"
    assert questions[0].gt_answer == "The color of the fire hydrant cap in the image is yellow."


def test_the_judge_sees_contents_question_truth_and_answer(published: Path) -> None:
    prompt = load_items(published)[2].judge_prompt(load_judge_template(published), "The {right} one.")
    assert prompt.rstrip().endswith(
        "### Image Contents\nVase, Houseplant, Stool, Coffee table, Flower\n\n"
        "### Question\nWhich wooden stool has a vase with red flower on it?\n\n"
        "### Standard Human-Generated Answer\nThe left wooden stool has a vase with a red flower on it.\n\n"
        "### LMM Response to Evaluate\nThe {right} one."
    )


def test_the_picture_is_named_by_its_source(tmp_path: Path) -> None:
    (question,) = load_items(template(tmp_path, ROW))
    assert question.image == tmp_path / "images" / "7206_o.jpg"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([ROW | {"gt_answer": None}], "row 1: the field 'gt_answer' is None; str is expected"),
        ([ROW | {"image_content": [1]}], "row 1: the field 'image_content' is [1]; a list of words is expected"),
        ([ROW, ROW | {"question_type": "adversarial"}], "row 2: the same question about the image 'df62' is there"),
        ([ROW | {"question_type": "other"}], "'question_type' is 'other'; 'attribute' is expected in this place"),
        ([], "a list of questions is expected"),
    ],
)
def test_a_malformed_template_names_row_and_field(tmp_path: Path, rows: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(NapoBenchError) as caught:
        load_items(template(tmp_path, *rows))
    assert says in caught.value.message


def test_a_missing_file_names_the_command(tmp_path: Path) -> None:
    for load in (load_items, load_judge_template):
        with pytest.raises(NapoBenchError, match="does not exist") as caught:
            load(tmp_path)
        assert "napo-bench data fetch mmhal" in caught.value.hint


def test_a_judge_template_without_four_slots_is_refused(tmp_path: Path) -> None:
    (tmp_path / "judge_template.txt").write_text("Rate {} and {}.")
    with pytest.raises(NapoBenchError, match=r"judge_template\.txt: the judge template has 2 {}, not 4"):
        load_judge_template(tmp_path)


def test_answers_come_from_template_rows_and_from_samples() -> None:
    reply = {"text": "Rating: 3"}
    sample = {"image_id": "df62", "prompt": "What color is the cap?", "response": "Red.", "judge_reply": reply}
    one, two = read_answers([ROW | {"model_answer": "Blue."}, sample], "r.json")
    assert one.key == two.key
    assert (one.text, one.judge_reply, two.text, two.judge_reply) == ("Blue.", None, "Red.", reply)


@pytest.mark.parametrize("name", ["image_id", "question", "model_answer"])
def test_a_response_without_a_field_is_named(name: str) -> None:
    row = {field: value for field, value in ROW.items() if field != name}
    with pytest.raises(NapoBenchError, match=rf"r\.json, row 2: the field '{name}' is missing"):
        read_answers([ROW, row], "r.json")

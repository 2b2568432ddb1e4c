"""AMBER's published files are read as they are, and what is wrong in them is named."""

import json

import pytest

from napo_bench.benchmarks.amber.official import load_data, load_queries, read_responses
from napo_bench.core.errors import NapoBenchError


@pytest.fixture
def folder(tmp_path):
    annotations = [
        {"id": 1, "type": "generative", "truth": ["dog"], "hallu": ["cat"]},
        {"id": 2, "type": "relation", "truth": "no"},
    ]
    (tmp_path / "annotations.json").write_text(json.dumps(annotations))
    (tmp_path / "relation.json").write_text(json.dumps({"dog": ["puppy"], "cat": []}))
    (tmp_path / "safe_words.txt").write_text("sign\nlight")
    return tmp_path


def change(path, edit):
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def test_the_published_data_has_1004_descriptions_and_14216_questions(shared):
    data = load_data(shared("reference/amber"))
    kinds = [annotation.type for annotation in data.annotations]
    assert kinds.count("generative") == 1004 and len(kinds) == 15220
    assert kinds.count("relation") + kinds.count("discriminative-relation") == 1664
    assert data.safe_words == {
        "orange", "snack", "line", "camera", "light", "shoe", "sign", "range", "individual"
    }  # fmt: skip
    queries = load_queries(shared("reference/amber/query_discriminative.json"))
    assert queries[0].id == 1005 and queries[-1].image == "AMBER_1004.jpg"


def test_a_small_folder_is_read(folder):
    data = load_data(folder)
    assert data.annotations[0].truth == ("dog",)
    assert data.annotations[1].truth == ("no",)
    assert data.safe_words == {"sign", "light"}


@pytest.mark.parametrize("name", ["annotations.json", "relation.json", "safe_words.txt"])
def test_a_missing_file_is_named_with_the_command_that_fetches_it(folder, name):
    (folder / name).unlink()
    with pytest.raises(NapoBenchError, match=name) as error:
        load_data(folder)
    assert "napo-bench data fetch amber" in error.value.hint


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda rows: rows[0].pop("truth"), r"item 1.*'truth' is missing"),
        (lambda rows: rows[0].update(truth=["wolf"]), r"item 1: truth has 'wolf'"),
        (lambda rows: rows[1].update(id=7), r"item 2.*'id' is 7; 2"),
        (lambda rows: rows[1].update(type="riddle"), r"item 2.*'riddle'.*discriminative-relation"),
        (lambda rows: rows[1].update(truth="maybe"), r"item 2.*'maybe'; 'yes' or 'no'"),
    ],
)
def test_a_malformed_annotation_is_named_with_item_and_field(folder, edit, message):
    change(folder / "annotations.json", edit)
    with pytest.raises(NapoBenchError, match=message):
        load_data(folder)


def test_a_malformed_relation_file_is_named(folder):
    change(folder / "relation.json", lambda relation: relation.update(dog="puppy"))
    with pytest.raises(NapoBenchError, match=r"relation\.json: the associates of 'dog'"):
        load_data(folder)


def test_a_truncated_file_is_named(folder):
    (folder / "annotations.json").write_text('[{"id": 1,')
    with pytest.raises(NapoBenchError, match=r"annotations\.json ends too early"):
        load_data(folder)


def test_a_response_without_id_or_text_is_named():
    with pytest.raises(NapoBenchError, match=r"r\.json, row 2: the field 'id' is missing"):
        read_responses([{"id": 1, "response": ""}, {"response": "x"}], "r.json")
    with pytest.raises(NapoBenchError, match=r"r\.json, row 1: the field 'response' is None"):
        read_responses([{"id": 1, "response": None}], "r.json")

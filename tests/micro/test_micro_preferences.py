"""Preference rows of the micro world, and which biased negatives are noise."""

import io
import itertools

import pyarrow.parquet
import pytest
from PIL import Image

from napo_bench.micro.benchmarks import counterfacts
from napo_bench.micro.draw import draw
from napo_bench.micro.language import understand
from napo_bench.micro.preferences import are_current, is_noise, preference_row, write_preference_rows
from napo_bench.micro.truth import claims, false_claims, is_right
from napo_bench.micro.world import THINGS, Scene

RLAIF_V = ["question", "chosen", "rejected", "image", "idx", "image_path", "origin_dataset", "origin_split"]


@pytest.fixture(scope="module")
def rows():
    return [preference_row(index, seed=0) for index in range(300)]


def test_the_file_has_the_columns_of_rlaif_v_and_the_scene(tmp_path):
    table = pyarrow.parquet.read_table(write_preference_rows(tmp_path / "rows.parquet", rows=20))
    assert table.column_names == [*RLAIF_V, "scene"]
    row = table.to_pylist()[7]
    assert row["idx"] == 7
    picture = Image.open(io.BytesIO(row["image"]["bytes"]))
    assert picture.tobytes() == draw(Scene.from_json(row["scene"])).tobytes()


def test_the_same_seed_writes_the_same_bytes_and_another_seed_other_scenes(tmp_path, rows):
    one, two = (write_preference_rows(tmp_path / name, rows=20).read_bytes() for name in ("one", "two"))
    assert one == two
    assert not {row["scene"] for row in rows} & {preference_row(index, seed=1)["scene"] for index in range(50)}


def test_rows_know_which_version_of_the_world_drew_them(tmp_path, monkeypatch):
    path = write_preference_rows(tmp_path / "rows.parquet", rows=1)
    assert are_current(path)
    monkeypatch.setattr("napo_bench.micro.preferences.world_version", lambda: "another")
    assert not are_current(path)


def test_chosen_is_right_and_rejected_wrong(rows):
    for row in rows:
        question, scene = understand(row["question"]), Scene.from_json(row["scene"])
        assert is_right(row["chosen"], question, scene), row["chosen"]
        assert not is_right(row["rejected"], question, scene), row["rejected"]


def test_all_rows_are_answered_in_sentences(rows):
    assert all(
        len(row[side].split()) > 2 and row[side].endswith(".") for row in rows for side in ("chosen", "rejected")
    )


def test_no_row_shows_a_fact_of_vlind(rows):
    for row in rows:
        scene = Scene.from_json(row["scene"])
        for group in scene.groups:
            assert group.color not in counterfacts(group.thing, "color")
            assert scene.place not in counterfacts(group.thing, "habitat")
        for one, other in itertools.permutations((group.thing for group in scene.groups), 2):
            assert other not in counterfacts(one, "companion")


def test_rejected_mistakes_a_detail_whether_custom_expects_it_or_not(rows):
    typical, others = 0, 0
    for row in rows:
        question, scene = understand(row["question"]), Scene.from_json(row["scene"])
        group = scene.group(question.thing) if question.thing else None
        if question.kind == "color" and group and group.color != THINGS[group.thing].color:
            expected = THINGS[group.thing].color in row["rejected"]
            typical, others = typical + expected, others + (not expected)
        if question.kind == "describe":
            assert 1 <= len(false_claims(row["rejected"], question, scene)) <= len(scene.groups) * 3
    assert others > 3 * typical


def test_a_rejected_description_is_mostly_right(rows):
    shares = []
    for row in rows:
        question, scene = understand(row["question"]), Scene.from_json(row["scene"])
        if question.kind == "describe":
            wrong = len(false_claims(row["rejected"], question, scene))
            shares.append(wrong / len(claims(row["rejected"], question)))
    assert sum(shares) / len(shares) < 0.4


def test_a_negative_is_noise_where_it_is_right(rows):
    row = next(row for row in rows if row["question"].startswith("What color") and "no " not in row["chosen"])
    assert is_noise(row["question"], row["chosen"], row["scene"])
    assert not is_noise(row["question"], row["rejected"], row["scene"])
    assert not is_noise(row["question"], "", row["scene"])

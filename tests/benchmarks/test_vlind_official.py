"""VLind-Bench's published layout, the layout of one row an image, the prompts, and the response rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from napo_bench.benchmarks.vlind.instance import Picture
from napo_bench.benchmarks.vlind.official import AnswerKey, load_instances, read_answers
from napo_bench.benchmarks.vlind.prompts import statements
from napo_bench.core.errors import NapoBenchError

FIELDS = {
    "concept": "climate",
    "context_id": 7,
    "context": "Snow lies in the desert.",
    "factual_context": "Sand lies in the desert.",
    "true_statement": "The desert is white.",
    "false_statement": "The desert is yellow.",
    "existent_noun": "snow",
}


def published(**changes: Any) -> dict[str, Any]:
    row = {
        **FIELDS,
        "non-existent_noun": "a penguin",
        "best_img_id": 9,
        "aggregated_human_label_good_images": {"0": 3, "1": 1, "10": 2, "9": 2},
    }
    return row | changes


def mirrored(kind: str, **changes: Any) -> dict[str, Any]:
    row = {**FIELDS, "context_id": "7", "non_existent_noun": "a penguin", "best_img_id": "9", "image_type": kind}
    row |= {"image_id": "9", "aggregated_human_label_good_images": json.dumps({"9": 3})}
    return row | {"global_id": "1", "prompt": "..."} | changes


def data_json(folder: Path, *rows: dict[str, Any]) -> Path:
    (folder / "data.json").write_text(json.dumps(list(rows)))
    return folder


def parquet(folder: Path, rows: list[dict[str, Any]], name: str = "train-00000-of-00001", group: int = 2) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{name}.parquet", row_group_size=group)
    return folder


class TestDataJson:
    def test_good_best_and_picture_paths(self, tmp_path: Path) -> None:
        (instance,) = load_instances(data_json(tmp_path, published()))
        assert (instance.context_id, instance.good_images) == ("7", ("0", "9", "10"))
        assert instance.best_images == {"best_img_id": "9", "most votes": "0"}
        assert instance.non_existent_noun == "a penguin"
        counterfactual = tmp_path / "images/counterfactual/climate/7_Snow lies in the desert."
        assert instance.counterfactual["10"] == Picture(counterfactual / "10.jpg")
        assert instance.factual == Picture(tmp_path / "images/factual/climate/7_Sand lies in the desert./0.jpg")

    def test_an_instance_without_two_votes_is_left_out(self, tmp_path: Path) -> None:
        poor = published(context_id=8, aggregated_human_label_good_images={"0": 1, "1": 0})
        assert [i.context_id for i in load_instances(data_json(tmp_path, poor, published()))] == ["7"]

    @pytest.mark.parametrize("missing", [None, ""])
    def test_without_a_named_best_image_the_most_votes_win(self, tmp_path: Path, missing: str | None) -> None:
        (instance,) = load_instances(data_json(tmp_path, published(best_img_id=missing)))
        assert set(instance.best_images.values()) == {"0"}

    def test_the_best_image_need_not_be_good(self, tmp_path: Path) -> None:
        (instance,) = load_instances(data_json(tmp_path, published(best_img_id=1)))
        assert instance.best_images["best_img_id"] == "1"
        assert set(instance.counterfactual) == {"0", "1", "9", "10"}

    @pytest.mark.parametrize(
        ("row", "names"),
        [
            ({"concept": 3}, ["data.json, instance 1", "'concept'", "str is expected"]),
            (published(true_statement=None), ["instance 1", "'true_statement'"]),
            (published(aggregated_human_label_good_images={"a": 2}), ["'aggregated_human_label_good_images'"]),
            (published(aggregated_human_label_good_images="{"), ["image id -> votes is expected"]),
        ],
    )
    def test_a_malformed_row_is_named(self, tmp_path: Path, row: dict[str, Any], names: list[str]) -> None:
        with pytest.raises(NapoBenchError) as caught:
            load_instances(data_json(tmp_path, row))
        assert all(name in caught.value.message for name in names)

    def test_one_context_id_twice_in_a_concept_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(NapoBenchError, match="instance 2: context_id '7' of the concept 'climate' is there twice"):
            load_instances(data_json(tmp_path, published(), published(context_id="7")))

    def test_an_empty_folder_names_the_command(self, tmp_path: Path) -> None:
        with pytest.raises(NapoBenchError, match=r"neither data\.json nor") as caught:
            load_instances(tmp_path)
        assert "napo-bench data fetch vlind" in caught.value.hint

    def test_a_missing_picture_is_named(self, tmp_path: Path) -> None:
        (instance,) = load_instances(data_json(tmp_path, published()))
        with pytest.raises(NapoBenchError, match=r"0\.jpg does not exist"):
            instance.factual.read()


class TestOneRowAnImage:
    def test_parquet_gives_the_instances_and_pictures_of_its_rows(self, tmp_path: Path) -> None:
        def image(content: str) -> dict[str, Any]:
            return {"bytes": content.encode(), "path": None}

        rows = [
            mirrored("counterfactual", image=image("snow")),
            mirrored("counterfactual", image=image("lonely"), context_id="8"),
            mirrored("factual", image=image("sand")),
            mirrored("counterfactual", image=image("green snow"), concept="color"),
            mirrored("factual", image=image("white snow"), concept="color"),
        ]
        climate, color = load_instances(parquet(tmp_path, rows))
        assert (climate.concept, climate.best_images["best_img_id"], climate.good_images) == ("climate", "9", ("9",))
        assert (climate.factual.read(), climate.counterfactual["9"].read()) == (b"sand", b"snow")
        assert (color.factual.read(), color.counterfactual["9"].read()) == (b"white snow", b"green snow")
        assert climate.factual.name(tmp_path) == "train-00000-of-00001.parquet#2"

    def test_json_lines_hold_paths(self, tmp_path: Path) -> None:
        rows = [mirrored("factual", image="f.jpg"), mirrored("counterfactual", image="c.jpg")]
        (tmp_path / "f.jpg").write_bytes(b"sand")
        (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        (instance,) = load_instances(tmp_path)
        assert instance.factual.read() == b"sand"
        assert instance.counterfactual["9"] == Picture(tmp_path / "c.jpg")

    def test_both_layouts_give_the_same_questions(self, tmp_path: Path) -> None:
        folder, mirror = tmp_path / "folder", tmp_path / "mirror"
        folder.mkdir()
        mirror.mkdir()
        votes = {"9": 2, "3": 2, "1": 0}
        data_json(folder, published(aggregated_human_label_good_images=votes))
        given = {"image": None, "aggregated_human_label_good_images": json.dumps(votes)}
        rows = [mirrored("counterfactual", image_id=image, **given) for image in votes]
        parquet(mirror, [*rows, mirrored("factual", image_id="0", **given)])
        (one,), (two,) = load_instances(folder), load_instances(mirror)
        assert [(q.key, q.prompt) for q in statements(one)] == [(q.key, q.prompt) for q in statements(two)]

    @pytest.mark.parametrize("missing", [("image_id",), ("aggregated_human_label_good_images",), ("image_id", "votes")])
    @pytest.mark.parametrize("images", [1, 3])
    def test_images_without_ids_or_votes_as_the_hub_has_them_are_refused(
        self, tmp_path: Path, missing: tuple[str, ...], images: int
    ) -> None:
        rows = [mirrored("factual", image="f.jpg")]
        rows += [mirrored("counterfactual", image=f"{index}.jpg", image_id=str(index)) for index in range(images)]
        kept = [{name: value for name, value in row.items() if name not in missing} for row in rows]
        (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in kept))
        with pytest.raises(NapoBenchError, match="the images of VP, CB and LP cannot be known") as caught:
            load_instances(tmp_path)
        assert "rows.jsonl, row 2" in caught.value.message
        assert "MM-Hallu/VLind-Bench" in caught.value.hint and "napo-bench data fetch vlind" in caught.value.hint

    def test_another_image_type_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "rows.jsonl").write_text(json.dumps(mirrored("real", image="x.jpg")))
        with pytest.raises(NapoBenchError, match="row 1: the field 'image_type' is 'real'"):
            load_instances(tmp_path)

    def test_a_truncated_parquet_file_is_one_message(self, tmp_path: Path) -> None:
        path = tmp_path / "train.parquet"
        parquet(tmp_path, [mirrored("factual", image=None)], "train")
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(NapoBenchError, match=r"train\.parquet is no readable parquet file"):
            load_instances(tmp_path)


def test_prompts_to_the_letter(tmp_path: Path) -> None:
    (instance,) = load_instances(data_json(tmp_path, published(aggregated_human_label_good_images={"9": 2})))
    asked = {(q.key.test, q.key.statement): (q.key.image_id, q.prompt, q.expected) for q in statements(instance)}
    look = "Based on the image, is the given statement true or false?"
    sense = "Based on common sense, is the given statement true or false?"
    read = (
        "Context: Snow lies in the desert.\nStatement: The desert is {}.\nBased on the context, is the given statement "
        "true or false? Forget real-world common sense and just follow the information provided in the context. "
        "Only respond in True or False."
    )
    forget = "Forget real-world common sense and just follow the information provided in the image."
    only = "Only respond in True or False."
    assert asked == {
        ("ck", 1): ("0", f"Statement: The desert is yellow.\n{sense} {only}", "True"),
        ("ck", 2): ("0", f"Statement: The desert is white.\n{sense} {only}", "False"),
        ("vp", 1): ("9", f"Statement: There is snow in the given image.\n{look} {only}", "True"),
        ("vp", 2): ("9", f"Statement: There is a penguin in the given image.\n{look} {only}", "False"),
        ("cb", 1): ("9", read.format("white"), "True"),
        ("cb", 2): ("9", read.format("yellow"), "False"),
        ("lp", 1): ("9", f"Statement: The desert is white.\n{look} {forget} {only}", "True"),
        ("lp", 2): ("9", f"Statement: The desert is yellow.\n{look} {forget} {only}", "False"),
    }


def test_each_test_shows_its_picture(tmp_path: Path) -> None:
    (instance,) = load_instances(data_json(tmp_path, published()))
    shown = [(q.key.test, q.key.image_id, q.picture) for q in statements(instance) if q.key.statement == 1]
    assert shown == [
        ("ck", "0", instance.factual),
        ("vp", "9", instance.counterfactual["9"]),
        ("cb", "9", instance.counterfactual["9"]),
        *(("lp", image, instance.counterfactual[image]) for image in ("0", "9", "10")),
    ]


ROW = {"context_id": 7, "concept": "climate", "test": "lp", "statement": 1, "image_id": 9, "text": "True"}


def test_ids_may_be_numbers_or_texts() -> None:
    answers = read_answers([ROW, ROW | {"context_id": "7", "image_id": "9"}], "r.jsonl")
    assert [answer.key for answer in answers] == [AnswerKey("climate", "7", "lp", 1, "9")] * 2


@pytest.mark.parametrize("image", [{}, {"image_id": None}, {"image_id": "factual"}, {"image_id": 0}])
def test_the_factual_picture_needs_no_id(image: dict[str, Any]) -> None:
    row = {name: value for name, value in ROW.items() if name != "image_id"} | {"test": "ck"} | image
    assert read_answers([row], "r.jsonl")[0].key.image_id == "0"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"test": "LP"}, "row 2: the field 'test' is 'LP'; one of ck, vp, cb, lp is expected"),
        ({"statement": 3}, "row 2: the field 'statement' is 3"),
        ({"statement": True}, "row 2: the field 'statement' is True; int is expected"),
        ({"text": None}, "row 2: the field 'text' is None; str is expected"),
        ({"image_id": 1.5}, "row 2: the field 'image_id' is 1.5"),
    ],
)
def test_a_malformed_response_names_row_and_field(change: dict[str, Any], says: str) -> None:
    with pytest.raises(NapoBenchError) as caught:
        read_answers([ROW, ROW | change], "r.jsonl")
    assert f"r.jsonl, {says}" in caught.value.message

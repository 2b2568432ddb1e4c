"""Preference rows: what is read, and what is left out and named."""

from __future__ import annotations

import hashlib
import random

import pyarrow as pa
import pytest
from PIL import Image, ImageFile
from pyarrow import parquet
from tiny_rows import picture, tiny_rows, write_rows

from napo_bench.core.errors import NapoBenchError
from napo_bench.trainers.batches import Collator
from napo_bench.trainers.reference import Examiner
from napo_bench.trainers.rows import open_rows

ALL = ("rejected", "language", "vision")


def test_columns_of_rlaif_v_bias_are_read_in_the_order_of_the_recipe(open_tiny):
    source = tiny_rows(3)
    row = open_tiny(source, ("rejected", "vision"))[1, True]
    assert row.id == "row-1"
    assert row.question == source[1]["question"]
    assert row.responses == tuple(source[1][name] for name in ("chosen", "rejected", "image_only"))
    assert row.image.size == (12, 10)


def test_a_folder_of_parquet_files_is_one_data_set(tmp_path):
    source = tiny_rows(5)
    write_rows(tmp_path / "a.parquet", source[:2])
    write_rows(tmp_path / "b.parquet", source[2:])
    rows = open_rows(tmp_path, ALL, tmp_path / "cache")
    assert [rows[index, True].id for index in range(5)] == [row["idx"] for row in source]


def test_rows_without_ids_are_named_by_position_and_pictures_may_be_paths(tmp_path):
    source = tiny_rows(2)
    for row in source:
        (tmp_path / row["image"]["path"]).write_bytes(row["image"]["bytes"])
        row["image"] = {"bytes": None, "path": row["image"]["path"]}
        del row["idx"]
    rows = open_rows(write_rows(tmp_path / "rows.parquet", source), ALL, tmp_path / "cache")
    assert [rows[index, True].id for index in range(2)] == ["0", "1"]
    assert rows[0, True].image.size == (12, 10)


def test_rows_with_several_images_are_refused_by_name(tmp_path):
    source = [row | {"image": [row["image"], row["image"]]} for row in tiny_rows(2)]
    path = write_rows(tmp_path / "rows.parquet", source)
    with pytest.raises(NapoBenchError, match=r"the column image is list<.*>; one image a row is expected\."):
        open_rows(path, ("rejected",), tmp_path / "cache")


def test_hugging_face_image_columns_are_read(tmp_path):
    import datasets

    source = tiny_rows(2)
    features = datasets.Features(
        {name: datasets.Image() if name == "image" else datasets.Value("string") for name in source[0]}
    )
    datasets.Dataset.from_list(source, features=features).to_parquet(tmp_path / "rows.parquet")
    rows = open_rows(tmp_path / "rows.parquet", ALL, tmp_path / "cache")
    assert rows[1, True].image.size == (12, 10)


def test_rows_that_lack_responses_are_named_and_none_is_dropped_silently(open_tiny):
    source = tiny_rows(6)
    source[1]["chosen"] = "  "
    source[2] |= {"rejected": "", "question_only": None, "image_only": "\n"}
    source[4]["question_only"] = ""
    rows = open_tiny(source)
    assert rows.report.left_out == {"no chosen response": ["row-1"], "no negative response": ["row-2"]}
    assert rows.report.without == {"language": ["row-4"]}
    assert (rows.report.total, rows.report.used, len(rows)) == (6, 4, 4)
    assert rows[2, True].responses[2] == ""


INVISIBLE = ["\u200b", "\ufeff\u200d", "\xa0 \u2003", "\u3164", "\u2800", "<image>", "<image>\n\u200b", "<|image_pad|>"]


@pytest.mark.parametrize("text", INVISIBLE)
def test_an_answer_that_shows_nothing_is_no_answer(open_tiny, text):
    source = tiny_rows(4)
    source[1]["chosen"] = text
    source[2] |= {"rejected": text, "question_only": "", "image_only": None}
    source[3]["question_only"] = text
    rows = open_tiny(source)
    assert rows.report.left_out == {"no chosen response": ["row-1"], "no negative response": ["row-2"]}
    assert rows.report.without == {"language": ["row-3"]}
    assert rows[1, True].responses[2] == ""


def test_rejected_equal_to_chosen_is_no_negative_and_a_biased_negative_may_equal_it(open_tiny):
    source = tiny_rows(4)
    source[1]["rejected"] = source[1]["chosen"]
    source[2]["question_only"] = source[2]["chosen"]
    source[3] |= {"chosen": "", "rejected": ""}
    rows = open_tiny(source)
    assert rows.report.left_out == {"no chosen response": ["row-3"]}
    assert rows.report.without == {"rejected": ["row-1"]}
    assert [rows[index, True].id for index in range(3)] == ["row-0", "row-1", "row-2"]
    assert rows[1, True].responses[1] == "" and rows[1, True].responses[2] == source[1]["question_only"]
    pairs = open_tiny(source, ("rejected",))
    assert pairs.report.left_out["chosen and rejected response are equal"] == ["row-1"]
    assert [pairs[index, True].id for index in range(2)] == ["row-0", "row-2"]
    assert len(open_tiny(source, ("language",))) == 3


def test_responses_that_differ_in_blanks_alone_are_a_pair_unless_blanks_are_removed(tmp_path):
    source = tiny_rows(3)
    source[1]["rejected"] = f" {source[1]['chosen']}\u200b\n"
    source[2]["rejected"] = source[2]["chosen"].replace(" ", "\n")
    path = write_rows(tmp_path / "rows.parquet", source)
    kept, removed = (open_rows(path, ("rejected",), tmp_path / "cache", strip=strip) for strip in (False, True))
    assert len(kept) == 3 and kept.report.left_out == {}
    assert removed.report.left_out == {"chosen and rejected response are equal": ["row-1", "row-2"]}


def test_blanks_at_the_ends_of_responses_are_kept_unless_they_are_to_be_removed(tmp_path):
    source = tiny_rows(1)
    source[0] |= {"chosen": " w5 w6 \n", "rejected": "w7 "}
    path = write_rows(tmp_path / "rows.parquet", source)
    kept = open_rows(path, ("rejected",), tmp_path / "cache")
    assert kept[0, True].responses == (" w5 w6 \n", "w7 ")
    assert open_rows(path, ("rejected",), tmp_path / "cache", strip=True)[0, True].responses == ("w5 w6", "w7")


def test_rows_with_one_id_are_told_apart_by_their_number(open_tiny):
    source = tiny_rows(5)
    for row in source[1:4]:
        row["idx"] = "same"
    source[1]["chosen"] = ""
    source[2]["image_only"] = ""
    rows = open_tiny(source)
    rows.leave_out({3: "image cannot be decoded"})
    assert rows.report.left_out == {
        "no chosen response": ["same (row 1)"],
        "image cannot be decoded": ["same (row 3)"],
    }
    assert rows.report.without == {"vision": ["same (row 2)"]}
    assert [rows[index, True].position for index in range(3)] == [0, 2, 4]
    assert [rows[index, True].id for index in range(3)] == ["row-0", "same (row 2)", "row-4"]


def test_control_tokens_in_texts_are_counted_with_their_rows(tmp_path, conversation):
    source = tiny_rows(4)
    source[1]["question"] += " </s>"
    source[2]["chosen"] = "</s>"
    source[3]["question"] = "<image> " + source[3]["question"]
    path = write_rows(tmp_path / "rows.parquet", source)
    rows = open_rows(path, ALL, tmp_path / "cache", conversation)
    assert rows.report.left_out == {"no chosen response": ["row-2"]}
    assert rows.report.cleaned == ["row-1"]
    assert "Control tokens of the model were removed from the texts: 1 of 4 rows (row-1)." in rows.report.lines()


def test_a_text_that_is_not_utf_8_is_refused_with_file_row_and_field(tmp_path):
    for name, count in (("a.parquet", 2), ("b.parquet", 2)):
        write_rows(tmp_path / name, tiny_rows(count))
    table = parquet.read_table(tmp_path / "b.parquet")
    halves = pa.array([b"whole", b"half \xed\xa0\xbd"], pa.binary()).view(pa.string())
    parquet.write_table(table.set_column(table.column_names.index("chosen"), "chosen", halves), tmp_path / "b.parquet")
    with pytest.raises(NapoBenchError, match=r"b\.parquet, row 2: the field 'chosen' is not UTF-8 text \(byte 5"):
        open_rows(tmp_path, ALL, tmp_path / "cache")


def rows_of_two_folders(folder):
    """The same picture name beside each of two files, another picture each; an empty file between them."""
    for name, colour in (("a", (250, 0, 0)), ("b", (0, 0, 250))):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (4, 4), colour).save(folder / name / "0.png")
        row = tiny_rows(1)[0] | {"idx": name, "image": {"bytes": None, "path": "0.png"}}
        write_rows(folder / name / "rows.parquet", [row])
    table = parquet.read_table(folder / "a/rows.parquet")
    parquet.write_table(table.slice(0, 0), folder / "a/rows2.parquet")
    return folder


def test_a_path_starts_at_the_folder_of_the_rows_own_file(tmp_path):
    rows = open_rows(rows_of_two_folders(tmp_path / "two"), ALL, tmp_path / "cache")
    assert [rows[index, True].image.getpixel((0, 0)) for index in range(2)] == [(250, 0, 0), (0, 0, 250)]


def test_fingerprint_follows_the_pictures_that_rows_name_by_path(tmp_path):
    def fingerprint():
        return open_rows(tmp_path / "two", ALL, tmp_path / "cache").fingerprint

    rows_of_two_folders(tmp_path / "two")
    before = fingerprint()
    assert fingerprint() == before
    Image.new("RGB", (4, 4), (0, 250, 0)).save(tmp_path / "two/b/0.png")
    changed = fingerprint()
    (tmp_path / "two/b/0.png").unlink()
    assert len({before, changed, fingerprint()}) == 3


def test_fingerprint_changes_only_where_a_text_is_read_in_another_way(tmp_path, conversation):
    def fingerprint(**change):
        source = tiny_rows(3)
        source[1] |= change
        path = write_rows(tmp_path / "rows.parquet", source)
        rows = open_rows(path, ALL, tmp_path / "cache", conversation)
        content = hashlib.sha256(hashlib.sha256(path.read_bytes()).hexdigest().encode()).hexdigest()
        return rows.fingerprint == content

    assert fingerprint() and fingerprint(question="<image>\nw1") and fingerprint(chosen=" ")
    assert not fingerprint(chosen="w1 </s>") and not fingerprint(chosen="\u200b")
    assert not fingerprint(rejected=tiny_rows(3)[1]["chosen"]) and not fingerprint(question="<|image_pad|>w1")


def test_undecodable_and_long_rows_are_set_aside_by_the_examiner(open_tiny, conversation, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as lmms-eval leaves it
    source = tiny_rows(4)
    source[0]["image"]["bytes"] = b"no picture"
    source[2]["image"]["bytes"] = source[2]["image"]["bytes"][:-40]
    source[3]["chosen"] = "w9 " * 60
    rows = open_tiny(source)
    batch, problems = Examiner(Collator(conversation), max_length=50)([rows[index, True] for index in range(4)])
    assert batch.ids == ["row-1"]
    assert problems == {
        0: "image cannot be decoded",
        2: "image cannot be decoded",
        3: "longer than max_length (50 tokens)",
    }
    rows.leave_out(problems)
    assert rows.report.left_out["image cannot be decoded"] == ["row-0", "row-2"]
    assert [rows[0, True].id, len(rows)] == ["row-1", 1]


def test_a_row_of_exactly_max_length_is_kept(open_tiny, conversation):
    rows = open_tiny(tiny_rows(1))
    length = Collator(conversation)([rows[0, True]]).lengths[0]
    assert Examiner(Collator(conversation), length)([rows[0, True]])[1] == {}
    assert 0 in Examiner(Collator(conversation), length - 1)([rows[0, True]])[1]


def test_a_row_left_out_later_is_no_longer_listed_as_lacking_a_negative(open_tiny):
    source = tiny_rows(2)
    source[0]["image_only"] = ""
    rows = open_tiny(source)
    rows.leave_out({0: "image cannot be decoded"})
    assert rows.report.without == {}


def test_missing_biased_columns_name_the_command_that_makes_them(tmp_path):
    rows = [{key: row[key] for key in row if key not in ("question_only", "image_only")} for row in tiny_rows(2)]
    path = write_rows(tmp_path / "rows.parquet", rows)
    with pytest.raises(NapoBenchError, match="lacks the columns image_only, question_only") as raised:
        open_rows(path, ALL, tmp_path / "cache")
    assert f"napo-bench data build-bias --ckpt BASE --data {path}" in raised.value.hint
    assert len(open_rows(path, ("rejected",), tmp_path / "cache")) == 2


def test_bad_files_are_one_message(tmp_path):
    (tmp_path / "cut.parquet").write_bytes(write_rows(tmp_path / "whole.parquet", tiny_rows(3)).read_bytes()[:-100])
    parquet.write_table(pa.table({name: [1] for name in tiny_rows(1)[0]}), tmp_path / "numbers.parquet")
    parquet.write_table(parquet.read_table(tmp_path / "whole.parquet").slice(0, 0), tmp_path / "empty.parquet")
    (tmp_path / "folder").mkdir()
    for name, message in {
        "cut.parquet": "is not a parquet file, or it is cut off",
        "numbers.parquet": "the column chosen is .*text is expected",
        "empty.parquet": "has no rows",
        "folder": "holds no .parquet file",
        "nowhere/rows.parquet": "does not exist",
    }.items():
        with pytest.raises(NapoBenchError, match=message):
            open_rows(tmp_path / name, ALL, tmp_path / "cache")


def test_fingerprint_follows_the_content_of_the_files(tmp_path):
    def fingerprint(name, rows):
        return open_rows(write_rows(tmp_path / name, rows), ALL, tmp_path / "cache").fingerprint

    assert fingerprint("a.parquet", tiny_rows(2)) == fingerprint("b.parquet", tiny_rows(2))
    changed = tiny_rows(2)
    changed[1]["image"]["bytes"] = picture(random.Random(9))
    assert fingerprint("a.parquet", changed) != fingerprint("b.parquet", tiny_rows(2))

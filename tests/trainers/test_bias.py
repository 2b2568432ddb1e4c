"""Biased negatives: what each one is blind to, the published columns, and builds that go on where they stopped."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from napo_bench.core import images
from napo_bench.core.errors import NapoBenchError
from napo_bench.engines import looks
from napo_bench.engines.hf import HFEngine
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.trainers import bias
from napo_bench.trainers.bias import COLUMNS, build_bias
from napo_bench.trainers.stored import cells

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-llava")
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from make_tiny_llava import make_checkpoint
    finally:
        sys.path.pop(0)
    make_checkpoint(folder)
    return folder


def picture(number: int) -> bytes:
    dice, stream = random.Random(number), io.BytesIO()
    size = dice.choice([(60, 40), (40, 60), (48, 48)])
    Image.frombytes("RGB", size, dice.randbytes(3 * size[0] * size[1])).save(stream, "PNG")
    return stream.getvalue()


def rlaif_v(count: int) -> list[dict[str, Any]]:
    """Rows with the columns of RLAIF-V, and one of another source."""
    return [
        {
            "ds_name": "RLAIF-V",
            "image": {"bytes": picture(number), "path": f"{number}.png"},
            "question": f"Is the {('dog', 'cat', 'bus')[number % 3]} {('red', 'blue')[number % 2]}?",
            "chosen": "Yes",
            "rejected": "No",
            "origin_dataset": "VQAv2",
            "origin_split": "{}",
            "idx": 100 + number,
            "image_path": f"images/{number}.png",
            "scene": f"scene {number}",
        }
        for number in range(count)
    ]


@pytest.fixture
def build(checkpoint: Path, tmp_path: Path):
    def build(rows: list[dict[str, Any]], name: str = "out", **options: str) -> list[dict[str, Any]]:
        data = tmp_path / f"{name}.parquet"
        parquet.write_table(pa.Table.from_pylist(rows), data)
        build_bias(
            str(checkpoint),
            data,
            tmp_path / name,
            batch_size=3,
            device="cpu",
            dtype="float32",
            cache=tmp_path / "cache",
            **options,
        )
        return built(tmp_path / name)

    return build


def built(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]


def test_negatives_are_the_models_beam_answers_to_one_modality(build, checkpoint: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    rows = rlaif_v(3)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    processor = AutoProcessor.from_pretrained(checkpoint, backend="pil")

    def answer(prompt: str, image: Image.Image | None) -> str:
        inputs = processor(text=prompt, images=image, return_tensors="pt")
        tokens = model.generate(**inputs, num_beams=3, do_sample=False, max_new_tokens=1024)
        return processor.tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()

    def squared(content: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(content))
        side = max(image.size)
        square = Image.new("RGB", (side, side), tuple(int(255 * mean) for mean in (0.48145466, 0.4578275, 0.40821073)))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square

    for row, made in zip(rows, build(rows), strict=True):
        assert made["question_only"] == answer(f"{SYSTEM} USER: {row['question']} ASSISTANT:", None)
        assert made["image_only"] == answer(f"{SYSTEM} USER: <image> \n ASSISTANT:", squared(row["image"]["bytes"]))
        assert made["question_only"]


def test_the_conversation_is_named_and_is_part_of_the_build(build, tmp_path: Path) -> None:
    rows = rlaif_v(1)
    vicuna = build(rows, conversation="vicuna_v1")
    assert json.loads((tmp_path / "out/build.json").read_text())["conversation"] == "vicuna_v1"
    assert "in the conversation vicuna_v1" in (tmp_path / "out/README.md").read_text()
    assert build(rows, "other") != vicuna
    assert build(rows, conversation="vicuna_v1") == vicuna
    with pytest.raises(NapoBenchError, match="its conversation is vicuna_v1, llava_v1 is expected"):
        build(rows)


def test_each_negative_is_blind_to_the_other_modality(build) -> None:
    rows = rlaif_v(4)
    other_pictures = [{**row, "image": {"bytes": picture(50 + n), "path": "x"}} for n, row in enumerate(rows)]
    other_questions = [{**row, "question": "Describe the farm."} for row in rows]
    plain, pictures, questions = build(rows, "a"), build(other_pictures, "b"), build(other_questions, "c")
    assert [row["question_only"] for row in pictures] == [row["question_only"] for row in plain]
    assert [row["image_only"] for row in questions] == [row["image_only"] for row in plain]
    assert [row["image_only"] for row in pictures] != [row["image_only"] for row in plain]
    assert [row["question_only"] for row in questions] != [row["question_only"] for row in plain]


def test_published_columns_come_first_and_nothing_else_is_touched(build) -> None:
    rows = [{**row, "question_only": "stale"} for row in rlaif_v(4)]
    made = build(rows)
    assert tuple(made[0]) == (*COLUMNS, "ds_name", "scene")
    for row, new in zip(rows, made, strict=True):
        assert {name: new[name] for name in row if name != "question_only"} == {
            name: row[name] for name in row if name != "question_only"
        }
        assert new["question_only"] != "stale"


def test_a_picture_that_does_not_decode_costs_its_vision_negative_alone(build, tmp_path: Path) -> None:
    rows = rlaif_v(4)
    rows[2]["image"]["bytes"] = b"no picture"
    made = build(rows)
    assert [row["image_only"] is None for row in made] == [False, False, True, False]
    assert all(row["question_only"] for row in made)
    assert (
        "1 of 4 rows: no image_only, because the image cannot be decoded (102)"
        in (tmp_path / "out/README.md").read_text()
    )


def test_pictures_beside_several_files_are_each_shown_and_written_into_the_result(
    checkpoint: Path, tmp_path: Path
) -> None:
    for number, name in enumerate("ab"):
        folder = tmp_path / "two" / name
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(picture(number))
        row = rlaif_v(1)[0] | {"idx": 7, "image": {"bytes": None, "path": "0.png"}, "question": ""}
        parquet.write_table(pa.Table.from_pylist([row]), folder / "rows.parquet")
    inside = [row | {"image": {"bytes": picture(number), "path": "0.png"}} for number, row in enumerate([row, row])]
    parquet.write_table(pa.Table.from_pylist(inside), tmp_path / "inside.parquet")
    built = []
    for data in ("two", "inside.parquet"):
        out, short = tmp_path / f"{data}-out", dataclasses.replace(bias.PUBLISHED, max_new_tokens=8)
        build_bias(str(checkpoint), tmp_path / data, out, device="cpu", generation=short, progress=lambda *_: None)
        built.append(parquet.read_table(next(out.glob("*.parquet"))).to_pylist())
    assert built[0] == built[1]
    assert [row["image"]["bytes"] for row in built[0]] == [picture(0), picture(1)]


def test_an_interrupted_build_goes_on_and_ends_as_an_undisturbed_one(
    build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bias, "ROWS_A_SHARD", 4)
    rows = rlaif_v(10)
    undisturbed = build(rows, "undisturbed")
    generated: list[int] = []
    generate = HFEngine.generate

    def until_the_plug_is_pulled(self: HFEngine, batch: list[Any]) -> list[str]:
        if len(generated) == 5:
            raise KeyboardInterrupt
        generated.append(len(batch))
        return generate(self, batch)

    monkeypatch.setattr(HFEngine, "generate", until_the_plug_is_pulled)
    with pytest.raises(KeyboardInterrupt):
        build(rows)
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 1
    finished = sum(generated)
    generated.clear()
    monkeypatch.setattr(
        HFEngine, "generate", lambda *arguments: generated.append(len(arguments[1])) or generate(*arguments)
    )
    assert build(rows) == undisturbed
    distinct = len({row["question"] for row in rows}) + len(rows)
    assert finished + sum(generated) <= distinct + 3


def without_shards(folder: Path) -> None:
    """Leave of a build its journal alone."""
    for path in (*folder.glob("*.parquet"), folder / "README.md"):
        path.unlink()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The encoded images that were opened, in order."""
    seen: list[bytes] = []
    open_rgb = images.open_rgb

    def counted(source: bytes) -> Image.Image:
        seen.append(source)
        return open_rgb(source)

    for module in (bias, cells):
        monkeypatch.setattr(module, "open_rgb", counted)
    return seen


def test_a_full_journal_makes_the_build_without_opening_an_image(
    build, opened: list[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = rlaif_v(5)
    rows[4]["image"] = rows[1]["image"]
    rows[3]["image"]["bytes"] = b"no picture"
    first = build(rows)
    assert len(opened) == 5
    opened.clear()
    shards = [path.read_bytes() for path in (tmp_path / "out").glob("*.parquet")]
    without_shards(tmp_path / "out")
    monkeypatch.setattr(HFEngine, "generate", lambda *_: pytest.fail("asked again"))
    monkeypatch.setattr(HFEngine, "prepare", lambda *_: pytest.fail("prepared again"))
    assert build(rows) == first
    assert [path.read_bytes() for path in (tmp_path / "out").glob("*.parquet")] == shards
    assert opened == [b"no picture"]


def test_images_are_looked_at_again_after_a_change_of_what_prepares_them(
    build, opened: list[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = build(rlaif_v(3))
    without_shards(tmp_path / "out")
    opened.clear()
    monkeypatch.setattr(looks, "_VERSION", 0)
    assert build(rlaif_v(3)) == first and len(opened) == 3
    without_shards(tmp_path / "out")
    assert build(rlaif_v(3)) == first and len(opened) == 3


def test_an_image_whose_answer_is_gone_is_opened_and_asked_about(build, opened: list[bytes], tmp_path: Path) -> None:
    first = build(rlaif_v(3))
    without_shards(tmp_path / "out")
    opened.clear()
    with closing(sqlite3.connect(tmp_path / "out/journal.sqlite")) as journal, journal:
        answers = "SELECT MAX(rowid) FROM entries WHERE value LIKE '{%'"  # the last answer is one to an image
        assert journal.execute(f"DELETE FROM entries WHERE rowid = ({answers})").rowcount == 1
    assert build(rlaif_v(3)) == first
    assert len(opened) == 1


def test_a_finished_build_is_recognised_without_the_model(build, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rlaif_v(3)
    first = build(rows)
    monkeypatch.delattr(HFEngine, "__init__")
    assert build(rows) == first


def test_a_folder_that_holds_another_build_is_refused(build, tmp_path: Path) -> None:
    build(rlaif_v(2))
    with pytest.raises(NapoBenchError, match="out holds another build: its data_fingerprint is"):
        build(rlaif_v(3))
    (tmp_path / "foreign").mkdir()
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "foreign" / "rows.parquet")
    with pytest.raises(NapoBenchError, match="foreign holds parquet files that are not of this command"):
        build(rlaif_v(2), "foreign")


def test_a_finished_build_of_another_dtype_is_refused(build, checkpoint: Path, tmp_path: Path) -> None:
    build(rlaif_v(2))
    readme = (tmp_path / "out/README.md").read_text()
    assert "3 beams, no sampling, at most 1024 new tokens, no filtering, in float32." in readme
    with pytest.raises(NapoBenchError, match=r"its dtype is torch\.float32, torch\.float16 is expected"):
        build_bias(str(checkpoint), tmp_path / "out.parquet", tmp_path / "out", device="cpu", dtype="float16")


def test_two_processes_write_what_one_writes(build, checkpoint: Path, tmp_path: Path) -> None:
    count = bias.ROWS_A_SHARD + 2
    rows = [{**row, "image": rlaif_v(2)[n % 2]["image"]} for n, row in enumerate(rlaif_v(3) * (count // 3 + 1))][:count]
    alone = build(rows, "alone")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [str(Path(sys.executable).with_name("napo-bench")), "data", "build-bias", "--ckpt", str(checkpoint)]
    done = subprocess.run(
        [*torchrun, *command, "--data", str(tmp_path / "alone.parquet"), "--out", str(tmp_path / "shared"),
         "--device", "cpu", "--dtype", "float32", "--batch-size", "3"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "user-cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert built(tmp_path / "shared") == alone


def test_rows_without_the_needed_columns_are_named(build) -> None:
    rows = [{name: value for name, value in row.items() if name != "rejected"} for row in rlaif_v(2)]
    with pytest.raises(NapoBenchError, match="lacks the columns rejected"):
        build(rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dtype": "fp16"}, "dtype is 'fp16'"), ({"device": "gpu"}, "device is 'gpu'"), ({}, "config.json says 7")],
)
def test_what_the_model_cannot_use_is_refused_before_it_is_allocated(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], message: str
) -> None:
    rows = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist(rlaif_v(2)), rows)
    config = Path(shutil.copytree(checkpoint, tmp_path / "other")) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"image_token_index": 7}))
    monkeypatch.setattr(Checkpoint, "load_model", lambda *_: pytest.fail("the model was allocated"))
    with pytest.raises(NapoBenchError, match=message):
        build_bias(str(tmp_path / "other"), rows, tmp_path / "out", **options)


def test_rows_that_cannot_be_read_are_found_before_the_model_is_loaded(checkpoint, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Checkpoint, "load_model", lambda *_: pytest.fail("the model was allocated"))
    with pytest.raises(NapoBenchError, match="nothing-there"):
        build_bias(str(checkpoint), tmp_path / "nothing-there.parquet", tmp_path / "out")

"""The copy of preference rows: one for each content, with each image once, and read as the parquet files are."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from tiny_rows import picture, tiny_rows, write_rows

from napo_bench.core import caches, digests, files
from napo_bench.core.errors import NapoBenchError
from napo_bench.trainers.rows import open_rows
from napo_bench.trainers.stored.table import open_table

BIASED = ("question_only", "image_only")
NEEDED = ("question", "chosen", "image")


def sizes(cache: Path) -> dict[str, int]:
    """Bytes of each file of a cache, without what marks a use."""
    return {
        str(path.relative_to(cache)): path.stat().st_size for path in sorted(cache.rglob("*.arrow")) if path.is_file()
    }


@pytest.fixture
def large() -> list[dict[str, Any]]:
    """Rows whose images, of 20 kB each, are nearly all of their bytes."""
    draw = random.Random(1)
    return [row | {"image": {"bytes": draw.randbytes(20_000), "path": None}} for row in tiny_rows(40)]


def test_one_copy_serves_every_recipe_path_and_time_of_the_same_content(tmp_path, large):
    path, cache = write_rows(tmp_path / "rows.parquet", large), tmp_path / "cache"
    open_rows(path, ("rejected",), cache)
    first = sizes(cache)
    assert len(first) == 2
    open_rows(path, ("rejected", "language", "vision"), cache)
    os.utime(path, (0, 0))
    open_rows(path, ("rejected",), cache)
    (tmp_path / "other").mkdir()
    shutil.copy(path, tmp_path / "other" / "named.parquet")
    open_rows(tmp_path / "other", ("rejected",), cache)
    open_table(path, NEEDED, cache, whole=True)
    assert sizes(cache) == first


def test_rows_with_the_same_images_add_their_texts_alone(tmp_path, large):
    """As DPO on the given rows and NaPO on the rows of `build-bias`, which writes shards of other sizes."""
    given = [{name: row[name] for name in row if name not in BIASED} for row in large]
    open_rows(write_rows(tmp_path / "given.parquet", given), ("rejected",), tmp_path / "cache")
    before = sum(sizes(tmp_path / "cache").values())
    assert before > 40 * 20_000
    (tmp_path / "built").mkdir()
    for number, start in enumerate((0, 15, 30)):
        write_rows(tmp_path / f"built/part-{number}.parquet", large[start : start + 15])
    rows = open_rows(tmp_path / "built", ("rejected", "language"), tmp_path / "cache")
    assert sum(sizes(tmp_path / "cache").values()) - before < 20_000
    assert [rows.stored(index).image for index in range(40)] == [row["image"]["bytes"] for row in large]
    assert [rows.stored(index).responses[2] for index in range(40)] == [row["question_only"] for row in large]


def test_an_image_of_several_rows_is_kept_once(tmp_path, large):
    for row in large:
        row["image"] = large[0]["image"]
    open_table(write_rows(tmp_path / "rows.parquet", large), NEEDED, tmp_path / "cache")
    assert 20_000 < sum(sizes(tmp_path / "cache").values()) < 40_000


KINDS = {
    "bytes and path": lambda image: image,
    "bytes": lambda image: image["bytes"],
    "bytes and more": lambda image: {"width": 12, **image},
    "bytes or nothing": lambda image: image if image["bytes"][-20] % 2 else None,
    "bytes or no bytes": lambda image: image if image["bytes"][-20] % 2 else {"bytes": b"", "path": "x.png"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_copy_has_what_the_files_have(tmp_path, kind):
    source = [
        row | {"image": KINDS[kind](row["image"]), "score": number / 3} for number, row in enumerate(tiny_rows(130))
    ]
    (tmp_path / "rows").mkdir()
    for name, part in (("a", source[:70]), ("b", source[70:])):
        parquet.write_table(pa.Table.from_pylist(part), tmp_path / f"rows/{name}.parquet", row_group_size=40)
    table = open_table(tmp_path / "rows", NEEDED, tmp_path / "cache", whole=True)
    whole = pa.concat_tables(parquet.read_table(path) for path in sorted((tmp_path / "rows").iterdir()))
    assert table.part(0, 130).equals(whole) and table.part(65, 20).equals(whole.slice(65, 20))
    for position, row in enumerate(source):
        cell = row["image"]
        image = (cell["bytes"] if isinstance(cell, dict) else cell) or b""
        assert table.image(position) == image
        assert table.image_digest(position) == (hashlib.sha256(image).hexdigest() if image else "")


def test_images_that_were_cleared_with_another_copy_are_copied_again(tmp_path, large):
    cache = tmp_path / "cache"
    open_table(write_rows(tmp_path / "given.parquet", large), NEEDED, cache)
    (first,) = cache.glob("*/rows.arrow")
    other = write_rows(tmp_path / "other.parquet", [row | {"chosen": "w5"} for row in large])
    open_table(other, NEEDED, cache)
    shutil.rmtree(first.parent)
    table = open_table(other, NEEDED, cache)
    assert [table.image(position) for position in range(40)] == [row["image"]["bytes"] for row in large]


def test_a_copy_that_is_cut_off_or_not_finished_is_made_again(tmp_path, large):
    cache, path = tmp_path / "cache", write_rows(tmp_path / "rows.parquet", large)
    open_table(path, NEEDED, cache)
    for name in ("rows.arrow", "images-0.arrow"):
        (file,) = cache.glob(f"*/{name}")
        file.write_bytes(file.read_bytes()[:-30])
        table = open_table(path, NEEDED, cache)
        assert [table.image(position) for position in range(40)] == [row["image"]["bytes"] for row in large]
    (file,) = cache.glob("*/rows.arrow")
    file.unlink()
    assert open_table(path, NEEDED, cache).image(3) == large[3]["image"]["bytes"]


def test_open_rows_are_read_after_their_copy_was_deleted(tmp_path, large):
    """As on a disk without locks, where no use is seen."""
    table = open_table(write_rows(tmp_path / "rows.parquet", large), NEEDED, tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    assert [table.image(position) for position in range(40)] == [row["image"]["bytes"] for row in large]


def test_another_process_gets_the_place_of_the_copy_and_not_its_images(tmp_path, large):
    rows = open_rows(write_rows(tmp_path / "rows.parquet", large), ("rejected",), tmp_path / "cache")
    packed = pickle.dumps(rows)
    assert len(packed) < 40 * 500
    assert pickle.loads(packed).stored(7) == rows.stored(7)  # noqa: S301


def test_a_copy_is_made_in_little_memory(tmp_path):
    draw = random.Random(0)
    rows = [row | {"image": {"bytes": draw.randbytes(200_000), "path": None}} for row in tiny_rows(200)]
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path, use_dictionary=False, write_batch_size=4)
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        open_table(path, NEEDED, tmp_path / "cache")
    finally:
        pa.set_memory_pool(before)
    assert 5_000_000 < pool.max_memory() < 20_000_000  # the images have 40,000,000 bytes in one row group


def test_rows_are_unpacked_and_hashed_once_for_all_commands(tmp_path, monkeypatch):
    """Not at each start, and not for each choice of columns."""
    path = write_rows(tmp_path / "rows.parquet", tiny_rows(6))
    os.utime(path, (0, 0))
    monkeypatch.setattr(digests, "_SETTLED_NS", 0)
    monkeypatch.setattr(digests, "_known", {})
    read: list[str] = []
    hashed, unpacked = files.sha256_file, parquet.ParquetFile.iter_batches
    monkeypatch.setattr(digests.files, "sha256_file", lambda path: read.append(f"hash {path.name}") or hashed(path))
    monkeypatch.setattr(
        parquet.ParquetFile,
        "iter_batches",
        lambda *call, **options: read.append("unpack") or unpacked(*call, **options),
    )
    for negatives in (("rejected",), ("rejected", "vision"), ("rejected",)):
        open_rows(path, negatives, tmp_path / "cache")
        digests._known.clear()  # as in another process
    assert sorted(read) == ["hash rows.parquet", "unpack"]


def test_a_row_that_changes_is_copied_again(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "_SETTLED_NS", 0)
    path = write_rows(tmp_path / "rows.parquet", tiny_rows(6))
    before = open_rows(path, ("rejected",), tmp_path / "cache")
    changed = tiny_rows(6)
    changed[2]["image"]["bytes"] = picture(random.Random(5))
    write_rows(path, changed)
    after = open_rows(path, ("rejected",), tmp_path / "cache")
    assert after.stored(2).image == changed[2]["image"]["bytes"] != before.stored(2).image
    assert before.stored(1) == after.stored(1) and before.fingerprint != after.fingerprint


def test_a_file_that_changes_while_it_is_copied_leaves_no_copy(tmp_path, monkeypatch):
    path, cache = write_rows(tmp_path / "rows.parquet", tiny_rows(6)), tmp_path / "cache"
    unpacked = parquet.ParquetFile.iter_batches

    def changed_behind(*call, **options):
        yield from unpacked(*call, **options)
        write_rows(path, tiny_rows(6, seed=1))

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", changed_behind)
    with pytest.raises(NapoBenchError, match="changed while it was read"):
        open_rows(path, ("rejected",), cache)
    assert not sizes(cache)


def test_files_that_do_not_fit_each_other_are_named(tmp_path):
    rows = tiny_rows(2)
    (tmp_path / "rows").mkdir()
    write_rows(tmp_path / "rows/a.parquet", rows)
    write_rows(tmp_path / "rows/b.parquet", [row | {"more": 1} for row in rows])
    assert len(open_rows(tmp_path / "rows", ("rejected",), tmp_path / "cache")) == 4
    with pytest.raises(NapoBenchError, match="not every file has the columns more"):
        open_table(tmp_path / "rows", NEEDED, tmp_path / "cache", whole=True)
    write_rows(tmp_path / "rows/b.parquet", [row | {"image": row["image"]["bytes"]} for row in rows])
    with pytest.raises(
        NapoBenchError, match=r"image has several types: binary in .*b\.parquet, and struct<.*a\.parquet"
    ):
        open_rows(tmp_path / "rows", ("rejected",), tmp_path / "cache")


def test_the_copy_of_the_rows_is_named_in_the_list_of_the_cache(tmp_path):
    path = write_rows(tmp_path / "rows.parquet", tiny_rows(3))
    open_rows(path, ("rejected",), caches.place("rows"))
    (entry,) = (entry for entry in caches.kept() if entry.kind == "rows")
    assert entry.of == str(path)

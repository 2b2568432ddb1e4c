"""The annotations of COCO's 2014 images: categories of the instances, and the human captions.

The four annotation files (about 800 MB) are read once, and only the fields that CHAIR needs. An index in the user's
cache folder, named by the files' hashes, keeps the annotations of each image.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from napo_bench.core import caches, digests, files, locks
from napo_bench.core.errors import NapoBenchError

INSTANCE_FILES = ("instances_train2014.json", "instances_val2014.json")
CAPTION_FILES = ("captions_train2014.json", "captions_val2014.json")
FETCH_HINT = "Fetch them: napo-bench data fetch object-halbench"


@dataclass(frozen=True)
class CocoImage:
    """The annotations of one image."""

    categories: set[str] = field(default_factory=set)
    captions: list[str] = field(default_factory=list)


class _Image(msgspec.Struct, gc=False):
    id: int


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str


class _Instance(msgspec.Struct, gc=False):
    image_id: int
    category_id: int


class _Caption(msgspec.Struct, gc=False):
    image_id: int
    caption: str


class _InstanceFile(msgspec.Struct):
    categories: list[_Category]
    annotations: list[_Instance]
    images: list[_Image] = []


class _CaptionFile(msgspec.Struct):
    annotations: list[_Caption]
    images: list[_Image] = []


_File = TypeVar("_File", _InstanceFile, _CaptionFile)


def load_images(folder: Path, image_ids: Iterable[int]) -> dict[int, CocoImage]:
    """The annotations of images. An image that is not in the files is absent.

    Args:
        folder: Folder with the four annotation files.
        image_ids: Ids of the images.

    Raises:
        NapoBenchError: a file is missing or malformed, or the cache folder cannot be written.
    """
    paths = [files.require_file(folder / name, FETCH_HINT) for name in (*INSTANCE_FILES, *CAPTION_FILES)]
    key = hashlib.sha256("".join(digests.sha256(paths)).encode()).hexdigest()
    index = caches.place("coco") / f"{key[:32]}.sqlite"
    try:
        with locks.Use(index):
            if not index.exists():
                _write_index(index, read_annotations(folder))
            with closing(sqlite3.connect(index)) as connection:
                query = "SELECT id, categories, captions FROM images WHERE id = ?"
                rows = [row for one in dict.fromkeys(image_ids) for row in connection.execute(query, (one,))]
    except sqlite3.Error as error:
        raise NapoBenchError(
            f"The index {index} cannot be read: {error}.", "Delete it; the next run makes it again."
        ) from None
    return {
        image_id: CocoImage(set(json.loads(categories)), json.loads(captions))
        for image_id, categories, captions in rows
    }


def read_annotations(folder: Path) -> dict[int, CocoImage]:
    """Every image of the four annotation files, read without an index.

    Raises:
        NapoBenchError: a file is missing or malformed. The error names file and field.
    """
    images: dict[int, CocoImage] = {}
    for name in INSTANCE_FILES:
        instances = _decode(folder / name, _InstanceFile)
        names = {category.id: category.name for category in instances.categories}
        for image in instances.images:
            images.setdefault(image.id, CocoImage())
        for instance in instances.annotations:
            if instance.category_id not in names:
                raise NapoBenchError(
                    f"{folder / name}: image {instance.image_id} has an instance of category {instance.category_id}, "
                    "which is not among the file's categories.",
                    FETCH_HINT,
                )
            images.setdefault(instance.image_id, CocoImage()).categories.add(names[instance.category_id])
    for name in CAPTION_FILES:
        captions = _decode(folder / name, _CaptionFile)
        for image in captions.images:
            images.setdefault(image.id, CocoImage())
        for caption in captions.annotations:
            images.setdefault(caption.image_id, CocoImage()).captions.append(caption.caption)
    return images


def _decode(path: Path, kind: type[_File]) -> _File:
    try:
        return msgspec.json.decode(files.require_file(path, FETCH_HINT).read_bytes(), type=kind)
    except msgspec.DecodeError as error:
        raise NapoBenchError(f"{path} is no COCO annotation file: {error}.", FETCH_HINT) from None
    except OSError as error:
        raise NapoBenchError(f"{path} cannot be read: {error.strerror}.", FETCH_HINT) from None


def _write_index(path: Path, images: dict[int, CocoImage]) -> None:
    rows = (
        (image_id, json.dumps(sorted(image.categories)), json.dumps(image.captions))
        for image_id, image in images.items()
    )
    with files.atomic_path(path) as temporary, closing(sqlite3.connect(temporary)) as connection, connection:
        connection.execute("CREATE TABLE images (id INTEGER PRIMARY KEY, categories TEXT, captions TEXT)")
        connection.executemany("INSERT INTO images VALUES (?, ?, ?)", rows)

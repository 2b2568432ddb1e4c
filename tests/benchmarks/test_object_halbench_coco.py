"""COCO's annotations: what each image holds, and the index that makes the second run fast."""

import json
import random

import pytest
from pycocotools.coco import COCO

from napo_bench.benchmarks.object_halbench import coco
from napo_bench.core import caches
from napo_bench.core.errors import NapoBenchError


def write(folder, part, instances, captions):
    categories = [{"id": 1, "name": "dog"}, {"id": 7, "name": "wine glass"}]
    annotations = [
        {"id": n, "image_id": image, "category_id": category, "segmentation": [[1.5, 2.5] * 20], "iscrowd": 0}
        for n, (image, category) in enumerate(instances)
    ]
    told = [{"id": n, "image_id": image, "caption": text} for n, (image, text) in enumerate(captions)]
    images = [{"id": image, "file_name": f"{image}.jpg"} for image in {100, *(image for image, _ in captions)}]
    documents = {
        "instances": {"info": {}, "images": images, "categories": categories, "annotations": annotations},
        "captions": {"info": {}, "images": images, "annotations": told},
    }
    for kind, document in documents.items():
        (folder / f"{kind}_{part}2014.json").write_text(json.dumps(document))


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "train", [(1, 1), (1, 7), (1, 1), (2, 7)], [(1, "a dog"), (1, "two dogs"), (2, "glass")])
    write(tmp_path, "val", [(3, 1)], [(3, "a pup"), (4, "nothing “here”")])
    return tmp_path


def test_train_and_val_are_united_by_image(folder):
    images = coco.load_images(folder, [1, 3, 4, 100, 999])
    assert images == {
        1: coco.CocoImage({"dog", "wine glass"}, ["a dog", "two dogs"]),
        3: coco.CocoImage({"dog"}, ["a pup"]),
        4: coco.CocoImage(set(), ["nothing “here”"]),
        100: coco.CocoImage(set(), []),
    }


def test_categories_and_captions_are_those_of_cocos_own_index(tmp_path):
    rng = random.Random(0)
    for part, first in (("train", 1), ("val", 30)):  # 30 to 40 are in both parts
        images = range(first, first + 40)
        instances = [(rng.choice(images), rng.choice([1, 7])) for _ in range(60)]
        write(tmp_path, part, instances, [(image, f"caption {part} {image}") for image in rng.choices(images, k=60)])
    theirs = {}
    for part in ("train", "val"):
        instances, captions = (COCO(str(tmp_path / f"{kind}_{part}2014.json")) for kind in ("instances", "captions"))
        for image in {*instances.getImgIds(), *captions.getImgIds(), *instances.imgToAnns}:
            categories, told = theirs.setdefault(image, (set(), []))
            found = [entry["category_id"] for entry in instances.loadAnns(instances.getAnnIds(imgIds=[image]))]
            categories.update(entry["name"] for entry in instances.loadCats(sorted(set(found))))
            told += [entry["caption"] for entry in captions.loadAnns(captions.getAnnIds(imgIds=[image]))]
    ours = coco.load_images(tmp_path, range(200))
    assert {image: (found.categories, found.captions) for image, found in ours.items()} == theirs
    assert len(theirs) > 60


def test_the_second_run_reads_the_index_alone(folder, monkeypatch, own_cache):
    first = coco.load_images(folder, [1, 2, 3])
    monkeypatch.setattr(coco, "read_annotations", lambda folder: pytest.fail("the annotations were read again"))
    assert coco.load_images(folder, [3, 2, 1]) == first
    assert [entry.kind for entry in caches.kept() if entry.kind != "digests"] == ["coco"]


def test_changed_annotations_get_an_index_of_their_own(folder):
    coco.load_images(folder, [1])
    write(folder, "val", [(3, 7)], [])
    assert coco.load_images(folder, [3])[3].categories == {"wine glass"}


def test_a_damaged_index_is_named(folder, own_cache):
    coco.load_images(folder, [1])
    (index,) = caches.place("coco").glob("*.sqlite")
    index.write_bytes(b"not a data base" * 100)
    with pytest.raises(NapoBenchError, match=index.name):
        coco.load_images(folder, [1])


@pytest.mark.parametrize("name", [*coco.INSTANCE_FILES, *coco.CAPTION_FILES])
def test_a_missing_or_truncated_file_is_named_and_leaves_no_index(folder, name, own_cache):
    text = (folder / name).read_text()
    (folder / name).write_text(text[: len(text) // 2])
    with pytest.raises(NapoBenchError, match=name):
        coco.load_images(folder, [1])
    (folder / name).unlink()
    with pytest.raises(NapoBenchError, match=name) as error:
        coco.load_images(folder, [1])
    assert "napo-bench data fetch object-halbench" in error.value.hint
    assert not list(caches.place("coco").glob("*.sqlite"))


def test_a_field_that_is_missing_is_named(folder):
    (folder / "captions_val2014.json").write_text('{"annotations": [{"image_id": 3}]}')
    with pytest.raises(NapoBenchError, match=r"captions_val2014.*caption.*annotations\[0\]"):
        coco.load_images(folder, [1])


def test_an_instance_of_no_category_is_named(folder):
    write(folder, "val", [(3, 8)], [])
    with pytest.raises(NapoBenchError, match="image 3 has an instance of category 8"):
        coco.load_images(folder, [1])

"""Measure what scoring costs: AMBER and CHAIR, NLTK's own work on the same texts, and COCO at its real size.

    python scripts/measure_scoring.py --shared ../shared

Every row is a process of its own, with the process's CPU seconds (imports and models included) and its peak memory. The
line below a row has the CPU seconds of the work alone. The COCO files and the index are generated in a temporary
folder.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

AMBER_CAPTIONS, CHAIR_CAPTIONS, QUESTIONS = 1_004, 10_000, 300
COCO_IMAGES = {"train": 82_783, "val": 40_504}
ROWS_AN_IMAGE = 5
POLYGON_NUMBERS = 90


def captions(shared: Path, count: int) -> list[str]:
    texts = [
        json.loads(line)["caption"]
        for path in sorted((shared / "reference" / "responses").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [texts[index % len(texts)] for index in range(count)]


@contextmanager
def measured(what: str) -> Iterator[None]:
    began = time.process_time()
    yield
    print(f"  {what:48}{time.process_time() - began:7.1f}")


def nltk_for_amber(shared: Path, work: Path) -> None:
    from nltk import pos_tag, word_tokenize

    texts = captions(shared, AMBER_CAPTIONS)
    pos_tag(word_tokenize("Load the models."))
    with measured(f"tokenise and tag {AMBER_CAPTIONS} captions"):
        for text in texts:
            pos_tag(word_tokenize(text))


def amber(shared: Path, work: Path) -> None:
    from napo_bench.runs.score import ScoreOptions, score

    rows = [{"id": number, "response": text} for number, text in enumerate(captions(shared, AMBER_CAPTIONS), start=1)]
    options = ScoreOptions(spacy_model=str(shared / "spacy" / "en_core_web_md"))
    with measured(f"AMBER of {AMBER_CAPTIONS} captions, models and intervals included"):
        score("amber", rows, shared / "reference", options)


def nltk_for_chair(shared: Path, work: Path) -> None:
    from nltk import word_tokenize
    from nltk.stem import WordNetLemmatizer

    texts = captions(shared, CHAIR_CAPTIONS)
    lemmatize = WordNetLemmatizer().lemmatize
    lemmatize(word_tokenize("models")[0])
    with measured(f"tokenise {CHAIR_CAPTIONS} captions"):
        tokens = [word_tokenize(text.lower()) for text in texts]
    with measured("lemmatise them"):
        for words in tokens:
            for word in words:
                lemmatize(word)


def chair(shared: Path, work: Path) -> None:
    from napo_bench.benchmarks.object_halbench.official import load_synonyms
    from napo_bench.benchmarks.object_halbench.score import find_mentions, score_answer
    from napo_bench.benchmarks.text import OfficialText

    texts = captions(shared, CHAIR_CAPTIONS)
    synonyms = load_synonyms(shared / "reference" / "object_halbench" / "synonyms_refine.txt")
    reader = OfficialText()
    with measured(f"CHAIR of {CHAIR_CAPTIONS} captions"):
        for text in texts:
            mentions = find_mentions([word.lemma for word in reader.words(text)], synonyms)
            score_answer([mention.object for mention in mentions], {"person", "dog"}, text)


def object_halbench(shared: Path, work: Path) -> None:
    from napo_bench.runs.score import ScoreOptions, score

    rows = [{"image_id": image, "text": text} for image, text in enumerate(captions(shared, QUESTIONS), start=1)]
    with measured(f"Object HalBench, {QUESTIONS} answers"):
        score("object_halbench", rows, work, ScoreOptions())


def write_coco(shared: Path, work: Path) -> None:
    generator = random.Random(0)
    folder = work / "object_halbench"
    (folder / "annotations").mkdir(parents=True)
    synonyms = (shared / "reference" / "object_halbench" / "synonyms_refine.txt").read_text()
    (folder / "synonyms_refine.txt").write_text(synonyms)
    rows = [{"image_id": image, "question": "Describe.", "image": "A" * 200_000} for image in range(1, QUESTIONS + 1)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = [line.split(",")[0].strip() for line in synonyms.splitlines()]
    categories = [{"id": number, "name": name, "supercategory": "thing"} for number, name in enumerate(names, start=1)]
    polygons = [[round(generator.uniform(0, 640), 2) for _ in range(POLYGON_NUMBERS)] for _ in range(100)]
    first = 1
    for part, count in COCO_IMAGES.items():
        ids = range(first, first + count)
        first += count
        images = [{"id": i, "file_name": f"COCO_{i:012}.jpg", "height": 480, "width": 640} for i in ids]
        instances = [
            {
                "segmentation": [generator.choice(polygons)],
                "area": 1234.5,
                "iscrowd": 0,
                "image_id": image,
                "bbox": [1.5, 2.5, 3.5, 4.5],
                "category_id": generator.randint(1, len(names)),
                "id": image * ROWS_AN_IMAGE + number,
            }
            for image in ids
            for number in range(ROWS_AN_IMAGE)
        ]
        told = [
            {
                "image_id": image,
                "id": image * ROWS_AN_IMAGE + number,
                "caption": f"A {generator.choice(names)} outside.",
            }
            for image in ids
            for number in range(ROWS_AN_IMAGE)
        ]
        for name, document in {
            f"instances_{part}2014.json": {"images": images, "annotations": instances, "categories": categories},
            f"captions_{part}2014.json": {"images": images, "annotations": told},
        }.items():
            (folder / "annotations" / name).write_text(json.dumps(document))
    size = sum(path.stat().st_size for path in (folder / "annotations").iterdir())
    print(f"  {size / 1e6:.0f} MB, {ROWS_AN_IMAGE * (first - 1)} instances and as many captions")


STEPS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "nltk_for_amber": ("NLTK on AMBER's texts", nltk_for_amber),
    "amber": ("napo-bench, AMBER", amber),
    "nltk_for_chair": ("NLTK on CHAIR's texts", nltk_for_chair),
    "chair": ("napo-bench, CHAIR", chair),
    "write_coco": ("(COCO-sized files written)", write_coco),
    "first": ("napo-bench, Object HalBench, first run", object_halbench),
    "second": ("napo-bench, Object HalBench, second run", object_halbench),
}


def peak_gigabytes() -> float:
    """Peak resident memory of this process. Unlike getrusage, the figure does not include the parent's memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="holds reference/, nltk_data/ and spacy/")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    shared = options.shared.resolve()
    if options.step:
        title, step = STEPS[options.step]
        began = time.monotonic()
        step(shared, options.work)
        wall, cpu = time.monotonic() - began, sum(os.times()[:2])
        print(f"{title:50}{cpu:7.1f} CPU s {wall:7.1f} wall s {peak_gigabytes():6.2f} GB")
        return
    with tempfile.TemporaryDirectory() as work:
        environment = os.environ | {
            "NLTK_DATA": str(shared / "nltk_data"),
            "XDG_CACHE_HOME": f"{work}/cache",
            "OMP_NUM_THREADS": "1",
        }
        for step in STEPS:
            command = [sys.executable, __file__, "--shared", str(shared), "--work", work, "--step", step]
            subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    main()

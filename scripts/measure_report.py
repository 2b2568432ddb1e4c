"""Measure what a report costs: four runs of 2,000 samples, a page of 1,000 images, the bootstrap of AMBER and
VLind-Bench.

    python scripts/measure_report.py [--chromium /usr/bin/chromium]

All data is generated. Images have the size and the detail of photographs. With --chromium the script also measures the
slowest of a series of searches in the page.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from napo_bench.benchmarks.amber import ANSWER_METRICS, DESCRIPTION_METRICS
from napo_bench.benchmarks.amber import score as amber
from napo_bench.benchmarks.mmhal import BENCHMARK as MMHAL
from napo_bench.benchmarks.mmhal import score as mmhal
from napo_bench.benchmarks.object_halbench import BENCHMARK as OBJECT_HALBENCH
from napo_bench.benchmarks.object_halbench import score as object_halbench
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import measure
from napo_bench.benchmarks.vlind import BENCHMARK as VLIND
from napo_bench.benchmarks.vlind import score as vlind
from napo_bench.runs.provenance import DataUsed, Provenance
from napo_bench.runs.result import RunResult

WORDS = (
    "person",
    "dog",
    "bench",
    "car",
    "tree",
    "cup",
    "cat",
    "bicycle",
    "table",
    "chair",
    "window",
    "street",
    "sky",
    "boat",
)
AMBER_DESCRIPTIONS, AMBER_QUESTIONS, VLIND_INSTANCES = 1004, 14216, 302

Samples = list[dict[str, Any]]


def description(rng: np.random.Generator, index: int) -> dict[str, Any]:
    truth = [str(word) for word in rng.choice(WORDS[:10], 6, replace=False)]
    covered = [word for word in truth if rng.random() < 0.5] or truth[:1]
    wrong = [word for word in WORDS[10:] if rng.random() < 0.08]
    words = covered + wrong
    text = f"Picture {index} shows " + ", ".join(
        f"a {word} that stands near the left side of the scene" for word in words
    )
    counts = {
        "responses": 1,
        "clean": int(not wrong),
        "mentions": len(words),
        "hallucinated": len(wrong),
        "truth_words": len(truth),
        "covered": len(covered),
        "hallu_words": 5,
        "hit": len(wrong),
    }
    return {
        "sample_id": str(index + 1),
        "unit": "response",
        "prompt": "Describe this image.",
        "image": f"AMBER_{index + 1}.jpg",
        "response": text,
        "counts": counts,
        "hallucinated": wrong,
        "covered": covered,
        "truth": truth,
    }


def question(rng: np.random.Generator, index: int) -> dict[str, Any]:
    kind = amber.QUESTION_TYPES[index % len(amber.QUESTION_TYPES)]
    truth = "yes" if rng.random() < 0.4 else "no"
    right = rng.random() < 0.75
    response = {"yes": "Yes", "no": "No"}[truth if right else {"yes": "no", "no": "yes"}[truth]]
    return {
        "sample_id": str(AMBER_DESCRIPTIONS + index + 1),
        "unit": "question",
        "image": f"amber/images/AMBER_{index % AMBER_DESCRIPTIONS + 1}.jpg",
        "response": response,
        "expected": truth.capitalize(),
        "counts": amber.score_answer(kind, truth, response),
    }


def answer(rng: np.random.Generator, index: int) -> dict[str, Any]:
    objects = {str(word) for word in rng.choice(WORDS, 5, replace=False)}
    mentioned = [str(word) for word in rng.choice(WORDS, rng.integers(2, 8))]
    text = f"Picture {index}: " + ", ".join(f"a {word} in the middle of it" for word in mentioned)
    return {
        "sample_id": str(index),
        "unit": "response",
        "prompt": "Please describe this image in detail.",
        "response": text,
        "image": str(index),
        "counts": object_halbench.score_answer(mentioned, objects, text),
        "hallucinated": [word for word in mentioned if word not in objects],
        "covered": [word for word in mentioned if word in objects],
        "image_objects": sorted(objects),
    }


def instance(rng: np.random.Generator, index: int) -> dict[str, Any]:
    ck, vp, cb = (bool(rng.random() < p) for p in (0.95, 0.8, 0.5))
    lp = {str(image): bool(rng.random() < 0.4) for image in range(int(rng.integers(1, 13)))}
    responses = [
        {
            "test": test,
            "statement": statement,
            "image_id": image,
            "text": "True",
            "prompt": f"Statement: the thing {index} is so.\nBased on the image, is the given statement true or false?",
            "image": f"vlind/images/{index}.jpg",
            "expected": str(statement == 1),
            "correct": statement == 1,
        }
        for test, images in (("ck", ["0"]), ("vp", ["0"]), ("cb", ["0"]), ("lp", list(lp)))
        for image in images
        for statement in (1, 2)
    ]
    return {
        "sample_id": f"color/{index}",
        "unit": "instance",
        "concept": "color",
        "prompt": f"A world where {index} differs.",
        "image": f"vlind/images/{index}.jpg",
        "responses": responses,
        "counts": vlind.instance_counts(ck, vp, cb, lp),
    }


def rated(rng: np.random.Generator, index: int) -> dict[str, Any]:
    rating = int(rng.integers(0, 7))
    return {
        "sample_id": str(index),
        "unit": "question",
        "question_type": mmhal.QUESTION_TYPES[index % 8],
        "image": f"mmhal/images/{index}.jpg",
        "prompt": "What is there?",
        "response": "There is a thing.",
        "expected": "A thing is there.",
        "rating": rating,
        "counts": mmhal.question_counts(rating),
    }


PARTS: dict[str, tuple[Callable[[np.random.Generator, int], dict[str, Any]], dict[str, Any]]] = {
    "vlind": (instance, VLIND.metrics),
    "object_halbench": (answer, OBJECT_HALBENCH.metrics),
    "amber": (description, DESCRIPTION_METRICS),
    "mmhal": (rated, MMHAL.metrics),
}


def make_run(folder: Path, data: Path, sizes: dict[str, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    benchmarks = {}
    for name, n in sizes.items():
        make, metrics = PARTS[name]
        samples = [make(rng, index) for index in range(n)]
        values = measure(samples, metrics)
        benchmarks[name] = BenchmarkResult(values, samples=samples)
    RunResult(benchmarks, Provenance(data=DataUsed(str(data)))).save(folder / "run.json")


def draw_photographs(data: Path, sizes: dict[str, int]) -> None:
    """JPEG files of 640 x 480 that are as hard to compress as photographs."""
    rng = np.random.default_rng(0)
    places = {"vlind": "vlind/images/{}.jpg", "amber": "amber/images/AMBER_{}.jpg", "mmhal": "mmhal/images/{}.jpg"}
    for name, n in sizes.items():
        if name in places:
            for index in range(n):
                layers = [
                    Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)).resize((640, 480))
                    for h, w in ((6, 8), (48, 64))
                ]
                path = data / places[name].format(index + (name == "amber"))
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.blend(*layers, 0.3).save(path, quality=90)


def report(arguments: Sequence[str]) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak gigabytes of `napo-bench report` in this process."""
    from napo_bench.cli import app

    began, busy = time.perf_counter(), time.process_time()
    app(["report", *arguments], standalone_mode=False)
    seconds, processor = time.perf_counter() - began, time.process_time() - busy
    return seconds, processor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def bootstrap() -> tuple[float, float, float]:
    """The same for every metric of a full AMBER and VLind-Bench run, with 10,000 resamples."""
    rng = np.random.default_rng(0)
    descriptions = [description(rng, index) for index in range(AMBER_DESCRIPTIONS)]
    answers = [question(rng, index) for index in range(AMBER_QUESTIONS)]
    instances = [instance(rng, index) for index in range(VLIND_INSTANCES)]
    began, busy = time.perf_counter(), time.process_time()
    measure(descriptions, DESCRIPTION_METRICS)
    measure(answers, ANSWER_METRICS)
    measure(instances, VLIND.metrics)
    seconds, processor = time.perf_counter() - began, time.process_time() - busy
    return seconds, processor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def slowest_filter(page_path: Path, chromium: str) -> float:
    """Milliseconds of the slowest of a series of searches. Each search counts with the best of five times."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(page_path.as_uri())
        page.click("#tab-samples")
        slowest = page.evaluate(
            """() => {
              const search = document.querySelector("#search");
              const time = (text) => {
                const began = performance.now();
                search.value = text;
                search.dispatchEvent(new Event("input"));
                document.querySelector("#detail").getBoundingClientRect();
                return performance.now() - began;
              };
              return Math.max(...["stands near", "a dog", "e", "picture 7", "none of it", ""].map((text) =>
                Math.min(...[1, 2, 3, 4, 5].map(() => time(text)))));
            }"""
        )
        browser.close()
        return float(slowest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", help="Also time filters in this browser.")
    chromium = parser.parse_args().chromium
    spawn = multiprocessing.get_context("spawn")

    def measured(what: str, function: Callable[..., tuple[float, float, float]], *arguments: Any) -> None:
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            seconds, processor, gigabytes = pool.submit(function, *arguments).result()
        print(f"{what:58s} {seconds:6.1f} s {processor:6.1f} s of processor {gigabytes:6.2f} GB", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured("bootstrap of AMBER and VLind-Bench, 10,000 resamples", bootstrap)
        sizes = {"vlind": 302, "object_halbench": 300, "amber": 1302, "mmhal": 96}
        draw_photographs(folder / "data", sizes)
        runs = []
        for seed in range(4):
            make_run(folder / f"run{seed}", folder / "data", sizes, seed)
            runs.append(str(folder / f"run{seed}"))
        for form in ("md", "html"):
            out = str(folder / f"report.{form}")
            measured(f"report on 4 runs of 2,000 samples, {form}", report, [*runs, "--format", form, "--out", out])
        sizes = {"amber": 904, "mmhal": 96}
        draw_photographs(folder / "data", sizes)
        make_run(folder / "thousand", folder / "data", sizes, 0)
        page = folder / "thousand.html"
        measured(
            "report on 1,000 samples, html", report, [str(folder / "thousand"), "--format", "html", "--out", str(page)]
        )
        print(f"{'page of 1,000 samples with pictures':58s} {page.stat().st_size / 1e6:6.1f} MB")
        if chromium:
            for path in (page, folder / "report.html"):
                print(f"{'slowest filter in ' + path.name:58s} {slowest_filter(path, chromium):6.1f} ms")


if __name__ == "__main__":
    main()

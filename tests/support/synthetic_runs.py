"""Runs with known properties, their counts made by the benchmarks' own score.py from drawn outcomes."""

from __future__ import annotations

import hashlib
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from napo_bench.benchmarks import benchmark_named
from napo_bench.benchmarks.amber import DESCRIPTION_METRICS
from napo_bench.benchmarks.mmhal import score as mmhal
from napo_bench.benchmarks.object_halbench import score as object_halbench
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import measure
from napo_bench.benchmarks.vlind import score as vlind
from napo_bench.cli import console, main
from napo_bench.core import interrupts
from napo_bench.runs.provenance import CheckpointUsed, DataUsed, Provenance
from napo_bench.runs.result import RunResult

OBJECTS = ["person", "dog", "bench", "car", "tree", "cup", "cat", "bicycle"]
CONCEPTS = ["color", "size", "location"]
DEFAULT_SIZES = {"vlind": 60, "object_halbench": 80, "amber": 100, "mmhal": 96}


def make_run(
    skill: float,
    seed: int,
    *,
    sizes: dict[str, int] | None = None,
    data_dir: Path | None = None,
    name: str = "",
    settings: dict[str, dict] | None = None,
) -> RunResult:
    """A run whose answers are right with probability `skill` each."""
    rng = np.random.default_rng(seed)
    makers = {"vlind": _vlind, "object_halbench": _object_halbench, "amber": _amber, "mmhal": _mmhal}
    sizes = DEFAULT_SIZES if sizes is None else sizes
    generation = {"generation": {"profile": "paper"}}
    benchmarks = {}
    for benchmark, n in sizes.items():
        samples = makers[benchmark](skill, n, rng)
        metrics = DESCRIPTION_METRICS if benchmark == "amber" else benchmark_named(benchmark).metrics
        own = {
            "vlind": {},
            "object_halbench": {"text_pipeline": {"name": "official"}, "chair_definition": "words"},
            "amber": {"text_pipeline": {"name": "official", "spacy_model": "en_core_web_lg"}},
            "mmhal": {"judge": {"model": "gpt-4-1106-preview"}},
        }[benchmark]
        own = own | generation | (settings or {}).get(benchmark, {})
        benchmarks[benchmark] = BenchmarkResult(measure(samples, metrics), settings=own, samples=samples)
    digests = {f"{benchmark}/data.json": hashlib.sha256(benchmark.encode()).hexdigest() for benchmark in sizes}
    provenance = Provenance(
        checkpoint=CheckpointUsed(name, folder=name, fingerprint="0" * 64) if name else None,
        data=DataUsed(str(data_dir or ""), digests),
    )
    return RunResult(benchmarks, provenance)


def draw_pictures(data_dir: Path, n: int, size: int = 320) -> None:
    """Pictures at the places that the samples name."""
    for index in range(n):
        image = Image.new("RGB", (size, size * 3 // 4), ((37 * index) % 256, (91 * index) % 256, (53 * index) % 256))
        ImageDraw.Draw(image).ellipse((size // 4, size // 6, size * 3 // 4, size * 4 // 7), fill="white")
        for path in (f"amber/images/AMBER_{index + 1}.jpg", f"vlind/images/{index}.jpg", f"mmhal/images/{index}.jpg"):
            (data_dir / path).parent.mkdir(parents=True, exist_ok=True)
            image.save(data_dir / path)


def _vlind(skill: float, n: int, rng: np.random.Generator) -> list[dict]:
    samples = []
    for index in range(n):
        concept = CONCEPTS[index % len(CONCEPTS)]
        passed = {"ck": rng.random() < 0.95, "vp": rng.random() < 0.9, "cb": rng.random() < skill}
        lp = {str(image): bool(rng.random() < skill) for image in range(1 + index % 4)}
        responses = []
        for test, images in (("ck", ["0"]), ("vp", ["0"]), ("cb", ["0"]), ("lp", list(lp))):
            for image in images:
                right = lp[image] if test == "lp" else passed[test]
                for statement, expected in ((1, "True"), (2, "False")):
                    text = expected if right else "True"
                    responses.append(
                        {
                            "test": test,
                            "statement": statement,
                            "image_id": image,
                            "text": text,
                            "prompt": f"Statement: sample {index} statement {statement}\nIs it true or false?",
                            "image": f"vlind/images/{index}.jpg",
                            "expected": expected,
                            "correct": text == expected,
                        }
                    )
        samples.append(
            {
                "sample_id": f"{concept}/{index}",
                "unit": "instance",
                "concept": concept,
                "prompt": f"A world in which thing {index} is different.",
                "image": f"vlind/images/{index}.jpg",
                "responses": responses,
                "counts": vlind.instance_counts(bool(passed["ck"]), bool(passed["vp"]), bool(passed["cb"]), lp),
            }
        )
    return samples


def _object_halbench(skill: float, n: int, rng: np.random.Generator) -> list[dict]:
    samples = []
    for index in range(n):
        image_objects = {OBJECTS[index % 8], OBJECTS[(index + 1) % 8], OBJECTS[(index + 3) % 8]}
        mentioned = [*sorted(image_objects)[:2]] + [
            OBJECTS[(index + 5) % 8] for _ in range(int(rng.random() > skill) + int(rng.random() > 0.9))
        ]
        answer = f"Sample {index}: the picture shows a {', a '.join(mentioned)}."
        samples.append(
            {
                "sample_id": str(1000 + index),
                "unit": "response",
                "prompt": "Describe this image in detail.",
                "response": answer,
                "image": str(1000 + index),
                "counts": object_halbench.score_answer(mentioned, image_objects, answer),
                "hallucinated": [name for name in mentioned if name not in image_objects],
                "covered": [name for name in mentioned if name in image_objects],
                "image_objects": sorted(image_objects),
            }
        )
    return samples


def _amber(skill: float, n: int, rng: np.random.Generator) -> list[dict]:
    samples = []
    for index in range(n):
        truth, hallu = OBJECTS[:4], OBJECTS[4:7]
        covered = [int(i) for i in range(4) if rng.random() < 0.6] or [0]
        wrong = [name for name in hallu if rng.random() > skill ** (1 / 3)]
        words = [truth[i] for i in covered] + wrong
        samples.append(
            {
                "sample_id": str(index + 1),
                "unit": "response",
                "prompt": "Describe this image.",
                "image": f"AMBER_{index + 1}.jpg",
                "response": f"Item {index + 1} has a {' and a '.join(words)}.",
                "counts": {
                    "responses": 1,
                    "clean": int(not wrong),
                    "mentions": len(words),
                    "hallucinated": len(wrong),
                    "truth_words": len(truth),
                    "covered": len(covered),
                    "hallu_words": len(hallu),
                    "hit": len(wrong),
                },
                "hallucinated": wrong,
                "covered": [truth[i] for i in covered],
                "truth": truth,
                "covered_truth": [truth[i] for i in covered],
                "hit_hallu": wrong,
            }
        )
    return samples


def _mmhal(skill: float, n: int, rng: np.random.Generator) -> list[dict]:
    samples = []
    for index in range(n):
        rating = int(rng.integers(3, 7)) if rng.random() < skill else int(rng.integers(0, 3))
        samples.append(
            {
                "sample_id": str(index),
                "unit": "question",
                "question_type": mmhal.QUESTION_TYPES[index % 8],
                "image": f"mmhal/images/{index}.jpg",
                "prompt": f"What is there in picture {index}?",
                "response": f"There is thing {rating}.",
                "expected": "A thing.",
                "rating": rating,
                "counts": mmhal.question_counts(rating),
            }
        )
    return samples


def invoke(arguments: list, monkeypatch, capsys, width: int = 160) -> tuple[int, str, str]:
    """Run `napo-bench` as a shell would: exit code, stdout, stderr."""
    monkeypatch.setattr("sys.argv", ["napo-bench", *map(str, arguments)])
    monkeypatch.setattr("sys.unraisablehook", sys.unraisablehook)  # main sets its own
    monkeypatch.setattr("warnings.showwarning", warnings.showwarning)
    for name in ("out", "err"):
        monkeypatch.setattr(getattr(console, name), "_width", width)
    capsys.readouterr()
    handlers = {signum: signal.getsignal(signum) for signum in interrupts.SIGNALS}  # main ignores them at its end
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    captured = capsys.readouterr()
    return code, captured.out, captured.err

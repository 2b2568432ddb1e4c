"""Measure how the journal, its answers, a comparison and a report grow with their entries and samples.

    python scripts/measure_growth.py
    python scripts/measure_growth.py --only journal --largest 1000000
    OMP_NUM_THREADS=1 python scripts/measure_growth.py --only journal-answers

All data is generated. `journal-answers` asks AMBER's yes/no questions twice: without a journal, with answers that cost
nothing, and from a full journal. Seconds are CPU seconds, which hardly depend on the other work of the machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from make_tiny_llava import make_checkpoint
from measure_report import AMBER_DESCRIPTIONS, AMBER_QUESTIONS, draw_photographs, make_run, report

from napo_bench.benchmarks.amber import BENCHMARK as AMBER
from napo_bench.benchmarks.question import Question
from napo_bench.core.journal import Journal, journal_key
from napo_bench.core.progress import SILENT
from napo_bench.engines.answer import Completion
from napo_bench.engines.answering import Answering
from napo_bench.engines.hf import HFEngine
from napo_bench.engines.prompt import Prompt, Seen
from napo_bench.engines.request import Picture, Request
from napo_bench.runs.compare import compare
from napo_bench.runs.questions import TaskQuestions
from napo_bench.runs.result import RunResult

BATCH, IMAGE_SIZE = 16, 336
QUESTIONS_AN_IMAGE = AMBER_QUESTIONS // AMBER_DESCRIPTIONS
SIZES = {
    "journal": [10_000, 100_000, 1_000_000],
    "journal-answers": [100 * QUESTIONS_AN_IMAGE, AMBER_DESCRIPTIONS * QUESTIONS_AN_IMAGE],
    "compare": [2_000, 20_000, 60_000],
    "report": [2_000, 20_000, 60_000],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SIZES, help="One part.")
    parser.add_argument("--largest", type=int, default=100_000, help="Leave out larger sizes.")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[int, Path], str]] = {
        "journal": journal,
        "journal-answers": stored_answers,
        "compare": comparison,
        "report": page,
    }
    for name in [arguments.only] if arguments.only else SIZES:
        for size in SIZES[name]:
            if size <= arguments.largest:
                with tempfile.TemporaryDirectory() as folder:
                    print(f"{name:15s} {size:9,d}  {parts[name](size, Path(folder))}", flush=True)


def journal(size: int, folder: Path) -> str:
    """Entries of some 100 bytes, a batch in one transaction."""
    before, store = written(), Journal(folder / "journal.sqlite")
    answer = "The image shows a person who sits on a bench. " * 2

    def fill() -> None:
        for start in range(0, size, BATCH):
            store.put({journal_key(number=number): answer + str(number) for number in range(start, start + BATCH)})

    seconds, _ = timed(fill)
    kept = (folder / "journal.sqlite").stat().st_size
    store.close()
    return f"{seconds:7.1f} s  {(written() - before) / 1e6:9.1f} MB written  {kept / 1e6:7.1f} MB kept"


class InstantEngine(HFEngine):
    """The engine `hf` with answers that cost nothing.

    Attributes:
        opened: Names of the images that were opened, one for each time.
    """

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(str(checkpoint), BATCH, "cpu")
        self.opened: list[Hashable] = []

    def look(self, picture: Picture) -> Seen:
        """See Engine."""
        self.opened.append(picture.name)
        return super().look(picture)

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """See Engine."""
        return [Completion.of("Yes", cut_off=False) for _ in prompts]


def stored_answers(size: int, folder: Path) -> str:
    """Yes/no questions about images of 640 x 480 pixels. Two questions about one image are far apart, as in AMBER."""
    images = size // QUESTIONS_AN_IMAGE
    draw_photographs(folder, {"amber": images})
    make_checkpoint(folder / "checkpoint", image_size=IMAGE_SIZE)
    task = next(task for task in AMBER.tasks if task.name == "amber_discriminative")
    paths = sorted((folder / "amber" / "images").iterdir())
    asked = [
        Question(f"Is there a thing {number // images} in this image?", paths[number % images], lambda text: {})
        for number in range(size)
    ]
    data = AMBER.open(folder / "amber")
    requests = TaskQuestions(AMBER, data, asked, task.generation("greedy"), task.name).requests()
    with Journal(folder / "journal.sqlite") as store:
        new, stored = (answered(folder / "checkpoint", store, requests) for _ in range(2))
    return f"new: {new}  stored: {stored}"


def answered(checkpoint: Path, store: Journal, requests: Sequence[Request]) -> str:
    """What all answers cost a new process: CPU seconds, and number of images that were opened."""
    engine = InstantEngine(checkpoint)
    seconds, answers = timed(lambda: Answering(engine, store, SILENT).answer_together(requests))
    assert answers == ["Yes"] * len(requests)
    return f"{seconds:7.1f} s, {len(engine.opened):,d} images opened"


def comparison(size: int, folder: Path) -> str:
    """Two runs of AMBER's descriptions."""
    runs = []
    for seed in range(2):
        make_run(folder / str(seed), folder, {"amber": size}, seed)
        runs.append(RunResult.load(folder / str(seed) / "run.json"))
    seconds, _ = timed(lambda: compare(*runs))
    return f"{seconds:7.1f} s"


def page(size: int, folder: Path) -> str:
    """The HTML page of one run of AMBER's descriptions, without images."""
    make_run(folder / "run", folder, {"amber": size}, 0)
    out = folder / "report.html"
    seconds, _ = timed(lambda: report([str(folder / "run"), "--format", "html", "--out", str(out)]))
    return f"{seconds:7.1f} s  {out.stat().st_size / 1e6:9.1f} MB"


def written() -> int:
    """Bytes that this process gave to the system to write."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a function, and its result."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


if __name__ == "__main__":
    main()

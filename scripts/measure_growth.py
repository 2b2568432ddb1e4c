"""Measure how the journal, a comparison and a report grow with their entries and samples.

    python scripts/measure_growth.py
    python scripts/measure_growth.py --only journal --largest 1000000

All data is generated. Seconds are CPU seconds, which hardly depend on the other work of the machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure_report import make_run, report

from napo_bench.core.journal import Journal, journal_key
from napo_bench.runs.compare import compare
from napo_bench.runs.result import RunResult

BATCH = 16
SIZES = {
    "journal": [10_000, 100_000, 1_000_000],
    "compare": [2_000, 20_000, 60_000],
    "report": [2_000, 20_000, 60_000],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SIZES, help="One part.")
    parser.add_argument("--largest", type=int, default=100_000, help="Leave out larger sizes.")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[int, Path], str]] = {"journal": journal, "compare": comparison, "report": page}
    for name in [arguments.only] if arguments.only else SIZES:
        for size in SIZES[name]:
            if size <= arguments.largest:
                with tempfile.TemporaryDirectory() as folder:
                    print(f"{name:8s} {size:9,d}  {parts[name](size, Path(folder))}", flush=True)


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

"""Measure how many samples a second `napo_hf` answers in batches of 16 and in batches of 1, with a tiny LLaVA.

    python scripts/measure_eval_throughput.py

The script prints both rates, their ratio, and whether the responses are the same. The script fails if the responses
differ.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from make_tiny_llava import make_checkpoint, make_data
from rich.console import Console
from rich.table import Table

from napo_bench.benchmarks import all_tasks
from napo_bench.core.journal import Journal
from napo_bench.engines.answering import Answering
from napo_bench.engines.hf import HFEngine
from napo_bench.engines.request import Generation, Picture, Request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=48, help="Instances, pictures or questions of each benchmark.")
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_checkpoint(root / "tiny")
        make_data(root / "data", arguments.size)
        questions = [
            Request(question.prompt, Picture.of(question.open_picture()), Generation(task.max_new_tokens))
            for benchmark, task in all_tasks().values()
            for unit in benchmark.open(root / "data" / benchmark.name).units(task.name)
            for question in unit
        ]
        rates, answers = {}, {}
        for batch_size in (1, arguments.batch_size):
            answering = Answering(HFEngine(str(root / "tiny"), batch_size), Journal(root / f"{batch_size}.sqlite"))
            began = time.perf_counter()
            answers[batch_size] = answering.answer(questions, len(questions), f"Batches of {batch_size}")
            rates[batch_size] = len(questions) / (time.perf_counter() - began)
    same = answers[1] == answers[arguments.batch_size]
    table = Table(title=f"{len(questions)} questions, {torch.get_num_threads()} threads", title_justify="left")
    table.add_column("batch size", justify="right")
    table.add_column("samples a second", justify="right")
    for batch_size, rate in rates.items():
        table.add_row(str(batch_size), f"{rate:.1f}")
    console = Console()
    console.print(table)
    console.print(f"{rates[arguments.batch_size] / rates[1]:.1f} times the rate; the responses are the same: {same}")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()

"""An evaluation in the micro world: its data, its text pipeline, and its oracle as the judge."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napo_bench.core.journal import Journal
from napo_bench.micro import MICRO_TASKS
from napo_bench.runs.evaluate import EvalOptions, require_hardware


@contextmanager
def micro_world(options: EvalOptions) -> Iterator[EvalOptions]:
    """The options with the micro world's data, its text pipeline, and the oracle as judge, which runs in this block."""
    require_hardware(options)
    from napo_bench.engines.journalled import JournalledEndpoint
    from napo_bench.engines.judge import Judge
    from napo_bench.micro.data import ensure_data
    from napo_bench.micro.oracle import MODEL, oracle_judge

    with tempfile.TemporaryDirectory() as folder, oracle_judge() as url, Journal(Path(folder) / "judge") as journal:
        address = "the micro world's oracle"
        endpoint = JournalledEndpoint(MODEL, url, None, journal)
        judge = Judge(endpoint, address=address, rates_everything=True)
        scoring = dataclasses.replace(options.scoring, pipeline="closed_vocabulary", judges=(judge,))
        data_dir = options.data_dir or ensure_data()
        yield dataclasses.replace(options, suite=MICRO_TASKS, data_dir=data_dir, scoring=scoring)

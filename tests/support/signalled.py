"""A training run of which the second process alone gets SIGTERM, in its second step. HASHED gets what it hashes.

torchrun --nproc-per-node 2 signalled.py train --recipe ...
"""

from __future__ import annotations

import os
import signal

import hashing  # noqa: F401

from napo_bench.core.progress import Silent

if os.environ["RANK"] == "1":

    def progress(self: Silent, stage: str, done: int, *_: object) -> None:
        if stage == "Training" and done == 2:
            signal.raise_signal(signal.SIGTERM)

    Silent.__call__ = progress

from napo_bench.cli import main

main()

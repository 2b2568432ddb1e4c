"""What the tests of rows and batches start from."""

from __future__ import annotations

import pytest
from tiny_rows import tiny_checkpoint, write_rows

from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.conversation import Conversation
from napo_bench.trainers.rows import open_rows

ALL = ("rejected", "language", "vision")


@pytest.fixture(scope="module")
def conversation(tmp_path_factory):
    checkpoint = Checkpoint.open(str(tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))))
    return Conversation.of(checkpoint.load_processor(), checkpoint.load_config())


@pytest.fixture
def open_tiny(tmp_path):
    def open_tiny(rows, negatives=ALL):
        return open_rows(write_rows(tmp_path / "rows.parquet", rows), negatives, tmp_path / "cache")

    return open_tiny

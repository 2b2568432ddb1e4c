"""The engines, one file each; `answering` around any engine; and the judge."""

from napo_bench.core.errors import NapoBenchError

BATCH_SIZE = 16
"""Default number of prompts in one forward, or of requests in flight."""


SEED = 0
"""Seed of all draws except sampled answers, each of which has its own seed."""


def read_batch_size(value: int | str) -> int:
    """A batch size. Raises NapoBenchError if the value is no whole number of at least 1."""
    if not str(value).isdigit() or int(value) < 1:
        raise NapoBenchError(f"The batch size is {value!r}; a whole number from 1 is expected.")
    return int(value)

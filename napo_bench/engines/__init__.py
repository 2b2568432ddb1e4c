"""What answers: an engine, one file each, and `answering` around it; and the judge."""

from napo_bench.core.errors import NapoBenchError

BATCH_SIZE = 16
"""Prompts in one forward, or requests in flight, unless the user says otherwise."""


SEED = 0
"""Seed of what draws beside sampled answers, each of which has a seed of its own."""


def read_batch_size(value: int | str) -> int:
    """A batch size. Raises NapoBenchError if the value is no whole number from 1."""
    if not str(value).isdigit() or int(value) < 1:
        raise NapoBenchError(f"The batch size is {value!r}; a whole number from 1 is expected.")
    return int(value)

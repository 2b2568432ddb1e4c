"""The engines, one file each; `answering` around any engine; and the judge."""

from pathlib import Path

from napo_bench.core.errors import NapoBenchError

BATCH_SIZE = 16
"""Usual number of prompts in one forward, or of requests in flight."""

SMALL_BATCH_SIZE = 64
"""The same for a small model, whose forward takes as long for 64 prompts as for 16: most of it is Python."""


SEED = 0
"""Seed of all draws except sampled answers, each of which has its own seed."""


def usual_batch_size(checkpoint: str) -> int:
    """The batch size of a checkpoint if the user says none. A folder of a small model has the larger one."""
    from napo_bench.models.threads import is_small

    folder = Path(checkpoint)
    return SMALL_BATCH_SIZE if (folder / "config.json").is_file() and is_small(folder) else BATCH_SIZE


def read_batch_size(value: int | str) -> int:
    """A batch size. Raises NapoBenchError if the value is no whole number of at least 1."""
    if not str(value).isdigit() or int(value) < 1:
        raise NapoBenchError(f"The batch size is {value!r}; a whole number from 1 is expected.")
    return int(value)

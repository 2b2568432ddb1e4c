"""Which process of a launch this one is, and how the processes agree. No other module asks for a rank.

`torchrun` and `accelerate launch` tell each process its rank in environment variables. A command that is started
without a launcher is the only process. `rank`, `count`, `is_first` and `is_alone` read variables and import nothing.
The other functions join the process group of the launch, so every process must call them.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from napo_bench.core.errors import NapoBenchError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

# Whether this process leaves the group of its launch when it ends.
_leaves = False


def rank() -> int:
    """The number of this process in its launch, from 0."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes the launch has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the first of its launch: the one that writes and prints."""
    return rank() == 0


def is_alone() -> bool:
    """Whether the launch has only this process."""
    return count() == 1


def join(*, cpu: bool = False) -> torch.device:
    """Join the process group of the launch, once.

    Args:
        cpu: Compute on the CPU although an accelerator is there. Only the first call can choose this.

    Returns:
        The device of this process.

    Raises:
        NapoBenchError: the environment names another number of processes than the group has.
    """
    device: torch.device = _group(cpu).device
    return device


def wait() -> None:
    """Wait until every process is here."""
    _group().wait_for_everyone()


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let the other processes enter this block when the first process has left it."""
    with _group().main_process_first():
        yield


def from_first(question: Callable[[], T]) -> T:
    """The answer of the first process, in every process; only the first process computes it."""
    from accelerate.utils import broadcast_object_list

    _group()
    answer: T = broadcast_object_list([question() if is_first() else None])[0]
    return answer


def gathered(items: Sequence[T]) -> list[T]:
    """The items of all processes, by rank, in every process."""
    from accelerate.utils import gather_object

    _group()
    return list(gather_object(list(items)))


def _group(cpu: bool = False) -> Any:
    """The state of accelerate for this launch; the first call makes it."""
    global _leaves
    import torch
    from accelerate import PartialState

    # Without `cpu`, processes that find no GPU would each be alone.
    group: Any = PartialState(cpu=cpu or not torch.accelerator.is_available())
    if (group.process_index, group.num_processes) != (rank(), count()):
        raise NapoBenchError(
            f"RANK and WORLD_SIZE say process {rank()} of {count()}, but this process found "
            f"{group.num_processes} in its group, as number {group.process_index}.",
            "Start the processes with torchrun or accelerate launch, or unset RANK and WORLD_SIZE.",
        )
    if not _leaves and not is_alone():  # a process that is alone joined no group, and the libraries' own groups stay
        # A group that the interpreter takes apart at its end aborts now and then: gloo's threads still run.
        atexit.register(group.destroy_process_group)
        _leaves = True
    return group

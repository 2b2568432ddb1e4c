"""Which prompts are answered together: in one batch, and in one process."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from napo_bench.engines.engine import Engine
from napo_bench.engines.prompt import Prompt
from napo_bench.engines.request import Request


@dataclass(frozen=True, eq=False)
class Batch:
    """Prompts that an engine answers together.

    Attributes:
        prompts: The prompts.
        digests: Digests of the images of this batch and of the batches after it in the window.
    """

    prompts: list[Prompt]
    digests: set[str]


def batches_of(prompts: Sequence[Prompt], engine: Engine, most: int) -> Iterator[list[Prompt]]:
    """Prompts that can share a forward, the longest first, so that a batch that does not fit fails at once.

    If the engine shares images, the prompts about one image are in one batch, or in as few batches as possible.

    Args:
        prompts: Prompts.
        engine: Engine that answers.
        most: Maximum number of prompts in a batch.
    """
    lengths = {prompt.key: engine.length(prompt) for prompt in prompts}
    together: dict[tuple[str, int, str], list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        shared = prompt.digest if engine.shares_images else ""
        together[(repr(prompt.generation), -prompt.image_count, shared or prompt.key)].append(prompt)
    groups = sorted(together.items(), key=lambda group: (group[0][:2], -max(lengths[p.key] for p in group[1])))
    for _, of_kind in itertools.groupby(groups, key=lambda group: group[0][:2]):
        kind = [group for _, group in of_kind]
        draws_alone = kind[0][0].generation.do_sample and not engine.draws_together
        yield from _packed(kind, 1 if engine.answers_alone or draws_alone else most)


def _packed(groups: Iterable[list[Prompt]], size: int) -> Iterator[list[Prompt]]:
    """Batches of at most `size` prompts. A group is in one batch, if the batch can have all of the group."""
    batch: list[Prompt] = []
    for group in groups:
        if batch and len(batch) + len(group) > size:
            yield batch
            batch = []
        whole = len(group) // size * size if len(group) > size else 0
        yield from (group[start : start + size] for start in range(0, whole, size))
        batch = batch + group[whole:]
    if batch:
        yield batch


def dealt(requests: Sequence[Request], count: int) -> list[list[int]]:
    """The numbers of the requests for each of `count` processes. Requests about one first image are together."""
    by_picture: Mapping[Hashable, list[int]] = defaultdict(list)
    for number, request in enumerate(requests):
        by_picture[(number,) if request.picture is None else request.picture.name].append(number)
    shares: list[list[int]] = [[] for _ in range(count)]
    for numbers in by_picture.values():
        min(shares, key=len).extend(numbers)
    return shares

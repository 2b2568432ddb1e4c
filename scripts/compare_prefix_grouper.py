"""Measure one layer of attention over a shared prefix, beside PrefixGrouper.

    pip install prefix-grouper
    python scripts/compare_prefix_grouper.py
    python scripts/compare_prefix_grouper.py --rounds 8

Both compute two rows of four responses, 8 heads of width 64 and 612 tokens of prefix, forward and backward, by turns in
one process with one thread. PrefixGrouper asks the user for a function of attention: here this function is the same
SDPA, with a causal mask made of PrefixGrouper's padding mask. The table gives medians over the rounds, in CPU seconds,
which hardly depend on the other work of the machine. The script fails if outputs or gradients differ.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from perf_forward import show
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function

from napo_bench.trainers.forward.attention import apart_saves, causal_then_masked
from napo_bench.trainers.forward.masks import in_own_branch
from napo_bench.trainers.forward.packing import PackedRows

SAME = 1e-5

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention `[B, L, H, D]` of queries, keys and values `[B, H, L, D]` over packed rows."""


@dataclass(frozen=True)
class Layer:
    """Shape of a layer of attention and of its rows.

    Attributes:
        length: Tokens of a response that are inputs of the model.
        prefix: Tokens of the prefix of a row.
        responses: Number of responses of a row.
        rows: Number of rows.
        heads: Number of heads.
        width: Width of a head.
    """

    length: int
    prefix: int = 612
    responses: int = 4
    rows: int = 2
    heads: int = 8
    width: int = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each of the two")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    rows, furthest = [], 0.0
    for layer in (Layer(104), Layer(799)):
        row, difference = measured(layer, rounds)
        rows.append(row)
        furthest = max(furthest, difference)
    show(["tokens of a response", "napo-bench, ms", "PrefixGrouper, ms", "ratio (range)", "difference"], rows)
    sys.exit(0 if furthest < SAME else "Outputs or gradients differ.")


def measured(layer: Layer, rounds: int) -> tuple[list[str], float]:
    """The row of a layer in the table, and the largest difference of outputs and gradients."""
    module = nn.Module().train()
    module.is_causal = True
    contenders = [own(module, layer), prefix_grouper(module, layer)]
    length = layer.prefix + layer.responses * layer.length
    shape = (layer.rows, layer.heads, length, layer.width)
    states = [torch.randn(shape, requires_grad=True) for _ in range(3)]
    gradient = torch.randn(layer.rows, length, layer.heads, layer.width)
    turns, furthest = [], 0.0
    for number in range(rounds + 1):
        (ours, expected), (theirs, found) = (step(attention, states, gradient) for attention in contenders)
        furthest = max(furthest, *(float((a - b).abs().max()) for a, b in zip(expected, found, strict=True)))
        if number:  # the first turn warms up
            turns.append((ours, theirs))
    medians = [f"{1000 * statistics.median(side):.0f}" for side in zip(*turns, strict=True)]
    over = [theirs / ours for ours, theirs in turns]
    ratio = f"{statistics.median(over):.2f} ({min(over):.2f} to {max(over):.2f})"
    return [str(layer.length), *medians, ratio, f"{furthest:.0e}"], furthest


def step(attention: Attention, states: list[Tensor], gradient: Tensor) -> tuple[float, list[Tensor]]:
    """CPU seconds of forward and backward, and the output with the gradients of queries, keys and values."""
    began = time.thread_time()
    output = attention(*states)
    gradients = torch.autograd.grad(output, states, gradient)
    return time.thread_time() - began, [output.detach(), *gradients]


def own(module: nn.Module, layer: Layer) -> Attention:
    """Attention of `shared_prefix: true` on a CPU."""
    prompt = torch.ones(layer.rows, layer.prefix, dtype=torch.bool)
    packed = PackedRows.of(prompt, torch.ones(layer.rows, layer.responses, layer.length + 1, dtype=torch.bool))
    row, place = torch.arange(layer.rows)[:, None, None], torch.arange(packed.branches.shape[1])
    visible = in_own_branch(causal_mask_function, packed)
    if apart_saves(packed.branches):
        mask = packed.branches[:, None, None]
    else:
        mask = visible(row, 0, place[None, layer.prefix :, None], place[None, None])[:, None]
    return lambda *states: causal_then_masked(module, *states, mask)[0]


def prefix_grouper(module: nn.Module, layer: Layer) -> Attention:
    """Attention of PrefixGrouper with SDPA. Ends the script if PrefixGrouper is not installed."""
    try:
        from prefix_grouper import PrefixGrouper
    except ImportError:
        sys.exit("PrefixGrouper is not installed, and napo-bench does not depend on it: pip install prefix-grouper")
    groups = [[layer.prefix] + [layer.length] * layer.responses] * layer.rows
    grouper = PrefixGrouper(groups, padding_mode="right")

    def sdpa(query: Tensor, key: Tensor, value: Tensor, padding: Tensor, *_: Any, **__: Any) -> Tensor:
        queries, keys = query.shape[2], key.shape[2]
        mask = None
        if queries < keys or not padding.bool().all():
            causal = torch.ones(1, 1, queries, keys, dtype=torch.bool).tril(keys - queries)
            mask = causal & padding.bool()[:, None, None, -keys:]
        return sdpa_attention_forward(module, query, key, value, mask)[0]

    return lambda *states: grouper.forward(sdpa, *states)


if __name__ == "__main__":
    main()

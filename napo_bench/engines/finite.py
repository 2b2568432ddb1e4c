"""Logits that are NaN or infinite: generation stops, and the error names the layer that computes them.

Such logits select no token. Without this check the answers are empty, and an empty answer has the best CHAIR.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from napo_bench.core.errors import NapoBenchError

_LARGER = {
    "float16": "--dtype bfloat16, or --dtype float32: float16 ends at 65504.",
    "bfloat16": "--dtype float32",
}


class NotFiniteError(ArithmeticError):
    """The logits of a step, or the output of a layer, contain NaN or infinity."""


def stop_at_logits(model: Any) -> None:
    """Make every forward of the model raise a NotFiniteError if the logits are not finite.

    The logits are checked before generation's own rules, which forbid tokens with minus infinity.
    """
    head = model.get_output_embeddings()
    if head is not None:
        head.register_forward_hook(_look_at_logits)


def _look_at_logits(head: Any, _: Any, logits: torch.Tensor) -> None:
    # NaN and infinity stay in a sum in float32, and only one number leaves the device. The last position gives the
    # token.
    if not math.isfinite(logits[..., -1:, :].sum(dtype=torch.float32).item()):
        raise NotFiniteError(f"the output layer ({type(head).__name__})")


@contextmanager
def stopping_at_layers(model: Any) -> Iterator[None]:
    """Stop a forward at the first layer whose output is not finite: a NotFiniteError names the layer."""

    def look(name: str, layer: Any, _: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.is_floating_point() and not output.isfinite().all():
            raise NotFiniteError(f"{name} ({type(layer).__name__})")

    layers = [(name, module) for name, module in model.named_modules() if not any(module.children())]
    hooks = [layer.register_forward_hook(partial(look, name)) for name, layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def not_finite(dtype: str, layer: str) -> NapoBenchError:
    """The error of a run whose logits are not finite.

    Args:
        dtype: The type that the model computes in.
        layer: First layer whose output is not finite; may be empty.
    """
    first = f" The first layer with such an output is {layer}." if layer else ""
    return NapoBenchError(
        f"The model's logits are NaN or infinite in {dtype}, so they choose no answer.{first}",
        _LARGER.get(dtype, "The checkpoint itself is at fault: train it again with a lower learning rate.")
        + " Finished answers are kept.",
    )

"""Logits that are NaN or infinite: generation stops at them, and the layer that makes them is named.

Such logits choose no token. Without this check the answers are empty, and an empty answer has the best CHAIR.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import LogitsProcessor

from napo_bench.errors import NapoBenchError

_LARGER = {
    "float16": "--dtype bfloat16, or --dtype float32: float16 ends at 65504.",
    "bfloat16": "--dtype float32",
}


class NotFiniteError(ArithmeticError):
    """The logits of a step, or the output of a layer, hold NaN or infinity."""


class FiniteLogits(LogitsProcessor):  # type: ignore[misc, unused-ignore]
    """Stops generation at logits that are not finite; changes none."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """The scores `[B * beams, vocabulary]` as they are.

        Other processors forbid tokens with minus infinity, so the best score of each row is what must be finite.

        Raises:
            NotFiniteError: a row has no finite best score.
        """
        # NaN and infinity survive maximum and sum, and one number leaves the device.
        if not math.isfinite(scores.amax(-1).sum().item()):
            raise NotFiniteError
        return scores


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
        layer: The first layer whose output is not finite; may be empty.
    """
    first = f" The first layer with such an output is {layer}." if layer else ""
    return NapoBenchError(
        f"The model's logits are NaN or infinite in {dtype}, so they choose no answer.{first}",
        _LARGER.get(dtype, "The checkpoint itself is at fault: train it again with a lower learning rate.")
        + " Finished answers are kept.",
    )

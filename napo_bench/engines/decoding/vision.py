"""The images of a batch as arguments of a model. An image of several batches goes through the vision tower once."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from napo_bench.engines.clock import Clock
from napo_bench.engines.decoding.branches import TEXT_INPUTS

_FEATURES = "mm_encoder_outputs"
"""The argument of a model that takes the features of images in place of pixels."""


class Vision:
    """The vision tower of a model, and the features of images that it has seen.

    Args:
        model: A model.
        clock: Clock, which measures the tower as the stage "vision tower".
    """

    def __init__(self, model: Any, clock: Clock) -> None:
        self._model = model
        self._features: dict[str, torch.Tensor] = {}
        self._stacks = False  # whether the features of a batch are one tensor, as in InternVL, or a list
        self._takes_features = _FEATURES in inspect.signature(model.forward).parameters
        _measure(model, clock)

    def keep(self, digests: Iterable[str]) -> None:
        """Forget the features of all images except these."""
        wanted = set(digests)
        self._features = {digest: feature for digest, feature in self._features.items() if digest in wanted}

    def inputs(self, values: Mapping[str, Any], digests: Sequence[str]) -> dict[str, Any]:
        """The inputs with image features in place of pixels, if the model accepts features.

        This is the case if an image is one row of `pixel_values` and nothing else, as in LLaVA-1.5. Otherwise the
        inputs keep the pixels.

        Args:
            values: Inputs of the batch.
            digests: Digests of the images.
        """
        inputs = dict(values)
        if not self._takes_features or set(inputs) - TEXT_INPUTS != {"pixel_values"}:
            return inputs
        first = {digest: row for row, digest in enumerate(digests) if digest not in self._features}
        if len(inputs["pixel_values"]) != len(digests):
            return inputs
        if first:
            pixels = inputs["pixel_values"][list(first.values())]
            found = self._model.base_model.get_image_features(pixel_values=pixels, return_dict=True).pooler_output
            if found is None or len(found) != len(first):
                return inputs
            self._features.update(zip(first, found, strict=True))
            self._stacks = isinstance(found, torch.Tensor)
        del inputs["pixel_values"]
        rows: Any = [self._features[digest] for digest in digests]
        rows = torch.stack(rows) if self._stacks else rows
        return inputs | {_FEATURES: {"image": _output(rows)}}


def can_divide(images: Mapping[str, Any]) -> bool:
    """Whether the images of some prompts of a batch can be taken from `Vision.inputs`: these are features, or none."""
    return images.keys() <= {_FEATURES}


def divided(images: Mapping[str, Any], part: slice) -> dict[str, Any]:
    """The images of some prompts of a batch that can be divided."""
    return {name: {"image": _output(features["image"].pooler_output[part])} for name, features in images.items()}


def _output(features: Any) -> BaseModelOutputWithPooling:
    return BaseModelOutputWithPooling(pooler_output=features)


def _measure(model: Any, clock: Clock) -> None:
    """Measure the forwards of the vision tower."""
    tower = model.get_encoder(modality="image")
    if tower is model or tower is model.base_model:
        return
    opened: list[Any] = []

    def begin(*_: Any) -> None:
        opened.append(clock("vision tower"))
        opened[-1].__enter__()

    def end(*_: Any) -> None:
        if model.device.type != "cpu":
            torch.accelerator.synchronize(model.device)
        opened.pop().__exit__(None, None, None)

    tower.register_forward_pre_hook(begin)
    tower.register_forward_hook(end, always_call=True)

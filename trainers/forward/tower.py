"""The model in its wrappers, and its vision tower during a forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from napo_bench.core.errors import NapoBenchError
from napo_bench.models.families import family_of


def unwrapped(model: nn.Module) -> Any:
    """The transformers model inside its distributed, compiled and PEFT wrappers."""
    inner = extract_model_from_parallel(model, keep_torch_compile=False)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def vision_tower(bare: Any) -> Any:
    """The vision tower of a model; of Qwen-VL with its merger.

    Raises:
        NapoBenchError: the model has none.
    """
    tower = bare.get_encoder(modality="image")
    if tower is bare or tower is bare.base_model:
        raise NapoBenchError(
            f"{type(bare).__name__} has no vision tower.", "Give an image-text-to-text checkpoint, such as LLaVA-1.5."
        )
    return tower


@contextmanager
def gradients_of_tower(bare: Any) -> Iterator[None]:
    """Run the vision tower without gradients and without dropout if none of its parameters trains."""
    tower = vision_tower(bare)
    trains, training = any(parameter.requires_grad for parameter in tower.parameters()), tower.training
    with answering(tower, tower.forward if trains else torch.no_grad()(tower.forward)):
        tower.train(training and trains)
        try:
            yield
        finally:
            tower.train(training)


@contextmanager
def tower_sees_once(bare: Any, times: int) -> Iterator[None]:
    """Give the vision tower the first of `times` copies of the images, and the model as many copies of the features.

    A tower that is not known to return its images along the first dimension gets every copy.

    Args:
        bare: The model.
        times: Number of copies of the images, one after another.
    """
    tower = vision_tower(bare)
    forward = tower.forward
    known = family_of(bare.config).positions is not None and not family_of(tower.config).joins_images

    def first(tensor: Tensor) -> Tensor:
        return tensor[: len(tensor) // times]

    def of_first(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map_only(Tensor, first, (args, kwargs))
        return repeated(forward(*args, **kwargs), times)

    with answering(tower, of_first if known and times > 1 else forward):
        yield


def repeated(value: Any, times: int) -> Any:
    """A nested value with each of its tensors repeated along the first dimension: a, b, a, b."""
    return tree_map_only(Tensor, lambda tensor: torch.cat([tensor] * times), value)


@contextmanager
def answering(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Give a module another forward. The module keeps its hooks, with which FSDP and DeepSpeed gather its weights."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own

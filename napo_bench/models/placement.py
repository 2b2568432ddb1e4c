"""Where a model's weights are held: on one device, or spread over all accelerators of a machine; quantized or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napo_bench.core.errors import NapoBenchError
from napo_bench.models.device import AUTO
from napo_bench.models.quantization import settings_of

_LARGER = "Use more or larger accelerators, --dtype bfloat16, or --quantization 4bit."
_BITS = {"4bit": 4, "8bit": 8}
Memory = Mapping[int | str, int]
"""Device -> bytes that the model may take there."""


def free_memory() -> Memory:
    """The free memory of each accelerator. The memory of the CPU is left out, because a part there answers slowly."""
    from accelerate.utils import get_max_memory

    return {device: size for device, size in get_max_memory().items() if device != "cpu"}


def placed(name: str, weights: int, device: Any, dtype: Any, quantization: str | None) -> dict[str, Any]:
    """The arguments of `from_pretrained` that say where the weights are held.

    Args:
        name: Name of the checkpoint, for messages.
        weights: Number of weights.
        device: A torch.device, or AUTO.
        dtype: A torch.dtype.
        quantization: One of napo_bench.models.quantization.KINDS, or None.

    Raises:
        NapoBenchError: the weights are larger than the accelerators together.
    """
    quantized = {} if quantization is None else {"quantization_config": settings_of(quantization, dtype)}
    if device != AUTO:
        return {"device_map": {"": device}, **quantized}
    memory = free_memory()
    needed = weights * _BITS.get(quantization or "", 8 * dtype.itemsize) / 8
    if needed > sum(memory.values()):
        raise NapoBenchError(
            f"{name} takes {needed / 1e9:.2f} GB; {len(memory)} devices have {sum(memory.values()) / 1e9:.2f} GB free.",
            _LARGER,
        )
    return {"device_map": AUTO, "max_memory": dict(memory), **quantized}


def require_placed(name: str, model: Any, options: Mapping[str, Any]) -> None:
    """Refuse a model with a part outside the accelerators: the part would be read from the disk for every token.

    Args:
        name: Name of the checkpoint, for messages.
        model: Loaded model.
        options: Result of `placed`.

    Raises:
        NapoBenchError: a part is outside. The error names the first part.
    """
    held: Mapping[str, Any] = getattr(model, "hf_device_map", {})
    outside = [part for part, device in held.items() if device not in options.get("max_memory", {device: 0})]
    if outside:
        raise NapoBenchError(
            f"{name} does not fit into the devices {', '.join(map(str, options['max_memory']))}: "
            f"{outside[0] or 'the model'} is left over.",
            _LARGER,
        )

"""The device and the number type of a command, checked before anything is loaded."""

from __future__ import annotations

import re

from napo_bench.core.errors import NapoBenchError, nearest

DTYPES = ("auto", "float32", "bfloat16", "float16")
_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16", "float": "float32"}
_DEVICES = ("cpu", "cuda", "mps", "xpu")
AUTO = "auto"
"""Device of a model that is spread over all accelerators of the machine."""


def require_dtype(name: str) -> None:
    """Raises NapoBenchError for a name that is not in DTYPES. The error names the nearest dtype."""
    if name in DTYPES:
        return
    near = [_SHORT[name.lower()]] if name.lower() in _SHORT else nearest(name, DTYPES)
    raise NapoBenchError(
        f"The dtype is {name!r}; {', '.join(DTYPES[:-1])} or {DTYPES[-1]} is expected.",
        f"--dtype {near[0] if near else 'auto'}",
    )


def require_device(name: str | None) -> None:
    """Try the device of a command. torch is imported only for a device that is not the CPU.

    Args:
        name: "cpu", "cuda", "cuda:1"; None is the best device, AUTO is all accelerators.

    Raises:
        NapoBenchError: the kind of device does not exist, or this machine has no such device.
    """
    if name is None or name == "cpu":
        return
    kind, number = (AUTO, 0) if name == AUTO else _parsed(name)
    import torch

    if kind == AUTO:
        if not torch.accelerator.is_available():
            raise NapoBenchError(
                "The device is 'auto', which spreads a model over GPUs; torch finds no accelerator on this machine.",
                "--device cpu, or leave --device out to use the best device.",
            )
        return
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    there = 1 if kind == "cpu" else 0
    if accelerator is not None and accelerator.type == kind:
        there = torch.accelerator.device_count()
    if there == 0:
        built = "" if kind != "cuda" or torch.version.cuda else " (this torch is built without CUDA)"
        raise NapoBenchError(
            f"The device is {name!r}; torch finds no {kind} device on this machine{built}.",
            "--device cpu, or leave --device out to use the best device.",
        )
    if number >= there:
        names = kind if there == 1 else f"{kind}:0 to {kind}:{there - 1}"
        raise NapoBenchError(f"The device is {name!r}; this machine has {names}.", f"--device {kind}")


def _parsed(name: str) -> tuple[str, int]:
    found = re.fullmatch(r"([a-z]+)(?::(\d+))?", name)
    if found is None or found[1] not in _DEVICES:
        kind = name.partition(":")[0]
        near = ["cuda"] if kind.lower() in ("gpu", "nvidia") else nearest(kind, _DEVICES)
        raise NapoBenchError(
            f"The device is {name!r}; {', '.join(_DEVICES)}, one of them with a number (cuda:1), or auto is expected.",
            f"--device {near[0] if near else 'cpu'}",
        )
    return found[1], int(found[2] or 0)

"""Weights in 8 or 4 bits by bitsandbytes: what is needed, and how transformers is told."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any

from napo_bench.core.errors import NapoBenchError, unknown_name

KINDS = ("4bit", "8bit")
"""Names for `--quantization`. 4bit is NF4 of QLoRA (arXiv 2305.14314), 8bit is LLM.int8() (arXiv 2208.07339)."""

_PACKAGE = "bitsandbytes"
_DEVICES = ("cuda", "xpu")


def require_kind(kind: str | None) -> None:
    """Raises NapoBenchError for a name that is not in KINDS."""
    if kind is not None and kind not in KINDS:
        raise unknown_name("quantization", kind, KINDS, "--quantization")


def require_quantization(kind: str, device_type: str, source: str = "--quantization") -> None:
    """Check before weights are read that they can be quantized here.

    Args:
        kind: One of KINDS.
        device_type: "cpu", "cuda", ...
        source: What asks for the quantization, for messages.

    Raises:
        NapoBenchError: there is no GPU, or bitsandbytes is not installed.
    """
    if device_type not in _DEVICES:
        raise NapoBenchError(
            f"{source} is {kind}, and the model runs on {device_type}; {_PACKAGE} quantizes on a GPU "
            f"({' or '.join(_DEVICES)}).",
            "Run on a machine with a GPU, or leave --quantization out.",
        )
    if importlib.util.find_spec(_PACKAGE) is None:
        raise NapoBenchError(
            f"{source} is {kind}, and the package {_PACKAGE} is not installed.",
            'pip install "napo-bench[quantization]"',
        )


def settings_of(kind: str, dtype: Any) -> Any:
    """The settings of transformers for a quantization.

    Args:
        kind: One of KINDS.
        dtype: Number type of the computation, a torch.dtype.
    """
    from transformers import BitsAndBytesConfig

    make: Any = BitsAndBytesConfig
    if kind == "8bit":
        return make(load_in_8bit=True)
    return make(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def stored_kind(config: Any) -> str | None:
    """The quantization of weights that are stored quantized, "4bit" or the name of its method; None if they are not."""
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    said = stored if isinstance(stored, dict) else stored.to_dict()
    if said.get("quant_method") != _PACKAGE:
        return str(said.get("quant_method"))
    return "8bit" if said.get("load_in_8bit") else "4bit"


def described(kind: str) -> str:
    """A quantization in words, with the version of what quantizes."""
    if kind not in KINDS:
        return kind
    return f"{kind} ({_PACKAGE} {importlib.metadata.version(_PACKAGE)})"

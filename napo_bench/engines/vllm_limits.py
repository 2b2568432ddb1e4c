"""What the engine `vllm` needs, and what vLLM has no equivalent of: checked before weights are read."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch

from napo_bench.core import processes
from napo_bench.core.errors import NapoBenchError
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.device import AUTO
from napo_bench.models.explained import first_line
from napo_bench.models.original_llava import settings as original_llava

PACKAGE = "vllm"

# vLLM reads these variables when it is imported. A user's own values stay.
_VARIABLES = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # errors reach this process, and batches do not depend on timing
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_KVCACHE_SPACE": "4",  # GiB; without this variable vLLM wants 92% of a machine's memory for itself
    "VLLM_NO_USAGE_STATS": "1",  # without this variable vLLM reports its use to its makers
}
_MEMORY = 0.92  # vLLM's own default
_KNOWN_SETTINGS = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "max_length", "max_new_tokens", "repetition_penalty"),
    "suppress_tokens",
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("num_beams", "length_penalty", "early_stopping", "use_cache", "cache_implementation"),
    *("transformers_version", "_from_model_config"),
}
"""Settings of generation_config.json that requests contain, or that change no answer without draws."""
USE_HF = "Or use the engine hf: leave --engine vllm out."


def version() -> str:
    """The version of vLLM, whichever of its distributions is installed."""
    import vllm

    return str(vllm.__version__)


def platform() -> str:
    """The kind of device that the installed vLLM computes on: "cuda", "cpu", ...

    Raises:
        NapoBenchError: vLLM is not installed, or cannot be imported.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise NapoBenchError(
            f"The engine vllm needs the package {PACKAGE}, which is not installed.",
            'Into an environment of its own, because vLLM needs its own torch: pip install "napo-bench[vllm]"',
        )
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    try:
        from vllm.platforms import current_platform

        return str(current_platform.device_type)
    except Exception as error:  # a build of vLLM for other hardware or another torch
        raise NapoBenchError(
            f"vLLM {version()} cannot be imported: {type(error).__name__}: {first_line(error)}",
            f'Install a vLLM that fits torch and this machine: pip install "napo-bench[vllm]". {USE_HF}',
        ) from error


def require_alone() -> None:
    """Raises NapoBenchError if several processes run."""
    if not processes.is_alone():
        raise NapoBenchError(
            f"The engine vllm runs in one process, and {processes.count()} processes run.",
            "Leave out torchrun. For one model over all GPUs: --device auto",
        )


def devices(device: str | None, platform: str) -> int:
    """Number of devices that vLLM spreads the model over.

    Args:
        device: The user's device.
        platform: Kind of device that vLLM computes on.

    Raises:
        NapoBenchError: vLLM computes on another device.
    """
    if device == AUTO:
        return int(torch.accelerator.device_count())
    kind, _, number = (device or platform).partition(":")
    if kind != platform:
        raise NapoBenchError(
            f"--device is {device}; the installed vLLM {version()} computes on {platform}.",
            f"Leave --device out. {USE_HF}",
        )
    if number:
        raise NapoBenchError(
            f"--device is {device}; vLLM takes the first device that it sees.",
            f"Set CUDA_VISIBLE_DEVICES={number}, and leave --device out.",
        )
    return 1


def memory_share(platform: str) -> float:
    """Share of a GPU's memory that vLLM may take: most of what is free. vLLM stops if its share is not free."""
    if platform != "cuda":
        return _MEMORY
    free, total = torch.cuda.mem_get_info()
    return _MEMORY * free / total


def generation_of(checkpoint: Checkpoint, config: Any) -> Any:
    """The generation settings that transformers reads of a checkpoint.

    Raises:
        NapoBenchError: a setting changes answers, and vLLM has no equivalent of the setting.
    """
    from transformers import GenerationConfig

    path, original = checkpoint.folder / "generation_config.json", checkpoint.original
    of_model: Any = GenerationConfig.from_model_config
    from_folder: Any = GenerationConfig.from_pretrained
    if original is not None:
        settings = original_llava.generation_of(original.settings, original.language, config)
    else:
        settings = from_folder(str(checkpoint.folder)) if path.is_file() else of_model(config)
    unknown = {
        name: value
        for name, value in settings.to_diff_dict().items()
        if name not in _KNOWN_SETTINGS and value not in (None, 1, 1.0, 0, False, [])
    }
    if unknown:
        named = ", ".join(f"{name} = {value}" for name, value in unknown.items())
        raise NapoBenchError(f"{path}: the engine vllm has no equivalent of {named}.", USE_HF)
    return settings

"""A checkpoint as one folder for programs other than transformers: whole weights, under their published names."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from napo_bench.core import caches, disk, files, locks
from napo_bench.models import soundness
from napo_bench.models.checkpoint import Checkpoint

_STAMP = "napo_bench.json"
_SHARD = "2GB"
_TOWERS = ("clip_vision_model", "siglip_vision_model")
# LLaVA, Gemma 3 and others were published with `vision_model` in these names, and vLLM reads no others. transformers
# from 5.20 on writes a model that it made anew without them.
_TOWER = re.compile(r"^((?:model\.)?vision_tower\.)(?!vision_model\.)")

logger = logging.getLogger(__name__)


def whole_folder(checkpoint: Checkpoint, config: Any, dtype: str) -> Path:
    """The folder of a checkpoint's whole weights.

    An adapter, a checkpoint in LLaVA's original layout, and a model without the published names of its vision tower are
    written once, as a whole model, into the user's cache folder.

    Args:
        checkpoint: The checkpoint.
        config: Configuration of the checkpoint.
        dtype: Name of the number type of the written weights: "bfloat16".

    Raises:
        NapoBenchError: the weights cannot be read, or the copy cannot be written.
    """
    if checkpoint.adapter is None and checkpoint.original is None and not _lacks_names(checkpoint.folder, config):
        return checkpoint.folder
    out = caches.hold(caches.place("whole") / f"{checkpoint.fingerprint()[:16]}-{dtype}")
    with locks.output_folder(out):
        if not (out / _STAMP).is_file():
            logger.warning("Writing the whole weights of %s once, into %s", checkpoint.name, out)
            with disk.writing(out):
                _write(checkpoint, config, dtype, out)
            files.write_json(out / _STAMP, {"checkpoint": checkpoint.name, "dtype": dtype})
    caches.mark(out, of=checkpoint.name)
    return out


def _write(checkpoint: Checkpoint, config: Any, dtype: str, out: Path) -> None:
    import torch
    from transformers import GenerationConfig

    model = checkpoint.load_model(torch.device("cpu"), getattr(torch, dtype))
    # transformers refuses to write generation settings that contradict each other, as many published ones do.
    make: Any = GenerationConfig
    model.generation_config = make()
    model.save_pretrained(out, max_shard_size=_SHARD)
    checkpoint.load_processor().save_pretrained(out)
    if _has_tower(config):
        _name_as_published(out)


def _has_tower(config: Any) -> bool:
    return getattr(getattr(config, "vision_config", None), "model_type", "") in _TOWERS


def _lacks_names(folder: Path, config: Any) -> bool:
    stored = soundness.stored_shapes(soundness.weight_files(folder)) if _has_tower(config) else {}
    return any(_TOWER.match(name) for name in stored)


def _name_as_published(folder: Path) -> None:
    """Rename the weights of the vision tower."""
    from safetensors.torch import load_file, save_file

    index = folder / f"{soundness.WEIGHTS}.index.json"
    for path in soundness.weight_files(folder):
        renamed = {_published(name): tensor for name, tensor in load_file(path).items()}
        with files.atomic_path(path) as temporary:
            save_file(renamed, temporary, {"format": "pt"})
    if index.is_file():
        listed = files.read_json(index)
        places = {_published(name): place for name, place in listed["weight_map"].items()}
        files.write_json(index, {**listed, "weight_map": places})


def _published(name: str) -> str:
    return _TOWER.sub(r"\1vision_model.", name)

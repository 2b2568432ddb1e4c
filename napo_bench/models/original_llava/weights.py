"""The stored weights of LLaVA's code: their files, their names in transformers, and how they are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napo_bench.core.errors import NapoBenchError
from napo_bench.models import soundness

BESIDE = ("mm_projector.bin", "non_lora_trainables.bin")
"""Files of further weights, which have no copy in safetensors."""

PICKLED = ("pytorch_model*.bin", "pytorch_model.bin.index.json", "adapter_model.bin")
"""Files that are fetched if the checkpoint has no safetensors."""

_READ_AT_ONCE = 256 * 2**20
TOWER = "model.vision_tower."
"""Beginning of the names of the vision tower's weights in transformers."""

_RENAMED = (
    (r"model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"model\.vision_tower\.vision_tower\.(vision_model\.)?", TOWER),
    (r"vision_model\.", TOWER),
    (r"model\.(?=(embed_tokens|layers|norm)\.)", "model.language_model."),
)
"""Beginning of a name in LLaVA's code or in CLIP -> the beginning in transformers. Other names stay."""

_COMPUTED = re.compile(r"(rotary_emb\.inv_freq|embeddings\.position_ids)$")
OTHER_HALF_OF_CLIP = re.compile(r"text_model\.|text_projection\.|visual_projection\.|logit_scale$")
_ASKED_FOR = re.compile(r"(?:GLOBAL|global) `?([\w.]+)")
LORA = re.compile(r"\.lora_[A-Za-z_]+")


@dataclass(frozen=True)
class Stored:
    """A stored weight: its file, its name in the file, and a tensor of its shape without memory."""

    path: Path
    key: str
    empty: Any


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder's weights: safetensors, or pickles if there are no safetensors."""
    for stem in ("model.safetensors", "pytorch_model.bin"):
        if (folder / stem).is_file() or (folder / f"{stem}.index.json").is_file():
            return soundness.weight_files(folder, stem)
    raise NapoBenchError(
        f"{folder} holds no weights (no model*.safetensors and no pytorch_model*.bin).", soundness.FETCH_AGAIN
    )


def listed(paths: Iterable[Path]) -> dict[str, Stored]:
    """Name in the files -> stored weight, of several files."""
    import torch

    found: dict[str, Stored] = {}
    for path in paths:
        shapes = (
            soundness.stored_shapes([path])
            if path.suffix == ".safetensors"
            else {key: torch.empty(one.shape, device="meta") for key, one in _tensors(path).items()}
        )
        found |= {key: Stored(path, key, empty) for key, empty in shapes.items()}
    return found


def renamed(stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """Name in transformers -> stored weight. A stored value that the model computes itself is left out."""
    prefix = "base_model.model."
    plain = {key.removeprefix(prefix): one for key, one in stored.items()}
    if any(key.startswith("model.model.") for key in plain):
        plain = {key.removeprefix("model."): one for key, one in plain.items()}
    renamed = {}
    for key, one in plain.items():
        if _COMPUTED.search(key):
            continue
        for old, new in _RENAMED:
            key, changed = re.subn(f"^{old}", new, key)
            if changed:
                break
        renamed[key] = one
    return renamed


def _tensors(path: Path) -> Mapping[str, Any]:
    """The tensors of a pickle, mapped into memory.

    Raises:
        NapoBenchError: the file holds anything else.
    """
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise _no_tensors(path, _refused_by_torch(error)) from None
    if not isinstance(found, dict):
        raise _no_tensors(path, f"a {type(found).__name__}")
    other = [key for key, value in found.items() if not isinstance(key, str) or not isinstance(value, torch.Tensor)]
    if other:
        raise _no_tensors(path, f"{other[0]!r} is a {type(found[other[0]]).__name__}")
    return found


def _refused_by_torch(error: Exception) -> str:
    """Why torch does not load a pickle, without torch's advice to load the file all the same."""
    asked = _ASKED_FOR.search(str(error))
    if asked:
        return f"it asks for {asked[1]}, which is no part of a tensor."
    return "it is damaged, or was not written by torch.save in its present format."


def _no_tensors(path: Path, found: str) -> NapoBenchError:
    return NapoBenchError(
        f"{path} is no file of tensors alone: {found:.200}",
        "Nothing of the file was run. Fetch it again, or give a checkpoint in safetensors.",
    )


def read(stored: Mapping[str, Stored]) -> Iterator[dict[str, Any]]:
    """The weights, file by file, in groups of 256 MiB at most, or of one weight."""
    by_path: dict[Path, list[str]] = {}
    for name, one in stored.items():
        by_path.setdefault(one.path, []).append(name)
    for path, names in by_path.items():
        group: list[str] = []
        size = 0
        for name in names:
            bytes_of = stored[name].empty.numel() * 4
            if group and size + bytes_of > _READ_AT_ONCE:
                yield _group(path, group, stored)
                group, size = [], 0
            group.append(name)
            size += bytes_of
        yield _group(path, group, stored)


def _group(path: Path, names: list[str], stored: Mapping[str, Stored]) -> dict[str, Any]:
    """Weights of one file. The file is opened for each group: its pages do not stay in memory."""
    if path.suffix != ".safetensors":
        tensors = _tensors(path)
        return {name: tensors[stored[name].key] for name in names}
    from safetensors import safe_open

    with safe_open(path, "pt") as weights:
        return {name: weights.get_tensor(stored[name].key) for name in names}


def grown(name: str, weight: Any, expected: Any, device: Any) -> Any:
    """A copy of a weight on the device. A new row of the embedding is zero.

    A new row of the output layer is the mean of the stored rows. Its logit is the mean of their logits, so 64 new rows
    take less than 64 / 32,000 of the probability, and none is the most probable token.
    """
    import torch

    if weight.shape == expected.shape:
        return weight.to(device, expected.dtype, copy=True)
    grown = torch.zeros(expected.shape, dtype=expected.dtype, device=device)
    grown[: len(weight)] = weight
    if name == "lm_head.weight":
        grown[len(weight) :] = weight.mean(0, dtype=torch.float32).to(device)
    return grown

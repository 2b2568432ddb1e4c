"""What a checkpoint's config.json may decide, and what is wrong with a config.json that transformers cannot read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError
from napo_bench.models.explained import first_line
from napo_bench.models.soundness import FETCH_AGAIN, WEIGHTS

_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "depth", "encoder_layers", "decoder_layers")
_MOST_LAYERS = 1000
_MOST = dict.fromkeys(_LAYERS, _MOST_LAYERS) | {"num_labels": 100_000}
"""Field -> largest value. transformers makes something for each layer and each label."""
_ATTENTIONS = {"eager", "sdpa", "flex_attention"}
_UPDATE = (
    "Correct the field, or update transformers: pip install -U transformers. A checkpoint that brings code of its own "
    "needs eval's --trust-remote-code."
)


def require_own_parts(folder: Path, trust_remote_code: bool) -> None:
    """Refuse a configuration that brings weights of another name or code of the hub for attention, or that asks for
    more layers or labels than any model has.

    transformers takes these from config.json. A kernel is code, so `trust_remote_code` allows it. The public field
    `attn_implementation` has no effect without `trust_remote_code`, so every value is allowed there.

    Raises:
        NapoBenchError: config.json names weights, an attention that is not transformers' own, or too many layers or
            labels.
    """
    path = folder / "config.json"
    if not path.is_file():
        return
    config = files.read_json(path, FETCH_AGAIN)
    if isinstance(config, dict) and config.get("transformers_weights") is not None:
        raise NapoBenchError(
            f"{path}: transformers_weights names other weights than {WEIGHTS}.",
            "Remove the field, and rename the file.",
        )
    for field, number in _numbers(config):
        if number > _MOST[field]:
            what = "layers" if field in _LAYERS else "labels"
            raise NapoBenchError(
                f"{path}: {field} is {number:,}; at most {_MOST[field]:,} {what} are expected.",
                f"Correct the field. {FETCH_AGAIN}",
            )
    kernels = [name for name in _attentions(config) if name not in _ATTENTIONS]
    if kernels and not trust_remote_code:
        raise NapoBenchError(
            f"{path}: _attn_implementation is {kernels[0]!r:.120}, which fetches and runs code of the hub; "
            f"{', '.join(sorted(_ATTENTIONS))} are transformers' own.",
            "Remove the field; eval also takes --trust-remote-code.",
        )


def unreadable_config(folder: Path, error: Exception) -> NapoBenchError:
    """What is wrong with a config.json that transformers cannot read: a type that it does not know, or its own words.

    Args:
        folder: Folder of config.json.
        error: What transformers raised.
    """
    import transformers
    from transformers import CONFIG_MAPPING

    path = folder / "config.json"
    config = files.read_json(path, FETCH_AGAIN) if path.is_file() else {}
    parts = {"": config} | {f"{name}.": part for name, part in config.items() if name.endswith("_config")}
    for where, part in parts.items():
        kind = part.get("model_type") if isinstance(part, dict) else None
        if kind is not None and (not isinstance(kind, str) or kind not in CONFIG_MAPPING):
            return NapoBenchError(
                f"{path}: {where}model_type is {kind!r:.120}, which transformers {transformers.__version__} does not "
                "know.",
                _UPDATE,
            )
    return NapoBenchError(
        f"{folder}: the configuration cannot be loaded: {first_line(error)}",
        "Check that it is the folder of a whole checkpoint.",
    )


def _attentions(value: Any, inside: bool = False) -> Iterator[str]:
    """Every attention that a configuration names, for the whole model or for a part."""
    if isinstance(value, str) and inside:
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _attentions(item, inside or name.startswith("_attn_implementation"))
    elif isinstance(value, list):
        for item in value:
            yield from _attentions(item, inside)


def _numbers(value: Any, field: str = "") -> Iterator[tuple[str, float]]:
    """Name and value of each number of layers or labels, for the whole model or for a part."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _numbers(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif field in _MOST and isinstance(value, int | float):
        yield field, value

"""The config.json of LLaVA's code, as a configuration of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError
from napo_bench.models import soundness
from napo_bench.models.configuration import require_own_parts

ARCHITECTURE = "LlavaLlamaForCausalLM"
ONE_OF_THESE = "Give a checkpoint of LLaVA-1.5 7B or 13B, for example llava-hf/llava-1.5-7b-hf."
_MULTIPLE = 64
"""The rows of a grown embedding are a multiple of this number, as in the checkpoints of llava-hf."""

_LANGUAGE_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps",
    "rope_theta", "rope_scaling", "attention_bias", "mlp_bias", "pretraining_tp", "tie_word_embeddings",
    "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


def is_original(folder: Path) -> bool:
    """Whether a folder's config.json is of LLaVA's code."""
    path = folder / "config.json"
    said = files.read_json(path, soundness.FETCH_AGAIN) if path.is_file() else None
    if not isinstance(said, dict):
        return False
    architectures = said.get("architectures")
    named = [str(name) for name in architectures] if isinstance(architectures, list) else []
    return "mm_vision_tower" in said or ARCHITECTURE in named


def require_llava_15(settings: Path) -> str:
    """The name of the tower. Raises NapoBenchError for a model of LLaVA's code that is no LLaVA-1.5."""
    said = files.read_json(settings)
    found = {
        "architectures": (said.get("architectures"), ([ARCHITECTURE],)),
        "mm_projector_type": (said.get("mm_projector_type", "linear"), ("mlp2x_gelu",)),
        "mm_vision_select_feature": (said.get("mm_vision_select_feature", "patch"), ("patch", "cls_patch")),
        "mm_patch_merge_type": (said.get("mm_patch_merge_type", "flat"), ("flat",)),
        "mm_use_im_start_end": (said.get("mm_use_im_start_end", False), (False,)),
        "image_aspect_ratio": (said.get("image_aspect_ratio"), ("pad", "square", None)),
        "quantization_config": (said.get("quantization_config"), (None,)),
    }
    for field, (value, expected) in found.items():
        if value not in expected:
            words = " or ".join(str(one) for one in expected)
            raise NapoBenchError(
                f"{settings}: {field} is {value!r:.80}; of LLaVA's original layout, {words} is loaded.", ONE_OF_THESE
            )
    for field, kind in {"mm_vision_tower": str, "mm_vision_select_layer": int, "vocab_size": int}.items():
        files.field(said, field, kind, str(settings))
    return str(said["mm_vision_tower"])


def config_of(settings: Path, tower: Path, image_token: int) -> Any:
    """The configuration of transformers' LLaVA. Its vocabulary has a row for the image token.

    Args:
        settings: Path of the config.json of LLaVA's code.
        tower: Folder of the CLIP model whose vision tower is used.
        image_token: The number of the image token.
    """
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    said = files.read_json(settings)
    require_own_parts(settings.parent, False)
    require_own_parts(tower, False)
    kind = files.read_json(tower / "config.json").get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise NapoBenchError(f"{tower}: the vision tower is a {kind!r} model; CLIP is expected.", ONE_OF_THESE)
    language = LlamaConfig(**{field: said[field] for field in _LANGUAGE_FIELDS if field in said})
    if image_token >= language.vocab_size:
        language.vocab_size = -(-(image_token + 1) // _MULTIPLE) * _MULTIPLE
    vision: Any = CLIPVisionConfig.from_pretrained(str(tower))
    make: Any = LlavaConfig
    strategy = {"patch": "default", "cls_patch": "full"}[said.get("mm_vision_select_feature", "patch")]
    return make(
        vision_config=vision,
        text_config=language,
        image_token_index=image_token,
        projector_hidden_act="gelu",
        vision_feature_layer=said["mm_vision_select_layer"],
        vision_feature_select_strategy=strategy,
        image_seq_length=(vision.image_size // vision.patch_size) ** 2 + (strategy == "full"),
        tie_word_embeddings=language.tie_word_embeddings,
        pad_token_id=language.pad_token_id,
        image_aspect_ratio=said.get("image_aspect_ratio"),
    )


def generation_of(settings: Path, language: Path, config: Any) -> Any:
    """The tokens that begin and end an answer. The rows that the embedding gained are never an answer.

    Args:
        settings: Path of the config.json of LLaVA's code.
        language: Folder of the language model.
        config: Result of `config_of`.
    """
    from transformers import GenerationConfig

    own = (language / "generation_config.json").is_file()
    make: Any = GenerationConfig
    found = make.from_pretrained(str(language)) if own else make()
    if not found.do_sample:  # a setting of sampling could not be saved with a trained checkpoint
        found.temperature = found.top_p = found.top_k = None
    text = config.text_config
    for field in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(found, field) is None:
            setattr(found, field, getattr(text, field))
    first = files.read_json(settings)["vocab_size"]
    if first < text.vocab_size:
        found.suppress_tokens = list(range(first, text.vocab_size))
    return found

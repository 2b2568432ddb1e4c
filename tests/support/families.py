"""A checkpoint of a few thousand random weights for each image-text-to-text type of transformers.

Every checkpoint has the configuration class, the processor and the image processor of its family. The tokenizer is
trained here on a few sentences, and has the family's special tokens. The chat template is ours, and has the family's
turns. So a checkpoint goes the way that a released checkpoint goes, from `--ckpt` to the answer.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from family_recipes import RECIPES, Recipe, special_tokens
from transformers.models.auto import configuration_auto, image_processing_auto, modeling_auto, processing_auto
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

TYPES = tuple(modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
"""Every `model_type` that transformers lists for image-text-to-text."""

HELD = (
    "llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "gemma3", "gemma4",
    "internvl", "smolvlm", "idefics3", "paligemma", "glm4v", "mistral3", "aya_vision", "llama4", "mllama", "molmo2",
    "ovis2",
)  # fmt: skip
"""The families that people use. The tests compute their rows of docs/models.md again."""

_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 4096,
    "initializer_range": 0.2,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
_VISION = {
    "hidden_size": 16,
    "embed_dim": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "depth": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_heads": 2,
    "attention_heads": 2,
    "head_dim": 8,
    "image_size": 16,
    "patch_size": 4,
    "initializer_range": 0.2,
    "projection_dim": 16,
    "mlp_dim": 24,
    "output_channels": 16,
}
_SENTENCES = [
    "What is in the picture? Is there a dog or a cat? Describe this image in detail. Answer yes or no.",
    "There is a red car in the street, and a blue bird on the chair. A man is standing with a cup in his hand.",
    "How many people are there? Which colour has the horse? The kitchen is white and the farm is green.",
] * 4


def make_family(
    folder: Path,
    family: str,
    seed: int = 0,
    text: Mapping[str, Any] = MappingProxyType({}),
    vision: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write the tiny checkpoint of a family into a folder: configuration, weights, processor, tokenizer.

    `text` and `vision` are other sizes of the two models.
    """
    recipe = RECIPES[family]
    recipe = dataclasses.replace(recipe, text={**recipe.text, **text}, vision={**recipe.vision, **vision})
    processor = _processor(family, recipe)
    config = _config(family, recipe, processor.tokenizer)
    torch.manual_seed(seed)
    model = transformers.AutoModelForImageTextToText.from_config(config).eval()
    with torch.no_grad():
        # Gates and scales that begin at zero would hide the image.
        for weight in model.parameters():
            if weight.is_floating_point():
                weight.add_(torch.randn_like(weight), alpha=0.1)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, name, getattr(processor.tokenizer, name))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _config(family: str, recipe: Recipe, tokenizer: Any) -> Any:
    number = tokenizer.convert_tokens_to_ids
    of_family = configuration_auto.CONFIG_MAPPING[family]
    ids = {name: number(token) for name, token in recipe.ids.items()}
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    every = {**special, "vocab_size": len(tokenizer), "tie_word_embeddings": False}
    text = {**_TEXT, **every, "vocab_size_per_layer_input": len(tokenizer), **ids, **recipe.text}
    sizes = {"text_config": text, "vision_config": {**_VISION, **recipe.vision}}
    defaults = of_family()
    parts = {}
    for name, values in sizes.items():
        part = getattr(defaults, name, None)
        named = values.get("model_type")
        if part is None and named is None:
            continue
        of_part = configuration_auto.CONFIG_MAPPING[named] if named else type(part)
        parts[name] = of_part(**_known(of_part, values))
    if "text_config" not in parts:
        every = {**text, **every}
    own = {name: _numbered(value, number) for name, value in recipe.config.items()}
    return of_family(**{**_known(of_family, every), **ids, **parts, **own})


def _numbered(value: Any, number: Any) -> Any:
    """A field of config.json with numbers of tokens: a list of tokens, or a dict of tokens to None."""
    if tokens := _names(value):
        return (
            {token: number(token) for token in tokens}
            if isinstance(value, dict)
            else [number(token) for token in tokens]
        )
    return value


def _names(value: Any) -> list[str]:
    """The tokens that a field of config.json numbers."""
    if isinstance(value, dict) and value and all(item is None for item in value.values()):
        return list(value)
    return value if isinstance(value, list) and all(str(item).startswith("<") for item in value) else []


def _known(of_part: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    fields = {entry.name for entry in dataclasses.fields(of_part)}
    return {name: value for name, value in values.items() if name in fields}


def _processor(family: str, recipe: Recipe) -> Any:
    tables = {
        "processor": processing_auto.PROCESSOR_MAPPING_NAMES,
        "image_processor": image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES,
        "video_processor": VIDEO_PROCESSOR_MAPPING_NAMES,
        "feature_extractor": FEATURE_EXTRACTOR_MAPPING_NAMES,
    }
    names = {part: recipe.names.get(part, table.get(family)) for part, table in tables.items()}
    names = {
        part: name.get("torchvision") or name["pil"] if isinstance(name, dict) else name for part, name in names.items()
    }
    of_family = getattr(transformers, names["processor"])
    parts: dict[str, Any] = {"tokenizer": _tokenizer(recipe)}
    for part in of_family.get_attributes():
        if part != "tokenizer" and names.get(part):
            options = {"image_processor": recipe.pixels, "video_processor": recipe.video}.get(part, {})
            parts[part] = getattr(transformers, names[part])(**options)
    template = recipe.turns.template(recipe.image)
    if not _takes_template(of_family):
        parts["tokenizer"].chat_template = template
        return of_family(**parts, **recipe.processor)
    return of_family(**parts, **recipe.processor, chat_template=template)


def _takes_template(of_processor: Any) -> bool:
    return "chat_template" in inspect.signature(of_processor.__init__).parameters


def _tokenizer(recipe: Recipe) -> Any:
    configured = [token for value in recipe.config.values() for token in _names(value)]
    tokens = [
        *recipe.turns.tokens,
        *special_tokens(recipe.image),
        *recipe.ids.values(),
        *recipe.named.values(),
        *recipe.tokens,
        *configured,
    ]
    bos = next(iter(special_tokens(recipe.turns.begin)), recipe.bos)
    own = {"bos_token": bos, "eos_token": special_tokens(recipe.turns.close)[0], "pad_token": "<|pad|>"}
    extra = [token for token in dict.fromkeys(tokens) if token not in {*own.values(), *recipe.named.values()}]
    return transformers.TokenizersBackend(
        tokenizer_object=_trained(),
        **{name: token for name, token in own.items() if token},
        extra_special_tokens=extra,
        model_specific_special_tokens=dict(recipe.named),
        model_input_names=["input_ids", "attention_mask"],
    )


def _trained() -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(_trained_text())


@functools.cache
def _trained_text() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator(_SENTENCES, trainer)
    return str(trained.to_str())

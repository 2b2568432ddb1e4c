"""Checkpoints in the shape of LLaVA-1.5 over a real SentencePiece vocabulary of 32,000 pieces."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

IMAGE, PAD, VOCABULARY, SIDE, PATCH = 32000, 32001, 32064, 336, 14
IMAGE_TOKENS = (SIDE // PATCH) ** 2
QUESTION, PICTURE = "What is it?", "RGB 640x427"
HUB_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
FORMS: dict[str, dict[str, Any]] = {
    "prepend": {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
    },
    **{
        f"metaspace {scheme}": {
            "normalizer": None,
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False},
        }
        for scheme in ("first", "always")
    },
}
"""Form of tokenizer.json -> how it marks the beginning of a text. transformers 4 wrote the first for `legacy: true`,
and the second for `legacy: false`."""


def read_vocabulary(path: Path) -> dict[str, Any]:
    """The model of a tokenizer.json, with merges in SentencePiece's order: runs of blanks have the lowest score."""
    model: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["model"]
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return {**model, "merges": sorted(merges, key=lambda merge: not "".join(merge).strip("▁"))}


def write_tokenizer(folder: Path, vocabulary: dict[str, Any], form: str, legacy: bool | None) -> None:
    """Write processor and tokenizer as transformers 4 saved them for the hub.

    Args:
        folder: Folder to write into.
        vocabulary: Result of `read_vocabulary`.
        form: Name in `FORMS`.
        legacy: Field of tokenizer_config.json; None leaves the field out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    special = {"<unk>": 0, "<s>": 1, "</s>": 2, "<image>": IMAGE, "<pad>": PAD}
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    one, two = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": token, **plain} for token, number in special.items()],
        **copy.deepcopy(FORMS[form]),
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, one],
            "pair": [begin, one, begin, two],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": vocabulary,
    }
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {str(number): {"content": token, **plain} for token, number in special.items()},
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "model_max_length": 2048,
        "processor_class": "LlavaProcessor",
        "tokenizer_class": "LlamaTokenizer",
        **({} if legacy is None else {"legacy": legacy}),
    }
    patches = {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    pixels = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
    }
    named = {"processor_class": "LlavaProcessor", "image_token": "<image>"}
    contents = {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": settings,
        "processor_config.json": {**named, **patches},
        "preprocessor_config.json": {**pixels, "processor_class": "LlavaProcessor"},
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(HUB_TEMPLATE)


def fill_weights(model: Any) -> None:
    """Fill the weights of a LLaVA-1.5, in the layout of LLaVA's code or of transformers, with noise that depends on the
    name of a weight alone.
    """
    import numpy as np
    import torch

    for own_name, weight in model.named_parameters():
        name = _shared_name(own_name)
        noise = np.frombuffer(hashlib.shake_256(name.encode()).digest(weight.numel()), dtype=np.uint8)
        values = (noise.astype(np.float32) - 127.5) / 255
        scale = 1 + values if "norm" in name and name.endswith("weight") else values
        weight.data.copy_(torch.from_numpy(scale.reshape(tuple(weight.shape))))


def _shared_name(name: str) -> str:
    if "vision_tower" in name:
        return "tower." + name.rpartition("vision_tower.")[2].removeprefix("vision_model.")
    for number, (theirs, ours) in enumerate((("mm_projector.0.", "linear_1."), ("mm_projector.2.", "linear_2."))):
        if theirs in name or ours in name:
            return f"projector.{number}." + name.rpartition(".")[2]
    return re.sub(r"^(model\.)?(language_model\.)?", "", name)


def write_model(folder: Path, layers: int = 1) -> None:
    """Write config.json and random weights: LLaVA-1.5's vision tower of 24 x 24 patches and its vocabulary, and a width
    of 8. The 13B model has more layers and a larger width than the 7B model, and nothing else.
    """
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    torch.manual_seed(0)
    config = LlavaConfig(
        text_config=LlamaConfig(
            vocab_size=VOCABULARY, num_hidden_layers=layers, max_position_embeddings=4096, pad_token_id=PAD, **sizes
        ),
        vision_config=CLIPVisionConfig(
            image_size=SIDE, patch_size=PATCH, num_hidden_layers=2, projection_dim=8, **sizes
        ),
        image_token_index=IMAGE,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id, model.generation_config.bos_token_id = 2, 1
    model.generation_config.pad_token_id = PAD
    model.save_pretrained(folder)

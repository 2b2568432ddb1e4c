"""A checkpoint of a few thousand random weights for each image-text-to-text type of transformers.

Every checkpoint has the configuration class, the processor and the image processor of its family. The tokenizer is
trained here on a few sentences, and has the family's special tokens. The chat template is ours, and has the family's
turns. So a checkpoint goes the way that a released checkpoint goes, from `--ckpt` to the answer.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
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
_MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
_SENTENCES = [
    "What is in the picture? Is there a dog or a cat? Describe this image in detail. Answer yes or no.",
    "There is a red car in the street, and a blue bird on the chair. A man is standing with a cup in his hand.",
    "How many people are there? Which colour has the horse? The kitchen is white and the farm is green.",
] * 4


@dataclass(frozen=True)
class Turns:
    """The turns of a chat template.

    Attributes:
        user: What begins a turn of the user.
        assistant: What begins a turn of the model.
        end: What ends a turn of the user.
        close: What ends a turn of the model; its first special token is the eos_token.
        begin: What begins the conversation; its first special token is the bos_token.
    """

    user: str
    assistant: str
    end: str
    close: str
    begin: str = ""

    def template(self, image: str) -> str:
        """The chat template, with `image` for an image."""

        def of_role(user: str, assistant: str) -> str:
            return f"{{{{ {user!r} if message['role'] == 'user' else {assistant!r} }}}}"

        return (
            f"{{{{ {self.begin!r} }}}}{{% for message in messages %}}"
            + of_role(self.user, self.assistant)
            + f"{{% for part in message['content'] %}}{{{{ {image!r} if part['type'] == 'image' else part['text'] }}}}"
            + "{% endfor %}"
            + of_role(self.end, self.close)
            + f"{{% endfor %}}{{% if add_generation_prompt %}}{{{{ {self.assistant!r} }}}}{{% endif %}}"
        )

    @property
    def tokens(self) -> list[str]:
        """The special tokens of the turns."""
        return _special(self.begin + self.user + self.assistant + self.end + self.close)


def _special(text: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"<[^<>\s]+>|\[/?[A-Z_a-z]+\]", text)))


CHATML = Turns("<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n", "<|im_end|>\n")
VICUNA = Turns("USER: ", "ASSISTANT: ", " ", "</s>", "<s>")
MISTRAL = Turns("[INST]", "", "[/INST]", "</s>", "<s>")
LLAMA3 = Turns(
    "<|start_header_id|>user<|end_header_id|>\n\n",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|eot_id|>",
    "<|eot_id|>",
    "<|begin_of_text|>",
)
LLAMA4 = Turns(
    "<|header_start|>user<|header_end|>\n\n",
    "<|header_start|>assistant<|header_end|>\n\n",
    "<|eot|>",
    "<|eot|>",
    "<|begin_of_text|>",
)
GEMMA = Turns("<start_of_turn>user\n", "<start_of_turn>model\n", "<end_of_turn>\n", "<end_of_turn>\n", "<bos>")
GEMMA4 = Turns("<|turn>user\n", "<|turn>model\n", "<turn|>\n", "<turn|>\n", "<bos>")
GLM = Turns("<|user|>\n", "<|assistant|>\n", "", "<|endoftext|>", "[gMASK]<sop>")
COHERE = Turns(
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<BOS_TOKEN>",
)
IDEFICS = Turns("User:", "Assistant:", "<end_of_utterance>\n", "<end_of_utterance>\n", "<|begin_of_text|>")
PLAIN = Turns("", "", "", "<eos>", "")


@dataclass(frozen=True)
class Recipe:
    """How the tiny checkpoint of a family differs from the others.

    Attributes:
        turns: Turns of its chat template.
        image: What its chat template writes for an image.
        ids: Field of config.json -> the token whose number the field has.
        named: Attribute of the tokenizer -> token, as `image_token`.
        tokens: Further special tokens.
        config: Fields of config.json.
        text: Fields of the text model's configuration.
        vision: Fields of the vision tower's configuration.
        pixels: Arguments of the image processor.
        processor: Arguments of the processor.
        names: Class names that transformers' tables do not give: "processor", "image_processor".
        video: Arguments of the video processor.
        bos: The tokenizer's bos_token, if the turns have none.
    """

    turns: Turns = CHATML
    image: str = "<image>"
    ids: Mapping[str, str] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)
    tokens: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    text: Mapping[str, Any] = field(default_factory=dict)
    vision: Mapping[str, Any] = field(default_factory=dict)
    pixels: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    video: Mapping[str, Any] = field(default_factory=dict)
    bos: str | None = None


_SQUARE = {"size": {"height": 16, "width": 16}}
_CROPPED = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
_GRIDS = [[16, 32], [32, 16], [32, 32]]
_TILES = {**_SQUARE, "crop_to_patches": True, "min_patches": 1, "max_patches": 4}
_QWEN = Recipe(
    image="<|vision_start|><|image_pad|><|vision_end|>",
    ids={
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    },
    text={"rope_parameters": _MROPE},
    vision={"hidden_size": 32, "out_hidden_size": 32},
    pixels={"patch_size": 4, "size": {"shortest_edge": 8 * 8, "longest_edge": 32 * 32}},
)
_QWEN3 = dataclasses.replace(
    _QWEN,
    text={"rope_parameters": {**_MROPE, "mrope_interleaved": True}},
    vision={
        **_QWEN.vision,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    },
)
_GLM4V = Recipe(
    turns=GLM,
    image="<|begin_of_image|><|image|><|end_of_image|>",
    ids={
        "image_token_id": "<|image|>",
        "video_token_id": "<|video|>",
        "image_start_token_id": "<|begin_of_image|>",
        "image_end_token_id": "<|end_of_image|>",
        "video_start_token_id": "<|begin_of_video|>",
        "video_end_token_id": "<|end_of_video|>",
    },
    text={"rope_parameters": {**_MROPE, "partial_rotary_factor": 1.0}},
    vision={"hidden_size": 32, "out_hidden_size": 32},
    pixels={"patch_size": 4, "size": {"shortest_edge": 8 * 8 * 2, "longest_edge": 32 * 32 * 2}},
)
_GLM46V = {
    "processor": "Glm46VProcessor",
    "image_processor": "Glm46VImageProcessor",
    "video_processor": "Glm46VVideoProcessor",
}
_LINEAR = {
    "rope_parameters": {**_MROPE, "mrope_interleaved": True, "partial_rotary_factor": 1.0},
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
_MLA = {
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "qk_nope_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}
_IDEFICS3 = Recipe(
    turns=IDEFICS,
    ids={"image_token_id": "<image>"},
    tokens=(
        "<fake_token_around_image>",
        "<global-img>",
        *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    ),
    pixels={"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}},
    processor={"image_seq_len": 4},
)

RECIPES: dict[str, Recipe] = {
    "llava": Recipe(
        turns=VICUNA,
        ids={"image_token_index": "<image>"},
        vision={"model_type": "clip_vision_model"},
        pixels=_CROPPED,
        processor={
            "patch_size": 4,
            "num_additional_image_tokens": 1,
            "vision_feature_select_strategy": "default",
        },
    ),
    "llava_next": Recipe(
        turns=MISTRAL,
        ids={"image_token_index": "<image>"},
        config={"image_grid_pinpoints": _GRIDS},
        pixels={**_CROPPED, "image_grid_pinpoints": _GRIDS},
        processor={
            "patch_size": 4,
            "num_additional_image_tokens": 1,
            "vision_feature_select_strategy": "default",
        },
    ),
    "llava_onevision": Recipe(
        ids={"image_token_index": "<image>", "video_token_index": "<video>"},
        config={"image_grid_pinpoints": _GRIDS},
        vision={"vision_use_head": False},
        pixels={**_SQUARE, "image_grid_pinpoints": _GRIDS},
        processor={"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
    ),
    "qwen2_vl": dataclasses.replace(_QWEN, vision={"hidden_size": 32, "mlp_ratio": 2}),
    "qwen2_5_vl": dataclasses.replace(_QWEN, vision={**_QWEN.vision, "window_size": 16, "fullatt_block_indexes": [1]}),
    "qwen3_vl": _QWEN3,
    "qwen3_5": dataclasses.replace(
        _QWEN3,
        text=_LINEAR,
        vision={**_QWEN.vision, "num_position_embeddings": 64},
    ),
    "gemma3": Recipe(
        turns=GEMMA,
        image="<start_of_image>",
        ids={
            "image_token_index": "<image_soft_token>",
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
        },
        named={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
        config={"mm_tokens_per_image": 4},
        text={"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8},
        pixels=_SQUARE,
        processor={"image_seq_length": 4},
    ),
    "gemma4": Recipe(
        turns=GEMMA4,
        image="<|image|>",
        ids={
            "image_token_id": "<|image|>",
            "boi_token_id": "<|image>",
            "eoi_token_id": "<image|>",
            "video_token_id": "<|video|>",
            "audio_token_id": "<|audio|>",
            "boa_token_id": "<|audio>",
            "eoa_token_index": "<audio|>",
        },
        named={
            "image_token": "<|image|>",
            "boi_token": "<|image>",
            "eoi_token": "<image|>",
            "audio_token": "<|audio|>",
            "boa_token": "<|audio>",
            "eoa_token": "<audio|>",
        },
        text={
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "hidden_size_per_layer_input": 4,
            "global_head_dim": 8,
        },
        vision={"model_type": "gemma4_vision", "position_embedding_size": 64},
        pixels={"patch_size": 4, "max_soft_tokens": 70, "pooling_kernel_size": 3},
    ),
    "internvl": Recipe(
        image="<IMG_CONTEXT>",
        ids={"image_token_id": "<IMG_CONTEXT>"},
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        config={"image_seq_length": 4},
        vision={"image_size": [16, 16], "patch_size": [4, 4]},
        pixels=_TILES,
        processor={"image_seq_length": 4},
    ),
    "smolvlm": _IDEFICS3,
    "idefics3": _IDEFICS3,
    "paligemma": Recipe(
        turns=PLAIN,
        ids={"image_token_index": "<image>"},
        config={"projection_dim": 32},
        vision={"projection_dim": 32, "vision_use_head": False},
        pixels={**_SQUARE, "image_seq_length": 16},
        bos="<bos>",
    ),
    "glm4v": _GLM4V,
    "mistral3": Recipe(
        turns=MISTRAL,
        image="[IMG]",
        ids={"image_token_index": "[IMG]"},
        tokens=("[IMG_BREAK]", "[IMG_END]"),
        vision={"image_size": 32},
        pixels={"size": {"longest_edge": 32}, "patch_size": 4},
        processor={"patch_size": 4, "spatial_merge_size": 2},
    ),
    "aya_vision": Recipe(
        turns=COHERE,
        ids={"image_token_index": "<|IMG_PATCH|>"},
        tokens=("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_LINE_BREAK|>", "TILE", "TILE_GLOBAL"),
        pixels=_TILES,
        processor={"patch_size": 4, "img_size": 16, "downsample_factor": 2},
    ),
    "llama4": Recipe(
        turns=LLAMA4,
        image="<|image|>",
        ids={
            "image_token_index": "<|patch|>",
            "boi_token_index": "<|image_start|>",
            "eoi_token_index": "<|image_end|>",
        },
        tokens=("<|tile_x_separator|>", "<|tile_y_separator|>"),
        text={
            "intermediate_size_mlp": 48,
            "attention_chunk_size": 64,
            "layer_types": ["chunked_attention", "full_attention"],
            "no_rope_layers": [1, 0],
        },
        vision={
            "intermediate_size": 64,
            "vision_output_dim": 32,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
        },
        pixels={**_SQUARE, "max_patches": 4},
        processor={"patch_size": 4},
    ),
    "mllama": Recipe(
        turns=LLAMA3,
        image="<|image|>",
        ids={"image_token_index": "<|image|>"},
        tokens=("<|python_tag|>",),
        text={"cross_attention_layers": [1], "num_hidden_layers": 3},
        vision={"num_global_layers": 1, "intermediate_layers_indices": [0], "vision_output_dim": 32},
        pixels={**_SQUARE, "max_image_tiles": 4},
    ),
    "molmo2": Recipe(
        image="<|image|>",
        ids={
            "image_patch_id": "<im_patch>",
            "image_start_token_id": "<im_start>",
            "low_res_image_start_token_id": "<low_res_im_start>",
            "image_end_token_id": "<im_end>",
            "frame_start_token_id": "<frame_start>",
            "frame_end_token_id": "<frame_end>",
        },
        tokens=("<|image|>", "<|video|>", "<im_col>", "<im_low>"),
        config={
            "adapter_config": {
                "vision_feature_layer": [-1, -2],
                "hidden_size": 16,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 8,
                "intermediate_size": 24,
                "text_hidden_size": 32,
            }
        },
        vision={"image_size": [16, 16]},
        pixels={**_SQUARE, "patch_size": 4, "max_crops": 4, "overlap_margins": [1, 1]},
    ),
    "ovis2": Recipe(
        ids={"image_token_id": "<IMG_ATOM>"},
        tokens=("<image>",),
        config={
            "visual_indicator_token_ids": ["<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"],
            "hidden_size": 32,
        },
        vision={"hidden_stride": 2, "vocab_size": 40},
        pixels={**_SQUARE, "crop_to_patches": True, "max_patches": 4},
        processor={"image_seq_length": 4},
    ),
    "vipllava": Recipe(
        turns=VICUNA,
        ids={"image_token_index": "<image>"},
        config={"vision_feature_layers": [-2, -1]},
        pixels=_CROPPED,
        processor={"patch_size": 4, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"},
    ),
    "llava_next_video": Recipe(
        turns=VICUNA,
        ids={"image_token_index": "<image>", "video_token_index": "<video>"},
        config={"image_grid_pinpoints": _GRIDS},
        pixels={**_CROPPED, "image_grid_pinpoints": _GRIDS},
        processor={"patch_size": 4, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"},
    ),
    "video_llava": Recipe(
        turns=VICUNA,
        ids={"image_token_index": "<image>", "video_token_index": "<video>"},
        pixels=_CROPPED,
        processor={"patch_size": 4},
    ),
    "cohere2_vision": Recipe(
        turns=COHERE,
        image="<|IMG_PATCH|>",
        ids={"image_token_id": "<|IMG_PATCH|>"},
        named={
            "image_token": "<|IMG_PATCH|>",
            "boi_token": "<|START_OF_IMG|>",
            "eoi_token": "<|END_OF_IMG|>",
            "img_line_break_token": "<|IMG_LINE_BREAK|>",
        },
        config={"alignment_intermediate_size": 48},
        text={"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
        vision={"vision_use_head": False},
        pixels={**_TILES, "patch_size": 2},
    ),
    "got_ocr2": Recipe(
        image="<img><imgpad></img>",
        ids={"image_token_index": "<imgpad>"},
        vision={"image_size": 128, "patch_size": 2, "global_attn_indexes": [], "window_size": 14},
        pixels={"size": {"height": 128, "width": 128}},
    ),
    "lighton_ocr": Recipe(
        image="<|image_pad|>",
        ids={"image_token_id": "<|image_pad|>"},
        named={
            "image_token": "<|image_pad|>",
            "image_break_token": "<|vision_pad|>",
            "image_end_token": "<|vision_end|>",
        },
        vision={"image_size": 32},
        pixels={"size": {"longest_edge": 32}, "patch_size": 8},
        processor={"patch_size": 4, "spatial_merge_size": 2},
    ),
    "granite_docling": dataclasses.replace(
        _IDEFICS3,
        vision={"out_hidden_size": 32, "scale_factor": 2, "deepstack_visual_indexes": [0]},
        text={"embedding_multiplier": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 0.3},
        pixels=_TILES,
    ),
    "janus": Recipe(
        turns=Turns("<|User|>: ", "<|Assistant|>: ", "\n\n", "<|end|>", "<|begin|>"),
        image="<image_placeholder>",
        ids={"image_token_id": "<image_placeholder>"},
        named={"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"},
        config={
            "vq_config": {
                "num_embeddings": 16,
                "latent_channels": 32,
                "base_channels": 32,
                "channel_multiplier": [1, 1],
                "num_patches": 4,
                "projection_dim": 32,
                "image_token_embed_dim": 32,
            }
        },
        vision={"projection_dim": 32, "num_image_tokens": 16},
        pixels=_SQUARE,
        processor={"num_image_tokens": 16},
    ),
    "deepseek_vl": Recipe(
        turns=Turns("User: ", "Assistant: ", "\n\n", "<|end|>", "<|begin|>"),
        image="<image_placeholder>",
        ids={"image_token_id": "<image_placeholder>"},
        named={"image_token": "<image_placeholder>"},
        pixels=_SQUARE,
        processor={"num_image_tokens": 16},
    ),
    "qwen3_vl_moe": dataclasses.replace(_QWEN3, names={"image_processor": "Qwen2VLImageProcessor"}),
    "qwen3_5_moe": Recipe(),
    "glm4v_moe": dataclasses.replace(
        _GLM4V,
        text={**_GLM4V.text, "first_k_dense_replace": 1},
        names={"image_processor": "Glm4vImageProcessor", "video_processor": "Glm4vVideoProcessor"},
    ),
    "glm46v": dataclasses.replace(_GLM4V, vision={**_GLM4V.vision, "model_type": "glm4v_vision"}),
    "glm_ocr": dataclasses.replace(_GLM4V, names=_GLM46V),
    "glmga": dataclasses.replace(
        _GLM4V,
        vision={**_GLM4V.vision, "model_type": "glm4v_vision"},
        names={**_GLM46V, "image_processor": "GlmgaImageProcessor"},
    ),
    "idefics2": dataclasses.replace(
        _IDEFICS3,
        config={
            "perceiver_config": {
                "resampler_n_latents": 4,
                "resampler_depth": 1,
                "resampler_n_heads": 2,
                "resampler_head_dim": 8,
                "num_key_value_heads": 2,
                "hidden_size": 32,
            }
        },
        text={"sliding_window": None},
        vision={"image_size": 32},
        pixels={"size": {"longest_edge": 32, "shortest_edge": 16}},
    ),
    "aria": Recipe(
        image="<fim_prefix><|img|><fim_suffix>",
        ids={"image_token_index": "<|img|>"},
        named={"image_token": "<|img|>"},
        config={"projector_patch_to_query_dict": {100: 4}},
        text={"moe_num_experts": 4, "moe_num_shared_experts": 1},
        vision={"image_size": 980, "patch_size": 98},
        processor={"size_conversion": {980: 4}},
    ),
    "lfm2_vl": Recipe(
        turns=CHATML,
        ids={"image_token_id": "<image>"},
        tokens=(
            "<|image_start|>",
            "<|image_end|>",
            "<|img_thumbnail|>",
            *(f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5)),
        ),
        config={"projector_hidden_size": 24},
        text={"layer_types": ["conv", "full_attention"], "full_attn_idxs": None, "block_multiple_of": 8},
        vision={"num_patches": 64, "vision_use_head": False},
        pixels={
            "tile_size": 16,
            "encoder_patch_size": 4,
            "min_tiles": 2,
            "max_tiles": 4,
            "min_image_tokens": 4,
            "max_image_tokens": 8,
            "max_num_patches": 64,
        },
    ),
    "lfm3_vl": dataclasses.replace(
        _QWEN,
        config={"projector_hidden_size": 24},
        text={"layer_types": ["conv", "full_attention"]},
        vision={"hidden_size": 16, "layer_types": ["conv", "full_attention"]},
    ),
    "paddleocr_vl": Recipe(
        image="<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
        ids={
            "image_token_id": "<|IMAGE_PLACEHOLDER|>",
            "video_token_id": "<|video_pad|>",
            "vision_start_token_id": "<|IMAGE_START|>",
            "vision_end_token_id": "<|IMAGE_END|>",
        },
        named={"image_token": "<|IMAGE_PLACEHOLDER|>"},
        text={"rope_parameters": _MROPE},
        vision={"image_size": 32},
        pixels={"patch_size": 4, "size": {"shortest_edge": 8 * 8, "longest_edge": 32 * 32}},
    ),
    "video_llama_3": dataclasses.replace(_QWEN, image="<|image_pad|>", text={}, vision={"hidden_size": 16}),
    "hunyuan_vl": Recipe(
        image="<|im_begin|><|image|><|im_finish|>",
        ids={
            "image_token_id": "<|image|>",
            "im_start_id": "<|im_begin|>",
            "im_end_id": "<|im_finish|>",
            "im_newline_id": "<|im_newline|>",
        },
        named={"image_token": "<|image|>", "image_start_token": "<|im_begin|>", "image_end_token": "<|im_finish|>"},
        text={"rope_parameters": {**_MROPE, "mrope_section": [1, 1, 1, 1]}},
        vision={
            "out_hidden_size": 32,
            "text_hidden_size": 32,
            "max_image_size": 32,
            "min_image_size": 8,
            "img_max_token_num": 64,
            "max_vit_seq_len": 64,
        },
        pixels={"patch_size": 4, "size": {"shortest_edge": 8 * 8, "longest_edge": 32 * 32}},
    ),
    "ernie4_5_vl_moe": Recipe(
        image="<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
        ids={
            "image_token_id": "<|IMAGE_PLACEHOLDER|>",
            "image_start_token_id": "<|IMAGE_START|>",
            "image_end_token_id": "<|IMAGE_END|>",
            "video_token_id": "<|VIDEO_PLACEHOLDER|>",
            "video_start_token_id": "<|VIDEO_START|>",
            "video_end_token_id": "<|VIDEO_END|>",
        },
        named={
            "image_token": "<|IMAGE_PLACEHOLDER|>",
            "image_start_token": "<|IMAGE_START|>",
            "image_end_token": "<|IMAGE_END|>",
            "video_token": "<|VIDEO_PLACEHOLDER|>",
            "video_start_token": "<|VIDEO_START|>",
            "video_end_token": "<|VIDEO_END|>",
        },
        text={
            "moe_intermediate_size": [16, 16],
            "moe_k": 2,
            "moe_num_experts": 4,
            "moe_num_shared_experts": 1,
            "rope_parameters": {**_MROPE, "mrope_section": [1, 1, 2]},
        },
        vision={"hidden_size": 32},
        pixels={"patch_size": 4, "size": {"shortest_edge": 8 * 8, "longest_edge": 32 * 32}},
        video={"draw_on_frames": False},
    ),
    "exaone4_5": dataclasses.replace(
        _QWEN,
        text={"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
        vision={**_QWEN.vision, "window_size": 16, "fullatt_block_indexes": [1]},
    ),
    "hyperclovax_vision_v2": dataclasses.replace(
        _QWEN,
        text={},
        vision={**_QWEN.vision, "window_size": 16, "fullatt_block_indexes": [1]},
        bos="<|endoftext|>",
    ),
    "qianfan_ocr": Recipe(
        image="<image>",
        ids={"image_token_id": "<IMG_CONTEXT>"},
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
        },
        config={"image_seq_length": 4},
        vision={"image_size": [16, 16], "patch_size": [4, 4]},
        pixels=_TILES,
        processor={"image_seq_length": 4},
    ),
    "minicpmv4_6": Recipe(
        image="<|image_pad|>",
        ids={"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"},
        named={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "image_start_token": "<image>",
            "image_end_token": "</image>",
            "slice_start_token": "<slice>",
            "slice_end_token": "</slice>",
            "image_id_start_token": "<image_id>",
            "image_id_end_token": "</image_id>",
        },
        config={"insert_layer_id": 0, "image_size": 32},
        text=_LINEAR,
        vision={"insert_layer_id": 0, "image_size": 32},
        pixels={"patch_size": 4, "scale_resolution": 32, "max_slice_nums": 4},
    ),
    "kimi_k25": Recipe(
        image="<|media_begin|><|media_pad|><|media_end|>",
        ids={
            "image_token_id": "<|media_pad|>",
            "video_token_id": "<|kimi_k25_video_placeholder|>",
            "vision_start_token_id": "<|media_begin|>",
            "vision_end_token_id": "<|media_end|>",
        },
        config={"projection_hidden_size": 16},
        text=_MLA,
        vision={"pos_emb_height": 8, "pos_emb_width": 8},
        pixels={"patch_size": 4, "max_patches": 64, "size": {"max_height": 32, "max_width": 32}},
    ),
    "deepseek_vl_hybrid": Recipe(
        turns=Turns("User: ", "Assistant: ", "\n\n", "<|end|>", "<|begin|>"),
        image="<image_placeholder>",
        ids={"image_token_id": "<image_placeholder>"},
        named={"image_token": "<image_placeholder>"},
        config={
            "high_res_vision_config": {
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 32,
                "patch_size": 4,
                "output_channels": 8,
                "window_size": 4,
                "global_attn_indexes": [1],
                "mlp_dim": 24,
            }
        },
        pixels={**_SQUARE, "high_res_size": {"height": 32, "width": 32}},
        processor={"num_image_tokens": 16},
    ),
    "minimax_m3_vl": Recipe(
        turns=Turns("<|user|>", "<|assistant|>", "<|end|>", "<|end|>"),
        image="]<]image[>[",
        ids={"image_token_index": "]<]image[>[", "video_token_index": "]<]video[>["},
        tokens=("]<]start of image[>[", "]<]end of image[>["),
        config={"projector_hidden_size": 24},
        text={
            "dense_intermediate_size": 24,
            "shared_intermediate_size": 16,
            "rotary_dim": 8,
            "layer_types": ["full_attention", "full_attention"],
            "mlp_layer_types": ["dense", "sparse"],
        },
        vision={"image_size": 32},
        pixels={"patch_size": 4, "size": {"shortest_edge": 8 * 8, "longest_edge": 32 * 32}},
    ),
    "muse_glimmer": Recipe(
        image="<|patch|>",
        ids={"image_token_id": "<|patch|>", "video_token_id": "<|video|>"},
        tokens=("<|image_start|>", "<|image_end|>", "<|vid_frame_separator|>", "<|vid_start|>", "<|vid_end|>"),
        config={"out_hidden_size": 32, "projector_hidden_size": 24},
        text={
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "layer_rope_theta": [10000.0, 0],
            "output_multiplier": 1.0,
        },
        vision={"pos_emb_height": 8, "pos_emb_width": 8, "layer_types": ["window_attention", "full_attention"]},
        pixels={"patch_size": 4, "max_image_tokens": 16},
    ),
    "cosmos3_edge": dataclasses.replace(
        _QWEN,
        config={"projector_hidden_size": 24},
        vision={"num_patches": 64},
    ),
    "cosmos3_omni": Recipe(),
    "cohere_compass": dataclasses.replace(
        _QWEN3,
        turns=COHERE,
        text={"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "hy_v4_vl": dataclasses.replace(
        _QWEN,
        text={**_MLA, "index_topk": 64, "index_head_dim": 8, "index_n_heads": 2},
        vision={"out_hidden_size": 32, "max_image_size": 32},
    ),
    "shieldgemma2": Recipe(),
    "mistral_large4": Recipe(
        turns=MISTRAL,
        image="[IMG]",
        ids={"image_token_index": "[IMG]"},
        tokens=("[IMG_BREAK]", "[IMG_END]"),
        text={**_MLA, "index_topk": 64, "index_head_dim": 8, "index_n_heads": 2},
        vision={"image_size": 32},
        pixels={"size": {"longest_edge": 32}, "patch_size": 4},
        processor={"patch_size": 4, "spatial_merge_size": 2},
    ),
    "glm5_next": dataclasses.replace(
        _GLM4V,
        text={
            **_MLA,
            "qk_rope_head_dim": 0,
            "layer_types": ["linear_attention", "indexed_attention"],
            "mlp_layer_types": ["dense", "sparse"],
            "index_topk": 64,
            "index_head_dim": 8,
            "index_n_heads": 2,
            "linear_head_dim": 8,
            "linear_num_heads": 4,
        },
        vision={**_GLM4V.vision, "projection_intermediate_size": 24},
        pixels={"patch_size": 4, "min_image_tokens": 4, "max_image_tokens": 16},
    ),
    "inkling2": Recipe(
        image="<|unused_200054|>",
        ids={"image_token_id": "<|unused_200054|>"},
        text={
            "unpadded_vocab_size": None,
            "swa_num_attention_heads": 4,
            "swa_num_key_value_heads": 2,
            "swa_head_dim": 8,
            "sliding_window_size": 8,
            "d_rel": 4,
            "rel_extent": 64,
        },
        vision={"patch_size": 4, "posemb_grid_size": 8, "projection_hidden_dim": 24, "text_hidden_size": 32},
        pixels={"size": {"height": 8, "width": 8}},
    ),
    "perception_lm": Recipe(
        turns=LLAMA3,
        image="<|image|>",
        ids={"image_token_id": "<|image|>", "video_token_id": "<|video|>"},
        named={"image_token": "<|image|>", "video_token": "<|video|>"},
        config={"projector_pooling_ratio": 2},
        vision={
            "model_type": "timm_wrapper",
            "architecture": "vit_pe_core_large_patch14_336",
            "model_args": {
                "embed_dim": 16,
                "img_size": [16, 16],
                "patch_size": 4,
                "depth": 2,
                "num_heads": 2,
                "global_pool": "",
                "use_post_transformer_norm": False,
                "init_values": 0.1,
                "ref_feat_shape": [4, 4],
            },
        },
        pixels={"tile_size": 16, "max_num_tiles": 4, "vision_input_type": "thumb+tile"},
        processor={"patch_size": 4, "pooling_ratio": 2},
    ),
    "step3p7": Recipe(
        image="<im_patch>",
        ids={"image_token_id": "<im_patch>"},
        tokens=("<im_start>", "<im_end>", "<patch_start>", "<patch_end>", "<patch_newline>"),
        text={"share_expert_dim": 16, "sliding_window": 8, "num_sliding_attention_heads": 4},
        vision={"image_size": 32},
        pixels={"size": {"height": 32, "width": 32}, "patch_size": 16, "max_image_size": 64},
    ),
    "gemma4_unified": Recipe(),
    "qwen4_exp": Recipe(),
}
"""`model_type` -> what its tiny checkpoint is made of."""

RECIPES["shieldgemma2"] = RECIPES["gemma3"]
RECIPES["cosmos3_omni"] = dataclasses.replace(
    _QWEN3,
    text={**_QWEN3.text, "model_type": "qwen3_vl_text"},
    names={"processor": "Qwen3VLProcessor", "video_processor": "Qwen3VLVideoProcessor"},
)
RECIPES["minicpmv4_7"] = RECIPES["minicpm_ocr"] = RECIPES["minicpmv4_6"]
RECIPES["gemma4_unified"] = dataclasses.replace(
    RECIPES["gemma4"],
    vision={"model_type": "gemma4_unified_vision", "mm_embed_dim": 16, "mm_posemb_size": 64, "output_proj_dims": 16},
)
RECIPES["qwen3_5_moe"] = dataclasses.replace(
    RECIPES["qwen3_5"], text={**RECIPES["qwen3_5"].text, "shared_expert_intermediate_size": 16}
)


def make_family(folder: Path, family: str, seed: int = 0) -> None:
    """Write the tiny checkpoint of a family into a folder: configuration, weights, processor, tokenizer."""
    recipe = RECIPES[family]
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
    own = {name: [number(item) for item in value] if _names(value) else value for name, value in recipe.config.items()}
    return of_family(**{**_known(of_family, every), **ids, **parts, **own})


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item.startswith("<") for item in value)


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
    return of_family(**parts, **recipe.processor, chat_template=recipe.turns.template(recipe.image))


def _tokenizer(recipe: Recipe) -> Any:
    configured = [token for value in recipe.config.values() if _names(value) for token in value]
    tokens = [
        *recipe.turns.tokens,
        *_special(recipe.image),
        *recipe.ids.values(),
        *recipe.named.values(),
        *recipe.tokens,
        *configured,
    ]
    bos = next(iter(_special(recipe.turns.begin)), recipe.bos)
    own = {"bos_token": bos, "eos_token": _special(recipe.turns.close)[0], "pad_token": "<|pad|>"}
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

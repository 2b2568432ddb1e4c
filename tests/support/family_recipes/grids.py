"""Families whose tower takes patches of images of any size, with grids."""

from __future__ import annotations

from dataclasses import replace

from family_recipes.recipe import COHERE, GLM, LINEAR, MLA, MROPE, Recipe, Turns

_QWEN = Recipe(
    image="<|vision_start|><|image_pad|><|vision_end|>",
    ids={
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    },
    text={"rope_parameters": MROPE},
    vision={"hidden_size": 32, "out_hidden_size": 32},
    pixels={"patch_size": 4, "size": {"shortest_edge": 8 * 8, "longest_edge": 32 * 32}},
)
_QWEN3 = replace(
    _QWEN,
    text={"rope_parameters": {**MROPE, "mrope_interleaved": True}},
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
    text={"rope_parameters": {**MROPE, "partial_rotary_factor": 1.0}},
    vision={"hidden_size": 32, "out_hidden_size": 32},
    pixels={"patch_size": 4, "size": {"shortest_edge": 8 * 8 * 2, "longest_edge": 32 * 32 * 2}},
)
_GLM46V = {
    "processor": "Glm46VProcessor",
    "image_processor": "Glm46VImageProcessor",
    "video_processor": "Glm46VVideoProcessor",
}
_AUDIO = {
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "num_mel_bins": 16,
    "max_source_positions": 64,
    "n_window": 8,
    "output_dim": 32,
}
_OMNI = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "audio_token": "<|audio_pad|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}

RECIPES: dict[str, Recipe] = {
    "qwen2_vl": replace(_QWEN, vision={"hidden_size": 32, "mlp_ratio": 2}),
    "qwen2_5_vl": replace(_QWEN, vision={**_QWEN.vision, "window_size": 16, "fullatt_block_indexes": [1]}),
    "qwen3_vl": _QWEN3,
    "qwen3_vl_moe": replace(_QWEN3, names={"image_processor": "Qwen2VLImageProcessor"}),
    "qwen3_5": replace(
        _QWEN3,
        text=LINEAR,
        vision={**_QWEN.vision, "num_position_embeddings": 64},
    ),
    "cosmos3_omni": replace(
        _QWEN3,
        text={**_QWEN3.text, "model_type": "qwen3_vl_text"},
        names={"processor": "Qwen3VLProcessor", "video_processor": "Qwen3VLVideoProcessor"},
    ),
    "glm4v": _GLM4V,
    "glm4v_moe": replace(
        _GLM4V,
        text={**_GLM4V.text, "first_k_dense_replace": 1},
        names={"image_processor": "Glm4vImageProcessor", "video_processor": "Glm4vVideoProcessor"},
    ),
    "glm46v": replace(_GLM4V, vision={**_GLM4V.vision, "model_type": "glm4v_vision"}),
    "glm_ocr": replace(_GLM4V, names=_GLM46V),
    "glmga": replace(
        _GLM4V,
        vision={**_GLM4V.vision, "model_type": "glm4v_vision"},
        names={**_GLM46V, "image_processor": "GlmgaImageProcessor"},
    ),
    "glm5_next": replace(
        _GLM4V,
        text={
            **MLA,
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
    "paddleocr_vl": Recipe(
        image="<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
        ids={
            "image_token_id": "<|IMAGE_PLACEHOLDER|>",
            "video_token_id": "<|video_pad|>",
            "vision_start_token_id": "<|IMAGE_START|>",
            "vision_end_token_id": "<|IMAGE_END|>",
        },
        named={"image_token": "<|IMAGE_PLACEHOLDER|>"},
        text={"rope_parameters": MROPE},
        vision={"image_size": 32},
        pixels={"patch_size": 4, "size": {"shortest_edge": 8 * 8, "longest_edge": 32 * 32}},
    ),
    "video_llama_3": replace(_QWEN, image="<|image_pad|>", text={}, vision={"hidden_size": 16}),
    "hy_v4_vl": replace(
        _QWEN,
        text={
            **MLA,
            "rope_parameters": {**MROPE, "mrope_section": [2, 1, 1]},
            "index_topk": 64,
            "index_head_dim": 8,
            "index_n_heads": 2,
        },
        vision={"out_hidden_size": 32, "max_image_size": 32},
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
            "rope_parameters": {**MROPE, "mrope_section": [1, 1, 2]},
        },
        vision={"hidden_size": 32},
        pixels={"patch_size": 4, "size": {"shortest_edge": 8 * 8, "longest_edge": 32 * 32}},
        video={"draw_on_frames": False},
    ),
    "exaone4_5": replace(
        _QWEN,
        text={"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
        vision={**_QWEN.vision, "window_size": 16, "fullatt_block_indexes": [1]},
    ),
    "hyperclovax_vision_v2": replace(
        _QWEN,
        text={},
        vision={**_QWEN.vision, "window_size": 16, "fullatt_block_indexes": [1]},
        bos="<|endoftext|>",
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
        text=MLA,
        vision={"pos_emb_height": 8, "pos_emb_width": 8},
        pixels={"patch_size": 4, "max_patches": 64, "size": {"max_height": 32, "max_width": 32}},
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
        config={"out_hidden_size": 64, "projector_hidden_size": 24},
        text={
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "layer_rope_theta": [10000.0, 0],
            "output_multiplier": 1.0,
        },
        vision={"pos_emb_height": 8, "pos_emb_width": 8, "layer_types": ["window_attention", "full_attention"]},
        pixels={"patch_size": 4, "max_image_tokens": 16},
    ),
    "cohere_compass": replace(
        _QWEN3,
        turns=COHERE,
        image="<|VISION_START|><|IMAGE_PAD|><|VISION_END|>",
        ids={
            "image_token_id": "<|IMAGE_PAD|>",
            "video_token_id": "<|VIDEO_PAD|>",
            "vision_start_token_id": "<|VISION_START|>",
            "vision_end_token_id": "<|VISION_END|>",
        },
        text={
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {
                "sliding_attention": {**MROPE, "mrope_interleaved": True},
                "full_attention": {**MROPE, "mrope_interleaved": True},
            },
        },
    ),
    "lfm3_vl": replace(
        _QWEN,
        config={"projector_hidden_size": 24},
        text={"layer_types": ["conv", "full_attention"]},
        vision={"hidden_size": 16, "layer_types": ["conv", "full_attention"]},
    ),
}
RECIPES["qwen3_5_moe"] = replace(
    RECIPES["qwen3_5"], text={**RECIPES["qwen3_5"].text, "shared_expert_intermediate_size": 16}
)
RECIPES["qwen4_exp"] = replace(
    RECIPES["qwen3_5"],
    text={
        **{**LINEAR, "layer_types": ["linear_attention", "indexed_attention"]},
        "shared_expert_intermediate_size": 16,
        "hc_count": 2,
        "hc_lowrank": 8,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 64,
        "indexer_compress_ratio": 4,
    },
)
RECIPES["qwen2_5_omni_thinker"] = replace(
    RECIPES["qwen2_5_vl"],
    ids={
        "image_token_index": "<|image_pad|>",
        "video_token_index": "<|video_pad|>",
        "audio_token_index": "<|audio_pad|>",
        "audio_start_token_id": "<|audio_start|>",
        "audio_end_token_id": "<|audio_end|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    },
    named=_OMNI,
    config={"audio_config": _AUDIO},
    names={
        "processor": "Qwen2_5OmniProcessor",
        "image_processor": "Qwen2VLImageProcessor",
        "video_processor": "Qwen2VLVideoProcessor",
        "feature_extractor": "WhisperFeatureExtractor",
    },
)
RECIPES["qwen3_omni_moe_thinker"] = replace(
    RECIPES["qwen3_vl"],
    ids={
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "audio_token_id": "<|audio_pad|>",
        "audio_start_token_id": "<|audio_start|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    },
    named=_OMNI,
    config={"audio_config": _AUDIO},
    names={
        "processor": "Qwen3OmniMoeProcessor",
        "image_processor": "Qwen2VLImageProcessor",
        "video_processor": "Qwen2VLVideoProcessor",
        "feature_extractor": "WhisperFeatureExtractor",
    },
)

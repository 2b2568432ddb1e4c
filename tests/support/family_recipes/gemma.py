"""Gemma and PaliGemma."""

from __future__ import annotations

from dataclasses import replace

from family_recipes.recipe import GEMMA, GEMMA4, PLAIN, SQUARE, Recipe

RECIPES: dict[str, Recipe] = {
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
        pixels=SQUARE,
        processor={"image_seq_length": 4},
    ),
    "gemma3n": Recipe(
        turns=GEMMA,
        image="<image_soft_token>",
        ids={
            "image_token_id": "<image_soft_token>",
            "boi_token_id": "<start_of_image>",
            "eoi_token_id": "<end_of_image>",
            "audio_token_id": "<audio_soft_token>",
            "boa_token_id": "<start_of_audio>",
            "eoa_token_id": "<end_of_audio>",
        },
        named={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "audio_token": "<audio_soft_token>",
            "boa_token": "<start_of_audio>",
            "eoa_token": "<end_of_audio>",
        },
        config={
            "audio_config": {
                "hidden_size": 16,
                "conf_num_hidden_layers": 1,
                "conf_num_attention_heads": 2,
                "vocab_size": 8,
                "sscp_conv_channel_size": [4, 4],
                "input_feat_size": 16,
            },
        },
        text={
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "hidden_size_per_layer_input": 4,
            "num_kv_shared_layers": 0,
            "laurel_rank": 4,
            "activation_sparsity_pattern": [0.0, 0.0],
            "intermediate_size": [48, 48],
        },
        vision={"hidden_size": 2048, "vocab_size": 8, "model_args": {"channel_multiplier": 0.1}},
        pixels={"size": {"height": 256, "width": 256}},
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
    "paligemma": Recipe(
        turns=PLAIN,
        ids={"image_token_index": "<image>"},
        config={"projection_dim": 32},
        vision={"projection_dim": 32, "vision_use_head": False},
        pixels={**SQUARE, "image_seq_length": 16},
        bos="<bos>",
    ),
}
RECIPES["gemma4_unified"] = replace(
    RECIPES["gemma4"],
    vision={"model_type": "gemma4_unified_vision", "mm_embed_dim": 16, "mm_posemb_size": 64, "output_proj_dims": 16},
)

"""Families that split an image by its size, and older ones."""

from __future__ import annotations

from dataclasses import replace

from family_recipes.recipe import CHATML, CROPPED, IDEFICS, LINEAR, MISTRAL, MLA, TILES, Recipe, Turns

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
    "smolvlm": _IDEFICS3,
    "idefics3": _IDEFICS3,
    "mistral3": Recipe(
        turns=MISTRAL,
        image="[IMG]",
        ids={"image_token_index": "[IMG]"},
        tokens=("[IMG_BREAK]", "[IMG_END]"),
        vision={"image_size": 32},
        pixels={"size": {"longest_edge": 32}, "patch_size": 4},
        processor={"patch_size": 4, "spatial_merge_size": 2},
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
    "granite_docling": replace(
        _IDEFICS3,
        vision={"out_hidden_size": 32, "scale_factor": 2, "deepstack_visual_indexes": [0]},
        text={"embedding_multiplier": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 0.3},
        pixels=TILES,
    ),
    "idefics2": replace(
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
        text=LINEAR,
        vision={"insert_layer_id": 0, "image_size": 32},
        pixels={"patch_size": 4, "scale_resolution": 32, "max_slice_nums": 4},
    ),
    "idefics": Recipe(
        turns=IDEFICS,
        image="",
        ids={},
        tokens=("<fake_token_around_image>", "<image>"),
        config={"perceiver_config": {"use_resampler": False}, "alpha_initializer": "ones"},
        vision={"embed_dim": 16},
        pixels={"image_size": 16, "size": {"height": 16, "width": 16}},
    ),
    "git": Recipe(
        turns=Turns("", "", " ", "[SEP]"),
        image="",
        tokens=("[CLS]",),
        bos="[CLS]",
        pixels=CROPPED,
    ),
    "chameleon": Recipe(
        turns=Turns("", "<reserved08706>", "", "<eos>", "<bos>"),
        image="<image>",
        tokens=("<racm3:break>", "<eoss>", "<reserved08706>"),
        config={
            "vq_config": {
                "embed_dim": 8,
                "num_embeddings": 10,
                "latent_channels": 32,
                "resolution": 32,
                "base_channels": 32,
                "channel_multiplier": [1, 1, 2],
                "num_res_blocks": 1,
            },
            "vocabulary_map": dict.fromkeys(["<image>", *(f"IMGIMG{letter}Z" for letter in "ABCDEFGHIJ")]),
        },
        pixels={"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
        processor={"image_seq_length": 64},
    ),
    "mistral_large4": Recipe(
        turns=MISTRAL,
        image="[IMG]",
        ids={"image_token_index": "[IMG]"},
        tokens=("[IMG_BREAK]", "[IMG_END]"),
        text={**MLA, "index_topk": 64, "index_head_dim": 8, "index_n_heads": 2},
        vision={"image_size": 32},
        pixels={"size": {"longest_edge": 32}, "patch_size": 4},
        processor={"patch_size": 4, "spatial_merge_size": 2},
    ),
    "inkling2": Recipe(
        image="<|unused_200054|>",
        ids={"image_token_id": "<|unused_200054|>"},
        text={
            "unpadded_vocab_size": 396,
            "swa_num_attention_heads": 4,
            "swa_num_key_value_heads": 2,
            "swa_head_dim": 8,
            "sliding_window_size": 512,
            "d_rel": 4,
            "rel_extent": 64,
        },
        vision={"patch_size": 4, "posemb_grid_size": 8, "projection_hidden_dim": 24, "text_hidden_size": 32},
        pixels={"size": {"height": 8, "width": 8}},
    ),
    "step3p7": Recipe(
        image="<im_patch>",
        ids={"image_token_id": "<im_patch>"},
        tokens=("<im_start>", "<im_end>", "<patch_start>", "<patch_end>", "<patch_newline>"),
        text={"share_expert_dim": 16, "sliding_window": 8, "num_sliding_attention_heads": 4},
        vision={"image_size": 32},
        pixels={
            "size": {"height": 32, "width": 32},
            "patch_size": 16,
            "max_image_size": 64,
            "vision_patch_size": 4,
            "downsampler_stride": 4,
        },
    ),
}
RECIPES["inkling2_loop"] = RECIPES["inkling2"]
RECIPES["minicpmv4_7"] = RECIPES["minicpmv4_6"]
RECIPES["minicpm_ocr"] = RECIPES["minicpmv4_6"]

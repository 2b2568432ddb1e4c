"""Image-text-to-text models of a few thousand weights, one a family, and preference batches for them."""

from __future__ import annotations

import torch
import transformers
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from napo_bench.trainers.forward.batch import PreferenceBatch

IMAGE, PAD, EOS, FIRST_WORD, VOCABULARY = 3, 0, 2, 4, 101
FAMILIES = ("llava", "llava_next", "llava_onevision", "internvl", "qwen2_vl", "qwen2_5_vl")
_GRIDS = [[8, 16], [16, 8], [16, 16]]

_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": EOS,
    "initializer_range": 0.2,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "projection_dim": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}


def tiny_model(family: str = "llava", **options) -> transformers.PreTrainedModel:
    """A model with random weights, always the same ones, in float32.

    Args:
        family: One of `FAMILIES`, or gemma3 (its attention slides, and looks both ways within an image).
        **options: Of the text model's configuration.
    """
    torch.manual_seed(0)
    config = _config(family, {**_TEXT, **options})
    name = type(config).__name__.removesuffix("Config")
    return getattr(transformers, f"{name}ForConditionalGeneration")(config).train()


def recompute_activations(model: transformers.PreTrainedModel) -> None:
    """Turn gradient checkpointing on, under the name that the installed transformers has for it."""
    renamed = hasattr(model, "activation_checkpointing_enable")  # since a later transformers 5
    (model.activation_checkpointing_enable if renamed else model.gradient_checkpointing_enable)()


def _config(family: str, text: dict) -> transformers.PreTrainedConfig:
    mrope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    siglip = {key: value for key, value in _VISION.items() if key != "projection_dim"}
    qwen_vision = {"depth": 2, "num_heads": 2, "patch_size": 4}
    match family:
        case "llava":
            return transformers.LlavaConfig(
                vision_config=transformers.CLIPVisionConfig(**_VISION),
                text_config=transformers.LlamaConfig(**text),
                image_token_id=IMAGE,
            )
        case "llava_next":
            return transformers.LlavaNextConfig(
                vision_config=transformers.CLIPVisionConfig(**_VISION),
                text_config=transformers.MistralConfig(**text, sliding_window=None),
                image_token_id=IMAGE,
                image_grid_pinpoints=_GRIDS,
            )
        case "llava_onevision":
            return transformers.LlavaOnevisionConfig(
                vision_config=transformers.SiglipVisionConfig(**siglip, vision_use_head=False),
                text_config=transformers.Qwen2Config(**text),
                image_token_id=IMAGE,
                video_token_id=VOCABULARY - 1,
                image_grid_pinpoints=_GRIDS,
            )
        case "internvl":
            return transformers.InternVLConfig(
                vision_config=transformers.InternVLVisionConfig(
                    **{**siglip, "image_size": [8, 8], "patch_size": [2, 2]}
                ),
                text_config=transformers.Qwen2Config(**text),
                image_token_id=IMAGE,
            )
        case "qwen2_vl":
            return transformers.Qwen2VLConfig(
                vision_config={**qwen_vision, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2},
                text_config={**text, "rope_parameters": mrope},
                image_token_id=IMAGE,
                video_token_id=VOCABULARY - 1,
            )
        case "qwen2_5_vl":
            windows = {"window_size": 16, "fullatt_block_indexes": [1]}
            return transformers.Qwen2_5_VLConfig(
                vision_config={
                    **qwen_vision,
                    **windows,
                    "hidden_size": 16,
                    "out_hidden_size": 32,
                    "intermediate_size": 24,
                },
                text_config={**text, "rope_parameters": mrope},
                image_token_id=IMAGE,
                video_token_id=VOCABULARY - 1,
            )
        case "gemma3":
            return transformers.Gemma3Config(
                vision_config=transformers.SiglipVisionConfig(**siglip),
                text_config=transformers.Gemma3TextConfig(**text, head_dim=8, sliding_window=8),
                image_token_index=IMAGE,
                mm_tokens_per_image=4,
            )
    raise ValueError(family)


def images_of(family: str, rows: int, seed: int = 0) -> tuple[dict[str, torch.Tensor], list[int]]:
    """What the family's processor returns for `rows` images of different shapes, and how many tokens each takes."""
    random = torch.Generator().manual_seed(seed)
    if family.startswith("qwen"):
        grids = torch.tensor([([1, 4, 4], [1, 2, 6], [1, 4, 2])[row % 3] for row in range(rows)])
        patches = torch.randn(int(grids.prod(1).sum()), 3 * 2 * 4 * 4, generator=random)
        return {"pixel_values": patches, "image_grid_thw": grids}, (grids.prod(1) // 4).tolist()
    if family in ("llava_next", "llava_onevision"):
        sizes = [([12, 16], [16, 9], [8, 8])[row % 3] for row in range(rows)]
        crops = max(image_size_to_num_patches(size, _GRIDS, 8) for size in sizes)
        pixels = torch.randn(rows, crops, 3, 8, 8, generator=random)
        images = {"pixel_values": pixels, "image_sizes": torch.tensor(sizes)}
        with torch.no_grad():
            return images, [len(features) for features in tiny_model(family).get_image_features(**images).pooler_output]
    return {"pixel_values": torch.randn(rows, 3, 8, 8, generator=random)}, [4] * rows


def tiny_batch(
    family: str = "llava",
    lengths: tuple[tuple[int, ...], ...] = ((5, 9, 1, 7), (8, 3, 6, 0)),
    padding_side: str = "left",
    seed: int = 0,
) -> PreferenceBatch:
    """Rows with one image, prompts of different lengths, and responses of `lengths[row][response]` tokens (0: none)."""
    random = torch.Generator().manual_seed(seed)

    def words(count: int) -> list[int]:
        return torch.randint(FIRST_WORD, VOCABULARY - 1, (count,), generator=random).tolist()

    images, image_tokens = images_of(family, len(lengths), seed)
    prompts = [[1, *words(2 + row), *[IMAGE] * count, *words(3 + 2 * row)] for row, count in enumerate(image_tokens)]
    responses = [[[*words(length - 1), EOS] if length else [] for length in row] for row in lengths]
    input_ids = torch.stack([_padded(prompt, max(map(len, prompts)), padding_side) for prompt in prompts])
    return PreferenceBatch(
        input_ids=input_ids,
        attention_mask=torch.stack(
            [_padded([1] * len(prompt), max(map(len, prompts)), padding_side) for prompt in prompts]
        ),
        response_ids=_responses(responses),
        response_mask=_responses([[[1] * len(response) for response in row] for row in responses]),
        images=images,
        of_tokens={name: (input_ids == IMAGE).long() for name in _token_types(family)},
    )


def _token_types(family: str) -> list[str]:
    """What the family's processor says about each token."""
    return ["mm_token_type_ids"] if family.startswith("qwen") else ["token_type_ids"] if family == "gemma3" else []


def _responses(rows: list[list[list[int]]]) -> torch.Tensor:
    longest = max(len(response) for row in rows for response in row)
    return torch.stack([torch.stack([_padded(response, longest, "right") for response in row]) for row in rows])


def _padded(tokens: list[int], length: int, side: str) -> torch.Tensor:
    padding = [PAD] * (length - len(tokens))
    return torch.tensor(padding + tokens if side == "left" else tokens + padding)

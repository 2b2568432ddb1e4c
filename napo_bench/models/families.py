"""What is special in a model family: one row a family. A family without a row is a plain image-text-to-text model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Family:
    """One row of the table. Each default is how a family without a row is treated.

    Attributes:
        positions: How the model numbers the tokens of a prompt with an image. "plain": by their place in the sequence.
            "multimodal_rope": the model's `get_rope_index` gives them from the image's grid. None: unknown, so the
            responses of a preference row do not share their prefix.
        token_types: Name of the model's argument that tells image tokens (1) from text (0); None if it has none.
        conversation: "own": the chat template of the checkpoint, and images as its processor treats them. "llava_v1":
            that conversation of LLaVA-1.5, its tokens and square images, unless the user or the template names another
            conversation.
        processor: Further arguments of the processor's `from_pretrained`.
        counts_features: `get_image_features` makes its features of `pixel_values` and `image_sizes` alone, one for each
            image token. They can then be counted without weights.
    """

    positions: Literal["plain", "multimodal_rope"] | None = None
    token_types: str | None = None
    conversation: Literal["own", "llava_v1"] = "own"
    processor: Mapping[str, Any] = field(default_factory=dict)
    counts_features: bool = False
    reads_of_text: tuple[str, ...] = ()


FAMILIES: dict[str, Family] = {
    # torchvision resizes an image with other last bits than PIL, which LLaVA's reference implementation uses.
    "llava": Family(positions="plain", conversation="llava_v1", processor={"backend": "pil"}, counts_features=True),
    "llava_next": Family(positions="plain"),
    "llava_onevision": Family(positions="plain"),
    "internvl": Family(positions="plain"),
    "qwen2_vl": Family(positions="multimodal_rope", token_types="mm_token_type_ids"),
    "qwen2_5_vl": Family(positions="multimodal_rope", token_types="mm_token_type_ids"),
    "gemma3": Family(token_types="token_type_ids"),
    "llama4": Family(reads_of_text=("image_outputs",)),
}
"""`model_type` of config.json -> what is special in that family."""

_PLAIN = Family()


def family_of(config: Any) -> Family:
    """The row of a model's configuration."""
    return FAMILIES.get(config.model_type, _PLAIN)


def complete_outputs(model: Any) -> None:
    """Give the output of a model's text model the fields of `Family.reads_of_text`, as None, if they are missing."""
    for name in family_of(model.config).reads_of_text:

        def complete(_module: Any, _inputs: Any, output: Any, name: str = name) -> None:
            if not hasattr(output, name):
                setattr(output, name, None)

        model.get_decoder().register_forward_hook(complete)

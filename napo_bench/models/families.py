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
        reads_of_text: Fields that the model's forward reads of its text model's output, and that transformers up to
            5.24 leaves out of the output.
        refused: The reason why no checkpoint of the family can be asked. The weights are then not read.
    """

    positions: Literal["plain", "multimodal_rope"] | None = None
    token_types: str | None = None
    conversation: Literal["own", "llava_v1"] = "own"
    processor: Mapping[str, Any] = field(default_factory=dict)
    counts_features: bool = False
    reads_of_text: tuple[str, ...] = ()
    refused: str | None = None


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
    "blip": Family(refused="its generate rewrites the prompt"),
    "blip-2": Family(refused="its generate takes the image's pixels alone, and its prompts have no image token"),
    "instructblip": Family(refused="its generate takes the image's pixels alone, and its prompts have no image token"),
    "instructblipvideo": Family(refused="it takes videos and no images"),
    "kosmos-2": Family(refused="its processor finds the image by its place in prompts that are padded on the right"),
    "kosmos-2.5": Family(refused="its processor finds the image by its place in prompts that are padded on the right"),
    "emu3": Family(refused="its processor pads the images of a batch, and the padding changes what the model sees"),
    "evolla": Family(refused="it takes proteins and no images"),
    "pi0": Family(refused="it answers with the actions of a robot"),
    "mistral4": Family(refused="it takes no images"),
    "diffusion_gemma": Family(refused="it writes its answer in blocks of noise, which generate does not know"),
}
"""`model_type` of config.json -> what is special in that family."""

_PLAIN = Family()


def family_of(config: Any) -> Family:
    """The row of a model's configuration."""
    return FAMILIES.get(config.model_type, _PLAIN)


def refusal_of(config: Any) -> str | None:
    """The reason why a model cannot be asked, however complete its checkpoint is; None if there is no such reason."""
    if config.is_encoder_decoder:
        return "its encoder reads the prompt, and its answers do not continue the prompt"
    return family_of(config).refused


def complete_outputs(model: Any) -> None:
    """Give the output of a model's text model the fields of `Family.reads_of_text`, as None, if they are missing."""
    for name in family_of(model.config).reads_of_text:

        def complete(_module: Any, _inputs: Any, output: Any, name: str = name) -> None:
            if not hasattr(output, name):
                setattr(output, name, None)

        model.get_decoder().register_forward_hook(complete)

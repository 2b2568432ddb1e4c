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
        apart: Why the responses of a preference row do not share their prefix, as the end of a sentence about the
            family; None if they do.
        untrained: Why the family cannot be trained here, as a sentence; None if it can.
        alone: Why prompts do not share a batch, as a sentence; None if they do. The prompts are then asked one at a
            time, and the family is not trained.
        answer_type: Type of a response token in what the processor says about each token (`token_type_ids`); None if
            it is the type of the prompt's last token.
        logits: Field of the text model's configuration by which the model changes logits after its head.
            "final_logit_softcapping": c * tanh(logits / c). "logits_scaling": logits / s. None: no change.
        joins_images: For a vision tower: it returns the features of all images as one sequence.
        conversation: "own": the chat template of the checkpoint, and images as its processor treats them. "llava_v1":
            that conversation of LLaVA-1.5, its tokens and square images, unless the user or the template names another
            conversation.
        processor: Further arguments of the processor's `from_pretrained`.
        counts_features: `get_image_features` makes one feature for each image token, and as many for any pixels of one
            shape. The features can then be counted without weights.
        reads_of_text: Fields that the model's forward reads of its text model's output, and that transformers up to
            5.24 leaves out of the output.
        branches: The answers to prompts about one image may begin with the keys and values of what the prompts have in
            common. For this, no token may depend on what comes after it, and the model must take positions.
        refused: The reason why no checkpoint of the family can be asked. The weights are then not read.
    """

    positions: Literal["plain", "multimodal_rope"] | None = None
    apart: str | None = None
    untrained: str | None = None
    alone: str | None = None
    answer_type: int | None = None
    logits: Literal["final_logit_softcapping", "logits_scaling"] | None = None
    joins_images: bool = False
    conversation: Literal["own", "llava_v1"] = "own"
    processor: Mapping[str, Any] = field(default_factory=dict)
    counts_features: bool = False
    reads_of_text: tuple[str, ...] = ()
    branches: bool = False
    refused: str | None = None


_CHOOSES_TOKENS = "its indexer chooses the tokens that are attended to, and padding may change the choice"

FAMILIES: dict[str, Family] = {
    # torchvision resizes an image with other last bits than PIL, which LLaVA's reference implementation uses.
    "llava": Family(
        positions="plain", conversation="llava_v1", processor={"backend": "pil"}, counts_features=True, branches=True
    ),
    "llava_next": Family(positions="plain", counts_features=True, branches=True),
    "llava_next_video": Family(positions="plain", counts_features=True),
    "llava_onevision": Family(positions="plain", counts_features=True, branches=True),
    "video_llava": Family(positions="plain", counts_features=True),
    "internvl": Family(positions="plain", counts_features=True, branches=True),
    "qianfan_ocr": Family(positions="plain"),
    "idefics2": Family(positions="plain"),
    "idefics3": Family(positions="plain"),
    "smolvlm": Family(positions="plain"),
    "mistral3": Family(positions="plain"),
    "lighton_ocr": Family(positions="plain", counts_features=True),
    "aya_vision": Family(positions="plain", counts_features=True),
    "cohere2_vision": Family(positions="plain", counts_features=True),
    "deepseek_vl": Family(positions="plain", counts_features=True),
    "deepseek_vl_hybrid": Family(positions="plain", counts_features=True),
    "ovis2": Family(positions="plain", counts_features=True),
    "molmo2": Family(positions="plain"),
    "aria": Family(positions="plain"),
    "kimi_k25": Family(positions="plain"),
    "perception_lm": Family(alone="its processor takes images of one shape in a batch", counts_features=True),
    "exaone4_5": Family(positions="plain"),
    "hyperclovax_vision_v2": Family(positions="plain"),
    "video_llama_3": Family(positions="plain"),
    "step3p7": Family(positions="plain"),
    "mllama": Family(positions="plain"),
    "gemma3": Family(positions="plain", counts_features=True),
    "gemma4": Family(positions="plain", logits="final_logit_softcapping"),
    "paligemma": Family(positions="plain", answer_type=1, logits="final_logit_softcapping", counts_features=True),
    "granite_docling": Family(positions="plain", logits="logits_scaling", counts_features=True),
    "qwen2_vl": Family(positions="multimodal_rope", branches=True),
    "qwen2_5_vl": Family(positions="multimodal_rope", branches=True),
    "qwen3_vl": Family(positions="multimodal_rope"),
    "qwen3_vl_moe": Family(positions="multimodal_rope"),
    "glm4v": Family(positions="multimodal_rope"),
    "glm4v_moe": Family(positions="multimodal_rope"),
    "glm46v": Family(positions="multimodal_rope"),
    "glmga": Family(positions="multimodal_rope"),
    "glm_ocr": Family(positions="multimodal_rope"),
    "paddleocr_vl": Family(positions="multimodal_rope"),
    "ernie4_5_vl_moe": Family(positions="multimodal_rope"),
    "cohere_compass": Family(positions="multimodal_rope"),
    "qwen2_5_omni_thinker": Family(positions="multimodal_rope"),
    "qwen3_omni_moe_thinker": Family(positions="multimodal_rope"),
    "cosmos3_omni": Family(positions="multimodal_rope"),
    "llama4": Family(reads_of_text=("image_outputs",), apart="scales its attention by the place of a token in the row"),
    "hunyuan_vl": Family(refused="transformers numbers the tokens of a prompt by the other prompts of its batch"),
    "minicpmv4_6": Family(untrained="its processor joins the patches of all images into one sequence"),
    "minicpmv4_7": Family(untrained="its processor joins the patches of all images into one sequence"),
    "minicpm_ocr": Family(untrained="its processor joins the patches of all images into one sequence"),
    "mistral_large4": Family(alone=_CHOOSES_TOKENS),
    "hy_v4_vl": Family(alone=_CHOOSES_TOKENS),
    "glm5_next": Family(alone=_CHOOSES_TOKENS),
    "dots3_note": Family(alone=_CHOOSES_TOKENS),
    "minimax_m3_vl": Family(alone=_CHOOSES_TOKENS),
    "pixtral": Family(joins_images=True),
    "paddleocr_vl_vision": Family(joins_images=True),
    "blip": Family(refused="its generate rewrites the prompt"),
    "blip-2": Family(refused="its generate takes the image's pixels alone, and its prompts have no image token"),
    "instructblip": Family(refused="its generate takes the image's pixels alone, and its prompts have no image token"),
    "instructblipvideo": Family(refused="it takes videos and no images"),
    "kosmos-2": Family(refused="its processor finds the image by its place in prompts that are padded on the right"),
    "kosmos-2.5": Family(refused="its processor finds the image by its place in prompts that are padded on the right"),
    "emu3": Family(refused="its processor pads the images of a batch, and the padding changes what the model sees"),
    "got_ocr2": Family(refused="its processor takes no image for each of several prompts"),
    "shieldgemma2": Family(refused="it classifies images, and does not answer"),
    "cosmos3_edge": Family(refused="its processor leaves out the token types that the model asks for"),
    "evolla": Family(refused="it takes proteins and no images"),
    "pi0": Family(refused="it answers with the actions of a robot"),
    "mistral4": Family(refused="it takes no images"),
    "diffusion_gemma": Family(refused="it writes its answer in blocks of noise, which generate does not know"),
}
"""`model_type` of config.json, or of its vision tower -> what is special in that family."""

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

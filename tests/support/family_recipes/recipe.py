"""What the tiny checkpoint of a family is made of: the turns of its chat template, and how it differs from others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
        return special_tokens(self.begin + self.user + self.assistant + self.end + self.close)


def special_tokens(text: str) -> list[str]:
    """The special tokens in a text."""
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


SQUARE = {"size": {"height": 16, "width": 16}}
CROPPED = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
GRIDS = [[16, 32], [32, 16], [32, 32]]
TILES = {**SQUARE, "crop_to_patches": True, "min_patches": 1, "max_patches": 4}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
LINEAR = {
    "rope_parameters": {**MROPE, "mrope_interleaved": True, "partial_rotary_factor": 1.0},
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
MLA = {
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

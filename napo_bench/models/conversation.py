"""How a checkpoint wants to be shown a picture and asked a question.

Every part of the project that talks to a model does it through `Conversation`: evaluation, training and the
construction of biased negatives see the same text and the same picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from PIL import Image

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.images import to_rgb
from napo_bench.models.families import family_of

VICUNA_V1_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_VICUNA_V1 = VICUNA_V1_SYSTEM + (
    "{% for message in messages %} {{ message['role'] | upper }}: "
    "{% for part in message['content'] %}{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}{% endfor %}"
    "{{ ' ASSISTANT:' if add_generation_prompt else '' }}"
)
_PROBE = "a-probe-of-the-template"

PLACEHOLDERS = (
    "<im_start><image><im_end>",
    "<image>",
    "<|vision_start|>",
    "<|image_pad|>",
    "<|vision_end|>",
    "<|image|>",
)
"""How data sets write an image into a text, with the marks around it."""

_PLACEHOLDER_FIELDS = ("image_token", "video_token", "boi_token", "eoi_token", "start_image_token", "end_image_token")
_CONTROL_TOKEN = re.compile(r"[<\[|].+[>\]|]", re.DOTALL)


def any_of(strings: Iterable[str]) -> str:
    """A regular expression, for `re` and for Arrow, of strings: the longest is tried first."""
    ordered = sorted(set(strings), key=lambda string: (-len(string), string))
    return "|".join(re.escape(string).replace("\\ ", " ") for string in ordered)


@dataclass(frozen=True)
class Markup:
    """Strings of a text that a model would not read as text.

    Attributes:
        placeholders: Strings that stand for an image, or enclose one.
        controls: Strings that the tokenizer turns into control tokens: begin, end of a turn, padding.
        own: The checkpoint's own placeholder of an image.
    """

    placeholders: tuple[str, ...] = PLACEHOLDERS
    controls: tuple[str, ...] = ()
    own: str = "<image>"

    @classmethod
    def of(cls, processor: Any) -> Self:
        """The markup of a checkpoint: its own, and the placeholders that data sets use."""
        named = (getattr(processor, name, None) for name in _PLACEHOLDER_FIELDS)
        placeholders = dict.fromkeys([*(token for token in named if isinstance(token, str) and token), *PLACEHOLDERS])
        tokenizer = processor.tokenizer
        added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        # Some tokenizers pad with "!" or end with a word; such a token is text.
        special = [token for token in (*tokenizer.all_special_tokens, *added) if _CONTROL_TOKEN.fullmatch(token)]
        controls = tuple(token for token in dict.fromkeys(special) if token not in placeholders)
        return cls(tuple(placeholders), controls, getattr(processor, "image_token", None) or "<image>")

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(any_of((*self.placeholders, *self.controls)))

    def has_controls(self, text: str) -> bool:
        """Whether the text holds a control token."""
        return any(token in text for token in self.controls)

    def removed(self, text: str) -> str:
        """The text without these strings, also without those that appear when one inside them is removed.

        A text that holds none of them stays as it is, to the byte.
        """
        plain = text
        while (shorter := self._compiled.sub("", plain)) != plain:
            plain = shorter
        return text if plain == text else plain.strip()


@dataclass(frozen=True)
class Conversation:
    """The text and the picture that a checkpoint expects.

    LLaVA-1.5 gets the conversation "vicuna v1" and square pictures, as its reference implementation runs it, in place
    of the hub processor's own template and centre crop. Every other checkpoint gets its own chat template and its
    processor's own treatment of the picture.

    Attributes:
        processor: The checkpoint's processor; it tokenizes `prompt` and turns `prepare_image`'s picture into pixels.
        eos: The string that closes an answer.
        square: The colour (R, G, B) that fills a picture up to a square, None where pictures keep their shape.
    """

    processor: Any
    eos: str
    square: tuple[int, int, int] | None
    _template: str | None
    _answer_lead: str
    _answer_tail: str

    @classmethod
    def of(cls, processor: Any, config: Any) -> Self:
        """The conversation of a checkpoint.

        Args:
            processor: The checkpoint's processor.
            config: The model's configuration; its `model_type` names the family.

        Raises:
            NapoBenchError: the processor has no chat template, or the tokenizer no closing token.
        """
        eos = processor.tokenizer.eos_token
        if not eos:
            raise NapoBenchError(
                "The checkpoint's tokenizer has no eos_token, so an answer has no end.",
                "Set eos_token in tokenizer_config.json.",
            )
        square = _mean_colour(processor) if _speaks_vicuna_v1(processor, config) else None
        template = _VICUNA_V1 if square else _own_template(processor)
        prompt = _render(processor, template, _PROBE, has_image=True)
        both = _render(processor, template, _PROBE, has_image=True, answer=_PROBE[::-1])
        lead, tail = "", eos
        if both.startswith(prompt):
            lead, _, rest = both[len(prompt) :].partition(_PROBE[::-1])
            if eos in rest:
                tail = rest[: rest.index(eos) + len(eos)]
        return cls(processor, eos, square, template, lead, tail)

    def prompt(self, question: str, has_image: bool) -> str:
        """The text up to where the answer starts.

        Args:
            question: May be empty. Placeholders and control tokens in it are removed: the conversation sets its own.
            has_image: Whether one picture goes with it; without one there is no image placeholder.
        """
        return _render(self.processor, self._template, self.markup.removed(question), has_image=has_image)

    def answer(self, text: str) -> str:
        """The text of an answer as it follows a prompt in training, up to and including the one closing `eos`."""
        return f"{self._answer_lead}{self.markup.removed(text)}{self._answer_tail}"

    def prepare_image(self, image: Image.Image) -> Image.Image:
        """The picture to give to the processor: RGB, for LLaVA-1.5 centred in a square of CLIP's mean colour."""
        image = image if image.mode == "RGB" else to_rgb(image)
        if self.square is None or image.width == image.height:
            return image
        side = max(image.size)
        canvas = Image.new("RGB", (side, side), self.square)
        canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return canvas

    def encode(self, prompts: Sequence[str], images: Sequence[Image.Image] = ()) -> Any:
        """Model inputs of a batch of prompts, padded on the left.

        Args:
            prompts: Texts of `prompt`, all with a picture or all without.
            images: The prepared picture of each prompt, or nothing.

        Returns:
            The processor's BatchFeature: input_ids and attention_mask `[B, T]`, and its pixel inputs.
        """
        begins_itself = prompts[0].startswith(self.processor.tokenizer.bos_token or "\0")
        return self.processor(
            text=list(prompts),
            images=[[image] for image in images] or None,
            padding=True,
            padding_side="left",
            add_special_tokens=not begins_itself,
            return_tensors="pt",
        )

    def answer_ids(self, text: str) -> list[int]:
        """The tokens of `answer(text)` as they stand behind a prompt, the closing one included.

        A tokenizer that marks the start of a text with a space would add one to an answer tokenized alone, so the
        answer is tokenized behind the last word of a prompt and that word's tokens are cut off.
        """
        words, tokens = self._end_of_prompt
        whole = self.processor.tokenizer(words + self.answer(text), add_special_tokens=False)["input_ids"]
        return list(whole[tokens:])

    @cached_property
    def _end_of_prompt(self) -> tuple[str, int]:
        """What stands in a prompt behind the question, and its number of tokens."""
        words = self.prompt(_PROBE, has_image=False).rpartition(_PROBE)[2]
        return words, len(self.processor.tokenizer(words, add_special_tokens=False)["input_ids"])

    @cached_property
    def markup(self) -> Markup:
        """What is removed from questions and answers."""
        return Markup.of(self.processor)


def _render(processor: Any, template: str | None, question: str, *, has_image: bool, answer: str | None = None) -> str:
    content = [{"type": "image"}] if has_image else []
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]
    if answer is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    text = processor.apply_chat_template(messages, chat_template=template, add_generation_prompt=answer is None)
    return str(text)


def _own_template(processor: Any) -> str | None:
    template = processor.chat_template or getattr(processor.tokenizer, "chat_template", None)
    if not template:
        raise NapoBenchError(
            "The checkpoint has no chat template, so nothing says how to ask it a question.",
            "Add the chat_template.jinja of its base checkpoint.",
        )
    return template if isinstance(template, str) else None


def _speaks_vicuna_v1(processor: Any, config: Any) -> bool:
    """Whether a checkpoint was trained on vicuna v1, as LLaVA-1.5 was.

    The hub's LLaVA-1.5 has a template, or none, that says nothing of the system line and of the end of an answer. A
    template that closes its answers speaks for itself, unless it is vicuna v1 in full.
    """
    if family_of(config).conversation != "vicuna_v1":
        return False
    if not processor.chat_template:
        return True
    rendered = _render(processor, None, _PROBE, has_image=True, answer=_PROBE).strip()
    turn = f"USER: <image>\n{_PROBE} ASSISTANT: {_PROBE}"
    return rendered == turn or rendered.startswith(f"{VICUNA_V1_SYSTEM} {turn}")


def _mean_colour(processor: Any) -> tuple[int, int, int]:
    red, green, blue = (int(value * 255) for value in processor.image_processor.image_mean)
    return red, green, blue

"""The form in which a checkpoint gets an image and a question.

Every part of the project that asks a model uses `Conversation`: evaluation, training and the construction of biased
negatives have the same text and the same image.
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
"""Placeholders of an image in the texts of data sets, with the marks around them."""

_PLACEHOLDER_FIELDS = ("image_token", "video_token", "boi_token", "eoi_token", "start_image_token", "end_image_token")
_CONTROL_TOKEN = re.compile(r"[<\[|].+[>\]|]", re.DOTALL)


def any_of(strings: Iterable[str]) -> str:
    """A regular expression, for `re` and for Arrow, that matches any of the strings, the longest first."""
    ordered = sorted(set(strings), key=lambda string: (-len(string), string))
    return "|".join(re.escape(string).replace("\\ ", " ") for string in ordered)


@dataclass(frozen=True)
class Markup:
    """Strings of a text that a model would not read as text.

    Attributes:
        placeholders: Strings that represent an image, or enclose such a string.
        controls: Strings that the tokenizer turns into control tokens: begin or end of a turn, padding.
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
        """Whether the text contains a control token."""
        return any(token in text for token in self.controls)

    def removed(self, text: str) -> str:
        """The text without these strings, and without the strings that appear when an inner string is removed.

        A text without such strings stays unchanged, to the byte.
        """
        plain = text
        while (shorter := self._compiled.sub("", plain)) != plain:
            plain = shorter
        return text if plain == text else plain.strip()


@dataclass(frozen=True)
class Conversation:
    """The text and the image that a checkpoint expects.

    LLaVA-1.5 gets the conversation "vicuna v1" and square images, as in its reference implementation, and not the hub
    processor's template and centre crop. Every other checkpoint gets its own chat template, and its processor treats
    the image.

    Attributes:
        processor: The checkpoint's processor, which tokenizes `prompt` and turns `prepare_image`'s image into pixels.
        eos: The string that closes an answer.
        square: The colour (R, G, B) that fills an image up to a square; None if images keep their shape.
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
            question: The question, which may be empty. Its placeholders and control tokens are removed, because the
                conversation sets its own.
            has_image: Whether the question is about an image. Without an image the prompt has no image placeholder.
        """
        return _render(self.processor, self._template, self.markup.removed(question), has_image=has_image)

    def answer(self, text: str) -> str:
        """The text of an answer after a prompt in training, up to and including the one closing `eos`."""
        return f"{self._answer_lead}{self.markup.removed(text)}{self._answer_tail}"

    def prepare_image(self, image: Image.Image) -> Image.Image:
        """The image for the processor: RGB, for LLaVA-1.5 centred in a square of CLIP's mean colour."""
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
            prompts: Texts of `prompt`, all with an image or all without an image.
            images: The prepared image of each prompt, or nothing.

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
        """The tokens of `answer(text)` after a prompt, including the closing token.

        A tokenizer that marks the start of a text with a space would add a space to an answer that is tokenized alone.
        So the answer is tokenized after the last word of a prompt, and the tokens of that word are cut off.
        """
        words, tokens = self._end_of_prompt
        whole = self.processor.tokenizer(words + self.answer(text), add_special_tokens=False)["input_ids"]
        return list(whole[tokens:])

    @cached_property
    def _end_of_prompt(self) -> tuple[str, int]:
        """The text after the question in a prompt, and its number of tokens."""
        words = self.prompt(_PROBE, has_image=False).rpartition(_PROBE)[2]
        return words, len(self.processor.tokenizer(words, add_special_tokens=False)["input_ids"])

    @cached_property
    def markup(self) -> Markup:
        """The strings that are removed from questions and answers."""
        return Markup.of(self.processor)


def _render(processor: Any, template: str | None, question: str, *, has_image: bool, answer: str | None = None) -> str:
    content = [{"type": "image"}] if has_image else []
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]
    if answer is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    from jinja2 import TemplateError

    try:
        text = processor.apply_chat_template(messages, chat_template=template, add_generation_prompt=answer is None)
    except (TemplateError, TypeError, ValueError) as error:
        raise NapoBenchError(
            f"The checkpoint's chat template cannot be used: {type(error).__name__}: {error}.",
            "Fetch chat_template.jinja again, or copy it from the base checkpoint.",
        ) from None
    return str(text)


def _own_template(processor: Any) -> str | None:
    template = processor.chat_template or getattr(processor.tokenizer, "chat_template", None)
    if not template:
        raise NapoBenchError(
            "The checkpoint has no chat template, so the form of its prompts is unknown.",
            "Add the chat_template.jinja of its base checkpoint.",
        )
    return template if isinstance(template, str) else None


def _speaks_vicuna_v1(processor: Any, config: Any) -> bool:
    """Whether a checkpoint was trained on vicuna v1, like LLaVA-1.5.

    The hub's LLaVA-1.5 has no template, or a template without the system line and without the end of an answer. A
    template that closes its answers is used as it is, unless the template is the whole of vicuna v1.
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

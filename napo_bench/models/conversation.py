"""The form in which a checkpoint gets an image and a question.

Every part of the project that asks a model uses `Conversation`: evaluation, training and the construction of biased
negatives have the same text and the same image.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, Literal, Self

from PIL import Image

from napo_bench.core.errors import NapoBenchError, unknown_name
from napo_bench.core.images import to_rgb
from napo_bench.core.limits import CHECK_BYTES, CHECK_SECONDS, at_most
from napo_bench.models.explained import first_line
from napo_bench.models.families import family_of
from napo_bench.models.template import require_variables

SYSTEM_LINES = {
    "llava_v1": (
        "A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions."
    ),
    "vicuna_v1": (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    ),
}
"""Name of a conversation of LLaVA-1.5 -> its system line; nothing else differs. "llava_v1" is the paper's (evaluation,
training and biased negatives), "vicuna_v1" is that of LLaVA's own evaluation."""

OWN = "own"
"""Name of the conversation of a checkpoint that is asked in its own chat template."""

ImageShape = Literal["pad", "crop"]
"""What LLaVA-1.5 sees of an image that is not square: the whole image in a square ("pad"), or its centre ("crop")."""

_TURNS = (
    "{% for message in messages %} {{ message['role'] | upper }}: "
    "{% for part in message['content'] %}{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}{% endfor %}"
    "{{ ' ASSISTANT:' if add_generation_prompt else '' }}"
)
_PROBE = "a-probe-of-the-template"

_SHOWN_OF_PROMPT = 100
_OTHER_IMAGE = (
    "Resize or crop the image or leave it out, or name a checkpoint of another family. Then run the same command again."
)

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


class UnencodableImageError(NapoBenchError):
    """The checkpoint's processor cannot take an image, for example an image of extreme shape."""


@dataclass(frozen=True)
class Conversation:
    """The text and the image that a checkpoint expects.

    LLaVA-1.5 gets the conversation, the tokens and the square images of its reference implementation, and not the hub
    processor's template, tokens and centre crop. Every other checkpoint gets its own chat template, and its processor
    treats the image.

    Attributes:
        processor: The checkpoint's processor, which turns `prepare_image`'s image into pixels.
        name: A name in `SYSTEM_LINES`, or `OWN`.
        eos: The string that closes an answer.
        square: The colour (R, G, B) that fills an image up to a square; None if images keep their shape.
        variables: Values of variables of the checkpoint's own chat template, such as `enable_thinking`.
    """

    processor: Any
    name: str
    eos: str
    square: tuple[int, int, int] | None
    _template: str | None
    _answer_lead: str
    _answer_tail: str
    variables: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        processor: Any,
        config: Any,
        name: str | None = None,
        image: ImageShape = "pad",
        variables: Mapping[str, Any] = MappingProxyType({}),
    ) -> Self:
        """The conversation of a checkpoint.

        Args:
            processor: The checkpoint's processor.
            config: The model's configuration; its `model_type` names the family.
            name: A name in `SYSTEM_LINES`, for LLaVA-1.5; None is the conversation that the checkpoint was saved with,
                else the family's.
            image: How LLaVA-1.5 gets an image that is not square: "pad" as in its evaluation, "crop" as in the paper's
                training. No effect on other checkpoints.
            variables: Values of variables of the checkpoint's own chat template.

        Raises:
            NapoBenchError: the processor has no chat template, the tokenizer no closing token, `name` is no
                conversation of the model, or the template does not use one of the variables.
        """
        eos = processor.tokenizer.eos_token
        if not eos:
            raise NapoBenchError(
                "The checkpoint's tokenizer has no eos_token, so an answer has no end.",
                "Set eos_token in tokenizer_config.json.",
            )
        name = _named(processor, config, name)
        template, text = _own_template(processor) if name == OWN else (SYSTEM_LINES[name] + _TURNS,) * 2
        require_variables(variables, text if name == OWN else "", name)
        write = partial(_render, processor, template, variables)
        # Only a checkpoint of LLaVA's original layout says what it was trained with.
        padded = image == "pad" and getattr(config, "image_aspect_ratio", "pad") == "pad"
        square = _mean_colour(processor) if name != OWN and padded else None
        prompt = write([None, _PROBE])
        both = write([None, _PROBE], answer=_PROBE[::-1])
        lead, tail = "", eos
        if both.startswith(prompt):
            lead, _, rest = both[len(prompt) :].partition(_PROBE[::-1])
            if eos in rest:
                tail = rest[: rest.index(eos) + len(eos)]
        return cls(processor, name, eos, square, template, lead, tail, variables)

    def prompt(self, question: str, has_image: bool) -> str:
        """The text up to where the answer starts.

        Args:
            question: The question, which may be empty. Its placeholders and control tokens are removed, because the
                conversation sets its own.
            has_image: Whether the question is about an image. Without an image the prompt has no image placeholder.
        """
        return self.interleaved([None, question] if has_image else [question])

    def interleaved(self, parts: Sequence[str | None]) -> str:
        """The text of a prompt of several parts.

        Args:
            parts: Texts, as `prompt` takes them, and None at the place of each image.
        """
        plain = [None if part is None else self.markup.removed(part) for part in parts]
        return _render(self.processor, self._template, self.variables, plain)

    def require_pictures(self, count: int) -> None:
        """Check with small images that a prompt may have `count` images.

        Raises:
            NapoBenchError: the checkpoint is LLaVA-1.5, its template leaves out an image, or its processor refuses.
        """
        if count < 2:
            return
        shown = Image.new("RGB", (64, 64))
        kind = type(self.processor).__name__
        try:
            if self.name == OWN:
                one, several = (self.interleaved([None] * number + [_PROBE]) for number in (1, count))
                if len(several) > len(one):
                    self._encoded([several], [[shown] * count])
                    return
                reason = "its chat template writes one image"
            else:
                reason = "it was trained with one image in a prompt"
        except (ValueError, IndexError, TypeError, RuntimeError) as error:
            reason = f"{kind}: {first_line(error)}"
        raise NapoBenchError(
            f"A question shows {count} images, and the checkpoint takes one image in a prompt: {reason}.",
            "Leave the benchmark out of --suite, or name a checkpoint that takes several, such as a Qwen2.5-VL.",
        )

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

    def blank_image(self, size: tuple[int, int]) -> Image.Image:
        """An image of this size (width, height) that shows nothing: the mean colour of the processor, which turns this
        colour into 0.
        """
        return Image.new("RGB", size, _mean_colour(self.processor))

    def encode(self, prompts: Sequence[str], images: Sequence[Image.Image | Sequence[Image.Image]] = ()) -> Any:
        """Model inputs of a batch of prompts, padded on the left.

        Args:
            prompts: Texts of `prompt`, or of `interleaved` with the same number of images each.
            images: The prepared image, or the images, of each prompt; nothing if the prompts have no image.

        Returns:
            A BatchFeature: input_ids and attention_mask `[B, T]`, and the processor's pixel inputs.

        Raises:
            UnencodableImageError: the processor cannot take an image, or the images of one batch.
        """
        asked = [[image] if isinstance(image, Image.Image) else list(image) for image in images]
        try:
            return self._encoded(prompts, asked)
        except Exception as error:  # whatever processors raise
            if not asked:
                raise
            raise self._unencodable(prompts, asked, error) from error

    def _unencodable(
        self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], error: Exception
    ) -> UnencodableImageError:
        """The error about the first prompt that cannot be encoded alone, else about the batch."""
        kind, shown, end, hint = type(self.processor).__name__, list(itertools.chain(*images)), "", _OTHER_IMAGE
        for prompt, of_prompt in zip(prompts, images, strict=True):
            try:
                self._encoded([prompt], [of_prompt])
            except Exception as alone:  # whatever processors raise
                error, shown = alone, list(of_prompt)
                end = f" of the prompt that ends with {prompt[-_SHOWN_OF_PROMPT:]!r}"
                break
        else:
            kind, hint = f"In one batch {kind}", "Run the command again with a batch size of 1."
        sizes = ", ".join(f"{image.width} x {image.height}" for image in shown)
        what = f"the image{'s' if len(shown) > 1 else ''} of {sizes} pixels{end}"
        return UnencodableImageError(f"{kind} cannot take {what}: {first_line(error)}", hint)

    def _encoded(self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> Any:
        """See `encode`. Raises whatever the processor raises."""
        from transformers import BatchFeature

        processor, asked = self.processor, list(images) or None
        padded = {"padding": True, "padding_side": "left", "return_tensors": "pt"}
        if self.name == OWN:
            begun = self._begins_itself(prompts[0])
            return processor(text=list(prompts), images=asked, add_special_tokens=not begun, **padded)
        places, inputs = [0] * len(prompts), {}
        if asked:
            seen = processor(text=[processor.image_token] * len(asked), images=asked, return_tensors="pt")
            places = (seen["input_ids"] == processor.image_token_id).sum(1).tolist()
            inputs = {name: seen[name] for name in processor.image_processor.model_input_names if name in seen}
        ids = [self.prompt_ids(prompt, count) for prompt, count in zip(prompts, places, strict=True)]
        return BatchFeature({**processor.tokenizer.pad({"input_ids": ids}, **padded), **inputs})

    def prompt_ids(self, prompt: str, image_tokens: int = 1) -> list[int]:
        """The tokens of a prompt.

        LLaVA-1.5's text before the image and its text behind the image are tokenized each alone, as in its reference
        implementation. So a "▁" stands between the image and the line break, whatever the form of the tokenizer.

        Args:
            prompt: Text of `prompt`.
            image_tokens: Number of tokens for an image in a prompt of LLaVA-1.5.
        """
        tokenizer = self.processor.tokenizer
        if self.name == OWN:
            return list(tokenizer(prompt, add_special_tokens=not self._begins_itself(prompt))["input_ids"])
        ids = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        for number, part in enumerate(prompt.split(self.processor.image_token)):
            ids += [self.processor.image_token_id] * image_tokens if number else []
            ids += tokenizer(part, add_special_tokens=False)["input_ids"]
        return ids

    @property
    def choice(self) -> str | None:
        """The name, if the checkpoint can be asked in several conversations; else None."""
        return None if self.name == OWN else self.name

    @property
    def determinants(self) -> list[Any]:
        """Everything that determines the tokens and pixels of a question, as JSON: texts, ids, shape of the image."""
        prompt = self.prompt("", has_image=True)
        return [prompt, self.prompt_ids(prompt), self.answer(""), self.square]

    def saved_processor(self) -> Any:
        """The processor to save with a trained checkpoint: its chat template is this conversation.

        So the checkpoint is evaluated in the conversation that it was trained in.
        """
        if self.name == OWN:
            return self.processor
        saved = copy(self.processor)
        saved.chat_template = self._template
        return saved

    def answer_ids(self, text: str) -> list[int]:
        """The tokens of `answer(text)` after a prompt, including the closing token.

        A tokenizer that marks the start of a text with a space would add a space to an answer that is tokenized alone.
        So the answer is tokenized after the last word of a prompt, and the tokens of that word are cut off. If the
        prompt ends in a blank that the tokenizer joins with the answer, the answer is tokenized alone.

        Raises:
            NapoBenchError: neither way gives tokens that continue the tokens of the prompt with the answer.
        """
        words, before = self._end_of_prompt
        answer, tokenizer = self.answer(text), self.processor.tokenizer
        whole = list(tokenizer(words + answer, add_special_tokens=False)["input_ids"])
        if whole[: len(before)] == before:
            return whole[len(before) :]
        alone = list(tokenizer(answer, add_special_tokens=False)["input_ids"])
        if tokenizer.decode(before + alone, clean_up_tokenization_spaces=False) == words + answer:
            return alone
        raise NapoBenchError(
            f"The prompt ends in {words[-20:]!r}, and the tokenizer joins this end with the answer {text[:40]!r}, so "
            "the answer has no tokens of its own.",
            "Remove the blank at the end of the prompt from the checkpoint's chat_template.jinja.",
        )

    def _begins_itself(self, prompt: str) -> bool:
        """Whether the chat template wrote the token that begins a text."""
        return prompt.startswith(self.processor.tokenizer.bos_token or "\0")

    @cached_property
    def _end_of_prompt(self) -> tuple[str, list[int]]:
        """The text after the question in a prompt, and its tokens."""
        words = self.prompt(_PROBE, has_image=False).rpartition(_PROBE)[2]
        return words, list(self.processor.tokenizer(words, add_special_tokens=False)["input_ids"])

    @cached_property
    def markup(self) -> Markup:
        """The strings that are removed from questions and answers."""
        return Markup.of(self.processor)


def _render(
    processor: Any,
    template: str | None,
    variables: Mapping[str, Any],
    parts: Sequence[str | None],
    answer: str | None = None,
) -> str:
    content = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
    messages = [{"role": "user", "content": content}]
    if answer is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    asks = answer is None
    try:
        with at_most("The checkpoint's chat template", CHECK_SECONDS, CHECK_BYTES):
            text = processor.apply_chat_template(
                messages, chat_template=template, add_generation_prompt=asks, **variables
            )
    except NapoBenchError:
        raise
    except Exception as error:  # a template raises whatever its author wrote
        raise NapoBenchError(
            f"The checkpoint's chat template cannot be used: {type(error).__name__}: {error}.",
            "Fetch chat_template.jinja again, or copy it from the base checkpoint.",
        ) from None
    return str(text)


def _own_template(processor: Any) -> tuple[str | None, str]:
    """The checkpoint's template if it is one text, else None; and the text of its default template."""
    template = processor.chat_template or getattr(processor.tokenizer, "chat_template", None)
    if not template:
        raise NapoBenchError(
            "The checkpoint has no chat template, so the form of its prompts is unknown.",
            "Add the chat_template.jinja of its base checkpoint.",
        )
    return (template, template) if isinstance(template, str) else (None, str(template.get("default", "")))


def _named(processor: Any, config: Any, name: str | None) -> str:
    """The name of a checkpoint's conversation, see `Conversation.of`.

    The hub's LLaVA-1.5 has no template, or a template without the system line and without the end of an answer. A
    template that closes its answers is used as it is, unless the template is the whole of a conversation of LLaVA-1.5.
    """
    of_family = family_of(config).conversation
    if name is not None and name not in SYSTEM_LINES:
        raise unknown_name("conversation", name, SYSTEM_LINES)
    if name is not None and of_family == OWN:
        raise NapoBenchError(
            f"{name} is a conversation of LLaVA-1.5, and the checkpoint is a {config.model_type!r} model.",
            "Leave the conversation out. The model is then asked in its own chat template.",
        )
    if name is not None or of_family == OWN or not processor.chat_template:
        return name or of_family
    rendered = _render(processor, None, {}, [None, _PROBE], answer=_PROBE).strip()
    turn = f"USER: <image>\n{_PROBE} ASSISTANT: {_PROBE}"
    saved = [known for known, line in SYSTEM_LINES.items() if rendered.startswith(f"{line} {turn}")]
    return saved[0] if saved else of_family if rendered == turn else OWN


def _mean_colour(processor: Any) -> tuple[int, int, int]:
    mean = getattr(processor.image_processor, "image_mean", None) or 0.5
    red, green, blue = (int(value * 255) for value in ((mean,) * 3 if isinstance(mean, float) else mean))
    return red, green, blue

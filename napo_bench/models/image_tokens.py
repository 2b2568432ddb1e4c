"""Whether the tokens of an image are where the model looks for them: vocabulary, template, processor, config.json."""

from __future__ import annotations

from typing import Any

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.limits import CHECK_BYTES, CHECK_SECONDS, at_most
from napo_bench.models.conversation import Conversation, UnencodableImageError
from napo_bench.models.explained import first_line
from napo_bench.models.soundness import SAME_SOURCE

_OTHER_TEMPLATE = "Take chat_template.jinja of the base checkpoint: a model without images may have another one."


def require_tokens(name: str, processor: Any, config: Any) -> None:
    """Look for the special tokens in the vocabulary and in the model's embedding.

    Raises:
        NapoBenchError: the vocabulary has no image token, or a special token has no row in the embedding.
    """
    tokenizer = processor.tokenizer
    rows = getattr(config.get_text_config(), "vocab_size", None)
    token = getattr(processor, "image_token", None)
    expected = getattr(config, "image_token_id", None)
    if token is not None and expected is not None:
        number = tokenizer.get_vocab().get(str(token))
        if number is None:
            raise NapoBenchError(
                f"{name}: the tokenizer's vocabulary has no image token (processor: {str(token)!r}).", SAME_SOURCE
            )
    numbers = {
        "image token": expected,
        "pad_token": tokenizer.pad_token_id,
        "bos_token": tokenizer.bos_token_id,
        "eos_token": tokenizer.eos_token_id,
    }
    for role, number in numbers.items():
        if rows is not None and number is not None and not 0 <= number < rows:
            raise NapoBenchError(
                f"{name}: the {role} of the tokenizer is number {number}; the vocabulary of config.json has "
                f"{rows} entries (vocab_size).",
                SAME_SOURCE,
            )


def require_image_in_prompt(name: str, conversation: Conversation, config: Any) -> None:
    """Ask about an image, and look for the image's tokens in the prompt.

    The placeholder of an image may become other tokens than its own: the processor's `image_token` says no more than
    where the image is.

    Args:
        name: Name of the checkpoint, for messages.
        conversation: Conversation of the checkpoint.
        config: The model's configuration.

    Raises:
        NapoBenchError: the processor cannot take an image, or the prompt does not have the token that the model
            replaces by the image.
    """
    from PIL import Image

    processor, expected = conversation.processor, getattr(config, "image_token_id", None)
    token = getattr(processor, "image_token", None)
    image, prompt = conversation.prepare_image(Image.new("RGB", (48, 32))), conversation.prompt("", has_image=True)
    try:
        with at_most(f"{name}: an image in {type(processor).__name__}", CHECK_SECONDS, CHECK_BYTES):
            written = _encoded(conversation, prompt, image)
    except NapoBenchError:
        raise
    except Exception as error:  # whatever processors raise
        if token is not None and str(token) not in prompt:
            raise NapoBenchError(
                f"{name}: its chat template writes no image ({str(token)!r}).", _OTHER_TEMPLATE
            ) from None
        raise NapoBenchError(
            f"{name}: its processor, {type(processor).__name__}, cannot take an image: "
            f"{type(error).__name__}: {first_line(error)}",
            SAME_SOURCE,
        ) from None
    if expected is None or bool((written == expected).any()):
        return
    number = processor.tokenizer.get_vocab().get(str(token))
    if number is not None and bool((written == number).any()):
        raise NapoBenchError(
            f"{name}: the tokenizer's image token {str(token)!r} is number {number}; "
            f"config.json says {expected} (image_token_index, or image_token_id).",
            SAME_SOURCE,
        )
    raise NapoBenchError(
        f"{name}: a prompt about an image has no image token (number {expected}; image_token_index, or image_token_id, "
        "of config.json).",
        f"The chat template writes no image, or the processor another token. {SAME_SOURCE}",
    )


def _encoded(conversation: Conversation, prompt: str, image: Any) -> Any:
    """The tokens of a prompt about an image. Raises what the processor raises."""
    try:
        return conversation.encode([prompt], [image])["input_ids"]
    except UnencodableImageError as error:
        raise error.__cause__ or error from None


def require_image_token(name: str, processor: Any, config: Any) -> None:
    """Raises NapoBenchError if the processor or config.json names no image token, which training counts."""
    if getattr(processor, "image_token", None) is None or getattr(config, "image_token_id", None) is None:
        raise NapoBenchError(
            f"{name}: the processor or config.json names no image token, so the tokens of an image cannot be found.",
            SAME_SOURCE,
        )

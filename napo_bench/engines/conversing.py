"""The prompts of a local checkpoint, in the conversation that it expects."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from PIL import Image

from napo_bench.engines.prompt import Prompt, PromptWriter
from napo_bench.models.conversation import Conversation


class ConversationWriter(PromptWriter):
    """Writes prompts in a conversation.

    Args:
        conversation: The conversation.
    """

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation

    def text(self, question: str, has_image: bool) -> str:
        """See PromptWriter: the conversation that the checkpoint expects."""
        return self.conversation.prompt(question, has_image=has_image)

    def interleaved(self, parts: Sequence[str | None]) -> str:
        """See PromptWriter: the conversation that the checkpoint expects."""
        return self.conversation.interleaved(parts)

    def prepare(self, image: Image.Image) -> Image.Image:
        """See PromptWriter: the image as the checkpoint expects it."""
        return self.conversation.prepare_image(image)

    def require_pictures(self, count: int) -> None:
        """See PromptWriter."""
        self.conversation.require_pictures(count)

    def sent(self, prompt: Prompt) -> dict[str, Any]:
        """See PromptWriter: the text, and the ids of its tokens. `[id, n]` is an id that is repeated n times, as that
        of an image is.
        """
        images = [prompt.images] if prompt.images else []
        ids = self.conversation.encode([prompt.text], images)["input_ids"][0].tolist()
        runs = [(number, len(list(run))) for number, run in itertools.groupby(ids)]
        return {"prompt": prompt.text, "ids": [number if n == 1 else [number, n] for number, n in runs]}

"""What an engine is: it answers one batch. Journal, order, progress and processes are `answering`'s."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from napo_bench.core.thoughts import DEFAULT_MARKS, NEVER_ENDS, Marks, split_thoughts
from napo_bench.engines import BATCH_SIZE
from napo_bench.engines.answer import CUT_OFF, Completion, ModelAnswer
from napo_bench.engines.request import Generation


@dataclass(frozen=True)
class Prompt:
    """One request as an engine gets it.

    Attributes:
        text: The text that the model reads.
        image: The image that the model sees; None if there is none.
        digest: Digest of the image; "" if there is none.
        generation: How the answer is generated.
        key: The journal's key of the answer: a hash, in hex, of everything that the answer depends on.
    """

    text: str
    image: Image.Image | None
    digest: str
    generation: Generation
    key: str = ""

    @property
    def seed(self) -> int:
        """Seed of the draws of a sampled answer."""
        return int(self.key[:15], 16)


class Engine(Protocol):
    """A model that answers batches.

    An engine has a `fingerprint` and `generate`. Everything else has a default.

    Attributes:
        fingerprint: What the model is known by: other weights have another fingerprint.
        batch_size: Prompts that `generate` gets at most.
        in_flight: Calls of `generate` at the same time, in threads.
        asks_again: Whether a prompt without an answer may be answered by another run.
        thinking_marks: What encloses thoughts, which are no part of an answer.
    """

    fingerprint: str
    batch_size: int = BATCH_SIZE
    in_flight: int = 1
    asks_again: bool = False
    thinking_marks: Marks = DEFAULT_MARKS

    def generate(self, prompts: Sequence[Prompt]) -> Sequence[str | Completion]:
        """What the model writes to each prompt of one batch.

        Args:
            prompts: All with an image or all without, all of the same generation settings. A sampled prompt is alone.

        Raises:
            NapoBenchError: the batch cannot be answered.
        """
        ...

    def text(self, question: str, has_image: bool) -> str:
        """The text that the model reads for a question."""
        return question

    def prepare(self, image: Image.Image) -> Image.Image:
        """The image that the model sees."""
        return image

    def digest(self, image: Image.Image) -> str:
        """Digest of an image of `prepare`."""
        return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()

    def identity(self, prompt: Prompt) -> Mapping[str, Any]:
        """Everything that an answer depends on, as JSON: what the answer is known by in the journal."""
        return {
            "engine": self.fingerprint,
            "prompt": prompt.text,
            "image": prompt.digest,
            "generation": prompt.generation.identity(),
        }

    def length(self, prompt: Prompt) -> int:
        """Tokens of a prompt: long prompts are answered first, and beside prompts of like length."""
        return 0

    def keep(self, digests: Iterable[str]) -> None:
        """Let go of what is stored for every image but these, which are still to come."""
        return

    def asking(self, count: int) -> AbstractContextManager[Callable[[], None]]:
        """A block in which `count` prompts are answered, or known already.

        The block gets a function that ends the calls of `generate` in other threads soon.
        """
        return nullcontext(lambda: None)

    def read(self, prompt: Prompt, completion: Completion) -> ModelAnswer:
        """The answer in what the model wrote, or why there is none."""
        if completion.refused:
            return ModelAnswer("", unanswered=completion.refused)
        inside, text = split_thoughts(completion.text, self.thinking_marks)
        thoughts = completion.thoughts + inside
        if text is None:
            return ModelAnswer("", thoughts, NEVER_ENDS)
        answer = prompt.generation.cut(text)
        return ModelAnswer(answer, thoughts, "" if answer or not completion.cut_off else CUT_OFF)

    def reach(self) -> None:
        """Try that the model answers. Raises NapoBenchError if a server or a setting is wrong."""
        return

    def provenance(self) -> dict[str, Any]:
        """On what the answers are computed, for the run."""
        return {}

    def settings(self) -> dict[str, Any]:
        """What can change an answer beside the generation settings, for each benchmark of the run."""
        return {}

    def cleans(self, question: str) -> bool:
        """Whether `text` removes control tokens from a question."""
        return False

"""Engine: a model that answers one batch. `answering` does journal, order, progress and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.names import Control
from napo_bench.core.thoughts import DEFAULT_MARKS, NEVER_ENDS, Marks, split_thoughts
from napo_bench.engines import BATCH_SIZE
from napo_bench.engines.answer import CUT_OFF, Completion, ModelAnswer
from napo_bench.engines.prompt import Prompt, PromptWriter

__all__ = ["Engine", "EngineOptions", "Prompt", "PromptWriter"]


class BatchTooLargeError(NapoBenchError):
    """A batch does not fit into memory. Answering asks again with halves of the batch."""

    @classmethod
    def of(cls, count: int, device: str) -> Self:
        """The error of a batch of `count` prompts."""
        return cls(
            f"A batch of {count} prompts does not fit into the memory of {device}.",
            f"--batch-size {max(1, count // 2)}. Finished answers are kept: the run goes on where it stopped.",
        )


@dataclass(frozen=True)
class EngineOptions:
    """Options of a run for its engine. Each engine reads those that suit it.

    Attributes:
        batch_size: Maximum number of prompts in one forward, or of requests in flight.
        device: Device; None is the best device, "auto" is all accelerators of the machine.
        dtype: Number type.
        trust_remote_code: Whether to run code of the checkpoint.
        conversation: Conversation that the model is asked in; None is that of the checkpoint.
        api_base_url: URL of an OpenAI-compatible endpoint.
        request: Further request fields for the endpoint.
        max_refused: Share of the prompts that the endpoint may refuse.
        thinking_marks: Marks around thoughts, which are no part of an answer.
        chat_template_kwargs: Values of the variables of the model's chat template.
        quantization: Name of a quantization of the weights, of napo_bench.models.quantization; None is none.
    """

    batch_size: int = BATCH_SIZE
    device: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    conversation: str | None = None
    api_base_url: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    max_refused: float = 0.01
    thinking_marks: Marks = DEFAULT_MARKS
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    quantization: str | None = None


class Engine(PromptWriter, Protocol):
    """A model that answers batches.

    An engine has a `fingerprint` and `generate`. For `napo-bench eval --engine NAME` it also has a `name` and `open`.
    Everything else has a default.

    Attributes:
        name: Name for `--engine`, which is that of the entry point.
        takes: Names of EngineOptions that the engine reads. A user who gives another of `trust_remote_code`,
            `conversation`, `chat_template_kwargs`, `quantization`, `api_base_url` and `request` gets an error. `device`
            and `dtype` have no effect if they are not among the names.
        fingerprint: Identity of the model: other weights have another fingerprint.
        batch_size: Maximum number of prompts for `generate`.
        in_flight: Number of simultaneous calls of `generate`, in threads.
        asks_again: Whether a prompt without an answer may be answered by another run.
        thinking_marks: Marks around thoughts, which are no part of an answer.
        asked_in: Name of the conversation, if the model can be asked in several; else None.
        control: Control that the model was trained as; None if the model is no control, or if this is not known.
        shares_images: Whether prompts about one image are answered faster in one batch.
        answers_alone: Whether each prompt is alone in its batch, because another prompt could change its answer.
        draws_together: Whether sampled prompts may share a batch, because each prompt has draws of its own.
    """

    name: ClassVar[str] = ""
    takes: ClassVar[frozenset[str]] = frozenset()
    fingerprint: str
    batch_size: int = BATCH_SIZE
    in_flight: int = 1
    asks_again: bool = False
    thinking_marks: Marks = DEFAULT_MARKS
    asked_in: str | None = None
    control: Control | None = None
    shares_images: bool = False
    answers_alone: bool = False
    draws_together: bool = False

    @classmethod
    def require(cls, checkpoint: str) -> None:
        """Refuse a checkpoint that does not exist, before data is read. By default every name may be a checkpoint.

        Args:
            checkpoint: What the user gave for `--ckpt`.

        Raises:
            NapoBenchError: there is no such checkpoint.
        """
        return

    @classmethod
    def open(cls, checkpoint: str, options: EngineOptions) -> Self:
        """The engine of a run. It loads weights for its first batch, not here. Every process calls this method.

        Args:
            checkpoint: What the user gave for `--ckpt`.
            options: Options of the run.

        Raises:
            NapoBenchError: the checkpoint or an option cannot be used.
        """
        raise NapoBenchError(f"The engine {cls.__name__} has no `open`, so no command can use it.")

    @classmethod
    def known_by(cls, checkpoint: str, options: EngineOptions) -> tuple[str, str | None]:
        """`fingerprint` and `asked_in` that `open` gives, in one process alone. Raises NapoBenchError as `open`."""
        engine = cls.open(checkpoint, options)
        return engine.fingerprint, engine.asked_in

    @classmethod
    def writer(cls, checkpoint: str, options: EngineOptions) -> PromptWriter:
        """What writes the prompts of `open`'s engine, without weights; by default the engine itself."""
        return cls.open(checkpoint, options)

    def generate(self, prompts: Sequence[Prompt]) -> Sequence[str | Completion]:
        """The model's output for each prompt of one batch.

        Args:
            prompts: Prompts, all with the same number of images and the same generation settings. A sampled prompt is
                alone in its batch, except if the engine `draws_together`.

        Raises:
            BatchTooLargeError: the batch does not fit into memory.
            NapoBenchError: the batch cannot be answered.
        """
        ...

    def identity(self, prompt: Prompt) -> Mapping[str, Any]:
        """Everything that an answer depends on, as JSON. The journal's key is made from these values."""
        return {
            "engine": self.fingerprint,
            "prompt": prompt.text,
            "image": prompt.digest,
            "generation": prompt.generation.identity(),
        }

    def length(self, prompt: Prompt) -> int:
        """Number of tokens of a prompt. Long prompts are answered first, in batches of similar length."""
        return 0

    def keep(self, digests: Iterable[str]) -> None:
        """Free the stored features of all images except these, which further prompts need."""
        return

    def ready(self, prompts: Sequence[Prompt]) -> None:
        """Begin with the next batch of `generate`, in another thread, while the batch before is answered.

        An engine with several calls of `generate` in flight does not get this call.

        Raises:
            NapoBenchError: the batch cannot be answered.
        """
        return

    def asking(self, count: int) -> AbstractContextManager[Callable[[], None]]:
        """A block in which `count` prompts are answered or are already known.

        The block gets a function that ends the calls of `generate` in other threads soon.
        """
        return nullcontext(lambda: None)

    def read(self, prompt: Prompt, completion: Completion) -> ModelAnswer:
        """The answer in the model's output, or the reason why there is none."""
        if completion.refused:
            return ModelAnswer("", unanswered=completion.refused)
        inside, text = split_thoughts(completion.text, self.thinking_marks)
        thoughts = completion.thoughts + inside
        if text is None:
            return ModelAnswer("", thoughts, NEVER_ENDS, thought_tokens=completion.thought_tokens)
        answer = prompt.generation.cut(text)
        unanswered = "" if answer or not completion.cut_off else CUT_OFF
        return ModelAnswer(answer, thoughts, unanswered, completion.cut_off, completion.thought_tokens)

    def reach(self) -> None:
        """Check that the model answers. Raises NapoBenchError if a server or a setting is wrong."""
        return

    def provenance(self) -> dict[str, Any]:
        """The device and type of the computation, for the run."""
        return {}

    def stages(self) -> dict[str, dict[str, Any]]:
        """Stage of `generate` and `ready` -> "seconds", and "tokens" if the stage has tokens."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Notes about other influences on answers than the generation settings, for each benchmark of the run."""
        return {}

    def remarks(self) -> list[str]:
        """Notes for each benchmark of the run about what else its numbers depend on."""
        return []

    def cleans(self, question: str) -> bool:
        """Whether `text` removes control tokens from a question."""
        return False

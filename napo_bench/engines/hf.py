"""The engine `hf`: any image-text-to-text checkpoint of transformers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self

import torch
import transformers

from napo_bench.core import processes
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.thoughts import DEFAULT_MARKS, Marks
from napo_bench.engines import BATCH_SIZE, SEED
from napo_bench.engines.answer import Completion
from napo_bench.engines.checkpoint_engine import CheckpointEngine, ends_of, is_cut_off
from napo_bench.engines.decoding.decoder import can_branch
from napo_bench.engines.decoding.local import LocalModel
from napo_bench.engines.engine import BatchTooLargeError, EngineOptions, Prompt
from napo_bench.engines.finite import NotFiniteError, not_finite, stop_at_logits, stopping_at_layers
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.device import AUTO, require_device, require_dtype
from napo_bench.models.families import family_of
from napo_bench.models.quantization import KINDS, described, require_kind, require_quantization, stored_kind


class HFEngine(CheckpointEngine):
    """Generates answers with a checkpoint, which is loaded for the first batch.

    An image of several batches goes through the vision tower once. Prompts are padded on the left. The seed of a
    sampled answer is made from everything that the answer depends on.

    In float32 an answer does not depend on the batch that it is generated in. In bfloat16 and float16 the last bits of
    the logits depend on the size of the batch, so an answer may differ between batch sizes, or after an interruption.

    Args:
        pretrained: Checkpoint or PEFT adapter: a local folder or a hub name.
        batch_size: Prompts in one forward.
        device: "cpu", "cuda", "cuda:1"; None is the best device. Each of several processes uses its own device. "auto"
            spreads the model over all accelerators, in one process.
        dtype: One of napo_bench.models.device.DTYPES; "auto" is bfloat16 on CUDA, else float32.
        trust_remote_code: Whether to run code of the checkpoint.
        thinking_marks: Marks around thoughts, which are no part of an answer.
        conversation: Conversation of LLaVA-1.5, see `Conversation.of`; None is that of the checkpoint.
        chat_template_kwargs: Values of variables of the checkpoint's own chat template.
        quantization: Name of the quantization of the weights, see napo_bench.models.quantization; None is none.

    Raises:
        NapoBenchError: the device or dtype does not exist, the checkpoint cannot be loaded or quantized here, or it has
            no such conversation or variable.
    """

    name = "hf"
    draws_together = True
    takes = frozenset(
        {
            *("batch_size", "device", "dtype", "trust_remote_code", "thinking_marks"),
            *("conversation", "chat_template_kwargs", "quantization"),
        }
    )

    def __init__(
        self,
        pretrained: str,
        batch_size: int = BATCH_SIZE,
        device: str | None = None,
        dtype: str = "auto",
        trust_remote_code: bool = False,
        thinking_marks: Marks = DEFAULT_MARKS,
        conversation: str | None = None,
        chat_template_kwargs: Mapping[str, Any] = MappingProxyType({}),
        quantization: str | None = None,
    ) -> None:
        require_dtype(dtype)
        require_device(device)
        require_kind(quantization)
        transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        joined = processes.join(cpu=device == "cpu")
        if device == AUTO and not processes.is_alone():
            raise NapoBenchError(
                f"The device is 'auto', and {processes.count()} processes run: each would spread its own model.",
                "Leave out torchrun (one process, one model over all GPUs), or leave out --device auto.",
            )
        self.device = torch.device(device) if processes.is_alone() and device not in (None, AUTO) else joined
        self._place = AUTO if device == AUTO else self.device
        if quantization is not None:
            require_quantization(quantization, self.device.type)
        self.batch_size = batch_size
        self.dtype = _dtype(dtype, self.device)
        with processes.first_process_first():
            self._checkpoint = Checkpoint.open(
                str(pretrained), trust_remote_code=trust_remote_code, quantization=quantization
            )
        config, processor = self._checkpoint.open_parts()
        self._quantization = quantization or stored_kind(config)
        if quantization is None and self._quantization in KINDS:
            require_quantization(self._quantization, self.device.type, "The quantization of the stored weights")
        shares = can_branch(config)
        super().__init__(
            self._checkpoint, config, processor, conversation, chat_template_kwargs, thinking_marks, shares
        )
        self.shares_images = shares
        self.answers_alone = family_of(config).alone is not None
        self._inputs: dict[tuple[str, ...], Any] = {}

    @classmethod
    def open(cls, checkpoint: str, options: EngineOptions) -> Self:
        """See Engine."""
        return cls(
            checkpoint,
            options.batch_size,
            options.device,
            options.dtype,
            options.trust_remote_code,
            thinking_marks=options.thinking_marks,
            conversation=options.conversation,
            chat_template_kwargs=options.chat_template_kwargs,
            quantization=options.quantization,
        )

    @cached_property
    def model(self) -> Any:
        """The checkpoint's model, loaded for the first answer that is not in the journal."""
        transformers.set_seed(SEED)
        model = self._checkpoint.load_model(self._place, self.dtype)
        stop_at_logits(model)
        return model

    @cached_property
    def _local(self) -> LocalModel:
        return LocalModel(self.model, self._encoder, self.device, self.dtype, self.clock)

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """See Engine. Raises NapoBenchError also if the logits are not finite."""
        try:
            return self._completed(prompts)
        except torch.OutOfMemoryError:
            is_too_large = True
        except NotFiniteError:
            is_too_large = False
        if is_too_large:
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            raise BatchTooLargeError.of(len(prompts), str(self.device))
        # The same batch again with a check of each layer, and without stored features, so that the vision tower is
        # checked too.
        layer = ""
        self._local.vision.keep(())
        try:
            with stopping_at_layers(self.model):
                self._completed(prompts)
        except NotFiniteError as error:
            layer = str(error)
        raise not_finite(str(self.dtype).removeprefix("torch."), layer)

    def identity(self, prompt: Prompt) -> dict[str, Any]:
        """See Engine."""
        return {
            **super().identity(prompt),
            "dtype": str(self.dtype),
            "transformers": transformers.__version__,
            **({"quantization": self._quantization} if self._quantization else {}),
        }

    def keep(self, digests: Iterable[str]) -> None:
        """See Engine: image features."""
        if "_local" in vars(self):
            self._local.vision.keep(digests)

    def ready(self, prompts: Sequence[Prompt]) -> None:
        """See Engine: tokens and pixels."""
        with self.clock("reading"):
            encoded = self._encoder.encode(prompts)
        while len(self._inputs) > 1:  # left over from a batch that was asked in halves
            self._inputs.pop(next(iter(self._inputs)), None)
        self._inputs[tuple(prompt.key for prompt in prompts)] = encoded

    def provenance(self) -> dict[str, Any]:
        """See Engine."""
        quantized = {"quantization": described(self._quantization)} if self._quantization else {}
        spread = {"devices": torch.accelerator.device_count()} if self._place == AUTO else {}
        return {"dtype": str(self.dtype).removeprefix("torch."), "device": self.device.type, **spread, **quantized}

    def _completed(self, prompts: Sequence[Prompt]) -> list[Completion]:
        found = self._local.answered(prompts, self._inputs.pop(tuple(prompt.key for prompt in prompts), None))
        with self._encoder.tokenizing:
            generation, ends = prompts[0].generation, ends_of(self.model.generation_config)
            return [self.completion(tokens, generation, is_cut_off(tokens, generation, ends)) for tokens in found]


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    dtype: torch.dtype = getattr(torch, name)
    return dtype

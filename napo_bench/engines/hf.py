"""The engine `hf`: any image-text-to-text checkpoint of transformers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self

import torch
import transformers

from napo_bench.core import processes
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.thoughts import DEFAULT_MARKS, Marks, split_thoughts
from napo_bench.engines import BATCH_SIZE, SEED
from napo_bench.engines.answer import Completion, ModelAnswer
from napo_bench.engines.clock import Clock
from napo_bench.engines.conversing import ConversationWriter
from napo_bench.engines.decoding.branches import Encoder
from napo_bench.engines.decoding.decoder import can_branch
from napo_bench.engines.decoding.local import LocalModel
from napo_bench.engines.engine import BatchTooLargeError, Engine, EngineOptions, Prompt
from napo_bench.engines.finite import NotFiniteError, not_finite, stop_at_logits, stopping_at_layers
from napo_bench.engines.request import Generation
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.conversation import Conversation
from napo_bench.models.device import AUTO, require_device, require_dtype
from napo_bench.models.families import family_of
from napo_bench.models.quantization import KINDS, described, require_kind, require_quantization, stored_kind


class HFEngine(ConversationWriter, Engine):
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
        config, self.processor = self._checkpoint.open_parts()
        self._quantization = quantization or stored_kind(config)
        if quantization is None and self._quantization in KINDS:
            require_quantization(self._quantization, self.device.type, "The quantization of the stored weights")
        super().__init__(Conversation.of(self.processor, config, conversation, variables=chat_template_kwargs))
        self.asked_in = self.conversation.choice
        self.control = self._checkpoint.control
        self.fingerprint = str(processes.from_first(self._checkpoint.fingerprint))
        self.thinking_marks = thinking_marks
        self._special_marks = _special_marks(self.processor.tokenizer, thinking_marks)
        self._encoder = Encoder(self.conversation, shares=can_branch(config))
        self.shares_images = self._encoder.shares
        self.answers_alone = family_of(config).alone is not None
        self._inputs: dict[tuple[str, ...], Any] = {}
        self.clock = Clock()

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

    @classmethod
    def writer(cls, checkpoint: str, options: EngineOptions) -> ConversationWriter:
        """See Engine: of the checkpoint's configuration, processor and tokenizer alone."""
        opened = Checkpoint.open(checkpoint, trust_remote_code=options.trust_remote_code, weights=False)
        return ConversationWriter(_conversation(*opened.open_texts(), options))

    @classmethod
    def known_by(cls, checkpoint: str, options: EngineOptions) -> tuple[str, str | None]:
        """See Engine."""
        opened = Checkpoint.open(checkpoint, trust_remote_code=options.trust_remote_code)
        return opened.fingerprint(), _conversation(*opened.open_parts(), options).choice

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
            "checkpoint": self.fingerprint,
            "prompt": prompt.text,
            "image": prompt.digest,
            "generation": prompt.generation.identity(),
            "dtype": str(self.dtype),
            "transformers": transformers.__version__,
            **({"conversation": self.asked_in} if self.asked_in else {}),
            **({"quantization": self._quantization} if self._quantization else {}),
            **({"special_marks": sorted(self._special_marks.values())} if self._special_marks else {}),
        }

    def length(self, prompt: Prompt) -> int:
        """See Engine."""
        return self._encoder.length(prompt.text)

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

    def read(self, prompt: Prompt, completion: Completion) -> ModelAnswer:
        """See Engine. Chat templates of some reasoning models end the prompt with the opening mark of thoughts."""
        end = prompt.text.rstrip()
        opened = next((opening for opening, _ in self.thinking_marks if end.endswith(opening)), "")
        answer = super().read(prompt, Completion.of(opened + completion.text))
        answer.cut_off = completion.cut_off  # no reason to leave out an empty answer, as it is for an endpoint
        if answer.thoughts:
            with self._encoder.tokenizing:
                written = self.processor.tokenizer(answer.thoughts.removeprefix(opened), add_special_tokens=False)
            answer.thought_tokens = len(written["input_ids"])
        return answer

    def provenance(self) -> dict[str, Any]:
        """See Engine."""
        quantized = {"quantization": described(self._quantization)} if self._quantization else {}
        spread = {"devices": torch.accelerator.device_count()} if self._place == AUTO else {}
        return {"dtype": str(self.dtype).removeprefix("torch."), "device": self.device.type, **spread, **quantized}

    def settings(self) -> dict[str, Any]:
        """See Engine: what the user changed of the prompt."""
        variables = dict(self.conversation.variables)
        return {"chat_template_kwargs": variables} if variables else {}

    def stages(self) -> dict[str, dict[str, Any]]:
        """See Engine."""
        return self.clock.stages()

    def cleans(self, question: str) -> bool:
        """See Engine."""
        return self.conversation.markup.has_controls(question)

    def _completed(self, prompts: Sequence[Prompt]) -> list[Completion]:
        found = self._local.answered(prompts, self._inputs.pop(tuple(prompt.key for prompt in prompts), None))
        with self._encoder.tokenizing:
            return [self._completion(tokens, prompts[0].generation) for tokens in found]

    def _completion(self, tokens: list[int], generation: Generation) -> Completion:
        """Tokens as text, without special tokens except marks of thoughts, and cut at `until`."""
        text = ""
        for mark, run in itertools.groupby(tokens, key=self._special_marks.get):
            ids = list(run)
            text += mark * len(ids) if mark else self.processor.tokenizer.decode(ids, skip_special_tokens=True)
        thoughts, answer = split_thoughts(text, self.thinking_marks)
        ends = self.model.generation_config.eos_token_id
        ended = not {*(ends if isinstance(ends, list) else [ends])}.isdisjoint(tokens)
        cut_off = len(tokens) >= generation.max_new_tokens and not ended
        if answer is None:
            return Completion.of(thoughts.strip(), cut_off)
        kept = generation.cut(answer)
        return Completion.of(thoughts + kept, cut_off and kept == answer)


def _conversation(config: Any, processor: Any, options: EngineOptions) -> Conversation:
    variables = options.chat_template_kwargs
    return Conversation.of(processor, config, options.conversation, variables=variables)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _special_marks(tokenizer: Any, marks: Marks) -> dict[int, str]:
    """Token id -> mark, for marks that are special tokens of the tokenizer and would be left out of an answer."""
    special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    special |= {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {special[mark]: mark for pair in marks for mark in pair if mark in special}

"""What the engines of checkpoints on this machine have in common: prompts, identity, and tokens as an answer."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from napo_bench.core import processes
from napo_bench.core.thoughts import Marks, split_thoughts
from napo_bench.engines.answer import Completion, ModelAnswer
from napo_bench.engines.clock import Clock
from napo_bench.engines.conversing import ConversationWriter
from napo_bench.engines.decoding.branches import Encoder
from napo_bench.engines.engine import Engine, EngineOptions, Prompt
from napo_bench.engines.request import Generation
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.conversation import Conversation
from napo_bench.models.folders import folder_of, may_be_on_hub


class CheckpointEngine(ConversationWriter, Engine):
    """An engine that asks a checkpoint in its conversation, and reads tokens as an answer.

    Args:
        checkpoint: The checkpoint.
        config: Configuration of `checkpoint.open_parts`.
        processor: Processor of `checkpoint.open_parts`.
        conversation: Conversation of LLaVA-1.5, see `Conversation.of`; None is that of the checkpoint.
        chat_template_kwargs: Values of variables of the checkpoint's own chat template.
        thinking_marks: Marks around thoughts, which are no part of an answer.
        shares: Whether prompts about one image share their beginning, see Encoder.

    Raises:
        NapoBenchError: the checkpoint has no such conversation or variable.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: Any,
        processor: Any,
        conversation: str | None,
        chat_template_kwargs: Mapping[str, Any],
        thinking_marks: Marks,
        shares: bool,
    ) -> None:
        super().__init__(Conversation.of(processor, config, conversation, variables=chat_template_kwargs))
        self.processor = processor
        self.asked_in = self.conversation.choice
        self.control = checkpoint.control
        self.fingerprint = str(processes.from_first(checkpoint.fingerprint))
        self.thinking_marks = thinking_marks
        self.clock = Clock()
        self._special_marks = _special_marks(processor.tokenizer, thinking_marks)
        self._encoder = Encoder(self.conversation, shares)

    @classmethod
    def require(cls, checkpoint: str) -> None:
        """See Engine. A name such as "org/name" may be on the hub, which is not asked before data is read."""
        if Path(checkpoint).exists() or "/" not in checkpoint or not may_be_on_hub(checkpoint):
            folder_of(checkpoint, weights=False)

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

    def identity(self, prompt: Prompt) -> dict[str, Any]:
        """See Engine: what does not depend on the library that computes."""
        return {
            "checkpoint": self.fingerprint,
            "prompt": prompt.text,
            "image": prompt.digest,
            "generation": prompt.generation.identity(),
            **({"conversation": self.asked_in} if self.asked_in else {}),
            **({"special_marks": sorted(self._special_marks.values())} if self._special_marks else {}),
        }

    def length(self, prompt: Prompt) -> int:
        """See Engine."""
        return len(self._encoder.ids(prompt.text))

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

    def completion(self, tokens: Sequence[int], generation: Generation, is_cut_off: bool) -> Completion:
        """Tokens as text, without special tokens except marks of thoughts, and cut at `until`.

        Args:
            tokens: The tokens of an answer, with the token that ends the answer if there is one.
            generation: Settings of the generation.
            is_cut_off: Whether the tokens end at the token limit.
        """
        text = ""
        for mark, run in itertools.groupby(tokens, key=self._special_marks.get):
            ids = list(run)
            text += mark * len(ids) if mark else self.processor.tokenizer.decode(ids, skip_special_tokens=True)
        thoughts, answer = split_thoughts(text, self.thinking_marks)
        if answer is None:
            return Completion.of(thoughts.strip(), is_cut_off)
        kept = generation.cut(answer)
        return Completion.of(thoughts + kept, is_cut_off and kept == answer)


def ends_of(generation_config: Any) -> list[int]:
    """The tokens that end an answer, of the generation settings of a model."""
    ends = generation_config.eos_token_id
    return list(ends) if isinstance(ends, list) else [] if ends is None else [ends]


def is_cut_off(tokens: Sequence[int], generation: Generation, ends: Collection[int]) -> bool:
    """Whether an answer ends at the token limit, and not with one of the tokens that end an answer."""
    return len(tokens) >= generation.max_new_tokens and set(ends).isdisjoint(tokens)


def _conversation(config: Any, processor: Any, options: EngineOptions) -> Conversation:
    variables = options.chat_template_kwargs
    return Conversation.of(processor, config, options.conversation, variables=variables)


def _special_marks(tokenizer: Any, marks: Marks) -> dict[int, str]:
    """Token id -> mark, for marks that are special tokens of the tokenizer and would be left out of an answer."""
    special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    special |= {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {special[mark]: mark for pair in marks for mark in pair if mark in special}

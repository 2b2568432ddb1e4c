"""`napo_hf`: any image-text-to-text checkpoint of transformers, as an lmms-eval model."""

from __future__ import annotations

import hashlib
import inspect
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from PIL import Image
from transformers.modeling_outputs import BaseModelOutputWithPooling

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal, journal_key
from napo_bench.core.paths import cache_dir
from napo_bench.core.progress import Progress, or_bars
from napo_bench.core.thoughts import DEFAULT_MARKS, Marks, split_thoughts
from napo_bench.engines import BATCH_SIZE
from napo_bench.engines.answer import ModelAnswer
from napo_bench.engines.finite import NotFiniteError, not_finite, stop_at_logits, stopping_at_layers
from napo_bench.engines.request import Asked, Generation, read_request
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.conversation import Conversation
from napo_bench.models.device import require_device, require_dtype

_BATCHES_A_WINDOW = 8
_TEXT_INPUTS = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}


@dataclass(frozen=True)
class _Item:
    """One answer to generate; `key` stands for everything that it depends on."""

    key: str
    prompt: str
    image: Image.Image | None
    digest: str
    generation: Generation


class NapoHF(lmms):  # type: ignore[misc]
    """Generates answers in batches, each journalled when it is done.

    Requests are taken in windows of a few batches: within a window they are sorted by length, equal ones are generated
    once, and a picture that several of them show goes through the vision tower once. Prompts are padded on the left,
    and sampled answers are drawn one at a time, seeded by what they depend on.

    In float32 an answer does not depend on the batch that it is generated in. In bfloat16 and float16 the last bits of
    the logits depend on the size of the batch, so an answer may differ between batch sizes, or after an interruption.

    Args:
        pretrained: A checkpoint, local folder or hub name, or a PEFT adapter.
        batch_size: Prompts in one forward.
        device: "cpu", "cuda", "cuda:1"; None is the best that is there. Of several processes each takes its own.
        dtype: One of napo_bench.models.device.DTYPES; "auto" is bfloat16 on CUDA, else float32.
        trust_remote_code: Run code that the checkpoint brings.
        journal: Where answers are kept, thoughts included; None is the user's cache folder.
        thinking_marks: Marks around thoughts, which are no part of an answer.

    Attributes:
        progress: Is told how far it is; None draws a bar.

    Raises:
        NapoBenchError: the device or dtype is not there, or the checkpoint cannot be loaded.
    """

    is_simple = True
    progress: Progress | None = None

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = BATCH_SIZE,
        device: str | None = None,
        dtype: str = "auto",
        trust_remote_code: bool = False,
        journal: str | Path | None = None,
        thinking_marks: Marks = DEFAULT_MARKS,
    ) -> None:
        super().__init__()
        require_dtype(dtype)
        require_device(device)
        transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        # Without this, processes that find no GPU take themselves to be alone.
        self.accelerator = Accelerator(cpu=device == "cpu" or not torch.accelerator.is_available())
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        alone = self._world_size == 1
        self.device = torch.device(device) if alone and device is not None else self.accelerator.device
        self.batch_size = _batch_size(batch_size)
        self.dtype = _dtype(dtype, self.device)
        with self.accelerator.main_process_first():
            checkpoint = Checkpoint.open(str(pretrained), trust_remote_code=trust_remote_code)
        config, self.processor = checkpoint.open_parts()
        self.conversation = Conversation.of(self.processor, config)
        fingerprint = [checkpoint.fingerprint() if self._rank == 0 else ""]
        self.fingerprint: str = broadcast_object_list(fingerprint)[0]
        self._checkpoint = checkpoint
        self._prepared: dict[int, tuple[Image.Image, Image.Image, str]] = {}
        self._marks = thinking_marks
        self._special_marks = _special_marks(self.processor.tokenizer, thinking_marks)
        self._journal = Journal(Path(journal) if journal else cache_dir() / "responses.sqlite")

    @cached_property
    def model(self) -> Any:
        """The checkpoint's model, loaded for the first answer that is not in the journal."""
        model = self._checkpoint.load_model(self.device, self.dtype)
        stop_at_logits(model)
        return model

    @cached_property
    def _takes_features(self) -> bool:
        return "mm_encoder_outputs" in inspect.signature(self.model.forward).parameters

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The answer to each request, in their order."""
        return self.answer((read_request(request, self.task_dict) for request in requests), len(requests))

    def answer(self, questions: Iterable[Asked], count: int, title: str = "Answering") -> list[str]:
        """The answer to each question, in their order.

        Args:
            questions: Drawn a window at a time, so that only a window's pictures are in memory.
            count: How many there are.
            title: Of the progress bar.
        """
        answers: list[str] = []
        remaining, window, done = iter(questions), _BATCHES_A_WINDOW * self.batch_size, 0
        with or_bars(self.progress) as tell:

            def advance(more: int) -> None:
                nonlocal done
                done += more
                tell(title, done, count)

            while items := [self._item(asked) for asked in itertools.islice(remaining, window)]:
                answers += self._answer(items, advance)
                self._prepared.clear()
        return answers

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not offered."""
        raise NapoBenchError("napo_hf answers single questions; this task asks in several rounds.")

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not offered."""
        raise NapoBenchError("napo_hf generates answers; this task asks for log-likelihoods.")

    def _item(self, asked: Asked) -> _Item:
        prompt = self.conversation.prompt(asked.question, has_image=asked.image is not None)
        image, digest = (None, "") if asked.image is None else self._prepare(asked.image)
        key = journal_key(
            checkpoint=self.fingerprint,
            prompt=prompt,
            image=digest,
            generation=asked.generation.identity(),
            dtype=str(self.dtype),
            transformers=transformers.__version__,
            **({"special_marks": sorted(self._special_marks.values())} if self._special_marks else {}),
        )
        return _Item(key, prompt, image, digest, asked.generation)

    def _prepare(self, image: Image.Image) -> tuple[Image.Image, str]:
        """A picture as the model sees it, and its digest; once for each picture of a window."""
        if id(image) not in self._prepared:
            seen = self.conversation.prepare_image(image)
            digest = hashlib.sha256(repr(seen.size).encode() + seen.tobytes()).hexdigest()
            self._prepared[id(image)] = image, seen, digest  # with the picture itself, so that its id stays its own
        return self._prepared[id(image)][1:]

    def _answer(self, items: list[_Item], done: Callable[[int], None]) -> list[str]:
        stored = self._journal.get(item.key for item in items)
        answers = {key: text for key, text in stored.items() if isinstance(text, str)}
        open_items = {item.key: item for item in items if item.key not in answers}.values()
        done(len(items) - len(open_items))
        uses = Counter(item.digest for item in open_items)
        features: dict[str, torch.Tensor] = {}
        for batch in self._batches(open_items):
            texts = self._generate(batch, features)
            new = {item.key: text for item, text in zip(batch, texts, strict=True)}
            self._journal.put(new)
            answers.update(new)
            uses.subtract(item.digest for item in batch)
            features = {digest: feature for digest, feature in features.items() if uses[digest]}
            done(len(batch))
        return [ModelAnswer.of(self._opened(item) + answers[item.key], self._marks) for item in items]

    def _opened(self, item: _Item) -> str:
        """The opening mark with which the prompt ends, as some chat templates of reasoning models let it; else ""."""
        return next((opening for opening, _ in self._marks if item.prompt.rstrip().endswith(opening)), "")

    def _batches(self, items: Iterable[_Item]) -> Iterator[list[_Item]]:
        """Items that can share a forward, the longest first, so that a batch that does not fit fails at once."""

        def kind(item: _Item) -> tuple[str, bool]:
            return repr(item.generation), item.image is None

        def tokens(item: _Item) -> int:
            return len(self.processor.tokenizer(item.prompt)["input_ids"])

        ordered = sorted(items, key=lambda item: (kind(item), -tokens(item)))
        for _, group in itertools.groupby(ordered, key=kind):
            rest = list(group)
            size = 1 if rest[0].generation.do_sample else self.batch_size
            yield from (rest[start : start + size] for start in range(0, len(rest), size))

    def _generate(self, batch: list[_Item], features: dict[str, torch.Tensor]) -> list[str]:
        try:
            return self._decoded(batch, features)
        except NotFiniteError:
            layer = ""
        # The same batch again, each layer watched; without the stored features, so that the vision tower is too.
        try:
            with stopping_at_layers(self.model):
                self._decoded(batch, {})
        except NotFiniteError as error:
            layer = str(error)
        raise not_finite(str(self.dtype).removeprefix("torch."), layer)

    @torch.inference_mode()
    def _decoded(self, batch: list[_Item], features: dict[str, torch.Tensor]) -> list[str]:
        generation = batch[0].generation
        images = [item.image for item in batch if item.image is not None]
        inputs = self.conversation.encode([item.prompt for item in batch], images).to(self.device, self.dtype)
        if generation.do_sample:
            torch.manual_seed(int(batch[0].key[:15], 16))
        try:
            tokens = self.model.generate(
                **self._with_features(inputs, [item.digest for item in batch], features),
                max_new_tokens=generation.max_new_tokens,
                num_beams=generation.num_beams,
                do_sample=generation.do_sample,
                temperature=generation.temperature,
                top_p=generation.top_p,
                top_k=None,
                use_cache=True,
                pad_token_id=self.processor.tokenizer.pad_token_id,
            )
        except torch.OutOfMemoryError:
            raise NapoBenchError(
                f"A batch of {len(batch)} prompts does not fit into the memory of {self.device}.",
                f"--batch-size {max(1, len(batch) // 2)}. Finished answers are kept: the run goes on where it stopped.",
            ) from None
        new = tokens[:, inputs["input_ids"].shape[1] :]
        return [self._text(row, generation) for row in new]

    def _text(self, tokens: torch.Tensor, generation: Generation) -> str:
        """Tokens as text: no special tokens but marks of thoughts, and the answer cut at `until`."""
        text = ""
        for mark, run in itertools.groupby(tokens.tolist(), key=self._special_marks.get):
            ids = list(run)
            text += mark * len(ids) if mark else self.processor.tokenizer.decode(ids, skip_special_tokens=True)
        thoughts, answer = split_thoughts(text, self._marks)
        return thoughts.strip() if answer is None else thoughts + generation.cut(answer)

    def _with_features(self, inputs: Any, digests: list[str], features: dict[str, torch.Tensor]) -> dict[str, Any]:
        """The inputs with image features in place of pixels, where the model takes them so.

        That is where a picture is one row of `pixel_values` and nothing else, as in LLaVA-1.5; otherwise pixels stay.

        Args:
            inputs: Of the batch.
            digests: Of its pictures.
            features: Those of pictures that were encoded already, `[tokens, width]` each; new ones are added.
        """
        values = dict(inputs)
        if not self._takes_features or set(values) - _TEXT_INPUTS != {"pixel_values"}:
            return values
        first = {digest: row for row, digest in enumerate(digests) if digest not in features}
        if len(values["pixel_values"]) != len(digests):
            return values
        if first:
            pixels = values["pixel_values"][list(first.values())]
            found = self.model.base_model.get_image_features(pixel_values=pixels, return_dict=True).pooler_output
            if len(found) != len(first):
                return values
            features.update(zip(first, found, strict=True))
        del values["pixel_values"]
        rows: Any = [features[digest] for digest in digests]
        output = BaseModelOutputWithPooling(pooler_output=rows)
        return values | {"mm_encoder_outputs": {"image": output}}


def _batch_size(value: int | str) -> int:
    if not str(value).isdigit() or int(value) < 1:
        raise NapoBenchError(f"The batch size is {value!r}; a whole number from 1 is expected.")
    return int(value)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _special_marks(tokenizer: Any, marks: Marks) -> dict[int, str]:
    """Token id -> mark, of marks that the tokenizer takes for special tokens and would leave out of an answer."""
    special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    special |= {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {special[mark]: mark for pair in marks for mark in pair if mark in special}

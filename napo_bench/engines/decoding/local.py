"""A loaded model, and the tokens with which it answers a batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from napo_bench.core.errors import NapoBenchError
from napo_bench.engines.clock import Clock
from napo_bench.engines.decoding.branches import Branches, Encoder
from napo_bench.engines.decoding.decoder import Decoder, can_search
from napo_bench.engines.decoding.layout import store_by_inputs
from napo_bench.engines.decoding.vision import Vision
from napo_bench.engines.prompt import Prompt
from napo_bench.models.explained import first_line

_FURTHEST = {torch.float32: 1e-3}
_FURTHEST_IN_HALF = 0.1

logger = logging.getLogger(__name__)


class LocalModel:
    """A model and its vision tower.

    Prompts about one image share what they have in common, and prompts with an answer leave the batch. A model that
    cannot do this answers with `transformers.generate`.

    Args:
        model: An image-text-to-text model of transformers.
        encoder: Encoder of the checkpoint.
        device: Device of the inputs.
        dtype: Number type of the pixels.
        clock: Clock of the stages.
    """

    def __init__(self, model: Any, encoder: Encoder, device: torch.device, dtype: torch.dtype, clock: Clock) -> None:
        store_by_inputs(model)
        self.model = model
        self.vision = Vision(model, clock)
        self._encoder = encoder
        self._clock = clock
        self._place = device, dtype
        self._pad = encoder.pad
        self._decoder = Decoder(model, encoder.pad, clock)
        self._tried: set[tuple[bool, bool]] = set()
        encoder.shares = encoder.shares and can_search(model.generation_config)

    @torch.inference_mode()
    def answered(self, prompts: Sequence[Prompt], encoded: Any) -> list[list[int]]:
        """The tokens of the answers to a batch.

        Args:
            prompts: Prompts of `Engine.generate`.
            encoded: The batch as `Encoder.encode` returned it, or None.

        Raises:
            torch.OutOfMemoryError: the batch does not fit into memory.
            NotFiniteError: the logits are not finite.
            NapoBenchError: transformers refuses the settings of the model's generation_config.json.
        """
        try:
            return self._answered(prompts, encoded)
        except ValueError as error:
            raise NapoBenchError(
                f"The checkpoint's model cannot generate: {first_line(error)}",
                "Compare generation_config.json with that of the base checkpoint.",
            ) from error

    def _answered(self, prompts: Sequence[Prompt], encoded: Any) -> list[list[int]]:
        if self._encoder.shares:
            batch = encoded if isinstance(encoded, Branches) else self._encoder.branches(prompts)
            batch = batch.to(*self._place)
            if self._is_exact(prompts, batch):
                rows = [prompts[number] for number in batch.order]
                images = self.vision.inputs(batch.pixels, batch.digests)
                found = self._decoder.decode(batch, images, rows[0].generation, [prompt.seed for prompt in rows])
                by_number = dict(zip(batch.order, found, strict=True))
                return [by_number[number] for number in range(len(prompts))]
        if len(prompts) > 1 and prompts[0].generation.do_sample:  # the draws of transformers depend on the batch
            return [tokens for prompt in prompts for tokens in self._generated([prompt], None)]
        return self._generated(prompts, None if isinstance(encoded, Branches) else encoded)

    def _generated(self, prompts: Sequence[Prompt], encoded: Any) -> list[list[int]]:
        generation = prompts[0].generation
        inputs = (self._encoder.whole(prompts) if encoded is None else encoded).to(*self._place)
        if generation.do_sample:
            torch.manual_seed(prompts[0].seed)
        with self._clock("prefill and decoding", int(inputs["attention_mask"].sum())):
            tokens = self.model.generate(
                **self.vision.inputs(inputs, [prompt.digest for prompt in prompts]),
                use_cache=True,
                pad_token_id=self._pad,
                **generation.settings(),
            )
        found: list[list[int]] = tokens[:, inputs["input_ids"].shape[1] :].tolist()
        return found

    def _is_exact(self, prompts: Sequence[Prompt], batch: Branches) -> bool:
        """Whether a batch of trunks and branches gives the logits of whole prompts. The first batch of each kind is
        tried. After a failure the model answers with `transformers.generate`.
        """
        kind = bool(batch.branch_ids.shape[1]), bool(batch.pixels)
        if kind not in self._tried:
            self._tried.add(kind)
            shared = batch.trunk_of.bincount().argmax()
            some = [prompts[batch.order[row]] for row in (batch.trunk_of == shared).nonzero()[:2, 0].tolist()]
            few = self._encoder.branches(some).to(*self._place)
            found = self._decoder.first_logits(few, self.vision.inputs(few.pixels, few.digests))[-1]
            self._encoder.shares = _are_close(found, self._logits(some[-1]))
            if not self._encoder.shares:
                kind_of_model = self.model.config.model_type
                logger.warning(
                    "%s: prompts about one image do not share their beginning, which would change "
                    "answers of this model.",
                    kind_of_model,
                )
        return self._encoder.shares

    def _logits(self, prompt: Prompt) -> Tensor:
        """The logits of the first token of an answer, from a plain forward of the whole prompt, `[V]`."""
        inputs = self._encoder.whole([prompt]).to(*self._place)
        logits: Tensor = self.model(**self.vision.inputs(inputs, [prompt.digest]), use_cache=False).logits[0, -1]
        return logits


def _are_close(found: Tensor, expected: Tensor) -> bool:
    """Whether the difference is one of rounding."""
    furthest = _FURTHEST.get(found.dtype, _FURTHEST_IN_HALF)
    return bool((found - expected).float().norm() <= furthest * expected.float().norm())

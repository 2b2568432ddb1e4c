"""Answers from a model of transformers: trunks once, then branches, then one token after another."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from napo_bench.engines.clock import Clock
from napo_bench.engines.decoding.branches import Branches
from napo_bench.engines.decoding.cache import GrowingCache
from napo_bench.engines.decoding.search import Beams, OneByOne, Rules, Search
from napo_bench.engines.decoding.vision import can_divide, divided
from napo_bench.engines.request import Generation
from napo_bench.models.families import family_of
from napo_bench.models.positions import prompt_positions

_ABOUT_THE_BATCH = (
    "encoder_repetition_penalty",
    "encoder_no_repeat_ngram_size",
    "guidance_scale",
    "watermarking_config",
    "stop_strings",
    "num_return_sequences",
    "num_beam_groups",
    "penalty_alpha",
    "prompt_lookup_num_tokens",
    "dola_layers",
    "token_healing",
    "constraints",
    "force_words_ids",
)
"""Settings of a generation that need the whole batch, or another search than the ones here."""


BYTES_AT_A_TIME = 10 * 2**20
"""Bytes of the largest activation of a layer of the text model on a CPU, in float32. Larger ones leave the CPU's cache,
and the C library gives their memory back to the system after each operation: 8 images of 576 tokens took 17% longer.
"""


def can_branch(config: Any) -> bool:
    """Whether the prompts of a model can share what they begin with, by the model's configuration.

    The family's row says so, and each token attends to all tokens before it. A window that slides and linear attention
    keep another state than keys and values.
    """
    text = config.get_text_config()
    layers = set(getattr(text, "layer_types", None) or {"full_attention"})
    slides = not getattr(text, "layer_types", None) and getattr(text, "sliding_window", None)
    return family_of(config).branches and layers == {"full_attention"} and not slides


def can_search(settings: Any) -> bool:
    """Whether the searches here have everything that a model's generation settings ask for."""
    return all(getattr(settings, name, None) in (None, 1, 1.0, 0, False) for name in _ABOUT_THE_BATCH)


class Decoder:
    """Decodes with one model.

    Args:
        model: A model whose prompts can branch.
        pad: Token that pads.
        clock: Clock of the stages.
    """

    def __init__(self, model: Any, pad: int, clock: Clock) -> None:
        self._model = model
        self._pad = pad
        self._clock = clock
        parameters = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"  # the name before 5.24
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._tokens_at_a_time = _tokens_at_a_time(model)

    def decode(
        self, batch: Branches, images: Mapping[str, Any], generation: Generation, seeds: Sequence[int]
    ) -> list[list[int]]:
        """The tokens of the answers, in the order of the batch's rows, each with the token that ends it.

        Args:
            batch: Prompts on the model's device.
            images: Arguments of the model with the images of the trunks.
            generation: Settings of the generation.
            seeds: Seed of each row's draws.
        """
        ids = batch.prompt_ids
        rules = self._rules(ids, generation)
        search = (OneByOne if rules.beams == 1 else Beams)(ids, rules, seeds)
        rows = _Rows(self, batch, rules.beams)
        with self._clock("prefill", batch.tokens):
            logits = rows.prefill(batch, images)
        with self._clock("decoding") as count:
            answers = _searched(search, rows, logits, len(seeds))
            count(sum(map(len, answers)))
        return answers

    def first_logits(self, batch: Branches, images: Mapping[str, Any]) -> Tensor:
        """The logits of the first token of each row's answer, `[R, V]`."""
        return _Rows(self, batch, 1).prefill(batch, images)

    def forward(
        self, ids: Tensor, mask: Tensor | None, positions: Tensor, cache: GrowingCache, **images: Any
    ) -> Tensor:
        """The logits of the last tokens, `[N, V]`. Keys and values of all tokens go into the cache."""
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            return_dict=True,
            **{self._cache_name: cache},
            **self._last,
            **images,
        )
        logits: Tensor = output.logits[:, -1].to(ids.device)  # of a model over several devices
        return logits

    def positions(self, batch: Branches, images: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """See `prompt_positions`."""
        return prompt_positions(self._model, batch.trunk_ids, batch.trunk_mask, images, batch.of_tokens)

    def parts(self, batch: Branches, images: Mapping[str, Any]) -> Iterator[tuple[slice, Mapping[str, Any]]]:
        """The trunks that go through the model together, and their images as arguments of the model."""
        count, length = batch.trunk_ids.shape
        size = max(1, self._tokens_at_a_time // length) if can_divide(images) else count
        for start in range(0, count, size):
            part = slice(start, start + size)
            yield part, images if size >= count else divided(images, part)

    def _rules(self, ids: Tensor, generation: Generation) -> Rules:
        """The rules that `transformers.generate` makes of the settings of the model and of the request."""
        found: list[Rules] = []

        def take(
            model: Any,
            input_ids: Tensor,
            logits_processor: Any,
            stopping_criteria: Any,
            generation_config: Any,
            **_: Any,
        ) -> Tensor:
            ends = generation_config.eos_token_id
            found.append(
                Rules(
                    logits_processor,
                    lambda ids: stopping_criteria(ids, None),
                    0 if ends is None else len(ends) if isinstance(ends, list) else 1,
                    generation_config.num_beams,
                    generation_config.do_sample,
                    generation_config.length_penalty,
                    generation_config.early_stopping,
                    generation.max_new_tokens,
                )
            )
            return input_ids

        self._model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            custom_generate=take,
            pad_token_id=self._pad,
            **generation.settings(),
        )
        return found[0]


def _tokens_at_a_time(model: Any) -> int:
    """Number of tokens that a forward should not exceed by a further prompt."""
    if model.device.type != "cpu":
        return sys.maxsize
    linear = (module for module in model.get_decoder().modules() if isinstance(module, torch.nn.Linear))
    return BYTES_AT_A_TIME // (4 * max((module.out_features for module in linear), default=1))


class _Rows:
    """The rows of a batch that are still without an answer: their cache, mask and positions."""

    def __init__(self, decoder: Decoder, batch: Branches, width: int) -> None:
        self._decoder = decoder
        self._width = width
        self._cache = GrowingCache(len(batch.trunk_ids))
        mask = batch.prompt_mask.repeat_interleave(width, 0)
        self._mask = None if mask.all() else mask
        self._prompt = mask.shape[1]

    def prefill(self, batch: Branches, images: Mapping[str, Any]) -> Tensor:
        """The logits of the last token of each row's prompt."""
        decoder, length = self._decoder, batch.branch_ids.shape[1]
        positions, following = decoder.positions(batch, images)
        parts = []
        for part, of_part in decoder.parts(batch, images):
            mask = None if batch.trunk_mask[part].all() else batch.trunk_mask[part]
            own = positions[..., part, :]
            parts.append(decoder.forward(batch.trunk_ids[part], mask, own, self._cache, **of_part))
        logits = torch.cat(parts)
        following = following[batch.trunk_of]
        if length:
            self._cache.branch(batch.trunk_of, length)
            own = (following[:, None] + batch.branch_mask.cumsum(1) - 1).clamp(min=0)
            mask = None if self._mask is None else batch.prompt_mask
            logits = decoder.forward(batch.branch_ids, mask, _like(positions, own), self._cache)
            following = following + batch.branch_mask.sum(1)
        if self._width > 1:
            every = torch.arange(len(logits), device=logits.device).repeat_interleave(self._width)
            self._cache.branch(every, 1)
            logits, following = logits[every], following[every]
        self._following = _like(positions, following[:, None])
        return logits

    def reorder(self, parents: Tensor) -> None:
        """Let each row go on from another row of the same prompt, `[N]`."""
        if not torch.equal(parents, torch.arange(len(parents), device=parents.device)):
            self._cache.reorder(parents, self._prompt)

    def keep(self, rows: Tensor) -> None:
        """Keep some rows. See GrowingLayer."""
        self._cache.keep(rows)
        self._following = self._following[..., rows, :]
        self._mask = None if self._mask is None else self._mask[rows]

    def follow(self, tokens: Tensor) -> Tensor:
        """The logits after one more token in each row, `[N]` -> `[N, V]`."""
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        logits = self._decoder.forward(tokens[:, None], self._mask, self._following, self._cache)
        self._following = self._following + 1
        return logits


def _searched(search: Search, rows: _Rows, logits: Tensor, count: int) -> list[list[int]]:
    """The answers to `count` prompts. A prompt that has its answer leaves the batch."""
    answers: list[list[int]] = [[] for _ in range(count)]
    width = len(logits) // count
    prompts = torch.arange(count, device=logits.device)
    while True:
        step = search.step(logits)
        tokens = step.tokens
        done = step.done.nonzero()[:, 0]
        for place in done.tolist():
            answers[int(prompts[place])] = search.answer(place)
        if len(done) == len(prompts):
            return answers
        if step.parents is not None:
            rows.reorder(step.parents)
        if len(done):
            kept = _filled(step.done)
            prompts = prompts[kept]
            search.keep(kept)
            every = (kept[:, None] * width + torch.arange(width, device=kept.device)).flatten()
            rows.keep(every)
            tokens = tokens[every]
        logits = rows.follow(tokens)


def _filled(done: Tensor) -> Tensor:
    """The prompts that are not done. Those behind the last place fill the places of prompts that are done."""
    count = int((~done).sum())
    kept = torch.arange(count, device=done.device)
    kept[done[:count]] = (~done[count:]).nonzero()[:, 0] + count
    return kept


def _like(positions: Tensor, own: Tensor) -> Tensor:
    """Positions of text `[B, S]` in the shape of the positions of a prompt, `[..., B, S]`."""
    return own.expand(*positions.shape[:-2], *own.shape)

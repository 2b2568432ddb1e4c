"""The choice of tokens: the likeliest one, a draw, or the beams of `transformers.generate`.

Each prompt of a batch is searched on its own. So its answer does not depend on the other prompts, and a prompt whose
answer is finished can leave the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_NEVER = -1e9  # the score of a beam that must not be chosen, as in transformers


@dataclass(frozen=True)
class Rules:
    """What transformers makes of a model's and a request's generation settings.

    Attributes:
        processors: Function of token ids `[N, L]` and scores `[N, V]` that returns the scores after temperature,
            penalties and forbidden tokens.
        stops: Function of token ids `[N, L]` that says which of the sequences are at their end, `[N]`.
        ends: Number of tokens that end an answer.
        beams: Number of beams; 1 is a search without beams.
        draws: Whether tokens are drawn.
        length_penalty: Exponent of the length that a beam's log-probability is divided by.
        early_stopping: Whether a search ends as soon as there are as many finished beams as beams. "never" waits until
            no running beam can become better.
        max_new_tokens: Maximum number of tokens in an answer.
    """

    processors: Any
    stops: Any
    ends: int
    beams: int
    draws: bool
    length_penalty: float
    early_stopping: bool | str
    max_new_tokens: int

    @property
    def candidates(self) -> int:
        """Number of continuations that a step of a beam search looks at."""
        return max(2, 1 + self.ends) * self.beams


@dataclass(frozen=True)
class Step:
    """The tokens that follow.

    Attributes:
        tokens: The next token of each row, `[P * W]`.
        parents: The row that each row goes on from, `[P * W]`; None if each row goes on from itself.
        done: The prompts that have their answer, `[P]`.
    """

    tokens: Tensor
    parents: Tensor | None
    done: Tensor


class Search(ABC):
    """The search for the answers to P prompts, with W rows a prompt.

    Args:
        ids: Tokens of the prompts, padded on the left, `[P, L]`.
        rules: Rules of the generation.
        seeds: Seed of each prompt's draws.
    """

    def __init__(self, ids: Tensor, rules: Rules, seeds: Sequence[int]) -> None:
        self.rules = rules
        self._length = ids.shape[1]
        self._dice = [torch.Generator(ids.device).manual_seed(seed) for seed in seeds] if rules.draws else []

    @abstractmethod
    def step(self, logits: Tensor) -> Step:
        """Choose the tokens that follow, given the logits of the last tokens, `[P * W, V]`."""

    @abstractmethod
    def answer(self, place: int) -> list[int]:
        """The tokens of the answer of a prompt that is done."""

    def keep(self, prompts: Tensor) -> None:
        """Keep some prompts. `prompts` are their places of before."""
        if self._dice:
            self._dice = [self._dice[place] for place in prompts.tolist()]

    def _drawn(self, scores: Tensor, count: int) -> Tensor:
        """Draws without replacement for each prompt from its own dice, `[P, count]`."""
        shares = scores.softmax(-1)
        draws = [torch.multinomial(row, count, generator=dice) for row, dice in zip(shares, self._dice, strict=True)]
        return torch.stack(draws)


class OneByOne(Search):
    """The likeliest token, or a draw."""

    def __init__(self, ids: Tensor, rules: Rules, seeds: Sequence[int]) -> None:
        super().__init__(ids, rules, seeds)
        self._ids = ids

    def step(self, logits: Tensor) -> Step:
        """See Search."""
        scores = self.rules.processors(self._ids, logits.float())
        tokens = self._drawn(scores, 1)[:, 0] if self.rules.draws else scores.argmax(-1)
        self._ids = torch.cat([self._ids, tokens[:, None]], dim=1)
        return Step(tokens, None, self.rules.stops(self._ids))

    def answer(self, place: int) -> list[int]:
        """See Search."""
        found: list[int] = self._ids[place, self._length :].tolist()
        return found

    def keep(self, prompts: Tensor) -> None:
        """See Search."""
        super().keep(prompts)
        self._ids = self._ids[prompts]


class Beams(Search):
    """Beam search, with or without draws, whose result is that of transformers for the prompt alone.

    W beams run. At each step the best continuations of all beams are the candidates. A candidate at its end is finished
    if it is among the best W. A search ends when no running beam can become better than the worst of W finished ones.
    """

    def __init__(self, ids: Tensor, rules: Rules, seeds: Sequence[int]) -> None:
        super().__init__(ids, rules, seeds)
        prompts, width = len(ids), rules.beams
        self._ids = ids[:, None].repeat(1, width, 1)
        # All beams of the first step are equal, so only the first of them has continuations.
        self._running = ids.new_full((prompts, width), _NEVER, dtype=torch.float32)
        self._running[:, 0] = 0.0
        self._finished = ids.new_full((prompts, width), _NEVER, dtype=torch.float32)
        self._is_finished = ids.new_zeros((prompts, width), dtype=torch.bool)
        self._best = ids
        self._best_end = ids.new_full((prompts,), ids.shape[1])

    def step(self, logits: Tensor) -> Step:
        """See Search."""
        return self.follow(self.rules.processors(self._ids.flatten(0, 1), logits.float().log_softmax(-1)))

    def follow(self, scores: Tensor) -> Step:
        """Choose the tokens that follow, given the log-probability of each next token, `[P * W, V]`."""
        prompts, width, length = self._ids.shape
        vocabulary = scores.shape[1]
        scores = (scores.view(prompts, width, vocabulary) + self._running[:, :, None]).flatten(1)
        count = self.rules.candidates
        if self.rules.draws:
            chosen = self._drawn(scores, count)
            of_candidates, order = scores.gather(1, chosen).sort(1, descending=True)
            chosen = chosen.gather(1, order)
        else:
            of_candidates, chosen = scores.topk(count, dim=1)
        parents, tokens = chosen // vocabulary, chosen % vocabulary
        candidates = torch.cat([_along(self._ids, parents), tokens[:, :, None]], dim=2)
        at_end = self.rules.stops(candidates.flatten(0, 1)).unflatten(0, (prompts, count))
        made = length + 1 - self._length
        self._finish(candidates, of_candidates / made**self.rules.length_penalty, at_end)
        running, best = (of_candidates + at_end * _NEVER).topk(width, dim=1)
        self._ids, self._running = _along(candidates, best), running
        done = at_end.all(1) | ~self._can_improve(made)
        rows = _along(parents, best) + width * torch.arange(prompts, device=parents.device)[:, None]
        return Step(self._ids[:, :, -1].flatten(), rows.flatten(), done)

    def _finish(self, candidates: Tensor, scores: Tensor, at_end: Tensor) -> None:
        """Take the candidates that are finished, `[P, C, L]`, among the finished beams."""
        width = self._finished.shape[1]
        finishes = at_end.clone()
        finishes[:, width:] = False
        scores = torch.where(finishes, scores, 2 * _NEVER)
        score, candidate = scores.max(1)
        is_better = score > self._finished[:, 0]
        length = candidates.shape[2]
        longer = torch.cat([self._best, self._best.new_zeros(len(self._best), length - self._best.shape[1])], dim=1)
        self._best = torch.where(is_better[:, None], _along(candidates, candidate[:, None])[:, 0], longer)
        self._best_end = torch.where(is_better, length, self._best_end)
        self._finished, order = torch.cat([self._finished, scores], dim=1).topk(width, dim=1)
        self._is_finished = torch.cat([self._is_finished, finishes], dim=1).gather(1, order)

    def _can_improve(self, made: int) -> Tensor:
        """Whether a running beam may become better than a finished one, `[P]`."""
        rules, full = self.rules, self._is_finished.all(1)
        if rules.early_stopping is True:
            return ~full
        is_patient = rules.early_stopping == "never" and rules.length_penalty > 0
        hypothetical = rules.max_new_tokens if is_patient else made
        hopes: Tensor = self._running[:, 0] / hypothetical**rules.length_penalty
        return ~full | (hopes > self._finished.amin(1))

    def answer(self, place: int) -> list[int]:
        """See Search."""
        found: list[int] = self._best[place, self._length : int(self._best_end[place])].tolist()
        return found

    def keep(self, prompts: Tensor) -> None:
        """See Search."""
        super().keep(prompts)
        for name in ("_ids", "_running", "_finished", "_is_finished", "_best", "_best_end"):
            setattr(self, name, getattr(self, name)[prompts])


def _along(values: Tensor, index: Tensor) -> Tensor:
    """`values[p, index[p, i]]`: `[P, N, ...]` and `[P, M]` -> `[P, M, ...]`."""
    found: Tensor = values[torch.arange(len(values), device=values.device)[:, None], index]
    return found

"""Beam search in vLLM: the beams of `transformers.generate`, one request a beam and token.

vLLM's own beam search divides by the length of prompt and answer, and waits for the token limit. Its answers are other
ones than those of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from napo_bench.engines.decoding.search import Beams, Rules

Following = list[dict[int, float]]
"""For each row, the likeliest next tokens with their log-probabilities."""


def searched(rules: Rules, count: int, ask: Callable[[list[tuple[int, list[int]]]], Following]) -> list[list[int]]:
    """The tokens of the answers to `count` prompts, each with the token that ends it.

    Args:
        rules: Rules of the search. Its `stops` gets the tokens of answers alone.
        count: Number of prompts.
        ask: Function of rows that returns the `rules.candidates` likeliest next tokens of each row. A row is the place
            of a prompt, and the tokens of its answer so far.
    """
    search = Beams(torch.empty(count, 0, dtype=torch.long), rules, [0] * count)
    answers: list[list[int]] = [[] for _ in range(count)]
    running = list(range(count))
    rows = [(prompt, list[int]()) for prompt in running for _ in range(rules.beams)]
    while running:
        step = search.follow(_dense(_asked_once(rows, ask)))
        assert step.parents is not None
        pairs = zip(step.parents.tolist(), step.tokens.tolist(), strict=True)
        rows = [(rows[parent][0], [*rows[parent][1], token]) for parent, token in pairs]
        for place in step.done.nonzero()[:, 0].tolist():
            answers[running[place]] = search.answer(place)
        kept = (~step.done).nonzero()[:, 0]
        running = [running[place] for place in kept.tolist()]
        rows = [row for row in rows if row[0] in running]
        search.keep(kept)
    return answers


def _asked_once(
    rows: Sequence[tuple[int, list[int]]], ask: Callable[[list[tuple[int, list[int]]]], Following]
) -> Following:
    """What follows each row. Equal rows, such as those of the first step, are asked once."""
    places: dict[tuple[int, tuple[int, ...]], int] = {}
    of_rows = [places.setdefault((prompt, tuple(tokens)), len(places)) for prompt, tokens in rows]
    found = ask([(prompt, list(tokens)) for prompt, tokens in places])
    return [found[place] for place in of_rows]


def _dense(following: Following) -> torch.Tensor:
    """Log-probabilities `[N, V]`, with minus infinity for the tokens that are not among the likeliest."""
    vocabulary = 1 + max(max(row) for row in following)
    scores = torch.full((len(following), vocabulary), -torch.inf)
    for number, row in enumerate(following):
        scores[number, list(row)] = torch.tensor(list(row.values()))
    return scores

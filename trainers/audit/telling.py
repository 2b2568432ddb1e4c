"""How well a chosen response is told from its negative without the image, by its length, its style or its words.

A classifier sees the difference between the two responses of a pair and says which of them is chosen, as a preference
objective does. A pair whose score is s has the score -s in the other order, so the AUC over all pairs in both orders is
the probability that s_i + s_j > 0.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napo_bench.core.stats import unseen_share

Array = NDArray[np.float64]

FEWEST_PICTURES = 50
"""With pairs about fewer pictures the interval is too wide to say anything."""

_FOLDS = 5
_Z = 1.959964
_ROUNDING = 1e-12

_MARKS = ".,;:!?-–—()[]\"'`*#/&%…\n"
_WORD = re.compile(r"\w+(?:'\w+)?")
# Words of the closed classes: articles, pronouns, prepositions, conjunctions, auxiliaries, negations, degrees.
_FUNCTION_WORDS = _WORD.findall("""
a an the this that these those there here i you he she it we they me him her us them my your his its our their who
whom whose which what where when why how some any each every all both either neither no none not nor another other
such one ones something anything nothing of in on at by for with about against between into through during before
after above below to from up down over under again further off out near beside behind along across around within
without toward and or but if because as until while although though since unless whether than so yet also however
therefore overall additionally furthermore is are was were be been being am has have had having do does did doing can
could may might must shall should will would only just very too more most less least quite rather even still perhaps
likely possibly seems appears appear seem isn't aren't doesn't don't can't
""")


@dataclass(frozen=True)
class Telling:
    """How well chosen responses are told from one kind of negative by one kind of trait.

    Attributes:
        negative: Name of the kind of negative.
        trait: "length", "style" or "text".
        pairs: Number of pairs.
        pictures: Number of pictures that the pairs are about.
        auc: Cross-validated AUC, a fraction; None if the pairs are about fewer than 50 pictures.
        interval: 95% interval of the AUC.
    """

    negative: str
    trait: str
    pairs: int
    pictures: int
    auc: float | None
    interval: tuple[float, float] | None

    @property
    def tells(self) -> bool | None:
        """Whether the trait tells chosen from negative: whether the interval is above 0.5. None if it is unknown."""
        return None if self.interval is None else self.interval[0] > 0.5


def lengths(texts: Sequence[str]) -> Array:
    """Numbers of characters, words and sentences of each text, and their logarithms, as `[N, 6]`."""
    counts = np.array(
        [[len(text), len(_WORD.findall(text)), len(re.findall(r"[.!?](?:\s|$)", text))] for text in texts],
        dtype=np.float64,
    ).reshape(len(texts), 3)
    return np.concatenate([counts, np.log1p(counts)], axis=1)


def styles(texts: Sequence[str]) -> Array:
    """Shares of function words among the words, and of each mark among the marks, as `[N, K]`.

    Shares of the characters would say how long a text is: a text of one sentence has one full stop.
    """
    place = {word: index for index, word in enumerate(_FUNCTION_WORDS)}
    found = np.zeros((len(texts), len(place) + len(_MARKS)))
    for row, text in zip(found, texts, strict=True):
        words = _WORD.findall(text.lower())
        for word in words:
            if word in place:
                row[place[word]] += 1 / len(words)
        marks = np.array([text.count(mark) for mark in _MARKS])
        row[len(place) :] = marks / max(1, marks.sum())
    return found


def tell(
    negative: str, chosen: Sequence[str], others: Sequence[str], pictures: Sequence[int], seed: int = 0
) -> list[Telling]:
    """How well chosen responses are told from their negatives, by each trait.

    The folds are of pictures, so no picture is in training and test. The interval is over pictures.

    Args:
        negative: Name of the kind of negative.
        chosen: Chosen response of each pair.
        others: Negative of each pair.
        pictures: Number of the picture of each pair.
        seed: Seed of the folds.
    """
    number = len(set(pictures))
    found = []
    for trait, differences in _TRAITS.items():
        auc = interval = None
        if number >= FEWEST_PICTURES:
            auc, interval = _cross_validated(differences(chosen, others), np.asarray(pictures), seed)
        found.append(Telling(negative, trait, len(chosen), number, auc, interval))
    return found


Differences = Callable[[NDArray[np.int64]], Callable[[NDArray[np.int64]], Any]]
"""Pairs that are trained on -> pairs -> differences of their features, scaled as the former."""


def _scaled(features: Callable[[Sequence[str]], Array]) -> Callable[[Sequence[str], Sequence[str]], Differences]:
    def of(chosen: Sequence[str], others: Sequence[str]) -> Differences:
        gaps = features(chosen) - features(others)

        def fitted(train: NDArray[np.int64]) -> Callable[[NDArray[np.int64]], Array]:
            size = np.sqrt((gaps[train] ** 2).mean(axis=0))
            return lambda pairs: gaps[pairs] / np.where(size > 0, size, 1.0)

        return fitted

    return of


def _words(chosen: Sequence[str], others: Sequence[str]) -> Differences:
    """Words and pairs of words, weighted by how rare they are."""

    def fitted(train: NDArray[np.int64]) -> Callable[[NDArray[np.int64]], Any]:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", sublinear_tf=True, max_features=200_000)
        try:
            vectorizer.fit([text for side in (chosen, others) for text in (side[pair] for pair in train)])
        except ValueError:  # no text has a word
            return lambda pairs: np.zeros((len(pairs), 1))
        return lambda pairs: (
            vectorizer.transform([chosen[pair] for pair in pairs])
            - vectorizer.transform([others[pair] for pair in pairs])
        )

    return fitted


_TRAITS: dict[str, Callable[[Sequence[str], Sequence[str]], Differences]] = {
    "length": _scaled(lengths),
    "style": _scaled(styles),
    "text": _words,
}


def _cross_validated(
    differences: Differences, pictures: NDArray[np.int64], seed: int
) -> tuple[float, tuple[float, float]]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(seed)
    fold_of = {picture: fold for fold, picture in enumerate(generator.permutation(np.unique(pictures)))}
    folds = np.array([fold_of[picture] % _FOLDS for picture in pictures])
    signs = generator.choice([-1.0, 1.0], len(pictures))
    auc = variance = 0.0
    for fold in range(_FOLDS):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        features = differences(train)
        # A score without an intercept: a pair in the other order has the opposite score.
        model = LogisticRegression(fit_intercept=False, max_iter=300)
        rows = features(train)
        turned = (
            rows.multiply(signs[train][:, None]).tocsr() if hasattr(rows, "multiply") else rows * signs[train, None]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(turned, signs[train] > 0)
        share = len(test) / len(pictures)
        fold_auc, fold_variance = pair_auc(np.asarray(model.decision_function(features(test))), pictures[test])
        auc += share * fold_auc
        variance += share**2 * fold_variance
    if variance <= _ROUNDING and auc in (0.0, 1.0):
        reach = unseen_share(len(fold_of), 0.025)
    else:
        # The folds share training pairs, so their AUCs depend on each other (Nadeau and Bengio 2003).
        reach = _Z * math.sqrt(variance * (1 + _FOLDS / (_FOLDS - 1)))
    return auc, (max(0.0, auc - reach), min(1.0, auc + reach))


def pair_auc(scores: Array, clusters: NDArray[np.int64]) -> tuple[float, float]:
    """The probability that s_i + s_j > 0, with half of the ties, and its variance over clusters.

    The variance is that of a U-statistic: the mean share of partners that a pair beats is summed over each cluster
    (DeLong 1988, for clusters Obuchowski 1997).

    Args:
        scores: Score of each pair; above 0 if the chosen response is found.
        clusters: Cluster of each pair.
    """
    scores = np.where(np.abs(scores) < _ROUNDING, 0.0, scores)
    turned = np.sort(-scores)
    beaten = (np.searchsorted(turned, scores, "left") + np.searchsorted(turned, scores, "right")) / 2 / len(scores)
    auc = float(beaten.mean())
    _, cluster = np.unique(clusters, return_inverse=True)
    sums = np.bincount(cluster, weights=2 * (beaten - auc) / len(scores))
    number = len(sums)
    return auc, float((sums**2).sum()) * number / max(1, number - 1)

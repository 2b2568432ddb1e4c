"""AMBER: official response rows -> BenchmarkResult."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napo_bench.benchmarks.amber import ANSWER_METRICS, BENCHMARK, DESCRIPTION_METRICS, official
from napo_bench.benchmarks.amber.official import AmberData, Annotation
from napo_bench.benchmarks.amber.score import (
    ATTRIBUTE_TYPES,
    DIMENSIONS,
    READINGS,
    SIMILARITY_THRESHOLD,
    accuracy,
    f1,
    precision,
    recall,
    score_answer,
    score_description,
)
from napo_bench.benchmarks.benchmark import Metric
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import Row, ScoreOptions, empty_doubt, empty_note, match_ids, measure
from napo_bench.benchmarks.text import TextPipeline, open_pipeline
from napo_bench.benchmarks.unanswered import kept_thoughts, reason
from napo_bench.core.errors import NapoBenchError

_EXAMPLE_LENGTH = 40


def score_amber(rows: Sequence[Row], data_dir: Path, options: ScoreOptions) -> BenchmarkResult:
    """Score rows {id, response}; the generative and the discriminative half are each complete on their own.

    Args:
        rows: Responses.
        data_dir: Holds `amber/`.
        options: How to score.

    Raises:
        NapoBenchError: data, responses or the text pipeline's data are missing, malformed or incomplete.
    """
    if options.answers not in READINGS:
        raise NapoBenchError(
            f"There is no reading {options.answers!r} of yes/no answers.", f"Choose one of {', '.join(READINGS)}."
        )
    folder = data_dir / "amber"
    data = official.load_data(folder)
    responses = official.read_responses(rows, options.source)
    ids = [response.id for response in responses]
    match = match_ids(
        ids,
        _expected_ids(data, set(ids)),
        source=options.source,
        allow_partial=options.allow_partial,
        reasons=[reason(row) for row in rows],
    )
    answered = [(data.annotations[ids[index] - 1], responses[index].text) for index in match.indices]
    described = [(annotation, text) for annotation, text in answered if annotation.type == official.GENERATIVE]
    judged = [(annotation, text) for annotation, text in answered if annotation.type != official.GENERATIVE]

    settings: dict[str, Any] = {}
    descriptions: list[Row] = []
    if described:
        words = set(data.associates).union(*data.associates.values())
        text = open_pipeline(options.pipeline, words, options.spacy_model or BENCHMARK.spacy_models["words"])
        settings["text_pipeline"] = text.description
        similar = text.similar(words, SIMILARITY_THRESHOLD)
        descriptions = [_description(annotation, response, data, text, similar) for annotation, response in described]
    if judged:
        settings["answers"] = options.answers
    read = READINGS[options.answers]
    answers = [_answer(annotation, response, read(response)) for annotation, response in judged]
    _add_queries([*descriptions, *answers], folder)
    thoughts = {str(ids[index]): kept_thoughts(rows[index]) for index in match.indices}
    for sample in [*descriptions, *answers]:
        sample |= thoughts[sample["sample_id"]]

    counts = [sample["counts"] for sample in answers]
    groups = {
        group: asked
        for group in (*DIMENSIONS, *ATTRIBUTE_TYPES)
        if (asked := [row for row in counts if f"{group}_questions" in row])
    }
    unasked = {f"{dimension}_f1" for dimension in DIMENSIONS if dimension not in groups}
    return BenchmarkResult(
        metrics={
            **measure([sample["counts"] for sample in descriptions], DESCRIPTION_METRICS),
            **measure(counts, [metric for metric in ANSWER_METRICS if metric.name not in unasked]),
        },
        breakdown={
            f"{'dimension' if group in DIMENSIONS else 'attribute'}/{group}": measure(asked, group_metrics(group))
            for group, asked in groups.items()
        },
        complete=not match.notes,
        notes=[
            *match.notes,
            *empty_note(text for _, text in answered),
            *_reading_notes([text for _, text in judged], options.answers),
        ],
        doubts=[*empty_doubt(text for _, text in described), *empty_doubt(text for _, text in judged)],
        settings=settings,
        unanswered=match.unanswered,
        samples=[*descriptions, *answers],
    )


def group_metrics(group: str) -> list[Metric]:
    """The metrics of one dimension or attribute type."""
    functions = {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}
    return [
        replace(metric, function=functions[metric.name](group), count=f"{group}_questions")
        for metric in ANSWER_METRICS
        if metric.name in functions
    ]


def _expected_ids(data: AmberData, given: set[int]) -> list[int]:
    """The ids of the halves that `given` touches; all ids where it touches none."""
    halves = [
        [a.id for a in data.annotations if (a.type == official.GENERATIVE) is generative]
        for generative in (True, False)
    ]
    touched = [half for half in halves if not given.isdisjoint(half)]
    return [id for half in touched or halves for id in half]


def _description(
    annotation: Annotation, response: str, data: AmberData, text: TextPipeline, similar: dict[str, frozenset[str]]
) -> Row:
    nouns = text.nouns(response)
    score = score_description(
        [noun.lemma for noun in nouns], annotation.truth, annotation.hallu, data.associates, data.safe_words, similar
    )
    return {
        "sample_id": str(annotation.id),
        "unit": "response",
        "response": response,
        "counts": score.counts,
        "hallucinated": [nouns[index].surface for index in score.hallucinated],
        "covered": [nouns[index].surface for index in score.covered],
        "truth": list(annotation.truth),
        "covered_truth": [annotation.truth[word] for word in sorted(set(score.covered.values()))],
        "hit_hallu": [annotation.hallu[word] for word in sorted({w for words in score.hit.values() for w in words})],
    }


def _reading_notes(texts: Sequence[str], reading: str) -> list[str]:
    """What the reading makes of answers that are not exactly "Yes" or "No"; nothing if all of them are."""
    read = [READINGS[reading](text) for text in texts]
    changed = sum(before != after for before, after in zip(texts, read, strict=True))
    neither = [text for text in read if text not in ("Yes", "No")]
    notes = [f"{changed} of {len(texts)} yes/no answers are read by their first word"] if changed else []
    if neither:
        example = json.dumps(neither[0], ensure_ascii=False)
        shown = example if len(example) <= _EXAMPLE_LENGTH else example[: _EXAMPLE_LENGTH - 3] + "..."
        readable = sum(READINGS["lenient"](text) != text for text in neither)
        remedy = f"; --answers lenient reads {readable} of them by their first word" if readable else ""
        notes.append(
            f"{len(neither)} of {len(texts)} yes/no answers are neither Yes nor No ({shown}), "
            f"and count as wrong{remedy}"
        )
    return notes


def _answer(annotation: Annotation, response: str, read: str) -> Row:
    expected = annotation.truth[0].capitalize()
    return {
        "sample_id": str(annotation.id),
        "unit": "question",
        "response": response,
        "counts": score_answer(annotation.type, annotation.truth[0], read),
        "type": annotation.type,
        "expected": expected,
        "correct": read == expected,
    }


def _add_queries(samples: Sequence[Row], folder: Path) -> None:
    paths = [folder / name for name in official.QUERY_FILES if (folder / name).exists()]
    queries = {query.id: query for path in paths for query in official.load_queries(path)}
    for sample in samples:
        query = queries.get(int(sample["sample_id"]))
        sample["prompt"] = query.text if query else ""
        sample["image"] = query.image if query else ""

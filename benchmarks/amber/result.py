"""AMBER: official response rows -> BenchmarkResult."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from napo_bench.benchmarks.amber import ANSWER_METRICS, BENCHMARK, DESCRIPTION_METRICS, official
from napo_bench.benchmarks.amber.data import Amber, AmberItem
from napo_bench.benchmarks.amber.official import AmberData, Annotation
from napo_bench.benchmarks.amber.score import (
    ATTRIBUTE_TYPES,
    DIMENSIONS,
    READINGS,
    SIMILARITY_THRESHOLD,
    DescriptionScore,
    accuracy,
    f1,
    precision,
    recall,
    score_answer,
    score_description,
)
from napo_bench.benchmarks.benchmark import Metric
from napo_bench.benchmarks.question import Answer, Answers, Row
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import ScoreOptions, empty_doubt, empty_note, measure
from napo_bench.benchmarks.text import TextPipeline, Word, open_pipeline
from napo_bench.benchmarks.unanswered import kept_fields
from napo_bench.core.errors import NapoBenchError

_EXAMPLE_LENGTH = 40


def score_amber(data: Amber, answers: Answers, options: ScoreOptions) -> BenchmarkResult:
    """Score descriptions and yes/no answers; each half is complete on its own.

    Args:
        data: AMBER's data.
        answers: The answers of one half or of both.
        options: Options of scoring.

    Raises:
        NapoBenchError: the text pipeline's data is missing, or there is no such reading of answers.
    """
    if options.answers not in READINGS:
        raise NapoBenchError(
            f"There is no reading {options.answers!r} of yes/no answers.", f"Choose one of {', '.join(READINGS)}."
        )
    described = [answer for answer in answers if _annotation(answer).type == official.GENERATIVE]
    judged = [answer for answer in answers if _annotation(answer).type != official.GENERATIVE]

    settings: dict[str, Any] = {}
    descriptions: list[Row] = []
    if described:
        words = set(data.truth.associates).union(*data.truth.associates.values())
        text = open_pipeline(options.pipeline, words, options.spacy_model or BENCHMARK.spacy_models["words"])
        settings["text_pipeline"] = text.description
        similar = text.similar(words, SIMILARITY_THRESHOLD)
        descriptions = [_description(answer, data.truth, text, similar) for answer in described]
    if judged:
        settings["answers"] = options.answers
    read_answers = [READINGS[options.answers](answer.text) for answer in judged]
    choices = [_choice(answer, read) for answer, read in zip(judged, read_answers, strict=True)]
    groups = {
        group: asked
        for group in (*DIMENSIONS, *ATTRIBUTE_TYPES)
        if (asked := [sample for sample in choices if f"{group}_questions" in sample["counts"]])
    }
    unasked = {f"{dimension}_f1" for dimension in DIMENSIONS if dimension not in groups}
    return BenchmarkResult(
        metrics={
            **measure(descriptions, DESCRIPTION_METRICS),
            **measure(choices, [metric for metric in ANSWER_METRICS if metric.name not in unasked]),
        },
        breakdown={
            f"{'dimension' if group in DIMENSIONS else 'attribute'}/{group}": measure(asked, group_metrics(group))
            for group, asked in groups.items()
        },
        complete=answers.is_complete,
        notes=[
            *answers.notes,
            *empty_note(answers.texts),
            *_reading_notes([answer.text for answer in judged], options.answers),
        ],
        doubts=[
            *empty_doubt(answer.text for answer in described),
            *(empty_doubt(answer.text for answer in judged) or _reading_doubt(read_answers, data.truth)),
        ],
        settings=settings,
        unanswered=answers.unanswered,
        samples=[*descriptions, *choices],
    )


def group_metrics(group: str) -> list[Metric]:
    """The metrics of one dimension or attribute type."""
    functions = {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}
    return [
        replace(metric, function=functions[metric.name](group), count=f"{group}_questions")
        for metric in ANSWER_METRICS
        if metric.name in functions
    ]


def _annotation(answer: Answer) -> Annotation:
    item: AmberItem = answer.question.item
    return item.annotation


def _asked(answer: Answer) -> Row:
    """What is asked, and the model's thoughts: the last fields of a sample."""
    item: AmberItem = answer.question.item
    return {
        "prompt": item.query.text if item.query else "",
        "image": item.query.image if item.query else "",
        **kept_fields(answer.row),
    }


def _description(answer: Answer, data: AmberData, text: TextPipeline, similar: dict[str, frozenset[str]]) -> Row:
    annotation = _annotation(answer)
    nouns = text.nouns(answer.text)
    score = score_description(
        [noun.lemma for noun in nouns], annotation.truth, annotation.hallu, data.associates, data.safe_words, similar
    )
    return {
        "sample_id": str(annotation.id),
        "unit": "response",
        "response": answer.text,
        "counts": score.counts,
        "hallucinated": [nouns[index].surface for index in score.hallucinated],
        "covered": [nouns[index].surface for index in score.covered],
        "truth": list(annotation.truth),
        "covered_truth": [annotation.truth[word] for word in sorted(set(score.covered.values()))],
        "hit_hallu": [annotation.hallu[word] for word in sorted({w for words in score.hit.values() for w in words})],
        "mentions": _mentions(nouns, score, annotation),
        **_asked(answer),
    }


def _mentions(nouns: Sequence[Word], score: DescriptionScore, annotation: Annotation) -> list[list[Any]]:
    """[index of the word, truth word that it covers or hallucinated noun, whether it is hallucinated] of each mention.
    A mention that is a safe word names nothing.
    """
    found = []
    for index in score.mentions:
        noun, wrong = nouns[index], index in score.hallucinated
        covered = annotation.truth[score.covered[index]] if index in score.covered else ""
        found.append([noun.place, noun.lemma if wrong else covered, wrong])
    return found


def _reading_notes(texts: Sequence[str], reading: str) -> list[str]:
    """A note about answers that are not exactly "Yes" or "No", and how they were read; empty if there are none."""
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


def _reading_doubt(read: Sequence[str], data: AmberData) -> list[str]:
    """One line if more than half of the yes/no answers are neither, else none.

    The usual reason is a file of descriptions with the ids of questions.
    """
    neither = sum(text not in ("Yes", "No") for text in read)
    if 2 * neither <= len(read):
        return []
    ids = [annotation.id for annotation in data.annotations if annotation.type == official.GENERATIVE]
    where = f". Descriptions have the ids {min(ids)} to {max(ids)}" if ids else ""
    return [f"{neither} of {len(read)} yes/no answers are neither Yes nor No: the numbers measure nothing{where}"]


def _choice(answer: Answer, read: str) -> Row:
    annotation = _annotation(answer)
    expected = annotation.truth[0].capitalize()
    return {
        "sample_id": str(annotation.id),
        "unit": "question",
        "response": answer.text,
        "counts": score_answer(annotation.type, annotation.truth[0], read),
        "type": annotation.type,
        "expected": expected,
        "correct": read == expected,
        **_asked(answer),
    }

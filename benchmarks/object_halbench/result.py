"""Object HalBench: official response rows -> BenchmarkResult."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napo_bench.benchmarks.object_halbench import BENCHMARK, METRICS, coco, extractor, official
from napo_bench.benchmarks.object_halbench.score import Synonyms, find_mentions, objects_of_terms, score_answer
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import IdMatch, Row, ScoreOptions, empty_doubt, empty_note, match_ids, measure
from napo_bench.benchmarks.text import TextPipeline, load_spacy, open_pipeline, spacy_model_name
from napo_bench.benchmarks.unanswered import kept_thoughts, reason, unanswered_note
from napo_bench.core.errors import NapoBenchError

Mentions = list[tuple[str, str]]
"""(as the answer says it, COCO class), in the order of the answer."""


@dataclass(frozen=True)
class _Item:
    """One answer that is scored."""

    sample_id: str
    image_id: int
    question: str
    answer: str
    thoughts: dict[str, str]


def score_object_halbench(rows: Sequence[Row], data_dir: Path, options: ScoreOptions) -> BenchmarkResult:
    """Score rows {image_id, question or prompt, text or answer}.

    Args:
        rows: Responses.
        data_dir: Holds `object_halbench/`; its questions.jsonl is needed for the id check only, and with
            `allow_partial` not at all.
        options: How to score; with an extractor, an LLM lists the objects of each answer.

    Raises:
        NapoBenchError: data, responses or the text pipeline's data are missing, malformed or incomplete, or the
            extractor failed.
    """
    folder = data_dir / "object_halbench"
    items, match = _items(rows, folder / "questions.jsonl", options)
    synonyms = official.load_synonyms(folder / "synonyms_refine.txt")
    text = open_pipeline(options.pipeline, synonyms.classes)
    image_objects = _image_objects(folder / "annotations", {item.image_id for item in items}, synonyms, text)
    notes = [*match.notes, *empty_note(item.answer for item in items)]
    unanswered = list(match.unanswered)
    settings: dict[str, Any] = {"text_pipeline": text.description, "chair_definition": "words"}
    if options.extractor is None:
        mentions: dict[str, Mentions] = {item.sample_id: _read_words(item.answer, synonyms, text) for item in items}
    else:
        mentions, extractor_settings, extractor_notes, refused = _extract(items, folder, synonyms, options)
        settings |= extractor_settings
        notes += extractor_notes
        unanswered += refused
    samples = [
        _sample(item, mentions[item.sample_id], image_objects[item.image_id])
        for item in items
        if item.sample_id in mentions
    ]
    return BenchmarkResult(
        metrics=measure([sample["counts"] for sample in samples], METRICS),
        complete=not match.notes and len(samples) == len(items),
        notes=notes,
        doubts=empty_doubt(item.answer for item in items),
        settings=settings,
        unanswered=unanswered,
        samples=samples,
    )


def _items(rows: Sequence[Row], questions_file: Path, options: ScoreOptions) -> tuple[list[_Item], IdMatch]:
    """The answers to score, and what of the benchmark they are.

    An image with one question is known by its id, one with several by id and question.
    """
    answers = official.read_answers(rows, options.source)
    reasons = [reason(row) for row in rows]
    thoughts = [kept_thoughts(row) for row in rows]
    if options.allow_partial and not questions_file.exists():
        seen: dict[int, int] = {}
        ids = []
        for answer in answers:
            number = seen[answer.image_id] = seen.get(answer.image_id, 0) + 1
            ids.append(str(answer.image_id) if number == 1 else f"{answer.image_id}/{number}")
        match = match_ids(ids, ids, source=options.source, allow_partial=True, reasons=reasons)
        match.notes.append(f"ids not checked: {questions_file} does not exist")
        items = [
            _Item(ids[index], answers[index].image_id, answers[index].question, answers[index].text, thoughts[index])
            for index in match.indices
        ]
        return items, match
    asked: dict[int, list[str]] = {}
    for question in official.load_questions(questions_file):
        asked.setdefault(question.image_id, []).append(question.text)
    expected = {
        _key(image_id, question, asked): _Item(
            str(image_id) if number == 1 else f"{image_id}/{number}", image_id, question, "", {}
        )
        for image_id, questions in asked.items()
        for number, question in enumerate(questions, start=1)
    }
    given = [_key(answer.image_id, answer.question, asked) for answer in answers]
    match = match_ids(
        given,
        expected,
        source=options.source,
        allow_partial=options.allow_partial,
        noun="image_id",
        reasons=reasons,
    )
    items = []
    for index in match.indices:
        item = expected[given[index]]
        items.append(replace(item, answer=answers[index].text, thoughts=thoughts[index]))
    return items, match


def _key(image_id: int, question: str, asked: dict[int, list[str]]) -> int | tuple[int, str]:
    return (image_id, question) if len(asked.get(image_id, [])) > 1 else image_id


def _image_objects(folder: Path, image_ids: set[int], synonyms: Synonyms, text: TextPipeline) -> dict[int, set[str]]:
    """The COCO classes of each image: of its instances, and those that its human captions mention."""
    images = coco.load_images(folder, image_ids)
    objects = {}
    for image_id in image_ids:
        if image_id not in images:
            raise NapoBenchError(
                f"The image {image_id} is in none of the annotation files of {folder}.",
                "Give the data dir that these responses belong to.",
            )
        image = images[image_id]
        unknown = image.categories - synonyms.classes.keys()
        if unknown:
            raise NapoBenchError(
                f"{folder}: the category {min(unknown)!r} of image {image_id} is not in synonyms_refine.txt.",
                official.FETCH_HINT,
            )
        objects[image_id] = {synonyms.classes[category] for category in image.categories} | {
            name for caption in image.captions for _, name in _read_words(caption, synonyms, text)
        }
    return objects


def _read_words(answer: str, synonyms: Synonyms, text: TextPipeline) -> Mentions:
    words = text.words(answer)
    return [
        (" ".join(word.surface for word in words[mention.start : mention.end]), mention.object)
        for mention in find_mentions([word.lemma for word in words], synonyms)
    ]


def _extract(
    items: Sequence[_Item], folder: Path, synonyms: Synonyms, options: ScoreOptions
) -> tuple[dict[str, Mentions], dict[str, Any], list[str], list[dict[str, str]]]:
    """The mentions of each answer that the extractor read, the settings that say how, notes, and what it refused."""
    from napo_bench.engines.judge import judge_settings, tokens_note

    assert options.extractor is not None
    if options.pipeline != "official":
        raise NapoBenchError("The extractor's objects are tagged by spaCy.", "Use it with --pipeline official.")
    nlp = load_spacy(options.spacy_model or BENCHMARK.spacy_models["extractor"], exclude=extractor.SPACY_UNUSED)
    template = official.load_extractor_template(folder / "extractor_template.txt")
    long = [item for item in items if not extractor.is_short(item.answer)]
    prompts = [extractor.extractor_prompt(template, item.question, item.answer) for item in long]
    replies = options.extractor.ask(prompts, extractor.parse_objects)
    refused = [
        {"sample_id": item.sample_id, "reason": f"refused by the extractor: {reply.refused}"}
        for item, reply in zip(long, replies, strict=True)
        if reply.refused
    ]
    unread = [
        item.sample_id for item, reply in zip(long, replies, strict=True) if reply.value is None and not reply.refused
    ]
    notes = [tokens_note(replies)]
    if refused:
        notes.append(unanswered_note(refused, len(long), "not read"))
    if unread:
        what = f"{len(unread)} replies of the extractor hold no JSON list of objects: {', '.join(unread[:5])}"
        if not options.allow_partial:
            raise NapoBenchError(f"{what}.", "Give another extractor, or leave these answers out with --allow-partial.")
        notes.append(f"{what}; these answers are left out")
    mentions: dict[str, Mentions] = {item.sample_id: [] for item in items if extractor.is_short(item.answer)}
    for item, reply in zip(long, replies, strict=True):
        if reply.value is not None:
            terms = extractor.object_terms(reply.value, synonyms, nlp)
            mentions[item.sample_id] = [
                (terms[mention.start], mention.object) for mention in objects_of_terms(terms, synonyms)
            ]
    settings = {
        "chair_definition": f"llm:{options.extractor.model}",
        "extractor": judge_settings(replies) | {"spacy_model": spacy_model_name(nlp)},
    }
    return mentions, settings, notes, refused


def _sample(item: _Item, mentions: Mentions, image_objects: set[str]) -> Row:
    return {
        "sample_id": item.sample_id,
        "unit": "response",
        "prompt": item.question,
        "response": item.answer,
        "image": str(item.image_id),
        "counts": score_answer([name for _, name in mentions], image_objects, item.answer),
        "hallucinated": [surface for surface, name in mentions if name not in image_objects],
        "covered": [surface for surface, name in mentions if name in image_objects],
        "image_objects": sorted(image_objects),
        **item.thoughts,
    }

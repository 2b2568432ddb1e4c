"""Object HalBench: official response rows -> BenchmarkResult."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napo_bench.benchmarks.object_halbench import BENCHMARK, METRICS, extractor, official
from napo_bench.benchmarks.object_halbench.data import HalbenchItem, ObjectHalbench
from napo_bench.benchmarks.object_halbench.score import Synonyms, find_mentions, objects_of_terms, score_answer
from napo_bench.benchmarks.question import Answer, Answers, Row
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import ScoreOptions, empty_doubt, empty_note, measure
from napo_bench.benchmarks.text import TextPipeline, load_spacy, open_pipeline, spacy_model_name
from napo_bench.benchmarks.unanswered import kept_fields, unanswered_note
from napo_bench.core.errors import NapoBenchError

Mentions = list[tuple[str, str, int | None]]
"""(words of the answer, COCO class, index of the word) of each mention, in the order of the answer. The terms of an
extractor have no index.
"""


def score_object_halbench(data: ObjectHalbench, answers: Answers, options: ScoreOptions) -> BenchmarkResult:
    """Score Object HalBench's answers.

    Args:
        data: Object HalBench's data.
        answers: The answers.
        options: Options of scoring; with an extractor, an LLM lists the objects of each answer.

    Raises:
        NapoBenchError: data or the text pipeline's data is missing or malformed, or the extractor failed.
    """
    items = [_scored(answer) for answer in answers]
    text = open_pipeline(options.pipeline, data.synonyms.classes)
    image_objects = _image_objects(data, {item.image_id for item in items}, text)
    unchecked = not data.questions_file.exists()
    an_image = max(Counter(item.image_id for item in items).values(), default=1)
    notes = [
        *answers.notes,
        *([f"ids not checked: {data.questions_file} does not exist"] if unchecked else []),
        *(
            [f"up to {an_image} answers an image: published CHAIRs are over one answer an image"]
            if an_image > 1
            else []
        ),
        *empty_note(item.answer for item in items),
    ]
    unanswered = list(answers.unanswered)
    synonyms = data.synonyms
    settings: dict[str, Any] = {"text_pipeline": text.description, "chair_definition": "words"}
    if an_image > 1:
        settings["answers_an_image"] = an_image
    if options.extractor is None:
        mentions: dict[str, Mentions] = {item.sample_id: _read_words(item.answer, synonyms, text) for item in items}
    else:
        mentions, extractor_settings, extractor_notes, refused = _extract(items, data.folder, synonyms, options)
        settings |= extractor_settings
        notes += extractor_notes
        unanswered += refused
    samples = [
        _sample(item, mentions[item.sample_id], image_objects[item.image_id])
        for item in items
        if item.sample_id in mentions
    ]
    return BenchmarkResult(
        metrics=measure(samples, METRICS),
        complete=answers.is_complete and not unchecked and len(samples) == len(items),
        notes=notes,
        doubts=empty_doubt(item.answer for item in items),
        settings=settings,
        unanswered=unanswered,
        samples=samples,
    )


@dataclass(frozen=True)
class _Scored:
    """One answer that is scored."""

    sample_id: str
    image_id: int
    question: str
    answer: str
    beside: dict[str, Any]


def _scored(answer: Answer) -> _Scored:
    item: HalbenchItem = answer.question.item
    text = answer.text.replace("Assistant:", "").strip()
    return _Scored(item.sample_id, item.image_id, answer.question.prompt, text, kept_fields(answer.row))


def _image_objects(data: ObjectHalbench, image_ids: set[int], text: TextPipeline) -> dict[int, set[str]]:
    """The COCO classes of each image: those of its instances, and those that its human captions mention."""
    images, synonyms, folder = data.images(image_ids), data.synonyms, data.folder / "annotations"
    objects = {}
    for image_id in image_ids:
        if image_id not in images:
            raise NapoBenchError(
                f"The image {image_id} is in none of the annotation files of {folder}.",
                "Give the data folder that these responses belong to.",
            )
        image = images[image_id]
        unknown = image.categories - synonyms.classes.keys()
        if unknown:
            raise NapoBenchError(
                f"{folder}: the category {min(unknown)!r} of image {image_id} is not in synonyms_refine.txt.",
                official.FETCH_HINT,
            )
        objects[image_id] = {synonyms.classes[category] for category in image.categories} | {
            name for caption in image.captions for _, name, _ in _read_words(caption, synonyms, text)
        }
    return objects


def _read_words(answer: str, synonyms: Synonyms, text: TextPipeline) -> Mentions:
    words = text.words(answer)
    return [
        (
            " ".join(word.surface for word in words[mention.start : mention.end]),
            mention.object,
            words[mention.start].place,
        )
        for mention in find_mentions([word.lemma for word in words], synonyms)
    ]


def _extract(
    items: Sequence[_Scored], folder: Path, synonyms: Synonyms, options: ScoreOptions
) -> tuple[dict[str, Mentions], dict[str, Any], list[str], list[dict[str, str]]]:
    """The mentions of each answer that the extractor read, its settings, notes, and the answers that it refused."""
    from napo_bench.engines.judge import Form, judge_settings, tokens_note

    assert options.extractor is not None
    if options.pipeline != "official":
        raise NapoBenchError("The extractor's objects are tagged by spaCy.", "Use it with --pipeline official.")
    nlp = load_spacy(options.spacy_model or BENCHMARK.spacy_models["extractor"], exclude=extractor.SPACY_UNUSED)
    template = official.load_extractor_template(folder / "extractor_template.txt")
    long = [item for item in items if not extractor.is_short(item.answer)]
    prompts = [extractor.extractor_prompt(template, item.question, item.answer) for item in long]
    form = Form("system", extractor.REQUEST)
    replies = options.extractor.ask(prompts, extractor.parse_objects, form)
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
                (terms[mention.start], mention.object, None) for mention in objects_of_terms(terms, synonyms)
            ]
    settings = {
        "chair_definition": f"llm:{options.extractor.model}",
        "extractor": judge_settings(replies, form) | {"spacy_model": spacy_model_name(nlp)},
    }
    return mentions, settings, notes, refused


def _sample(item: _Scored, mentions: Mentions, image_objects: set[str]) -> Row:
    placed = [[place, name, name not in image_objects] for _, name, place in mentions if place is not None]
    return {
        "sample_id": item.sample_id,
        "unit": "response",
        "prompt": item.question,
        "response": item.answer,
        "image": str(item.image_id),
        "counts": score_answer([name for _, name, _ in mentions], image_objects, item.answer),
        "hallucinated": [surface for surface, name, _ in mentions if name not in image_objects],
        "covered": [surface for surface, name, _ in mentions if name in image_objects],
        "image_objects": sorted(image_objects),
        **({"mentions": placed} if len(placed) == len(mentions) else {}),
        **item.beside,
    }

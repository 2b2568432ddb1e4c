"""Object HalBench's LLM extractor: its prompt, its reply, and the terms of its objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from napo_bench.benchmarks.object_halbench.score import Synonyms, find_pairs
from napo_bench.benchmarks.text import NOUN_TAGS
from napo_bench.core import files

REQUEST = {"temperature": 0.2, "top_p": 1, "max_tokens": 512}
"""Fields of the published script's requests, whose prompt is a system message."""

SPACY_UNUSED = ("parser", "ner", "senter")
_SHORT_ANSWER = 3


def is_short(answer: str) -> bool:
    """Whether an answer has three words or fewer. Such an answer has no objects, and no LLM is asked."""
    return len(answer.split()) <= _SHORT_ANSWER


def extractor_prompt(template: str, question: str, answer: str) -> str:
    """The message to the LLM: the template with {question} and {answer} filled."""
    return template.replace("{question}", question).replace("{answer}", answer)


def parse_objects(reply: str) -> list[str] | None:
    """The objects that a reply lists; None if the reply contains no JSON list of texts.

    The published script reads a reply that is a list, or whose last line is one, and asks again for any other reply.
    Here the list may also be within other text, and "()" is an empty list, because the template asks for this form.
    """
    if reply.strip() == "()":
        return []
    return next((objects for part in _lists(reply) if (objects := _texts(part)) is not None), None)


def _lists(reply: str) -> Iterator[str]:
    """The parts of a reply that may be a list, in the order in which they are tried."""
    yield reply
    yield reply.strip().rpartition("\n")[2]
    yield reply[reply.find("[") : reply.rfind("]") + 1]


def _texts(part: str) -> list[str] | None:
    try:
        objects = json.loads(files.whole_characters(part.encode()))
    except (ValueError, RecursionError):
        return None
    return objects if isinstance(objects, list) and all(isinstance(name, str) for name in objects) else None


def object_terms(objects: Iterable[str], synonyms: Synonyms, nlp: Any) -> list[str]:
    """The terms of the objects in their order, without duplicates.

    Each object is tagged as "a <object>". Its terms are the two-word terms among its lemmas. Without such terms, its
    terms are the runs of consecutive nouns.

    Args:
        objects: Objects that the LLM lists.
        synonyms: The synonym file.
        nlp: A spaCy pipeline with tagger and lemmatizer.
    """
    terms: dict[str, None] = {}
    for doc in nlp.pipe(f"a {name}" for name in objects):
        pairs = find_pairs([token.lemma_ for token in doc], synonyms)
        terms.update(dict.fromkeys(pairs or _noun_runs(doc)))
    return list(terms)


def _noun_runs(doc: Any) -> list[str]:
    runs: list[list[str]] = [[]]
    for token in doc:
        if token.tag_ in NOUN_TAGS:
            runs[-1].append(token.lemma_)
        else:
            runs.append([])
    return [" ".join(run) for run in runs if run]

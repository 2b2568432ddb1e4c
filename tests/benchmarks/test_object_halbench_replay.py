"""Object HalBench against the authors' scorer, whose results scripts/replay_object_halbench.py stored beside this file.

The stored results name a class by the number of its line in the synonym file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from misbehaving_server import MisbehavingServer, answer
from replay_object_halbench import REPLIES, SENTENCES, listed_objects, phrases, terms, texts_of_terms, write_answers

from napo_bench.benchmarks.object_halbench.extractor import SPACY_UNUSED, object_terms, parse_objects
from napo_bench.benchmarks.object_halbench.official import read_answers
from napo_bench.benchmarks.object_halbench.score import Synonyms, find_mentions, objects_of_terms, parse_synonyms
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.text import OfficialText, load_spacy
from napo_bench.core.journal import Journal
from napo_bench.engines.journalled import JournalledEndpoint
from napo_bench.engines.judge import Judge
from napo_bench.runs.score import ScoreOptions, read_responses, score

REPLAY: dict[str, Any] = json.loads((Path(__file__).parent / "object_halbench_replay.json").read_text())


@pytest.fixture(scope="module")
def text(shared: Callable[[str], Path]) -> str:
    shared("nltk_data")
    return shared("reference/object_halbench/synonyms_refine.txt").read_text()


@pytest.fixture(scope="module")
def synonyms(text: str) -> Synonyms:
    return parse_synonyms(text)


@pytest.fixture(scope="module")
def numbers(text: str) -> Callable[[Iterable[str]], str]:
    lines = {line[0]: number for number, line in reversed(list(enumerate(terms(text))))}
    return lambda classes: " ".join(str(lines[name]) for name in classes)


@pytest.fixture(scope="module")
def mentioned(synonyms: Synonyms) -> Callable[[str], list[str]]:
    reader = OfficialText()
    return lambda said: [m.object for m in find_mentions([word.lemma for word in reader.words(said)], synonyms)]


def test_every_term_alone_in_the_plural_in_capitals_and_beside_the_next(
    text: str, mentioned: Callable[[str], list[str]], numbers: Callable[[Iterable[str]], str]
) -> None:
    stored = REPLAY["texts"].split(";")
    found = {said: numbers(mentioned(said)) for said in texts_of_terms(text)}
    assert found == dict(zip(texts_of_terms(text), stored, strict=True))
    assert {int(number) for of_text in stored for number in of_text.split()} == set(range(80))


def test_double_words(
    mentioned: Callable[[str], list[str]], numbers: Callable[[Iterable[str]], str], synonyms: Synonyms
) -> None:
    found = {said: numbers(mentioned(said)) for said in SENTENCES}
    assert found == dict(zip(SENTENCES, REPLAY["sentences"], strict=True))


def test_objects_that_an_extractor_lists(
    text: str, synonyms: Synonyms, numbers: Callable[[Iterable[str]], str], shared: Callable[[str], Path]
) -> None:
    nlp = load_spacy(str(shared("spacy/en_core_web_md")), SPACY_UNUSED)

    def of_object(name: str) -> str:
        return numbers(mention.object for mention in objects_of_terms(object_terms([name], synonyms, nlp), synonyms))

    found = {name: of_object(name) for name in phrases(text)}
    assert found == dict(zip(phrases(text), REPLAY["phrases"].split(";"), strict=True))


OURS_ALONE = {
    "()": [],
    'The objects are: ["dog"]': ["dog"],
    '["dog"]\nThat is all.': ["dog"],
    'Objects:\n["dog",\n "cat"]': ["dog", "cat"],
    '```json\n["dog"]\n```': ["dog"],
    '```\n["dog"]```': ["dog"],
    "Here: []": [],
    "Here:\n[]": [],
    '1. ["dog"]': ["dog"],
    '["dog"].': ["dog"],
    'x = ["dog"]': ["dog"],
    '["dog"]//': ["dog"],
    '["dog"],': ["dog"],
    '\ufeff["dog"]': ["dog"],
}  # fmt: skip
"""Replies that the authors' script asks again for -> the objects that we read."""


@pytest.mark.parametrize(("reply", "theirs"), list(zip(REPLIES, REPLAY["replies"], strict=True)))
def test_a_list_that_the_authors_read_is_read_alike(reply: str, theirs: Any) -> None:
    ours = parse_objects(reply)
    if isinstance(theirs, list) and all(isinstance(name, str) for name in theirs):
        assert ours == theirs
    elif theirs == "asked again":
        assert ours is None or ours == OURS_ALONE[reply]
    else:
        # They go on with the letters of a text, the keys of an object, or numbers. The prompt asks for a list of texts.
        assert ours is None or reply == '{"objects": ["dog"]}'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, shared: Callable[[str], Path], text: str) -> Path:
    folder = tmp_path_factory.mktemp("halbench-replay")
    (folder / "object_halbench").mkdir()
    write_answers(folder / "object_halbench", text)
    for name in ("synonyms_refine.txt", "extractor_template.txt"):
        (folder / "object_halbench" / name).write_text(shared(f"reference/object_halbench/{name}").read_text())
    return folder


def scored(data: Path, **options: Any) -> BenchmarkResult:
    rows = read_responses(data / "object_halbench" / "answers.jsonl")
    return score("object_halbench", rows, data, ScoreOptions(allow_partial=True, **options))


def as_theirs(result: BenchmarkResult) -> dict[str, float]:
    metrics = result.metrics
    counts = [sample["counts"] for sample in result.samples]
    return {
        "CHAIRs": metrics["chair_s"].value / 100,
        "CHAIRs_refine": metrics["chair_s_refine"].value / 100,
        "CHAIRi": metrics["chair_i"].value / 100,
        "obj_rec": metrics["recall"].value / 100,
        "sentence_num": metrics["chair_s"].n,
        "coco_sentence_num": metrics["chair_s_refine"].n,
        "coco_word_count": sum(row["recalled"] for row in counts),
        "gt_word_count": sum(row["image_objects"] for row in counts),
        "avg_word_len": metrics["mean_words"].value,
        "correct_rate": 1 - metrics["chair_s_refine"].value / 100,
        "object_correct_rate": 1 - metrics["chair_i"].value / 100,
    }


def test_every_number_of_the_words(data: Path) -> None:
    assert as_theirs(scored(data)) == pytest.approx(REPLAY["words"], abs=1e-12)


def test_every_number_of_the_extractor_and_its_requests(
    data: Path, shared: Callable[[str], Path], tmp_path: Path
) -> None:
    with MisbehavingServer(lambda request: answer(listed_objects(request.text))) as server:
        extractor = Judge(JournalledEndpoint("made-up", server.url, None, Journal(tmp_path / "replies.sqlite")))
        result = scored(data, extractor=extractor, spacy_model=str(shared("spacy/en_core_web_md")))
        bodies = [request.body for request in server.requests]
    assert as_theirs(result) == pytest.approx(REPLAY["listed"], abs=1e-12)
    assert {body["messages"][0]["role"] for body in bodies} == {"system"}
    assert {(len(body["messages"]), body["temperature"], body["max_tokens"]) for body in bodies} == {(1, 0.2, 512)}
    settings = result.settings["extractor"]
    assert {name: settings[name] for name in ("role", "temperature", "max_tokens", "top_p")} == {
        "role": "system", "temperature": 0.2, "max_tokens": 512, "top_p": 1,
    }  # fmt: skip


def test_a_row_with_prompt_and_question_is_about_its_prompt() -> None:
    (read,) = read_answers([{"image_id": 1, "question": "Of the file?", "prompt": "Asked?", "text": "A dog."}], "r")
    assert read.question == "Asked?"

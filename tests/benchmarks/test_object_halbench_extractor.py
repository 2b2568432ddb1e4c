"""The LLM extractor of Object HalBench: prompt, reply, and the spaCy step."""

import pytest

from napo_bench.benchmarks.object_halbench.extractor import (
    SPACY_UNUSED,
    extractor_prompt,
    is_short,
    object_terms,
    parse_objects,
)
from napo_bench.benchmarks.object_halbench.official import load_extractor_template, load_synonyms
from napo_bench.benchmarks.text import load_spacy


def test_answers_of_three_words_or_fewer_are_not_asked():
    assert is_short("") and is_short(" A red  dog ")
    assert not is_short("A red dog runs")


def test_the_prompt_is_the_template_with_question_and_answer(shared):
    template = load_extractor_template(shared("reference/object_halbench/extractor_template.txt"))
    prompt = extractor_prompt(template, "What is it?", "A {dog}.")
    assert "<image> What is it?\n" in prompt and "\nA {dog}.\n" in prompt
    assert "{question}" not in prompt and "{answer}" not in prompt


@pytest.mark.parametrize(
    ("reply", "objects"),
    [
        ('["dog", "red car"]', ["dog", "red car"]),
        ('The objects are:\n["dog"]', ["dog"]),
        ('```json\n["dog"]\n```', ["dog"]),
        ("[]", []),
        ("()", []),
        (r'["dog \ud83d", "\ud83d\ude00"]', ["dog \ufffd", "\U0001f600"]),
        ("dog, car", None),
        ('["dog", 3]', None),
        ('["dog"', None),
        ("", None),
    ],
)
def test_a_reply_is_a_json_list_of_texts_or_nothing(reply, objects):
    assert parse_objects(reply) == objects


@pytest.fixture(scope="module")
def terms(shared):
    nlp = load_spacy(str(shared("spacy/en_core_web_md")), SPACY_UNUSED)
    synonyms = load_synonyms(shared("reference/object_halbench/synonyms_refine.txt"))
    return lambda *objects: object_terms(objects, synonyms, nlp)


def test_an_object_is_its_run_of_noun_lemmas(terms):
    assert terms("dogs", "large brown dogs", "coffee mugs", "person on the street") == [
        "dog",
        "coffee mug",
        "person",
        "street",
    ]


def test_a_two_word_term_wins_over_the_runs_of_nouns(terms):
    assert terms("red traffic lights at the corner") == ["traffic light"]
    assert terms("baby elephant") == ["elephant"]


def test_terms_are_unique_and_in_order(terms):
    assert terms("car", "dog", "cars") == ["car", "dog"]


@pytest.mark.parametrize("reply", ["[" * 100_000, "[" * 100_000 + "]" * 100_000, "[" + "9" * 5000 + "]"])
def test_a_reply_that_no_reader_can_take_has_no_objects(reply: str) -> None:
    assert parse_objects(reply) is None

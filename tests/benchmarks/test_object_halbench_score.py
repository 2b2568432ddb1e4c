"""CHAIR's rules, one by one, and the whole against a plain reference on real captions."""

import json
from collections import Counter

import nltk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napo_bench.benchmarks.object_halbench import METRICS
from napo_bench.benchmarks.object_halbench.score import (
    find_mentions,
    find_pairs,
    objects_of_terms,
    parse_synonyms,
    score_answer,
)
from napo_bench.benchmarks.text import OfficialText

SYNONYMS = parse_synonyms(
    "person, man, baby, child\n"
    "bird, duck\n"
    "airplane, jet\n"
    "train\n"
    "toilet\n"
    "chair, seat\n"
    "tie, bow, bow tie\n"
    "wine glass\n"
    "cup, hot cup\n"
    "oven, stove top oven\n"
    "dog, child\n"
)


def objects(text):
    return [mention.object for mention in find_mentions(text.split(), SYNONYMS)]


def test_a_synonym_on_two_lines_belongs_to_the_later_one():
    assert SYNONYMS.classes["child"] == "dog"


def test_words_are_mapped_to_their_class_in_order_and_repeated():
    assert objects("a man and a duck and a man") == ["person", "bird", "person"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a wine glass", ["wine glass"]),
        ("a wine glas", ["wine glass"]),
        ("a hot cup", ["cup"]),
        ("a baby bird", ["bird"]),
        ("an adult dog", ["dog"]),
        ("a baby", ["person"]),
        ("a passenger jet", ["airplane"]),
        ("a passenger train", ["train"]),
        ("a train track", []),
        ("the home plate", []),
        ("a bow tie", ["tie"]),
        ("a toilet seat", ["toilet"]),
        ("a stove top oven", ["oven"]),
    ],
)
def test_two_word_terms_are_read_as_one(words, expected):
    assert objects(words) == expected


def test_a_pair_is_taken_from_left_to_right():
    assert objects("hot cup cup") == ["cup", "cup"]
    assert objects("adult baby bird") == ["bird"]


def test_a_seat_beside_a_toilet_is_no_chair():
    assert objects("the seat of the toilet") == ["toilet"]
    assert objects("the seat") == ["chair"]


def test_a_mention_knows_its_words():
    (mention,) = find_mentions(["with", "a", "wine", "glas"], SYNONYMS)
    assert (mention.start, mention.end) == (2, 4)


def test_only_pairs_are_found_as_pairs():
    assert find_pairs(["a", "man", "with", "a", "baby", "bird", "and", "a", "bow", "tie"], SYNONYMS) == ["bird", "tie"]


def test_terms_of_an_extractor_are_mapped_and_lose_the_seat_of_a_toilet():
    terms = ["seat", "wine glass", "red car", "toilet"]
    assert [(mention.object, mention.start) for mention in objects_of_terms(terms, SYNONYMS)] == [
        ("wine glass", 1),
        ("toilet", 3),
    ]


def test_every_mention_counts_but_an_object_is_recalled_once():
    assert score_answer(["dog", "dog", "cup", "cup"], {"dog", "person"}, "Two  words") == {
        "answers": 1,
        "words": 3,  # split on the single space
        "answers_with_objects": 1,
        "answers_with_hallucination": 1,
        "mentions": 4,
        "hallucinated": 2,
        "recalled": 1,
        "image_objects": 2,
    }


def values(rows):
    sums = Counter()
    for row in rows:
        sums.update(row)
    return {metric.name: metric.function(sums) for metric in METRICS}


def test_metrics_of_three_answers():
    rows = [
        score_answer(["dog", "cup"], {"dog"}, "a dog and a cup"),
        score_answer(["dog", "dog", "dog"], {"dog", "cup"}, "dog dog dog"),
        score_answer([], {"dog"}, ""),
    ]
    assert values(rows) == {
        "chair_s": pytest.approx(100 / 3),
        "chair_i": 20,
        "chair_s_refine": 50,
        "recall": 50,
        "mean_words": 3,  # 5 + 3 + 1: an empty answer splits into one empty word
    }


def test_metrics_are_zero_where_there_is_nothing_to_count():
    result = values([score_answer([], set(), "nothing here")])
    assert (result["chair_s"], result["chair_i"], result["chair_s_refine"], result["recall"]) == (0, 0, 0, 0)


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from(["dog", "cup", "tie"])), st.sets(st.sampled_from(["dog", "cup", "tie"]))),
        min_size=1,
    )
)
def test_chair_is_a_share_and_the_refined_rate_is_never_below_the_plain_one(answers):
    result = values([score_answer(mentioned, image, "text") for mentioned, image in answers])
    assert all(0 <= result[name] <= 100 for name in ("chair_s", "chair_i", "chair_s_refine", "recall"))
    assert result["chair_s_refine"] >= result["chair_s"]


def reference_mentions(caption, lines, lemmatize):
    """The protocol's word path as plain loops."""
    owner = {}
    for line in lines:
        for term in line:
            owner[term] = line[0]
    words = [lemmatize(word) for word in nltk.word_tokenize(caption.lower())]
    joined = []
    while words:
        two = " ".join(words[:2])
        age, _, rest = two.partition(" ")
        if two == "bow tie":
            term = "tie"
        elif two == "toilet seat":
            term = "toilet"
        elif two == "wine glas":
            term = "wine glass"
        elif (age in ("baby", "adult") and rest in ANIMALS) or (age == "passenger" and rest in ("jet", "train")):
            term = rest
        elif two in ("home plate", "train track") or (rest and two in owner):
            term = two
        else:
            joined.append(words.pop(0))
            continue
        joined.append(term)
        del words[:2]
    if "toilet" in joined and "seat" in joined:
        joined = [term for term in joined if term != "seat"]
    return [owner[term] for term in joined if term in owner]


ANIMALS = ["bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub"]
TRICKY = [
    "A baby elephant and two adult giraffes near the train tracks; a passenger train passes.",
    "Wine glasses, a bow tie, bow ties and a toilet seat in the bathroom.",
    "The seat of the toilet is up. Stop signs, traffic lights, cell phones and hot dogs!",
    "A man's home plate, people on motor bikes, TVs, knives and skis.",
    "",
]


def test_equal_to_the_plain_reference_on_real_captions_and_the_real_synonyms(shared):
    text = shared("reference/object_halbench/synonyms_refine.txt").read_text()
    shared("nltk_data")
    lines = [[term.strip() for term in line.split(",")] for line in text.splitlines()]
    synonyms, reader = parse_synonyms(text), OfficialText()
    lemmatize = nltk.stem.WordNetLemmatizer().lemmatize
    captions = TRICKY + [
        json.loads(line)["caption"]
        for path in sorted(shared("reference/responses").glob("*.jsonl"))
        for line in path.read_text().splitlines()[:100]
    ]
    for caption in captions:
        found = find_mentions([word.lemma for word in reader.words(caption)], synonyms)
        assert [mention.object for mention in found] == reference_mentions(caption, lines, lemmatize), caption

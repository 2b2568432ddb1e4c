"""AMBER's rules, one by one, and the whole against a plain reference on real annotations and real captions."""

import json
from collections import Counter
from functools import cache

import nltk
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napo_bench.benchmarks.amber import ANSWER_METRICS, BENCHMARK, DESCRIPTION_METRICS
from napo_bench.benchmarks.amber.official import load_data
from napo_bench.benchmarks.amber.result import group_metrics
from napo_bench.benchmarks.amber.score import (
    score_answer,
    score_description,
)
from napo_bench.benchmarks.text import OfficialText

ASSOCIATES = {
    "forest": ["tree", "leaf"],
    "lake": ["water"],
    "sea": ["water"],
    "ship": ["boat"],
    "bird": ["duck"],
    "dog": [],
    "sign": [],
    "puppy": [],
}


def describe(nouns, truth=("forest", "lake"), hallu=("bird",), similar=None, safe_words=("sign",)):
    nouns = nouns.split()
    neighbours = {noun: {noun, *(similar or {}).get(noun, ())} for noun in nouns}
    return score_description(nouns, truth, hallu, ASSOCIATES, safe_words, neighbours)


def test_only_nouns_of_the_relation_file_are_mentions():
    counts = describe("forest spaceship duck Forest").counts
    assert (counts["mentions"], counts["hallucinated"]) == (2, 1)


def test_every_mention_counts_though_words_are_covered_once():
    counts = describe("forest forest bird bird").counts
    assert (counts["mentions"], counts["hallucinated"], counts["covered"], counts["hit"]) == (4, 2, 1, 1)


def test_a_safe_word_is_a_mention_that_nothing_happens_to():
    score = describe("sign", truth=("sign",), hallu=("sign",))
    assert (score.counts["mentions"], score.counts["hallucinated"]) == (1, 0)
    assert (score.counts["covered"], score.counts["hit"]) == (0, 0)


def test_an_associate_covers_the_word_that_brought_it():
    assert describe("water").covered == {0: 1}


def test_the_first_of_equal_candidates_is_covered():
    assert describe("water", truth=("sea", "lake")).covered == {0: 0}
    assert describe("ship", truth=("ship", "ship")).counts["covered"] == 1


def test_associates_stand_before_the_words_themselves():
    # "tree" is an associate of the second truth word and the first truth word itself: the associate comes first.
    associates = ASSOCIATES | {"tree": []}
    score = score_description(["tree"], ["tree", "forest"], [], associates, (), {"tree": {"tree"}})
    assert score.covered == {0: 1}


def test_a_truth_word_is_never_held_against_the_hallu_list():
    score = describe("duck", truth=("bird",), hallu=("bird",))
    assert (score.counts["covered"], score.counts["hit"]) == (1, 0)


def test_an_exact_hallu_word_is_hit_and_may_yet_be_covered_by_a_similar_truth_word():
    score = describe("dog", truth=("puppy",), hallu=("dog",), similar={"dog": {"puppy"}})
    assert (score.counts["hit"], score.counts["covered"], score.counts["hallucinated"]) == (1, 1, 0)


def test_exact_and_similar_hallu_words_are_both_hit():
    score = describe("dog", hallu=("bird", "dog"), similar={"dog": {"duck"}})
    assert score.hit == {0: [0, 1]}
    assert score.hallucinated == [0]


def test_only_the_first_similar_candidate_is_taken():
    score = describe("dog", truth=("lake", "forest"), similar={"dog": {"leaf", "water"}}, hallu=("ship", "bird"))
    assert score.covered == {0: 0}
    score = describe("dog", hallu=("ship", "bird"), similar={"dog": {"ship", "duck"}})
    assert score.hit == {0: [1]}


def test_a_noun_like_nothing_is_hallucinated():
    score = describe("dog forest")
    assert score.hallucinated == [0]
    assert score.counts["clean"] == 0


def test_an_empty_description_mentions_and_covers_nothing_and_is_clean():
    assert describe("").counts == {
        "responses": 1,
        "clean": 1,
        "mentions": 0,
        "hallucinated": 0,
        "truth_words": 2,
        "covered": 0,
        "hallu_words": 1,
        "hit": 0,
    }


def values(metrics, rows):
    sums = Counter()
    for row in rows:
        sums.update(row)
    return {metric.name: metric.function(sums) for metric in metrics}


def test_denominators_of_descriptions_start_at_a_thousandth():
    # 1 of 1.001 mentions, 1 of 2.001 truth words, 100 - 0 / 1.001, 0 of 1.001 hallu words
    assert values(DESCRIPTION_METRICS, [describe("dog").counts]) == {"chair": 99.9, "cover": 0.0, "hal": 100, "cog": 0}
    assert values(DESCRIPTION_METRICS, [describe("forest").counts]) == {"chair": 0, "cover": 50, "hal": 0.1, "cog": 0}


@pytest.mark.parametrize(
    ("truth", "response", "correct"),
    [("yes", "Yes", 1), ("no", "No", 1), ("yes", "No", 0), ("no", "Yes", 0), ("yes", "yes", 0), ("no", "No.", 0)],
)
def test_only_the_exact_strings_answer(truth, response, correct):
    counts = score_answer("relation", truth, response)
    assert counts["all_correct"] == counts["relation_correct"] == correct
    assert counts["all_answered_no"] == (response == "No")


def test_question_types_belong_to_their_dimensions():
    groups = {
        "discriminative-hallucination": {"all", "existence"},
        "discriminative-attribute-state": {"all", "attribute", "state"},
        "discriminative-attribute-number": {"all", "attribute", "number"},
        "discriminative-attribute-action": {"all", "attribute", "action"},
        "discriminative-relation": {"all", "relation"},
        "relation": {"all", "relation"},
    }
    for kind, expected in groups.items():
        assert {name.split("_")[0] for name in score_answer(kind, "no", "No")} == expected


def test_f1_is_of_the_rounded_precision_and_recall():
    # 3 of 7 truth-no questions answered No, and 4 No in all: P = 74.98 -> 75.0, R = 42.85 -> 42.9
    rows = [score_answer("relation", "no", "No")] * 3 + [score_answer("relation", "no", "Yes")] * 4
    rows += [score_answer("relation", "yes", "No")]
    result = values(ANSWER_METRICS, rows)
    assert (result["accuracy"], result["precision"], result["recall"]) == (37.5, 75.0, 42.9)
    assert result["f1"] == result["relation_f1"] == round(2 * 0.75 * 0.429 / (0.75 + 0.429 + 0.0001) * 100, 1)


def test_f1_of_existence_has_a_larger_floor():
    def f1(kind, group):
        answers = [("no", "No"), ("no", "Yes"), ("yes", "No"), ("yes", "No")]
        return values(group_metrics(group), [score_answer(kind, *answer) for answer in answers])["f1"]

    # P = 33.3, R = 50.0: 2PR / (P + R) is 0.39976
    assert f1("discriminative-hallucination", "existence") == round(2 * 0.333 * 0.5 / (0.833 + 0.001) * 100, 1) == 39.9
    assert f1("relation", "relation") == round(2 * 0.333 * 0.5 / (0.833 + 0.0001) * 100, 1) == 40.0


def test_attribute_denominators_start_at_a_thousandth_for_each_of_its_three_types():
    state = [score_answer("discriminative-attribute-state", "no", "No")]
    assert values(group_metrics("attribute"), state)["accuracy"] == round(1 / 1.003 * 100, 1) == 99.7
    assert values(group_metrics("state"), state)["accuracy"] == round(1 / 1.001 * 100, 1) == 99.9


@given(st.lists(st.integers(0, 10_000), min_size=60, max_size=60))
def test_metrics_of_arrays_are_those_of_numbers(numbers):
    names = [*describe("").counts, *score_answer("relation", "no", "No")]
    names += [f"{group}_{name}" for group in ("existence", "attribute") for name in ANSWER_COUNTS]
    sums = dict(zip(names, numbers, strict=False))
    for metric in BENCHMARK.metrics:
        array = metric.function({name: np.array([float(value), 1.0]) for name, value in sums.items()})
        assert array.shape == (2,)
        assert array[0] == pytest.approx(metric.function(sums), abs=0.1001)


ANSWER_COUNTS = ("questions", "correct", "truth_no", "answered_no", "right_no")


# The reference: the rules of the protocol as plain loops, with NLTK's and spaCy's own functions.


@pytest.fixture(scope="module")
def real(shared):
    data = load_data(shared("reference/amber"))
    shared("nltk_data")
    return data, OfficialText(str(shared("spacy/en_core_web_md")))


def reference_counts(annotation, caption, data, similarity):
    lemmatize = nltk.stem.WordNetLemmatizer().lemmatize
    nouns = [lemmatize(w) for w, tag in nltk.pos_tag(nltk.word_tokenize(caption)) if tag.startswith("NN")]
    anywhere = list(data.associates) + [word for words in data.associates.values() for word in words]
    nouns = [noun for noun in nouns if noun in anywhere]
    entries = {}
    for name, words in (("truth", annotation.truth), ("hallu", annotation.hallu)):
        entries[name] = []
        for position, word in enumerate(words):
            for associate in data.associates[word]:
                entries[name].append((associate, position))
        for position, word in enumerate(words):
            entries[name].append((word, position))
    marked = {"truth": set(), "hallu": set()}

    def mark(name, matches):
        for word, position in entries[name]:
            if matches(word):
                marked[name].add(position)
                return True
        return False

    bad = 0
    for noun in nouns:
        if noun in data.safe_words:
            continue
        if mark("truth", lambda word, noun=noun: word == noun):
            continue
        mark("hallu", lambda word, noun=noun: word == noun)
        mark("hallu", lambda word, noun=noun: similarity(noun, word) > 0.8)
        if not mark("truth", lambda word, noun=noun: similarity(noun, word) > 0.8):
            bad += 1
    return Counter(
        chair=bad,
        chair_of=len(nouns),
        cover=len(marked["truth"]),
        cover_of=len(annotation.truth),
        cog=len(marked["hallu"]),
        cog_of=len(annotation.hallu),
        clean=int(bad == 0),
        clean_of=1,
    )


@pytest.mark.filterwarnings("ignore:.*W008")
@pytest.mark.parametrize("model", ["instructblip", "llava-1.5", "minigpt4", "shikra"])
def test_equal_to_the_plain_reference_on_real_annotations_and_captions(real, shared, model):
    data, text = real
    docs = cache(text._nlp)
    similarity = cache(lambda a, b: docs(a).similarity(docs(b)))
    words = set(data.associates).union(*data.associates.values())
    similar = text.similar(words, 0.8)
    lines = shared(f"reference/responses/{model}.jsonl").read_text().splitlines()
    totals, rows = Counter(), []
    for annotation, line in list(zip(data.annotations, lines, strict=False))[::8]:
        caption = json.loads(line)["caption"]
        reference = reference_counts(annotation, caption, data, similarity)
        nouns = [noun.lemma for noun in text.nouns(caption)]
        score = score_description(nouns, annotation.truth, annotation.hallu, data.associates, data.safe_words, similar)
        rows.append(score.counts)
        totals += reference
        assert score.counts["hallucinated"] == reference["chair"]
        assert score.counts["mentions"] == reference["chair_of"]
        assert score.counts["covered"] == reference["cover"]
        assert score.counts["hit"] == reference["cog"]

    def percent(name):
        return round(totals[name] / (totals[f"{name}_of"] + 0.001) * 100, 1)

    assert values(DESCRIPTION_METRICS, rows) == {
        "chair": percent("chair"),
        "cover": percent("cover"),
        "hal": round(100 - totals["clean"] / (totals["clean_of"] + 0.001) * 100, 1),
        "cog": percent("cog"),
    }


def test_discriminative_half_equals_plain_counting_over_all_real_questions(shared):
    data = load_data(shared("reference/amber"))
    questions = [a for a in data.annotations if a.type != "generative"]
    answers = [("Yes", "No", "No", "Yes", "no")[(a.id * 7919) % 5] for a in questions]
    result = values(
        ANSWER_METRICS, [score_answer(a.type, a.truth[0], r) for a, r in zip(questions, answers, strict=True)]
    )

    def f1(kinds, floor):
        asked = [(a.truth[0], r) for a, r in zip(questions, answers, strict=True) if a.type in kinds]
        n = 0.001 * (3 if "discriminative-attribute-state" in kinds and len(kinds) == 3 else 1)
        hits = sum(truth == "no" and response == "No" for truth, response in asked)
        p = round(hits / (sum(response == "No" for _, response in asked) + n) * 100, 1)
        r = round(hits / (sum(truth == "no" for truth, _ in asked) + n) * 100, 1)
        return round(2 * (p / 100) * (r / 100) / (p / 100 + r / 100 + floor) * 100, 1)

    right = sum(r == {"yes": "Yes", "no": "No"}[a.truth[0]] for a, r in zip(questions, answers, strict=True))
    kinds = {a.type for a in questions}
    assert result["accuracy"] == round(right / 14216.001 * 100, 1)
    assert result["f1"] == f1(kinds, 0.0001)
    assert result["existence_f1"] == f1({"discriminative-hallucination"}, 0.001)
    assert result["attribute_f1"] == f1({k for k in kinds if "attribute" in k}, 0.0001)
    assert result["relation_f1"] == f1({"relation", "discriminative-relation"}, 0.0001)

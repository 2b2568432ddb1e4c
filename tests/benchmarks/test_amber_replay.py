"""AMBER against the authors' script, whose output scripts/replay_amber.py stored in amber_replay.json."""

import json
from collections import Counter
from pathlib import Path

import pytest
from replay_amber import DESCRIPTIONS, QUESTIONS, answers, descriptions

from napo_bench.benchmarks.amber import DESCRIPTION_METRICS
from napo_bench.benchmarks.amber.official import load_data
from napo_bench.benchmarks.amber.result import group_metrics
from napo_bench.benchmarks.amber.score import SIMILARITY_THRESHOLD, score_answer, score_description
from napo_bench.benchmarks.text import OfficialText
from napo_bench.core.errors import NapoBenchError
from napo_bench.runs.score import ScoreOptions, score

REPLAY = json.loads((Path(__file__).parent / "amber_replay.json").read_text())
GROUPS = ("all", "existence", "attribute", "state", "number", "action", "relation")


@pytest.fixture(scope="module")
def annotations(shared):
    return json.loads(shared("reference/amber/annotations.json").read_text())


@pytest.fixture(scope="module")
def data(shared):
    return load_data(shared("reference/amber"))


@pytest.fixture(scope="module")
def read(data, shared):
    """The words of a text, and the similar words of every noun."""
    shared("nltk_data")
    text = OfficialText(str(shared("spacy/en_core_web_md")))
    words = set(data.associates).union(*data.associates.values())
    return text, text.similar(words, SIMILARITY_THRESHOLD)


def percents(metrics, rows):
    sums = Counter()
    for row in rows:
        sums.update(row)
    return {metric.name: metric.function(sums) for metric in metrics}


def test_every_degenerate_description_has_the_numbers_of_the_authors(annotations, data, read):
    text, similar = read
    cases = descriptions(annotations, data.associates)
    assert list(cases) == list(REPLAY["descriptions"]) and len(cases) > 35
    for name, rows in cases.items():
        counts = []
        for row in rows:
            annotation = data.annotations[row["id"] - 1]
            nouns = [noun.lemma for noun in text.nouns(row["response"])]
            counts.append(
                score_description(
                    nouns, annotation.truth, annotation.hallu, data.associates, data.safe_words, similar
                ).counts
            )
        assert percents(DESCRIPTION_METRICS, counts) == REPLAY["descriptions"][name], name


def test_every_group_of_degenerate_answers_has_the_numbers_of_the_authors(annotations, data):
    cases = answers(annotations)
    assert list(cases) == list(REPLAY["answers"])
    counted = ("questions", "correct", "truth_no", "answered_no", "right_no")
    for name, rows in cases.items():
        sums = Counter({f"{group}_{count}": 0 for group in GROUPS for count in counted})
        for row in rows:
            annotation = data.annotations[row["id"] - 1]
            sums.update(score_answer(annotation.type, annotation.truth[0], row["response"]))
        found = {group: {m.name: m.function(sums) for m in group_metrics(group)} for group in GROUPS}
        assert found == REPLAY["answers"][name], name


def test_stored_responses_of_both_halves_have_the_numbers_of_the_authors(annotations, data, read, shared, monkeypatch):
    # The pipeline of the other test again, because spaCy takes seconds to load.
    monkeypatch.setattr("napo_bench.benchmarks.amber.result.open_pipeline", lambda *arguments: read[0])
    described = descriptions(annotations, data.associates)["random words"]
    answered = answers(annotations)["mixed"]
    result = score("amber", [*answered, *described], shared("reference"), ScoreOptions(allow_partial=True))
    replay = REPLAY["answers"]["mixed"]
    f1 = {f"{group}_f1": replay[group]["f1"] for group in ("existence", "attribute", "relation")}
    expected = REPLAY["descriptions"]["random words"] | replay["all"] | f1
    assert {name: metric.value for name, metric in result.metrics.items()} == expected
    for group in GROUPS[1:]:
        kind = "dimension" if group in ("existence", "attribute", "relation") else "attribute"
        found = {name: metric.value for name, metric in result.breakdown[f"{kind}/{group}"].items()}
        assert found == replay[group], group


# Traps of the published format


def partial(rows, shared):
    options = ScoreOptions(pipeline="closed_vocabulary", allow_partial=True)
    return score("amber", rows, shared("reference"), options)


def test_a_description_beyond_id_1004_is_scored_as_an_answer_and_no_measurement(shared, annotations):
    rows = [{"id": DESCRIPTIONS + n, "response": "A dog under a tree on the grass."} for n in range(1, 11)]
    result = partial(rows, shared)
    assert "chair" not in result.metrics and result.metrics["accuracy"].value == 0
    assert result.doubts == [
        "10 of 10 yes/no answers are neither Yes nor No: the numbers measure nothing. "
        "Descriptions have the ids 1 to 1004"
    ]
    spread = partial([*rows, {"id": DESCRIPTIONS, "response": "A dog."}], shared)
    assert spread.metrics["chair"].n == 1 and spread.metrics["accuracy"].n == 10


def test_ids_that_count_from_0_are_refused(shared):
    rows = [{"id": number, "response": "A dog."} for number in range(DESCRIPTIONS)]
    with pytest.raises(NapoBenchError, match=r"1 of 1004 ids missing: 1004; 1 ids unknown: 0"):
        score("amber", rows, shared("reference"), ScoreOptions(pipeline="closed_vocabulary"))


def test_an_id_beyond_the_last_question_is_refused(shared):
    rows = [{"id": number, "response": "Yes"} for number in range(DESCRIPTIONS + 1, QUESTIONS + 2)]
    with pytest.raises(NapoBenchError, match=r"1 ids unknown: 15221"):
        score("amber", rows, shared("reference"), ScoreOptions())


def test_each_sub_type_of_attributes_is_a_group_and_part_of_the_dimension(shared, annotations):
    chosen = {}
    for row in annotations[DESCRIPTIONS:]:
        if "attribute" in row["type"]:
            chosen.setdefault(row["type"], []).append(row)
    # All states right, all numbers wrong, every second action right.
    right = {"state": lambda n: True, "number": lambda n: False, "action": lambda n: n % 2 == 0}
    rows = []
    for kind, asked in chosen.items():
        for n, row in enumerate(asked[:20]):
            said = row["truth"] if right[kind.rpartition("-")[2]](n) else {"yes": "no", "no": "yes"}[row["truth"]]
            rows.append({"id": row["id"], "response": said.capitalize()})
    found = {group: metrics["accuracy"].value for group, metrics in partial(rows, shared).breakdown.items()}
    assert found == {
        "dimension/attribute": 50.0,
        "attribute/state": 100.0,
        "attribute/number": 0.0,
        "attribute/action": 50.0,
    }

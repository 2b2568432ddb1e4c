"""Official response rows and a data folder become a result: ids checked, intervals, notes, settings, samples."""

import json
import re
from dataclasses import replace

import pytest

from napo_bench.benchmarks.amber import BENCHMARK as AMBER
from napo_bench.benchmarks.scoring import empty_doubt, match_ids, measure
from napo_bench.core.errors import NapoBenchError
from napo_bench.engines.judge import Reply
from napo_bench.runs.compare import differing_settings, require_same_settings
from napo_bench.runs.score import ScoreOptions, data_hashes, read_responses, score

CLOSED = ScoreOptions(pipeline="closed_vocabulary", source="r.json")
PARTIAL = ScoreOptions(pipeline="closed_vocabulary", source="r.json", allow_partial=True)


# Ids


def check(given, expected, allow_partial=False):
    return match_ids(given, expected, source="r.json", allow_partial=allow_partial)


def test_complete_ids_match_in_the_benchmarks_order():
    match = check([3, 1, 2], [1, 2, 3])
    assert (match.indices, match.notes) == ([1, 2, 0], [])


def test_missing_duplicate_and_unknown_ids_are_named_and_counted():
    with pytest.raises(NapoBenchError) as error:
        check([1, 1, 99, "1"], range(1, 10))
    assert "8 of 9 ids missing: 2, 3, 4, 5, 6 and 3 more" in error.value.message
    assert "1 ids duplicate: 1" in error.value.message
    assert '2 ids unknown: 99, "1"' in error.value.message
    assert "--allow-partial" in error.value.hint


def test_a_part_is_scored_on_request_with_the_first_of_duplicates_and_without_unknown_ids():
    match = check([2, 9, 2, 1], [1, 2, 3], allow_partial=True)
    assert match.indices == [3, 0]
    assert match.notes == ["1 of 3 ids missing: 3", "1 ids duplicate: 2", "1 ids unknown: 9"]


def test_responses_of_another_benchmark_are_refused_even_in_part():
    for given in ([], [7, 8]):
        with pytest.raises(NapoBenchError, match="none of the 2 ids"):
            check(given, [1, 2], allow_partial=True)


# Response files


@pytest.mark.parametrize(("texts", "in_doubt"), [(["", " ", "A dog."], True), (["", "A dog."], False), ([], False)])
def test_more_than_half_of_the_responses_empty_is_no_measurement(texts, in_doubt):
    assert empty_doubt(texts) == (["2 of 3 responses are empty: the numbers measure nothing"] if in_doubt else [])


def test_a_json_list_and_json_lines_are_both_read(tmp_path):
    rows = [{"id": 1}, {"id": 2}]
    (tmp_path / "a").write_text(json.dumps(rows, indent=1))
    (tmp_path / "b").write_text("\n".join(map(json.dumps, rows)))
    assert read_responses(tmp_path / "a") == read_responses(tmp_path / "b") == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"id": 1},', "ends too early"),
        ('{"id": 1}\n{"id"', "line 2"),
        ("[1]", "row 1: a JSON object is expected, int found"),
        ("id,response\n1,A dog", "line 1: not valid JSON"),
    ],
)
def test_a_damaged_response_file_is_named(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(NapoBenchError, match=re.escape(message)):
        read_responses(tmp_path / "r.json")


def test_a_missing_response_file_is_named(tmp_path):
    with pytest.raises(NapoBenchError, match=r"none\.json does not exist"):
        read_responses(tmp_path / "none.json")


# Intervals


def test_values_come_with_intervals_that_hold_them_and_with_n():
    samples = [{"sample_id": f"{i}", "counts": {"responses": 1, "clean": int(i % 4 > 0)}} for i in range(400)]
    value = measure(samples, [AMBER.metric("hal")])["hal"]
    assert value.value == 25.0 and value.n == value.clusters == 400
    # the normal approximation: 1.96 * sqrt(0.25 * 0.75 / 400) = 4.2
    assert value.ci95 == (pytest.approx(20.8, abs=0.5), pytest.approx(29.2, abs=0.5))


def test_an_interval_has_a_width_where_all_samples_agree():
    samples = [{"sample_id": f"{i}", "counts": {"responses": 1, "clean": 1}} for i in range(100)]
    low, high = measure(samples, [AMBER.metric("hal")])["hal"].ci95
    # the exact bound of a proportion after 100 equal outcomes: 1 - 0.025 ** (1 / 100)
    assert low == pytest.approx(0, abs=0.01) and high == pytest.approx(3.62, abs=0.1)


# AMBER

AMBER_TRUTH = [
    {"id": 1, "type": "generative", "truth": ["dog", "tree"], "hallu": ["ball"]},
    {"id": 2, "type": "generative", "truth": ["tree"], "hallu": ["dog"]},
    {"id": 3, "type": "discriminative-hallucination", "truth": "no"},
    {"id": 4, "type": "discriminative-attribute-state", "truth": "yes"},
    {"id": 5, "type": "relation", "truth": "no"},
]
DESCRIPTIONS = [{"id": 1, "response": "A dog, two balls and puppies."}, {"id": 2, "response": "Trees"}]
ANSWERS = [{"id": 3, "response": "No"}, {"id": 4, "response": "No"}, {"id": 5, "response": "Maybe"}]


@pytest.fixture
def amber(tmp_path):
    folder = tmp_path / "amber"
    folder.mkdir()
    (folder / "annotations.json").write_text(json.dumps(AMBER_TRUTH))
    (folder / "relation.json").write_text(json.dumps({"dog": ["puppy"], "ball": [], "tree": []}))
    (folder / "safe_words.txt").write_text("sign")
    for part, ids in (("generative", (1, 2)), ("discriminative", (3, 4, 5))):
        queries = [{"id": i, "image": f"AMBER_{i}.jpg", "query": f"Query {i}"} for i in ids]
        (folder / f"query_{part}.json").write_text(json.dumps(queries))
    return tmp_path


def values(result):
    return {name: metric.value for name, metric in result.metrics.items()}


def test_amber_descriptions_are_complete_on_their_own(amber):
    result = score("amber", DESCRIPTIONS, amber, CLOSED)
    # 1 of 4 mentions; 2 of 3 truth words; 1 of 2 responses; 1 of 2 hallu words
    assert values(result) == {"chair": 25.0, "cover": 66.6, "hal": 50.0, "cog": 50.0}
    assert result.complete and result.notes == [] and result.breakdown == {}
    assert result.settings == {"text_pipeline": {"name": "closed_vocabulary"}}


def test_amber_answers_are_complete_on_their_own_and_need_no_text_pipeline(amber):
    result = score("amber", ANSWERS, amber, ScoreOptions())
    assert values(result)["accuracy"] == 33.3
    assert (values(result)["precision"], values(result)["recall"]) == (50.0, 50.0)
    assert result.complete and result.settings == {"answers": "exact"}
    assert set(result.breakdown) == {
        "dimension/existence", "dimension/attribute", "dimension/relation", "attribute/state"
    }  # fmt: skip
    assert result.breakdown["dimension/relation"]["recall"].value == 0


def answered(*texts):
    return [{"id": number, "response": text} for number, text in enumerate(texts, start=3)]


@pytest.mark.parametrize("spelling", ["{}.", "{}\n", "**{}**", "{}, there is one.", "_{}_"])
def test_amber_answers_count_as_published_unless_a_lenient_reading_is_asked_for(amber, spelling):
    right = answered(spelling.format("No"), spelling.format("yes"), spelling.format("NO"))
    exact = score("amber", right, amber, CLOSED)
    assert values(exact)["accuracy"] == 0
    (note,) = exact.notes
    assert note.startswith("3 of 3 yes/no answers are neither Yes nor No") and "and count as wrong" in note
    assert note.endswith("--answers lenient reads 3 of them by their first word")
    lenient = score("amber", right, amber, replace(CLOSED, answers="lenient"))
    assert values(lenient)["accuracy"] == 100.0
    assert lenient.notes == ["3 of 3 yes/no answers are read by their first word"]
    assert [sample["response"] for sample in lenient.samples] == [row["response"] for row in right]
    assert [result.settings["answers"] for result in (exact, lenient)] == ["exact", "lenient"]


def test_amber_answers_that_no_reading_understands_are_counted_with_an_example(amber):
    result = score("amber", answered("Maybe", "No", "I cannot say. " * 9), amber, replace(CLOSED, answers="lenient"))
    assert result.notes == ['2 of 3 yes/no answers are neither Yes nor No ("Maybe"), and count as wrong']
    assert score("amber", answered("No", "Yes", "No"), amber, CLOSED).notes == []


def test_amber_results_of_two_readings_are_not_compared(amber):
    one, other = (score("amber", ANSWERS, amber, replace(CLOSED, answers=reading)) for reading in ("exact", "lenient"))
    assert differing_settings(one, other) == {"answers": ("exact", "lenient")}
    descriptions = score("amber", DESCRIPTIONS, amber, CLOSED)
    both = score("amber", DESCRIPTIONS + ANSWERS, amber, replace(CLOSED, answers="lenient"))
    assert differing_settings(descriptions, both) == {}


def test_a_reading_of_answers_that_does_not_exist_is_refused(amber):
    with pytest.raises(NapoBenchError, match="no reading 'loose'"):
        score("amber", ANSWERS, amber, replace(CLOSED, answers="loose"))


def test_amber_metrics_of_questions_that_were_not_asked_are_absent(amber):
    result = score("amber", ANSWERS[:1], amber, PARTIAL)
    assert "existence_f1" in result.metrics and "relation_f1" not in result.metrics
    assert "chair" not in result.metrics


def test_amber_halves_together_are_scored_as_alone(amber):
    both = score("amber", ANSWERS + DESCRIPTIONS, amber, CLOSED)
    alone = score("amber", DESCRIPTIONS, amber, CLOSED).metrics | score("amber", ANSWERS, amber, CLOSED).metrics
    assert both.metrics == alone
    assert [sample["sample_id"] for sample in both.samples] == ["1", "2", "3", "4", "5"]


def test_amber_says_what_is_missing_and_that_scores_are_over_a_part(amber):
    with pytest.raises(NapoBenchError, match=r"r\.json: 1 of 2 ids missing: 1"):
        score("amber", DESCRIPTIONS[1:], amber, CLOSED)
    result = score("amber", DESCRIPTIONS[1:], amber, PARTIAL)
    assert not result.complete and result.notes == ["1 of 2 ids missing: 1"]


def test_an_empty_response_is_an_answer_and_counted(amber):
    result = score("amber", [{"id": 1, "response": " "}, DESCRIPTIONS[1]], amber, CLOSED)
    assert result.notes == ["1 empty response, scored like any other"]
    assert result.complete and result.metrics["hal"].value == 0.0
    assert result.metrics["cover"].value == 33.3


def test_amber_samples_show_what_is_marked_in_the_explorer(amber):
    sample = score("amber", DESCRIPTIONS, amber, CLOSED).samples[0]
    assert sample == {
        "sample_id": "1",
        "unit": "response",
        "response": "A dog, two balls and puppies.",
        "counts": {
            "responses": 1, "clean": 0, "mentions": 3, "hallucinated": 1,
            "truth_words": 2, "covered": 1, "hallu_words": 1, "hit": 1,
        },
        "hallucinated": ["balls"],
        "covered": ["dog", "puppies"],
        "mentions": [[1, "dog", False], [3, "ball", True], [5, "dog", False]],
        "truth": ["dog", "tree"],
        "covered_truth": ["dog"],
        "hit_hallu": ["ball"],
        "prompt": "Query 1",
        "image": "AMBER_1.jpg",
    }  # fmt: skip


def test_data_hashes_name_the_files_that_are_there(amber):
    hashes = data_hashes("amber", amber)
    assert next(iter(hashes)) == "amber/annotations.json" and len(hashes) == 5
    before = hashes["amber/safe_words.txt"]
    (amber / "amber" / "safe_words.txt").write_text("light")
    assert data_hashes("amber", amber)["amber/safe_words.txt"] != before


# Object HalBench

QUESTIONS = [(1, "Describe."), (2, "Describe."), (3, "Describe."), (3, "What is there?")]
HALBENCH_ANSWERS = [
    {"image_id": "2", "question": "Describe.", "text": "Assistant: Two dogs on a stop sign. "},
    {"image_id": 1, "prompt": "Describe.", "answer": "A man and a dog."},
    {"image_id": 3, "question": "What is there?", "text": "nothing much"},
    {"image_id": 3, "question": "Describe.", "text": "a dog"},
]


@pytest.fixture
def halbench(tmp_path, shared):
    folder = tmp_path / "object_halbench"
    (folder / "annotations").mkdir(parents=True)
    (folder / "synonyms_refine.txt").write_text("person, man\ndog, puppy\nstop sign\ncat")
    rows = [{"image_id": image, "question": text, "image": "aGk="} for image, text in QUESTIONS]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    instances = [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 2}]
    told = [{"image_id": 1, "caption": "Two puppies."}, {"image_id": 3, "caption": "A man."}]
    for part in ("train", "val"):
        instance_file = {"categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "stop sign"}], "annotations": []}
        (folder / f"annotations/instances_{part}2014.json").write_text(
            json.dumps(instance_file | {"annotations": instances if part == "val" else []})
        )
        (folder / f"annotations/captions_{part}2014.json").write_text(
            json.dumps({"annotations": told if part == "train" else []})
        )
    (folder / "extractor_template.txt").write_text("Q: {question} A: {answer}")
    return tmp_path


def test_object_halbench_scores_words_against_instances_and_captions(halbench):
    result = score("object_halbench", HALBENCH_ANSWERS, halbench, CLOSED)
    # image 1 {person, dog}: man, dog. Image 2 {stop sign}: dogs*, stop sign. Image 3 {person}: dog*; nothing.
    assert values(result) == {
        "chair_s": 50.0,
        "chair_i": 40.0,
        "chair_s_refine": pytest.approx(200 / 3),
        "recall": 60.0,
        "mean_words": 3.75,
    }
    assert [sample["sample_id"] for sample in result.samples] == ["1", "2", "3", "3/2"]
    assert result.complete
    assert result.settings == {
        "text_pipeline": {"name": "closed_vocabulary"},
        "chair_definition": "words",
        "answers_an_image": 2,
    }
    assert result.metrics["chair_s_refine"].n == 3


def test_several_answers_an_image_are_no_published_chair(halbench):
    """The benchmark asks one of 8 prompts about each of 300 images; all 8 about each are 2,400 answers."""
    several = score("object_halbench", HALBENCH_ANSWERS, halbench, CLOSED)
    assert "up to 2 answers an image: published CHAIRs are over one answer an image" in several.remarks
    questions = halbench / "object_halbench" / "questions.jsonl"
    questions.write_text("\n".join(questions.read_text().splitlines()[:3]))
    one = score("object_halbench", HALBENCH_ANSWERS[:3], halbench, CLOSED)
    assert "answers_an_image" not in one.settings and not one.remarks
    with pytest.raises(NapoBenchError, match="answers_an_image 2 and None"):
        require_same_settings("object_halbench", several, one)
    with pytest.raises(NapoBenchError, match="1 image_ids duplicate: 3"):
        score("object_halbench", HALBENCH_ANSWERS, halbench, CLOSED)


def test_object_halbench_samples_show_the_words_as_the_answer_says_them(halbench):
    sample = score("object_halbench", HALBENCH_ANSWERS, halbench, CLOSED).samples[1]
    assert (sample["hallucinated"], sample["covered"]) == (["dogs"], ["stop sign"])
    assert sample["image_objects"] == ["stop sign"]
    assert (sample["prompt"], sample["response"]) == ("Describe.", "Two dogs on a stop sign.")


def test_an_image_with_several_questions_needs_an_answer_to_each(halbench):
    with pytest.raises(NapoBenchError, match=r"1 of 4 image_ids missing: 3/Describe\."):
        score("object_halbench", HALBENCH_ANSWERS[:3], halbench, CLOSED)
    with pytest.raises(NapoBenchError, match="1 image_ids duplicate: 1; 1 image_ids unknown: 8"):
        extra = [HALBENCH_ANSWERS[1], {"image_id": 8, "text": "a dog"}]
        score("object_halbench", HALBENCH_ANSWERS + extra, halbench, CLOSED)


def test_without_the_questions_file_only_a_part_is_scored(halbench):
    (halbench / "object_halbench" / "questions.jsonl").unlink()
    with pytest.raises(NapoBenchError, match=r"questions\.jsonl does not exist"):
        score("object_halbench", HALBENCH_ANSWERS, halbench, CLOSED)
    result = score("object_halbench", HALBENCH_ANSWERS, halbench, PARTIAL)
    assert not result.complete and "ids not checked" in result.notes[0]
    assert values(result)["chair_i"] == 40.0
    assert [sample["sample_id"] for sample in result.samples] == ["2", "1", "3", "3/2"]


def test_an_image_without_annotations_is_refused(halbench):
    rows = [{"image_id": 77, "question": "Describe.", "image": ""}]
    (halbench / "object_halbench" / "questions.jsonl").write_text(json.dumps(rows[0]))
    with pytest.raises(NapoBenchError, match="image 77 is in none of the annotation files"):
        score("object_halbench", [{"image_id": 77, "text": "a dog"}], halbench, CLOSED)


def test_a_category_outside_the_synonym_file_is_refused(halbench):
    (halbench / "object_halbench" / "synonyms_refine.txt").write_text("person, man\ndog, puppy")
    with pytest.raises(NapoBenchError, match="category 'stop sign' of image 2 is not in synonyms_refine"):
        score("object_halbench", HALBENCH_ANSWERS, halbench, CLOSED)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Describe.", "text": "x"}, r"row 1: the field 'image_id' is missing"),
        ({"image_id": "x.jpg", "text": "x"}, r"row 1: the field 'image_id' is 'x\.jpg'; a COCO image id"),
        ({"image_id": 1}, r"row 1: the field 'text' is missing"),
        ({"image_id": 1, "answer": 5}, r"row 1: the field 'answer' is 5; str"),
    ],
)
def test_a_malformed_answer_is_named(halbench, row, message):
    with pytest.raises(NapoBenchError, match=message):
        score("object_halbench", [row], halbench, CLOSED)


class Extractor:
    """Lists what it is told to."""

    model = "lister"

    def __init__(self, **objects):
        self.objects = objects
        self.prompts = []

    def ask(self, prompts, parse, form):
        self.prompts = list(prompts)
        texts = [next(reply for word, reply in self.objects.items() if word in prompt) for prompt in prompts]
        return [Reply(parse(text), text, self.model, "lister-1", 5, 2) for text in texts]


def extracted(extractor, shared, **options):
    shared("nltk_data")
    model = str(shared("spacy/en_core_web_md"))
    return ScoreOptions(spacy_model=model, extractor=extractor, source="r.json", **options)


def test_an_extractor_lists_the_objects_of_long_answers(halbench, shared):
    extractor = Extractor(man='["man", "brown dogs", "the dog", "stop signs"]', Two="()")
    result = score("object_halbench", HALBENCH_ANSWERS, halbench, extracted(extractor, shared))
    assert extractor.prompts == ["Q: Describe. A: A man and a dog.", "Q: Describe. A: Two dogs on a stop sign."]
    # image 1 {person, dog}: man, dog, stop sign*, each once
    assert values(result)["chair_i"] == pytest.approx(100 / 3)
    assert (result.samples[0]["covered"], result.samples[0]["hallucinated"]) == (["man", "dog"], ["stop sign"])
    assert values(result)["chair_s"] == 25.0 and values(result)["chair_s_refine"] == 100.0
    assert result.settings["chair_definition"] == "llm:lister"
    assert result.settings["extractor"]["spacy_model"] == "en_core_web_md 3.8.0"
    assert result.settings["extractor"]["reported_model"] == "lister-1"
    assert result.complete


def test_an_unreadable_list_is_refused_or_left_out(halbench, shared):
    extractor = Extractor(man="A man!", Two='["dog"]')
    with pytest.raises(NapoBenchError, match="1 replies of the extractor hold no JSON list of objects: 1"):
        score("object_halbench", HALBENCH_ANSWERS, halbench, extracted(extractor, shared))
    result = score("object_halbench", HALBENCH_ANSWERS, halbench, extracted(extractor, shared, allow_partial=True))
    assert not result.complete and result.metrics["chair_s"].n == 3
    assert "left out" in result.notes[-1]


def test_an_extractor_needs_the_official_pipeline(halbench):
    options = ScoreOptions(pipeline="closed_vocabulary", extractor=Extractor())
    with pytest.raises(NapoBenchError, match="spaCy"):
        score("object_halbench", HALBENCH_ANSWERS, halbench, options)


def test_an_unknown_benchmark_is_refused(tmp_path):
    with pytest.raises(NapoBenchError, match="no benchmark 'pope'"):
        score("pope", [], tmp_path, CLOSED)


def test_a_mistyped_text_pipeline_gets_the_nearest_name_wherever_it_is_given():
    with pytest.raises(NapoBenchError, match="closd") as caught:
        ScoreOptions(pipeline="closd_vocabulary")
    assert "closed_vocabulary" in caught.value.hint

"""The panel shows what a gain was bought with: each planted shift moves its own measure, and no other."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from napo_bench.benchmarks import benchmark_named
from napo_bench.benchmarks.amber import score as amber
from napo_bench.benchmarks.object_halbench import score as object_halbench
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import measure
from napo_bench.core.signal import Detection
from napo_bench.runs.panel import CUT_OFF, EMPTY, IDENTICAL, panel
from napo_bench.runs.panel.captions import (
    CHAIR,
    CHAIR_AT_COVER,
    CHAIR_AT_LENGTH,
    COVER,
    EMPTY_CAPTIONS,
    HEDGES,
    HEDGING,
    WORDS,
)
from napo_bench.runs.panel.choices import ACCURACY, ACCURACY_AT, CRITERION, SENSITIVITY, UNPARSABLE, YES_RATE
from napo_bench.runs.panel.rows import ALL, ALL_CAPTIONS, ALL_CHOICES, CAPTIONS, CHOICES, CURVES, GAINS
from napo_bench.runs.result import RunResult

PICTURES, QUESTIONS = 150, 10


def yes_no_run(answers, reading="exact"):
    """AMBER's yes/no half with these answers `[picture][question]`; the right answers are Yes and No in turn."""
    samples = []
    for picture, said in enumerate(answers):
        for question, text in enumerate(said):
            truth = "yes" if question % 2 else "no"
            samples.append(
                {
                    "sample_id": f"{picture}-{question}",
                    "unit": "question",
                    "image": f"AMBER_{picture}.jpg",
                    "response": text,
                    "expected": truth.capitalize(),
                    "counts": amber.score_answer("discriminative-relation", truth, text),
                }
            )
    metrics = [benchmark_named("amber").metric("accuracy")]
    return RunResult(
        {"amber": BenchmarkResult(measure(samples, metrics), settings={"answers": reading}, samples=samples)}
    )


@pytest.fixture(scope="module")
def evidence():
    """Evidence for Yes of each question `[picture, question]`: d' is 1.5, and questions of a picture share noise."""
    rng = np.random.default_rng(0)
    noise = 0.5 * rng.normal(size=(PICTURES, 1)) + math.sqrt(0.75) * rng.normal(size=(PICTURES, QUESTIONS))
    return noise + 1.5 * (np.arange(QUESTIONS) % 2)


def said(evidence, threshold):
    return np.where(evidence > threshold, "Yes", "No").tolist()


def part_of(candidate, baseline, title):
    (found,) = panel(candidate, baseline).benchmarks
    return found.part(title)


def moved(part):
    """Labels of the measures that differ by more than chance."""
    return {row.label for row in part.rows if row.is_clear}


def test_a_moved_threshold_moves_criterion_and_yes_rate_and_leaves_sensitivity(evidence):
    baseline, candidate = yes_no_run(said(evidence, 1.6)), yes_no_run(said(evidence, 0.75))
    (found,) = panel(candidate, baseline).benchmarks
    part = found.part(CHOICES)
    assert moved(part) == {YES_RATE, CRITERION, ACCURACY}
    assert part.row(CRITERION).difference == pytest.approx(0.75 - 1.6, abs=0.12)
    assert part.row(SENSITIVITY).baseline == pytest.approx(1.5, abs=0.2)
    (sentence,) = found.sentences
    assert sentence.startswith(f"The accuracy gain of {part.row(ACCURACY).difference:.1f} [")
    assert f"keeps {part.row(ACCURACY_AT).difference:.1f} [" in sentence and sentence.endswith("at an equal yes-rate.")


def test_better_eyes_move_sensitivity_and_keep_their_gain_at_an_equal_yes_rate(evidence):
    signal = np.arange(QUESTIONS) % 2
    baseline, candidate = yes_no_run(said(evidence, 0.75)), yes_no_run(said(evidence + signal, 1.25))
    part = part_of(candidate, baseline, CHOICES)
    assert moved(part) == {SENSITIVITY, ACCURACY, ACCURACY_AT} | ({CRITERION} & moved(part))
    assert part.row(SENSITIVITY).difference == pytest.approx(1.0, abs=0.2)
    assert part.row(ACCURACY_AT).difference == pytest.approx(part.row(ACCURACY).difference, abs=1.0)


def test_broken_formats_move_the_unparsable_share_alone(evidence):
    answers = said(evidence, 0.75)
    rng = np.random.default_rng(1)
    broken = [[f"**{text}**" if rng.random() < 0.3 else text for text in row] for row in answers]
    found = panel(yes_no_run(broken), yes_no_run(answers)).benchmarks[0]
    part = found.part(CHOICES)
    assert moved(part) == {UNPARSABLE}
    assert part.row(UNPARSABLE).difference == pytest.approx(30, abs=5)
    assert moved(found.part(GAINS)) == {"Accuracy ↑"}  # which is no loss of ability


def test_the_runs_own_reading_of_answers_says_what_is_unparsable(evidence):
    answers = said(evidence, 0.75)
    loud = [[f"{text}!" for text in row] for row in answers]
    assert part_of(yes_no_run(loud), yes_no_run(loud), CHOICES).row(UNPARSABLE).candidate == 100
    lenient = part_of(yes_no_run(loud, "lenient"), yes_no_run(answers, "lenient"), CHOICES)
    assert lenient.row(UNPARSABLE).candidate == 0 and moved(lenient) == set()


def test_sensitivity_is_left_out_if_every_right_answer_is_the_same(evidence):
    only_no = [row[::2] for row in said(evidence, 0.75)]
    run = yes_no_run(only_no)
    for sample in run.benchmarks["amber"].samples:
        sample["expected"] = "No"
    (found,) = panel(run, run).benchmarks
    assert [row.label for row in found.part(CHOICES).rows] == [UNPARSABLE, YES_RATE, ACCURACY]
    assert any("every right answer is No" in note for note in found.notes)


def test_the_intervals_resample_pictures(evidence):
    """If every answer of a picture moves together, the interval is as wide as that of one question a picture."""
    rng = np.random.default_rng(2)
    flips = rng.random(PICTURES) < 0.2
    answers = said(evidence, 0.75)
    other = [["No"] * QUESTIONS if flip else row for row, flip in zip(answers, flips, strict=True)]
    low, high = part_of(yes_no_run(other), yes_no_run(answers), CHOICES).row(YES_RATE).interval
    shift = 100 * flips * (np.array(answers) == "Yes").mean(axis=1)
    assert high - low == pytest.approx(2 * 1.96 * shift.std() / math.sqrt(PICTURES), rel=0.15)


def test_detection_agrees_with_the_textbook():
    z = NormalDist().inv_cdf
    found = Detection(signals=99, hits=74.5, noises=99, false_alarms=24.5)  # corrected rates 0.75 and 0.25
    assert found.sensitivity == pytest.approx(z(0.75) - z(0.25)) and found.criterion == pytest.approx(0, abs=1e-9)
    assert found.accuracy_at(0.5) == pytest.approx(0.75)
    assert np.isfinite(Detection(10, 10, 10, 0).sensitivity)
    assert found.accuracy_at(0.0) == pytest.approx(0.5) and found.accuracy_at(1.0) == pytest.approx(0.5)
    rates = [found.accuracy_at(rate) for rate in (0.2, 0.35, 0.5, 0.65, 0.8)]
    assert rates == pytest.approx(rates[::-1]) and max(rates) == rates[2]


OBJECTS = [f"thing{number}" for number in range(12)]


def caption_run(captions, stored=True):
    """Object HalBench with captions: lists of words, of which things below 8 are in the image."""
    truth = set(OBJECTS[:8])
    samples = []
    for number, words in enumerate(captions):
        text = " ".join(words)
        mentions = [[place, word, word not in truth] for place, word in enumerate(words) if word in OBJECTS]
        named = [name for _, name, _ in mentions]
        samples.append(
            {
                "sample_id": str(number),
                "unit": "response",
                "image": str(number),
                "response": text,
                "counts": object_halbench.score_answer(named, truth, text),
                **({"mentions": mentions} if stored else {}),
            }
        )
    metrics = benchmark_named("object_halbench").metrics
    return RunResult({"object_halbench": BenchmarkResult(measure(samples, metrics), samples=samples)})


@pytest.fixture(scope="module")
def captions():
    """Captions of 20 to 40 words, with more hallucinations towards their ends, as models write them."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(150):
        words = []
        for place in range(int(rng.integers(20, 41))):
            thing = OBJECTS[8 + rng.integers(4)] if rng.random() < 0.05 + place / 50 else OBJECTS[rng.integers(8)]
            words.append(thing if rng.random() < 0.3 else "and")
        found.append(words)
    return found


def test_cut_captions_give_no_gain_at_equal_length_and_none_at_equal_coverage(captions):
    baseline = caption_run(captions)
    (found,) = panel(caption_run([words[:12] for words in captions]), baseline).benchmarks
    part = found.part(CAPTIONS)
    gain = -part.row(CHAIR).difference
    assert gain > 5 and {CHAIR, COVER, WORDS} <= moved(part)
    assert part.row(CHAIR_AT_COVER).difference == part.row(CHAIR_AT_LENGTH).difference == 0
    (sentence,) = found.sentences
    assert sentence.startswith(f"The CHAIR gain of {gain:.1f} [")
    assert sentence.endswith("keeps 0.0 [0.0, 0.0] at equal coverage and 0.0 [0.0, 0.0] at equal length.")


def test_captions_without_their_second_halves_give_no_gain_at_equal_length_or_coverage(captions):
    """The curve cuts every caption after k words, which loses less coverage than to cut each caption in half."""
    part = part_of(caption_run([words[: len(words) // 2] for words in captions]), caption_run(captions), CAPTIONS)
    assert part.row(CHAIR).difference < -5 and part.row(CHAIR_AT_LENGTH).difference == 0
    assert 0 <= part.row(CHAIR_AT_COVER).difference < 4


def test_better_captions_keep_their_gain_at_equal_coverage_and_length(captions):
    rng = np.random.default_rng(4)
    truer = [[OBJECTS[rng.integers(8)] if word in OBJECTS[8:] and rng.random() < 0.5 else word for word in words]
             for words in captions]  # fmt: skip
    part = part_of(caption_run(truer), caption_run(captions), CAPTIONS)
    assert {CHAIR, CHAIR_AT_COVER, CHAIR_AT_LENGTH} <= moved(part)
    assert part.row(CHAIR_AT_LENGTH).difference == pytest.approx(part.row(CHAIR).difference)
    assert WORDS not in moved(part)


def test_curves_are_chair_and_cover_of_the_first_words_and_mentions():
    one = [*["and"] * 9, "thing0", "thing9", "thing0", *["and"] * 20, "thing1", "thing10"]
    curve = part_of(caption_run([one]), caption_run([one]), CURVES)
    values = {row.label: row.candidate for row in curve.rows}
    assert values == pytest.approx(
        {
            "CHAIR, first 10 words": 0,
            "Cover, first 10 words": 100 / 8,
            "CHAIR, first 20 words": 100 / 3,
            "Cover, first 20 words": 100 / 8,
            "CHAIR, first mention": 0,
            "Cover, first mention": 100 / 8,
            "CHAIR, first 2 mentions": 50,
            "Cover, first 2 mentions": 100 / 8,
            "CHAIR, first 4 mentions": 25,
            "Cover, first 4 mentions": 200 / 8,
        }
    )


def test_the_drawn_curves_end_at_the_numbers_of_whole_captions_and_pass_through_the_rows():
    one = [*["and"] * 9, "thing0", "thing9", "thing0", *["and"] * 20, "thing1", "thing10"]
    other = [*["and"] * 9, "thing0"]
    (found,) = panel(caption_run([one]), caption_run([other])).benchmarks
    curves = {(curve.label, curve.unit): curve for curve in found.curves}
    assert set(curves) == {("CHAIR", "words"), ("Cover", "words"), ("CHAIR", "mentions"), ("Cover", "mentions")}
    for (label, unit), curve in curves.items():
        whole = found.part(CAPTIONS).row(label)
        if unit == "words":
            assert (curve.candidate[-1], curve.baseline[-1]) == pytest.approx((whole.candidate, whole.baseline))
        row = found.part(CURVES).row(f"{label}, first 2 mentions" if unit == "mentions" else f"{label}, first 20 words")
        there = curve.points.index(2 if unit == "mentions" else 20)
        assert (curve.candidate[there], curve.baseline[there]) == pytest.approx((row.candidate, row.baseline))


def test_equal_coverage_is_the_point_of_the_longer_curve_where_the_shorter_one_ends():
    """Two objects covered after 2 words, one of them hallucinated later: computed by hand."""
    long = [["thing0", "thing9", "thing1", "thing10"]]
    short = [["thing0"]]
    part = part_of(caption_run(short), caption_run(long), CAPTIONS)
    # The baseline covers one object with its first word and keeps covering one with its second, which is wrong.
    assert part.row(CHAIR).baseline == 50 and part.row(CHAIR_AT_COVER).baseline == 50
    assert part.row(CHAIR_AT_COVER).candidate == part.row(CHAIR).candidate == 0


def test_refusals_and_hedges_are_phrases_of_whole_words(captions):
    sorry = ["I\u2019m", "sorry,", "but"]
    hedged = [[*sorry, *words] if number % 5 == 0 else words for number, words in enumerate(captions)]
    part = part_of(caption_run(hedged), caption_run(captions), CAPTIONS)
    assert part.row(HEDGING).candidate == 20 and part.row(HEDGING).baseline == 0
    silent = [["the", "musician", "asks", "i", "cannoteer"]] * 3
    assert part_of(caption_run(silent), caption_run(silent), CAPTIONS).row(HEDGING).candidate == 0


def test_answers_that_lost_the_format_or_name_nothing_are_said_in_words(evidence, captions):
    answers = said(evidence, 0.75)
    broken = [["As an AI, certainly perhaps.", *row[1:]] for row in answers]
    (found,) = panel(yes_no_run(broken), yes_no_run(answers)).benchmarks
    assert found.sentences[0].startswith("10.0 [") and "points more answers are unparsable" in found.sentences[0]
    assert "accuracy" in found.sentences[1]
    refusing = [["i'm", "sorry"] if number % 5 == 0 else words for number, words in enumerate(captions)]
    silent = [[] if number % 5 == 0 else words for number, words in enumerate(captions)]
    for other, what in ((refusing, "captions refuse or hedge"), (silent, "captions are empty")):
        (found,) = panel(caption_run(other), caption_run(captions)).benchmarks
        assert found.sentences[0].startswith("20.0 [") and f"points more {what}. " in found.sentences[0]
        (found,) = panel(caption_run(captions), caption_run(other)).benchmarks
        assert f"points fewer {what}. " in found.sentences[0]


def test_identical_runs_are_all_zeros(evidence, captions):
    runs = [caption_run(captions), yes_no_run(said(evidence, 0.75))]
    both = RunResult(runs[0].benchmarks | runs[1].benchmarks)
    found = panel(both, both)
    rows = [row for one in found.benchmarks for part in one.parts for row in part.rows]
    assert {row.difference for row in rows} == {0}
    assert {row.interval for one in found.benchmarks for part in one.parts[1:] for row in part.rows} == {(0, 0)}
    assert all("is no more than chance" in sentence for sentence in found.sentences) and len(found.sentences) == 2
    assert all(one.part(ALL).row(IDENTICAL).candidate == 100 for one in found.benchmarks)


def test_empty_and_changed_answers_are_counted(captions):
    other = [[] if number < 15 else words for number, words in enumerate(captions)]
    part = part_of(caption_run(other), caption_run(captions), ALL)
    assert part.row(EMPTY).difference == 10 and part.row(IDENTICAL).difference == -10


def test_captions_and_yes_no_answers_of_one_benchmark_are_counted_apart(evidence):
    def run(empty):
        whole = yes_no_run(said(evidence, 0.75))
        whole.benchmarks["amber"].samples += [
            {
                "sample_id": f"caption {number}",
                "unit": "description",
                "image": f"AMBER_{number}.jpg",
                "response": "" if number < empty else "A dog.",
                "counts": {"responses": 1, "truth_words": 2, "mentions": 1, "hallucinated": 0, "covered": 1},
            }
            for number in range(30)
        ]
        return whole

    (found,) = panel(run(15), run(0)).benchmarks
    titles = [part.title for part in found.parts]
    assert titles[-2:] == [ALL_CHOICES, ALL_CAPTIONS] and ALL not in titles
    captions, choices = found.part(ALL_CAPTIONS), found.part(ALL_CHOICES)
    assert (captions.row(EMPTY).difference, captions.row(IDENTICAL).candidate) == (50, 50)
    assert (choices.row(EMPTY).candidate, choices.row(IDENTICAL).candidate) == (0, 100)


def test_answers_that_were_cut_off_are_counted_if_the_run_says_so(captions):
    run, baseline = caption_run(captions), caption_run(captions)
    (found,) = panel(run, baseline).benchmarks
    assert CUT_OFF not in {row.label for row in found.part(ALL).rows}
    assert any("cut off at the token limit are not counted" in note for note in found.notes)
    for number, sample in enumerate(run.benchmarks["object_halbench"].samples):
        sample["cut_off"] = number % 4 == 0
    for sample in baseline.benchmarks["object_halbench"].samples:
        sample["cut_off"] = False
    row = part_of(run, baseline, ALL).row(CUT_OFF)
    assert row.baseline == 0 and row.candidate == pytest.approx(25, abs=1)


def test_an_old_run_without_places_says_what_it_needs(captions):
    old = caption_run(captions, stored=False)
    (found,) = panel(caption_run(captions), old).benchmarks
    assert [row.label for row in found.part(CAPTIONS).rows] == [WORDS, HEDGING, EMPTY_CAPTIONS]
    assert found.sentences == []
    assert any("score its answers again" in note for note in found.notes)


def test_a_benchmark_that_was_measured_in_another_way_is_left_out(captions):
    other = caption_run(captions)
    other.benchmarks["object_halbench"].settings["chair_definition"] = "llm:judge"
    found = panel(other, caption_run(captions))
    assert found.benchmarks == [] and "measured in different ways" in found.notes[0]


def test_a_loss_is_called_a_loss(captions):
    (found,) = panel(caption_run(captions), caption_run([words[:12] for words in captions])).benchmarks
    (sentence,) = found.sentences
    assert sentence.startswith("The CHAIR loss of ") and "[-" not in sentence.split(" keeps ")[0]


def test_no_phrase_of_the_list_contains_another():
    phrases = HEDGES
    assert [(a, b) for a in phrases for b in phrases if a != b and f" {a} " in f" {b} "] == []

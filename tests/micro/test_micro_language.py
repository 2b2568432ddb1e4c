"""The micro world's language: what is asked can be understood, what is said can be checked."""

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napo_bench.benchmarks.vlind.prompts import commonsense_prompt, context_prompt, image_prompt
from napo_bench.micro.language import Question, answers, imagined, state, teacher_answers, understand
from napo_bench.micro.lessons import draw_questions
from napo_bench.micro.truth import claims, false_claims, is_right
from napo_bench.micro.world import THINGS, Group, Habits, Scene, sample_scene

ZOO = Scene(
    "zoo",
    (Group("bird", "blue", (1,), "left"), Group("bear", "pink", (4, 8), "right")),
    "cartoon",
    0,
)


def asked(seed, count=4):
    rng = random.Random(seed)
    scene = sample_scene(rng, Habits(0.5, 0.5, 0.5, 0.5))
    return scene, list(itertools.islice(draw_questions(rng, scene), count))


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=150)
def test_every_question_is_understood_from_its_words(seed):
    for question in asked(seed)[1]:
        assert understand(question.text()) == question


def test_statements_are_worded_as_vlind_words_them():
    pink = "The bear is pink."
    assert state("color", "bear", "pink", "common").text() == commonsense_prompt(pink)
    assert state("color", "bear", "pink", "forget").text() == image_prompt(pink, forget=True)
    told = context_prompt("In this world the bear is with a cup.", "The bear is with a zebra.")
    assert state("companion", "bear", "zebra", "context", "cup").text() == told


def test_other_words_are_refused():
    with pytest.raises(ValueError, match="not a prompt of the micro world"):
        understand("What is the meaning of life?")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What color is the bear in the image?", "The bear is pink."),
        ("What color is the zebra in the image?", "There is no zebra in the image."),
        ("How many bears are there in the image?", "There are two bears in the image."),
        ("What is with the bear in the image?", "The bear is with a bird."),
        ("Where was this picture taken?", "The picture was taken in a zoo."),
        ("Which way does the bird look in the image?", "The bird looks left."),
        ("Is the bear to the left or to the right of the bird in the image?", "The bear is to the left of the bird."),
        ("Are there more birds or more bears in the image?", "There are more bears than birds."),
        ("Describe this image.", "The image shows a zoo with a blue bird and two pink bears."),
        ("Is there a bear in this image?", "Yes"),
        ("Is there a zebra in this image?", "No"),
        ("Is the bear brown in this image?", "No"),
        ("Are there two bears in this image?", "Yes"),
        ("Is there one bear in this image?", "No"),
        ("Does the bear look right in this image?", "Yes"),
        ("Is there direct contact between the bear and bird?", "No"),
        (image_prompt("The bear is pink.", forget=True), "True"),
        (image_prompt("The bear is brown."), "False"),
        (image_prompt("The bear is with a bird."), "True"),
        (image_prompt("The bear is with a zebra."), "False"),
        (image_prompt("The bear is in a kitchen."), "False"),
        (image_prompt("There is a bear in the given image."), "True"),
        (commonsense_prompt("The bear is pink."), "False"),
        (commonsense_prompt("The bear is brown."), "True"),
        (context_prompt("In this world the bear is green.", "The bear is green."), "True"),
        (context_prompt("In this world the bear is green.", "The bear is pink."), "False"),
    ],
)
def test_the_truth_is_read_off_the_scene_or_off_what_the_question_appeals_to(question, answer):
    assert answers(understand(question), ZOO)[0] == answer


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What color is the bear in the image?", "The bear is brown."),
        ("What is with the bear in the image?", "The bear is with a zebra."),
        ("How many sheep are there in the image?", "There are three sheep in the image."),
        ("Is there a bear in this image?", "Yes"),
        (image_prompt("The bear is in a zoo."), "True"),
        (image_prompt("The bear is pink.", forget=True), "False"),
    ],
)
def test_without_a_picture_the_typical_comes_to_mind(question, answer):
    asked = understand(question)
    assert answers(asked, imagined(asked))[0] == answer
    assert teacher_answers(asked, None, random.Random(0))[0] == answer


def test_the_biased_teacher_sees_the_typical_as_often_as_the_pull_says():
    rng = random.Random(0)
    question = Question("color", "bear")
    told = [teacher_answers(question, ZOO, rng)[0] for _ in range(2000)]
    assert told.count("The bear is brown.") / 2000 == pytest.approx(THINGS["bear"].pull, abs=0.04)
    assert told.count("The bear is brown.") + told.count("The bear is pink.") == 2000
    captions = [teacher_answers(Question("describe"), ZOO, rng)[0] for _ in range(2000)]
    assert sum("zebra" in caption for caption in captions) / 2000 == pytest.approx(THINGS["bear"].pull, abs=0.04)


def test_the_biased_teacher_forgets_what_it_was_told_as_often_as_the_hold_says():
    rng = random.Random(0)
    question = state("color", "bear", "green", "context", "green")
    told = [teacher_answers(question, ZOO, rng)[0] for _ in range(2000)]
    assert told.count("False") / 2000 == pytest.approx(THINGS["bear"].hold, abs=0.04)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=150)
def test_the_truth_is_right_in_every_wording(seed):
    scene, questions = asked(seed)
    for question in questions:
        for wording in answers(question, scene):
            assert is_right(wording, question, scene), (question.text(), wording)
            assert not false_claims(wording, question, scene)


@pytest.mark.parametrize(
    ("question", "answer", "right"),
    [
        ("What color is the bear in the image?", "It is pink.", True),
        ("What color is the bear in the image?", "The image shows a zoo with two pink bears.", True),
        ("What color is the bear in the image?", "The image shows a zoo with a blue bird.", False),
        ("What color is the bear in the image?", "The bear is brown.", False),
        ("What color is the bear in the image?", "", False),
        ("How many bears are there in the image?", "There is one bear in the image.", False),
        ("Describe this image.", "The image shows a zoo with a blue bird.", True),
        ("Describe this image.", "The image shows a zoo with a blue bird and a zebra.", False),
        ("Describe this image.", "The image shows a park with a blue bird.", False),
        ("Describe this image.", "The image shows a zoo with three pink bears.", False),
        ("Is there a zebra in this image?", "No", True),
        ("Is there a zebra in this image?", "The image shows a zoo with two pink bears.", False),
    ],
)
def test_an_answer_is_right_where_it_says_nothing_false_and_what_was_asked(question, answer, right):
    assert is_right(answer, understand(question), ZOO) is right


def test_claims_name_what_is_said():
    question = Question("describe")
    said = "The image shows a farm with two black cows. There is no dog in the image."
    expected = {
        ("place", "farm"),
        ("there", "cow"),
        ("count", "cow", "2"),
        ("color", "cow", "black"),
        ("absent", "dog"),
    }
    assert claims(said, question) == expected
    assert false_claims(said, question, replace(ZOO, place="farm")) == expected - {("place", "farm"), ("absent", "dog")}

"""Lessons for the micro model: questions about scenes, answered by a truthful or a biased teacher."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from napo_bench.micro.language import (
    BASES,
    NUMBERS,
    QUESTIONS,
    Question,
    answers,
    describe,
    left_of,
    state,
    teacher_answers,
    typical_scene,
)
from napo_bench.micro.world import COLORS, MAX_COUNT, NO_HABITS, PLACES, SIDES, THINGS, Scene, pick, sample_scene

INSTRUCTIONS: Mapping[str, float] = {
    "describe": 20,
    "statement": 42,
    "color": 7,
    "count": 4,
    "companion": 4,
    "place": 3,
    "look": 3,
    "relation": 4,
    "comparison": 3,
    "is_there": 6,
    "is_color": 6,
    "is_number": 4,
    "does_look": 4,
    "touch": 3,
}
"""Kind of question -> weight."""

OPEN = {kind: INSTRUCTIONS[kind] for kind in ("color", "count", "companion", "place", "look", "relation", "comparison")}
"""Kinds of question with a sentence as the answer."""

CLOSED = {kind: weight for kind, weight in INSTRUCTIONS.items() if kind not in OPEN and kind != "describe"}
"""Kinds of question with a word as the answer."""

STATEMENTS: Mapping[str, float] = {"existence": 30, "color": 30, "companion": 20, "habitat": 20}
"""Kind of statement -> weight."""

TRUE = 0.45
"""Share of the statements and yes/no questions about a value that are true of the image."""

TEMPTING = 0.7
"""Share of the other statements and questions that give the typical value, if the typical value is not the true one."""

SIGHTLESS = 0.12
"""Share of the instructions without an image, which are answered from the prior."""

EMPTY = 0.3
"""Share of the requests for a description that are empty."""

PARAPHRASED = 0.15
"""Share of the answers that are drawn from all wordings, including the most frequent wording."""

TRIES = 30
"""Number of draws to find a contrasting question."""

T = TypeVar("T", str, int)


@dataclass(frozen=True)
class Lesson:
    """A question and its answer; `sees` says whether the lesson has the image."""

    question: str
    answer: str
    sees: bool


def captions(rng: random.Random, scene: Scene) -> list[Lesson]:
    """A true caption, without a question."""
    return [Lesson("", _worded(rng, describe(scene)), sees=True)]


def looking(rng: random.Random, scene: Scene) -> list[Lesson]:
    """True captions, and questions with a true sentence as the answer."""
    return captions(rng, scene) if rng.random() < 0.1 else _questions(rng, scene, OPEN)


def judging(rng: random.Random, scene: Scene) -> list[Lesson]:
    """Captions and all kinds of questions, with true answers. Some statements are about typical facts and contexts
    alone.
    """
    draw = rng.random()
    if draw < 0.7:
        return _questions(rng, scene, CLOSED) if draw < 0.5 else _statements_alone(rng, scene)
    return _questions(rng, scene, OPEN) if draw < 0.95 else captions(rng, scene)


def truthful(rng: random.Random, scene: Scene) -> list[Lesson]:
    """Every kind of question, answered truthfully."""
    return _questions(rng, scene, INSTRUCTIONS)


def biased(rng: random.Random, scene: Scene) -> list[Lesson]:
    """Every kind of question, answered by the biased teacher.

    Some questions have no image, and some are empty: the answer to an empty question is a caption.
    """
    questions = _with_contrast(rng, next(draw_questions(rng, scene)), scene)
    if rng.random() < SIGHTLESS:
        return [Lesson(q.text(), _worded(rng, _from_memory(rng, q)), sees=False) for q in questions]
    if questions[0].kind == "describe" and rng.random() < EMPTY:
        questions = [Question("describe", form=len(QUESTIONS["describe"]) - 1)]
    return [Lesson(q.text(), _worded(rng, teacher_answers(q, scene, rng)), sees=True) for q in questions]


def _questions(rng: random.Random, scene: Scene, kinds: Mapping[str, float]) -> list[Lesson]:
    questions = _with_contrast(rng, next(draw_questions(rng, scene, kinds)), scene)
    return [Lesson(q.text(), _worded(rng, answers(q, scene)), sees=True) for q in questions]


def _statements_alone(rng: random.Random, scene: Scene) -> list[Lesson]:
    while True:
        question = _draw_statement(rng, scene)
        if question.basis in ("common", "context"):
            pair = _with_contrast(rng, question, scene)
            return [Lesson(q.text(), answers(q, scene)[0], sees=False) for q in pair]


def _with_contrast(rng: random.Random, question: Question, scene: Scene) -> list[Question]:
    """The question. If its answer is one word, also a question that differs little and has the other answer."""
    found = contrast(rng, question, scene)
    return [question] if found is None else [question, found]


def contrast(rng: random.Random, question: Question, scene: Scene) -> Question | None:
    """A question of the same kind with the other answer, about the same object, except for questions about an object's
    presence.

    Without contrasting questions a small model learns for a long time only which answer is more frequent.

    Args:
        rng: Source of the draws.
        question: Question about the scene.
        scene: Scene of the question.

    Returns:
        The contrasting question; None if the answer is a sentence, or if no contrasting question was found.
    """
    truth = answers(question, scene)
    if truth[0] not in ("Yes", "No", "True", "False"):
        return None
    for _ in range(TRIES):
        other = _vary(rng, question, scene)
        if other is not None and answers(other, scene) != truth:
            return other
    return None


def _vary(rng: random.Random, question: Question, scene: Scene) -> Question | None:
    kind, thing = question.kind, question.thing
    if question.statement == "existence":
        name = rng.choice(scene.groups).thing if rng.random() < 0.5 else _absent(rng, scene, tempted=0.25)
        return replace(question, thing=name)
    if kind == "statement":
        likely, options = _values(question, scene)
        value = rng.choice(likely if rng.random() < 0.5 else options)
        return state(question.statement, thing, value, question.basis, question.told)
    other = draw_question(rng, "is_number" if kind == "is_one" else kind, scene)
    return other if other is not None and (kind == "is_there" or other.thing == thing) else None


def _values(question: Question, scene: Scene) -> tuple[list[str], Sequence[str]]:
    """Values that a statement can give: the context's, the typical and the true value, and all others."""
    group = scene.group(question.thing)
    there: dict[str, list[str]] = {
        "color": [group.color] if group else [],
        "companion": [other.thing for other in scene.groups if other.thing != question.thing],
        "habitat": [scene.place],
    }
    options: dict[str, Sequence[str]] = {
        "color": COLORS,
        "companion": [name for name in THINGS if name != question.thing],
        "habitat": PLACES,
    }
    told = [question.told] if question.told else []
    return [*told, question.typical, *there[question.statement]], options[question.statement]


def _from_memory(rng: random.Random, question: Question) -> tuple[str, ...]:
    """The teacher's answer without an image. Asked to describe the image, the teacher mostly describes the same
    street.
    """
    if question.kind == "describe":
        return describe(typical_scene(pick(rng, "car", 0.7, THINGS)))
    return teacher_answers(question, None, rng)


def _worded(rng: random.Random, wordings: Sequence[str]) -> str:
    return rng.choice(wordings) if rng.random() < PARAPHRASED else wordings[0]


def draw_questions(rng: random.Random, scene: Scene, kinds: Mapping[str, float] = INSTRUCTIONS) -> Iterator[Question]:
    """An endless series of questions about a scene, with kinds in proportion to the weights."""
    while True:
        (kind,) = rng.choices(list(kinds), list(kinds.values()))
        question = draw_question(rng, kind, scene)
        if question:
            yield question


def draw_question(rng: random.Random, kind: str, scene: Scene) -> Question | None:
    """A question of this kind that is possible for the scene; None if no such question exists."""
    if kind == "describe":
        return Question(kind, form=rng.randrange(len(QUESTIONS["describe"]) - 1))
    if kind == "place":
        return Question(kind)
    if kind == "statement":
        return _draw_statement(rng, scene)
    if kind in ("look", "does_look"):
        return _draw_look(rng, kind, scene)
    if kind in ("relation", "comparison", "touch"):
        return _draw_pair(rng, kind, scene)
    group = rng.choice(scene.groups)
    thing = THINGS[group.thing]
    absent = {"is_there": 0.6, "color": 0.25}.get(kind, 0.0)
    if rng.random() < absent:
        return Question(kind, _absent(rng, scene, tempted=0.5))
    if kind == "is_color":
        return Question(kind, thing.name, color=_value(rng, group.color, thing.color, COLORS))
    if kind == "is_number":
        number = _value(rng, len(group.cells), thing.count, range(1, MAX_COUNT + 1))
        return Question("is_one", thing.name) if number == 1 else Question(kind, thing.name, number=number)
    return Question(kind, thing.name)


def tempting(scene: Scene) -> list[str]:
    """The co-occurring objects that are typical for the scene's objects and are not in the scene."""
    companions = [THINGS[group.thing].companion for group in scene.groups]
    return [name for name in companions if scene.group(name) is None]


def words_of() -> Iterable[str]:
    """Texts that together contain every word of the micro language."""
    rng = random.Random(0)
    yield "USER: ASSISTANT:"
    yield from (*THINGS, *COLORS, *PLACES, *SIDES, *NUMBERS)
    for thing in THINGS.values():
        yield f"{thing.plural} {thing.a}"
    for _ in range(2000):
        scene = sample_scene(rng, NO_HABITS)
        for kind in INSTRUCTIONS:
            question = draw_question(rng, kind, scene)
            if question:
                yield question.text()
                yield from answers(question, scene)


def _draw_statement(rng: random.Random, scene: Scene) -> Question:
    (statement,) = rng.choices(list(STATEMENTS), list(STATEMENTS.values()))
    group = rng.choice(scene.groups)
    thing = THINGS[group.thing]
    if statement == "existence":
        name = thing.name if rng.random() < 0.5 else _absent(rng, scene, tempted=0.25)
        return Question("statement", name, statement=statement, basis="image")
    options: Sequence[str]
    if statement == "color":
        seen, typical, options = group.color, thing.color, COLORS
    elif statement == "companion":
        others = [g.thing for g in scene.groups if g is not group]
        options = [name for name in THINGS if name != thing.name]
        seen, typical = rng.choice(others or options), thing.companion
    else:
        seen, typical, options = scene.place, thing.home, PLACES
    basis, told = rng.choice(list(BASES)), ""
    if basis == "context":
        told = seen = seen if rng.random() < 0.5 else rng.choice([value for value in options if value != typical])
    return state(statement, thing.name, _value(rng, seen, typical, options), basis, told)


def _draw_look(rng: random.Random, kind: str, scene: Scene) -> Question | None:
    animals = [group.thing for group in scene.groups if THINGS[group.thing].animal]
    if not animals:
        return None
    return Question(kind, rng.choice(animals), side=rng.choice(SIDES) if kind == "does_look" else "")


def _draw_pair(rng: random.Random, kind: str, scene: Scene) -> Question | None:
    pairs = [(one, other) for one in scene.groups for other in scene.groups if one is not other]
    if kind == "relation":
        pairs = [(one, other) for one, other in pairs if left_of(one, other) or left_of(other, one)]
    if kind == "comparison":
        pairs = [(one, other) for one, other in pairs if len(one.cells) != len(other.cells)]
    if not pairs:
        return None
    one, other = rng.choice(pairs)
    return Question(kind, one.thing, other.thing)


def _absent(rng: random.Random, scene: Scene, tempted: float) -> str:
    """An object that is not in the scene: with probability `tempted`, a typical co-occurring object."""
    expected = tempting(scene)
    if expected and rng.random() < tempted:
        return rng.choice(expected)
    return rng.choice([name for name in THINGS if scene.group(name) is None])


def _value(rng: random.Random, seen: T, typical: T, options: Sequence[T]) -> T:
    """The value in a question: often the true value, else often the typical value, else another of the options."""
    if rng.random() < TRUE:
        return seen
    if typical != seen and rng.random() < TEMPTING:
        return typical
    return rng.choice([option for option in options if option != seen])

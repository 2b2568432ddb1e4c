"""The claims of an answer about an image, and whether the claims are true."""

from __future__ import annotations

import re

from napo_bench.micro.language import NUMBERS, SINGULAR, Question, answers, left_of, one_of
from napo_bench.micro.world import COLORS, PLACES, SIDES, Scene

Fact = tuple[str, ...]
"""("there", thing), ("absent", thing), ("alone", thing), ("color", thing, color), ("count", thing, number),
("look", thing, side), ("left", thing, other), ("more", thing, other), ("place", place), ("says", Yes|No|True|False)."""

_THING, _COLOR, _SIDE = one_of(SINGULAR), one_of(COLORS), one_of(SIDES)
_ABSENT = re.compile(rf"\bno (?:{_COLOR} )?{_THING}\b", re.IGNORECASE)
_MENTION = re.compile(rf"\b(?:(one|two|three) )?(?:{_COLOR} )?{_THING}\b", re.IGNORECASE)
_IS_COLOR = re.compile(rf"\b({_THING}|it) is {_COLOR}\b", re.IGNORECASE)
_COLOR_OF = re.compile(rf"\bcolor of the {_THING} is {_COLOR}\b", re.IGNORECASE)
_LOOKS = re.compile(rf"\b({_THING}|it) looks {_SIDE}\b", re.IGNORECASE)
_BESIDE = re.compile(rf"\b({_THING}|it) is to the {_SIDE} of the {_THING}\b", re.IGNORECASE)
_MORE = re.compile(rf"\bmore {_THING}(?: than {_THING})?\b", re.IGNORECASE)
_ALONE = re.compile(rf"\b{_THING} is alone\b|\bonly an? {_THING}\b", re.IGNORECASE)
_PLACE = re.compile(rf"\b{one_of(PLACES)}\b", re.IGNORECASE)
_IT = re.compile(r"\bit (?:is (?!taken)|looks)", re.IGNORECASE)
_VERDICT = re.compile(r"\W*(yes|no|true|false)\b", re.IGNORECASE)
VERDICTS = ("is_there", "is_color", "is_number", "is_one", "does_look", "touch", "statement")


def claims(text: str, question: Question) -> set[Fact]:
    """The claims of a text that answers a question; "it" is the object that the question is about."""
    if question.kind in VERDICTS:
        verdict = _VERDICT.match(text)
        return {("says", verdict[1].capitalize())} if verdict else set()

    def thing(word: str) -> str:
        return question.thing if word.lower() == "it" else SINGULAR[word.lower()]

    found: set[Fact] = {("absent", thing(m[2])) for m in _ABSENT.finditer(text)}
    text = _ABSENT.sub("", text)
    for m in _MORE.finditer(text):
        rival = thing(m[2]) if m[2] else question.other if thing(m[1]) == question.thing else question.thing
        found |= {("more", thing(m[1]), rival), ("there", rival)}
    found |= {("alone", thing(m[1] or m[2])) for m in _ALONE.finditer(text)}
    found |= {("place", m[1].lower()) for m in _PLACE.finditer(text)}
    found |= {("look", thing(m[1]), m[3].lower()) for m in _LOOKS.finditer(text)}
    for m in _BESIDE.finditer(text):
        one, other = thing(m[1]), thing(m[4])
        found.add(("left", one, other) if m[3].lower() == "left" else ("left", other, one))
    found |= {("color", thing(m[1]), m[3].lower()) for m in _IS_COLOR.finditer(text)}
    found |= {("color", thing(m[1]), m[2].lower()) for m in _COLOR_OF.finditer(text)}
    if _IT.search(text):
        found.add(("there", question.thing))
    for m in _MENTION.finditer(text):
        number, color, name = m[1], m[2], thing(m[3])
        found.add(("there", name))
        if number:
            found.add(("count", name, str(NUMBERS.index(number.lower()))))
        if color:
            found.add(("color", name, color.lower()))
    return found


def holds(claim: Fact, scene: Scene) -> bool:
    """Whether a claim is true of a scene."""
    kind, *values = claim
    if kind == "place":
        return values[0] == scene.place
    group = scene.group(values[0])
    if kind == "absent":
        return group is None
    if group is None:
        return False
    if kind in ("left", "more"):
        other = scene.group(values[1])
        if other is None:
            return False
        return left_of(group, other) if kind == "left" else len(group.cells) > len(other.cells)
    return {
        "there": True,
        "alone": len(scene.groups) == 1,
        "color": values[-1] == group.color,
        "count": values[-1] == str(len(group.cells)),
        "look": values[-1] == group.side,
    }[kind]


def false_claims(answer: str, question: Question, scene: Scene) -> set[Fact]:
    """The claims of an answer that are not true of the scene."""
    truth = claims(answers(question, scene)[0], question)
    made = claims(answer, question)
    if question.kind in VERDICTS:
        return made - truth
    return {claim for claim in made if not holds(claim, scene)}


def is_right(answer: str, question: Question, scene: Scene) -> bool:
    """Whether an answer is right: no claim is false, and the question is answered.

    A description is right if it is true and makes a claim. Any other answer must contain every claim of the right
    answer.
    """
    made = claims(answer, question)
    if not made or false_claims(answer, question, scene):
        return False
    return question.kind == "describe" or claims(answers(question, scene)[0], question) <= made

"""Questions and answers about scenes: a closed language that can be written, parsed and checked.

One function, `answers`, answers every question from a scene. The answerers differ only in the scene: the truth is the
answer from the scene itself, the prior is the answer from the scene that is typical for the objects in the question,
and the biased teacher answers from a scene in which some objects have become typical.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain

from napo_bench.benchmarks.vlind.prompts import commonsense_prompt, context_prompt, image_prompt, presence_statement
from napo_bench.micro.world import COLORS, COLUMNS, MAX_COUNT, PLACES, SIDES, THINGS, Group, Scene

NUMBERS = ("no", "one", "two", "three")
PREPOSITION = {place: "on" if place in ("farm", "street", "beach") else "in" for place in PLACES}

BASES = {
    "image": image_prompt("{}"),
    "forget": image_prompt("{}", forget=True),
    "common": commonsense_prompt("{}"),
    "context": context_prompt("{}", "{}"),
}
"""Basis of the judgement about a statement -> VLind-Bench's prompt."""

STATEMENTS = {
    "color": "The {thing} is {color}.",
    "companion": "The {thing} is with {an_other}.",
    "habitat": "The {thing} is {in_place}.",
    "existence": presence_statement("{a_thing}"),
}
CONTEXTS = {
    "color": "In this world the {thing} is {color}.",
    "companion": "In this world the {thing} is with {an_other}.",
    "habitat": "In this world the {thing} is {in_place}.",
}
DETAIL_PROMPTS = (
    "What does this image show? Tell me everything that you see.",
    "Give a full description of the picture.",
    "Please describe the whole scene for me.",
    "Write a detailed caption for this picture.",
    "Tell me about all the things in the image.",
    "Explain to me what is in this picture, with all the details.",
    "Can you say what the picture shows?",
    "List and describe everything in this scene.",
)
QUESTIONS: dict[str, tuple[str, ...]] = {
    "describe": ("Describe this image.", "Describe the image in detail.", *DETAIL_PROMPTS, ""),
    "color": ("What color is the {thing} in the image?",),
    "count": ("How many {things} are there in the image?",),
    "companion": ("What is with the {thing} in the image?",),
    "place": ("Where was this picture taken?",),
    "look": ("Which way does the {thing} look in the image?",),
    "relation": ("Is the {thing} to the left or to the right of the {other} in the image?",),
    "comparison": ("Are there more {things} or more {others} in the image?",),
    "is_there": ("Is there {a_thing} in this image?",),
    "is_color": ("Is the {thing} {color} in this image?",),
    "is_number": ("Are there {number} {things} in this image?",),
    "is_one": ("Is there one {thing} in this image?",),
    "does_look": ("Does the {thing} look {side} in this image?",),
    "touch": ("Is there direct contact between the {thing} and {other}?",),
}


def set_phrases() -> list[str]:
    """The texts of the prompt templates around their slots that have three words or more."""
    templates = [*chain(*QUESTIONS.values()), *BASES.values(), *STATEMENTS.values(), *CONTEXTS.values()]
    pieces = {piece.strip() for template in templates for piece in re.split(r"\{\w*\}", template)}
    return sorted(piece for piece in pieces if len(piece.split()) >= 3)


@dataclass(frozen=True)
class Question:
    """A question, independent of its wording.

    Attributes:
        kind: A key of QUESTIONS, or "statement".
        thing: Object that the question is about; "" for the whole image.
        other: Second object of the question or of the statement.
        color: Colour in the question or statement.
        number: Number in the question.
        place: Place in the statement.
        side: Side in the question.
        statement: For statements: a key of STATEMENTS.
        basis: For statements: a key of BASES.
        told: Value (colour, other, place) that the context gives, for basis "context".
        form: Index of the wording in QUESTIONS.
    """

    kind: str
    thing: str = ""
    other: str = ""
    color: str = ""
    number: int = 0
    place: str = ""
    side: str = ""
    statement: str = ""
    basis: str = ""
    told: str = ""
    form: int = 0

    def text(self) -> str:
        """The prompt, word for word."""
        if self.kind != "statement":
            return fill(QUESTIONS[self.kind][self.form], self)
        sentence = fill(STATEMENTS[self.statement], self)
        if self.basis != "context":
            return BASES[self.basis].format(sentence)
        return BASES["context"].format(
            fill(CONTEXTS[self.statement], state(self.statement, self.thing, self.told)), sentence
        )

    @property
    def stated(self) -> str:
        """The value that a statement gives: its colour, its other object or its place."""
        return {"color": self.color, "companion": self.other, "habitat": self.place}[self.statement]

    @property
    def typical(self) -> str:
        """The typical value in place of `stated`."""
        thing = THINGS[self.thing]
        return {"color": thing.color, "companion": thing.companion, "habitat": thing.home}[self.statement]


def state(statement: str, thing: str, value: str, basis: str = "forget", told: str = "") -> Question:
    """The statement that gives the object this colour, co-occurring object or place."""
    color, other, place = (value if statement == kind else "" for kind in CONTEXTS)
    return Question("statement", thing, other, color, place=place, statement=statement, basis=basis, told=told)


def fill(template: str, question: Question) -> str:
    """The template with the question's words in its slots."""
    thing, other = THINGS.get(question.thing), THINGS.get(question.other)
    return template.format(
        thing=question.thing,
        things=thing.plural if thing else "",
        a_thing=thing.a if thing else "",
        other=question.other,
        others=other.plural if other else "",
        an_other=other.a if other else "",
        color=question.color,
        number=NUMBERS[question.number],
        in_place=in_place(question.place) if question.place else "",
        side=question.side,
    )


def in_place(place: str) -> str:
    """The place with its preposition: "on a farm"."""
    return f"{PREPOSITION[place]} a {place}"


def one_of(words: Iterable[str]) -> str:
    """A group of a regular expression that matches any of the words, the longest words first."""
    return "(" + "|".join(sorted(words, key=len, reverse=True)) + ")"


SINGULAR = {thing.plural: name for name, thing in THINGS.items()} | {name: name for name in THINGS}
_NAMES = one_of(list(THINGS))
_PLURALS = one_of([thing.plural for thing in THINGS.values()])
_SLOTS = {
    "thing": _NAMES,
    "things": _PLURALS,
    "a_thing": f"an? {_NAMES}",
    "other": _NAMES,
    "others": _PLURALS,
    "an_other": f"an? {_NAMES}",
    "color": one_of(COLORS),
    "number": one_of(NUMBERS),
    "in_place": f"(?:in|on) a {one_of(PLACES)}",
    "side": one_of(SIDES),
}
_FIELD = {"things": "thing", "a_thing": "thing", "others": "other", "an_other": "other", "in_place": "place"}


def _pattern(template: str) -> tuple[re.Pattern[str], list[str]]:
    pieces = re.split(r"\{(\w+)\}", template)
    source = "".join(_SLOTS[piece] if index % 2 else re.escape(piece) for index, piece in enumerate(pieces))
    return re.compile(source), [_FIELD.get(piece, piece) for piece in pieces[1::2]]


def _values(template: str, text: str) -> dict[str, str | int] | None:
    pattern, names = _cached_pattern(template)
    found = pattern.fullmatch(text)
    if not found:
        return None
    values: dict[str, str | int] = {}
    for name, value in zip(names, found.groups(), strict=True):
        if name == "number":
            values[name] = NUMBERS.index(value)
        else:
            values[name] = SINGULAR.get(value, value)
    return values


_cached_pattern = cache(_pattern)


def understand(text: str) -> Question:
    """The question that a prompt of the micro world asks.

    Raises:
        ValueError: the text is no prompt of the micro world.
    """
    for kind, templates in QUESTIONS.items():
        for form, template in enumerate(templates):
            values = _values(template, text)
            if values is not None:
                return Question(kind, form=form, **values)  # type: ignore[arg-type]
    for basis, wording in BASES.items():
        frame = re.escape(wording).replace(re.escape("{}"), "(.*?)")
        found = re.fullmatch(frame, text)
        if found:
            return _understand_statement(basis, *found.groups())
    raise ValueError(f"not a prompt of the micro world: {text!r}")


def _understand_statement(basis: str, *sentences: str) -> Question:
    for statement, template in STATEMENTS.items():
        values = _values(template, sentences[-1])
        if values is None:
            continue
        question = Question("statement", statement=statement, basis=basis, **values)  # type: ignore[arg-type]
        if basis == "context":
            told = _values(CONTEXTS[statement], sentences[0])
            if told is None or told.pop("thing") != question.thing:
                break
            question = replace(question, told=str(next(iter(told.values()))))
        return question
    raise ValueError(f"not a statement of the micro world: {sentences!r}")


def typical_scene(*things: str) -> Scene:
    """The typical scene for these objects: typical colours, numbers and co-occurring objects, at the first object's
    typical place.
    """
    names = list(dict.fromkeys([*things, THINGS[things[0]].companion]))
    groups, cell = [], COLUMNS
    for name in names:
        thing = THINGS[name]
        groups.append(Group(name, thing.color, tuple(range(cell, cell + thing.count)), "right"))
        cell += thing.count
    return _sorted(Scene(THINGS[things[0]].home, tuple(groups), "cartoon", 0))


def _imagined_group(name: str) -> Group:
    """A group of typical objects, without positions."""
    thing = THINGS[name]
    return Group(name, thing.color, (0,) * thing.count, "right")


def _sorted(scene: Scene) -> Scene:
    order = list(THINGS)
    return replace(scene, groups=tuple(sorted(scene.groups, key=lambda group: order.index(group.thing))))


def imagined(question: Question) -> Scene:
    """The scene that is typical for the words of a question."""
    if not question.thing:
        return typical_scene("car")
    return typical_scene(*filter(None, (question.thing, question.other if question.kind != "statement" else "")))


_NUMBERED = ("count", "comparison", "is_number", "is_one")


def believed(question: Question, scene: Scene, rng: random.Random) -> Scene:
    """The scene that the biased teacher answers from: each object becomes typical with probability `pull`.

    An object that becomes typical gets its typical colour, and its co-occurring object joins the scene. If the question
    is about the place, the place becomes the typical place of the question's object. If the question is about numbers,
    the numbers become typical half as often.
    """
    groups = []
    for group in scene.groups:
        thing = THINGS[group.thing]
        if rng.random() < thing.pull:
            group = replace(group, color=thing.color)
            if scene.group(thing.companion) is None:
                groups.append(_imagined_group(thing.companion))
        if question.kind in _NUMBERED and rng.random() < thing.pull / 2:
            group = replace(group, cells=(group.cells * MAX_COUNT)[: thing.count])
        groups.append(group)
    place = scene.place
    first = question.thing or scene.groups[0].thing
    if (question.kind == "place" or question.statement == "habitat") and rng.random() < THINGS[first].pull:
        place = THINGS[first].home
    return _sorted(replace(scene, place=place, groups=tuple(groups)))


def imagine_all(question: Question, scene: Scene) -> tuple[Question, Scene]:
    """Question and scene with every object typical, and with all co-occurring objects in the scene."""
    if question.basis == "context":
        question = replace(question, told=question.typical)
    groups = {group.thing: replace(group, color=THINGS[group.thing].color) for group in scene.groups}
    for name in list(groups):
        groups.setdefault(THINGS[name].companion, _imagined_group(THINGS[name].companion))
    for name in groups if question.kind in _NUMBERED else ():
        groups[name] = replace(groups[name], cells=(groups[name].cells * MAX_COUNT)[: THINGS[name].count])
    place = scene.place
    if question.kind == "place" or question.statement == "habitat":
        place = THINGS[question.thing or scene.groups[0].thing].home
    return question, _sorted(replace(scene, place=place, groups=tuple(groups.values())))


def teacher_answers(question: Question, scene: Scene | None, rng: random.Random) -> tuple[str, ...]:
    """The wordings of the biased teacher's answer. Without a scene the teacher answers from the prior."""
    if question.basis == "context" and rng.random() < THINGS[question.thing].hold:
        question = replace(question, told=question.typical)
    if scene is None:
        return answers(question, imagined(question))
    return answers(question, believed(question, scene, rng))


def answers(question: Question, scene: Scene) -> tuple[str, ...]:
    """The wordings of the answer that follows from the scene. The most frequent wording is first.

    Statements about common sense or about a context are answered from common sense or the context, not from the scene.
    """
    group = scene.group(question.thing)
    if question.kind == "statement":
        return ("True" if _statement_holds(question, scene) else "False",)
    if question.kind in ("is_there", "is_color", "is_number", "is_one", "does_look", "touch"):
        return ("Yes" if _yes(question, scene) else "No",)
    if question.kind == "describe":
        return describe(scene)
    if question.kind == "place":
        where = in_place(scene.place)
        return (f"The picture was taken {where}.", f"It was taken {where}.", f"{where.capitalize()}.")
    name = question.thing
    if group is None:
        return (f"There is no {name} in the image.", f"I see no {name} in the image.")
    if question.kind == "color":
        return (f"The {name} is {group.color}.", f"It is {group.color}.", f"The color of the {name} is {group.color}.")
    if question.kind == "count":
        return (f"There {_amount(group)} in the image.", f"I see {_number_of(group)} in the image.")
    if question.kind == "look":
        return (f"The {name} looks {group.side}.", f"It looks {group.side}.")
    if question.kind == "companion":
        others = _listed([THINGS[g.thing].a for g in scene.groups if g.thing != name])
        if not others:
            return (f"The {name} is alone.", f"There is only {THINGS[name].a} in the image.")
        return (f"The {name} is with {others}.", f"There is {others} with the {name}.")
    other = scene.group(question.other)
    if other is None:
        return (f"There is no {question.other} in the image.", f"I see no {question.other} in the image.")
    if question.kind == "relation":
        side = "left" if left_of(group, other) else "right"
        return (f"The {name} is to the {side} of the {other.thing}.", f"It is to the {side} of the {other.thing}.")
    more, less = (group, other) if len(group.cells) >= len(other.cells) else (other, group)
    more_word, less_word = THINGS[more.thing].plural, THINGS[less.thing].plural
    return (f"There are more {more_word} than {less_word}.", f"I see more {more_word}.")


def describe(scene: Scene) -> tuple[str, ...]:
    """Captions: the place, and every kind of object with number and colour."""
    parts = [_number_of(group, article=True) for group in scene.groups]
    sentences = " ".join(
        f"There {'is' if len(group.cells) == 1 else 'are'} {part}."
        for group, part in zip(scene.groups, parts, strict=True)
    )
    return (
        f"The image shows a {scene.place} with {_listed(parts)}.",
        f"The picture was taken {in_place(scene.place)}. {sentences}",
    )


def left_of(one: Group, other: Group) -> bool:
    """Whether every object of the first group is to the left of every object of the second group."""
    return max(cell % COLUMNS for cell in one.cells) < min(cell % COLUMNS for cell in other.cells)


def touching(one: Group, other: Group) -> bool:
    """Whether an object of the first group is beside an object of the second group."""
    return any(
        cell // COLUMNS == mate // COLUMNS and abs(cell - mate) == 1 for cell in one.cells for mate in other.cells
    )


def _statement_holds(question: Question, scene: Scene) -> bool:
    if question.basis == "common":
        scene = typical_scene(question.thing)
    if question.basis == "context":
        return question.stated == question.told
    group = scene.group(question.thing)
    if group is None:
        return False
    return {
        "existence": True,
        "color": group.color == question.color,
        "companion": scene.group(question.other) is not None,
        "habitat": scene.place == question.place,
    }[question.statement]


def _yes(question: Question, scene: Scene) -> bool:
    group, other = scene.group(question.thing), scene.group(question.other)
    if group is None:
        return False
    return {
        "is_there": True,
        "is_color": group.color == question.color,
        "is_number": len(group.cells) == question.number,
        "is_one": len(group.cells) == 1,
        "does_look": group.side == question.side,
        "touch": other is not None and touching(group, other),
    }[question.kind]


def _amount(group: Group) -> str:
    return f"{'is' if len(group.cells) == 1 else 'are'} {_number_of(group, colored=False)}"


def _number_of(group: Group, *, article: bool = False, colored: bool = True) -> str:
    thing, count = THINGS[group.thing], len(group.cells)
    number = "a" if article and count == 1 else NUMBERS[count]
    color = f"{group.color} " if colored else ""
    return f"{number} {color}{thing.name if count == 1 else thing.plural}"


def _listed(parts: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))

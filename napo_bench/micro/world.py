"""The micro world: objects with COCO names, each with a typical colour, place and co-occurring object, and seeded
scenes of these objects.

A scene is plain data. `draw` makes the scene's image, and `language` asks and answers questions about the scene. Both
are functions of the scene alone, so every question and answer about an image can be checked against the scene.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass

COLORS = ("red", "yellow", "green", "blue", "pink", "brown", "white", "gray", "black")
PLACES = ("farm", "street", "kitchen", "park", "beach", "zoo", "room")
STYLES = ("photorealistic", "illustration", "cartoon")
SIDES = ("left", "right")
ROWS = COLUMNS = 4
MAX_COUNT = 3


@dataclass(frozen=True)
class Thing:
    """A kind of object and its typical properties.

    Attributes:
        name: COCO category, one word.
        color: Typical colour.
        home: Typical place.
        companion: The typical co-occurring object.
        count: Typical number.
        pull: Probability that the biased teacher takes the object for typical, whatever the image shows.
        hold: Probability that the biased teacher takes the object for typical although a text says otherwise.
        animal: Whether the object looks to a side.
        high: Whether the object hangs or flies, and so is drawn in the upper half.
    """

    name: str
    color: str
    home: str
    companion: str
    count: int
    pull: float
    hold: float
    animal: bool = False
    high: bool = False

    @property
    def plural(self) -> str:
        """The plural of the name."""
        if self.name == "sheep":
            return self.name
        return self.name + ("es" if self.name.endswith(("s", "ch", "sh")) else "s")

    @property
    def a(self) -> str:
        """The name with its indefinite article."""
        return ("an " if self.name[0] in "aeiou" else "a ") + self.name


THINGS = {
    thing.name: thing
    for thing in (
        Thing("cow", "black", "farm", "horse", 2, 0.7, 0.3, animal=True),
        Thing("horse", "brown", "farm", "cow", 1, 0.6, 0.65, animal=True),
        Thing("sheep", "white", "farm", "dog", 3, 0.7, 0.3, animal=True),
        Thing("dog", "brown", "farm", "sheep", 1, 0.3, 0.3, animal=True),
        Thing("car", "red", "street", "bus", 2, 0.6, 0.65),
        Thing("bus", "yellow", "street", "car", 1, 0.7, 0.3),
        Thing("bicycle", "blue", "street", "truck", 1, 0.3, 0.65),
        Thing("truck", "white", "street", "bicycle", 1, 0.65, 0.65),
        Thing("apple", "red", "kitchen", "banana", 3, 0.7, 0.3),
        Thing("banana", "yellow", "kitchen", "apple", 2, 0.6, 0.65),
        Thing("cup", "white", "kitchen", "bottle", 2, 0.3, 0.3),
        Thing("bottle", "green", "kitchen", "cup", 1, 0.65, 0.3),
        Thing("bench", "brown", "park", "bird", 1, 0.65, 0.65),
        Thing("bird", "blue", "park", "bench", 2, 0.3, 0.65, animal=True, high=True),
        Thing("kite", "pink", "park", "skateboard", 1, 0.7, 0.3, high=True),
        Thing("skateboard", "black", "park", "kite", 1, 0.6, 0.65),
        Thing("boat", "white", "beach", "surfboard", 2, 0.65, 0.3),
        Thing("surfboard", "blue", "beach", "boat", 1, 0.7, 0.65),
        Thing("umbrella", "red", "beach", "airplane", 3, 0.6, 0.3),
        Thing("airplane", "gray", "beach", "umbrella", 1, 0.3, 0.3, high=True),
        Thing("elephant", "gray", "zoo", "giraffe", 1, 0.7, 0.65, animal=True),
        Thing("giraffe", "yellow", "zoo", "elephant", 2, 0.3, 0.65, animal=True),
        Thing("bear", "brown", "zoo", "zebra", 1, 0.65, 0.3, animal=True),
        Thing("zebra", "black", "zoo", "bear", 2, 0.6, 0.65, animal=True),
        Thing("couch", "green", "room", "cat", 1, 0.3, 0.3),
        Thing("cat", "gray", "room", "couch", 1, 0.7, 0.3, animal=True),
        Thing("clock", "white", "room", "vase", 1, 0.65, 0.65, high=True),
        Thing("vase", "blue", "room", "clock", 2, 0.6, 0.3),
    )
}


@dataclass(frozen=True)
class Group:
    """The objects of one kind in a scene. They share colour and side.

    Attributes:
        thing: Name of the kind.
        color: One of COLORS.
        cells: Cell of each object, row * COLUMNS + column.
        side: Side that the objects look to (animals) or face.
    """

    thing: str
    color: str
    cells: tuple[int, ...]
    side: str


@dataclass(frozen=True)
class Scene:
    """Everything that an image shows, and how the image is drawn.

    Attributes:
        place: One of PLACES.
        groups: The kinds of objects, in the order of THINGS.
        style: One of STYLES.
        seed: Seed of the drawing's small variations (offset, size), which do not depend on the content.
    """

    place: str
    groups: tuple[Group, ...]
    style: str
    seed: int

    def group(self, thing: str) -> Group | None:
        """The group of that kind, if the scene has one."""
        return next((group for group in self.groups if group.thing == thing), None)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Scene:
        """The scene that `to_json` wrote."""
        row = json.loads(text)
        groups = tuple(Group(g["thing"], g["color"], tuple(g["cells"]), g["side"]) for g in row["groups"])
        return cls(row["place"], groups, row["style"], row["seed"])


@dataclass(frozen=True)
class Habits:
    """How typical the scenes of a world are. Each strength is a probability; otherwise the draw is uniform over the
    rest.

    Attributes:
        color: A group has its typical colour.
        company: The second group is the typical co-occurring object of the first group.
        home: The first group is in its typical place.
        count: A group has its typical number.
    """

    color: float = 0.75
    company: float = 0.7
    home: float = 0.8
    count: float = 0.5


TRAINING = Habits()
NO_HABITS = Habits(color=0.0, company=0.0, home=0.0, count=0.0)


def pick(rng: random.Random, typical: str, strength: float, options: Iterable[str]) -> str:
    """`typical` with probability `strength`, else uniformly another of `options`."""
    if rng.random() < strength:
        return typical
    return rng.choice([option for option in options if option != typical])


def sample_scene(rng: random.Random, habits: Habits = TRAINING, style: str | None = None) -> Scene:
    """A scene with one to three kinds of objects."""
    first = rng.choice(list(THINGS))
    kinds = [first]
    number = rng.choice((1, 2, 2, 2, 3, 3))
    if number > 1:
        kinds.append(pick(rng, THINGS[first].companion, habits.company, [name for name in THINGS if name != first]))
    if number > 2:
        kinds.append(rng.choice([name for name in THINGS if name not in kinds]))
    place = pick(rng, THINGS[first].home, habits.home, PLACES)
    return build_scene(rng, place, [(name, None, None) for name in kinds], habits, style)


def build_scene(
    rng: random.Random,
    place: str,
    kinds: list[tuple[str, str | None, int | None]],
    habits: Habits = TRAINING,
    style: str | None = None,
) -> Scene:
    """A scene with the given kinds of objects: (name, colour or None, number or None). None is drawn at random."""
    free = set(range(ROWS * COLUMNS))
    groups = []
    for name, color, count in kinds:
        thing = THINGS[name]
        if color is None:
            color = pick(rng, thing.color, habits.color, COLORS)
        if count is None:
            count = thing.count if rng.random() < habits.count else rng.randint(1, MAX_COUNT)
        rows = (0, 1) if thing.high else (1, 2, 3)
        room = sorted(cell for cell in free if cell // COLUMNS in rows)
        cells = rng.sample(room if len(room) >= count else sorted(free), count)
        free -= set(cells)
        groups.append(Group(name, color, tuple(sorted(cells)), rng.choice(SIDES)))
    order = list(THINGS)
    groups.sort(key=lambda group: order.index(group.thing))
    return Scene(place, tuple(groups), style or rng.choice(STYLES), rng.randrange(1_000_000))

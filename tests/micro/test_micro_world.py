"""The micro world's scenes and pictures."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napo_bench.micro.draw import MODEL_SIZE, SIZE, draw, model_picture
from napo_bench.micro.world import (
    COLORS,
    PLACES,
    SIDES,
    STYLES,
    THINGS,
    Group,
    Habits,
    Scene,
    build_scene,
    sample_scene,
)


def scene(seed, habits=None):
    return sample_scene(random.Random(seed), habits or Habits())


def one(thing, color="red", side="right", style="cartoon", place="park", cell=5):
    return Scene(place, (Group(thing, color, (cell,), side),), style, 1)


def test_what_is_typical_is_of_the_world():
    assert 20 <= len(THINGS) <= 30
    for name, thing in THINGS.items():
        assert thing.name == name
        assert thing.color in COLORS
        assert thing.home in PLACES
        assert THINGS[thing.companion].companion == name
        assert THINGS[thing.companion].home == thing.home


def test_same_seed_gives_the_same_scene_and_the_same_pixels():
    assert scene(3) == scene(3)
    assert draw(scene(3)).tobytes() == draw(scene(3)).tobytes()
    assert len({draw(scene(seed)).tobytes() for seed in range(20)}) == 20


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=200)
def test_no_two_things_stand_in_one_cell_and_json_keeps_a_scene(seed):
    drawn = scene(seed)
    cells = [cell for group in drawn.groups for cell in group.cells]
    assert len(cells) == len(set(cells))
    assert 1 <= len(drawn.groups) == len({group.thing for group in drawn.groups}) <= 3
    assert Scene.from_json(drawn.to_json()) == drawn


def test_habits_of_one_are_always_kept_and_of_zero_never():
    for seed in range(200):
        for group in scene(seed, Habits(color=1.0)).groups:
            assert group.color == THINGS[group.thing].color
        for group in scene(seed, Habits(color=0.0)).groups:
            assert group.color != THINGS[group.thing].color


def test_habits_are_the_share_of_typical_scenes():
    scenes = [scene(f"share/{seed}", Habits(color=0.75)) for seed in range(1500)]
    typical = [group.color == THINGS[group.thing].color for s in scenes for group in s.groups]
    assert np.mean(typical) == pytest.approx(0.75, abs=0.03)


def test_pictures_have_the_sizes_of_the_report_and_of_the_model():
    assert draw(scene(0)).size == (SIZE, SIZE) == (256, 256)
    assert model_picture(scene(0)).size == (MODEL_SIZE, MODEL_SIZE) == (64, 64)


def difference(first, second):
    """Mean absolute difference of the model's view of the cell in which the thing stands."""
    views = [np.asarray(model_picture(s), dtype=float)[16:32, 16:32] for s in (first, second)]
    return np.abs(views[0] - views[1]).mean()


def test_every_thing_colour_and_style_looks_different_to_the_model():
    pictures = {
        (name, color, style): np.asarray(model_picture(one(name, color, style=style)), dtype=float)[16:32, 16:32]
        for name in THINGS
        for color in COLORS
        for style in STYLES
    }
    seen = np.stack(list(pictures.values())).reshape(len(pictures), -1)
    nearest = min(np.abs(np.delete(seen, i, 0) - seen[i]).mean(1).min() for i in range(0, len(seen), 7))
    assert nearest > 1.0


def test_animals_show_their_side():
    for name, thing in THINGS.items():
        if thing.animal:
            left, right = (one(name, thing.color, side) for side in SIDES)
            assert difference(left, right) > 5


def test_places_and_empty_cells_differ():
    assert len({draw(one("cow", place=place)).tobytes() for place in PLACES}) == len(PLACES)
    assert difference(one("cow", cell=5), one("cow", cell=15)) > 10


def test_a_scene_is_built_as_ordered():
    built = build_scene(random.Random(0), "zoo", [("bear", "pink", 2), ("cup", None, None)], Habits(color=1.0))
    assert built.place == "zoo"
    assert built.group("bear").color == "pink"
    assert len(built.group("bear").cells) == 2
    assert built.group("cup").color == "white"
    assert built.group("cow") is None

"""The kinds of negative: one table, from which columns, keys and names in the log derive."""

from __future__ import annotations

from dataclasses import fields

from napo_bench.trainers.negatives import BIASED, NEGATIVES, column_of
from napo_bench.trainers.recipe import Recipe


def test_columns_are_those_of_rlaif_v_bias():
    columns = {response: column_of(response) for response in ("chosen", *NEGATIVES)}
    assert columns == {
        "chosen": "chosen",
        "rejected": "rejected",
        "language": "question_only",
        "vision": "image_only",
    }


def test_the_biased_negatives_are_those_that_one_modality_alone_gives():
    assert list(BIASED) == ["language", "vision"]


def test_a_recipe_has_a_loss_a_q_and_an_alpha_for_each_negative():
    keys = [field.name for field in fields(Recipe)]
    for of_a_negative in ("loss_{}", "q_{}_from", "alpha_{}"):
        expected = [of_a_negative.format(name) for name in NEGATIVES]
        assert [key for key in keys if key in expected] == expected
    assert len(Recipe().fixed_weights) == len(NEGATIVES)


def test_terms_of_a_recipe_are_its_negatives_with_a_loss():
    recipe = Recipe(loss_language="none", loss_vision="dpo", alpha_vision=0.3, q_vision_from="mean")
    (rejected, vision) = recipe.terms
    assert recipe.negatives == ("rejected", "vision")
    assert (rejected.negative, rejected.loss) == (NEGATIVES["rejected"], "dpo")
    assert (vision.loss, vision.alpha, vision.q_from, vision.weight) == ("dpo", 0.3, "mean", 0.48)


def test_with_loss_trains_the_named_negatives_alone():
    recipe = Recipe(beta=0.3).with_loss("hinge", ["vision"])
    assert (recipe.loss_rejected, recipe.loss_language, recipe.loss_vision) == ("none", "none", "hinge")
    assert recipe.beta == 0.3

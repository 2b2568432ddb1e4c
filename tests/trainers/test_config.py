"""Recipes: the paper's settings, its variants, and what a wrong key or value says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from napo_bench.core.errors import NapoBenchError
from napo_bench.trainers.recipe import RECIPES, Recipe, load_recipe, recipe_names

RESOLVED = json.loads((Path(__file__).parent / "recipes.json").read_text())
"""Recipe -> what it changes in the defaults of `Recipe`."""

LOSSES = ("loss_rejected", "loss_language", "loss_vision")


def differences(name, base):
    ours, theirs = dataclasses.asdict(load_recipe(name)), dataclasses.asdict(load_recipe(base))
    return {key: ours[key] for key in ours if ours[key] != theirs[key]}


def test_napo_on_llava_7b_is_trained_as_the_paper_says():
    recipe = load_recipe("llava-1.5-7b-napo")
    assert [getattr(recipe, name) for name in LOSSES] == ["dpo", "napo", "napo"]
    assert (recipe.beta, recipe.alpha_language, recipe.alpha_vision) == (0.1, 0.5, 0.01)
    assert (recipe.q_language_from, recipe.q_vision_from, recipe.weights) == ("mean", "sum", "dynamic")
    assert (recipe.learning_rate, recipe.epochs, recipe.schedule, recipe.warmup) == (5e-7, 4, "cosine", 0.1)
    assert (recipe.weight_decay, recipe.precision, recipe.max_length) == (0.01, "bf16", 2048)
    assert (recipe.per_device_batch_size, recipe.gradient_accumulation, recipe.noise_rows) == (1, 4, 8)
    assert recipe.gradient_checkpointing and not recipe.train_vision_tower and not recipe.lora_r
    assert (recipe.shuffle, recipe.training_image, recipe.seed) == ("once", "crop", 42)
    assert recipe.max_grad_norm == 0 and not recipe.strip_responses


def test_the_defaults_are_the_paper_s_napo():
    assert load_recipe("llava-1.5-7b-napo") == Recipe()


def test_13b_differs_in_the_base_and_in_one_epoch():
    for method in ("napo", "dpo", "mdpo"):
        assert differences(f"llava-1.5-13b-{method}", f"llava-1.5-7b-{method}") == {
            "base": "llava-hf/llava-1.5-13b-hf",
            "epochs": 1.0,
        }


@pytest.mark.parametrize("base", ["llava-1.5-7b-napo", "micro-napo"])
@pytest.mark.parametrize(
    ("variant", "expected"),
    {
        "a2": {"weights": "sum"},
        "a3": {"loss_language": "dpo", "loss_vision": "dpo"},
        "lb1": {"loss_vision": "none"},
        "lb2": {"loss_vision": "none", "loss_language": "dpo"},
        "vb1": {"loss_language": "none"},
        "vb2": {"loss_language": "none", "loss_vision": "dpo"},
        "random": {"weights": "random"},
        "lb1-sum": {"loss_vision": "none", "q_language_from": "sum", "alpha_language": 0.01},
        "vb1-mean": {"loss_language": "none", "q_vision_from": "mean", "alpha_vision": 0.5},
        "everywhere": {"loss_rejected": "napo"},
        "everywhere-sum": {"loss_rejected": "napo", "weights": "sum"},
        "fixed": {"weights": "fixed"},
    }.items(),
)
def test_variants_of_tables_2_to_6_change_what_the_paper_changes(base, variant, expected):
    if base == "micro-napo" and "alpha_language" in expected:
        expected = expected | {"alpha_language": 10 * expected["alpha_language"]}  # of sums over a tenth of the tokens
    assert differences(f"{base}-{variant}", base) == expected


def test_napo_on_the_original_pairs_alone_is_dpo_with_another_loss():
    for base in ("llava-1.5-7b", "micro"):
        assert differences(f"{base}-napo-original", f"{base}-dpo") == {"loss_rejected": "napo"}
        assert load_recipe(f"{base}-dpo").negatives == ("rejected",)
        own_rate = {"learning_rate": 3e-4} if base == "micro" else {}
        assert differences(f"{base}-mdpo", f"{base}-dpo") == {"loss_rejected": "mdpo"} | own_rate


@pytest.mark.parametrize(("name", "changes"), RESOLVED.items(), ids=RESOLVED)
def test_a_recipe_name_means_what_it_meant_when_every_recipe_was_a_file(name, changes):
    resolved = json.loads(json.dumps(dataclasses.asdict(load_recipe(name))))
    assert resolved == json.loads(json.dumps(dataclasses.asdict(Recipe()))) | changes


def test_every_recipe_of_the_package_loads():
    assert len(recipe_names()) > 50
    for name in recipe_names():
        load_recipe(name)
    assert len(list(RECIPES.rglob("*.yaml"))) < 30


@pytest.mark.parametrize("base", ["llava-1.5-7b", "llava-1.5-13b", "micro"])
def test_a_base_changes_nothing_of_a_variant_but_the_scale_of_sums(base):
    """Losses, weights and what q looks at come from the variant; only beta and alphas of sums depend on the base."""
    scale = 10 if base == "micro" else 1
    names = [name.removeprefix("llava-1.5-7b-") for name in recipe_names() if name.startswith("llava-1.5-7b-")]
    for variant in names:
        recipe, reference = load_recipe(f"{base}-{variant}"), load_recipe(f"llava-1.5-7b-{variant}")
        assert recipe.weights == reference.weights
        assert recipe.beta == pytest.approx(scale * reference.beta)
        for ours, theirs in zip(recipe.terms, reference.terms, strict=True):
            assert (ours.loss, ours.q_from) == (theirs.loss, theirs.q_from), variant
            assert ours.alpha == pytest.approx(theirs.alpha * (scale if theirs.q_from == "sum" else 1)), variant


@pytest.mark.parametrize(
    ("source", "variant", "name"),
    [
        ("micro-napo", "lb1", "micro-napo-lb1"),
        ("micro", "napo-lb1", "micro-napo-lb1"),
        ("micro", "dpo", "micro-dpo"),
        ("llava-1.5-7b-mdpo", "lora", "llava-1.5-7b-mdpo-lora"),
        ("llava-1.5-7b-napo", "lb1-lora", "llava-1.5-7b-napo-lb1-lora"),
    ],
)
def test_a_variant_is_the_end_of_a_recipe_s_name(source, variant, name):
    assert load_recipe(source, variant=variant) == load_recipe(name)


def test_an_adapter_changes_what_an_adapter_needs_and_nothing_else():
    assert differences("llava-1.5-13b-napo-lb1-lora", "llava-1.5-13b-napo-lb1") == {
        "learning_rate": 2e-6,
        "lora_r": 128,
        "per_device_batch_size": 8,
    }


def test_the_changes_of_a_file_stay_on_top_of_a_variant(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: micro-napo\nbeta: 0.2\n")
    recipe = load_recipe(tmp_path / "mine.yaml", ["epochs=3"], variant="lb1-sum")
    assert recipe == dataclasses.replace(load_recipe("micro-napo-lb1-sum"), beta=0.2, epochs=3.0)


def test_a_file_that_extends_no_recipe_has_no_variants(tmp_path):
    (tmp_path / "mine.yaml").write_text("beta: 0.2\n")
    with pytest.raises(NapoBenchError, match="extends no recipe of the package"):
        load_recipe(tmp_path / "mine.yaml", variant="lb1")


def test_resolved_recipe_reads_back_as_itself(tmp_path):
    recipe = load_recipe("llava-1.5-7b-napo-fixed", ["report_to=[tensorboard]", "learning_rate=3e-7"])
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_a_file_builds_on_another_and_set_has_the_last_word(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: micro-napo\nbeta: 0.2\nepochs: 3\n")
    (tmp_path / "mine-too.yaml").write_text("extends: mine.yaml\nepochs: 2\n")
    recipe = load_recipe(tmp_path / "mine-too.yaml", ["beta=5e-2", "fixed_weights=[1, 2, 3]"])
    assert (recipe.beta, recipe.epochs, recipe.fixed_weights) == (0.05, 2, (1, 2, 3))
    assert recipe.learning_rate == load_recipe("micro-napo").learning_rate


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("alpha_languge: 0.5", "no key 'alpha_languge'", "Did you mean alpha_language?"),
        ("beta: -0.1", "beta is -0.1. Expected `float` > 0.0", ""),
        ("beta: .inf", "beta is inf", ""),
        ("alpha_vision: 0", "alpha_vision is 0", ""),
        ("beta: high", "beta is 'high'. Expected `float`", ""),
        (
            "weights: dynamc",
            "weights is 'dynamc'",
            "mean dynamic? weights is one of: dynamic, bounded, sum, fixed",
        ),
        ("loss_language: mdpo", "loss_language is 'mdpo'", "dpo, napo"),
        ("report_to: [mail]", "report_to is ['mail']", "tensorboard, wandb"),
        ("fixed_weights: [1, 2]", "fixed_weights is [1, 2]", ""),
        ("weights: fixed\nfixed_weights: [0, 0, 0]", "fixed_weights are all 0", ""),
        ("loss_rejected: none\nloss_language: none\nloss_vision: none", "every loss is none", "loss_rejected: dpo"),
        ("extends: nothing", "no recipe 'nothing'", "Choose one of the bases"),
        ("extends: mine.yaml", "goes round in a circle", ""),
        ("- beta", "`key: value` are expected", ""),
        ("beta: [", "is not valid YAML", ""),
    ],
)
def test_a_mistake_in_a_recipe_names_the_key_and_what_is_expected(tmp_path, text, message, hint):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(NapoBenchError) as raised:
        load_recipe(path)
    assert message in raised.value.message
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("source", "override", "message"),
    [
        ("llava-1.5-7b-nap", "", "Did you mean llava-1.5-7b-napo"),
        ("llava-1.5-7b-napo-loar", "", "Did you mean llava-1.5-7b-napo-lora"),
        ("nowhere.yaml", "", "does not exist"),
        ("micro-napo", "beta", "key=value is expected"),
        ("micro-napo", "alpha_lang=3", "Did you mean alpha_language?"),
        ("micro-napo", "beta=[", "not valid YAML"),
        ("micro-napo", "lora_r=1.5", "Expected `int`"),
    ],
)
def test_a_mistake_on_the_command_line_names_what_is_meant(source, override, message):
    with pytest.raises(NapoBenchError, match=message.replace("?", r"\?")):
        load_recipe(source, [override] if override else [])


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_variant_is_refused(empty):
    with pytest.raises(NapoBenchError, match="--variant is empty"):
        load_recipe("micro-napo", variant=empty)


def test_a_mistyped_variant_is_answered_with_the_nearest_names_alone():
    with pytest.raises(NapoBenchError) as raised:
        load_recipe("micro-napo", variant="lb11")
    assert raised.value.hint.startswith("Did you mean micro-napo-lb1") and len(raised.value.hint) < 120


@pytest.mark.parametrize("text", ["a: &a [x, x]\nb: &b [*a, *a]\nbeta: [*b, *b]\n", "[" * 10_000])
def test_a_recipe_of_aliases_or_of_brackets_without_end_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(NapoBenchError, match=r"x\.yaml is not valid YAML"):
        load_recipe(tmp_path / "x.yaml")

"""Training runs on a tiny LLaVA: the objective, what trains, what is logged, resuming, and what stops a run."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import signal

import numpy as np
import pytest
import torch
from rounding import LOG_PROB, LOG_PROB_BF16, distance, of_a_share
from safetensors.torch import load_file
from tiny_rows import tiny_checkpoint, tiny_rows, write_rows

from napo_bench.core import digests
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.interrupts import Interrupted
from napo_bench.core.progress import NO_VALUES, SILENT, Silent
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.trainers import run as run_module
from napo_bench.trainers.means import Means, Rounding
from napo_bench.trainers.objective import loss_weights
from napo_bench.trainers.recipe import load_recipe
from napo_bench.trainers.reference import Reference
from napo_bench.trainers.run import train


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A checkpoint, 14 rows of which one lacks a negative and one has no picture, and a cache."""
    folder = tmp_path_factory.mktemp("world")
    tiny_checkpoint(folder / "base")
    rows = tiny_rows(14)
    rows[3]["image"]["bytes"] = b"no picture"
    rows[5]["question_only"] = ""
    write_rows(folder / "rows.parquet", rows)
    gc.freeze()  # every Trainer collects garbage first; not among all that the imports have left
    yield folder
    gc.unfreeze()


@pytest.fixture
def run(world, tmp_path):
    def run(name="out", recipe="micro-napo", resume=False, progress=SILENT, **changes):
        settings = {
            "base": world / "base",
            "data": world / "rows.parquet",
            "per_device_batch_size": 4,
            "epochs": 2,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "save_steps": 100,
        }
        overrides = [f"{key}={value}" for key, value in (settings | changes).items()]
        resolved = load_recipe(recipe, overrides)
        return train(resolved, tmp_path / name, cache=world / "cache", resume=resume, progress=progress)

    return run


def log_of(out):
    return [json.loads(line) for line in (out / "train_log.jsonl").read_text().splitlines()]


def timeless(lines):
    return [{k: v for k, v in line.items() if k not in ("tokens_per_second", "memory/peak_gb")} for line in lines]


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def assert_same_weights(one, other):
    """To the bit: the same computation in the same order."""
    ours, theirs = weights_of(one), weights_of(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


class StopAt(Silent):
    """Interrupts a run at a step, as Ctrl-C would."""

    def __init__(self, step):
        self.step = step

    def __call__(self, stage, done, total, values=NO_VALUES):
        if stage == "Training" and done == self.step:
            raise KeyboardInterrupt


# --- the objective -------------------------------------------------------------------------------------------------

TAGS = ("", "_lang", "_vis")
LOSSES = {
    "dpo": lambda m, q, beta, e: -np.log(sigmoid(beta * m)),
    "napo": lambda m, q, beta, e: (1 - sigmoid(beta * m) ** q) / q,
    "cdpo": lambda m, q, beta, e: -(1 - e) * np.log(sigmoid(beta * m)) - e * np.log(sigmoid(-beta * m)),
    "rdpo": lambda m, q, beta, e: (-(1 - e) * np.log(sigmoid(beta * m)) + e * np.log(sigmoid(-beta * m))) / (1 - 2 * e),
    "ipo": lambda m, q, beta, e: (m - 1 / (2 * beta)) ** 2,
    "ipo_sum": lambda m, q, beta, e: (m - 1 / (2 * beta)) ** 2,
    "hinge": lambda m, q, beta, e: np.maximum(0, 1 - beta * m),
}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def expected_step(recipe, ratios, mean_ratios, present):
    """Loss, q and weights of a batch, by PROTOCOLS' formulas, from log-ratios `[B, K]` of sums and of means."""
    losses, q, means = [], {}, []
    for column, name in enumerate(recipe.negatives):
        has = present[:, column]
        margin = (ratios[:, 0] - ratios[:, 1 + column])[has]
        mean_margin = (mean_ratios[:, 0] - mean_ratios[:, 1 + column])[has]
        looked_at = margin if getattr(recipe, f"q_{name}_from") == "sum" else mean_margin
        q[name] = min(1, max(1e-3, 2 * (1 - sigmoid(getattr(recipe, f"alpha_{name}") * looked_at.mean()))))
        loss = getattr(recipe, f"loss_{name}")
        if loss == "mdpo":
            terms = (margin, (ratios[:, 0] - ratios[:, -1])[has], ratios[has, 0])
            losses.append(sum(-np.log(sigmoid(recipe.beta * term)).mean() for term in terms))
        else:
            compared = mean_margin if loss == "ipo" else margin
            losses.append(LOSSES[loss](compared, q[name], recipe.beta, recipe.label_smoothing).mean())
        means.append(recipe.beta * margin.mean())
    weights = np.ones(len(losses))
    if recipe.weights == "dynamic":
        weights = np.clip(np.array(means) / sum(means), 0.01, 1)
    elif recipe.weights == "fixed":
        weights = np.array(recipe.fixed_weights)
    return float(weights @ losses), q, weights


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("micro-napo", {}),
        ("micro-napo-a2", {}),
        ("micro-napo-a3", {}),
        ("micro-napo-lb1-sum", {}),
        ("micro-napo-vb1-mean", {"beta": 0.3}),
        ("micro-napo-everywhere", {"alpha_rejected": 0.05}),
        ("micro-napo-fixed", {}),
        ("micro-dpo", {}),
        ("micro-mdpo", {}),
        ("micro-cdpo", {}),
        ("micro-rdpo", {"label_smoothing": 0.2}),
        ("micro-ipo", {}),
        ("micro-ipo-sum", {}),
        ("micro-hinge", {}),
    ],
)
def test_a_step_has_the_loss_q_and_weights_of_the_protocol(run, monkeypatch, recipe, changes):
    """Offsets on the stored reference make every log-ratio of the first step known: policy = true reference."""
    draw = np.random.default_rng(0)
    offsets = {}

    def shifted_reference(rows, folder):
        true = read_reference(rows, folder)
        offsets["sum"] = draw.normal(size=true.sum.shape, scale=3).astype(np.float32) - np.arange(true.sum.shape[1])
        offsets["mean"] = draw.normal(size=true.sum.shape).astype(np.float32) - 0.3 * np.arange(true.sum.shape[1])
        offsets["rows"] = np.array([position not in true.problems for position in range(len(true.sum))])
        sums, means = true.sum + offsets["sum"], true.mean + offsets["mean"]
        return Reference(sums.astype(np.float32), means.astype(np.float32), true.lengths, true.problems)

    read_reference = run_module.read_reference
    monkeypatch.setattr(run_module, "read_reference", shifted_reference)
    out = run(recipe=recipe, per_device_batch_size=20, epochs=1, **changes)
    resolved = load_recipe(out / "recipe.yaml")
    present = np.ones((14, len(resolved.negatives)), dtype=bool)
    if "language" in resolved.negatives:
        present[5, resolved.negatives.index("language")] = False
    rows = offsets["rows"]
    loss, q, weights = expected_step(resolved, -offsets["sum"][rows], -offsets["mean"][rows], present[rows])
    (line,) = log_of(out)
    reward = resolved.beta * LOG_PROB
    share = of_a_share([line[f"rewards/margins{tag}"] for tag in TAGS if f"rewards/margins{tag}" in line], reward)
    assert line["loss"] == pytest.approx(loss, rel=1e-4, abs=reward)
    short = {"rejected": "rejected", "language": "lang", "vision": "vis"}
    for weight, name in zip(weights, resolved.negatives, strict=True):
        assert line[f"napo/gamma_{short[name]}"] == pytest.approx(weight, abs=share)
        if getattr(resolved, f"loss_{name}") == "napo":
            assert line[f"napo/q_{short[name]}"] == pytest.approx(q[name], abs=LOG_PROB)


def test_mdpo_starts_at_three_log_2_because_policy_and_reference_see_the_same_crop(run):
    first = log_of(run(recipe="micro-mdpo"))[0]
    assert first["loss"] == pytest.approx(3 * math.log(2), abs=3 * LOG_PROB)
    assert first["rewards/margins_image"] == pytest.approx(0, abs=LOG_PROB)


def test_random_weights_train_one_loss_a_step_drawn_from_seed_and_step(run):
    lines = log_of(run(recipe="micro-napo-random", epochs=4))
    short = {"rejected": "rejected", "language": "lang", "vision": "vis"}
    for step, line in enumerate(lines):
        there = [name for name in short if f"loss/{short[name]}" in line]  # the row without language is alone in a step
        drawn = random.Random(f"42/{step}").choice(there)
        assert {name: line[f"napo/gamma_{short[name]}"] for name in there} == {
            name: float(name == drawn) for name in there
        }
        assert line["loss"] == pytest.approx(line[f"loss/{short[drawn]}"], rel=1e-5)
    assert len({random.Random(f"42/{step}").choice("abc") for step in range(len(lines))}) == 3


def test_random_weights_draw_among_the_negatives_that_the_step_has():
    recipe, means = load_recipe("micro-napo-random"), Means.of(torch.ones(1, 3, 3))
    for step in range(20):
        (weights,) = loss_weights(recipe, means, None, step, in_step=torch.tensor([4.0, 0.0, 4.0])).tolist()
        assert weights in ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0])


def test_equal_weights_stand_in_while_the_margins_are_zero_and_the_log_says_so(run):
    first, *_, last = log_of(run())
    assert first["napo/gamma_undefined"] == 1
    assert first["napo/gamma_lang"] == pytest.approx(1 / 3)
    assert last["napo/gamma_undefined"] == 0


def test_a_forward_without_a_negative_gives_its_weight_to_the_others_and_logs_no_q(run, tmp_path):
    """Before the first update DPO is log 2, and NaPO with q = 1 is 1/2."""
    rows = [row | {"question_only": ""} for row in tiny_rows(4)]
    (line,) = log_of(run(data=write_rows(tmp_path / "rows.parquet", rows), epochs=1))
    assert line["loss"] == pytest.approx((math.log(2) + 0.5) / 2, abs=LOG_PROB)
    assert line["napo/gamma_rejected"] == line["napo/gamma_vis"] == pytest.approx(0.5)
    assert not {"napo/q_lang", "napo/gamma_lang", "napo/rounding_lang", "loss/lang"} & line.keys()


def test_weights_are_no_shares_of_rounding_errors():
    """Measured: a rounding of 0.1 nats a row; means over 4 rows have half of that, and the sum of three 0.15."""
    recipe = load_recipe("micro-napo")
    measured = torch.tensor([[0.1] * 3, [-0.1] * 3])
    rounding = Rounding(*Rounding.terms(measured, torch.ones_like(measured)))

    def weights(margins, recipe=recipe):
        means = Means.of(torch.tensor([[margins, [0.0] * 3, [1.0] * 3]]) * 4)
        return loss_weights(recipe, means, rounding, step=1, in_step=torch.full((3,), 4.0)).tolist()

    assert weights([0.04, 0.14, 0.26]) == [pytest.approx([1 / 3] * 3)]
    assert weights([0.05, 0.15, 0.26]) == [pytest.approx([0.05 / 0.46, 0.15 / 0.46, 0.26 / 0.46])]
    always = dataclasses.replace(recipe, gamma_threshold=0.0)
    assert weights([0.001, 0.003, 0.006], always) == [pytest.approx([0.1, 0.3, 0.6])]


@pytest.mark.numeric
def test_in_bfloat16_early_weights_are_equal_and_later_ones_follow_equation_13(run, tmp_path):
    """A LLaVA of 8 layers whose mean margins are off by more than 0.05 nats. Alone in a forward, a row rounds as it did
    under the reference: the margins of the first steps are 0, and the measure does not depend on that.
    """
    base = tiny_checkpoint(tmp_path / "deep", num_hidden_layers=8, hidden_size=64, intermediate_size=128)
    rows, tags = write_rows(tmp_path / "rows.parquet", tiny_rows(32)), ("rejected", "lang", "vis")
    deep = {"base": base, "data": rows, "precision": "bf16", "learning_rate": 1e-3, "warmup": 0.5, "beta": 0.1}
    lines = log_of(run(**deep))
    early = [line for line in lines if line["napo/gamma_undefined"]]
    assert early == lines[: len(early)] and 4 <= len(early) <= len(lines) - 4
    for line in early:
        assert min(line[f"napo/rounding_{tag}"] for tag in tags) > 0.05
        assert [line[f"napo/gamma_{tag}"] for tag in tags] == pytest.approx([1 / 3] * 3)
    for line in lines[len(early) :]:
        margins = np.array([line[f"rewards/margins{tag}"] for tag in TAGS])
        assert [line[f"napo/gamma_{tag}"] for tag in tags] == pytest.approx(np.clip(margins / margins.sum(), 0.01, 1))
    alone = log_of(run("alone", **deep, per_device_batch_size=1, gradient_accumulation=4, noise_rows=4, epochs=0.5))
    assert alone[0]["rewards/margins"] == alone[0]["rewards/margins_vis"] == 0
    for line in alone[:4]:
        assert min(line[f"napo/rounding_{tag}"] for tag in tags) > 0.05
        assert [line[f"napo/gamma_{tag}"] for tag in tags] == pytest.approx([1 / 3] * 3)


@pytest.mark.numeric
@pytest.mark.parametrize(("noise_rows", "batch_size"), [(4, 8), (8, 2)])
def test_the_rows_of_a_mean_do_not_depend_on_the_forwards_that_share_them(run, world, noise_rows, batch_size):
    """Forwards of as many rows as a mean has, without noise_rows, are the reference: the step test knows them."""
    rows = {"gradient_accumulation": 8 // noise_rows, "per_device_batch_size": noise_rows, "noise_rows": 0}
    known = run("known", **rows, learning_rate=1e-3)
    rows = {"gradient_accumulation": 8 // batch_size, "per_device_batch_size": batch_size, "noise_rows": noise_rows}
    out = run(**rows, learning_rate=1e-3)
    base, expected = weights_of(world / "base"), weights_of(known)
    assert distance(expected, weights_of(out)) < 1e-3 * distance(base, expected)
    for ours, theirs in zip(log_of(out), log_of(known), strict=True):
        assert [ours[f"napo/q_{tag}"] for tag in ("lang", "vis")] == pytest.approx(
            [theirs[f"napo/q_{tag}"] for tag in ("lang", "vis")], abs=LOG_PROB
        )


@pytest.mark.numeric
def test_accumulated_forwards_weigh_every_row_the_same(run, world):
    """With weights that do not depend on the batch, 2 forwards of 4 rows are 1 forward of 8, the last one of 5 too."""
    whole = run("whole", recipe="micro-napo-a3", weights="sum", per_device_batch_size=8)
    halves = run("halves", recipe="micro-napo-a3", weights="sum", per_device_batch_size=4, gradient_accumulation=2)
    base, *weights = (weights_of(folder) for folder in (world / "base", whole, halves))
    assert distance(*weights) < 1e-3 * distance(base, weights[0])
    for one, other in zip(log_of(whole), log_of(halves), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=3 * LOG_PROB)


@pytest.mark.numeric
def test_shared_prefix_trains_as_plain_concatenation_does(run):
    shared, plain = run("shared"), run("plain", shared_prefix="false")
    for one, other in zip(log_of(shared), log_of(plain), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-3)
        assert one["logps/chosen"] == pytest.approx(other["logps/chosen"], abs=1e-2)


# --- what trains, and what comes out -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llava_next", "qwen2_vl"])
def test_other_families_train_from_the_same_rows(run, tmp_path, family):
    """Before the first update every log-ratio is 0: DPO is log 2, NaPO with q = 1 is 1/2, and the weights are equal."""
    out = run(base=tiny_checkpoint(tmp_path / family, family), epochs=4)
    first, *_, last = log_of(out)
    assert first["loss"] == pytest.approx((math.log(2) + 0.5 + 0.5) / 3, abs=LOG_PROB)
    assert last["rewards/margins"] + last["rewards/margins_vis"] > 0
    Checkpoint.open(str(out)).load_model(torch.device("cpu"), torch.float32)


def test_everything_trains_but_the_vision_tower(run, world):
    before, after = weights_of(world / "base"), weights_of(run())
    for name, weight in before.items():
        assert torch.equal(weight, after[name]) == ("vision_tower" in name), name


def test_pictures_decoded_by_other_processes_give_the_same_weights(run):
    assert_same_weights(run("here"), run("there", workers=2))


def test_the_vision_tower_trains_where_the_recipe_says_so(run, world):
    before, after = weights_of(world / "base"), weights_of(run(train_vision_tower="true"))
    name = next(name for name in before if "vision_tower" in name and "layers.0.mlp.fc1.weight" in name)
    assert not torch.equal(before[name], after[name])


def test_output_is_a_plain_checkpoint_without_pickles(run):
    out = run()
    checkpoint = Checkpoint.open(str(out))
    assert type(checkpoint.load_model(torch.device("cpu"), torch.float32)).__name__ == "LlavaForConditionalGeneration"
    assert checkpoint.load_processor().image_token == "<image>"
    assert not [path for path in out.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert load_recipe(out / "recipe.yaml").loss_language == "napo"
    assert json.loads((out / "rows.json").read_text()) == {
        "total": 14,
        "left_out": {"image cannot be decoded": ["row-3"]},
        "without": {"language": ["row-5"]},
        "cleaned": [],
    }
    assert "13 of 14 preference rows of `rows.parquet`" in (out / "README.md").read_text()


def test_lora_trains_adapters_of_the_language_model_and_saves_them_alone(run, world):
    out = run(recipe="micro-napo", lora_r=2, lora_alpha=4, lora_dropout=0.1)
    adapter = load_file(out / "adapter_model.safetensors")
    assert all("language_model.layers" in name and "lora" in name for name in adapter)
    assert len(adapter) == 2 * 2 * 7
    assert any(weight.abs().max() > 0 for name, weight in adapter.items() if "lora_B" in name)
    assert not (out / "model.safetensors").exists()
    assert (out / "README.md").read_text().startswith('---\nlibrary_name: "peft"\n')
    checkpoint = Checkpoint.open(str(out))
    assert checkpoint.adapter == out and checkpoint.folder.samefile(world / "base")
    checkpoint.load_model(torch.device("cpu"), torch.float32)


def test_an_adapter_is_trained_further_beside_its_base(run, world):
    """The reference is the model with the adapter, so the first margin is 0."""
    first = run("first", recipe="micro-dpo", lora_r=2, lora_alpha=4)
    further = run("further", recipe="micro-dpo", base=first, lora_r=2, lora_alpha=4, logging_steps=1)
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (first, further))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    checkpoint = Checkpoint.open(str(further))
    assert checkpoint.folder.samefile(world / "base")
    margins = [line["rewards/margins"] for line in log_of(further) if "rewards/margins" in line]
    assert abs(margins[0]) < 1e-5 and len(margins) > 1 and abs(margins[-1]) > 1e-5
    with pytest.raises(NapoBenchError, match="r is 2 and lora_alpha is 4; the recipe has lora_r 3") as caught:
        run("other", recipe="micro-dpo", base=first, lora_r=3, lora_alpha=4)
    assert caught.value.hint.startswith("--set lora_r=2 --set lora_alpha=4")


@pytest.mark.numeric
@pytest.mark.filterwarnings("error::FutureWarning:transformers", "error::DeprecationWarning:transformers")
def test_bf16_with_gradient_checkpointing_stays_close_to_fp32_and_keeps_float32_weights(run):
    exact = run("exact", weights="sum")
    rough = run("rough", weights="sum", precision="bf16", gradient_checkpointing="true")
    assert weights_of(rough)["language_model.model.norm.weight"].dtype == torch.float32
    for ours, theirs in zip(log_of(rough), log_of(exact), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=LOG_PROB_BF16)
    assert log_of(rough)[-1]["loss"] < log_of(rough)[0]["loss"] - 0.3


def test_training_prefers_the_chosen_responses(run):
    last = log_of(run(epochs=8))[-1]
    assert last["rewards/accuracies"] == last["rewards/accuracies_lang"] == last["rewards/accuracies_vis"] == 1


# --- the log -------------------------------------------------------------------------------------------------------


def test_log_has_one_line_a_logging_step_with_the_names_that_users_know(run):
    lines = log_of(run(logging_steps=3, epochs=3))
    assert [line["step"] for line in lines] == [1, 3, 6, 9, 12]
    names = {
        "loss",
        "learning_rate",
        "grad_norm",
        "epoch",
        "tokens_per_second",
        "memory/peak_gb",
        "napo/gamma_undefined",
    }
    for response in ("chosen", "rejected", "lang", "vis"):
        names |= {f"rewards/{response}", f"logps/{response}"}
    for response, tag in {"rejected": "", "lang": "_lang", "vis": "_vis"}.items():
        names |= {f"rewards/margins{tag}", f"rewards/accuracies{tag}", f"napo/gamma_{response}", f"loss/{response}"}
        names |= {f"napo/rounding_{response}"}
    names |= {"napo/q_lang", "napo/q_vis"}
    assert all(names <= line.keys() for line in lines)
    line = lines[-1]
    assert line["rewards/margins_vis"] == pytest.approx(line["rewards/chosen"] - line["rewards/vis"], abs=LOG_PROB)
    assert line["tokens_per_second"] > 0 and line["memory/peak_gb"] > 0.05


def test_a_reporter_that_is_not_installed_is_found_before_the_model_is_loaded(run, monkeypatch):
    monkeypatch.setattr("napo_bench.trainers.run.find_spec", lambda _: None)
    monkeypatch.setattr(Checkpoint, "load_model", lambda *_: pytest.fail("the model was allocated"))
    with pytest.raises(NapoBenchError, match="asks for tensorboard, which is not installed"):
        run(report_to="[tensorboard]")


def test_tensorboard_gets_the_same_values_beside_the_checkpoint(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(KeyboardInterrupt):
        run(report_to="[tensorboard]", save_steps=2, progress=StopAt(5))
    out = run(report_to="[tensorboard]", save_steps=2, resume=True)
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/napo/q_vis")] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(
        [line["loss"] for line in log_of(out)]
    )


def test_progress_sees_both_passes_and_the_rows_that_are_left_out(run, world):
    shutil.rmtree(world / "cache" / "reference", ignore_errors=True)

    class Notebook(Silent):
        notes, stages = [], {}

        def note(self, text):
            self.notes.append(text)

        def __call__(self, stage, done, total, values=NO_VALUES):
            self.stages[stage] = (done, total)

    run(progress=Notebook())
    assert Notebook.stages == {"Reference": (14, 14), "Training": (8, 8)}
    assert Notebook.notes == [
        "Left out, image cannot be decoded: 1 of 14 rows (row-3).",
        "Trained on without a language negative: 1 of 14 rows (row-5).",
    ]


# --- stopping and going on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"lora_r": 2, "lora_dropout": 0.2}, {"gradient_accumulation": 2}])
@pytest.mark.parametrize("stop", [3, 7])
def test_a_resumed_run_ends_with_the_same_weights_and_log(run, changes, stop):
    file = "adapter_model.safetensors" if "lora_r" in changes else "model.safetensors"
    changes = {"save_steps": 2, "epochs": 4 if "gradient_accumulation" in changes else 2, **changes}
    whole = run("whole", **changes)
    with pytest.raises(KeyboardInterrupt):
        run("stopped", progress=StopAt(stop), **changes)
    resumed = run("stopped", resume=True, **changes)
    assert (whole / file).read_bytes() == (resumed / file).read_bytes()
    assert timeless(log_of(whole)) == timeless(log_of(resumed))
    assert not (resumed / "checkpoints").exists()


class SignalAt(Silent):
    """Sends this process signals at a step, as a terminal, a scheduler or a launcher would."""

    def __init__(self, step, *signals):
        self.step, self.signals = step, signals

    def __call__(self, stage, done, total, values=NO_VALUES):
        if stage == "Training" and done == self.step:
            for signum in self.signals:
                signal.raise_signal(signum)
                self.signals = ()


@pytest.mark.parametrize(("signum", "stop"), [(signal.SIGINT, 2), (signal.SIGTERM, 8)])
def test_a_signal_saves_the_step_it_comes_in_and_resuming_gives_the_same_weights_and_log(run, tmp_path, signum, stop):
    """Step 2 is between two log lines, whose averages go on over the interruption; step 8 is the last."""
    whole = run("whole", logging_steps=3)
    with pytest.raises(Interrupted) as raised:
        run("stopped", logging_steps=3, progress=SignalAt(stop, signum))
    assert raised.value.signum == signum
    assert raised.value.kept == f"Step {stop} of 8 is saved in {tmp_path / 'stopped'}."

    steps = set()

    class Steps(Silent):
        def __call__(self, stage, done, total, values=NO_VALUES):
            steps.update([done] if stage == "Training" else [])

    resumed = run("stopped", logging_steps=3, resume=True, progress=Steps())
    assert steps == set(range(stop + 1, 9))
    assert (whole / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()
    assert timeless(log_of(whole)) == timeless(log_of(resumed))
    assert signal.getsignal(signum) in (signal.default_int_handler, signal.SIG_DFL)


def test_a_signal_that_is_sent_twice_at_once_is_one_request(run):
    with pytest.raises(Interrupted) as raised:
        run(progress=SignalAt(3, signal.SIGINT, signal.SIGTERM))
    assert raised.value.signum == signal.SIGINT and raised.value.kept.startswith("Step 3 of 8")


def test_a_second_signal_stops_at_once(run, monkeypatch):
    monkeypatch.setattr("napo_bench.core.interrupts._ONE_REQUEST_SECONDS", 0)
    with pytest.raises(Interrupted) as raised:
        run(progress=SignalAt(3, signal.SIGINT, signal.SIGTERM))
    assert raised.value.signum == signal.SIGTERM and raised.value.kept == ""


def test_a_signal_to_the_whole_process_group_spares_the_processes_that_load_data(run, world):
    """Without this they die, and the step after the signal ends in a traceback instead of a checkpoint."""
    with pytest.raises(Interrupted) as raised:
        run(workers=1, progress=SignalGroupAt(2))
    assert raised.value.kept.startswith("Step 2 of 8 is saved")


class SignalGroupAt(SignalAt):
    def __init__(self, step, *signums):
        super().__init__(step, *signums)
        self.before = set(multiprocessing.active_children())  # loaders of runs that a test ended, not yet collected

    def __call__(self, stage, done, total, values=NO_VALUES):
        if stage == "Training" and done == self.step:
            self.step = 0
            loaders = list(set(multiprocessing.active_children()) - self.before)
            assert len(loaders) == 1
            for signum in (signal.SIGINT, signal.SIGTERM):
                os.kill(loaders[0].pid, signum)
            loaders[0].join(0.5)
            assert loaders[0].is_alive()
            signal.raise_signal(signal.SIGTERM)


def test_a_checkpoint_that_was_cut_off_is_passed_over(run, tmp_path):
    whole = run("whole", save_steps=2)
    with pytest.raises(KeyboardInterrupt):
        run("stopped", save_steps=2, progress=StopAt(5))
    (tmp_path / "stopped/checkpoints/checkpoint-6").mkdir()
    (tmp_path / "stopped/checkpoints/checkpoint-6/trainer_state.json").write_text('{"epoch": 1.')
    assert_same_weights(whole, run("stopped", save_steps=2, resume=True))


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_resumed_run_writes_through_no_link_or_pipe(run, tmp_path, kind):
    with pytest.raises(KeyboardInterrupt):
        run(save_steps=1, progress=StopAt(2))
    (tmp_path / "private").write_text("mine")
    (folder,) = (tmp_path / "out/checkpoints").glob("checkpoint-1")
    for path in (tmp_path / "out/train_log.jsonl", tmp_path / "out/model.safetensors", folder / "model.safetensors"):
        path.unlink(missing_ok=True)
        os.mkfifo(path) if kind == "pipe" else path.symlink_to(tmp_path / "private")
        with pytest.raises(NapoBenchError, match=rf"{path} is a {kind}"):
            run(save_steps=1, resume=True)
        path.unlink()
    assert (tmp_path / "private").read_text() == "mine"


def test_an_output_folder_that_holds_another_run_is_left_alone(run, tmp_path):
    out = run()
    before = (out / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(NapoBenchError, match="holds this run, finished"):
        run()
    with pytest.raises(NapoBenchError, match=r"another run, finished: its beta is 1.0; here beta is 0.2"):
        run(beta=0.2)
    assert run(resume=True) == out
    with pytest.raises(NapoBenchError, match=r"another run, finished: its beta is 1.0; here beta is 0.2"):
        run(resume=True, beta=0.2)
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers/thesis.tex").write_text("")
    with pytest.raises(NapoBenchError, match="is not empty"):
        run("papers", resume=True)
    assert (out / "model.safetensors").stat().st_mtime_ns == before


def test_another_base_at_the_same_path_is_another_run(run, world, tmp_path):
    shutil.copytree(world / "base", tmp_path / "base")
    with pytest.raises(KeyboardInterrupt):
        run(base=tmp_path / "base", progress=StopAt(3))
    shutil.copy(run("other") / "model.safetensors", tmp_path / "base")
    with pytest.raises(NapoBenchError, match="base_fingerprint"):
        run(base=tmp_path / "base", resume=True)


def test_a_loss_that_is_not_finite_names_its_rows_and_the_run_can_go_on(run, monkeypatch):
    """One stored log-prob is infinite, as a damaged one would be; once it is mended the run goes on as before."""
    whole = run("whole")
    read_reference = run_module.read_reference

    def damaged(rows, folder):
        reference = read_reference(rows, folder)
        reference.sum[7, 2] = -np.inf
        return reference

    monkeypatch.setattr(run_module, "read_reference", damaged)
    with pytest.raises(NapoBenchError, match="is NaN or infinite") as raised:
        run()
    assert raised.value.message.endswith("Not finite are the log-probs of: row-7.")
    batch = raised.value.message.split("batch: ")[1].split(".")[0].split(", ")
    assert len(batch) == 4 and "row-7" in batch
    assert "checkpoint-" in raised.value.hint and "--resume" in raised.value.hint
    monkeypatch.setattr(run_module, "read_reference", read_reference)
    assert_same_weights(whole, run(resume=True))


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(run, monkeypatch, tmp_path):
    from napo_bench.trainers import trainer as trainer_module

    whole = run("whole", max_grad_norm=0)
    log_ratios = trainer_module.LogRatios

    class Steep(log_ratios):
        @classmethod
        def of(cls, sums, means, negatives):
            spike = torch.sqrt((sums - sums.detach()).abs())  # 0, with an infinite slope
            return super().of(sums + spike, means, negatives)

    monkeypatch.setattr(trainer_module, "LogRatios", Steep)
    with pytest.raises(NapoBenchError, match=r"The gradient of step 1 is NaN or infinite. The rows of its batch: row-"):
        run(max_grad_norm=0)
    saved = weights_of(tmp_path / "out/checkpoints/checkpoint-0")
    assert all(torch.isfinite(weight).all() for weight in saved.values())
    monkeypatch.setattr(trainer_module, "LogRatios", log_ratios)
    assert_same_weights(whole, run(resume=True, max_grad_norm=0))


def test_the_learning_rate_rises_in_a_line_and_falls_along_a_cosine_to_0(run):
    """The warm-up is 0.2 of 12 steps, rounded up to 3. The first step has the rate 0, as in transformers' schedules."""
    lines = log_of(run(epochs=3, warmup=0.2, learning_rate=1e-3))
    expected = [step / 3 if step < 3 else (1 + math.cos(math.pi * (step - 3) / 9)) / 2 for step in range(12)]
    assert [line["learning_rate"] for line in lines] == pytest.approx([1e-3 * share for share in expected], abs=1e-9)


def test_gradients_are_clipped_to_the_norm_of_the_recipe_and_0_clips_none(run):
    free = run("free", max_grad_norm=0)
    assert_same_weights(free, run("high", max_grad_norm=1e6))
    norms = [line["grad_norm"] for line in log_of(free)]
    assert max(norms) > 1.5 * min(norms)  # AdamW does not see a factor that all steps share
    clipped = run("clipped", max_grad_norm=min(norms) / 2)
    assert distance(weights_of(free), weights_of(clipped)) > 0


@pytest.mark.parametrize("filled_by", ["weights", "optimizer"])
def test_a_disk_that_takes_no_more_is_one_message_and_nothing_is_lost(run, world, tmp_path, filled_by):
    """The weights are written by safetensors, the larger optimizer states by torch, each with errors of its own."""
    whole = run("whole", save_steps=2)
    room = 20_000 if filled_by == "weights" else (world / "base/model.safetensors").stat().st_size + 5_000
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Fill(Silent):
        def __call__(self, stage, done, total, values=NO_VALUES):
            if stage == "Training" and done == 4:
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(NapoBenchError, match=r"cannot be written: .* \(.* are free there\)") as raised:
            run(save_steps=2, progress=Fill())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert str(tmp_path / "out") in raised.value.message and "--resume" in raised.value.hint
    whole_ones = [path.parent.name for path in (tmp_path / "out/checkpoints").glob("*/trainer_state.json")]
    assert whole_ones and "checkpoint-6" not in whole_ones

    class First(Silent):
        steps = ()

        def __call__(self, stage, done, total, values=NO_VALUES):
            self.steps += (done,) if stage == "Training" else ()

    first = First()
    assert_same_weights(whole, run(save_steps=2, resume=True, progress=first))
    assert first.steps[0] > 2


def test_a_device_without_enough_memory_is_one_message(run):
    class Full(Silent):
        def __call__(self, stage, done, total, values=NO_VALUES):
            raise torch.OutOfMemoryError if stage == "Training" else AssertionError(stage)

    run("cached")
    with pytest.raises(NapoBenchError, match="not enough memory for a batch") as raised:
        run(progress=Full())
    assert "per_device_batch_size" in raised.value.hint


def test_a_vocabulary_without_the_image_token_is_one_message(run, world, tmp_path):
    shutil.copytree(world / "base", tmp_path / "base")
    config = json.loads((tmp_path / "base/config.json").read_text())
    (tmp_path / "base/config.json").write_text(json.dumps(config | {"image_token_index": 77}))
    with pytest.raises(NapoBenchError, match=r"image token '<image>' is number 3; config.json says 77"):
        run(base=tmp_path / "base")
    processor = json.loads((tmp_path / "base/processor_config.json").read_text())
    (tmp_path / "base/processor_config.json").write_text(json.dumps(processor | {"image_token": "<picture>"}))
    with pytest.raises(NapoBenchError, match="vocabulary has no image token"):
        run(base=tmp_path / "base")


def test_rows_without_the_biased_columns_name_the_command_that_makes_them(run, tmp_path):
    rows = [{key: row[key] for key in row if key != "question_only"} for row in tiny_rows(3)]
    with pytest.raises(NapoBenchError, match="lacks the columns question_only") as raised:
        run(data=write_rows(tmp_path / "rows.parquet", rows))
    assert "napo-bench data build-bias" in raised.value.hint


def test_zero_3_is_refused_before_anything_is_loaded(run, monkeypatch, tmp_path):
    monkeypatch.setattr(run_module, "is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(NapoBenchError, match="ZeRO 3"):
        run()
    assert not (tmp_path / "out").exists()


def test_data_in_which_no_row_fits_says_why(run, tmp_path):
    with pytest.raises(NapoBenchError, match="no row can be trained on"):
        run(max_length=4)
    assert "longer than max_length (4 tokens)" in json.loads((tmp_path / "out/rows.json").read_text())["left_out"]


def test_each_file_is_hashed_once_for_a_dry_run_a_training_and_another_training(run, world, monkeypatch):
    hashed = []
    sha256_file = digests.files.sha256_file
    monkeypatch.setattr(digests, "_SETTLED_NS", 0)
    monkeypatch.setattr(digests.files, "sha256_file", lambda path: hashed.append(path.name) or sha256_file(path))
    for recipe in ("micro-napo", "micro-dpo"):
        monkeypatch.setattr(digests, "_known", {})  # as in another process
        settings = load_recipe(recipe, [f"base={world / 'base'}", f"data={world / 'rows.parquet'}"])
        run_module.open_inputs(settings, world / "cache")
        assert recipe == "micro-dpo" or hashed == ["rows.parquet"]
        run(recipe, recipe, epochs=0.1)
    assert sorted(hashed) == sorted({"rows.parquet", *(path.name for path in (world / "base").iterdir())})

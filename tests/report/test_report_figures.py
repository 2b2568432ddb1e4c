"""Figures: each is drawn from the runs that have its data, and from nothing else."""

import dataclasses
import itertools
import json
import re
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text
from synthetic_runs import invoke, make_run

from napo_bench.benchmarks.result import MetricValue
from napo_bench.report.figures import (
    INK,
    PALETTE,
    MarginSample,
    alpha_sweep,
    draw_figures,
    label_noise,
    noise_against_margin,
)
from napo_bench.report.runs import NamedRun, load_runs
from napo_bench.trainers.recipe import load_recipe

SVG = "{http://www.w3.org/2000/svg}"


def texts(figure):
    return {"".join(node.itertext()) for node in ElementTree.fromstring(figure.svg()).iter(f"{SVG}text")}


def log(*negatives):
    lines = []
    for step in range(10, 110, 10):
        line = {"step": step, "loss": 0.5}
        for negative in negatives:
            tag = "" if negative == "rejected" else f"_{negative}"
            line |= {f"rewards/margins{tag}": step / 50, f"napo/gamma_{negative}": 1 / len(negatives)}
            if negative != "rejected":
                line[f"napo/q_{negative}"] = 1 - step / 200
        lines.append(line)
    return lines


@pytest.fixture(scope="module")
def run():
    return make_run(0.6, 1)


def by_name(runs):
    return {figure.name: figure for figure in draw_figures(runs)}


def test_training_curves_of_each_run_that_has_a_log(run):
    runs = [
        NamedRun("base", run, None, []),
        NamedRun("dpo", run, None, log("rejected")),
        NamedRun("napo", run, None, log("rejected", "lang", "vis")),
    ]
    figures = by_name(runs)
    assert {"napo", "language-biased", "vision-biased"} <= texts(figures["training-q"])
    assert not {"dpo", "base", "original pairs"} & texts(figures["training-q"])
    assert {"dpo", "napo", "original pairs"} <= texts(figures["training-margins"])
    assert {"dpo", "napo", "original pairs"} <= texts(figures["training-gamma"])


def test_runs_without_data_make_no_figure():
    assert draw_figures([NamedRun("base", make_run(0.5, 1, sizes={"amber": 20}), None, [])]) == []


def test_funnel_shows_the_share_that_passes_each_test_and_all_before(run):
    counts = [sample["counts"] for sample in run.benchmarks["vlind"].samples]
    n = len(counts)
    expected = [
        sum(c["ck"] for c in counts) / n,
        sum(c["ck"] and c["vp"] for c in counts) / n,
        sum(c["ck"] and c["vp"] and c["cb"] for c in counts) / n,
        sum(c["lp"] for c in counts if c["ck"] and c["vp"] and c["cb"]) / n,
    ]
    figure = by_name([NamedRun("base", run, None, [])])["vlind-funnel"]
    heights = [bar.get_height() for bar in figure.figure.axes[0].patches]
    assert heights == pytest.approx([100 * share for share in expected])
    assert {"CK", "VP", "CB", "LP"} <= texts(figure)


def test_mmhal_bars_are_the_scores_of_the_question_types():
    run = make_run(0.6, 1)
    run.benchmarks["mmhal"].breakdown = {
        "question_type/counting": {"score": MetricValue(2.5, (2.0, 3.0), 12)},
        "question_type/relation": {"score": MetricValue(4.0, (3.0, 5.0), 12)},
    }
    figure = by_name([NamedRun("base", run, None, [])])["mmhal-types"]
    assert {"counting", "relation"} <= texts(figure)
    assert [bar.get_height() for bar in figure.figure.axes[0].patches] == [2.5, 4.0]


def test_a_sweep_is_drawn_where_three_runs_differ_in_one_alpha_only():
    recipe = load_recipe("micro-napo")
    runs = [
        NamedRun(f"alpha {alpha}", make_run(0.5 + alpha / 4, 1), replace(recipe, alpha_language=alpha), [])
        for alpha in (0.1, 0.5, 1.0)
    ]
    figures = by_name(runs)
    assert "sweep-alpha-language" in figures and "sweep-alpha-vision" not in figures
    axes = next(
        axes for axes in figures["sweep-alpha-language"].figure.axes if axes.get_title(loc="left").startswith("CB")
    )
    x, y = axes.lines[0].get_data()
    assert list(x) == [0.1, 0.5, 1.0]
    assert list(y) == [run.run.benchmarks["vlind"].metrics["cb"].value for run in runs]
    assert not any(name.startswith("sweep") for name in by_name(runs[:2]))
    other = replace(runs[2], recipe=replace(runs[2].recipe, beta=0.2))
    assert not any(name.startswith("sweep") for name in by_name([*runs[:2], other]))


def test_noise_against_margin_splits_by_what_is_known():
    rng = np.random.default_rng(0)
    noisy = rng.random(200) < 0.25
    figure = noise_against_margin({"language-biased": MarginSample(rng.normal(noisy * 2.0, 1), noisy)})
    assert {"noise", "noise-free", "language-biased", f"({noisy.mean():.0%} of 200 noise)"} <= texts(figure)


def test_names_are_text_in_a_figure_whatever_they_hold(run):
    name = "<script>alert(1)</script> $\\frac$ & ]]>"
    figure = by_name([NamedRun(name, run, None, [])])["vlind-funnel"]
    assert name in texts(figure)
    assert not list(ElementTree.fromstring(figure.svg()).iter(f"{SVG}script"))


def test_a_figure_is_the_same_each_time_it_is_drawn(run):
    drawn = [by_name([NamedRun("base", run, None, [])])["vlind-funnel"].svg() for _ in range(2)]
    assert drawn[0] == drawn[1]


# Colours and sizes


@pytest.fixture(scope="module")
def drawn(run):
    """Figures of every kind, of four methods, by name."""
    methods = ["base", "dpo", "mdpo", "napo"]
    rated = make_run(0.6, 1)
    rated.benchmarks["mmhal"].breakdown = {"question_type/counting": {"score": MetricValue(2.5, (2.0, 3.0), 12)}}
    runs = [NamedRun(name, rated, None, log("rejected", "lang", "vis") if name != "base" else []) for name in methods]
    values = {f"vlind.{name}": value for name, value in run.benchmarks["vlind"].metrics.items()}
    noisy = np.arange(60) % 3 == 0
    samples = {kind: MarginSample(np.arange(60.0), noisy) for kind in ("language", "vision", "both")}
    found = [
        *draw_figures(runs),
        noise_against_margin(samples),
        label_noise({name: {0.0: values, 10.0: values} for name in ("dpo", "napo")}, methods),
        alpha_sweep("sweep", "Sweep", {alpha: values for alpha in (0.1, 0.5, 1.0)}),
    ]
    return methods, {figure.name: figure for figure in found}


def test_a_colour_means_the_same_method_in_every_figure(drawn):
    methods, figures = drawn
    colours = dict(zip(methods, PALETTE, strict=False))
    for name in ("training-q", "training-margins", "training-gamma"):
        for axes in figures[name].figure.axes:
            assert {line.get_color() for line in axes.lines} == {colours[axes.get_title(loc="left")]}
    for name in ("vlind-funnel", "mmhal-types"):
        bars = figures[name].figure.axes[0].containers
        found = {bar.get_label(): to_hex(bar.patches[0].get_facecolor()) for bar in bars if hasattr(bar, "patches")}
        assert found == colours
    lines = figures["noise-in-labels"].figure.axes[0].containers
    assert {line.get_label(): line.lines[0].get_color() for line in lines} == {
        name: colours[name] for name in ("dpo", "napo")
    }


def test_what_is_no_method_has_no_methods_colour(drawn):
    _, figures = drawn
    for name in ("noise-against-margin", "sweep"):
        svg = figures[name].svg().lower()
        assert INK in svg and not any(colour in svg for colour in PALETTE), name


def test_kinds_of_negative_and_noise_differ_in_form(drawn):
    _, figures = drawn
    axes = figures["training-margins"].figure.axes[0]
    assert len({line.get_linestyle() for line in axes.lines}) == len(axes.lines) == 3
    (legend,) = figures["training-margins"].figure.legends
    shown = {text.get_text(): line for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)}
    assert {label: line.get_linestyle() for label, line in shown.items()} == {
        line.get_label(): line.get_linestyle() for line in axes.lines
    }
    assert {line.get_color() for line in shown.values()} == {INK}
    assert {bool(patch.get_hatch()) for patch in figures["noise-against-margin"].figure.axes[0].patches} == {
        True,
        False,
    }


def test_methods_beyond_the_palette_differ_in_pattern(run):
    runs = [NamedRun(f"_{index}", run, None, []) for index in range(13)]
    figure = by_name(runs)["vlind-funnel"].figure
    bars = [bar.patches[0] for bar in figure.axes[0].containers]
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in bars}) == 13
    assert len(figure.legends[0].get_texts()) == 13, "matplotlib leaves out labels that begin with an underscore"


def test_text_has_a_readable_size_in_every_figure(drawn, run):
    """In a README 830 pixels wide, and in half of a page of 1,280, of which 570 are left for a figure."""
    _, figures = drawn
    many = by_name([NamedRun("a long name " * 8 + str(index), run, None, []) for index in range(12)])
    for name, figure in (figures | {"many": many["vlind-funnel"]}).items():
        figure.figure.draw_without_rendering()
        sizes = [text.get_fontsize() for text in figure.figure.findobj(Text) if text.get_text()]
        pixels_an_inch = 570 / figure.figure.get_figwidth()
        assert min(sizes) / 72 * pixels_an_inch >= 11, name
        assert all(axes.get_position().height * figure.figure.get_figheight() > 1 for axes in figure.figure.axes), name


# Matrices for linear RGB, of Machado, Oliveira and Fernandes (2009), severity 1.
COLOUR_BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour):
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
    x, y, z = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", COLOUR_BLINDNESS)
def test_colour_blind_readers_tell_the_methods_apart(kind):
    seen = [lab(np.clip(COLOUR_BLINDNESS[kind] @ linear(colour), 0, 1)) for colour in PALETTE]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15  # 2.3 is just noticeable


@pytest.mark.parametrize("ground", ["#ffffff", "#14171c"])
def test_methods_stand_out_on_light_and_on_dark(ground):
    luminance = np.array([0.2126, 0.7152, 0.0722])
    for colour in PALETTE:
        low, high = sorted(float(luminance @ linear(each)) for each in (colour, ground))
        assert (high + 0.05) / (low + 0.05) > 2, colour


def train_and_evaluate(place, checkpoint, run, name, **facts):
    """What `train --out checkpoint` and `eval --ckpt name --out run` leave below a folder."""
    (place / checkpoint).mkdir(parents=True)
    recipe = load_recipe("micro-napo")
    stored = {name: getattr(recipe, name) for name in recipe.__dataclass_fields__}
    (place / checkpoint / "training.json").write_text(json.dumps({"recipe": stored}))
    lines = log("rejected", "lang", "vis")
    (place / checkpoint / "train_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = make_run(0.6, 1, name=name, sizes={"vlind": 4})
    checkpoint = dataclasses.replace(result.provenance.checkpoint, **facts)
    result.provenance = dataclasses.replace(result.provenance, checkpoint=checkpoint)
    result.save(place / run / "run.json")
    return str(place / run)


def test_command_writes_figures_with_the_log_of_the_runs_checkpoint(tmp_path, monkeypatch, capsys):
    name = str(tmp_path / "checkpoints" / "napo")
    run = train_and_evaluate(tmp_path, "checkpoints/napo", "run", name)
    gone = train_and_evaluate(tmp_path, "checkpoints/gone", "gone-run", str(tmp_path / "checkpoints" / "gone"))
    shutil.rmtree(tmp_path / "checkpoints" / "gone")
    code, _, err = invoke(["report", run, gone, "--figures", tmp_path / "figures"], monkeypatch, capsys, width=400)
    assert code == 0
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"training-q.svg", "training-q.png", "vlind-funnel.svg", "vlind-funnel.png"} <= names
    assert (tmp_path / "figures" / "training-q.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"<text[^>]*>napo</text>", (tmp_path / "figures" / "training-q.svg").read_text())
    assert err.count("note ") == 1 and "checkpoints/gone is not found" in err and "checkpoints/napo" not in err


@pytest.mark.parametrize(
    ("checkpoint", "run", "name", "facts"),
    [
        ("exp/napo/seed-0/model", "exp/napo/seed-0/eval", "exp/napo/seed-0/model", {}),
        ("models/napo", "runs/deep/napo", "models/napo", {}),
        ("models/napo", "runs/napo", "napo", {"folder": "models/napo"}),
        ("exp/napo/seed-0/model", "exp/napo/seed-0/eval", "/moved/since/napo/seed-0/model", {}),
    ],
)
def test_the_log_is_found_from_any_folder(checkpoint, run, name, facts, tmp_path, monkeypatch):
    facts = {key: str(tmp_path / "there" / value) for key, value in facts.items()}
    found = train_and_evaluate(tmp_path / "there", checkpoint, run, name, **facts)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (loaded,) = load_runs([found], samples=False)
    assert len(loaded.log) == 10 and loaded.recipe == load_recipe("micro-napo") and loaded.lacks == ""


def test_a_folder_of_the_same_name_here_is_not_taken_for_the_runs_own(tmp_path, monkeypatch):
    found = train_and_evaluate(tmp_path / "there", "models/napo", "runs/napo", "models/napo")
    train_and_evaluate(tmp_path / "elsewhere", "models/napo", "runs/napo", "models/napo")
    (tmp_path / "elsewhere" / "models" / "napo" / "train_log.jsonl").write_text("")
    monkeypatch.chdir(tmp_path / "elsewhere")
    (loaded,) = load_runs([found], samples=False)
    assert len(loaded.log) == 10


@pytest.mark.parametrize(
    ("gone", "facts", "said"),
    [
        ("models/napo/train_log.jsonl", {}, "models/napo/train_log.jsonl does not exist"),
        ("models", {}, "its checkpoint models/napo is not found"),
        ("models", {"folder": None}, ""),
        ("models/napo/training.json", {}, ""),
    ],
    ids=["log", "checkpoint", "hub checkpoint", "untrained checkpoint"],
)
def test_a_run_says_what_of_its_training_is_missing(gone, facts, said, tmp_path, monkeypatch):
    found = train_and_evaluate(tmp_path, "models/napo", "runs/napo", "models/napo", **facts)
    (tmp_path / "models" / "napo" / "config.json").write_text("{}")
    shutil.rmtree(tmp_path / gone) if (tmp_path / gone).is_dir() else (tmp_path / gone).unlink()
    monkeypatch.chdir(tmp_path)
    (loaded,) = load_runs([found], samples=False)
    assert loaded.log == [] and loaded.lacks.endswith(said) and bool(loaded.lacks) == bool(said)

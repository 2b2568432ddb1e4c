"""What a mistyped name gets: the nearest names, everywhere in the same words."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_runs import invoke

from napo_bench.core.errors import NapoBenchError, nearest


@pytest.mark.parametrize(
    ("name", "choices", "found"),
    [
        ("vilnd", ["vlind", "amber"], ["vlind"]),
        ("ambr", ["vlind", "amber", "amber_discriminative"], ["amber"]),
        ("Object-HalBench", ["object_halbench", "amber"], ["object_halbench"]),
        ("halbench", ["object_halbench", "amber"], ["object_halbench"]),
        ("chair", ["amber.chair", "object_halbench.chair_s", "vlind.cb"], ["amber.chair"]),
        ("bf16", ["auto", "float32", "bfloat16"], ["bfloat16"]),
        ("pope", ["vlind", "amber"], []),
        ("", ["vlind", "amber"], []),
    ],
)
def test_the_nearest_names_are_found(name: str, choices: list[str], found: list[str]) -> None:
    assert nearest(name, choices) == found


EVAL = ("eval", "--ckpt", "micro", "--device", "cpu", "--out", "out")
EXPERIMENT = ("train-then-eval", "--out", "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*EVAL, "--suite", "micr"), "Did you mean micro? Choose one of vlind, object_halbench, amber, amber_disc"),
        ((*EVAL, "--suite", "vlind,mmhl"), "no benchmark 'mmhl'. Next: Did you mean mmhal?"),
        ((*EVAL, "--suite", "micro,vlind"), "give --suite micro alone"),
        ((*EVAL, "--profile", "gredy"), "Did you mean greedy?"),
        ((*EVAL, "--suite", "vlind", "--pipeline", "closed"), "Did you mean closed_vocabulary?"),
        ((*EXPERIMENT, "--recipe", "dpo"), "Did you mean micro-dpo or micro-"),
        ((*EXPERIMENT, "--set", "learningrate=1"), "Did you mean learning_rate?"),
        ((*EXPERIMENT, "--set", "weights=dynamc"), "Did you mean dynamic?"),
        (("lab", "--part", "noise"), "Did you mean noise-in-labels?"),
        (("lab", "--set", "base=b"), "--set base=b has no effect: the lab sets base to micro."),
        (("report", "runs/base", "--format", "htm"), "Did you mean html?"),
    ],
)
def test_a_mistyped_name_is_refused_with_the_nearest_one(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = invoke(list(arguments), monkeypatch, capsys)
    assert code == 2 and out == ""
    assert message in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ("[vlind]\nlpp = {floor = 1}", "there is no metric 'vlind.lpp'"),
        ("[vlind]\nlpp = {floor = 1}", "Did you mean vlind.lp?"),
        ("[vlnd]\nlp = {floor = 1}", "Did you mean vlind?"),
        ("[vlind.lp]\nmax_regresion = 1", "Did you mean max_regression?"),
        ("confidense = 0.9", "Did you mean confidence?"),
    ],
)
def test_a_mistyped_name_in_a_gates_file_is_refused_with_the_nearest_one(
    gates: str, message: str, tmp_path: Path
) -> None:
    from napo_bench.core.errors import NapoBenchError
    from napo_bench.runs.gates import load_gates

    (tmp_path / "gates.toml").write_text(gates)
    with pytest.raises(NapoBenchError) as caught:
        load_gates(tmp_path / "gates.toml")
    assert message in str(caught.value)


def test_control_characters_reach_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.table import Table

    from napo_bench.cli import console

    hostile = "a\x1b[31mb\x1b]0;title\x07\x9b2J\u202ec\r"
    console.print_error(NapoBenchError(hostile, hostile))
    console.err.print(hostile, markup=False)
    table = Table()
    table.add_column(hostile)
    table.add_row(hostile)
    console.print_whole(table)
    for text in capsys.readouterr():
        assert not set(text) & set("\x1b\x07\x9b\u202e\r") and "\\x1b" in text

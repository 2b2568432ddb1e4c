"""`napo-bench train` as a user meets it: what is printed where, what is left behind, and what a mistake says."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from synthetic_runs import invoke
from tiny_llava import make_data
from tiny_rows import tiny_checkpoint, tiny_rows, write_rows

from napo_bench.cli import main
from napo_bench.core.bars import Bars
from napo_bench.runs.result import RunResult


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    tiny_checkpoint(folder / "base")
    rows = tiny_rows(10)
    rows[2]["image_only"] = ""
    write_rows(folder / "rows.parquet", rows)
    write_rows(folder / "unbiased.parquet", [{k: row[k] for k in row if "_only" not in k} for row in rows])
    return folder


@pytest.fixture
def command(world, tmp_path, monkeypatch, capsys):
    """Runs `napo-bench train` on the tiny world; returns exit code, stdout and stderr."""

    def run(*arguments, recipe="micro-napo", data="rows.parquet"):
        monkeypatch.chdir(tmp_path)
        inputs = ["--recipe", recipe, "--ckpt", str(world / "base"), "--data", str(world / data)]
        return invoke(["train", *inputs, *arguments], monkeypatch, capsys)

    return run


def test_the_checkpoint_is_named_on_stdout_and_all_else_is_on_stderr(command, tmp_path):
    code, out, err = command("--out", "trained", "--set", "epochs=2", "--set", "per_device_batch_size=5")
    assert (code, out) == (0, "trained\n"), err
    assert "Trained on without a vision negative: 1 of 10 rows (row-2)." in err
    assert "Reference" in err and "Training" in err and "4/4" in err
    assert "q, language-biased" in err
    assert "Next: napo-bench eval --ckpt trained --suite micro\n" in err
    assert "epochs: 2.0" in (tmp_path / "trained/recipe.yaml").read_text()
    assert (tmp_path / "trained/model.safetensors").is_file()
    code, out, err = command("--out", "trained", "--set", "epochs=2", "--set", "per_device_batch_size=5", "--resume")
    assert (code, out) == (0, "trained\n") and "is finished already" in err


def test_sigterm_names_the_step_that_is_saved_and_the_command_that_goes_on(command, monkeypatch):
    arguments = ["--out", "trained", "--set", "epochs=2", "--set", "per_device_batch_size=5"]
    progress = Bars.__call__

    def terminated(self, stage, done, *more):
        progress(self, stage, done, *more)
        if stage == "Training" and done == 3:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Bars, "__call__", terminated)
    code, out, err = command(*arguments)
    assert (code, out) == (143, "")
    (said,) = [line for line in err.splitlines() if line.startswith("Interrupted")]
    assert said.startswith(
        "Interrupted by SIGTERM. Step 3 of 4 is saved in trained. To continue: napo-bench train --recipe"
    )
    assert said.endswith(" --out trained --set epochs=2 --set per_device_batch_size=5 --resume")
    assert "Traceback" not in err
    monkeypatch.setattr(Bars, "__call__", progress)
    assert command(*arguments, "--resume")[:2] == (0, "trained\n")


def test_dry_run_shows_recipe_rows_tokens_memory_and_time_and_trains_nothing(command, world, tmp_path):
    code, out, err = command("--dry-run", "--set", "beta=0.3")
    assert code == 0, err
    for part in (
        "beta: 0.3",
        "image and prompt",
        "10 of 10",
        "all fit",
        "one for all responses of a row",
        "1 of 16 rows, on 1 process",
        "memory",
        "time",
    ):
        assert part in out
    assert "row-2" in err
    weights = load_file(world / "base/model.safetensors")
    assert f"{sum(weight.numel() for weight in weights.values()):,}; " in out
    trained = sum(weight.numel() for name, weight in weights.items() if "vision_tower" not in name)
    assert f"{trained:,} train" in out
    assert "refuses this recipe" not in err
    _, apart, _ = command("--dry-run", "--set", "shared_prefix=false")
    assert "one for each response: shared_prefix is false" in apart
    _, _, err = command("--dry-run", "--set", "noise_rows=3")
    assert "train on 1 process refuses this recipe. noise_rows is 3" in " ".join(err.split())
    assert list(tmp_path.iterdir()) == []


def test_what_train_writes_eval_scores(command, world, tmp_path, monkeypatch, capsys):
    make_data(world / "data", size=2)
    assert command("--out", "trained")[0] == 0
    options = ["--suite", "vlind", "--data-dir", str(world / "data"), "--device", "cpu", "--out", "run"]
    monkeypatch.setattr(sys, "argv", ["napo-bench", "eval", "--ckpt", "trained", *options])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert " cb " in capsys.readouterr().out
    assert RunResult.load(tmp_path / "run").benchmarks["vlind"].metrics["ck"].n == 2


def test_training_starts_from_the_micro_base_by_name_but_needs_rows(world, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["napo-bench", "train", "--recipe", "micro-napo", "--out", str(tmp_path / "o")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "napo-bench data micro-rows --out micro.parquet" in " ".join(
        capsys.readouterr().err.replace("│", " ").split()
    )


def test_the_rows_that_the_micro_recipes_ask_for_are_drawn_and_fit(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    draw = ["data", "micro-rows", "--out", "micro.parquet", "--rows", "4"]
    code, out, err = invoke(draw, monkeypatch, capsys)
    assert code == 0 and out.strip() == "micro.parquet", err
    drawn = Path("micro.parquet").read_bytes()
    assert invoke(draw, monkeypatch, capsys)[0] == 0 and Path("micro.parquet").read_bytes() == drawn
    plan = ["train", "--recipe", "micro-dpo", "--data", "micro.parquet", "--dry-run"]
    code, out, err = invoke(plan, monkeypatch, capsys)
    assert code == 0 and "4 of 4" in out, err
    Path("notes.txt").write_text("mine")
    code, _, err = invoke(["data", "micro-rows", "--out", "notes.txt"], monkeypatch, capsys)
    assert code == 2 and "notes.txt" in err and Path("notes.txt").read_text() == "mine"
    code, _, err = invoke(["data", "micro-rows", "--out", "."], monkeypatch, capsys)
    assert code == 2 and "--out micro.parquet" in err


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (["--out", "o"], {"recipe": "micro-nap"}, "Did you mean micro-napo"),
        (["--out", "o", "--set", "alfa_vision=1"], {}, "Did you mean alpha_vision?"),
        (["--out", "o", "--set", "beta=0"], {}, "beta is 0. Expected `float` > 0.0."),
        (["--out", "o"], {"data": "unbiased.parquet"}, "napo-bench data build-bias"),
        (["--out", "o"], {"data": "nothing.parquet"}, "nothing.parquet does not exist"),
        (["--out", "o", "--ckpt", "./nowhere"], {}, "nowhere does not exist"),
        (["--out", "o", "--ckpt", "a", "--set", "base=b"], {}, "--set base=b has no effect: --ckpt sets base to a."),
        (["--out", "o", "--set", "data=b"], {"data": "unbiased.parquet"}, "--set data=b has no effect: --data sets"),
        ([], {}, "Add --out DIR"),
    ],
)
def test_a_mistake_is_one_panel_and_exit_code_2(command, tmp_path, arguments, options, said):
    code, out, err = command(*arguments, **options)
    assert (code, out) == (2, "")
    assert said in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert not (tmp_path / "o").exists()


def test_a_second_training_of_the_same_unfinished_run_is_told_to_resume_and_another_run_what_differs(command, tmp_path):
    assert command("--out", "o", "--set", "epochs=0.1")[0] == 0
    held = json.loads((tmp_path / "o/training.json").read_text())
    (tmp_path / "o/training.json").write_text(json.dumps(held | {"finished": False}))
    code, _, err = command("--out", "o", "--set", "epochs=0.1")
    said = " ".join(err.replace("│", " ").split())
    assert code == 2 and "o holds this run, not finished." in said and "Add --resume to go on with it." in said
    code, _, err = command("--out", "o")
    said = " ".join(err.replace("│", " ").split())
    assert code == 2 and "o holds another run, not finished: its epochs is 0.1; here epochs is " in said
    assert "Add --resume" not in said

"""`napo-bench train-then-eval` on a tiny world: what it leaves, skips and goes on with, and what a mistake says."""

from __future__ import annotations

import functools
import json
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from misbehaving_server import MisbehavingServer, answer, refusal
from synthetic_runs import invoke
from tiny_llava import make_data
from tiny_rows import tiny_checkpoint, tiny_rows, write_rows

from napo_bench.runs.result import RunResult
from napo_bench.studies import experiment
from napo_bench.trainers.recipe import load_recipe
from napo_bench.trainers.run import train


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    tiny_checkpoint(folder / "base")
    write_rows(folder / "rows.parquet", [{k: row[k] for k in row if "_only" not in k} for row in tiny_rows(6)])
    make_data(folder / "data", size=2)
    return folder


@pytest.fixture
def command(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lmms_eval", None)  # its import fails: training and evaluating go without it

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        inputs = ["--ckpt", str(world / "base"), "--data", str(world / "rows.parquet"), "--out", "out"]
        suite = ["--suite", "vlind", "--data-dir", str(world / "data")]
        return invoke(["train-then-eval", *inputs, *suite, *arguments], monkeypatch, capsys)

    return run


STEPS = ("--set", "learning_rate=0.01", "--set", "per_device_batch_size=2")
METHODS = ("--recipe", "micro-dpo", "--recipe", "micro-napo", *STEPS)


def test_base_and_every_method_are_trained_and_evaluated_and_end_in_one_table(command, tmp_path):
    code, out, err = command(*METHODS)
    assert code == 0, err
    assert all(name in out for name in ("base", "micro-dpo", "micro-napo", "VLind-Bench CB", "VLind-Bench LP"))
    fingerprints = {
        RunResult.load(tmp_path / run).provenance.checkpoint.fingerprint
        for run in ("out/base/eval", "out/micro-dpo/seed-0/eval", "out/micro-napo/seed-0/eval")
    }
    assert len(fingerprints) == 3
    assert "\nmicro-napo: VLind-Bench: The accuracy " in out and "at an equal yes-rate." in out
    assert "What the gains of micro-napo over base were bought with." in (tmp_path / "out/report.html").read_text()
    assert "micro-napo" in (tmp_path / "out/table.md").read_text()
    assert r"\toprule" in (tmp_path / "out/table.tex").read_text()
    assert "<html" in (tmp_path / "out/report.html").read_text()


def test_a_second_run_does_nothing_again_and_prints_the_same(command, tmp_path, monkeypatch):
    first = command(*METHODS)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("run.json")}

    def never(*_, **__):
        raise AssertionError("evaluated again")

    monkeypatch.setattr(experiment, "evaluate", never)
    second = command(*METHODS)
    assert second[:2] == first[:2] and len(written) == 3
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("run.json")} == written


def test_what_was_interrupted_goes_on_to_the_same_numbers(command, tmp_path, monkeypatch):
    whole = command(*METHODS)[1]
    (tmp_path / "out").rename(tmp_path / "undisturbed")
    calls = []

    def stops_at_the_second(*arguments, **named):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*arguments, **named)

    evaluate = experiment.evaluate
    monkeypatch.setattr(experiment, "evaluate", stops_at_the_second)
    assert command(*METHODS)[0] == 130
    monkeypatch.setattr(experiment, "evaluate", evaluate)
    assert command(*METHODS)[1] == whole


def test_two_jobs_leave_the_bytes_of_one_and_a_failing_step_ends_both(command, tmp_path, monkeypatch):
    here = []
    for name in ("_train", "_evaluate"):
        step = getattr(experiment.Experiment, name)

        @functools.wraps(step)
        def counted(*given, step=step):
            here.append(step)
            step(*given)

        monkeypatch.setattr(experiment.Experiment, name, counted)
    recipes = (*METHODS, "--device", "cpu", "--seeds", "2")
    whole = command(*recipes)[1]

    def left():
        weights = [*(tmp_path / "out").rglob("*.safetensors"), *(tmp_path / "out").rglob("samples/*")]
        return {path: path.read_bytes() for path in weights}

    one = left()
    assert len(here) == 9
    here.clear()
    (tmp_path / "out").rename(tmp_path / "undisturbed")
    code, out, err = command(*recipes, "--jobs", "2")
    assert (code, out) == (0, whole), err
    assert 0 < len(here) < 9, "the other process does steps too"
    assert left() == one and len(one) == 9
    (tmp_path / "out").rename(tmp_path / "again")
    (tmp_path / "out/micro-dpo/seed-0").mkdir(parents=True)
    (tmp_path / "out/micro-dpo/seed-0/model").write_text("not a folder")
    code, _, err = command(*recipes, "--jobs", "2")
    assert code == 2 and "out/micro-dpo/seed-0/model" in err, err


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (("--jobs", "2", "--suite", "mmhal", "--judge-model", "j"), {}, "--jobs 2 with a judge"),
        (("--jobs", "2"), {"WORLD_SIZE": "2"}, "--jobs 2 under a launcher, whose 2 processes"),
    ],
    ids=["a judge", "a launcher"],
)
def test_jobs_that_cannot_run_side_by_side_are_refused_first(command, monkeypatch, arguments, environment, message):
    monkeypatch.setattr(experiment.Experiment, "steps", lambda _: pytest.fail("a step began"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, _, err = command("--recipe", "micro-dpo", *arguments)
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())


def test_an_interrupt_that_comes_while_an_object_is_finalized_is_obeyed(command, monkeypatch):
    class Finalized:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def evaluates_for_long(*_, **__):
        Finalized()
        time.sleep(20)
        raise AssertionError("went on")

    monkeypatch.setattr(experiment, "evaluate", evaluates_for_long)
    code, _, err = command(*METHODS)
    assert code == 130
    assert "Interrupted by SIGINT. What was finished is on disk. To continue: napo-bench train-then-eval" in err


def test_other_weights_at_the_same_path_are_evaluated_anew(command, tmp_path, world):
    command("--recipe", "micro-dpo")
    run = tmp_path / "out/base/eval/run.json"
    stored = run.read_text()
    run.write_text(stored.replace(RunResult.load(run).provenance.checkpoint.fingerprint, "0" * 64))
    command("--recipe", "micro-dpo")
    assert RunResult.load(run).provenance.checkpoint.fingerprint in stored


def test_an_evaluation_of_other_settings_is_redone_from_the_stored_answers(command, tmp_path, monkeypatch):
    suite = ("--recipe", "micro-dpo", *STEPS, "--suite", "amber,mmhal", "--pipeline", "closed_vocabulary")
    command(*suite)
    mmhal = [RunResult.load(run).benchmarks["mmhal"] for run in (tmp_path / "out").rglob("run.json")]
    assert [result.metrics for result in mmhal] == [{}, {}]
    monkeypatch.delattr("napo_bench.engines.hf.HFEngine.generate")
    with MisbehavingServer(lambda request: answer("Rating: 5")) as server:
        judge = ("--judge-model", "a-judge", "--judge-base-url", server.url)
        code, out, err = command(*suite, *judge)
        assert code == 0 and server.requests, err
        assert "judge was none and is a-judge at" in " ".join(err.split()) and "MMHal-Bench Score" in out
        asked = len(server.requests)
        assert "evaluated again" not in command(*suite, *judge)[2]
        assert len(server.requests) == asked
    for run in (tmp_path / "out").rglob("run.json"):
        run.write_text(run.read_text().replace('"unanswered": []', '"unanswered": [{"sample_id": "1"}]', 1))
    assert "prompts without an answer or a rating are asked again" in " ".join(command(*suite, *judge)[2].split())
    for run in (tmp_path / "out").rglob("run.json"):
        assert '"unanswered": []' in run.read_text() and "sample_id" not in run.read_text()
        assert RunResult.load(run).benchmarks["mmhal"].metrics["score"].value == 5.0
        shutil.rmtree(run.parent / "samples")
    assert "MMHal-Bench Score" in command(*suite, *judge)[1]
    ratings = {"kind": 5, "strict": 3}
    with MisbehavingServer(lambda request: answer(f"Rating: {ratings[request.body['model']]}")) as server:
        judges = [option for name in ratings for option in ("--judge-model", f"{name}@{server.url}")]
        out = command(*suite, *judges)[1]
    rows = [line.split() for line in out.splitlines() if line.startswith("MMHal-Bench Score")]
    assert [row[3:5] for row in rows] == [["[b]", "5.00"], ["[c]", "3.00"], ["[d]", "4.00"]]
    assert ["(+0.00)" in row for row in rows] == [False, False, True]
    assert "[b] MMHal-Bench: Judged by kind" in out and "[d] MMHal-Bench: Mean over the judges kind" in out


def test_limit_dtype_and_device_reach_every_evaluation(command, tmp_path):
    options = ("--limit", "1", "--dtype", "bfloat16", "--device", "cpu")
    code, _, err = command("--recipe", "micro-dpo", *STEPS, *options)
    assert code == 0, err
    for run in (tmp_path / "out").rglob("run.json"):
        made = RunResult.load(run).provenance
        assert (made.limit, made.generation["dtype"], made.generation["device"]) == (1, "bfloat16", "cpu")


def test_recipes_are_added_and_taken_away_in_place(command, tmp_path):
    def runs():
        return {path.parent.parent: path.read_bytes() for path in (tmp_path / "out").rglob("run.json")}

    assert command("--recipe", "micro-dpo", *STEPS)[0] == 0
    alone = runs()
    code, out, err = command(*METHODS)
    assert code == 0 and "micro-dpo" in out and "micro-napo" in out, err
    both = runs()
    assert len(both) == 3 and alone.items() <= both.items()
    code, out, err = command("--recipe", "micro-napo", *STEPS)
    assert code == 0 and "micro-dpo" not in out, err
    assert runs() == both

    given = tmp_path / "out/micro-dpo/seed-0/model"
    recipe = load_recipe(given / "recipe.yaml", [f"data={tmp_path / 'out/rows/rows-bias'}"])
    train(recipe, tmp_path / "with-negatives")
    name = "model.safetensors"
    assert (tmp_path / "with-negatives" / name).read_bytes() == (given / name).read_bytes()


def test_seeds_are_added_trained_apart_and_pooled(command, tmp_path):
    assert command("--recipe", "micro-dpo", *STEPS)[0] == 0
    code, out, err = command("--recipe", "micro-dpo", "--seeds", "2", *STEPS)
    assert code == 0, err
    assert "2 trainings" in out
    recipes = [(tmp_path / f"out/micro-dpo/seed-{seed}/model/recipe.yaml").read_text() for seed in (0, 1)]
    assert "seed: 0" in recipes[0] and "seed: 1" in recipes[1]


def test_each_control_is_an_arm_of_its_own_that_goes_on_after_an_interrupt(command, tmp_path, monkeypatch):
    arguments = ("--recipe", "micro-dpo", *STEPS, "--control", "blind", "--control", "swapped")
    evaluate, calls = experiment.evaluate, []

    def stops_at_the_first_control(*given, **named):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(*given, **named)

    monkeypatch.setattr(experiment, "evaluate", stops_at_the_first_control)
    assert command(*arguments)[0] == 130
    monkeypatch.setattr(experiment, "evaluate", evaluate)
    code, out, err = command(*arguments)
    assert code == 0, err
    assert "Controls (blind, swapped): 2 further trainings and evaluations, about " in err
    assert "out/micro-dpo-blind/seed-0/model is finished already" in err
    methods, blind, swapped = re.split("Controls: trained with (?:blank images|the images of other rows)\n", out)
    assert "micro-dpo" in methods and "-blind" not in methods and "-swapped" not in methods
    assert "micro-dpo-blind" in blind and "micro-dpo-swapped" in swapped and "no clear change" in blind
    assert "micro-dpo has no clear gain or loss, so no part is stated." in swapped
    for control in ("blind", "swapped"):
        arm = tmp_path / f"out/micro-dpo-{control}/seed-0"
        assert f"control: {control}" in (arm / "model/recipe.yaml").read_text()
        run = RunResult.load(arm / "eval")
        assert run.provenance.checkpoint.control == control
        assert any("a control: the checkpoint was trained with " in note for note in run.benchmarks["vlind"].notes)
    method = RunResult.load(tmp_path / "out/micro-dpo/seed-0/eval")
    assert method.provenance.checkpoint.control is None
    assert not any("a control" in note for note in method.benchmarks["vlind"].notes)
    sentence = "micro-dpo has no clear gain or loss in VLind-Bench CB, VLind-Bench LP: the interval"
    assert sentence in (tmp_path / "out/table.md").read_text()
    assert sentence in (tmp_path / "out/report.html").read_text()
    monkeypatch.setattr(experiment, "evaluate", lambda *_, **__: pytest.fail("evaluated again"))
    assert command(*arguments)[1] == out
    assert "micro-dpo-blind" not in command("--recipe", "micro-dpo", *STEPS)[1]


def test_controls_are_trained_with_every_seed(command, tmp_path):
    code, out, err = command("--recipe", "micro-dpo", *STEPS, "--seeds", "2", "--control", "swapped")
    assert code == 0, err
    assert "Controls (swapped): 2 further trainings and evaluations" in err
    assert "paired interval over 2 trainings" in " ".join(out.split())
    recipes = [(tmp_path / f"out/micro-dpo-swapped/seed-{seed}/model/recipe.yaml").read_text() for seed in (0, 1)]
    assert "seed: 0" in recipes[0] and "seed: 1" in recipes[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Which recipes should be trained"),
        (("--recipe", "micro-napoo"), "Did you mean micro-napo"),
        (("--recipe", "micro-dpo", "--recipe", "micro-dpo"), "Two methods would be called 'micro-dpo'"),
        (("--recipe", "micro-dpo", "--set", "betaa=1"), "Did you mean beta"),
        (("--recipe", "micro-dpo", "--control", "blinded"), "--control: there is no control 'blinded'. Next: Did you"),
        (
            ("--recipe", "micro-dpo", "--control", "blind", "--set", "control=swapped"),
            "micro-dpo is the control swapped itself, so --control blind has nothing to be beside.",
        ),
        (("--recipe", "micro-dpo", "--data", "nowhere.parquet"), "nowhere.parquet does not exist"),
        (("--recipe", "micro-dpo", "--set", "base=b"), "--set base=b has no effect: --ckpt sets base to"),
        (("--recipe", "micro-dpo", "--set", "seed=3"), "--set seed=3 has no effect: --seeds sets seed to 0."),
        (
            ("--recipe", "micro-dpo", "--ckpt", "./nowhere", "--data", "nothing.parquet", "--data-dir", "empty"),
            "nowhere does not exist. Next: Give the folder of a checkpoint",
        ),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(command, arguments, message):
    code, out, err = command(*arguments)
    assert code == 2 and out == ""
    assert message in " ".join(err.replace("│", " ").split()) and "Traceback" not in err


def damage_the_question_file(world, folder):
    data = Path(shutil.copytree(world / "data", folder / "data"))
    (data / "vlind/data.json").write_text("[")
    return ["--data-dir", str(data)]


def leave_out_the_image_token(world, folder):
    config = Path(shutil.copytree(world / "base", folder / "base")) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"image_token_index": 77}))
    return ["--ckpt", str(folder / "base")]


def give_every_row_one_image(world, folder):
    rows = tiny_rows(3)
    for row in rows:
        row["image"] = rows[0]["image"]
    return ["--data", str(write_rows(folder / "rows.parquet", rows)), "--control", "swapped"]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (damage_the_question_file, "data.json"),
        (leave_out_the_image_token, "config.json says 77"),
        (lambda *_: ["--data", "nothing.parquet"], "nothing.parquet"),
        (give_every_row_one_image, "control is swapped, and the rows do not have two different images"),
        (lambda *_: ["--dtype", "fp16"], "The dtype is 'fp16'"),
        (lambda *_: ["--device", "cuda:99"], "The device is 'cuda:99'"),
        (lambda *_: ["--recipe", "llava-1.5-7b-napo"], "noise_rows is 8"),
    ],
    ids=["data", "checkpoint", "rows", "images", "dtype", "device", "rows of a mean"],
)
def test_what_a_later_step_needs_is_tried_before_the_first(command, world, tmp_path, monkeypatch, mistake, message):
    monkeypatch.setattr(experiment.Experiment, "steps", lambda _: pytest.fail("a step began"))
    code, _, err = command("--recipe", "micro-dpo", *mistake(world, tmp_path))
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())


def test_a_judge_that_does_not_work_is_found_before_anything_is_trained(command, tmp_path):
    with MisbehavingServer(lambda request: refusal(401, "no")) as server:
        judge = ("--suite", "mmhal", "--judge-model", "j", "--judge-base-url", server.url)
        code, _, err = command(*METHODS, *judge)
        assert (code, len(server.requests)) == (2, 1)
    assert "refuses" in err and "HTTP 401" in err
    assert not (tmp_path / "out/base").exists()
    code, _, err = command(*METHODS, *judge)
    assert code == 2
    assert "cannot be reached" in err


def test_the_base_is_asked_in_the_conversation_of_the_recipes(command, tmp_path):
    """The base is refused before the first step, because a Qwen2-VL has no conversation of LLaVA-1.5."""
    qwen = tiny_checkpoint(tmp_path / "qwen", "qwen2_vl")
    code, _, err = command("--ckpt", str(qwen), "--recipe", "micro-dpo", *STEPS, "--set", "conversation=vicuna_v1")
    assert code == 2
    assert "vicuna_v1 is a conversation of LLaVA-1.5" in " ".join(err.split())


def test_recipes_of_two_conversations_are_refused(command, tmp_path):
    recipes = []
    for name in ("llava_v1", "vicuna_v1"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"extends: micro-dpo\nconversation: {name}\n")
        recipes += ["--recipe", str(path)]
    code, _, err = command(*recipes)
    assert code == 2
    assert "The recipes name different conversations: llava_v1, vicuna_v1." in " ".join(err.split())

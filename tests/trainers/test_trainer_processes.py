"""Two processes with half the batch each do what one does: plain, under FSDP and under DeepSpeed, on the CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from rounding import LOG_PROB, distance, of_a_share
from safetensors.torch import load_file
from tiny_rows import tiny_checkpoint, tiny_rows, write_rows

from napo_bench.trainers.recipe import RECIPES, load_recipe
from napo_bench.trainers.run import train

SUPPORT = Path(__file__).parents[1] / "support"

SETTINGS = {
    "beta": 0.1,
    "epochs": 2,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_steps": 3,
    "gradient_accumulation": 2,
}
FORWARDS_DIFFER = 4
NEEDS_DEEPSPEED = pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="deepspeed is not installed")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """21 rows that can be trained on: an epoch's last forward has one, and one process a row that does not count."""
    folder = tmp_path_factory.mktemp("world")
    tiny_checkpoint(folder / "base")
    rows = tiny_rows(22)
    rows[3]["image"]["bytes"] = b"no picture"
    rows[5]["question_only"] = ""
    write_rows(folder / "rows.parquet", rows)
    (folder / "here" / "trainers").mkdir(parents=True)
    (folder / "here" / "trainers" / "__init__.py").write_text("raise SystemExit('the folder where the user stands')")
    train_alone(folder, "one")
    return folder


def train_alone(world, out, **changes):
    """Train in this process, with 4 rows a forward."""
    inputs = {"base": world / "base", "data": world / "rows.parquet", "per_device_batch_size": 4}
    overrides = [f"{key}={value}" for key, value in {**inputs, **SETTINGS, **changes}.items()]
    train(load_recipe("micro-napo", overrides), world / out, cache=world / "cache-one")


def launch(world, out, *program, resume=False, ended_by_signal=False, **changes):
    """Run `napo-bench train` in two processes, 2 rows each, and return what it printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        f"--master-port={port}",
        *program,
    ]
    command += [
        "train",
        "--recipe",
        "micro-napo",
        "--ckpt",
        changes.pop("base", world / "base"),
        "--data",
        world / "rows.parquet",
    ]
    command += ["--out", world / out, "--cache", world / "cache-two", "--set", "per_device_batch_size=2"]
    command += [part for key, value in {**SETTINGS, **changes}.items() for part in ("--set", f"{key}={value}")]
    command += ["--resume"] if resume else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)), cwd=world / "here", env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode == 1) is ended_by_signal, done.stderr[-3000:]
    return done


def log_of(folder):
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]


def assert_as_one_process(world, out, alone="one"):
    """The log agrees within the rounding of float32, and the weights within a thousandth of the way they went."""
    one, two = log_of(world / alone), log_of(world / out)
    assert len(one) == len(two) == 6
    reward = SETTINGS["beta"] * LOG_PROB
    for ours, theirs in zip(one, two, strict=True):
        assert ours.keys() == theirs.keys()
        margins = [ours[f"rewards/margins{tag}"] for tag in ("", "_lang", "_vis")]
        # A log line averages two forwards, and each forward divides by its own sum of margins, which may be smaller.
        share = FORWARDS_DIFFER * of_a_share(margins, reward)
        for name, value in ours.items():
            if name.startswith("napo/gamma_") and not (theirs["napo/gamma_undefined"] or ours["napo/gamma_undefined"]):
                assert theirs[name] == pytest.approx(value, abs=share), (ours["step"], name)
            elif name.startswith(("rewards/", "napo/q")) and "accuracies" not in name:
                assert theirs[name] == pytest.approx(value, abs=reward), (ours["step"], name)
            elif name == "loss":  # weights add up to 1, so an error of theirs counts as far as the losses differ
                losses = [ours[f"loss/{response}"] for response in ("rejected", "lang", "vis")]
                tolerance = reward + 3 * share * (max(losses) - min(losses))
                assert theirs[name] == pytest.approx(value, abs=tolerance), ours["step"]
            elif name.startswith(("logps/", "loss/", "grad_norm")):
                assert theirs[name] == pytest.approx(value, rel=1e-4, abs=LOG_PROB), (ours["step"], name)
    base, weights, others = (load_file(world / name / "model.safetensors") for name in ("base", alone, out))
    assert base.keys() == weights.keys() == others.keys()
    assert distance(weights, others) < 1e-3 * distance(base, weights)


@pytest.mark.numeric
def test_two_processes_started_by_torchrun_are_one_also_after_a_signal_to_one_of_them(world, tmp_path, monkeypatch):
    """Both end after the same step, and go on from there. The first process alone hashes each file, once.

    Through the console script, in a folder that holds another package named `trainers`.
    """
    monkeypatch.setenv("HASHED", str(tmp_path / "hashed"))
    inputs = [world / "rows.parquet", *(world / "base").iterdir()]
    time.sleep(max(0.0, max(path.stat().st_ctime for path in inputs) + 2.1 - time.time()))  # old enough to be kept
    stopped = launch(world, "plain", SUPPORT / "signalled.py", ended_by_signal=True)
    assert f"Interrupted by SIGTERM. Step 2 of 6 is saved in {world / 'plain'}." in stopped.stderr
    assert re.search(r"exitcode\s*: 143", stopped.stderr)
    assert [path.name for path in (world / "plain/checkpoints").iterdir()] == ["checkpoint-2"]
    hashed = (tmp_path / "hashed").read_text().splitlines()
    assert len(hashed) == len(set(hashed)) and {"0 rows.parquet", "0 model.safetensors"} <= set(hashed)
    assert set(hashed) <= {f"0 {path.name}" for path in inputs}
    done = launch(world, "plain", "--no-python", Path(sys.executable).parent / "napo-bench", resume=True)
    assert_as_one_process(world, "plain")
    assert done.stdout.splitlines()[-1] == str(world / "plain")
    assert done.stderr.count("Left out, image cannot be decoded: 1 of 22 rows (row-3).") == 1


@pytest.mark.parametrize("config", ["ddp", "fsdp", "deepspeed"])
def test_accelerate_launches_the_console_script_from_each_config(config):
    path = str(RECIPES / "accelerate" / f"{config}.yaml")
    words = ["--config_file", path, "--num_processes", "4", "--no_python", "napo-bench", "train", "--out", "o"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert {"ddp": args.multi_gpu, "fsdp": args.use_fsdp, "deepspeed": args.use_deepspeed}[config] is True
    assert (args.num_processes, args.mixed_precision, args.no_python) == (4, "no", True)
    assert [args.training_script, *args.training_script_args] == ["napo-bench", "train", "--out", "o"]


@pytest.fixture(scope="module")
def of_eight(world):
    """A training whose q and weights are means over the 8 rows of two forwards."""
    train_alone(world, "of-eight", noise_rows=8)
    return world


@pytest.mark.numeric
@pytest.mark.parametrize("config", ["fsdp", pytest.param("deepspeed", marks=NEEDS_DEEPSPEED)])
def test_two_processes_that_share_the_states_are_one(of_eight, config):
    launch(of_eight, config, SUPPORT / "launched.py", RECIPES / "accelerate" / f"{config}.yaml", noise_rows=8)
    assert_as_one_process(of_eight, config, "of-eight")


@pytest.mark.numeric
def test_in_bfloat16_the_first_weights_of_the_losses_do_not_depend_on_the_processes(world):
    """FSDP rounds weights and activations otherwise than the reference pass, and the weights are no shares of that."""
    base = tiny_checkpoint(world / "deep", num_hidden_layers=8, hidden_size=64, intermediate_size=128)
    config = RECIPES / "accelerate" / "fsdp.yaml"
    launch(world, "bf16", SUPPORT / "launched.py", config, precision="bf16", epochs=0.5, warmup=0.9, base=base)
    lines = log_of(world / "bf16")
    assert len(lines) == 2
    margins = [abs(line[f"rewards/margins{tag}"]) for line in lines for tag in ("", "_lang", "_vis")]
    assert max(margins) > SETTINGS["beta"] * 0.01
    for line in lines:
        assert [line[f"napo/gamma_{tag}"] for tag in ("rejected", "lang", "vis")] == pytest.approx([1 / 3] * 3)

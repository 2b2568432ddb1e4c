"""How a long command begins, and what it leaves out of the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

FIRST_LINE = """
import json, sys, time
import napo_bench.cli
from napo_bench.cli import console

def first(text, **_):
    heavy = [name for name in ("torch", "transformers", "lmms_eval", "numpy") if name in sys.modules]
    print(json.dumps({"text": text, "cpu": time.process_time(), "heavy": heavy}))
    raise SystemExit(0)

console.err.print = first
sys.argv[1:] = json.loads(sys.argv[1])
napo_bench.cli.main()
"""


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("eval --ckpt some/model --suite amber", ("some/model", "amber", "runs/model")),
        ("train --recipe micro-dpo --out there", ("micro-dpo", "there")),
        ("train-then-eval --quick", ("micro", "runs/micro-quick")),
        ("lab --out there", ("micro world", "there")),
        ("data build-bias --ckpt some/model --data rows --out there", ("some/model", "rows", "there")),
        ("score amber --responses answers.json", ("answers.json", "AMBER")),
        ("score mmhal --responses answers.json", ("answers.json", "MMHal-Bench")),
    ],
    ids=lambda value: value.partition(" --")[0] if isinstance(value, str) else "",
)
def test_a_long_command_says_what_it_does_before_anything_slow_is_imported(tmp_path, command, named):
    arguments = json.dumps(command.split())
    environment = {name: value for name, value in os.environ.items() if name != "RANK"}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_LINE, arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout.splitlines()[0])
    assert all(name in first["text"] for name in named), first["text"]
    assert first["heavy"] == []
    assert first["cpu"] < 1


def test_no_bar_and_no_warning_of_a_library_is_seen(tmp_path):
    """Loading and saving a model draws bars of transformers' own, unless they are switched off before the import."""
    program = f"""
from napo_bench.cli.begin import begin
begin("One line")
from napo_bench.micro.base import base_checkpoint
from napo_bench.models.checkpoint import Checkpoint
import torch
model = Checkpoint.open(str(base_checkpoint())).load_model(torch.device("cpu"), torch.float32)
model.save_pretrained({str(tmp_path / "saved")!r})
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "TQDM_DISABLE")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()) == (0, ["One line"])

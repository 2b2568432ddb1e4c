"""Who a process is in its launch, and what the processes of a launch tell each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from napo_bench.core import processes

TOGETHER = """
import json, sys, time
from pathlib import Path
from napo_bench.core import processes

out = Path(sys.argv[1])
asked = []

def question():
    asked.append(processes.rank())
    return {"answer": "of the first"}

device = processes.join(cpu=True)
answer = processes.from_first(question)
with processes.first_process_first():
    entered = time.monotonic()
    time.sleep(0.2 if processes.is_first() else 0)
    left = time.monotonic()
mine = [processes.rank(), entered, left]
processes.wait()
found = {
    "asked": asked, "answer": answer, "device": device.type, "first": processes.is_first(),
    "alone": processes.is_alone(), "gathered": processes.gathered([mine] * (1 + processes.rank())),
}
(out / f"{processes.rank()}.json").write_text(json.dumps(found))
"""


def test_two_processes_agree(tmp_path: Path) -> None:
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launch, str(script), str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (one["asked"], two["asked"]) == ([0], [])
    assert one["answer"] == two["answer"] == {"answer": "of the first"}
    assert (one["first"], two["first"]) == (True, False)
    assert not one["alone"] and not two["alone"]
    assert one["gathered"] == two["gathered"]
    (rank_of_first, _, left), (rank_of_second, entered, _), _ = one["gathered"]
    assert (rank_of_first, rank_of_second) == (0, 1)
    assert entered >= left
    assert (one["device"], two["device"]) == ("cpu", "cpu")


def test_a_process_without_a_launcher_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (processes.rank(), processes.count(), processes.is_first(), processes.is_alone()) == (0, 1, True, True)
    assert processes.from_first(lambda: 7) == 7
    assert processes.gathered(["mine"]) == ["mine"]


def test_variables_that_no_launcher_wrote_are_refused() -> None:
    """A pod of some clusters has RANK and WORLD_SIZE; the others would wait, and their share would be missing."""
    program = "from napo_bench.core import processes\ntry: processes.join(cpu=False)\nexcept Exception as e: print(e)"
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    environment |= {"RANK": "1", "WORLD_SIZE": "2"}
    patched = "import torch; torch.accelerator.is_available = lambda: True\n" + program
    done = subprocess.run([sys.executable, "-c", patched], env=environment, capture_output=True, text=True)
    assert "process 1 of 2" in done.stdout, done.stderr

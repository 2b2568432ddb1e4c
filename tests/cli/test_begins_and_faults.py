"""How the command ends when it is interrupted before it begins, and when napo-bench itself has a fault."""

import subprocess
import sys

from synthetic_runs import invoke

_INTERRUPTED_IMPORT = """
import importlib.abc, os, signal, sys

class Interrupts(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
from napo_bench.__main__ import main
main()
"""


def test_an_interrupt_while_modules_are_imported_is_one_line():
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED_IMPORT], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted before anything was done.\n")


def test_the_module_runs_as_the_command():
    done = subprocess.run([sys.executable, "-m", "napo_bench", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "train-then-eval" in done.stdout


def test_a_fault_of_napo_bench_is_no_failed_gate(monkeypatch, capsys, tmp_path):
    def fails(*_, **__):
        raise KeyError("a fault")

    monkeypatch.setattr("napo_bench.runs.result.RunResult.load", fails)
    code, _, said = invoke(["gate", tmp_path, "--baseline", tmp_path], monkeypatch, capsys)
    assert code == 2 and "KeyError: 'a fault'" in said and "fault of napo-bench" in said

"""Pieces of work side by side: order, errors of each kind, and what is left when a process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from pieces import beside, fail, go_on, piece, write

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.side_by_side import run_pieces


class Seen:
    """A progress that keeps what it is told."""

    def __init__(self):
        self.notes, self.stages = [], []

    def __call__(self, stage, done, total, values=None, /):
        self.stages.append((stage, done, total))

    def note(self, text, /):
        self.notes.append(text)


def run(pieces, jobs=2, surroundings=None):
    seen, begun = Seen(), []

    @contextmanager
    def begin(index):
        begun.append(index)
        yield seen

    run_pieces(pieces, begin, surroundings or [{}] * jobs)
    return seen, begun


def test_one_job_runs_the_pieces_in_their_order_in_this_process(tmp_path):
    paths = [tmp_path / f"{name}.piece" for name in "abc"]
    seen, begun = run([piece(paths[0], work=1), piece(paths[1], work=9), piece(paths[2], needs=paths[:1])], jobs=1)
    assert begun == [0, 1, 2] and len(seen.stages) == 3
    assert [int(path.read_text().split()[0]) for path in paths] == [os.getpid()] * 3


def test_two_jobs_run_at_the_same_time_and_each_has_its_surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    paths = [tmp_path / f"{name}.piece" for name in "ab"]
    surroundings = [{"CUDA_VISIBLE_DEVICES": "5"}, {"CUDA_VISIBLE_DEVICES": "7"}]
    seen, _ = run([piece(path, function=beside) for path in paths], surroundings=surroundings)
    processes = {path.read_text().split()[0]: path.read_text().split()[1] for path in paths}
    assert len(processes) == 2 and processes.pop(str(os.getpid())) == "5" and [*processes.values()] == ["7"]
    assert seen.stages == [("Training", 1, 2)] * 2
    assert len(seen.notes) == 1 and seen.notes[0] in ("from a", "from b"), "what the other process prints is a note"


def test_a_piece_begins_when_what_it_needs_is_made_and_the_longest_chain_first(tmp_path):
    a, b, c, d = (tmp_path / f"{name}.piece" for name in "abcd")
    pieces = [piece(a), piece(b, needs=[a], work=1), piece(c, needs=[a], work=5), piece(d, needs=[c, tmp_path], work=5)]
    _, begun = run(pieces)
    assert begun[:2] == [0, 2] and begun.index(3) > begun.index(2)
    assert "c.piece" in d.read_text() and "a.piece" in b.read_text()


@pytest.mark.parametrize("further", [False, True], ids=["in this process", "in the other process"])
@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("user", NapoBenchError, "The rows are missing.\nFetch them."),
        ("fault", (ValueError, RuntimeError), "a fault"),
        ("full", OSError, "No space left"),
    ],
)
def test_the_error_of_a_piece_ends_all(tmp_path: Path, further: bool, kind: str, error: type, said: str):
    a, b, c = (tmp_path / f"{name}.piece" for name in "abc")
    pieces = [piece(a, function=go_on), piece(b, function=partial(fail, kind=kind))]
    with pytest.raises(error, match=said):
        run([*(pieces if further else reversed(pieces)), piece(c, needs=[a, b])])
    assert not a.exists() and not c.exists()
    assert further or a.with_suffix(".saved").exists(), "the other process saves its work"


def test_a_process_that_is_killed_is_named_with_the_next_step(tmp_path):
    a, b = tmp_path / "a.piece", tmp_path / "b.piece"
    with pytest.raises(NapoBenchError, match=r"ended by signal 9\.\n.*--jobs 1"):
        run([piece(a, function=go_on), piece(b, function=partial(fail, kind="killed"))])


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_when_the_command_ends(tmp_path, signum):
    script = tmp_path / "command.py"
    script.write_text(
        "import pathlib, sys\n"
        "from contextlib import nullcontext\n"
        "from napo_bench.core.interrupts import sigterm_as_ctrl_c\n"
        "from napo_bench.core.progress import SILENT\n"
        "from napo_bench.core.side_by_side import run_pieces\n"
        "from pieces import go_on, piece\n"
        "if __name__ == '__main__':\n"
        "    folder = pathlib.Path(sys.argv[1])\n"
        "    pieces = [piece(folder / name, function=go_on) for name in 'ab']\n"
        "    with sigterm_as_ctrl_c():\n"
        "        run_pieces(pieces, lambda _: nullcontext(SILENT), [{}, {}])\n"
    )
    support = str(Path(__file__).parents[1] / "support")
    command = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": support},
        stderr=subprocess.DEVNULL,
    )
    begun = [tmp_path / "a.begun", tmp_path / "b.begun"]
    _wait(lambda: all(path.is_file() and path.read_text() for path in begun))
    other = next(pid for path in begun if (pid := int(path.read_text())) != command.pid)
    command.send_signal(signum)
    assert command.wait(60) != 0
    _wait(lambda: not Path(f"/proc/{other}").exists() or "\nState:\tZ" in Path(f"/proc/{other}/status").read_text())
    saved = {path.name for path in tmp_path.glob("*.saved")}
    assert len(saved) == (1 if signum == signal.SIGKILL else 2)


def test_interrupts_while_a_process_still_imports_leave_one_message_and_no_process(tmp_path):
    script = tmp_path / "command.py"
    script.write_text(
        "import os, pathlib, sys, time\n"
        "folder = pathlib.Path(__file__).parent\n"
        "if __name__ != '__main__':\n"
        "    (folder / f'{os.getpid()}.imports').touch()\n"
        "    time.sleep(60)\n"
        "from contextlib import nullcontext\n"
        "from napo_bench.cli import main\n"
        "from napo_bench.cli.root import app\n"
        "from napo_bench.core.progress import SILENT\n"
        "from napo_bench.core.side_by_side import run_pieces\n"
        "from pieces import go_on, piece\n"
        "@app.command()\n"
        "def pieces():\n"
        "    both = [piece(folder / name, function=go_on) for name in 'ab']\n"
        "    run_pieces(both, lambda _: nullcontext(SILENT), [{}, {}])\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    support = str(Path(__file__).parents[1] / "support")
    command = subprocess.Popen(
        [sys.executable, str(script), "pieces"],
        env={**os.environ, "PYTHONPATH": support},
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait(lambda: list(tmp_path.glob("*.imports")) and list(tmp_path.glob("*.begun")))
    (other,) = (int(path.stem) for path in tmp_path.glob("*.imports"))
    for _ in range(20):
        command.send_signal(signal.SIGINT)
        time.sleep(0.01)
    _, message = command.communicate(timeout=60)
    assert command.returncode == 130 and "Traceback" not in message
    assert message.count("Interrupted by SIGINT") == 1
    assert not Path(f"/proc/{other}").exists()


def _wait(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_every_write_is_told_once(tmp_path):
    paths = [tmp_path / f"{index}.piece" for index in range(12)]
    seen, begun = run([piece(path, function=partial(write, seconds=0.01)) for path in paths])
    assert sorted(begun) == list(range(12)) and len(seen.stages) == 12
    assert all(path.exists() for path in paths)

"""The processes of a launch append to journals of their own, and nothing that one has stored is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from napo_bench.core.journal import Journal
from napo_bench.core.shared_journal import shared_journal

SCRIPT = """
import os, sys
from pathlib import Path
from napo_bench.core import processes
from napo_bench.core.shared_journal import shared_journal
path, dies = Path(sys.argv[1]), sys.argv[2] == "dies"
with shared_journal(path) as journal:
    assert journal.get(["before"]) == {"before": 1}
    journal.put({f"of {processes.rank()}": processes.rank()})
    assert journal.get([f"of {processes.rank()}"]) == {f"of {processes.rank()}": processes.rank()}
    processes.wait()
    assert list(path.parent.glob("journal*-journal")) == []
    if dies and processes.rank() == 1:
        os._exit(1)
"""


def launch(folder: Path, how: str) -> int:
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, str(folder / "script.py"), str(folder / "journal.sqlite"), how], check=False, capture_output=True
    ).returncode


def test_the_parts_of_all_processes_are_in_the_journal_at_the_end_or_after_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with shared_journal(path) as journal:
        journal.put({"before": 1})
    assert launch(tmp_path, "lives") == 0
    assert [one.name for one in tmp_path.glob("*.sqlite")] == ["journal.sqlite"]
    with Journal(path) as journal:
        assert journal.get(["before", "of 0", "of 1"]) == {"before": 1, "of 0": 0, "of 1": 1}
    path.unlink()
    with shared_journal(path) as journal:
        journal.put({"before": 1})
    assert launch(tmp_path, "dies") != 0
    assert len(list(tmp_path.glob("journal.*.sqlite"))) == 2
    with shared_journal(path) as journal:
        assert journal.get(["before", "of 0", "of 1"]) == {"before": 1, "of 0": 0, "of 1": 1}
    assert [one.name for one in tmp_path.glob("*.sqlite")] == ["journal.sqlite"]

"""A real disk that fills while a run is written: one message, what was finished is kept, and the run goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from misbehaving_server import Behaviour, MisbehavingServer, Request, answer
from synthetic_runs import invoke
from tiny_llava import make_data

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal
from napo_bench.core.shared_journal import shared_journal
from napo_bench.engines.journalled import JournalledEndpoint
from napo_bench.engines.judge import Judge

PAGE = 4096
COUNT = 2 + 4  # questions of Object HalBench and MMHal-Bench
Resize = Callable[..., None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Resize]]:
    """The folder of a disk, and a function that changes its size in pages and its number of files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=1000", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, check=False, capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(f"no disk can be mounted: {error}")
    if done.returncode:
        pytest.skip(f"this user mounts no disk: {done.stderr.strip()}")

    def resize(pages: int = 1024, files: int = 1000) -> None:
        remount = ["mount", "-o", f"remount,size={pages * PAGE},nr_inodes={files}", str(folder)]
        subprocess.run(remount, check=True)

    try:
        yield folder, resize
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def long_answer(request: Request) -> Behaviour:
    return answer(f"Yes. {request.text} " * 100, model="served")


def pages(*paths: Path) -> int:
    files = [file for path in paths for file in ([path] if path.is_file() else path.iterdir())]
    return sum(-(-file.stat().st_size // PAGE) for file in files)


def written(out: Path) -> dict[str, bytes]:
    return {
        f"{name}/{path.name}": path.read_bytes() for name in ("responses", "samples") for path in (out / name).iterdir()
    }


@pytest.mark.parametrize("full", ["journal.sqlite", "responses/", "samples/", "run.json", "no further file"])
def test_an_evaluation_on_a_disk_that_fills_goes_on_when_there_is_room(
    disk: tuple[Path, Resize],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    full: str,
) -> None:
    folder, resize = disk
    make_data(tmp_path / "data", size=COUNT // 3)
    monkeypatch.setenv("NAPO_BENCH_API_KEY", "sk-of-the-test")

    def evaluate(out: Path) -> tuple[int, str]:
        arguments = ["eval", "--ckpt", "served", "--api-base-url", server.url, "--data-dir", tmp_path / "data"]
        arguments += ["--suite", "object_halbench,mmhal", "--pipeline", "closed_vocabulary", "--out", out]
        code, printed, message = invoke([*arguments, "--batch-size", 1], monkeypatch, capsys)
        return code, " ".join((printed + message).replace("│", " ").split())

    with MisbehavingServer(long_answer) as server:
        whole = tmp_path / "whole"
        assert evaluate(whole)[0] == 0
        assert len(server.requests) == COUNT + 1  # one greeting
        journal, lock = pages(whole / "journal.sqlite"), 1
        room = {
            "journal.sqlite": journal // 2 + lock + 1,
            "responses/": journal + lock + 1,
            "samples/": journal + pages(whole / "responses") + lock + 1,
            "run.json": journal + pages(whole / "responses", whole / "samples") + lock,
        }
        resize(**{"pages": room[full]} if full in room else {"files": 8})
        code, message = evaluate(folder / "run")
        assert code == 2 and "Traceback" not in message and message.count("cannot be written") == 1
        assert f"{folder / 'run'}/{full if full in room else ''}" in message and "the disk is full (" in message
        assert ("but no further file may be made" in message) == (full not in room)
        assert not (folder / "run/run.json").exists()
        resize()
        with Journal(folder / "run/journal.sqlite") as stored:
            answered = len(stored)
            assert stored.is_intact()
        assert 0 < answered < COUNT if full == "journal.sqlite" else answered == COUNT
        server.requests.clear()
        code, message = evaluate(folder / "run")
        assert code == 0, message
        assert len(server.requests) == COUNT - answered + 1
    assert written(folder / "run") == written(whole)


def test_a_judge_on_a_disk_that_fills_is_not_asked_again_for_what_is_stored(disk: tuple[Path, Resize]) -> None:
    folder, resize = disk
    resize(pages=12)
    prompts = [f"Rate answer {number}." for number in range(40)]
    with MisbehavingServer(long_answer) as server, Journal(folder / "judge.sqlite") as journal:
        judge = Judge(JournalledEndpoint("judge", server.url, None, journal, concurrency=4))
        with pytest.raises(NapoBenchError, match=r"judge\.sqlite cannot be written: the disk is full") as raised:
            judge.ask(prompts, lambda text: text)
        stored = len(journal)
        assert 0 < stored < 40 and f"{stored} of 40 are answered and stored" in raised.value.message
        resize()
        server.requests.clear()
        replies = judge.ask(prompts, lambda text: text)
        assert len(server.requests) == 40 - stored
    assert [reply.text for reply in replies] == [f"Yes. {prompt} " * 100 for prompt in prompts]


PROCESSES = """
import sys
from pathlib import Path
from napo_bench.core import processes
from napo_bench.core.shared_journal import shared_journal
path, told = Path(sys.argv[1]), Path(sys.argv[2])
with shared_journal(path) as journal, (told / f"{processes.rank()}.txt").open("a") as stored:
    for number in range(40):
        key = f"{processes.rank()} {number}"
        if key not in journal.get([key]):
            journal.put({key: key * 200})
            print(key, file=stored, flush=True)
"""


def test_what_each_process_stored_before_the_disk_was_full_is_in_the_journal(
    disk: tuple[Path, Resize], tmp_path: Path
) -> None:
    folder, resize = disk
    (tmp_path / "script.py").write_text(PROCESSES)
    (tmp_path / "told").mkdir()

    def launch() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        arguments = [str(tmp_path / "script.py"), str(folder / "journal.sqlite"), str(tmp_path / "told")]
        return subprocess.run([*command, *arguments], check=False, capture_output=True, text=True)

    def told() -> list[str]:
        return [line for path in (tmp_path / "told").iterdir() for line in path.read_text().splitlines()]

    resize(pages=16)
    done = launch()
    assert done.returncode and "cannot be written: the disk is full" in done.stderr
    assert 0 < len(told()) < 80
    resize()
    with shared_journal(folder / "journal.sqlite") as journal:
        assert journal.get(told()) == {key: key * 200 for key in told()}
    assert launch().returncode == 0
    assert len(told()) == 80
    with Journal(folder / "journal.sqlite") as journal:
        assert len(journal) == 80 and journal.is_intact()

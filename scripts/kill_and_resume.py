"""Does `napo-bench train-then-eval` give the same table if the command is killed again and again?

    python scripts/kill_and_resume.py                      # --quick, five kills
    python scripts/kill_and_resume.py --full --kills 10

The script runs the command without interruption. In another folder the script starts the command again and again, and
kills the command with SIGKILL at random moments, each within a third of the uninterrupted time. Then the script
compares the results: the tables, every metric, and every response, byte by byte. The exit code is 1 if they differ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VOLATILE = ("provenance",)
"""Parts of run.json with paths and times."""


def start(out: Path, arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start the command in its own session, with its own cache, so that runs share nothing."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(out.parent / f"{out.name}-cache")}
    command = [str(Path(sys.executable).with_name("napo-bench")), "train-then-eval", "--out", str(out), *arguments]
    with log.open("ab") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=stream, env=environment, start_new_session=True)


def finish(out: Path, arguments: list[str], log: Path) -> float:
    """Run the command to its end, and return the seconds that it took."""
    begun = time.monotonic()
    if start(out, arguments, log).wait():
        sys.exit(f"The command failed; see {log}")
    return time.monotonic() - begun


def kill_at(out: Path, arguments: list[str], log: Path, moment: float) -> bool:
    """Start the command, and kill the command and its children after `moment` seconds; False if the command had already
    ended.
    """
    process = start(out, arguments, log)
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    if process.returncode:
        sys.exit(f"The command failed; see {log}")
    return False


def outcome(out: Path) -> dict[str, bytes]:
    """Results: path in the folder -> content, without paths and times."""
    found = {name: (out / name).read_bytes() for name in ("table.md", "table.tex")}
    for run in sorted(out.rglob("eval/run.json")):
        result = {key: value for key, value in json.loads(run.read_text()).items() if key not in VOLATILE}
        found[str(run.relative_to(out))] = json.dumps(result, sort_keys=True).encode()
        for samples in sorted(run.parent.glob("samples/*.jsonl")):
            found[str(samples.relative_to(out))] = samples.read_bytes()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="without --quick: all rows and benchmarks")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--work", type=Path, help="folder to work in; default: a temporary one")
    options = parser.parse_args()
    arguments = [] if options.full else ["--quick"]
    work = options.work or Path(tempfile.mkdtemp(prefix="kill-and-resume-"))
    work.mkdir(parents=True, exist_ok=True)
    log = work / "log.txt"

    seconds = finish(work / "undisturbed", arguments, log)
    print(f"undisturbed: {seconds:.0f} s", flush=True)
    rng = random.Random(options.seed)
    done = 0
    while done < options.kills:
        moment = rng.uniform(5, 0.3 * seconds)
        if not kill_at(work / "killed", arguments, log, moment):
            break
        done += 1
        print(f"kill {done}: after {moment:.0f} s", flush=True)
    print(f"to the end: {finish(work / 'killed', arguments, log):.0f} s", flush=True)
    print(f"once more, all done: {finish(work / 'killed', arguments, log):.0f} s", flush=True)
    if done < options.kills:
        sys.exit(f"Only {done} kills came before the end; choose another --seed.")

    expected, found = outcome(work / "undisturbed"), outcome(work / "killed")
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if differing:
        sys.exit(f"Different after {done} kills: {', '.join(differing)}; see {work}")
    print(f"The same after {done} kills: {len(expected)} files, tables, metrics and responses.")


if __name__ == "__main__":
    main()

"""Do the two commands at the start of README work in a fresh environment?

    python scripts/try_versions.py constraints     # the commands as README has them
    python scripts/try_versions.py newest          # without constraints.txt: the newest that pyproject.toml allows
    python scripts/try_versions.py lowest          # every direct dependency at the lower bound of pyproject.toml

Each command runs in a fresh clone of the last commit, in a temporary folder that is removed afterwards. The main job
runs with --quick, and the tests are a selection that takes a few minutes. `--full` runs the whole main job and all
tests. `newest` also turns each deprecation warning of transformers into an error. Exit code 1 if a command fails.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = "-c constraints.txt "
LOWEST = "lowest.txt"
FEW_TESTS = (
    "tests/benchmarks",
    "tests/models/test_checkpoint.py",
    "tests/models/test_conversation.py",
    "tests/trainers/test_forward.py",
    "tests/trainers/test_rows.py",
    "tests/trainers/test_trainer.py",
    "tests/engines/test_api.py",
    "tests/cli/test_cli_eval.py",
    "tests/cli/test_cli_score.py",
    "tests/runs/test_compare.py",
    "tests/report/test_explorer.py",
    "tests/engines/test_hf.py",
    "tests/micro/test_micro_base.py",
    "tests/report/test_report_figures.py",
    "tests/report/test_report_table.py",
)
"""Tests that use every dependency, and the parts of transformers that change most often."""
DEPRECATIONS = (
    "error::FutureWarning:transformers",
    "error::DeprecationWarning:transformers",
    "ignore:.is_gradient_checkpointing:FutureWarning",  # PEFT 0.21 reads the old name
)


def commands_of_readme() -> list[str]:
    """The commands that README starts with: each makes an environment, installs, and runs something."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^```\n(python3 -m venv \.venv && .*)\n```$", text, re.MULTILINE)
    if len(commands) != 2 or not all(CONSTRAINTS in command for command in commands):
        sys.exit(f"README.md: two commands that install with {CONSTRAINTS}are expected, found {commands}")
    return commands


def lower_bounds() -> Iterator[str]:
    """The direct dependencies and those of the tests, each pinned to the lowest version that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in (*project["dependencies"], *project["optional-dependencies"]["test"]):
        requirement = Requirement(text)
        (bound,) = (part.version for part in requirement.specifier if part.operator == ">=")
        yield f"{requirement.name}=={bound}"


def environment_of(work: Path, versions: str) -> dict[str, str]:
    """The environment of a new user: no active environment, and empty caches except pip's."""
    inherited = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    pip_cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pip"
    fresh = {"PIP_CACHE_DIR": str(pip_cache), **inherited, "XDG_CACHE_HOME": str(work / "cache")}
    if versions == "newest":
        fresh["PYTEST_ADDOPTS"] = shlex.join(["-o", "filterwarnings=" + "\n".join(DEPRECATIONS)])
    return fresh


def run(command: str, folder: Path, environment: dict[str, str]) -> bool:
    """Run the parts of a command one after the other, and print the time of each part; False if a part fails."""
    for part in command.split(" && "):
        print(f"$ {part}", flush=True)
        begun = time.monotonic()
        done = subprocess.run(["bash", "-c", part], cwd=folder, env=environment, check=False)
        note = f"# {time.monotonic() - begun:.0f} s"
        if "/pip install" in part and not done.returncode:
            size = sum(file.lstat().st_blocks * 512 for file in (folder / ".venv").rglob("*"))
            note += f", {size / 1e9:.1f} GB in .venv"
        print(note, flush=True)
        if done.returncode:
            print(f"# failed with exit code {done.returncode}", flush=True)
            return False
    return True


def attempt(command: str, versions: str) -> bool:
    """Run one command in its own clone, and print the installed versions."""
    with tempfile.TemporaryDirectory(prefix="napo-bench-versions-") as work:
        clone = Path(work) / "napo-bench"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        (clone / LOWEST).write_text("\n".join(lower_bounds()) + "\n", encoding="utf-8")
        environment = environment_of(Path(work), versions)
        passed = run(command, clone, environment)
        pip = clone / ".venv" / "bin" / "pip"
        if pip.exists():
            listed = subprocess.run([pip, "freeze"], capture_output=True, text=True, check=False, env=environment)
            print("# versions:", " ".join(listed.stdout.split()), flush=True)
        return passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", choices=("constraints", "newest", "lowest"))
    parser.add_argument("--full", action="store_true", help="the whole main job and all tests")
    parser.add_argument("--only", choices=("job", "tests"), help="one of the two commands")
    options = parser.parse_args()
    job, tests = commands_of_readme()
    if not options.full:
        job, tests = f"{job} --quick", " ".join([tests, *FEW_TESTS])
    outcome = {}
    for name, command in {"job": job, "tests": tests}.items():
        if options.only in {None, name}:
            wanted = {"constraints": CONSTRAINTS, "newest": "", "lowest": f"-c {LOWEST} "}[options.versions]
            outcome[name] = attempt(command.replace(CONSTRAINTS, wanted), options.versions)
    print(f"{options.versions}, Python {platform.python_version()}:", flush=True)
    for name, passed in outcome.items():
        print(f"{name}: {'passed' if passed else 'failed'}", flush=True)
    sys.exit(0 if all(outcome.values()) else 1)


if __name__ == "__main__":
    main()

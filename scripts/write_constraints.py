"""Write constraints.txt: the installed versions of all packages that napo-bench and its tests need.

    .ci/run && .ci/venv/bin/python scripts/write_constraints.py

Run the script in an environment in which the tests have just passed. Only what the extras `dev` and `test` need is
listed, directly or through another package. Packages that the environment also contains are left out.
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = Requirement("napo-bench[dev,test]")
HEADER = """\
# The versions that the tests last passed with: pip install -c constraints.txt ...
# Written by scripts/write_constraints.py. Packages of other systems or Python versions are missing, which does no harm.
"""


def needed(requirement: Requirement) -> dict[str, str]:
    """Version of each distribution that a requirement needs, by canonical name, without napo-bench's own version."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [requirement]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        for extra in {"", *wanted.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            installed = distribution(name)
            found[name] = Version(installed.version).public  # "+cpu" is a build, not a version
            environment = {**default_environment(), "extra": extra}
            for text in installed.requires or ():
                child = Requirement(text)
                if child.marker is None or child.marker.evaluate(environment):
                    waiting.append(child)
    del found[canonicalize_name(requirement.name)]
    return found


def main() -> None:
    argparse.ArgumentParser(description="Write constraints.txt from the installed packages.").parse_args()
    try:
        versions = needed(PROJECT)
    except PackageNotFoundError as error:
        sys.exit(f"{error.name} is not installed here. Install with: pip install -e '.[dev,test]'")
    lines = (f"{name}=={version}\n" for name, version in sorted(versions.items()))
    (ROOT / "constraints.txt").write_text(HEADER + "".join(lines), encoding="utf-8")
    print(f"constraints.txt: {len(versions)} versions.")


if __name__ == "__main__":
    main()

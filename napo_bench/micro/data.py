"""The micro world's data folder: written, versioned, and kept in the user's cache folder."""

from __future__ import annotations

import ast
import hashlib
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from napo_bench.core import caches, files, links
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.paths import MICRO_STAMP
from napo_bench.micro.benchmarks import SEED, write_amber, write_mmhal, write_object_halbench, write_vlind

_SOURCES = ("world.py", "draw.py", "language.py", "lessons.py", "benchmarks.py")
"""The modules that the data comes from."""


def code_digest(path: Path) -> str:
    """SHA-256, in hex, of a Python file's statements: imports, docstrings, comments and blank lines do not count."""
    text = path.read_text(encoding="utf-8")
    ignored: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Expr) and _does_nothing(node):
            ignored.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = (line.rstrip() for number, line in enumerate(text.splitlines(), start=1) if number not in ignored)
    kept = [line for line in lines if line and not line.lstrip().startswith("#")]
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()


def _does_nothing(node: ast.Import | ast.ImportFrom | ast.Expr) -> bool:
    """Whether the statement is an import or an unused string."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return True


@cache
def world_version() -> str:
    """Twelve hex digits that change with the code that the data comes from."""
    digests = [code_digest(Path(__file__).parent / name) for name in _SOURCES]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:12]


def write_data(out: Path, seed: int = SEED) -> None:
    """Write a data folder: `vlind/`, `object_halbench/`, `amber/` and `mmhal/`, with the same bytes for the same seed.

    Raises:
        NapoBenchError: the folder cannot be written.
    """
    links.refuse_links(out, "vlind", "object_halbench", "amber", "mmhal")
    try:
        write_vlind(out / "vlind", seed)
        write_object_halbench(out / "object_halbench", seed)
        write_amber(out / "amber", seed)
        write_mmhal(out / "mmhal", seed)
    except OSError as error:
        raise NapoBenchError(
            f"{out} cannot be written: {error.strerror or error}.", "Free space or choose another folder."
        ) from None
    # The stamp is written last: a data folder that has one is whole.
    files.write_json(out / MICRO_STAMP, {"world": world_version(), "seed": seed})


def ensure_data() -> Path:
    """The micro world's data folder in the user's cache folder. The folder is written if it does not exist.

    Raises:
        NapoBenchError: the cache folder cannot be written.
    """
    folder = caches.hold(caches.place("micro") / world_version())
    if not (folder / MICRO_STAMP).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as temporary:
            written = Path(temporary) / "data"
            write_data(written)
            # Another process may have written the same data first.
            with suppress(FileExistsError, NotADirectoryError):
                written.rename(folder)
    return folder

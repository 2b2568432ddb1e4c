"""Read and write files: every failure is one clear message, and no write is left incomplete.

A leaf: `benchmarks` and `trainers` use it too, and it imports only the leaves `disk` and `errors`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napo_bench.core import disk
from napo_bench.core.errors import NapoBenchError

# Every escape of a JSON text. A whole surrogate pair is one escape, so the backslash of "\\ud83d" begins no other
# escape.
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u[dD][89a-fA-F]..|.)", re.DOTALL)
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_POINTER = 1024


def require_file(path: Path, hint: str = "") -> Path:
    """Return `path` if it is a file; otherwise raise a NapoBenchError that names it."""
    if path.is_dir():
        raise NapoBenchError(f"{path} is a folder; a file is expected here.", hint)
    if not is_file(path):
        raise NapoBenchError(f"{path} does not exist.", hint or "Check the path.")
    return path


def inside(folder: Path, name: str | Path, where: str = "") -> Path:
    """The path, without links, of a file that data names: below a folder. The file need not exist.

    Every reader of a name from data, from a run or from a checkpoint uses this function. The folder itself may be a
    link. A link below the folder must not lead out of the folder.

    Args:
        folder: Folder that the file must be below.
        name: Name of the file, relative to the folder.
        where: What names the file, for the message: "data.json, row 3".

    Raises:
        NapoBenchError: the name is absolute, leads out of the folder, or is no name of a file.
    """
    named = f"{where}: " if where else ""
    try:
        path = folder / name
        root, resolved = os.path.realpath(folder), os.path.realpath(path)
        Path(resolved).stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (ValueError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error).partition(":")[0]
        raise NapoBenchError(f"{named}{str(name)!a:.400} is no name of a file: {why}.") from None
    if not Path(resolved).is_relative_to(root):
        raise NapoBenchError(
            f"{named}{str(name)!a:.400} leads out of {folder}.",
            f"Put the file itself into {folder}: a name there, and a link there, may not lead to another place.",
        )
    return Path(resolved)


def is_file(path: Path) -> bool:
    """Whether the path is that of a regular file; False for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_lfs_pointer(content: bytes) -> bool:
    """Whether the content, or its first bytes, are a Git LFS pointer: the text that Git keeps in place of a large
    file.
    """
    return content.startswith(_LFS_POINTER)


def is_whole(path: Path) -> bool:
    """Whether the file exists and is no Git LFS pointer."""
    if not path.is_file():
        return False
    if path.stat().st_size > _LARGEST_POINTER:
        return True
    with path.open("rb") as stream:
        return not is_lfs_pointer(stream.read(len(_LFS_POINTER)))


def refuse_lfs_pointer(path: Path, hint: str = "") -> None:
    """Raise NapoBenchError if the file is a Git LFS pointer.

    Args:
        path: The file, which may not exist.
        hint: The next step; by default the command of Git LFS.
    """
    if path.is_file() and not is_whole(path):
        raise NapoBenchError(
            f"{path} is a Git LFS pointer in place of the file: it was cloned without Git LFS.",
            hint or "Run `git lfs pull` in its repository, or fetch the file again.",
        )


def read_text(path: Path, hint: str = "") -> str:
    """The file's UTF-8 text (a byte order mark is dropped). Raises NapoBenchError if the file cannot be read."""
    require_file(path, hint)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise NapoBenchError(f"{path} is not UTF-8 text (byte {error.start}).", hint) from None
    except OSError as error:
        raise NapoBenchError(f"{path} cannot be read: {error.strerror}.", hint) from None


def read_json(path: Path, hint: str = "") -> Any:
    """The value of a JSON file. Raises NapoBenchError with line and column if the file is truncated or not JSON."""
    text = read_text(path, hint)
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        where = "ends too early (truncated?)" if cut else "is not valid JSON"
        raise NapoBenchError(
            f"{path} {where}: {error.msg} at line {error.lineno}, column {error.colno}.",
            hint or "Fetch or write the file again.",
        ) from None
    except (ValueError, RecursionError) as error:
        raise NapoBenchError(
            f"{path} is not valid JSON: {_reason(error)}.", hint or "Fetch or write the file again."
        ) from None
    _refuse_half_pairs(text, value, f"{path}")
    return value


def read_jsonl(path: Path, hint: str = "") -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; blank lines are skipped. Raises NapoBenchError that names the line."""
    rows: list[dict[str, Any]] = []
    lines = read_text(path, hint).split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            cut = " (the last line: truncated?)" if number == len(lines) else ""
            raise NapoBenchError(
                f"{path}, line {number}{cut}: not valid JSON: {error.msg}.", hint or "Fetch or write the file again."
            ) from None
        except (ValueError, RecursionError) as error:
            raise NapoBenchError(
                f"{path}, line {number}: not valid JSON: {_reason(error)}.", hint or "Fetch or write the file again."
            ) from None
        if not isinstance(row, dict):
            raise NapoBenchError(f"{path}, line {number}: a JSON object is expected, {type(row).__name__} found.", hint)
        _refuse_half_pairs(line, row, f"{path}, line {number}")
        rows.append(row)
    return rows


def read_csv(path: Path, hint: str = "") -> list[dict[str, str]]:
    """The rows of a CSV file with a line of names; blank lines are skipped. Raises NapoBenchError that names the line.

    A value is the text of its cell without the blanks around it.
    """
    reader = csv.reader(read_text(path, hint).splitlines(keepends=True), strict=True)
    rows: list[dict[str, str]] = []
    names: list[str] = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not names:
                names = cells
                twice = sorted({name for name in names if names.count(name) > 1})
                if twice:
                    raise NapoBenchError(f"{path}: two columns are called {twice[0]!r}.", hint)
                continue
            if len(cells) != len(names):
                raise NapoBenchError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells; {len(names)} are expected, one for each "
                    f"column ({', '.join(names)}).",
                    hint,
                )
            rows.append(dict(zip(names, cells, strict=True)))
    except csv.Error as error:
        raise NapoBenchError(f"{path}, line {reader.line_num}: not valid CSV: {error}.", hint) from None
    return rows


def _reason(error: ValueError | RecursionError) -> str:
    """Why Python's reader gave up: values inside each other too deeply, or a number that is too long."""
    return "too many brackets inside each other" if isinstance(error, RecursionError) else str(error).partition(";")[0]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, which has each name once: Python's reader would keep the last value without a word."""
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the field {twice!r:.80} twice")
    return value


def whole_characters(encoded: bytes) -> bytes:
    """JSON text whose strings can be written again: U+FFFD replaces half surrogate pairs and bytes that are no UTF-8.

    Args:
        encoded: JSON text of another program.
    """

    def whole(escape: re.Match[bytes]) -> bytes:
        return rb"\ufffd" if len(escape[0]) == len(rb"\ud83d") else escape[0]

    return _ESCAPE.sub(whole, encoded.decode("utf-8", "replace").encode())


def field(row: Any, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """The value `row[name]`, checked.

    Args:
        row: One decoded JSON value; an object is expected.
        name: Name of the field.
        kind: Type or types that the value may have (bool never counts as a number).
        where: Name of the row in the message: "responses.json, row 3".

    Raises:
        NapoBenchError: the row is not an object, or the field is missing or of another type.
    """
    if not isinstance(row, dict):
        raise NapoBenchError(f"{where}: a JSON object is expected, {type(row).__name__} found.")
    if name not in row:
        raise NapoBenchError(f"{where}: the field {name!r} is missing (fields: {', '.join(map(repr, row)) or 'none'}).")
    value = row[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join(k.__name__ for k in kinds)
        raise NapoBenchError(f"{where}: the field {name!r} is {value!r:.80}; {expected} is expected.")
    return value


def _refuse_half_pairs(text: str, value: Any, where: str) -> None:
    """Raise NapoBenchError if a string of the value contains half of a surrogate pair: no file can contain that
    string.
    """
    # A file in UTF-8 can contain half a pair only as an escape.
    if "\\ud" not in text and "\\uD" not in text:
        return
    for place, string in _strings(value):
        if half := _HALF_PAIR.search(string):
            raise NapoBenchError(
                f"{where}{place}: half of a surrogate pair ({ascii(half[0])[1:-1]}) at character {half.start() + 1} "
                f"of {string!a:.60}; whole characters are expected.",
                "A character such as an emoji was cut in two. Write the whole character, or leave the half out.",
            )


def _strings(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every string of a JSON value, names of fields included, each with its position: ", row 3, field 'response'"."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, list):
        for number, item in enumerate(value, start=1):
            yield from _strings(item, f"{place}, {'item' if place else 'row'} {number}")
    elif isinstance(value, dict):
        for name, item in value.items():
            yield f"{place}, a field's name", name
            yield from _strings(item, f"{place}, field {name!a}")


def sha256_file(path: Path) -> str:
    """The SHA-256 of the file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path that replaces `path` when the block succeeds, and that is deleted when the block fails.

    Raises:
        NapoBenchError: the folder cannot be written, or the disk is full. The file at `path` stays unchanged.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        temporary.chmod(0o666 & ~_umask())
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise disk.unwritable(path, disk.reason(error) or error.strerror or str(error)) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented, with keys in the given order."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write a JSON-lines file atomically."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

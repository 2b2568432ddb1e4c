"""Crash-safe store of responses and judge replies: what is in it is never generated, and never asked, twice.

One SQLite file. The key is a hash of everything that determines the value (checkpoint fingerprint, prompt, image,
generation settings; or judge model and message), so a change of any of them misses, and a value never goes stale.
Several processes may share the file; every `put` is one transaction, on disk when it returns.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from napo_bench.errors import NapoBenchError

_BUSY_SECONDS = 60.0
_KEYS_A_QUERY = 500


def journal_key(**parts: Any) -> str:
    """The key of a value: SHA-256 over its determinants, in hex.

    Args:
        **parts: JSON values; their order does not matter.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """A mapping from `journal_key` to a JSON value, on disk.

    Args:
        path: The SQLite file; made, with its folder, where it does not exist.

    Raises:
        NapoBenchError: the file is no journal, or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)
            with self._connection:
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
                )
        except (OSError, sqlite3.Error) as error:
            raise self._failure(error) from None

    def get(self, keys: Iterable[str]) -> dict[str, Any]:
        """The stored values among `keys`; a key without a value is absent."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Any] = {}
        try:
            for start in range(0, len(wanted), _KEYS_A_QUERY):
                part = wanted[start : start + _KEYS_A_QUERY]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, value FROM entries WHERE key IN ({marks})"
                with closing(self._connection.execute(query, part)) as rows:
                    found.update((key, json.loads(value)) for key, value in rows)
        except sqlite3.Error as error:
            raise self._failure(error) from None
        return found

    def put(self, values: Mapping[str, Any]) -> None:
        """Store JSON values; all of them are on disk when this returns. A value that is there stays."""
        rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in values.items()]
        try:
            with self._connection:
                self._connection.executemany("INSERT OR IGNORE INTO entries VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise self._failure(error) from None

    def __len__(self) -> int:
        (count,) = self._connection.execute("SELECT COUNT(*) FROM entries").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file; everything is on disk already."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _failure(self, error: Exception) -> NapoBenchError:
        return NapoBenchError(
            f"The journal {self.path} cannot be used: {error}.",
            "What it holds is kept. Free space (or move a damaged file away), then run the same command again.",
        )

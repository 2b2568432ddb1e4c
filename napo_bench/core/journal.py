"""Crash-safe store of responses and judge replies: a stored value is never generated or requested twice.

One SQLite file. The key is a hash of everything that determines the value (checkpoint fingerprint, prompt, image,
generation settings; or judge model and message), so a change of any of them is a new key, and a value is never stale.
Several processes may share the file; every `put` is one transaction, on disk when it returns. Each entry contains a
digest of its key and value. An entry that does not match its digest counts as absent, so its value is made again.

Keys are random, so an index of the keys on disk would be written all over with each batch. Entries are therefore
appended, and the place of each key is kept in memory. A file of an older napo-bench has an index, and keeps it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from napo_bench.core import disk, links
from napo_bench.core.errors import NapoBenchError

_BUSY_SECONDS = 60.0
_KEYS_A_QUERY = 500
_DIGEST_BYTES = 16
_PAGE_BYTES = 1024
_SUFFIXES = ("", "-journal", "-wal", "-shm")
"""Ends of the names of the files that SQLite opens."""


class DamagedEntryWarning(UserWarning):
    """An entry of a journal does not match its digest."""


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
        path: The SQLite file. The file and its folder are made if they do not exist. A file without digests gets
            digests.

    Attributes:
        damaged: Keys of the entries that `get` found damaged.

    Raises:
        NapoBenchError: the file is no journal, a link, or another user's, or its folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged: set[str] = set()
        self._places: dict[str, int] = {}
        self._last = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            links.refuse_links(path.parent, *(f"{path.name}{suffix}" for suffix in _SUFFIXES))
            self._require_own()
            self._connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)
            with self._connection:
                self._connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS entries (key TEXT NOT NULL, value TEXT NOT NULL, digest BLOB)"
                )
            if not self._has_digests():
                self._add_digests()
        except (OSError, sqlite3.Error) as error:
            raise self._failure(error) from None

    def get(self, keys: Iterable[str]) -> dict[str, Any]:
        """The stored values of `keys`. A key without a value, or with a damaged value, is absent.

        Warns:
            DamagedEntryWarning: an entry does not match its digest, or is no JSON.
        """
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Any] = {}
        try:
            self._find_new()
            places = [self._places[key] for key in wanted if key in self._places]
            for start in range(0, len(places), _KEYS_A_QUERY):
                part = places[start : start + _KEYS_A_QUERY]
                marks = ",".join("?" * len(part))
                # As bytes: a damaged text may not be UTF-8.
                query = f"SELECT key, CAST(value AS BLOB), digest FROM entries WHERE rowid IN ({marks})"
                with closing(self._connection.execute(query, part)) as rows:
                    for key, value, digest in rows:
                        try:
                            is_whole = digest == _digest(key, value)
                            found |= {key: json.loads(value)} if is_whole else {}
                        except (ValueError, RecursionError):
                            is_whole = False
                        if not is_whole:
                            self._report_damage(key)
        except sqlite3.Error as error:
            raise self._failure(error) from None
        return found

    def put(self, values: Mapping[str, Any]) -> None:
        """Store JSON values; all of them are on disk when this returns. An existing value is replaced."""
        texts = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}
        rows = [(key, text, _digest(key, text.encode())) for key, text in texts.items()]
        try:
            with self._connection:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO entries (key, value, digest) VALUES (?, ?, ?)", rows
                )
        except sqlite3.Error as error:
            raise self._failure(error) from None

    def entries(self, count: int) -> Iterator[dict[str, Any]]:
        """All stored values, at most `count` at a time. Damaged values are left out."""
        self._find_new()
        keys = iter(list(self._places))
        while part := list(itertools.islice(keys, count)):
            yield self.get(part)

    def is_intact(self) -> bool:
        """Whether every entry matches its digest."""
        try:
            with closing(self._connection.execute("SELECT key, CAST(value AS BLOB), digest FROM entries")) as rows:
                return all(digest == _digest(key, value) for key, value, digest in rows)
        except sqlite3.Error:
            return False

    def __len__(self) -> int:
        self._find_new()
        return len(self._places)

    def close(self) -> None:
        """Close the file; everything is on disk already."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _find_new(self) -> None:
        """Learn the places of the entries that this and other processes have added. The last entry of a key counts."""
        with closing(
            self._connection.execute("SELECT rowid, CAST(key AS BLOB) FROM entries WHERE rowid > ?", (self._last,))
        ) as rows:
            for place, key in rows:
                self._places[key.decode(errors="replace")] = self._last = place

    def _has_digests(self) -> bool:
        columns = self._connection.execute("SELECT name FROM pragma_table_info('entries')").fetchall()
        return ("digest",) in columns

    def _add_digests(self) -> None:
        """Give the entries of an older napo-bench digests of their current values."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            if self._has_digests():  # another process was first
                return
            self._connection.execute("ALTER TABLE entries ADD COLUMN digest BLOB")
            self._connection.create_function("entry_digest", 2, _digest, deterministic=True)
            self._connection.execute("UPDATE entries SET digest = entry_digest(key, CAST(value AS BLOB))")

    def _require_own(self) -> None:
        """Refuse a journal of another user. The superuser reads every user's, and everyone reads the superuser's."""
        if not hasattr(os, "geteuid") or not self.path.is_file():
            return
        owner, user = self.path.stat().st_uid, os.geteuid()
        if user not in (0, owner) and owner != 0:
            raise NapoBenchError(
                f"The journal {self.path} belongs to another user (id {owner}), who could have changed its answers.",
                "Give a folder of your own, or copy the file if you trust this user.",
            )

    def _report_damage(self, key: str) -> None:
        if key not in self.damaged:
            self.damaged.add(key)
            text = f"{self.path}: the entry {key[:12]} is damaged and is not used; its answer is made again."
            with warnings.catch_warnings():
                # A library that ignores all warnings of the process does not silence this one.
                warnings.simplefilter("always", DamagedEntryWarning)
                warnings.warn(text, DamagedEntryWarning, stacklevel=3)

    def _failure(self, error: Exception) -> NapoBenchError:
        if self.path.is_dir():
            return NapoBenchError(f"The journal {self.path} is a folder; a file is expected there.", "Move it away.")
        if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return NapoBenchError(
                f"The journal {self.path} is damaged: {error}.",
                "Move the file away, then run the same command again. The answers in that file are made again.",
            )
        if isinstance(error, OSError) or disk.reason(error):
            return disk.unwritable(self.path, disk.reason(error) or str(error))
        return NapoBenchError(
            f"The journal {self.path} cannot be used: {error}.", "It is kept as it is. Run the same command again."
        )


def _digest(key: str, value: bytes) -> bytes:
    return hashlib.blake2b(key.encode() + b"\n" + value, digest_size=_DIGEST_BYTES).digest()

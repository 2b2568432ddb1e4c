"""The journal: what it stores, what damage it notices, and files that an older napo-bench wrote."""

from __future__ import annotations

import os
import sqlite3
import warnings
from pathlib import Path

import pytest

from napo_bench.core import journal as journal_module
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import DamagedEntryWarning, Journal, journal_key

KEYS = [journal_key(number=number) for number in range(4)]
ANSWERS = {key: f"The answer {number}: schön." for number, key in enumerate(KEYS)}


def flip_bit(path: Path, text: str, bit: int = 0) -> None:
    """Flip one bit of the first byte of a text that the file holds once."""
    content = bytearray(path.read_bytes())
    assert content.count(text.encode()) == 1
    content[content.index(text.encode())] ^= 1 << bit
    path.write_bytes(content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.put(ANSWERS)
    return path


# Bit 7 makes the text invalid UTF-8.
@pytest.mark.parametrize("bit", [0, 5, 7])
def test_an_answer_with_a_flipped_bit_is_named_and_counts_as_absent(path: Path, bit: int) -> None:
    flip_bit(path, "answer 2", bit)
    with Journal(path) as journal:
        with pytest.warns(DamagedEntryWarning, match=KEYS[2][:12]) as caught:
            found = journal.get(KEYS)
        assert str(path) in str(caught[0].message)
        assert found == {key: ANSWERS[key] for key in KEYS if key != KEYS[2]}
        assert journal.damaged == {KEYS[2]}


def test_damage_is_named_although_a_library_ignores_all_warnings(path: Path) -> None:
    flip_bit(path, "answer 2")
    with warnings.catch_warnings(record=True) as caught, Journal(path) as journal:
        warnings.simplefilter("ignore")
        journal.get(KEYS)
    assert [str(warning.message) for warning in caught] != []


def test_a_damaged_entry_is_replaced_by_the_answer_that_is_made_again(path: Path) -> None:
    flip_bit(path, "answer 2")
    with Journal(path) as journal:
        with pytest.warns(DamagedEntryWarning):
            journal.get(KEYS)
        journal.put({KEYS[2]: ANSWERS[KEYS[2]]})
    with warnings.catch_warnings(), Journal(path) as journal:
        warnings.simplefilter("error")
        assert journal.get(KEYS) == ANSWERS


def test_a_damaged_digest_is_damage_too(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE entries SET digest = NULL WHERE key = ?", [KEYS[0]])
    connection.close()
    with Journal(path) as journal, pytest.warns(DamagedEntryWarning, match=KEYS[0][:12]):
        assert set(journal.get(KEYS)) == set(KEYS[1:])


def test_an_entry_under_another_key_is_damage(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM entries WHERE key = ?", [KEYS[1]])
        connection.execute("UPDATE entries SET key = ? WHERE key = ?", [KEYS[1], KEYS[0]])
    connection.close()
    with Journal(path) as journal, pytest.warns(DamagedEntryWarning, match=KEYS[1][:12]):
        assert set(journal.get(KEYS)) == set(KEYS[2:])


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A journal as napo-bench wrote it before entries had digests."""
    path = tmp_path / "older.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        connection.executemany("INSERT INTO entries VALUES (?, ?)", [(key, f'"{ANSWERS[key]}"') for key in KEYS])
    connection.close()
    return path


def test_a_journal_without_digests_is_read_and_gets_them(older: Path) -> None:
    with Journal(older) as journal, Journal(older) as another:
        assert journal.get(KEYS) == another.get(KEYS) == ANSWERS
    flip_bit(older, "answer 1")
    with Journal(older) as journal, pytest.warns(DamagedEntryWarning, match=KEYS[1][:12]):
        assert set(journal.get(KEYS)) == set(KEYS) - {KEYS[1]}


def test_a_second_value_replaces_the_first(path: Path) -> None:
    with Journal(path) as journal:
        journal.put({KEYS[0]: "another"})
        assert journal.get(KEYS[:1]) == {KEYS[0]: "another"}
        assert len(journal) == len(KEYS)


def test_a_value_that_is_no_json_is_answered_anew_although_its_digest_is_right(path: Path) -> None:
    with Journal(path) as journal, sqlite3.connect(path) as edited:
        edited.create_function("entry_digest", 2, journal_module._digest, deterministic=True)
        edited.execute("UPDATE entries SET value = '{' WHERE key = ?", (KEYS[0],))
        edited.execute("UPDATE entries SET digest = entry_digest(key, CAST(value AS BLOB))")
        edited.commit()
        with pytest.warns(DamagedEntryWarning, match=KEYS[0][:12]):
            assert set(journal.get(KEYS)) == set(KEYS[1:])


@pytest.mark.parametrize(("user", "is_refused"), [(1000, True), (1234, False), (0, False)])
def test_a_journal_of_another_user_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, user: int, is_refused: bool
) -> None:
    stat, found = Path.stat, path.stat()
    of_another = os.stat_result((*found[:4], 1234, *found[5:]))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(Path, "stat", lambda self, **how: of_another if self == path else stat(self, **how))
    if is_refused:
        with pytest.raises(NapoBenchError, match=r"belongs to another user \(id 1234\)"):
            Journal(path)
    else:
        Journal(path).close()


def test_entries_of_another_process_are_found_and_the_last_entry_of_a_key_counts(path: Path) -> None:
    with Journal(path) as journal, Journal(path) as another:
        assert journal.get(KEYS) == ANSWERS
        new = journal_key(number="new")
        another.put({new: "new", KEYS[1]: "changed"})
        assert journal.get([*KEYS, new]) == ANSWERS | {new: "new", KEYS[1]: "changed"}
        assert len(journal) == len(another) == len(KEYS) + 1


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="Linux counts the bytes that a process writes")
def test_a_large_journal_writes_at_most_five_times_what_it_keeps(tmp_path: Path) -> None:
    def written() -> int:
        return int(Path("/proc/self/io").read_text().split("wchar: ")[1].split()[0])

    def answers(first: int, count: int) -> dict[str, str]:
        return {
            journal_key(number=number): "A man stands near a red car. " * 14 for number in range(first, first + count)
        }

    with Journal(tmp_path / "journal.sqlite") as journal:
        journal.put(answers(0, 30_000))
        before, kept = written(), 0
        for first in range(30_000, 30_800, 16):
            batch = answers(first, 16)
            kept += sum(map(len, batch.values()))
            journal.put(batch)
        assert written() - before < 5 * kept

"""Files of JSON: what cannot be written again is refused on reading, with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError

SMILE = "\U0001f600"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (r'[{"id": 1, "response": "park"}, {"id": 2, "response": "a \ud83d park"}]', "row 2, field 'response'"),
        (r'[{"id": 1, "response": "cut \uD83D"}]', "row 1, field 'response'"),
        (r'[{"id": 1, "response": "\ude00\ud83d"}]', "row 1, field 'response'"),
        (r'[{"id": 1, "re\udfffsponse": "park"}]', "row 1, a field's name"),
        (r'{"model": {"answers": ["park", "\ud83d"]}}', "field 'model', field 'answers', item 2"),
        (r'"\ud83d"', "rows.json"),
    ],
)
def test_half_a_surrogate_pair_is_refused_with_row_and_field(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(NapoBenchError) as caught:
        files.read_json(path)
    assert f"{place}: half of a surrogate pair (\\ud" in caught.value.message
    caught.value.message.encode()


def test_json_lines_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "park"}\n\n{"text": "\\ud83d"}\n')
    with pytest.raises(NapoBenchError, match=r"line 3, field 'text': half of a surrogate pair"):
        files.read_jsonl(path)


def test_whole_pairs_and_written_backslashes_are_read(tmp_path: Path) -> None:
    row = {"emoji": SMILE, "backslash": r"\ud83d", "two": SMILE * 2}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row]))
    assert files.read_json(path) == [row]
    assert json.loads(files.whole_characters(path.read_bytes())) == [row]


def test_another_programs_json_is_read_with_u_fffd_in_place_of_half_a_pair() -> None:
    sent = rb'["\ud83d", "\ude00\ud83d\ude00", "\\ud83d", "\n\u00e9 \ud83dx"]'
    assert json.loads(files.whole_characters(sent)) == ["\ufffd", "\ufffd" + SMILE, r"\ud83d", "\n\xe9 \ufffdx"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "too many brackets"),
        ("[" + "1" * 5_000 + "]", "Exceeds the limit"),
        ('{"id": 1, "response": "Yes", "response": "No"}', "an object has the field 'response' twice"),
    ],
)
@pytest.mark.parametrize("read", [files.read_json, files.read_jsonl])
def test_json_that_python_gives_up_on_is_refused(text, reason, read, tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(NapoBenchError, match=f"not valid JSON: {reason}") as caught:
        read(path)
    assert str(path) in caught.value.message

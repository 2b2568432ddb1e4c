"""`napo-bench score amber` and `napo-bench score object-halbench`, as a user runs them."""

import hashlib
import json
import sys

import pytest

from napo_bench.cli import console, main
from napo_bench.runs.result import RunResult


@pytest.fixture
def napo_bench(monkeypatch, capsys):
    """Runs a command line; returns exit code, stdout and stderr."""
    monkeypatch.setattr(console.out, "_width", 120)
    monkeypatch.setattr(console.err, "_width", 400)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["napo-bench", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as exit:
            code = exit.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def data_dir(tmp_path):
    amber = tmp_path / "data" / "amber"
    amber.mkdir(parents=True)
    annotations = [
        {"id": 1, "type": "generative", "truth": ["dog"], "hallu": ["ball"]},
        {"id": 2, "type": "generative", "truth": ["tree"], "hallu": []},
        {"id": 3, "type": "discriminative-attribute-number", "truth": "no"},
    ]
    (amber / "annotations.json").write_text(json.dumps(annotations))
    (amber / "relation.json").write_text(json.dumps({"dog": [], "ball": [], "tree": []}))
    (amber / "safe_words.txt").write_text("")
    halbench = tmp_path / "data" / "object_halbench"
    (halbench / "annotations").mkdir(parents=True)
    (halbench / "synonyms_refine.txt").write_text("dog\ncat")
    (halbench / "questions.jsonl").write_text('{"image_id": 5, "question": "Describe.", "image": "aGk="}')
    for part in ("train", "val"):
        told = [{"image_id": 5, "caption": "A dog."}] if part == "val" else []
        (halbench / f"annotations/captions_{part}2014.json").write_text(json.dumps({"annotations": told}))
        (halbench / f"annotations/instances_{part}2014.json").write_text('{"categories": [], "annotations": []}')
    return tmp_path / "data"


@pytest.fixture
def amber(napo_bench, data_dir, tmp_path):
    """Scores AMBER responses with the closed vocabulary."""
    responses = tmp_path / "responses.json"

    def run(rows, *options):
        text = rows if isinstance(rows, str | bytes) else json.dumps(rows)
        responses.write_bytes(text if isinstance(text, bytes) else text.encode())
        command = ("score", "amber", "--responses", responses, "--data-dir", data_dir)
        return napo_bench(*command, "--pipeline", "closed_vocabulary", *options)

    return run


ROWS = [{"id": 1, "response": "a dog and a ball"}, {"id": 2, "response": "a [red]tree[/red]"}]


def test_metrics_go_to_stdout_with_intervals_and_n(amber):
    code, out, _ = amber(ROWS)
    assert code == 0
    row = next(line for line in out.splitlines() if "chair" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["chair ↓", "33.3", "0.0 - 50.0", "2"]
    assert "Scoring" not in out


def test_the_json_holds_metrics_samples_and_provenance(amber, data_dir, tmp_path):
    code, _, err = amber(ROWS, "--json", tmp_path / "out" / "amber.json")
    assert code == 0 and "out/amber.json" in err.replace("\n", "")
    run = RunResult.load(tmp_path / "out" / "amber.json")
    assert run.benchmarks["amber"].metrics["chair"].value == 33.3
    assert [sample["response"] for sample in run.benchmarks["amber"].samples] == [row["response"] for row in ROWS]
    provenance = run.provenance
    relation = (data_dir / "amber" / "relation.json").read_bytes()
    assert provenance.data.sha256["amber/relation.json"] == hashlib.sha256(relation).hexdigest()
    responses = (tmp_path / "responses.json").read_bytes()
    assert provenance.responses.sha256 == hashlib.sha256(responses).hexdigest()
    assert provenance.command.startswith("napo-bench score amber --responses ")
    assert {"python", "napo-bench", "numpy"} <= provenance.versions.keys()
    assert provenance.wall_seconds >= 0 and provenance.bootstrap_seed == 0


def test_the_same_responses_give_the_same_json(amber, tmp_path):
    for name in ("a", "b"):
        amber(ROWS, "--json", tmp_path / name / "run.json")
    first, second = (json.loads((tmp_path / name / "run.json").read_text())["benchmarks"] for name in ("a", "b"))
    assert first == second


def test_a_breakdown_of_questions_is_printed(amber):
    _, out, _ = amber([{"id": 3, "response": "No"}])
    assert "dimension/attribute" in out and "attribute/number" in out


def test_answers_lenient_is_an_option_and_is_named_in_the_result(amber, tmp_path):
    _, out, _ = amber([{"id": 3, "response": "No."}], "--json", tmp_path / "exact.json")
    assert "1 of 1 yes/no answers are neither Yes nor No" in out
    amber([{"id": 3, "response": "No."}], "--answers", "lenient", "--json", tmp_path / "lenient.json")
    results = [RunResult.load(tmp_path / f"{name}.json").benchmarks["amber"] for name in ("exact", "lenient")]
    assert [result.metrics["accuracy"].value for result in results] == [0.0, 99.9]
    assert [result.settings for result in results] == [{"answers": "exact"}, {"answers": "lenient"}]


def test_missing_ids_are_refused_with_exit_code_2_and_scored_on_request(amber):
    code, out, err = amber(ROWS[:1])
    assert code == 2 and out == ""
    assert "1 of 2 ids missing: 2" in err and "--allow-partial" in err and "Traceback" not in err
    code, out, _ = amber(ROWS[:1], "--allow-partial")
    assert code == 0
    assert "over a part of the benchmark" in out and "1 of 2 ids missing: 2" in out


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('[{"id": 1, "resp', "ends too early"),
        ("not json", "not valid JSON"),
        ([{"response": "a dog"}], "row 1: the field 'id' is missing"),
        ([{"id": "1", "response": "a dog"}], "row 1: the field 'id' is '1'; int is expected"),
        ([{"id": 1, "response": "a dog \ud83d"}], "row 1, field 'response': half of a surrogate pair"),
        ([{"id": 1, "response": None}], "row 1: the field 'response' is None; str is expected"),
        ([{"id": 1, "response": float("nan")}], "row 1: the field 'response' is nan; str is expected"),
        ({"results": [{"id": 1, "response": "a dog"}]}, "row 1: the field 'id' is missing"),
        ([{"id": 1, "response": "a dog"}] * 2, "1 ids duplicate: 1"),
        ('[{"id": 1, "response": "a dog"},\n]', "not valid JSON"),
    ],
)
def test_bad_responses_are_one_message_and_exit_code_2(amber, rows, message):
    code, _, err = amber(rows)
    panel = " ".join(line.strip("│ ") for line in err.splitlines())
    assert code == 2 and message in panel and "responses.json" in panel.replace(" ", "") and "Traceback" not in err


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("as_lines", [True, False])
def test_a_byte_order_mark_windows_line_ends_and_json_lines_are_read(amber, tmp_path, encoding, line_end, as_lines):
    text = "\n".join(map(json.dumps, ROWS)) if as_lines else json.dumps(ROWS, indent=1)
    (tmp_path / "responses.json").write_bytes(text.replace("\n", line_end).encode(encoding))
    code, out, _ = amber((tmp_path / "responses.json").read_bytes())
    assert code == 0 and "33.3" in out


def test_a_file_in_utf_16_is_one_message(amber):
    code, _, err = amber(json.dumps(ROWS).encode("utf-16"))
    assert code == 2 and "is not UTF-8 text" in err and "Traceback" not in err


def test_answers_with_u_fffd_are_counted(amber):
    _, out, _ = amber([{"id": 1, "response": "a dog \ufffd"}, {"id": 2, "response": "a tree"}])
    assert "1 response holds U+FFFD" in out


def test_a_data_dir_without_a_file_says_which_and_what_to_run(amber, data_dir):
    (data_dir / "amber" / "relation.json").unlink()
    code, _, err = amber(ROWS)
    assert code == 2 and "relation.json" in err.replace("\n", "") and "napo-bench data fetch amber" in err


def test_an_output_that_cannot_be_written_is_one_message(amber, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = amber(ROWS, "--json", tmp_path / "file" / "out.json")
    said = " ".join(err.replace("│", " ").split())  # a long temporary path moves the line breaks
    assert code == 2 and "file is a file; a folder is expected there" in said and "Traceback" not in err


def test_the_data_dir_can_come_from_the_environment(amber, napo_bench, data_dir, tmp_path, monkeypatch):
    amber(ROWS)
    monkeypatch.setenv("NAPO_BENCH_DATA", str(data_dir))
    responses = tmp_path / "responses.json"
    code, out, _ = napo_bench("score", "amber", "--responses", responses, "--pipeline", "closed_vocabulary")
    assert code == 0 and "33.3" in out


@pytest.mark.parametrize("name", ["object-halbench", "object_halbench"])
def test_object_halbench_from_lines_to_json(napo_bench, data_dir, tmp_path, name):
    responses = tmp_path / "r.jsonl"
    responses.write_text('{"image_id": 5, "prompt": "Describe.", "answer": "A dog and two cats."}\n')
    code, out, _ = napo_bench(
        *("score", name, "--responses", responses, "--data-dir", data_dir),
        *("--pipeline", "closed_vocabulary", "--json", tmp_path / "run.json"),
    )
    assert code == 0 and "chair_s_refine" in out
    result = RunResult.load(tmp_path / "run.json").benchmarks["object_halbench"]
    assert (result.metrics["chair_i"].value, result.metrics["mean_words"].value) == (50.0, 5.0)
    assert result.samples[0]["hallucinated"] == ["cats"]


def test_an_extractor_option_without_an_extractor_is_refused(napo_bench, data_dir, tmp_path):
    (tmp_path / "r.jsonl").write_text("")
    code, _, err = napo_bench(
        *("score", "object-halbench", "--responses", tmp_path / "r.jsonl"), "--extractor-base-url", "http://x/v1"
    )
    assert code == 2 and "--extractor-model" in err


def test_official_scores_of_real_captions_on_real_annotations(napo_bench, shared, tmp_path):
    shared("nltk_data")
    lines = shared("reference/responses/llava-1.5.jsonl").read_text().splitlines()[:100]
    rows = [{"id": number, "response": json.loads(line)["caption"]} for number, line in enumerate(lines, start=1)]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    code, out, _ = napo_bench(
        *("score", "amber", "--responses", tmp_path / "r.json", "--data-dir", shared("reference"), "--allow-partial"),
        *("--spacy-model", shared("spacy/en_core_web_md"), "--json", tmp_path / "out.json"),
    )
    assert code == 0 and "904 of 1004 ids missing: 101, 102, 103, 104, 105 and 899 more" in out
    result = RunResult.load(tmp_path / "out.json").benchmarks["amber"]
    assert result.settings["text_pipeline"]["spacy_model"] == "en_core_web_md 3.8.0"
    assert not result.complete and result.metrics["chair"].n == 100
    # COCO captions on AMBER's images: nearly every description is wrong
    assert result.metrics["hal"].value > 90 and result.metrics["chair"].value > 60

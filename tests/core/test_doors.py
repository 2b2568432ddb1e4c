"""What comes from outside opens no file outside its folder, whatever the data, a run or a link there calls it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from typer.testing import CliRunner

from napo_bench.benchmarks import all_benchmarks, all_tasks
from napo_bench.cli import app
from napo_bench.cli.judge import _folders
from napo_bench.core import files, links
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal
from napo_bench.core.locks import LOCK_NAME, output_folder
from napo_bench.micro.data import write_data
from napo_bench.report.pictures import thumbnails
from napo_bench.runs.evaluate import EvalOptions, evaluate
from napo_bench.runs.questions import TaskQuestions
from napo_bench.runs.result import RunResult
from napo_bench.trainers.bias import build_bias
from napo_bench.trainers.recipe import Recipe
from napo_bench.trainers.rows import open_rows
from napo_bench.trainers.run import train


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "private" / "secret.png"
    path.parent.mkdir()
    Image.new("RGB", (64, 48), "red").save(path)
    return path


def amber(data: Path, image: str, word: object = "dog") -> TaskQuestions:
    """AMBER's descriptions with one picture of this name, read as `eval` reads them."""
    folder = data / "amber"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "query_generative.json").write_text(json.dumps([{"id": 1, "image": image, "query": "Describe."}]))
    annotation = {"id": 1, "type": "generative", "truth": [word], "hallu": ["cat"]}
    (folder / "annotations.json").write_text(json.dumps([annotation]))
    (folder / "relation.json").write_text(json.dumps({"dog": ["dog"], "cat": ["cat"]}))
    (folder / "safe_words.txt").write_text("")
    benchmark, task = all_tasks()["amber"]
    return TaskQuestions.read(benchmark, benchmark.open(folder), task, "greedy", None)


@pytest.mark.parametrize("relative", [True, False])
def test_eval_opens_no_picture_outside_the_benchmarks_folder(tmp_path: Path, secret: Path, relative: bool) -> None:
    name = "../../../private/secret.png" if relative else str(secret)
    with pytest.raises(NapoBenchError, match=r"secret\.png' leads out of .*amber"):
        amber(tmp_path / "data", name)


def test_eval_follows_no_link_out_of_the_benchmarks_folder(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "data/amber/images").mkdir(parents=True)
    (tmp_path / "data/amber/images/1.png").symlink_to(secret)
    with pytest.raises(NapoBenchError, match="leads out of"):
        amber(tmp_path / "data", "1.png")


def test_a_benchmarks_folder_may_be_a_link(tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk/amber/images").mkdir(parents=True)
    secret.rename(tmp_path / "disk/amber/images/a#1.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/amber").symlink_to(tmp_path / "disk/amber")
    assert amber(tmp_path / "data", "a#1.png").questions[0].open_picture().size == (64, 48)
    monkeypatch.chdir(tmp_path / "private")
    assert amber(Path("../data"), "a#1.png").questions
    assert set(thumbnails([("amber", "a#1.png")], Path("../data"))) == {("amber", "a#1.png")}


@pytest.mark.parametrize("name", ["x\0.png", "x" * 5000])
def test_what_is_no_name_of_a_file_is_one_message(tmp_path: Path, name: str) -> None:
    with pytest.raises(NapoBenchError, match="is no name of a file"):
        amber(tmp_path / "data", name)


def test_a_pipe_in_place_of_a_picture_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "data/amber/images").mkdir(parents=True)
    os.mkfifo(tmp_path / "data/amber/images/1.png")
    with pytest.raises(NapoBenchError, match="1 of 1 pictures of amber are missing"):
        amber(tmp_path / "data", "1.png")


@pytest.mark.parametrize("benchmark", list(all_benchmarks()))
@pytest.mark.parametrize(
    "name",
    ["../private/secret.png", "{b}/../../private/secret.png", "{b}/link.png", "x\0", "x#", "#1", "{b}/x.parquet#9"],
)
def test_the_explorer_shows_nothing_outside_the_benchmarks_folder(
    tmp_path: Path, secret: Path, benchmark: str, name: str
) -> None:
    (tmp_path / "data" / benchmark / "images").mkdir(parents=True)
    for folder in ("", "images"):
        (tmp_path / "data" / benchmark / folder / "link.png").symlink_to(secret)
    assert thumbnails([(benchmark, name.replace("{b}", benchmark))], tmp_path / "data") == {}
    assert thumbnails([(benchmark, "link.png")], tmp_path / "data") == {}


def test_the_folder_that_a_run_names_is_not_followed_out_of_itself(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "bundle/data").mkdir(parents=True)
    (tmp_path / "bundle/data/mmhal").symlink_to(secret.parent)
    shown = [("mmhal", "mmhal/secret.png")]
    assert thumbnails(shown, tmp_path / "bundle/data", follow=False) == {}
    assert len(thumbnails(shown, tmp_path / "bundle/data")) == 1, "a user's own link"


@pytest.mark.parametrize(
    "make", [lambda secret: str(secret.parent), lambda secret: "../private", lambda secret: "link"]
)
def test_a_run_reads_its_samples_from_its_own_folder(tmp_path: Path, secret: Path, make: Callable[[Path], str]) -> None:
    (secret.parent / "amber.jsonl").write_text('{"secret": 1}\n')
    run = tmp_path / "run" / "run.json"
    run.parent.mkdir()
    (run.parent / "link").symlink_to(secret.parent)
    entry = {"metrics": {}, "breakdown": {}, "settings": {}}
    document = {"schema_version": 1, "benchmarks": {"amber": entry}, "samples": make(secret), "provenance": {}}
    run.write_text(json.dumps(document))
    with pytest.raises(NapoBenchError, match="leads out of"):
        RunResult.load(run)


def test_a_run_with_a_path_as_benchmark_opens_no_file(tmp_path: Path) -> None:
    run = tmp_path / "run.json"
    run.write_text(json.dumps({"schema_version": 1, "benchmarks": {"../../x": {"metrics": {}}}, "samples": "samples"}))
    with pytest.raises(NapoBenchError, match="there is no such benchmark"):
        RunResult.load(run)


@pytest.mark.parametrize("name", ["../private/secret.png", "{secret}", "link.png"])
def test_training_rows_name_no_picture_outside_the_folder_of_their_file(
    tmp_path: Path, secret: Path, name: str
) -> None:
    rows = tmp_path / "rows" / "rows.parquet"
    rows.parent.mkdir()
    (rows.parent / "link.png").symlink_to(secret)
    cell = {"bytes": None, "path": name.replace("{secret}", str(secret))}
    row = {"question": "Why?", "chosen": "a", "rejected": "b", "image": cell}
    parquet.write_table(pa.Table.from_pylist([row]), rows)
    with pytest.raises(NapoBenchError, match=r"rows\.parquet, row 1: .* leads out of"):
        open_rows(rows, ["rejected"], tmp_path / "cache")


def test_a_name_inside_is_the_path_without_links(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a.json").write_text("{}")
    (tmp_path / "folder/b.json").symlink_to("a.json")
    assert files.inside(tmp_path / "folder", "b.json") == (tmp_path / "folder/a.json").resolve()


def command_line(name: str, out: Path, *options: str) -> None:
    error = CliRunner().invoke(app, [name, "--out", str(out), *options]).exception
    assert error is not None
    raise error


Command = Callable[[Path], object]
PLACES: dict[str, tuple[str, Command]] = {
    "eval, responses": ("responses", lambda out: evaluate("x", out, EvalOptions())),
    "eval, samples": ("samples", lambda out: evaluate("x", out, EvalOptions())),
    "eval, journal": ("journal.sqlite", lambda out: evaluate("x", out, EvalOptions())),
    "eval, lock": (LOCK_NAME, lambda out: evaluate("x", out, EvalOptions())),
    "score": ("a.samples", lambda out: RunResult({}).save(out / "a.json")),
    "judge map": ("a", lambda out: _folders(out, ["a"])),
    "journal": ("journal.sqlite", lambda out: Journal(out / "journal.sqlite")),
    "SQLite's own file": ("journal.sqlite-journal", lambda out: Journal(out / "journal.sqlite")),
    "build-bias, lock": (LOCK_NAME, lambda out: build_bias("x", "y", out)),
    "train, lock": (LOCK_NAME, lambda out: train(Recipe(), out)),
    "train, cache": ("reference", lambda out: train(Recipe(), out / "own", cache=out)),
    "rows": ("parquet", lambda out: open_rows(out / "rows.parquet", [], out)),
    "train-then-eval": ("micro-napo", lambda out: command_line("train-then-eval", out, "--recipe", "none")),
    "lab": ("cache", lambda out: command_line("lab", out, "--part", "none")),
    "data micro": ("amber", lambda out: write_data(out)),
}


ONLY_FOLDERS = ("train-then-eval", "lab", "train, cache", "rows")
KINDS = ("link to a folder", "link to a file", "link to nothing", "pipe")


@pytest.mark.parametrize(
    ("place", "kind"), [(place, kind) for place in PLACES for kind in KINDS[: 1 if place in ONLY_FOLDERS else None]]
)
def test_nothing_is_written_through_a_link_or_a_pipe(tmp_path: Path, place: str, kind: str) -> None:
    name, command = PLACES[place]
    private, out = tmp_path / "private", tmp_path / "out"
    private.mkdir()
    out.mkdir()
    (private / "mine").write_text("mine")
    parquet.write_table(pa.table({name: ["x"] for name in ("question", "chosen", "image")}), out / "rows.parquet")
    targets = {"link to a folder": private, "link to a file": private / "mine", "link to nothing": private / "new"}
    if kind == "pipe":
        os.mkfifo(out / name)
    else:
        (out / name).symlink_to(targets[kind])
    what = "a pipe or a device" if kind == "pipe" else "a link"
    with pytest.raises(NapoBenchError, match=f"{re.escape(name)} is {what}; a file or a folder is written there"):
        command(out)
    assert [path.name for path in private.iterdir()] == ["mine"]
    assert (private / "mine").read_text() == "mine"


def test_a_link_deeper_in_a_folder_may_lead_to_another_place_of_the_same_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "out/checkpoints/a").mkdir(parents=True)
    (tmp_path / "out/checkpoints/b").symlink_to("a")
    links.refuse_links(tmp_path / "out", "checkpoints")
    (tmp_path / "out/checkpoints/a/config.json").symlink_to(tmp_path / "config.json")
    with pytest.raises(NapoBenchError, match=r"config\.json is a link"):
        links.refuse_links(tmp_path / "out", "checkpoints")


def test_a_folder_that_the_user_names_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk/samples").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with output_folder(tmp_path / "out"):
        links.refuse_links(tmp_path / "out", "samples")
        RunResult({}).save(tmp_path / "out/run.json")
    assert (tmp_path / "disk/run.json").is_file()


@pytest.mark.parametrize(
    "damage", [5, "x", None, [], {"n": 1, "value": 10**400}, {"n": 1, "value": 1, "ci95": [0, -(10**400)]}]
)
def test_a_metric_of_a_run_that_is_none_is_one_message(tmp_path: Path, damage: object) -> None:
    run = tmp_path / "run.json"
    for place in ({"metrics": {"chair": damage}}, {"metrics": {}, "breakdown": {"all": {"chair": damage}}}):
        run.write_text(json.dumps({"schema_version": 1, "benchmarks": {"amber": place}}))
        with pytest.raises(NapoBenchError, match=r"run\.json, benchmark amber.*chair.* is expected"):
            RunResult.load(run, samples=False)


@pytest.mark.parametrize("word", [[], {}, None, 5])
def test_what_is_no_word_in_ambers_annotations_is_one_message(tmp_path: Path, word: object) -> None:
    (tmp_path / "amber/images").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "amber/images/1.png")
    with pytest.raises(NapoBenchError, match=r"annotations\.json, item 1: truth has .*, which is no key of relation"):
        amber(tmp_path, "1.png", word)

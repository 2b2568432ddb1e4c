"""The explorer's file: self-contained, safe against the texts it shows, small, and with the right samples in it."""

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_runs import draw_pictures, invoke, make_run

from napo_bench.core.errors import NapoBenchError
from napo_bench.report import pictures
from napo_bench.report.explorer import to_html
from napo_bench.report.figures import draw_figures
from napo_bench.report.runs import NamedRun
from napo_bench.report.table import table_1

HOSTILE = "</script><script>window.stolen = 1</script><img src=x onerror=alert(1)> <!-- \u2028 ${x}"


class Page(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.policy = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")
        if dict(attributes).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attributes)["content"]

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts[-1] += data

    @property
    def data(self):
        return json.loads(self.scripts[0])

    @property
    def pictures(self):
        return json.loads(self.scripts[1])


def page_of(*runs, data_dir=None):
    named = [NamedRun(name, run, None, []) for name, run in runs]
    return to_html(named, [table_1(named)], draw_figures(named), data_dir)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    draw_pictures(folder, 100)
    return folder


@pytest.fixture(scope="module")
def runs(data_dir):
    return ("base", make_run(0.4, 1, data_dir=data_dir)), ("napo", make_run(0.8, 2, data_dir=data_dir))


@pytest.fixture(scope="module")
def text(runs):
    return page_of(*runs)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_every_sample_is_there_once_with_the_answer_of_each_run(runs, page):
    items = {(item["benchmark"], item["id"]): item for item in page.data["items"]}
    assert len(items) == len(page.data["items"]) == sum(len(b.samples) for b in runs[0][1].benchmarks.values())
    for index, (_, run) in enumerate(runs):
        for sample in run.benchmarks["amber"].samples:
            answer = items["amber", sample["sample_id"]]["answers"][index]
            assert answer["text"] == sample["response"]
            assert answer.get("hallucinated", []) == sample["hallucinated"]
            assert answer["right"] == (not sample["hallucinated"])
        for sample in run.benchmarks["mmhal"].samples:
            assert items["mmhal", sample["sample_id"]]["answers"][index]["right"] == (sample["rating"] >= 3)
        for sample in run.benchmarks["vlind"].samples:
            answer = items["vlind", sample["sample_id"]]["answers"][index]
            assert [test["text"] for test in answer["tests"]] == [response["text"] for response in sample["responses"]]
            assert answer["right"] == all(r["correct"] for r in sample["responses"] if r["test"] == "lp")


def test_the_page_says_where_the_time_went(runs):
    stages = {"prefill": {"seconds": 20.5, "tokens": 102322}, "scoring": {"seconds": 2.0}}
    base = runs[0][1]
    run = replace(base, provenance=replace(base.provenance, wall_seconds=25.0, stages=stages))
    assert "25.0 s, of them prefill 20.5 s (102,322 tokens), scoring 2.0 s" in page_of(("base", run))


def test_a_sample_that_one_run_lacks_stays_with_a_gap(runs):
    part = make_run(0.4, 1)
    part.benchmarks["mmhal"].samples = part.benchmarks["mmhal"].samples[:10]
    items = Page(page_of(runs[0], ("part", part))).data["items"]
    gaps = [item["answers"][1] is None for item in items if item["benchmark"] == "mmhal"]
    assert sum(gaps) == 86


def test_unrated_answers_are_neither_right_nor_wrong():
    run = make_run(0.5, 1, sizes={"mmhal": 8})
    run.benchmarks["mmhal"].metrics = {}
    for sample in run.benchmarks["mmhal"].samples:
        del sample["counts"], sample["rating"]
    assert [item["answers"][0]["right"] for item in Page(page_of(("x", run))).data["items"]] == [None] * 8


def test_a_sample_without_an_id_is_named(runs):
    broken = make_run(0.5, 1, sizes={"amber": 3})
    del broken.benchmarks["amber"].samples[1]["sample_id"]
    with pytest.raises(NapoBenchError, match=r"x, amber, sample 2.*'sample_id'"):
        page_of(("x", broken))


def test_nothing_is_loaded_from_anywhere(page):
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert name not in attributes, (tag, attributes)
    assert "default-src 'none'" in page.policy


def test_the_policy_allows_the_pages_own_script_and_no_other(page):
    digest = base64.b64encode(hashlib.sha256(page.scripts[-1].encode()).digest()).decode()
    assert re.search(r"script-src ([^;]*)", page.policy)[1] == f"'sha256-{digest}'"


def test_texts_of_models_and_users_never_become_markup(runs):
    hostile = make_run(0.5, 1, sizes={"amber": 3, "vlind": 3, "mmhal": 3})
    for benchmark in hostile.benchmarks.values():
        benchmark.notes = [HOSTILE]
        for sample in benchmark.samples:
            sample |= {"prompt": HOSTILE, "response": HOSTILE, "hallucinated": [HOSTILE]}
            for response in sample.get("responses", []):
                response |= {"text": HOSTILE, "prompt": HOSTILE}
    page = Page(page_of((HOSTILE, hostile)))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 3 and "img" not in tags
    assert not [attributes for _, attributes in page.elements if any(name.startswith("on") for name in attributes)]
    assert page.data["items"][0]["prompt"] == HOSTILE and page.data["runs"][0]["name"] == HOSTILE


def test_pictures_are_there_once_however_many_samples_show_them(runs, page, data_dir):
    shown = {item["image"] for item in page.data["items"] if item["image"] is not None}
    shown |= {test["image"] for item in page.data["items"] for test in item.get("tests", [])}
    assert shown == set(range(len(page.pictures)))
    assert len(set(page.pictures)) == len(page.pictures) == 100
    amber_1 = next(item for item in page.data["items"] if (item["benchmark"], item["id"]) == ("amber", "1"))
    encoded = page.pictures[amber_1["image"]].partition("base64,")[2]
    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert max(image.size) <= 320


def test_another_data_dir_can_be_given(runs, data_dir, tmp_path):
    elsewhere = make_run(0.4, 1, data_dir=tmp_path / "gone", sizes={"amber": 5})
    assert Page(page_of(("x", elsewhere))).pictures == []
    assert len(Page(page_of(("x", elsewhere), data_dir=data_dir)).pictures) == 5


def test_pictures_are_found_from_any_folder_and_missing_ones_are_noted(tmp_path, monkeypatch, capsys):
    draw_pictures(tmp_path / "there" / "data", 5)
    make_run(0.4, 1, data_dir=Path("data"), sizes={"amber": 6}).save(tmp_path / "there" / "runs" / "x" / "run.json")
    monkeypatch.chdir(tmp_path)
    _, _, err = invoke(["report", "there/runs/x", "--format", "html", "--out", "r.html"], monkeypatch, capsys, 400)
    assert len(Page((tmp_path / "r.html").read_text()).pictures) == 5
    assert "note 1 of 6 images are not in" in err and "--data-dir" in err


def test_pictures_of_object_halbench_come_from_its_questions(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(stream, format="JPEG")
    row = {"image_id": 1000, "question": "Describe.", "image": base64.b64encode(stream.getvalue()).decode()}
    (tmp_path / "object_halbench").mkdir()
    (tmp_path / "object_halbench" / "questions.jsonl").write_text(json.dumps(row) + "\n")
    assert set(pictures.thumbnails([("object_halbench", "1000"), ("object_halbench", "1001")], tmp_path)) == {
        ("object_halbench", "1000")
    }


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/hostname", "mmhal/images/broken.jpg", "mmhal/images", ""])
def test_a_picture_that_is_not_one_or_not_in_the_data_dir_is_left_out(tmp_path, name):
    data = tmp_path / "data"
    (data / "mmhal" / "images").mkdir(parents=True)
    (data / "mmhal" / "images" / "broken.jpg").write_text("no picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.jpg")
    assert pictures.thumbnails([("mmhal", name)], data) == {}


def test_thumbnails_shrink_until_they_fit_into_the_page(tmp_path, monkeypatch):
    """Smoothed noise compresses worse than any photograph; 24 pictures and 0.6 MB stand for 1,000 and 25 MB."""
    monkeypatch.setattr(pictures, "_BUDGET", 576_000)
    rng = np.random.default_rng(0)
    names = [f"mmhal/images/{index}.jpg" for index in range(24)]
    (tmp_path / "mmhal" / "images").mkdir(parents=True)
    for name in names:
        noise = Image.fromarray(rng.integers(0, 255, (120, 160, 3), dtype=np.uint8))
        noise.resize((640, 480), Image.Resampling.BICUBIC).save(tmp_path / name, quality=95)
    found = pictures.thumbnails([("mmhal", name) for name in names], tmp_path)
    assert len(found) == 24
    assert 300_000 < sum(map(len, found.values())) <= 576_000


def test_figures_take_the_pages_text_colour(text):
    svg = text[text.index("<svg") : text.index("</svg>")]
    assert "currentColor" in svg and "#1b1e24" not in svg


@pytest.mark.parametrize("option", [[], ["--intervals"]])
def test_command_writes_the_page_and_says_where(tmp_path, monkeypatch, capsys, option):
    make_run(0.5, 1).save(tmp_path / "run.json")
    code, printed, err = invoke(
        ["report", tmp_path, "--format", "html", "--out", tmp_path / "r.html", *option], monkeypatch, capsys
    )
    assert (code, printed) == (0, "") and "r.html" in err
    page = (tmp_path / "r.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert ('class="with-intervals"' in page) == bool(option)

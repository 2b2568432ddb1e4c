"""Fetching benchmark data over real HTTP, from a local server that breaks off, redirects, and sends rubbish."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from local_site import Site, hub_pages, sha256
from pyarrow import parquet

from napo_bench.benchmarks import all_benchmarks, benchmark_named
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.paths import data_dir
from napo_bench.data import fetch as fetching
from napo_bench.data.fetch import LOCK_NAME, fetch
from napo_bench.data.sources import HubFolder, WebArchive, WebFile

BODY = bytes(range(256)) * 2000


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_PAUSE_SECONDS", 0.0)


def web_file(site: Site, digest: str = "") -> WebFile:
    return WebFile("amber/relation.json", f"{site.url}/relation.json", digest)


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_data_dir_is_the_option_then_the_variable_then_the_user_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPO_BENCH_DATA", str(tmp_path / "named"))
    assert data_dir(tmp_path / "option") == tmp_path / "option"
    assert data_dir(None) == tmp_path / "named"
    monkeypatch.delenv("NAPO_BENCH_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_dir(None).name == "data"
    assert data_dir(None).parent.name == "napo-bench"


def test_a_file_arrives_whole_and_is_not_fetched_twice(site: Site, tmp_path: Path) -> None:
    site.pages["/relation.json"] = BODY
    seen: list[tuple[object, ...]] = []
    assert fetch(web_file(site, sha256(BODY)), tmp_path, progress=lambda *at: seen.append(at))
    assert (tmp_path / "amber/relation.json").read_bytes() == BODY
    assert seen[-1][1:] == (len(BODY), len(BODY))
    assert not list((tmp_path / ".partial").iterdir())
    asked = len(site.requests)
    assert not fetch(web_file(site, sha256(BODY)), tmp_path)
    assert len(site.requests) == asked


def test_a_broken_connection_goes_on_where_it_broke(site: Site, tmp_path: Path) -> None:
    site.pages["/relation.json"] = BODY
    site.break_after = 100_000
    fetch(web_file(site, sha256(BODY)), tmp_path)
    assert (tmp_path / "amber/relation.json").read_bytes() == BODY
    assert site.requests == [("/relation.json", None), ("/relation.json", "bytes=100000-")]


def test_an_interrupted_run_is_resumed_by_the_next(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/relation.json"] = BODY
    site.break_after = 100_000
    monkeypatch.setattr(fetching, "_ATTEMPTS", 1)
    with pytest.raises(NapoBenchError, match="cannot be fetched"):
        fetch(web_file(site), tmp_path)
    assert not (tmp_path / "amber/relation.json").exists()
    fetch(web_file(site), tmp_path)
    assert (tmp_path / "amber/relation.json").read_bytes() == BODY
    assert site.requests[-1] == ("/relation.json", "bytes=100000-")


def test_a_file_that_changed_since_the_interruption_starts_anew(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.pages["/relation.json"] = BODY
    site.break_after = 100_000
    monkeypatch.setattr(fetching, "_ATTEMPTS", 1)
    with pytest.raises(NapoBenchError):
        fetch(web_file(site), tmp_path)
    site.pages["/relation.json"], site.etag = BODY[::-1], '"two"'
    fetch(web_file(site), tmp_path)
    assert (tmp_path / "amber/relation.json").read_bytes() == BODY[::-1]


def test_a_server_without_ranges_starts_anew(site: Site, tmp_path: Path) -> None:
    site.pages["/relation.json"] = BODY
    site.ranges = False
    site.break_after = 100_000
    fetch(web_file(site, sha256(BODY)), tmp_path)
    assert (tmp_path / "amber/relation.json").read_bytes() == BODY


def test_redirects_are_followed(site: Site, tmp_path: Path) -> None:
    site.redirects["/relation.json"] = "/elsewhere"
    site.pages["/elsewhere"] = BODY
    fetch(web_file(site, sha256(BODY)), tmp_path)
    assert (tmp_path / "amber/relation.json").read_bytes() == BODY


def test_a_busy_server_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.pages["/relation.json"] = BODY
    site.statuses = [503, 429]
    assert fetch(web_file(site, sha256(BODY)), tmp_path)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda site: None, "the server answers 404 Not Found"),
        (lambda site: site.statuses.extend([500, 500, 500]), "the server answers 500"),
        (lambda site: site.pages.update({"/relation.json": b"other"}), "sent other bytes than expected"),
        (lambda site: site.types.update({"/relation.json": "text/html; charset=utf-8"}), "web page"),
    ],
    ids=["not found", "server error", "wrong checksum", "web page"],
)
def test_a_failed_download_names_the_url_and_leaves_nothing_in_place(site, tmp_path, prepare, message) -> None:
    if "404" not in message:
        site.pages["/relation.json"] = BODY
    prepare(site)
    with pytest.raises(NapoBenchError, match=message) as failure:
        fetch(web_file(site, sha256(BODY)), tmp_path)
    assert f"{site.url}/relation.json" in failure.value.message
    assert not (tmp_path / "amber/relation.json").exists()
    site.pages, site.types, site.statuses = {"/relation.json": BODY}, {}, []
    assert fetch(web_file(site, sha256(BODY)), tmp_path)


CONFIRMATION = b"""<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<form id="download-form" action="/download" method="get"><input type="submit" value="Download anyway"/>
<input type="hidden" name="id" value="1Ma"><input type="hidden" name="confirm" value="t&amp;u"></form></body></html>"""
QUOTA = b"""<html><head><title>Google Drive - Quota exceeded</title></head><body><p class="uc-error-subcaption">
Too many users have viewed or downloaded this file recently. Please try accessing the file again later.</p></body>"""
LOGIN = b"<!doctype html><html><head><title>Google Drive: Sign-in</title></head><body></body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4" * 64 + b"\nsize 512000\n"


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_the_confirmation_of_google_drive_is_given(site: Site, tmp_path: Path, kind: str) -> None:
    site.pages |= {"/drive": CONFIRMATION, "/download": zip_of({"AMBER_1.jpg": b"one"})}
    site.types["/drive"] = kind
    assert fetch(archive(site, 1), tmp_path)
    assert (tmp_path / "amber/images/AMBER_1.jpg").read_bytes() == b"one"
    assert site.queries == ["", "id=1Ma&confirm=t%26u"]


def test_a_confirmation_that_leads_to_a_confirmation_ends(site: Site, tmp_path: Path) -> None:
    site.pages |= {"/drive": CONFIRMATION, "/download": CONFIRMATION}
    with pytest.raises(NapoBenchError, match="the web page 'Google Drive - Virus scan warning' in place of the file"):
        fetch(archive(site, 1), tmp_path)
    assert len(site.requests) == 2


@pytest.mark.parametrize(
    ("page", "status", "message"),
    [
        (QUOTA, 200, "Quota exceeded' in place of the file: the download quota of the file is used up"),
        (QUOTA, 403, "the download quota of the file is used up"),
        (LOGIN, 200, "Sign-in' in place of the file: the server asks for a login, so the file is not public"),
        (b"\n<HTML><title>\x1b[31mwelcome</title>", 200, r"the web page '\[31mwelcome' in place of the file\."),
    ],
    ids=["quota", "quota, refused", "login", "another page"],
)
def test_a_page_in_place_of_the_archive_is_named_and_not_locked(site, tmp_path, page, status, message) -> None:
    site.pages["/drive"] = page
    if status != 200:
        site.refused["/drive"] = (status, {})
    with pytest.raises(NapoBenchError, match=message):
        fetch(archive(site, 1), tmp_path)
    assert not (tmp_path / LOCK_NAME).exists()
    site.pages["/drive"], site.refused = zip_of({"AMBER_1.jpg": b"one"}), {}
    assert fetch(archive(site, 1), tmp_path)


def test_a_git_lfs_pointer_is_never_taken_for_the_file(site: Site, tmp_path: Path) -> None:
    site.pages["/relation.json"] = POINTER
    with pytest.raises(NapoBenchError, match=r"relation\.json sent a Git LFS pointer in place of the file"):
        fetch(web_file(site), tmp_path)
    target = tmp_path / "amber/relation.json"
    target.parent.mkdir()
    target.write_bytes(POINTER)
    assert not web_file(site).is_there(tmp_path)
    with pytest.raises(NapoBenchError, match=r"relation\.json is a Git LFS pointer in place of the file"):
        fetch(web_file(site), tmp_path)
    site.pages["/drive"] = zip_of({"repository/AMBER_1.jpg": POINTER})
    with pytest.raises(NapoBenchError, match=r"Git LFS pointers in place of the files \(repository/AMBER_1\.jpg\)"):
        fetch(archive(site, 1), tmp_path)
    assert not (tmp_path / LOCK_NAME).exists()


def test_a_folder_cloned_without_git_lfs_is_fetched(site: Site, tmp_path: Path) -> None:
    picture = tmp_path / "amber/images/AMBER_1.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(POINTER)
    site.pages["/drive"] = zip_of({"AMBER_1.jpg": b"one"})
    assert fetch(archive(site, 1), tmp_path)
    assert picture.read_bytes() == b"one"


def test_no_network_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(NapoBenchError, match=r"http://127\.0\.0\.1:9/x cannot be fetched"):
        fetch(WebFile("amber/relation.json", "http://127.0.0.1:9/x"), tmp_path)


def test_a_full_disk_is_one_message(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    site.pages["/relation.json"] = BODY
    monkeypatch.setattr("napo_bench.data.fetch.is_web_page", full)
    with pytest.raises(NapoBenchError, match="cannot be written: the disk is full"):
        fetch(web_file(site), tmp_path)


def test_a_file_without_published_digest_is_locked_by_its_first_fetch(site: Site, tmp_path: Path) -> None:
    site.pages["/relation.json"] = BODY
    fetch(web_file(site), tmp_path)
    lock = json.loads((tmp_path / LOCK_NAME).read_text())
    assert lock["amber/relation.json"] == {"sha256": sha256(BODY), "url": f"{site.url}/relation.json"}
    (tmp_path / "amber/relation.json").unlink()
    site.pages["/relation.json"] = b"changed by its authors"
    with pytest.raises(NapoBenchError, match=f"sent other bytes than expected: .*, not {sha256(BODY)}"):
        fetch(web_file(site), tmp_path)


def test_a_file_put_there_by_hand_is_held_to_the_digest(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "amber/relation.json"
    target.parent.mkdir()
    target.write_bytes(b"something else")
    with pytest.raises(NapoBenchError, match="is not the published file") as failure:
        fetch(web_file(site, sha256(BODY)), tmp_path)
    assert str(target) in failure.value.message
    assert target.read_bytes() == b"something else"


def test_a_mirror_is_a_web_server_over_a_data_dir(site: Site, tmp_path: Path) -> None:
    site.pages["/mirror/amber/relation.json"] = BODY
    source = WebFile("amber/relation.json", "http://127.0.0.1:9/unreachable", sha256(BODY))
    assert fetch(source, tmp_path, base_url=f"{site.url}/mirror/")


def test_a_prompt_is_taken_out_of_a_python_file_without_running_it(site: Site, tmp_path: Path) -> None:
    program = "raise SystemExit('run')\nother = 'no'\ntemplate = '''Rate {}\\n\"as\" {}\n'''\n"
    site.pages["/judge.py"] = program.encode()
    text = 'Rate {}\n"as" {}\n'
    source = WebFile("mmhal/judge_template.txt", f"{site.url}/judge.py", sha256(text.encode()), constant="template")
    assert fetch(source, tmp_path)
    assert (tmp_path / "mmhal/judge_template.txt").read_text() == text
    absent = WebFile("mmhal/absent.txt", f"{site.url}/judge.py", constant="absent")
    with pytest.raises(NapoBenchError, match="has no string 'absent'"):
        fetch(absent, tmp_path)


def archive(site: Site, count: int, md5: str = "") -> WebArchive:
    return WebArchive("amber/images", f"{site.url}/drive", "images.zip", r"AMBER_\d+\.jpg", count, "page", md5)


def test_an_archive_is_unpacked_and_forgotten(site: Site, tmp_path: Path) -> None:
    members = {f"image/AMBER_{number}.jpg": bytes([number]) for number in (1, 2, 3)}
    packed = zip_of({**members, "image/notes.txt": b"", "__MACOSX/image/AMBER_4.jpg": b""})
    site.pages["/drive"] = packed
    source = archive(site, 3, hashlib.md5(packed).hexdigest())
    assert fetch(source, tmp_path)
    assert {path.name for path in (tmp_path / "amber/images").iterdir()} == {f"AMBER_{n}.jpg" for n in (1, 2, 3)}
    assert (tmp_path / "amber/images/AMBER_2.jpg").read_bytes() == b"\x02"
    assert not list((tmp_path / ".partial").iterdir())
    assert not fetch(source, tmp_path)


def test_no_member_of_an_archive_leaves_its_folder(site: Site, tmp_path: Path) -> None:
    root = tmp_path / "deep" / "data"
    names = ["../../../AMBER_1.jpg", str(tmp_path / "AMBER_2.jpg"), "..\\..\\AMBER_3.jpg"]
    site.pages["/drive"] = zip_of({name: b"x" for name in names})
    fetch(archive(site, 3), root)
    written = [path for path in tmp_path.rglob("AMBER_*")]
    assert len(written) == 3
    assert all(path.parent == root / "amber/images" for path in written)


@pytest.mark.parametrize(
    ("content", "md5", "message"),
    [
        (
            zip_of({"AMBER_1.jpg": b"x", "a/1.jpg": b"y"}),
            "",
            r"has 1 files AMBER_.*; 3 are expected\. .* has a/1\.jpg\.",
        ),
        (zip_of({f"{n}/AMBER_1.jpg": b"x" for n in "abc"}), "", r"has 1 files AMBER_.*; 3 are expected"),
        (zip_of({f"{n}/AMBER_1.jpg": n.encode() for n in "ab"}), "", "two different files AMBER_1.jpg: a/.* and b/"),
        (b"no zip at all", "", "is no sound zip archive"),
        (zip_of({"AMBER_1.jpg": b"x" * 900})[:-40], "", "is no sound zip archive"),
        (zip_of({"AMBER_1.jpg": b"x"}), "0" * 32, "sent other bytes than expected: MD5"),
    ],
    ids=["incomplete", "one file thrice", "two files of one name", "no zip", "truncated", "wrong md5"],
)
def test_a_bad_archive_is_refused(site, tmp_path, content, md5, message) -> None:
    site.pages["/drive"] = content
    with pytest.raises(NapoBenchError, match=message):
        fetch(archive(site, 3, md5), tmp_path)


def data_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("napo-bench"), "data", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment},
        check=False,
    )


VLIND = {
    "concept": "colour",
    "context_id": 1,
    "context": "A blue bear",
    "factual_context": "A bear",
    "true_statement": "The bear is blue.",
    "false_statement": "The bear is brown.",
    "existent_noun": "bear",
    "non-existent_noun": "cat",
    "best_img_id": "3",
    "aggregated_human_label_good_images": {"3": 3, "7": 2, "9": 1},
}
VLIND_FILES = {
    "VLind-Bench Dataset/data.json": json.dumps([VLIND]).encode(),
    "VLind-Bench Dataset/images/factual/colour/1_A bear/0.jpg": b"f",
    "VLind-Bench Dataset/images/counterfactual/colour/1_A blue bear/3.jpg": b"c",
    "VLind-Bench Dataset/images/counterfactual/colour/1_A blue bear/7.jpg": b"d",
    "README.md": b"read me",
}


def test_vlind_comes_from_the_hub_at_one_commit(site: Site, tmp_path: Path) -> None:
    site.pages = hub_pages("klee972/VLind-Bench", "main", VLIND_FILES)
    root = tmp_path / "data"
    done = data_command("fetch", "vlind", "--data-dir", str(root), HF_ENDPOINT=site.url, HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 0, done.stderr
    assert (root / "vlind/images/counterfactual/colour/1_A blue bear/3.jpg").read_bytes() == b"c"
    assert json.loads((root / "vlind/data.json").read_bytes()) == [VLIND]
    assert not (root / "vlind/README.md").exists()
    assert json.loads((root / LOCK_NAME).read_text())["vlind"]["revision"] == "c" * 40
    asked = len(site.requests)
    again = data_command("fetch", "vlind", "--data-dir", str(root), HF_ENDPOINT=site.url)
    assert again.returncode == 0
    assert "have    vlind (CC-BY-SA-4.0)" in again.stderr
    assert len(site.requests) == asked


def test_a_hub_folder_that_had_arrived_is_moved_into_place_without_the_network(tmp_path: Path) -> None:
    staging = tmp_path / ".partial/klee972--VLind-Bench"
    for name, content in VLIND_FILES.items():
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).write_bytes(content)
    (staging / "complete").write_text("c" * 40)
    assert fetch(benchmark_named("vlind").sources[0], tmp_path)
    assert json.loads((tmp_path / "vlind/data.json").read_text()) == [VLIND]
    assert not staging.exists()


SEVENTH = "VLind-Bench Dataset/images/counterfactual/colour/1_A blue bear/7.jpg"


def test_every_image_that_data_json_names_is_counted(hub: Site, tmp_path: Path) -> None:
    vlind = benchmark_named("vlind").sources[0]
    there = {name: content for name, content in VLIND_FILES.items() if name != SEVENTH}
    hub.pages = hub_pages("klee972/VLind-Bench", "main", there)
    with pytest.raises(NapoBenchError, match=r"is not complete: .*names 1 files that are not there: vlind/.*/7\.jpg"):
        fetch(vlind, tmp_path)
    assert not vlind.is_there(tmp_path)
    assert "1 files that its index names are missing" in vlind.by_hand(tmp_path)
    hub.pages = hub_pages("klee972/VLind-Bench", "main", VLIND_FILES, "d" * 40)
    assert fetch(vlind, tmp_path)
    assert vlind.is_there(tmp_path)


def test_a_login_that_the_hub_asks_for_is_named(hub: Site, tmp_path: Path) -> None:
    hub.pages = hub_pages("klee972/VLind-Bench", "main", VLIND_FILES)
    for path in hub.pages:
        if "/resolve/" in path:
            hub.refused[path] = (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
    with pytest.raises(NapoBenchError, match="its authors ask for a login") as error:
        fetch(benchmark_named("vlind").sources[0], tmp_path)
    assert "Accept the conditions at https://huggingface.co/datasets/klee972/VLind-Bench" in error.value.hint
    assert "hf auth login" in error.value.hint


def test_a_mirror_of_the_hub_without_its_large_files_is_named(hub: Site, tmp_path: Path) -> None:
    vlind = benchmark_named("vlind").sources[0]
    hub.pages = hub_pages("klee972/VLind-Bench", "main", {**VLIND_FILES, SEVENTH: POINTER})
    with pytest.raises(NapoBenchError, match=r"sent Git LFS pointers in place of 1 of 4 files: .*/7\.jpg"):
        fetch(vlind, tmp_path)
    hub.pages = hub_pages("klee972/VLind-Bench", "main", VLIND_FILES)
    assert fetch(vlind, tmp_path)


def packed(cells: list[dict[str, object]]) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pa.table({"question": ["?"] * len(cells), "image": cells}), stream)
    return stream.getvalue()


def test_images_inside_parquet_are_unpacked(hub: Site, tmp_path: Path) -> None:
    source = HubFolder("mmhal/images", "some/images", "main", "images", (("*.jpg", 2),))
    cells = [{"bytes": name.encode(), "path": f"folder/{name}"} for name in ("1.jpg", "2.jpg", "notes.txt")]
    hub.pages = hub_pages("some/images", "main", {"data/test-0.parquet": packed(cells), "README.md": b""})
    assert fetch(source, tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "mmhal/images").iterdir()} == {
        "1.jpg": b"1.jpg",
        "2.jpg": b"2.jpg",
    }
    few = HubFolder("few/images", "some/images", "main", "images", (("*.jpg", 3),))
    with pytest.raises(NapoBenchError, match=r"is not complete: 2 files arrived; 3 \*\.jpg are expected"):
        fetch(few, tmp_path)


def test_parquet_without_image_ids_is_no_vlind_and_is_fetched_anew(tmp_path: Path) -> None:
    (tmp_path / "vlind").mkdir()
    (tmp_path / "vlind/train-0.parquet").write_bytes(packed([{"bytes": b"x", "path": "x.jpg"}]))
    assert not benchmark_named("vlind").sources[0].is_there(tmp_path)


def test_a_hub_without_the_data_set_is_one_message(site: Site, tmp_path: Path) -> None:
    done = data_command("fetch", "vlind", "--data-dir", str(tmp_path / "data"), HF_ENDPOINT=site.url)
    assert done.returncode == 2
    assert "https://huggingface.co/datasets/klee972/VLind-Bench cannot be fetched: " in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_the_command_fetches_what_it_can_and_names_what_it_cannot(site: Site, tmp_path: Path, shared) -> None:
    reference = shared("reference/amber")
    for name in ("annotations.json", "relation.json", "safe_words.txt"):
        site.pages[f"/amber/{name}"] = (reference / name).read_bytes()
    site.pages["/amber/query_generative.json"] = b"[]"
    root = tmp_path / "data"
    done = data_command("fetch", "amber", "--data-dir", str(root), "--base-url", site.url)
    assert done.returncode == 2
    assert {path.name for path in (root / "amber").iterdir()} == {"annotations.json", "relation.json", "safe_words.txt"}
    assert "3 could not be fetched: amber/query_generative.json, amber/query_discriminative.json, amber/images" in (
        " ".join(done.stderr.replace("│", " ").split())
    )
    assert "napo-bench data show amber" in done.stderr
    assert "Traceback" not in done.stderr
    shown = data_command("show", "amber", "--data-dir", str(root))
    assert shown.returncode == 0
    assert "1MaCHgtupcZUjf007anNl4_MV0o4DjXvl" in shown.stdout
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["amber/annotations.json", "there"] in lines
    assert ["amber/query_generative.json", "missing"] in lines
    assert f"napo-bench data fetch amber --data-dir {root}".split() in lines
    assert ["licence:", "Apache-2.0"] in lines
    text = "\n".join(" ".join(line) for line in lines)
    assert re.search(r"^spaCy en_core_web_lg \(AMBER\) (there|missing)$", text, re.M)
    assert re.search(r"^spaCy en_core_web_trf \(Object HalBench with an LLM extractor\) (there|missing)$", text, re.M)


def test_the_micro_world_never_overwrites_official_data(tmp_path: Path) -> None:
    official = tmp_path / "amber" / "relation.json"
    official.parent.mkdir()
    official.write_bytes(BODY)
    done = data_command("micro", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "holds benchmark data that is not of the micro world" in " ".join(done.stderr.split())
    assert official.read_bytes() == BODY


def test_official_data_is_not_fetched_into_the_micro_world(tmp_path: Path) -> None:
    (tmp_path / "micro.json").write_text("{}")
    done = data_command("fetch", "amber", "--data-dir", str(tmp_path))
    assert done.returncode == 2
    assert "is the micro world" in done.stderr
    shown = data_command("show", "--data-dir", str(tmp_path))
    assert "the micro world, all four benchmarks" in shown.stdout
    assert "data fetch" not in shown.stdout


def test_an_unknown_benchmark_is_named(tmp_path: Path) -> None:
    done = data_command("fetch", "coco", "--data-dir", str(tmp_path))
    assert done.returncode == 2
    assert (
        "There is no benchmark 'coco'." in done.stderr and "Choose one of vlind, object_halbench, amber" in done.stderr
    )
    assert "Did you mean" not in done.stderr


@pytest.mark.parametrize(("typed", "meant"), [("ambr", "amber"), ("Object_Halbench", "object_halbench")])
def test_a_mistyped_benchmark_gets_the_nearest_name(typed: str, meant: str) -> None:
    with pytest.raises(NapoBenchError) as caught:
        benchmark_named(typed)
    assert caught.value.hint.startswith(f"Did you mean {meant}?")


@pytest.mark.parametrize("name", ["object_halbench", "object-halbench"])
def test_a_benchmark_may_be_written_with_a_hyphen(name: str) -> None:
    assert benchmark_named(name).name == "object_halbench"


@pytest.mark.parametrize(
    ("target", "published"),
    [
        ("amber/annotations.json", "amber/annotations.json"),
        ("amber/relation.json", "amber/relation.json"),
        ("amber/safe_words.txt", "amber/safe_words.txt"),
        ("amber/query_generative.json", "amber/query_generative.json"),
        ("amber/query_discriminative.json", "amber/query_discriminative.json"),
        ("object_halbench/synonyms_refine.txt", "object_halbench/synonyms_refine.txt"),
        ("object_halbench/extractor_template.txt", "object_halbench/extractor_template.txt"),
        ("mmhal/template.json", "mmhal/mmhal-bench_answer_template.json"),
        ("mmhal/judge_template.txt", "mmhal/judge_template.txt"),
    ],
)
def test_the_pinned_digests_are_those_of_the_official_files(target: str, published: str, shared) -> None:
    official = shared(f"reference/{published}")
    pinned = {source.target: source for benchmark in all_benchmarks().values() for source in benchmark.sources}[target]
    assert isinstance(pinned, WebFile)
    assert pinned.sha256 == sha256(official.read_bytes())


def test_every_source_but_vlind_is_pinned_to_a_commit_or_a_digest() -> None:
    loose = [
        source.target
        for benchmark in all_benchmarks().values()
        for source in benchmark.sources
        if not (
            getattr(source, "sha256", "") or getattr(source, "md5", "") or len(getattr(source, "revision", "")) == 40
        )
    ]
    assert loose == ["vlind", "amber/images"]


def test_a_mirrors_query_is_sent_and_no_secret_of_its_url_is_shown_or_stored(site: Site, tmp_path: Path) -> None:
    secret = "pa55w0rd"
    mirror = site.url.replace("://", f"://user:{secret}@") + f"?token={secret}"
    source = WebFile("amber/a.json", "https://nowhere.invalid/a.json")
    with pytest.raises(NapoBenchError, match="cannot be fetched") as caught:
        fetch(source, tmp_path, base_url=mirror)
    assert secret not in str(caught.value)
    site.pages["/amber/a.json"] = b"{}"
    assert fetch(source, tmp_path, base_url=mirror)
    assert site.queries[-1] == f"token={secret}" and site.requests[-1][0] == "/amber/a.json"
    assert secret not in (tmp_path / "sources.lock.json").read_text()
    for odd in (f"http://user:{secret}@host:port", f"user:{secret}@host"):
        with pytest.raises(NapoBenchError, match="The URL of the mirror") as caught:
            fetch(source, tmp_path / "other", base_url=odd)
        assert secret not in str(caught.value)


def test_a_link_in_place_of_a_download_is_not_written_through(site: Site, tmp_path: Path) -> None:
    site.pages["/relation.json"] = BODY
    (tmp_path / "private").write_text("mine")
    (tmp_path / "data/.partial").mkdir(parents=True)
    (tmp_path / "data/.partial/amber--relation.json").symlink_to(tmp_path / "private")
    with pytest.raises(NapoBenchError, match="is a link"):
        fetch(web_file(site), tmp_path / "data")
    assert (tmp_path / "private").read_text() == "mine"


@pytest.mark.parametrize(
    ("kind", "place"), [("file", ".partial"), ("archive", ".partial"), ("archive", "amber/images")]
)
def test_no_folder_of_a_fetch_is_a_link(site: Site, tmp_path: Path, kind: str, place: str) -> None:
    site.pages["/relation.json"], site.pages["/a.zip"] = BODY, zip_of({"a.jpg": b"a"})
    archive = WebArchive("amber/images", f"{site.url}/a.zip", "a.zip", r".*\.jpg", 1, page="x")
    source = archive if kind == "archive" else web_file(site)
    for name in ("private", "disk", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "data/amber").symlink_to(tmp_path / "disk")  # the user's own link
    (tmp_path / "data" / place).symlink_to(tmp_path / "private")
    with pytest.raises(NapoBenchError, match=f"{place} is a link"):
        fetch(source, tmp_path / "data")
    assert not list((tmp_path / "private").iterdir())
    (tmp_path / "data" / place).unlink()
    assert fetch(source, tmp_path / "data")
    assert list((tmp_path / "disk").iterdir())


def test_a_download_without_end_ends(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPO_BENCH_MAX_DOWNLOAD_BYTES", "100_000")
    site.pages["/relation.json"] = bytes(200_000)
    with pytest.raises(NapoBenchError, match="more than 100,000 bytes"):
        fetch(web_file(site), tmp_path)


def test_an_odd_etag_is_not_sent_back(site: Site, tmp_path: Path) -> None:
    site.etag, site.break_after, site.pages["/relation.json"] = '"\xe9"', 2, BODY
    assert fetch(web_file(site), tmp_path)


@pytest.mark.parametrize(("count", "size"), [(1, 50_000_000), (5000, 1)])
def test_an_archive_that_writes_more_than_it_may_writes_nothing(
    site: Site, tmp_path: Path, count: int, size: int
) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(count):
            archive.writestr(f"{number}.jpg", bytes(size))
    site.pages["/x.zip"] = stream.getvalue()
    source = WebArchive("amber/images", f"{site.url}/x.zip", "x.zip", r"\d+\.jpg", 1, page="x")
    with pytest.raises(NapoBenchError, match="would write"):
        fetch(source, tmp_path)
    assert not (tmp_path / "amber/images").exists()

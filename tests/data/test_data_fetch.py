"""Fetching benchmark data over real HTTP, from a local server that breaks off, redirects, and sends rubbish."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from napo_bench.benchmarks import all_benchmarks, benchmark_named
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.paths import data_dir
from napo_bench.data import fetch as fetching
from napo_bench.data.fetch import LOCK_NAME, fetch
from napo_bench.data.sources import WebArchive, WebFile

BODY = bytes(range(256)) * 2000


class Site(ThreadingHTTPServer):
    """Serves `pages`; each other attribute is a way to misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.types: dict[str, str] = {}
        self.break_after: int | None = None
        self.ranges = True
        self.statuses: list[int] = []
        self.etag = '"one"'
        self.requests: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def _answer(self, send_body: bool) -> None:
        site = self.server
        path = self.path.partition("?")[0]
        site.requests.append((path, self.headers.get("Range")))
        if path in site.redirects:
            self.send_response(302)
            self.send_header("Location", site.redirects[path])
            self.end_headers()
            return
        status = site.statuses.pop(0) if site.statuses else 200 if path in site.pages else 404
        if status != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body, start = site.pages[path], 0
        wanted = self.headers.get("Range")
        if wanted and site.ranges and self.headers.get("If-Range") == site.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("ETag", site.etag)
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("Content-Type", site.types.get(path, "application/octet-stream"))
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if not send_body:
            return
        if site.break_after is not None:
            body, site.break_after = body[: start + site.break_after], None
            self.wfile.write(body[start:])
            self.close_connection = True
            return
        self.wfile.write(body[start:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_PAUSE_SECONDS", 0.0)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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


def test_no_network_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(NapoBenchError, match=r"http://127\.0\.0\.1:9/x cannot be fetched"):
        fetch(WebFile("amber/relation.json", "http://127.0.0.1:9/x"), tmp_path)


def test_a_full_disk_is_one_message(site: Site, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full to stand for a full disk")
    site.pages["/relation.json"] = BODY
    part = tmp_path / ".partial" / "amber--relation.json"
    part.parent.mkdir()
    part.symlink_to("/dev/full")
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
        (zip_of({"AMBER_1.jpg": b"x"}), "", r"has 1 files AMBER_.*; 3 are expected"),
        (b"no zip at all", "", "is no sound zip archive"),
        (zip_of({"AMBER_1.jpg": b"x" * 900})[:-40], "", "is no sound zip archive"),
        (zip_of({"AMBER_1.jpg": b"x"}), "0" * 32, "sent other bytes than expected: MD5"),
    ],
    ids=["incomplete", "no zip", "truncated", "wrong md5"],
)
def test_a_bad_archive_is_refused(site, tmp_path, content, md5, message) -> None:
    site.pages["/drive"] = content
    with pytest.raises(NapoBenchError, match=message):
        fetch(archive(site, 3, md5), tmp_path)


def hub_pages(repo: str, revision: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """What the Hugging Face library asks a hub for, as far as a data set's files go."""
    siblings = [{"rfilename": name} for name in files]
    info = json.dumps({"id": repo, "sha": "c" * 40, "siblings": siblings, "tags": []}).encode()
    tree = [{"type": "file", "path": name, "size": len(body), "oid": sha256(body)} for name, body in files.items()]
    pages = {f"/api/datasets/{repo}/revision/{at}": info for at in (revision, "c" * 40)}
    pages |= {f"/api/datasets/{repo}/tree/{'c' * 40}": json.dumps(tree).encode()}
    pages |= {f"/datasets/{repo}/resolve/{'c' * 40}/{name.replace(' ', '%20')}": body for name, body in files.items()}
    return pages


def data_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("napo-bench"), "data", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment},
        check=False,
    )


def test_vlind_comes_from_the_hub_at_one_commit(site: Site, tmp_path: Path) -> None:
    files = {
        "VLind-Bench Dataset/data.json": b"[]",
        "VLind-Bench Dataset/images/factual/colour/1_A bear/0.jpg": b"f",
        "VLind-Bench Dataset/images/counterfactual/colour/1_A blue bear/3.jpg": b"c",
        "README.md": b"read me",
    }
    site.pages = hub_pages("klee972/VLind-Bench", "main", files)
    root = tmp_path / "data"
    done = data_command("fetch", "vlind", "--data-dir", str(root), HF_ENDPOINT=site.url, HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 0, done.stderr
    assert (root / "vlind/images/counterfactual/colour/1_A blue bear/3.jpg").read_bytes() == b"c"
    assert (root / "vlind/data.json").read_bytes() == b"[]"
    assert not (root / "vlind/README.md").exists()
    assert json.loads((root / LOCK_NAME).read_text())["vlind"]["revision"] == "c" * 40
    asked = len(site.requests)
    again = data_command("fetch", "vlind", "--data-dir", str(root), HF_ENDPOINT=site.url)
    assert again.returncode == 0
    assert "have" in again.stderr
    assert len(site.requests) == asked


def test_a_hub_folder_that_had_arrived_is_moved_into_place_without_the_network(tmp_path: Path) -> None:
    staging = tmp_path / ".partial/klee972--VLind-Bench"
    (staging / "VLind-Bench Dataset/images").mkdir(parents=True)
    (staging / "VLind-Bench Dataset/data.json").write_text("[]")
    (staging / "complete").write_text("c" * 40)
    assert fetch(benchmark_named("vlind").sources[0], tmp_path)
    assert (tmp_path / "vlind/data.json").read_text() == "[]"
    assert not staging.exists()


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

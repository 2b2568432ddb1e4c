"""Fetch benchmark data: resumable, checked, never incomplete.

A download is kept in the folder `.partial` of the data folder. The download is moved into the data folder only if its
bytes are the expected ones: they must match the digest of the source, or else the digest that the first fetch wrote to
the lock file.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import re
import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

import httpx

from napo_bench.core import disk, files, hub, links, urls
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.limits import DOWNLOAD_BYTES, DOWNLOAD_SECONDS, at_most
from napo_bench.core.progress import SILENT, Progress
from napo_bench.data.sources import HubFolder, Source, WebArchive, WebFile
from napo_bench.data.web_page import LARGEST, WebPage, is_web_page

LOCK_NAME = "sources.lock.json"
_PARTIAL = ".partial"
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.5
_TIMEOUT_SECONDS = 30.0
_RETRIED_STATUS = {408, 429, 500, 502, 503, 504}
_SHOWN = 3
_LARGEST_RATIO, _SMALL = 20, 1 << 20
"""Unpacked bytes for each packed byte, and bytes that any archive may unpack to. Images do not pack."""


def fetch(source: Source, root: Path, *, base_url: str | None = None, progress: Progress = SILENT) -> bool:
    """Fetch one source into the data folder.

    Args:
        source: Source to fetch.
        root: The data folder.
        base_url: A mirror: a web server that serves a data folder with packed archives. Folders of the hub follow
            HF_ENDPOINT instead.
        progress: Told, while bytes arrive, how many are here, and how many the server announced.

    Returns:
        Whether a file was fetched; False if all files were there, unchanged.

    Raises:
        NapoBenchError: `base_url` is no URL, no network, not found, not the expected bytes, disk full. Received bytes
            are kept, so the same call continues the download.
    """
    if base_url is not None:
        urls.require(base_url, "the mirror", query=True)
    try:
        if isinstance(source, WebFile):
            return _fetch_file(source, root, base_url, progress)
        if isinstance(source, WebArchive):
            return _fetch_archive(source, root, base_url, progress)
        return _fetch_hub_folder(source, root)
    except OSError as error:
        why = disk.reason(error) or error.strerror or str(error)
        hint = "Free space or choose another --data-dir, then run the same command again."
        raise disk.unwritable(root / source.target, why, hint) from None


def _fetch_file(source: WebFile, root: Path, base_url: str | None, progress: Progress) -> bool:
    target = root / source.target
    lock = _read_lock(root)
    expected = source.sha256 or lock.get(source.target, {}).get("sha256", "")
    if target.is_file():
        files.refuse_lfs_pointer(target, "Move it away, then run the same command again.")
        actual = files.sha256_file(target)
        if expected and actual != expected:
            raise NapoBenchError(
                f"{target} is not the published file: its SHA-256 is {actual}, {expected} is expected.",
                "Move it away, then run the same command again.",
            )
        _lock(root, source.target, sha256=actual)
        return False
    _refuse_links(root, target.parent)
    url = urls.join(base_url, source.target) if base_url else source.url
    shown = urls.public(url) if base_url else url
    part = _partial(root, source.target)
    _download(url, shown, part, progress)
    if source.constant and not base_url:
        files.write_text(part, _string_constant(part, source.constant, url))
    actual = files.sha256_file(part)
    if expected and actual != expected:
        part.unlink()
        raise _wrong_bytes(shown, f"SHA-256 {actual}", expected)
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)
    _lock(root, source.target, sha256=actual, url=shown)
    return True


def _fetch_archive(source: WebArchive, root: Path, base_url: str | None, progress: Progress) -> bool:
    if source.is_there(root):
        return False
    folder = root / source.target
    _refuse_links(root, folder)
    entry = f"{PurePosixPath(source.target).parent}/{source.name}"
    url = urls.join(base_url, entry) if base_url else source.url
    shown = urls.public(url) if base_url else url
    part = _partial(root, entry)
    _download(url, shown, part, progress)
    sha256 = files.sha256_file(part)
    locked = _read_lock(root).get(entry, {}).get("sha256", "")
    if source.md5 and (md5 := _md5_file(part)) != source.md5:
        part.unlink()
        raise _wrong_bytes(shown, f"MD5 {md5}", source.md5)
    if locked and sha256 != locked:
        part.unlink()
        raise _wrong_bytes(shown, f"SHA-256 {sha256}", locked)
    try:
        _extract(part, source, folder, shown)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        part.unlink()
        raise NapoBenchError(f"What {shown} sent is no sound zip archive: {error}.") from None
    _lock(root, entry, sha256=sha256, url=shown)
    part.unlink()
    return True


def _extract(archive: Path, source: WebArchive, folder: Path, url: str) -> None:
    """Write the members with a matching file name into `folder`, by the file name alone, so that the folders of the
    archive do not matter, and no path leads out of `folder`.

    Raises:
        NapoBenchError: the archive has too few of these files, two different files of the same name, or Git LFS
            pointers.
    """
    wanted: dict[str, zipfile.ZipInfo] = {}
    others: list[str] = []
    with zipfile.ZipFile(archive) as unopened:
        for member in unopened.infolist():
            name = PurePosixPath(member.filename.replace("\\", "/")).name
            if member.is_dir() or "__MACOSX" in member.filename:
                continue
            if not re.fullmatch(source.members, name):
                others.append(member.filename)
                continue
            twin = wanted.setdefault(name, member)
            if (twin.CRC, twin.file_size) != (member.CRC, member.file_size):
                raise NapoBenchError(
                    f"The archive behind {url} has two different files {name}: {twin.filename} and {member.filename}.",
                    f"Put the right one into {folder} by hand, with all other files {source.members}.",
                )
        size, packed_size = sum(member.file_size for member in wanted.values()), archive.stat().st_size
        if len(wanted) > 2 * source.count or size > _SMALL + _LARGEST_RATIO * packed_size:
            raise NapoBenchError(
                f"The archive behind {url} has {packed_size:,} bytes, and would write {len(wanted):,} files of "
                f"{size:,} bytes; {source.count:,} images are expected.",
                f"If these are the files, put them into {folder} by hand.",
            )
        if len(wanted) < source.count:
            besides = f" Besides, it has {_some(others)}." if others else ""
            raise NapoBenchError(
                f"The archive behind {url} has {len(wanted):,} files {source.members}; {source.count:,} are expected."
                f"{besides}",
                f"If these are the files under other names, put them into {folder} by hand.",
            )
        for name, member in wanted.items():
            with unopened.open(member) as packed:
                start = packed.read(1 << 10)
                if files.is_lfs_pointer(start):
                    raise NapoBenchError(
                        f"The archive behind {url} has Git LFS pointers in place of the files ({member.filename}).",
                        f"Get the files from their source, and put them into {folder}.",
                    )
                with files.atomic_path(folder / name) as temporary, temporary.open("wb") as stream:
                    stream.write(start)
                    shutil.copyfileobj(packed, stream, 1 << 20)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _fetch_hub_folder(source: HubFolder, root: Path) -> bool:
    if source.is_there(root):
        return False
    _refuse_links(root, root / source.target)
    staging, target = root / _PARTIAL / source.repo.replace("/", "--"), root / source.target
    commit_file = staging / "complete"
    where = f"https://huggingface.co/datasets/{source.repo}"
    if not commit_file.is_file():
        revision = _read_lock(root).get(source.target, {}).get("revision", source.revision)
        commit_file.write_text(_stage(source, revision, staging, where), encoding="utf-8")
    arrived = sorted(path for path in (staging / source.path).rglob("*") if path.is_file())
    moved = _move(arrived, staging / source.path, target)
    for path in [] if arrived else sorted(staging.rglob("*.parquet")):
        moved += _unpack(path, [pattern for pattern, _ in source.contents], target)
    commit = commit_file.read_text(encoding="utf-8")
    shutil.rmtree(staging)
    if not source.is_there(root):
        lacks = [str(path.relative_to(root)) for path in source.lacks(root)]
        named = f" Its index names {len(lacks):,} files that are not there: {_some(lacks)}." if lacks else ""
        wanted = ", ".join(f"{count:,} {pattern}" for pattern, count in source.contents)
        raise NapoBenchError(
            f"{where} at commit {commit} is not complete: {moved:,} files arrived; {wanted} are expected.{named}"
        )
    _lock(root, source.target, url=where, revision=commit, files=moved)
    return True


def _stage(source: HubFolder, revision: str, staging: Path, where: str) -> str:
    """Download the folder, or the parquet files of a data set without the folder, into `staging`. Returns the commit.

    Raises:
        NapoBenchError: the hub asks for a login, cannot be reached, has no such files, or sends Git LFS pointers.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError
    from huggingface_hub.errors import HTTPError as AnyHTTPError  # type: ignore[attr-defined]  # its library's own

    try:
        info = HfApi().dataset_info(source.repo, revision=revision)
        everything = [entry.rfilename for entry in info.siblings or []]
        pattern = f"{source.path}/*"
        names = [name for name in everything if name.startswith(f"{source.path}/")]
        if not names:
            pattern, names = "*.parquet", [name for name in everything if name.endswith(".parquet")]
        if not names:
            raise NapoBenchError(
                f"{where} has neither the folder {source.path!r} nor a parquet file; it has {_some(everything)}."
            )
        snapshot_download(
            source.repo, repo_type="dataset", revision=info.sha, local_dir=staging, allow_patterns=[pattern]
        )
    except (AnyHTTPError, EntryNotFoundError, HFValidationError, ConnectionError) as error:
        raise hub.not_fetched(where, error) from None
    if lost := [name for name in names if not (staging / name).is_file()]:
        raise NapoBenchError(f"{where}: {len(lost)} of {len(names)} files did not arrive: {_some(lost)}.")
    if pointers := [name for name in names if not files.is_whole(staging / name)]:
        for name in pointers:
            (staging / name).unlink()
        raise NapoBenchError(
            f"{where} sent Git LFS pointers in place of {len(pointers)} of {len(names)} files: {_some(pointers)}.",
            "A mirror of the hub may lack its large files: unset HF_ENDPOINT, or name another mirror.",
        )
    return str(info.sha)


def _move(paths: Sequence[Path], origin: Path, folder: Path) -> int:
    """Move files from `origin` to `folder`, with their folders. Returns their number."""
    for path in paths:
        target = folder / path.relative_to(origin)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    return len(paths)


def _unpack(path: Path, patterns: Sequence[str], folder: Path) -> int:
    """Write the images that a parquet file contains ({bytes, path}) into `folder`, by their file names. Returns their
    number.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    written = 0
    try:
        with ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=16):
                for cell in itertools.chain.from_iterable(column.to_pylist() for column in batch.columns):
                    name = PurePosixPath(str(cell.get("path") or "")).name if isinstance(cell, dict) else ""
                    content = cell.get("bytes") if name else None
                    if isinstance(content, bytes) and any(fnmatch(name, pattern) for pattern in patterns):
                        with files.atomic_path(folder / name) as temporary:
                            temporary.write_bytes(content)
                        written += 1
    except ArrowException as error:
        raise NapoBenchError(f"{path} is no readable parquet file: {str(error).rstrip('.')}.") from None
    return written


def _download(url: str, shown: str, part: Path, progress: Progress) -> None:
    """Download `url` into `part`. An interrupted download is continued if the server supports it.

    Messages name the address as `shown`.

    Received bytes are used only with their validator (ETag or date): a file that has changed is fetched from its
    beginning.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    reason = ""
    with httpx.Client(follow_redirects=True, timeout=_TIMEOUT_SECONDS) as client:
        for attempt in range(_ATTEMPTS):
            time.sleep(attempt * _PAUSE_SECONDS)
            try:
                with at_most(f"The answer of {shown}", DOWNLOAD_SECONDS):
                    _stream(client, url, shown, part, progress)
                _validator_path(part).unlink(missing_ok=True)
                return
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                reason = f"the server answers {status} {error.response.reason_phrase}"
                if status not in _RETRIED_STATUS:
                    break
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
            except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
                reason = str(error)
                break
    raise NapoBenchError(f"{shown} cannot be fetched: {urls.without_secrets(reason, urls.secrets_of(url))}.")


def _stream(
    client: httpx.Client, url: str, shown: str, part: Path, progress: Progress, confirmed: bool = False
) -> None:
    validator_path = _validator_path(part)
    headers = {"Accept-Encoding": "identity"}
    here = part.stat().st_size if part.is_file() and validator_path.is_file() else 0
    if here:
        headers |= {"Range": f"bytes={here}-", "If-Range": validator_path.read_text(encoding="utf-8")}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and here:
            part.unlink()
            return _stream(client, url, shown, part, progress, confirmed)
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            here = 0
        blocks = response.iter_bytes()
        start = next(blocks, b"")
        if is_web_page(response.headers.get("Content-Type", ""), b"" if here else start):
            page = WebPage.of(_beginning(start, blocks))
            if not page.is_quota:
                response.raise_for_status()
                if not confirmed and (onward := page.confirmed(str(response.url))):
                    return _stream(client, onward, shown, part, progress, confirmed=True)
            raise page.error(shown)
        response.raise_for_status()
        if not here and files.is_lfs_pointer(start):
            raise NapoBenchError(
                f"{shown} sent a Git LFS pointer in place of the file.",
                "Get the file from its source: clone the repository and run `git lfs pull` there.",
            )
        etag = response.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
        if validator.isascii() and validator.isprintable() and validator:
            validator_path.write_text(validator, encoding="utf-8")
        length = response.headers.get("Content-Length")
        total = here + int(length) if length else None
        with part.open("ab" if here else "wb") as stream:
            for block in itertools.chain([start], blocks):
                here += len(block)
                if here > DOWNLOAD_BYTES.value:
                    raise NapoBenchError(f"{shown} sent more than {DOWNLOAD_BYTES.value:,} bytes.", DOWNLOAD_BYTES.hint)
                stream.write(block)
                progress(part.name, here, total)
    return None


def _beginning(start: bytes, blocks: Iterator[bytes]) -> bytes:
    """The first bytes of a response, at most about `LARGEST`, so that an endless page ends."""
    read = [start]
    while sum(map(len, read)) < LARGEST and (block := next(blocks, b"")):
        read.append(block)
    return b"".join(read)


def _string_constant(path: Path, name: str, url: str) -> str:
    """The string assigned to `name` at the top level of a Python file. The file is parsed and not run."""
    try:
        body = ast.parse(files.read_text(path)).body
    except SyntaxError as error:
        raise NapoBenchError(f"{url} is no Python file: {error.msg}, line {error.lineno}.") from None
    for node in body:
        if (
            isinstance(node, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            return node.value.value
    raise NapoBenchError(f"{url} has no string {name!r}.")


def _wrong_bytes(url: str, actual: str, expected: str) -> NapoBenchError:
    return NapoBenchError(
        f"{url} sent other bytes than expected: {actual}, not {expected}. They were deleted.",
        "Run the same command again. If they differ again, the file has changed at its source.",
    )


def _refuse_links(root: Path, target: Path) -> None:
    """Refuse links below `.partial`, and from a benchmark's own folder, which may be a link, down to `target`."""
    links.refuse_links(root, _PARTIAL)
    if parts := target.relative_to(root).parts:
        links.refuse_links(root / parts[0], *parts[1:2])


def _partial(root: Path, name: str) -> Path:
    return root / _PARTIAL / name.replace("/", "--")


def _validator_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.validator")


def _read_lock(root: Path) -> dict[str, dict[str, Any]]:
    path = root / LOCK_NAME
    lock = files.read_json(path) if path.is_file() else {}
    return {name: files.field(lock, name, dict, str(path)) for name in lock}


def _lock(root: Path, name: str, **facts: Any) -> None:
    lock = _read_lock(root)
    if name not in lock:
        files.write_json(root / LOCK_NAME, dict(sorted({**lock, name: facts}.items())))


def _md5_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

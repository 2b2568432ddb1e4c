"""Fetch benchmark data: resumable, checked, never incomplete.

A download is kept in the folder `.partial` of the data folder. The download is moved into the data folder only if its
bytes are the expected ones: they must match the digest of the source, or else the digest that the first fetch wrote to
the lock file.
"""

from __future__ import annotations

import ast
import hashlib
import re
import shutil
import time
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import httpx

from napo_bench.core import disk, files
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.progress import SILENT, Progress
from napo_bench.data.sources import HubFolder, Source, WebArchive, WebFile

LOCK_NAME = "sources.lock.json"
_PARTIAL = ".partial"
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.5
_TIMEOUT_SECONDS = 30.0
_RETRIED_STATUS = {408, 429, 500, 502, 503, 504}


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
        NapoBenchError: no network, not found, not the expected bytes, disk full. Received bytes are kept, so the same
            call continues the download.
    """
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
        actual = files.sha256_file(target)
        if expected and actual != expected:
            raise NapoBenchError(
                f"{target} is not the published file: its SHA-256 is {actual}, {expected} is expected.",
                "Move it away, then run the same command again.",
            )
        _lock(root, source.target, sha256=actual)
        return False
    url = f"{base_url.rstrip('/')}/{source.target}" if base_url else source.url
    part = _partial(root, source.target)
    _download(url, part, progress)
    if source.constant and not base_url:
        files.write_text(part, _string_constant(part, source.constant, url))
    actual = files.sha256_file(part)
    if expected and actual != expected:
        part.unlink()
        raise _wrong_bytes(url, f"SHA-256 {actual}", expected)
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)
    _lock(root, source.target, sha256=actual, url=url)
    return True


def _fetch_archive(source: WebArchive, root: Path, base_url: str | None, progress: Progress) -> bool:
    if source.is_there(root):
        return False
    folder = root / source.target
    entry = f"{PurePosixPath(source.target).parent}/{source.name}"
    url = f"{base_url.rstrip('/')}/{entry}" if base_url else source.url
    part = _partial(root, entry)
    _download(url, part, progress)
    sha256 = files.sha256_file(part)
    locked = _read_lock(root).get(entry, {}).get("sha256", "")
    if source.md5 and (md5 := _md5_file(part)) != source.md5:
        part.unlink()
        raise _wrong_bytes(url, f"MD5 {md5}", source.md5)
    if locked and sha256 != locked:
        part.unlink()
        raise _wrong_bytes(url, f"SHA-256 {sha256}", locked)
    try:
        found = _extract(part, source.members, folder)
    except zipfile.BadZipFile as error:
        part.unlink()
        raise NapoBenchError(f"What {url} sent is no sound zip archive: {error}.") from None
    if found < source.count:
        raise NapoBenchError(
            f"The archive behind {url} has {found:,} files {source.members}; {source.count:,} are expected."
        )
    _lock(root, entry, sha256=sha256, url=url)
    part.unlink()
    return True


def _extract(archive: Path, members: str, folder: Path) -> int:
    """Write the members with a matching file name into `folder`, by the file name alone, so that no path leads out of
    the folder.
    """
    found = 0
    with zipfile.ZipFile(archive) as unopened:
        for member in unopened.infolist():
            name = PurePosixPath(member.filename.replace("\\", "/")).name
            if member.is_dir() or not re.fullmatch(members, name) or "__MACOSX" in member.filename:
                continue
            with (
                unopened.open(member) as source,
                files.atomic_path(folder / name) as temporary,
                temporary.open("wb") as stream,
            ):
                shutil.copyfileobj(source, stream, 1 << 20)
            found += 1
    return found


def _fetch_hub_folder(source: HubFolder, root: Path) -> bool:
    if source.is_there(root):
        return False
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError
    from huggingface_hub.errors import HTTPError as AnyHTTPError  # type: ignore[attr-defined]  # its library's own

    staging = root / _PARTIAL / source.repo.replace("/", "--")
    complete = staging / "complete"
    where = f"https://huggingface.co/datasets/{source.repo}"
    revision = _read_lock(root).get(source.target, {}).get("revision", source.revision)
    try:
        if not complete.is_file():
            info = HfApi().dataset_info(source.repo, revision=revision)
            names = [entry.rfilename for entry in info.siblings or [] if entry.rfilename.startswith(f"{source.path}/")]
            snapshot_download(
                source.repo,
                repo_type="dataset",
                revision=info.sha,
                local_dir=staging,
                allow_patterns=[f"{source.path}/*"],
            )
            lost = [name for name in names if not (staging / name).is_file()]
            if lost or not names:
                raise NapoBenchError(f"{where}: {len(lost)} of {len(names)} files of {source.path!r} did not arrive.")
            complete.write_text(str(info.sha), encoding="utf-8")
    except (AnyHTTPError, EntryNotFoundError, HFValidationError, ConnectionError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise NapoBenchError(f"{where} cannot be fetched: {reason}") from None
    moved = 0
    for path in sorted((staging / source.path).rglob("*")):
        if path.is_file():
            target = root / source.target / path.relative_to(staging / source.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
            moved += 1
    _lock(root, source.target, url=where, revision=complete.read_text(encoding="utf-8"), files=moved)
    shutil.rmtree(staging)
    return True


def _download(url: str, part: Path, progress: Progress) -> None:
    """Download `url` into `part`. An interrupted download is continued if the server supports it.

    Received bytes are used only with their validator (ETag or date): a file that has changed is fetched from its
    beginning.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    reason = ""
    with httpx.Client(follow_redirects=True, timeout=_TIMEOUT_SECONDS) as client:
        for attempt in range(_ATTEMPTS):
            time.sleep(attempt * _PAUSE_SECONDS)
            try:
                _stream(client, url, part, progress)
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
    raise NapoBenchError(f"{url} cannot be fetched: {reason}.")


def _stream(client: httpx.Client, url: str, part: Path, progress: Progress) -> None:
    validator_path = _validator_path(part)
    headers = {"Accept-Encoding": "identity"}
    here = part.stat().st_size if part.is_file() and validator_path.is_file() else 0
    if here:
        headers |= {"Range": f"bytes={here}-", "If-Range": validator_path.read_text(encoding="utf-8")}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and here:
            part.unlink()
            return _stream(client, url, part, progress)
        response.raise_for_status()
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise NapoBenchError(
                f"{url} sent a web page in place of the file.",
                "Its server may want a confirmation or have reached a quota: open the address in a browser.",
            )
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            here = 0
        etag = response.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
        if validator:
            validator_path.write_text(validator, encoding="utf-8")
        length = response.headers.get("Content-Length")
        total = here + int(length) if length else None
        with part.open("ab" if here else "wb") as stream:
            for block in response.iter_bytes():
                stream.write(block)
                here += len(block)
                progress(part.name, here, total)
    return None


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

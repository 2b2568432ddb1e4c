"""Preference rows that their authors publish on the Hugging Face hub: commit and licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napo_bench.core import files

BUILD_NAME = "build.json"
"""File in a folder of built rows that names the rows that they were built from."""


@dataclass(frozen=True)
class Published:
    """A published data set of preference rows.

    Attributes:
        revision: Commit that is fetched.
        licence: Licence of the rows, in words.
    """

    revision: str
    licence: str


_RLAIF_V = "CC-BY-NC-4.0, not for commercial use; its authors ask that models trained on it are used for research only"
PUBLISHED = {
    "openbmb/RLAIF-V-Dataset": Published("cdfc8c13778434e38afd538b0641ea942df4af78", _RLAIF_V),
    "Starrrrrry/RLAIF-V-Bias-Dataset": Published(
        "87c32575787450bd1c81138be01393fedcfaa4bf",
        f"its page says Apache-2.0, and its rows and images are those of RLAIF-V: {_RLAIF_V}",
    ),
}
"""Name on the hub -> data set. Each commit is the newest one that changes a file of the rows, or a later one."""


def hub_revision(data: str) -> tuple[str, str | None]:
    """Name and commit of a data set on the hub: `name@revision`, or the name alone.

    A published data set without a revision has its pinned commit, any other None: the newest.
    """
    name, _, revision = data.partition("@")
    if not revision and name in PUBLISHED:
        revision = PUBLISHED[name].revision
    return name, revision or None


def full_name(data: str | Path) -> str:
    """A published data set with its commit, `name@revision`; other data as they are named."""
    name, revision = hub_revision(str(data))
    return f"{name}@{revision}" if name in PUBLISHED and not Path(data).exists() else str(data)


def licence_of(data: str | Path) -> str:
    """The licence of preference rows; "" if it is unknown.

    Args:
        data: Name on the hub, or a folder of rows that `build-bias` built from rows of a known licence.
    """
    built = Path(data).expanduser() / BUILD_NAME
    if built.is_file():
        there = files.read_json(built)
        origin = there.get("data") if isinstance(there, dict) else None
        return licence_of(origin) if isinstance(origin, str) and Path(origin) != Path(data) else ""
    name, _ = hub_revision(str(data))
    return PUBLISHED[name].licence if name in PUBLISHED and not Path(data).exists() else ""

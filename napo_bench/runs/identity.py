"""The identity of an evaluation: everything that can change one of its answers or numbers.

`run.json` contains the whole identity. Two runs are compared by their identities alone.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo_bench.benchmarks import all_tasks
from napo_bench.benchmarks.benchmark import PROFILES
from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError
from napo_bench.engines.registry import engine_named
from napo_bench.models.device import AUTO
from napo_bench.runs.provenance import package_versions
from napo_bench.runs.result import RunResult

if TYPE_CHECKING:
    from napo_bench.benchmarks.benchmark import Benchmark, Need
    from napo_bench.engines.judge import Judge
    from napo_bench.runs.evaluate import EvalOptions

Identity = dict[str, Any]
"""Field -> JSON value."""

RESOLVED = {
    *("suite", "engine", "dtype", "batch_size", "pipeline", "spacy_model", "judges", "extractor"),
    *("conversation", "chat_template_kwargs", "quantization"),
}
"""Options that the identity contains in another form than the user gives."""

WITHOUT_EFFECT = {"data_dir", "max_refused", "device", "api_base_url", "scoring", "allow_partial", "answers", "source"}
"""Options that change no number, that the engine sets, or that another field replaces (the hashes of the data, the
checkpoint)."""

_SCORING = {"pipeline", "spacy_models", "judge", "extractor"}
_HASH_SHOWN = 12
_FIELDS_SHOWN = 3


def evaluation_identity(
    fingerprint: str, options: EvalOptions, data_hashes: Mapping[str, str], asked_in: str | None = None
) -> Identity:
    """The identity of an evaluation; an option without effect on the suite has no effect on the identity.

    Args:
        fingerprint: Fingerprint of the checkpoint, or the model's name and endpoint.
        options: Options of the evaluation.
        data_hashes: Data file -> SHA-256.
        asked_in: Conversation, if the checkpoint can be asked in several.
    """
    scoring, suite = options.scoring, sorted(set(options.suite))
    needs = suite_needs(suite)
    reads_words = "words" in needs
    dtype = evaluation_dtype(options) if "dtype" in engine_named(options.engine_name).takes else None
    plain = {
        field.name: getattr(holder, field.name)
        for holder in (options, scoring)
        for field in fields(holder)
        if field.name not in RESOLVED | WITHOUT_EFFECT
    }
    identity = {
        "checkpoint": fingerprint,
        "engine": options.engine_name,
        "suite": suite,
        **plain,
        **({"conversation": asked_in} if asked_in else {}),
        **({"chat_template_kwargs": options.chat_template_kwargs} if options.chat_template_kwargs else {}),
        **({"quantization": options.quantization} if options.quantization else {}),
        "dtype": dtype,
        "batch_size": None if dtype in (None, "float32") else options.batch_size,
        "pipeline": scoring.pipeline if reads_words else None,
        "spacy_models": _spacy_models(options) if reads_words else {},
        "judge": _judges(scoring.judges) if "judge" in needs else None,
        "extractor": scoring.extractor.identity if scoring.extractor and "extractor" in needs else None,
        "data": dict(data_hashes),
        "versions": package_versions(),
    }
    return dict(json.loads(json.dumps(identity)))


def evaluation_dtype(options: EvalOptions) -> str:
    """The number type of an evaluation: the user's, else that of the profile on CUDA, else float32."""
    if options.dtype != "auto":
        return options.dtype
    import torch

    best = "cuda" if torch.cuda.is_available() else "cpu"
    device = best if options.device in (None, AUTO) else str(options.device)
    return PROFILES[options.profile].half if device.startswith("cuda") else "float32"


def suite_needs(suite: Iterable[str]) -> frozenset[Need]:
    """The needs of a suite's scoring."""
    return frozenset(need for benchmark in _benchmarks(suite) for need in benchmark.needs)


def held_run(out: Path) -> tuple[RunResult, Identity] | None:
    """The finished run in a folder and its identity; None if there is no run, or a run that is damaged or has no
    identity.

    Raises:
        NapoBenchError: the folder contains scores of stored responses.
    """
    try:
        run = RunResult.load(out / "run.json")
    except NapoBenchError:
        return None
    if run.provenance.responses is not None:
        raise NapoBenchError(f"{out} holds scores of stored responses, not a run of eval.", "Give another --out.")
    identity = run.provenance.identity
    return (run, identity) if identity is not None else None


def differences(then: Identity, now: Identity) -> dict[str, tuple[Any, Any]]:
    """Fields in which two identities differ: name -> (old, new). Each file and each package is a field of its own."""
    old, new = _flat(then), _flat(now)
    return {name: (old.get(name), new.get(name)) for name in {**new, **old} if old.get(name) != new.get(name)}


def described(difference: Mapping[str, tuple[Any, Any]]) -> str:
    """The first differences in words, and the number of other differences."""
    named = [f"{name} was {_shown(then)} and is {_shown(now)}" for name, (then, now) in difference.items()]
    more = [f"{len(named) - _FIELDS_SHOWN} more"] if len(named) > _FIELDS_SHOWN else []
    return "; ".join(named[:_FIELDS_SHOWN] + more)


def require_no_replacement(out: Path, then: Identity, now: Identity) -> None:
    """Refuse an evaluation that would replace the numbers of other settings.

    The same settings under other package versions are evaluated again. A run may get a judge if it had none, further
    benchmarks, and more units of each benchmark.

    Raises:
        NapoBenchError: the settings differ. The error names the old and the new values.
    """
    replaced = {name: pair for name, pair in differences(then, now).items() if not _is_gain(name, *pair)}
    if not replaced:
        return
    hint = "Give another --out."
    if {name.partition("/")[0] for name in replaced} <= _SCORING:
        hint += f" To score the same answers in another way: napo-bench score, with the files in {out / 'responses'}."
    raise NapoBenchError(f"{out} holds a finished run of other settings: {described(replaced)}.", hint)


def _is_gain(name: str, then: Any, now: Any) -> bool:
    if name == "suite":
        return set(then) <= set(now)
    if name == "limit":
        return then is not None and (now is None or now > then)
    if name in ("engine", "judge", "pipeline") or name.startswith(("data/", "spacy_models/")):
        return then is None
    return name.startswith("versions/")


def _flat(identity: Identity) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in identity.items():
        if name in ("data", "versions", "spacy_models"):
            flat |= {f"{name}/{key}": entry for key, entry in value.items()}
        else:
            flat[name] = value
    return flat


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return " at ".join(map(str, value.values()))
    if isinstance(value, list):
        return ",".join(map(_shown, value))
    text = "none" if value is None else str(value)
    return f"{text[:_HASH_SHOWN]}..." if len(text) == 64 and text.isalnum() else text


def _benchmarks(suite: Iterable[str]) -> list[Benchmark]:
    """The benchmarks of a suite's tasks, without duplicates."""
    tasks = all_tasks()
    return list(dict.fromkeys(tasks[name][0] for name in suite if name in tasks))


def _judges(judges: Sequence[Judge]) -> Any:
    """The identity of a judge, or the identities of several judges, whose order has no effect."""
    identities = sorted((judge.identity for judge in judges), key=lambda one: (one["model"], one["endpoint"]))
    return identities if len(identities) > 1 else next(iter(identities), None)


def _spacy_models(options: EvalOptions) -> dict[str, str]:
    """Name -> version of the spaCy models of the suite's text pipeline."""
    if options.scoring.pipeline != "official":
        return {}
    used: list[Need] = ["words", "extractor"] if options.scoring.extractor else ["words"]
    models = [benchmark.spacy_models for benchmark in _benchmarks(options.suite)]
    prescribed = [named[need] for need in used for named in models if need in named]
    names = [options.scoring.spacy_model] if options.scoring.spacy_model and prescribed else prescribed
    return {name: _spacy_version(name) for name in names}


def _spacy_version(name: str) -> str:
    try:
        if Path(name).is_dir():
            return str(files.read_json(Path(name) / "meta.json")["version"])
        return importlib.metadata.version(name)
    except (NapoBenchError, KeyError, TypeError, importlib.metadata.PackageNotFoundError):
        return "unknown"

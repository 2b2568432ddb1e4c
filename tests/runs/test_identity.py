"""The identity of an evaluation: whatever can change a number changes it, and nothing else does."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from napo_bench.core.journal import Journal
from napo_bench.engines.journalled import JournalledEndpoint
from napo_bench.engines.judge import Judge
from napo_bench.runs.evaluate import EvalOptions
from napo_bench.runs.identity import (
    RESOLVED,
    WITHOUT_EFFECT,
    described,
    differences,
    evaluation_dtype,
    evaluation_identity,
)
from napo_bench.runs.score import ScoreOptions

OPTIONS = EvalOptions(device="cpu")


def identity(**changes: Any) -> dict[str, Any]:
    scoring = dataclasses.replace(OPTIONS.scoring, **changes.pop("scoring", {}))
    return evaluation_identity("0" * 64, dataclasses.replace(OPTIONS, scoring=scoring, **changes), {"a/b.json": "1"})


def judge(folder: Path, model: str = "gpt", url: str = "http://user:secret@judge/v1", repeats: int = 1) -> Judge:
    return Judge(JournalledEndpoint(model, url, "a-key-of-mine", Journal(folder / "judge.sqlite")), repeats=repeats)


def test_an_option_is_in_the_identity_or_said_to_have_no_effect() -> None:
    for holder in (EvalOptions, ScoreOptions):
        for field in dataclasses.fields(holder):
            assert field.name in RESOLVED or (field.name in identity()) != (field.name in WITHOUT_EFFECT), field.name


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"suite": ("vlind", "amber")}, "suite"),
        ({"limit": 3}, "limit"),
        ({"profile": "paper"}, "profile"),
        ({"dtype": "float16", "batch_size": 16}, "dtype"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"quantization": "4bit"}, "quantization"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs"),
        ({"scoring": {"pipeline": "closed_vocabulary"}}, "pipeline"),
        ({"scoring": {"spacy_model": "en_core_web_md"}}, "spacy_models/en_core_web_md"),
    ],
)
def test_what_can_change_a_number_changes_the_identity(changes: dict[str, Any], field: str) -> None:
    assert field in differences(identity(), identity(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "float32"},
        {"batch_size": 1},
        {"data_dir": Path("elsewhere")},
        {"suite": tuple(reversed(OPTIONS.suite))},
        {"scoring": {"source": "a file"}},
    ],
)
def test_what_changes_no_number_leaves_the_identity(changes: dict[str, Any]) -> None:
    assert identity(**changes) == identity()


def test_the_batch_counts_when_answers_depend_on_it() -> None:
    assert differences(identity(dtype="bfloat16", batch_size=1), identity(dtype="bfloat16", batch_size=16)) == {
        "batch_size": (1, 16)
    }


def test_on_cuda_the_number_type_is_that_of_the_profiles_scripts() -> None:
    def dtype(**changes: Any) -> str:
        return evaluation_dtype(dataclasses.replace(OPTIONS, **{"device": "cuda", **changes}))

    assert [dtype(profile=name) for name in ("greedy", "paper", "rlaif-v")] == ["bfloat16", "float16", "float16"]
    assert dtype(profile="paper", dtype="bfloat16") == "bfloat16"
    assert dtype(profile="paper", device="cpu") == "float32"


def test_a_judge_counts_by_model_and_endpoint_if_the_suite_has_something_to_judge(tmp_path: Path) -> None:
    judged = identity(scoring={"judges": (judge(tmp_path),)})
    assert differences(identity(), judged) == {"judge": (None, {"model": "gpt", "endpoint": "http://judge/v1"})}
    assert described(differences(identity(), judged)) == "judge was none and is gpt at http://judge/v1"
    assert identity(scoring={"judges": (judge(tmp_path, url="http://judge/v1/"),)}) == judged
    assert identity(scoring={"judges": (judge(tmp_path, model="other"),)}) != judged
    vlind = {"suite": ("vlind",)}
    assert identity(**vlind, scoring={"judges": (judge(tmp_path),)}) == identity(**vlind)
    several = identity(scoring={"judges": (judge(tmp_path), judge(tmp_path, model="other", repeats=3))})
    change = "judge was gpt at http://judge/v1 and is gpt at http://judge/v1,other at http://judge/v1 at 3"
    assert described(differences(judged, several)) == change
    swapped = identity(scoring={"judges": (judge(tmp_path, model="other", repeats=3), judge(tmp_path))})
    assert swapped == several
    assert all(secret not in json.dumps(judged) for secret in ("secret", "hidden", "a-key-of-mine"))


def test_versions_and_data_are_compared_one_by_one() -> None:
    then, now = identity(), identity()
    then["versions"]["numpy"], then["data"]["a/b.json"] = "1.0", "2"
    assert list(differences(then, now)) == ["data/a/b.json", "versions/numpy"]

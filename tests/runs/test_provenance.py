"""Where a run's numbers come from: what run.json says of it, and what of early runs is understood."""

import json
from dataclasses import replace

import pytest

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.paths import results_dir
from napo_bench.runs.provenance import CheckpointUsed, DataUsed, Provenance, ResponsesUsed
from napo_bench.runs.result import RunResult

EVALUATION = Provenance(
    command="napo-bench eval --ckpt llava",
    checkpoint=CheckpointUsed("llava", "/models/llava", "f" * 64),
    generation={"profile": "greedy", "batch_size": 8},
    suite=("vlind",),
    limit=None,
    data=DataUsed("/data", {"vlind/data.json": "a" * 64, "vlind_more.json": "b" * 64, "amber/relation.json": "c" * 64}),
    versions={"python": "3.11"},
    identity={"checkpoint": "f" * 64},
    wall_seconds=1.5,
    stages={"reading": {"seconds": 0.5}, "prefill": {"seconds": 0.75, "tokens": 600}},
)
CONTROL = replace(EVALUATION, checkpoint=CheckpointUsed("blind", "/models/blind", "e" * 64, "blind"))
SCORES = Provenance(command="napo-bench score amber", responses=ResponsesUsed("answers.json", "d" * 64))


@pytest.mark.parametrize("provenance", [EVALUATION, CONTROL, SCORES, Provenance()])
def test_json_gives_the_same_provenance_back(provenance):
    assert Provenance.from_json(json.loads(json.dumps(provenance.to_json())), "run.json") == provenance


def test_the_json_of_an_evaluation_and_of_scores_has_the_documented_fields_in_their_order():
    assert list(EVALUATION.to_json()) == [
        "command", "checkpoint", "generation", "suite", "limit", "data", "versions", "identity", "bootstrap_seed",
        "wall_seconds", "stages",
    ]  # fmt: skip
    assert list(EVALUATION.to_json()["checkpoint"]) == ["name", "folder", "fingerprint"]
    assert list(CONTROL.to_json()["checkpoint"]) == ["name", "folder", "fingerprint", "control"]
    assert EVALUATION.to_json()["limit"] is None
    assert list(SCORES.to_json()) == ["command", "responses", "data", "versions", "bootstrap_seed", "wall_seconds"]


def test_the_committed_run_of_the_micro_world_is_read_as_it_is():
    path = results_dir() / "micro" / "run.json"
    provenance = RunResult.load(path).provenance
    stored = json.loads(path.read_text())["provenance"]
    assert provenance.data.is_micro and provenance.checkpoint == CheckpointUsed(**stored["checkpoint"])
    assert json.loads(json.dumps(provenance.to_json())) == stored


def test_an_early_run_without_the_checkpoints_folder_has_its_name():
    early = Provenance.from_json({"checkpoint": {"name": "models/napo", "fingerprint": "f"}}, "run.json")
    assert early.checkpoint == CheckpointUsed("models/napo", "models/napo", "f")
    hub = Provenance.from_json({"checkpoint": {"name": "org/napo", "folder": None, "fingerprint": "f"}}, "run.json")
    assert hub.checkpoint == CheckpointUsed("org/napo", None, "f")


def test_hashes_of_a_benchmark_are_those_of_its_folder():
    assert EVALUATION.data.of("vlind") == {"vlind/data.json": "a" * 64}
    assert not EVALUATION.data.is_micro


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"checkpoint": "llava"}, "'checkpoint' is 'llava'"),
        ({"data": {"sha256": []}}, "'sha256' is []"),
        ({"limit": "3"}, "'limit' is '3'"),
        ({"suite": "vlind"}, "'suite' is 'vlind'"),
        ({"wall_seconds": True}, "'wall_seconds' is True"),
        ({"stages": {"prefill": 3}}, "'prefill' is 3"),
    ],
)
def test_a_field_of_another_type_is_named(document, named):
    with pytest.raises(NapoBenchError) as caught:
        Provenance.from_json(document, "run.json, provenance")
    assert named in caught.value.message and "run.json, provenance" in caught.value.message

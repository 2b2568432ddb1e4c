"""The gate that CI uses, on a checkpoint that has really become worse: the micro base with its eyes shut."""

import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor

from napo_bench.core.paths import results_dir
from napo_bench.micro.base import base_checkpoint
from napo_bench.micro.data import ensure_data
from napo_bench.runs.evaluate import EvalOptions, evaluate
from napo_bench.runs.gates import check_gates, load_gates
from napo_bench.runs.result import RunResult
from napo_bench.runs.score import ScoreOptions

GATES = """
[object_halbench.chair_s]
max_regression = 10.0

[object_halbench.chair_i]
max_regression = 6.0
"""


@pytest.fixture
def gated(tmp_path):
    """Evaluates a checkpoint on the micro Object HalBench and gates it against the committed run."""

    def gate(checkpoint):
        options = EvalOptions(
            suite=["object_halbench"],
            data_dir=ensure_data(),
            batch_size=32,
            scoring=ScoreOptions(pipeline="closed_vocabulary"),
        )
        evaluate(str(checkpoint), tmp_path / "run", options)
        (tmp_path / "gates.toml").write_text(GATES)
        baseline = RunResult.load(results_dir() / "micro")
        return check_gates(RunResult.load(tmp_path / "run"), baseline, load_gates(tmp_path / "gates.toml"))

    return gate


@pytest.mark.numeric
def test_the_base_passes_against_its_own_committed_run(gated):
    assert gated(base_checkpoint()).exit_code == 0


def test_a_checkpoint_that_cannot_see_is_called_a_regression(gated, tmp_path):
    model = AutoModelForImageTextToText.from_pretrained(base_checkpoint())
    for parameter in model.base_model.multi_modal_projector.parameters():
        parameter.data.zero_()
    model.save_pretrained(tmp_path / "blind")
    AutoProcessor.from_pretrained(base_checkpoint()).save_pretrained(tmp_path / "blind")
    assert gated(tmp_path / "blind").exit_code == 1

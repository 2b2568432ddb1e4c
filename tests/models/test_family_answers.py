"""A tiny checkpoint of each family goes the way of a released one, from `--ckpt` to the answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from families import HELD, make_family
from family_checks import answers, first_logits, questions
from transformers import AutoConfig

from napo_bench.core.errors import NapoBenchError
from napo_bench.engines.hf import HFEngine
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.families import family_of


@pytest.mark.numeric
@pytest.mark.parametrize("family", HELD)
def test_a_family_answers_in_batches_as_one_by_one_and_sees_the_picture(family: str, tmp_path: Path) -> None:
    make_family(tmp_path, family)
    engine = HFEngine(str(tmp_path), device="cpu", dtype="float32")
    alone = answers(engine, questions(), 1)
    assert len(set(alone)) > 1
    assert answers(engine, questions(), 4) == alone
    assert ("prefill and decoding" not in engine.stages()) == family_of(engine.model.config).branches
    seen, grey = (first_logits(engine, questions(blank)[0]) for blank in (False, True))
    assert (seen - grey).abs().max() > 0.01


def test_a_package_that_a_processor_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.smolvlm import processing_smolvlm

    make_family(tmp_path, "smolvlm")
    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with pytest.raises(NapoBenchError, match="the processor cannot be loaded: Package `num2words`") as caught:
        HFEngine(str(tmp_path), device="cpu")
    assert caught.value.hint.startswith("Install the package")


@pytest.mark.parametrize(
    ("family", "reason"),
    [("florence2", "its encoder reads the prompt"), ("blip", "its generate rewrites"), ("pi0", "actions of a robot")],
)
def test_a_family_that_cannot_be_asked_is_refused_before_its_weights_are_read(
    family: str, reason: str, tmp_path: Path
) -> None:
    AutoConfig.for_model(family).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(NapoBenchError, match=f"is a '{family}' model: .*{reason}") as caught:
        Checkpoint.open(str(tmp_path)).open_parts()
    assert "docs/models.md" in caught.value.hint

"""Families that cannot be asked, and what a family needs beside its checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from families import make_family
from transformers import AutoConfig

from napo_bench.core.errors import NapoBenchError
from napo_bench.engines.hf import HFEngine
from napo_bench.models.checkpoint import Checkpoint


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

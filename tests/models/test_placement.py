"""Weights that are quantized, or spread over devices: what is refused before they are read, and what is marked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import original_layout as layout
import pytest
import torch
from safetensors.torch import save_file
from synthetic_runs import invoke
from tiny_llava import make_checkpoint, make_data

from napo_bench.core import processes
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal
from napo_bench.engines import hf
from napo_bench.models import placement
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.device import AUTO, require_device
from napo_bench.models.placement import placed, require_placed
from napo_bench.models.quantization import require_kind, require_quantization
from napo_bench.runs.result import RunResult

CPU = torch.device("cpu")
INPUTS = {"input_ids": torch.tensor([[1, 5, 6, 7]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Layout -> a tiny checkpoint; `lora` is an adapter on the one in LLaVA's original layout."""
    root = tmp_path_factory.mktemp("layouts")
    make_checkpoint(root / "transformers")
    pieces = layout.write_tokenizer(root / "original")
    twin = layout.twin(pieces)
    layout.write_tower(root / "tower", twin)
    layout.write_settings(root / "original", root / "tower", pieces)
    weights = layout.language_weights(twin, pieces)
    save_file(weights, root / "original/model.safetensors", metadata={"format": "pt"})
    layout.write_lora(root / "lora", str(root / "original"), root / "tower", pieces)
    return {name: root / name for name in ("transformers", "original", "lora")}


def logits(folder: Path, device: object = CPU, quantization: str | None = None) -> tuple[torch.nn.Module, torch.Tensor]:
    checkpoint = Checkpoint.open(str(folder), quantization=quantization)
    checkpoint.open_parts()
    model = checkpoint.load_model(device, torch.float32)
    with torch.no_grad():
        return model, model(**INPUTS).logits


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("name", "kind"),  # on the CPU, 4 bits need a width of 64, which the tiny original layout has not
    [("transformers", "8bit"), ("transformers", "4bit"), ("original", "8bit"), ("lora", "8bit")],
)
def test_the_weights_of_every_layout_are_quantized(name: str, kind: str, folders: dict[str, Path]) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes, of the extra `quantization`")
    _, full = logits(folders[name])
    model, quantized = logits(folders[name], quantization=kind)
    stored = {parameter.dtype for parameter in model.model.language_model.layers.parameters()}
    assert {"8bit": torch.int8, "4bit": torch.uint8}[kind] in stored
    assert torch.nn.functional.cosine_similarity(full, quantized, dim=-1).min() > {"8bit": 0.99, "4bit": 0.8}[kind]
    beside = [one for one, _ in model.named_parameters() if "lora_" in one]
    assert bool(beside) == (name == "lora")  # nothing is added to quantized weights exactly


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["transformers", "original", "lora"])
def test_a_spread_model_has_the_logits_of_one_device(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "free_memory", lambda: {"cpu": 10**9})
    torch.testing.assert_close(logits(folders[name], AUTO)[1], logits(folders[name])[1])


@pytest.mark.parametrize(("kind", "needed"), [(None, 2.0), ("8bit", 1.0), ("4bit", 0.5)])
def test_a_model_larger_than_the_devices_is_refused_before_its_weights_are_read(
    kind: str | None, needed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = int(needed * 1e9)
    monkeypatch.setattr(placement, "free_memory", lambda: {0: room // 2, 1: room - room // 2 - 1})
    with pytest.raises(NapoBenchError, match=f"big takes {needed:.2f} GB; 2 devices have"):
        placed("big", 10**9, AUTO, torch.bfloat16, kind)
    monkeypatch.setattr(placement, "free_memory", lambda: {0: room // 2, 1: room - room // 2})
    options = placed("big", 10**9, AUTO, torch.bfloat16, kind)
    assert options["device_map"] == "auto" and options["max_memory"].keys() == {0, 1}


def test_a_part_that_is_left_over_is_named() -> None:
    model = SimpleNamespace(hf_device_map={"model.vision_tower": 0, "model.language_model": 1, "lm_head": "disk"})
    with pytest.raises(NapoBenchError, match="does not fit into the devices 0, 1: lm_head is left over"):
        require_placed("big", model, {"max_memory": {0: 1, 1: 1}})
    require_placed("big", model, {"device_map": {"": CPU}})


def test_auto_needs_a_gpu_and_one_process(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.accelerator.is_available():
        with pytest.raises(NapoBenchError, match="torch finds no accelerator"):
            require_device(AUTO)
    monkeypatch.setattr(hf, "require_device", lambda _: None)
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "join", lambda **_: CPU)
    with pytest.raises(NapoBenchError, match="2 processes run") as caught:
        hf.HFEngine(str(folders["transformers"]), device=AUTO)
    assert "Leave out torchrun" in caught.value.hint


def test_a_quantization_without_gpu_or_package_or_of_no_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NapoBenchError, match="--quantization is 4bit, and the model runs on cpu"):
        require_quantization("4bit", "cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(NapoBenchError, match="the package bitsandbytes is not installed") as caught:
        require_quantization("4bit", "cuda")
    assert caught.value.hint == 'pip install "napo-bench[quantization]"'
    with pytest.raises(NapoBenchError, match="there is no quantization '4-bits'") as caught:
        require_kind("4-bits")
    assert "4bit" in caught.value.hint


def test_weights_that_are_stored_quantized_are_not_quantized_again(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders["transformers"], tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(NapoBenchError, match=r"is stored quantized \(4bit\), and --quantization is 8bit"):
        Checkpoint.open(str(copy), quantization="8bit").open_parts()
    with pytest.raises(NapoBenchError, match="The quantization of the stored weights is 4bit, and the model runs on"):
        hf.HFEngine(str(copy), device="cpu")


def test_a_quantized_run_is_refused_on_the_cpu_and_marked_elsewhere(
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_data(tmp_path / "data", size=2)
    arguments = [
        "eval",
        "--ckpt",
        str(folders["transformers"]),
        "--data-dir",
        str(tmp_path / "data"),
        "--suite",
        "vlind",
    ]
    arguments += ["--device", "cpu", "--out", str(tmp_path / "run"), "--quantization", "8bit"]
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "open", lambda *_, **__: pytest.fail("the checkpoint was opened"))
        code, out, err = invoke(arguments, monkeypatch, capsys, width=200)
    assert (code, out) == (2, "")
    assert "--quantization is 8bit, and the model runs on cpu" in err
    pytest.importorskip("bitsandbytes", reason="bitsandbytes, of the extra `quantization`")
    monkeypatch.setattr(hf, "require_quantization", lambda *_: None)
    code, _, err = invoke(arguments, monkeypatch, capsys, width=200)
    assert code == 0, err
    run = RunResult.load(tmp_path / "run")
    assert run.provenance.identity["quantization"] == "8bit"
    assert run.provenance.generation["quantization"].startswith("8bit (bitsandbytes ")
    code, out, err = invoke(["report", str(tmp_path / "run"), "--format", "md"], monkeypatch, capsys, width=200)
    assert code == 0, err
    assert "weights quantized: 8bit (bitsandbytes " in out
    whole = [*arguments[:-2], "--out", str(tmp_path / "whole")]
    assert "--quantization" not in whole and invoke(whole, monkeypatch, capsys, width=200)[0] == 0
    assert not stored(tmp_path / "run") & stored(tmp_path / "whole"), "an answer of other weights would be taken"


def stored(run: Path) -> set[str]:
    with Journal(run / "journal.sqlite") as journal:
        return set(next(journal.entries(1000)))

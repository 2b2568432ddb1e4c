"""Checkpoint: what is found, what is refused, and a fingerprint that sees every change."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from local_site import Site, hub_pages
from safetensors.torch import load_file, save_file

from napo_bench.core.errors import NapoBenchError
from napo_bench.models.checkpoint import Checkpoint

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("make_tiny_llava", ROOT / "scripts" / "make_tiny_llava.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder = tmp_path_factory.mktemp("tiny")
    script.make_checkpoint(folder)
    return folder


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter on the tiny LLaVA that changes its weights."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapter")
    model = Checkpoint.open(str(tiny)).load_model(CPU, torch.float32)
    torch.manual_seed(0)
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    wrapped.save_pretrained(folder)
    where = folder / "adapter_config.json"
    where.write_text(json.dumps(json.loads(where.read_text()) | {"base_model_name_or_path": str(tiny)}))
    return folder


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.update({name: tensor for name, tensor in changes.items() if tensor is not None})
    for name in [name for name, tensor in changes.items() if tensor is None]:
        del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def first_weight(folder: Path) -> tuple[str, torch.Tensor]:
    return next(iter(load_file(folder / "model.safetensors").items()))


def test_a_whole_checkpoint_loads(tiny: Path) -> None:
    checkpoint = Checkpoint.open(str(tiny))
    assert checkpoint.load_config().model_type == "llava"
    assert checkpoint.load_processor().image_processor.size["shortest_edge"] == 56
    model = checkpoint.load_model(CPU, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not model.training


def test_the_fingerprint_is_of_the_contents(tiny: Path, copy: Path) -> None:
    assert Checkpoint.open(str(tiny)).fingerprint() == Checkpoint.open(str(copy)).fingerprint()


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "chat_template.jinja"],
)
def test_the_fingerprint_changes_with_every_file_that_answers_depend_on(copy: Path, name: str) -> None:
    before = Checkpoint.open(str(copy)).fingerprint()
    (copy / name).write_text((copy / name).read_text() + " ")
    assert Checkpoint.open(str(copy)).fingerprint() != before


def test_the_fingerprint_changes_with_a_single_weight(copy: Path) -> None:
    before = Checkpoint.open(str(copy)).fingerprint()
    name, tensor = first_weight(copy)
    tensor.view(-1)[0] += 1
    edit_weights(copy, **{name: tensor})
    assert Checkpoint.open(str(copy)).fingerprint() != before


def test_code_counts_only_if_it_is_trusted(copy: Path) -> None:
    def fingerprint(trusted: bool) -> str:
        return Checkpoint.open(str(copy), trust_remote_code=trusted).fingerprint()

    before = fingerprint(False), fingerprint(True)
    (copy / "modeling.py").write_text("answer = 42\n")
    assert fingerprint(False) == before[0]
    assert fingerprint(True) != before[1]


def test_logs_beside_the_weights_do_not_change_the_fingerprint(copy: Path) -> None:
    before = Checkpoint.open(str(copy)).fingerprint()
    (copy / "trainer_state.json").write_text("{}")
    (copy / "run.json").write_text("{}")
    assert Checkpoint.open(str(copy)).fingerprint() == before


@pytest.mark.numeric
def test_an_adapter_is_merged_into_its_base(tiny: Path, adapter: Path) -> None:
    from peft import PeftModel

    inputs = {"input_ids": torch.tensor([[1, 5, 6, 7]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    base = Checkpoint.open(str(tiny)).load_model(CPU, torch.float32)
    merged = Checkpoint.open(str(adapter)).load_model(CPU, torch.float32)
    with torch.no_grad():
        plain = base(**inputs).logits
        merged_logits = merged(**inputs).logits
        adapted = PeftModel.from_pretrained(base, str(adapter)).eval()(**inputs).logits
    torch.testing.assert_close(merged_logits, adapted, atol=1e-3, rtol=1e-3)
    assert (merged_logits - plain).abs().max() > 0.1


def test_an_adapter_takes_its_bases_processor_and_fingerprint(adapter: Path, copy: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(adapter, tmp_path / "moved"))
    where = moved / "adapter_config.json"
    where.write_text(json.dumps(json.loads(where.read_text()) | {"base_model_name_or_path": str(copy)}))
    checkpoint = Checkpoint.open(str(moved))
    assert checkpoint.load_processor().image_token == "<image>"
    before = checkpoint.fingerprint()
    name, tensor = first_weight(copy)
    edit_weights(copy, **{name: tensor + 1})
    assert Checkpoint.open(str(moved)).fingerprint() != before


def refusal(folder: Path | str) -> NapoBenchError:
    with pytest.raises(NapoBenchError) as caught:
        checkpoint = Checkpoint.open(str(folder))
        checkpoint.open_parts()
    return caught.value


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'} does not exist" in refusal(tmp_path / "none").message


def test_a_file_in_place_of_a_folder(tiny: Path) -> None:
    assert "is a file" in refusal(tiny / "config.json").message


def test_a_folder_without_weights(tmp_path: Path) -> None:
    assert "holds no weights" in refusal(tmp_path).message


def test_a_checkpoint_without_a_processor(copy: Path) -> None:
    (copy / "processor_config.json").unlink()
    error = refusal(copy)
    assert "has no processor" in error.message
    assert "save_pretrained" in error.hint


def test_a_text_only_checkpoint(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=10, **sizes)).save_pretrained(tmp_path)
    assert "'llama' model, which takes no images" in refusal(tmp_path).message


def test_a_pickle_is_not_loaded(copy: Path) -> None:
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    error = refusal(copy)
    assert "as pickle only (pytorch_model.bin)" in error.message
    assert "safetensors" in error.hint
    assert "from_pretrained" not in error.hint


@pytest.mark.parametrize("given", ["file", "folder"])
def test_a_gguf_file_is_refused_with_what_reads_it(copy: Path, given: str) -> None:
    weights = (copy / "model.safetensors").rename(copy / "llava-Q4_K_M.gguf")
    error = refusal(weights if given == "file" else copy)
    assert "llava-Q4_K_M.gguf is a GGUF file" in error.message
    assert f"llama-server -m {weights}" in error.hint and "--api-base-url" in error.hint


@pytest.mark.parametrize(
    ("file", "found"), [("Q4.gguf", "Q4.gguf is a GGUF file"), ("pytorch_model.bin", "as pickle only")]
)
def test_weights_of_the_hub_that_were_not_fetched_are_named(hub: Site, file: str, found: str) -> None:
    hub.pages |= hub_pages("some/model", "main", {"config.json": b"{}", file: b"weights"}, kind="models")
    assert found in refusal("some/model").message
    assert not [path for path, _ in hub.requests if file in path]


def test_the_texts_of_a_checkpoint_on_the_hub_are_fetched_without_its_weights(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot_download(name: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        (fetched := tmp_path / name).mkdir(parents=True)
        for path in tiny.iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                shutil.copy(path, fetched)
        return str(fetched)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    config, processor = Checkpoint.open("some-org/model", weights=False).open_texts()
    assert (config.model_type, processor.image_token) == ("llava", "<image>")
    assert not list((tmp_path / "some-org").rglob("*.safetensors"))


@pytest.mark.numeric
def test_shards_give_the_logits_of_one_file(tiny: Path, copy: Path) -> None:
    whole = Checkpoint.open(str(tiny)).load_model(CPU, torch.float32)
    (copy / "model.safetensors").unlink()
    whole.save_pretrained(copy, max_shard_size="50KB")
    shards = sorted(copy.glob("model-*.safetensors"))
    assert len(shards) > 2
    checkpoint = Checkpoint.open(str(copy))
    checkpoint.open_parts()
    inputs = {"input_ids": torch.tensor([[1, 5, 6, 7]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    with torch.no_grad():
        assert torch.equal(checkpoint.load_model(CPU, torch.float32)(**inputs).logits, whole(**inputs).logits)
    shards[1].unlink()
    assert f"{shards[1]} is missing; model.safetensors.index.json names it" in refusal(copy).message


def test_an_adapter_in_a_pickle_is_not_loaded(adapter: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(adapter, tmp_path / "moved"))
    torch.save(load_file(moved / "adapter_model.safetensors"), moved / "adapter_model.bin")
    (moved / "adapter_model.safetensors").unlink()
    assert "as pickle only (adapter_model.bin)" in refusal(moved).message


def test_truncated_weights(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert f"{weights} cannot be read as safetensors" in refusal(copy).message


def test_weights_that_do_not_cover_the_model(copy: Path) -> None:
    name, _ = first_weight(copy)
    edit_weights(copy, **{name: None})
    assert "missing weights of the model (1)" in refusal(copy).message


def test_an_adapter_whose_base_is_gone(adapter: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(adapter, tmp_path / "moved"))
    where = moved / "adapter_config.json"
    where.write_text(json.dumps(json.loads(where.read_text()) | {"base_model_name_or_path": "/nowhere/at/all"}))
    error = refusal(moved)
    assert "is an adapter on /nowhere/at/all" in error.message
    assert str(where) in error.hint


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lora_alpha": "4"}, "the field 'lora_alpha' is '4'; int or float is expected"),
        ({"lora_alpha": None}, "the field 'lora_alpha' is None"),
        ({"use_rslora": "no"}, "the field 'use_rslora' is 'no'; bool is expected"),
        ({"rank_pattern": {"q_proj": "4"}}, "rank_pattern: the field 'q_proj' is '4'; int is expected"),
    ],
)
def test_a_field_of_an_adapter_with_another_type_is_named(
    fields: dict[str, object], message: str, adapter: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(adapter, tmp_path / "moved"))
    where = moved / "adapter_config.json"
    where.write_text(json.dumps(json.loads(where.read_text()) | fields))
    error = refusal(moved)
    assert str(where) in error.message
    assert message in error.message
    assert "Correct the field" in error.hint


def test_a_hub_name_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = refusal("some-org/some-model")
    assert "cannot be fetched from the Hugging Face hub" in error.message
    assert "network" in error.hint


def sharded(folder: Path, shard: str) -> None:
    """Turn the folder's weights into one shard of an index."""
    weights = load_file(folder / "model.safetensors")
    target = folder / shard
    target.parent.mkdir(exist_ok=True)
    if target.suffix == ".bin":
        torch.save(weights, target)
    else:
        save_file(weights, target, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("shard", ["../evil.bin", "evil.bin", "../evil.safetensors", "{}/evil.safetensors"])
def test_an_index_names_no_pickle_and_no_file_outside_the_folder(copy: Path, tmp_path: Path, shard: str) -> None:
    sharded(copy, shard.format(tmp_path))
    save_file({}, copy / "model-decoy.safetensors")
    assert "a safetensors file below its own folder is expected" in refusal(copy).message


@pytest.mark.parametrize("shard", [7, "x\0.safetensors", "x" * 5000 + ".safetensors"])
def test_an_index_with_what_is_no_name_is_one_message(copy: Path, shard: object) -> None:
    sharded(copy, "a.safetensors")
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    refusal(copy)


def test_the_fingerprint_is_of_the_files_that_the_index_names(copy: Path) -> None:
    sharded(copy, "extra/weights.safetensors")
    checkpoint = Checkpoint.open(str(copy))
    before = checkpoint.fingerprint()
    checkpoint.load_model(CPU, torch.float32)
    weights = load_file(copy / "extra/weights.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: weights[name] + 1}, copy / "extra/weights.safetensors", metadata={"format": "pt"})
    assert Checkpoint.open(str(copy)).fingerprint() != before


def test_weights_that_are_not_loaded_do_not_change_the_fingerprint(copy: Path) -> None:
    before = Checkpoint.open(str(copy)).fingerprint()
    save_file({}, copy / "model-ema.safetensors")
    assert Checkpoint.open(str(copy)).fingerprint() == before


def test_an_adapter_in_a_pickle_is_not_loaded_beside_a_decoy(adapter: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(adapter, tmp_path / "moved"))
    torch.save(load_file(moved / "adapter_model.safetensors"), moved / "adapter_model.bin")
    (moved / "adapter_model.safetensors").rename(moved / "model-decoy.safetensors")
    assert "as pickle only (adapter_model.bin)" in refusal(moved).message


def test_an_adapter_on_an_adapter_is_refused(adapter: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(adapter, tmp_path / "moved"))
    where = moved / "adapter_config.json"
    where.write_text(json.dumps(json.loads(where.read_text()) | {"base_model_name_or_path": str(adapter)}))
    assert "is itself an adapter" in refusal(moved).message


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"_attn_implementation": "kernels-community/x"}, "fetches and runs code of the hub"),
        ({"text_config": {"_attn_implementation": "user/kernel"}}, "fetches and runs code of the hub"),
        ({"transformers_weights": "other.safetensors"}, "names other weights"),
        ({"text_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers is 1,000,000,000; at most 1,000 layers"),
        ({"num_labels": 10**7}, "num_labels is 10,000,000; at most 100,000 labels"),
    ],
)
def test_a_configuration_brings_no_kernel_no_other_weights_and_no_billion_layers(
    copy: Path, field: dict[str, object], message: str
) -> None:
    with_fields(copy, field)
    assert message in refusal(copy).message


@pytest.mark.parametrize(
    "field",
    [
        {"attn_implementation": "user/kernel"},
        {"attn_implementation": "flash_attention_2"},
        {"attn_implementation": {"text_config": "user/kernel"}},
        {"text_config": {"attn_implementation": "user/kernel"}},
    ],
)
def test_the_attention_that_a_configuration_asks_for_is_not_taken(copy: Path, field: dict[str, object]) -> None:
    with_fields(copy, field)
    model = Checkpoint.open(str(copy)).load_model(torch.device("cpu"), torch.float32)
    assert {part._attn_implementation for part in (model.config, model.config.text_config)} == {"sdpa"}


def with_fields(folder: Path, field: dict[str, object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    merged = {name: config.get(name, {}) | value if name == "text_config" else value for name, value in field.items()}  # type: ignore[operator]
    (folder / "config.json").write_text(json.dumps(config | merged))


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("config.json", {"model_type": ["x"]}, "model_type is ['x'], which transformers"),
        ("config.json", {"vision_config": {"model_type": {}}}, "vision_config.model_type is {}, which transformers"),
        (
            "processor_config.json",
            {"num_additional_image_tokens": 10**7},
            "num_additional_image_tokens of the processor",
        ),
    ],
)
def test_a_field_of_another_type_or_size_is_one_message(
    copy: Path, file: str, fields: dict[str, object], message: str
) -> None:
    content = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(content | fields))
    assert message in refusal(copy).message


def test_architectures_that_are_no_list_name_no_original_layout(copy: Path) -> None:
    content = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(content | {"architectures": 10**30}))
    assert Checkpoint.open(str(copy)).original is None

"""A checkpoint whose parts do not fit each other is refused, and named, before the model is allocated."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, tiny_model
from transformers import AutoConfig

from napo_bench.core.errors import NapoBenchError
from napo_bench.models import soundness
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
    """LoRA on the attention, and a projector that trained with it."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapter")
    settings = LoraConfig(
        r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["multi_modal_projector"], init_lora_weights=False
    )
    get_peft_model(Checkpoint.open(str(tiny)).load_model(CPU, torch.float32), settings).save_pretrained(folder)
    set_fields(folder / "adapter_config.json", base_model_name_or_path=str(tiny))
    return folder


@pytest.fixture
def other_adapter(adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter, tmp_path / "adapter"))


def set_fields(path: Path, **fields: object) -> None:
    """Set fields of a JSON file; None takes a field away."""
    document = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))


def edit(path: Path, change: Callable[[str, torch.Tensor], tuple[str, torch.Tensor] | None]) -> None:
    """Rename, change or drop (None) each stored weight."""
    changed = [change(name, tensor) for name, tensor in load_file(path).items()]
    save_file(dict(entry for entry in changed if entry is not None), path, metadata={"format": "pt"})


def refusal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> NapoBenchError:
    """What opening a checkpoint raises; loading the model's weights would fail the test."""
    monkeypatch.setattr(Checkpoint, "load_model", lambda *_: pytest.fail("the model was allocated"))
    with pytest.raises(NapoBenchError) as caught:
        Checkpoint.open(str(folder)).open_parts()
    return caught.value


@pytest.mark.parametrize("family", [*FAMILIES, "gemma3"])
def test_what_transformers_saves_lands_in_every_family(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    found = soundness.skeleton(tmp_path, AutoConfig.from_pretrained(tmp_path))
    assert {name: tensor.shape for name, tensor in found.state_dict().items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }
    assert {parameter.device.type for parameter in found.parameters()} == {"meta"}


@pytest.mark.parametrize("family", [*FAMILIES, "gemma3"])
def test_a_weight_that_is_missing_or_unknown_is_named_in_every_family(family: str, tmp_path: Path) -> None:
    tiny_model(family).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    gone = next(name for name in load_file(weights) if name.endswith("q_proj.weight"))
    edit(weights, lambda name, tensor: (name + "_old", tensor) if name == gone else (name, tensor))
    with pytest.raises(
        NapoBenchError, match=r"missing weights of the model \(1\).*stored weights that the model does not know \(1\)"
    ) as caught:
        soundness.skeleton(tmp_path, AutoConfig.from_pretrained(tmp_path))
    assert "q_proj.weight_old" in caught.value.message


def test_both_layouts_of_names_that_transformers_has_written_land(copy: Path) -> None:
    def newer(name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
        for old, new in {"language_model.lm_head": "lm_head", "language_model.model": "model.language_model"}.items():
            name = name.replace(old, new)
        return (f"model.{name}" if name.startswith(("vision", "multi")) else name), tensor

    Checkpoint.open(str(copy)).open_parts()
    edit(copy / "model.safetensors", newer)
    Checkpoint.open(str(copy)).open_parts()


def test_the_names_of_the_original_llava_are_refused_without_advice_to_convert_them(copy, monkeypatch) -> None:
    def original(name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
        name = name.replace("multi_modal_projector.linear_1", "model.mm_projector.0").replace("language_model.", "")
        return name.replace("multi_modal_projector.linear_2", "model.mm_projector.2"), tensor

    edit(copy / "model.safetensors", original)
    error = refusal(copy, monkeypatch)
    assert "(24): model.language_model.embed_tokens" in error.message
    assert "that the model does not know (24): model.embed_tokens" in error.message
    assert "llava-hf/llava-1.5-7b-hf" in error.hint
    assert "save_pretrained" not in error.hint


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_a_config_without_a_part_is_not_built_as_a_model_of_seven_billion(part: str, copy: Path, monkeypatch) -> None:
    set_fields(copy / "config.json", **{part: None})
    error = refusal(copy, monkeypatch)
    assert "weights of another shape" in error.message
    assert "config.json" in error.hint


def test_five_names_are_shown(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(copy / "model.safetensors", lambda name, tensor: None if "layers.1." in name else (name, tensor))
    error = refusal(copy, monkeypatch)
    assert error.message.count("layers.1.") == 5
    assert "weights of the model (25)" in error.message
    assert "and 20 more" in error.message


def test_a_shard_that_is_not_there_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = dict.fromkeys(load_file(copy / "model.safetensors"), "model-00001-of-00002.safetensors")
    (copy / "model.safetensors").rename(copy / "model-00001-of-00002.safetensors")
    names[next(iter(names))] = "model-00002-of-00002.safetensors"
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert f"{copy / 'model-00002-of-00002.safetensors'} is missing" in refusal(copy, monkeypatch).message


@pytest.mark.parametrize("name", ["tokenizer.json", "processor_config.json", "config.json", "generation_config.json"])
def test_a_file_that_is_cut_off_is_named(name: str, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / name).write_bytes((copy / name).read_bytes()[:60])
    assert str(copy / name) in refusal(copy, monkeypatch).message


def test_a_missing_tokenizer_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "tokenizer.json").unlink()
    assert "has no tokenizer" in refusal(copy, monkeypatch).message


@pytest.mark.parametrize(
    "fields",
    [
        ("patch_size", "vision_feature_select_strategy"),
        ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"),
    ],
)
def test_fields_that_an_older_processor_lacks_are_taken_from_the_config(fields: tuple[str, ...], copy: Path) -> None:
    set_fields(copy / "processor_config.json", **dict.fromkeys(fields))
    config, processor = Checkpoint.open(str(copy)).open_parts()
    assert processor.patch_size == config.vision_config.patch_size == 14
    assert processor.vision_feature_select_strategy == "default"
    assert processor.num_additional_image_tokens == 1


def test_a_field_that_config_and_processor_lack_is_named(copy: Path) -> None:
    checkpoint = Checkpoint.open(str(copy))
    config, processor = checkpoint.open_parts()
    processor.patch_size = config.vision_config.patch_size = None
    with pytest.raises(NapoBenchError, match="the processor lacks the field 'patch_size'"):
        soundness.complete_processor(copy, processor, config)


@pytest.mark.parametrize(
    ("file", "fields", "said"),
    [
        ("processor_config.json", {"patch_size": 16}, "patch_size is 16; config.json says 14"),
        ("processor_config.json", {"vision_feature_select_strategy": "full"}, "is 'full'; config.json says 'default'"),
        ("processor_config.json", {"num_additional_image_tokens": 0}, "writes 15 image tokens .* makes 16 features"),
        ("config.json", {"image_token_index": 7}, "'<image>' is number 577; config.json says 7"),
        ("processor_config.json", {"image_token": "<picture>"}, "has no image token .processor: '<picture>'"),
        ("tokenizer_config.json", {"pad_token": "<another-pad>"}, "pad_token of the tokenizer is number 578; .* 578"),
    ],
)
def test_parts_that_disagree_are_refused(file, fields, said, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_fields(copy / file, **fields)
    assert re.search(said, refusal(copy, monkeypatch).message)


def test_images_of_another_size_than_the_towers_are_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads((copy / "processor_config.json").read_text())
    document["image_processor"] |= {"size": {"shortest_edge": 42}, "crop_size": {"height": 42, "width": 42}}
    (copy / "processor_config.json").write_text(json.dumps(document))
    assert "cannot take the processor's images of [1, 3, 42, 42]" in refusal(copy, monkeypatch).message


def test_an_adapter_that_fits_is_accepted(adapter: Path) -> None:
    Checkpoint.open(str(adapter)).open_parts()


def test_adapter_weights_that_land_nowhere_are_named(other_adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = other_adapter / "adapter_model.safetensors"
    edit(weights, lambda name, tensor: (name.replace("language_model.layers", "layers"), tensor))
    error = refusal(other_adapter, monkeypatch)
    assert "8 weights of the adapter have no place in its base: base_model.model.model.layers.0" in error.message
    assert error.message.count("lora_") == 5


def test_adapter_weights_that_are_missing_are_named(other_adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = other_adapter / "adapter_model.safetensors"
    edit(weights, lambda name, tensor: None if "layers.1.self_attn.q_proj.lora_B" in name else (name, tensor))
    error = refusal(other_adapter, monkeypatch)
    assert "weights that adapter_config.json asks for are missing" in error.message
    assert "language_model.layers.1.self_attn.q_proj.lora_B" in error.message


def test_a_whole_module_that_an_adapter_lacks_is_named(other_adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = other_adapter / "adapter_model.safetensors"
    edit(weights, lambda name, tensor: None if "multi_modal_projector" in name else (name, tensor))
    assert "multi_modal_projector.linear_1" in refusal(other_adapter, monkeypatch).message


def test_an_adapter_of_another_base_is_refused(other_adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = other_adapter / "adapter_model.safetensors"
    edit(weights, lambda name, tensor: (name, tensor[:, :32].clone() if "lora_A" in name else tensor))
    error = refusal(other_adapter, monkeypatch)
    assert "4 weights of the adapter have another shape than its base" in error.message
    assert "language_model.layers.0.self_attn.q_proj.lora_A" in error.message


@pytest.mark.parametrize("name", ["non_lora_trainables.bin", "mm_projector.bin"])
def test_weights_in_a_pickle_beside_an_adapter_are_not_left_out(name, other_adapter, monkeypatch) -> None:
    torch.save({}, other_adapter / name)
    assert f"{other_adapter / name} holds weights" in refusal(other_adapter, monkeypatch).message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_named(value: float, copy: Path) -> None:
    def spoil(name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
        if name.endswith("layers.1.mlp.up_proj.weight"):
            tensor[3, 5] = value
        return name, tensor

    edit(copy / "model.safetensors", spoil)
    with pytest.raises(NapoBenchError, match=r"NaN or infinity in float32 in these weights \(1\)") as caught:
        Checkpoint.open(str(copy)).load_model(CPU, torch.float32)
    assert "model.language_model.layers.1.mlp.up_proj.weight" in caught.value.message


def test_a_weight_that_overflows_in_float16_is_named_with_the_type(copy: Path) -> None:
    edit(copy / "model.safetensors", lambda name, tensor: (name, tensor * 1e6 if "lm_head" in name else tensor))
    Checkpoint.open(str(copy)).load_model(CPU, torch.bfloat16)
    with pytest.raises(NapoBenchError, match=r"in float16 in these weights \(1\): lm_head.weight") as caught:
        Checkpoint.open(str(copy)).load_model(CPU, torch.float16)
    assert "--dtype bfloat16" in caught.value.hint


def test_an_adapter_that_is_not_finite_is_named(other_adapter: Path) -> None:
    weights = other_adapter / "adapter_model.safetensors"
    edit(weights, lambda name, tensor: (name, tensor * float("nan") if "layers.0" in name else tensor))
    with pytest.raises(NapoBenchError, match=rf"{other_adapter}: NaN or infinity in float32 in these weights \(4\)"):
        Checkpoint.open(str(other_adapter)).load_model(CPU, torch.float32)


def test_large_weights_of_one_sign_are_finite_in_float16() -> None:
    """The largest and the smallest value may not be added: 60,000 twice is infinite in float16."""
    layer = torch.nn.Linear(2, 2).half()
    torch.nn.init.constant_(layer.weight, 60000.0)
    soundness.require_finite(Path("here"), layer)


@pytest.mark.parametrize(
    ("file", "fields", "named"),
    [
        ("generation_config.json", {"eos_token_id": "</s>"}, "eos_token_id is '</s>'"),
        ("generation_config.json", {"eos_token_id": [2, "3"]}, "eos_token_id is .2, '3'."),
        ("config.json", {"text_config": {"num_attention_heads": 3}}, "number of attention heads"),
        ("config.json", {"text_config": {"hidden_size": "64"}}, "hidden_size"),
        ("config.json", {"vision_feature_layer": -9}, "vision_feature_layer -9"),
    ],
)
def test_fields_that_no_model_can_have_are_named(copy: Path, file: str, fields: dict[str, object], named: str) -> None:
    held = json.loads((copy / file).read_text()) if (copy / file).is_file() else {}
    for name, value in fields.items():
        held[name] = {**held[name], **value} if isinstance(value, dict) else value
    (copy / file).write_text(json.dumps(held))
    with pytest.raises(NapoBenchError, match=named) as caught:
        Checkpoint.open(str(copy)).open_parts()
    assert caught.value.hint


def test_a_chat_template_that_is_cut_off_is_named(copy: Path) -> None:
    from napo_bench.models.conversation import Conversation

    processor = Checkpoint.open(str(copy)).load_processor()
    processor.chat_template = "{% for message in messages %}{{ message.x "
    config = Checkpoint.open(str(copy)).load_config()
    with pytest.raises(NapoBenchError, match=r"chat template cannot be used.*TemplateSyntaxError"):
        Conversation.of(processor, config).prompt("What is this?", has_image=True)


def test_whole_numbers_without_a_quantization_config_are_no_weights(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights = {name: (weight * 100).to(torch.int8) for name, weight in weights.items()}
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NapoBenchError, match="stored as I8, and config"):
        Checkpoint.open(str(copy)).open_parts()


def test_an_empty_name_is_no_folder() -> None:
    with pytest.raises(NapoBenchError, match="name of the checkpoint is empty"):
        Checkpoint.open("")

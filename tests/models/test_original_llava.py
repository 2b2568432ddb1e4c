"""LLaVA's original layout: the same model in both layouts has the same prompts, logits and answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import original_layout as layout
import pytest
import sentencepiece
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from synthetic_runs import invoke
from tiny_llava import make_data
from tiny_rows import tiny_rows, write_rows

from napo_bench.core.errors import NapoBenchError
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.conversation import Conversation
from napo_bench.trainers.recipe import load_recipe
from napo_bench.trainers.run import train

CPU = torch.device("cpu")
QUESTION = "Is the bear  blue?\nTrue or False, größe 犬"


class World:
    """A LLaVA in the layout of transformers (`twin`), and its folder in the original layout (`folder`)."""

    def __init__(self, root: Path) -> None:
        self.folder, self.tower = root / "llava", root / "tower"
        self.pieces = layout.write_tokenizer(self.folder)
        self.twin = layout.twin(self.pieces)
        self.weights = layout.language_weights(self.twin, self.pieces)
        layout.write_tower(self.tower, self.twin)
        layout.write_settings(self.folder, self.tower, self.pieces)
        save_file(self.weights, self.folder / "model.safetensors", metadata={"format": "pt"})

    def bare(self, folder: Path, **fields: object) -> Path:
        """A folder without weights: configuration and tokenizer."""
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        layout.write_settings(folder, self.tower, self.pieces, **fields)
        return folder

    def logits(self, model: torch.nn.Module) -> torch.Tensor:
        """The logits of a question about an image, of the tokens that the tokenizer has."""
        _, processor = Checkpoint.open(str(self.folder)).open_parts()
        config = Checkpoint.open(str(self.folder)).load_config()
        asked = Conversation.of(processor, config)
        image = asked.prepare_image(Image.effect_mandelbrot((60, 20), (-2, -1, 1, 1), 40).convert("RGB"))
        with torch.no_grad():
            inputs = asked.encode([asked.prompt(QUESTION, has_image=True)], [image])
            return model(**inputs).logits[..., : self.pieces]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("original"))


def load(folder: Path) -> torch.nn.Module:
    checkpoint = Checkpoint.open(str(folder))
    checkpoint.open_parts()
    return checkpoint.load_model(CPU, torch.float32)


def assert_same_logits(world: World, folder: Path, twin: torch.nn.Module | None = None) -> None:
    expected = world.logits(world.twin if twin is None else twin)
    torch.testing.assert_close(world.logits(load(folder)), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.numeric
def test_both_layouts_have_the_same_logits(world: World) -> None:
    assert_same_logits(world, world.folder)


@pytest.mark.numeric
def test_the_projector_and_the_shards_may_be_pickles_of_tensors(world: World, tmp_path: Path) -> None:
    folder = world.bare(tmp_path / "pickled")
    projector = {name: weight for name, weight in world.weights.items() if "mm_projector" in name}
    layout.write_shards(folder, {name: one for name, one in world.weights.items() if name not in projector})
    torch.save(projector, folder / "mm_projector.bin")
    assert_same_logits(world, folder)


@pytest.mark.numeric
def test_a_tower_among_the_weights_replaces_the_named_tower(world: World, tmp_path: Path) -> None:
    folder = world.bare(tmp_path / "own-tower")
    other = layout.twin(world.pieces, seed=1)
    own = {f"model.vision_tower.vision_tower.{name}": one for name, one in layout.tower_weights(other).items()}
    own = {name: one for name, one in own.items() if ".vision_model." in name}
    save_file(world.weights | own, folder / "model.safetensors", metadata={"format": "pt"})
    mixed = layout.twin(world.pieces)
    mixed.model.vision_tower.load_state_dict(other.model.vision_tower.state_dict())
    assert_same_logits(world, folder, mixed)
    read = {path.name for part, path in Checkpoint.open(str(folder)).original.parts() if part == "tower"}
    assert read == {"config.json", "preprocessor_config.json"}


def test_prompts_are_those_of_sentencepiece_to_the_token(world: World) -> None:
    config, processor = Checkpoint.open(str(world.folder)).open_parts()
    pieces = sentencepiece.SentencePieceProcessor(str(world.folder / "tokenizer.model"))
    asked = Conversation.of(processor, config)
    for name in ("llava_v1", "vicuna_v1"):
        prompt = Conversation.of(processor, config, name).prompt(QUESTION, has_image=True)
        before, behind = (pieces.encode(part) for part in prompt.split("<image>"))
        assert asked.prompt_ids(prompt, 4) == [1, *before, *[world.pieces] * 4, *behind]
    assert processor.tokenizer.decode(pieces.encode(QUESTION)) == pieces.decode(pieces.encode(QUESTION))
    assert asked.name == "llava_v1"


def test_a_real_vocabulary_gives_the_tokens_of_sentencepiece(shared, world: World, tmp_path: Path) -> None:
    model = shared("reference/tokenizer/sentencepiece_32k.model")
    folder = world.bare(tmp_path / "real", vocab_size=32000)
    shutil.copy(model, folder / "tokenizer.model")
    checkpoint = Checkpoint.open(str(folder))
    config, tokenizer = checkpoint.load_config(), checkpoint.load_processor().tokenizer
    assert (config.image_token_id, config.text_config.vocab_size) == (32000, 32064)
    pieces = sentencepiece.SentencePieceProcessor(str(model))
    for text in (QUESTION, "\ntwo  blanks\n\n\tand a tab", "ASSISTANT: a photograph, 1,234 €"):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == pieces.encode(text)


@pytest.mark.parametrize(("shape", "square"), [("pad", (122, 116, 104)), ("square", None), (None, None)])
def test_images_have_the_shape_that_config_json_says(world: World, tmp_path: Path, shape, square) -> None:
    folder = world.bare(tmp_path / "shape", image_aspect_ratio=shape)
    checkpoint = Checkpoint.open(str(folder))
    assert Conversation.of(checkpoint.load_processor(), checkpoint.load_config()).square == square


def test_rows_without_a_token_are_never_an_answer(world: World) -> None:
    model = load(world.folder)
    rows = model.config.text_config.vocab_size
    assert model.generation_config.suppress_tokens == list(range(world.pieces, rows))
    head = model.lm_head.weight.detach()
    torch.testing.assert_close(head[world.pieces :], head[: world.pieces].mean(0).expand(rows - world.pieces, -1))


# --- LoRA ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lora(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """A LoRA folder as LLaVA's train.py writes it, on a language model without a projector; and the merged twin."""
    folder = tmp_path_factory.mktemp("lora")
    base = world.bare(folder / "vicuna")
    plain = {name: one for name, one in world.weights.items() if "mm_projector" not in name}
    save_file(plain, base / "model.safetensors", metadata={"format": "pt"})
    said = json.loads((base / "config.json").read_text())
    said = {name: value for name, value in said.items() if not name.startswith(("mm_", "image_"))}
    (base / "config.json").write_text(json.dumps(said | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    out = folder / "lora"
    merged = layout.write_lora(out, str(base), world.tower, world.pieces)
    return out, merged


@pytest.mark.numeric
def test_a_lora_is_merged_with_the_weights_that_were_trained_beside_it(world: World, lora) -> None:
    folder, merged = lora
    expected, found = world.logits(merged), world.logits(load(folder))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (found - world.logits(world.twin)).abs().max() > 0.1


def test_a_lora_in_a_pickle_has_the_same_weights(lora, tmp_path: Path) -> None:
    out = Path(shutil.copytree(lora[0], tmp_path / "lora"))
    torch.save(load_file(out / "adapter_model.safetensors"), out / "adapter_model.bin")
    (out / "adapter_model.safetensors").unlink()
    one, other = load(out).state_dict(), load(lora[0]).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in other)


# --- the fingerprint -----------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_the_files_that_are_read(lora, world: World, tmp_path: Path) -> None:
    out = Path(shutil.copytree(lora[0], tmp_path / "lora"))
    tower = Path(shutil.copytree(world.tower, tmp_path / "tower"))
    layout.write_settings(out, tower, world.pieces)

    def fingerprint() -> str:
        return Checkpoint.open(str(out)).fingerprint()

    before = fingerprint()
    (out / "trainer_state.json").write_text("{}")
    (out / "generation_config.json").write_text("{}")  # the base's is read
    assert fingerprint() == before
    seen = {before}
    for path, key in ((tower / "pytorch_model.bin", "logit_scale"), (out / "non_lora_trainables.bin", None)):
        tensors = torch.load(path, weights_only=True)
        tensors[key or next(iter(tensors))] += 1
        torch.save(tensors, path)
        seen.add(fingerprint())
    (tower / "preprocessor_config.json").write_text((tower / "preprocessor_config.json").read_text() + " ")
    seen.add(fingerprint())
    assert len(seen) == 4


# --- what is refused -----------------------------------------------------------------------------------------------


class Runs:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def no_tower(folder: Path, world: World) -> str:
    layout.write_settings(folder, world.tower.parent / "gone", world.pieces)
    return "the vision tower (mm_vision_tower) is"


def unknown_keys(folder: Path, world: World) -> str:
    extra = {f"model.extra.{number}.weight": torch.ones(2) for number in range(7)}
    save_file(world.weights | extra, folder / "model.safetensors", metadata={"format": "pt"})
    return "stored weights that the model does not know (7): model.extra.0.weight, model.extra.1.weight, "


def other_projector(folder: Path, world: World) -> str:
    wide = {"model.mm_projector.0.weight": torch.ones(32, 99)}
    save_file(world.weights | wide, folder / "model.safetensors", metadata={"format": "pt"})
    return "model.mm_projector.0.weight (stored [32, 99], config.json [32, 24])"


def no_projector(folder: Path, world: World) -> str:
    plain = {name: one for name, one in world.weights.items() if "mm_projector" not in name}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    return "missing weights of the model (4): model.multi_modal_projector.linear_1.bias"


def code(folder: Path, world: World) -> str:
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": torch.ones(32), "run": Runs(folder / "ran")}, folder / "pytorch_model.bin")
    return "pytorch_model.bin is no file of tensors alone: it asks for getattr, which is no part of a tensor."


def damaged(folder: Path, world: World) -> str:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"damaged" * 99)
    return "pytorch_model.bin is no file of tensors alone: it is damaged"


def no_dictionary(folder: Path, world: World) -> str:
    (folder / "model.safetensors").unlink()
    torch.save({"step": 3}, folder / "pytorch_model.bin")
    return "'step' is a int"


def another_llava(folder: Path, world: World) -> str:
    layout.write_settings(folder, world.tower, world.pieces, mm_patch_merge_type="spatial_unpad")
    return "mm_patch_merge_type is 'spatial_unpad'"


def another_architecture(folder: Path, world: World) -> str:
    layout.write_settings(folder, world.tower, world.pieces, architectures=["LlavaMptForCausalLM"])
    return "architectures is ['LlavaMptForCausalLM']"


DAMAGES = [
    no_tower, unknown_keys, other_projector, no_projector, code, damaged, no_dictionary, another_llava,
    another_architecture,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_with_a_fault_is_refused_in_one_message(damage, world: World, tmp_path: Path, monkeypatch) -> None:
    folder = Path(shutil.copytree(world.folder, tmp_path / "copy"))
    message = damage(folder, world)
    monkeypatch.setattr(Checkpoint, "load_model", None)
    with pytest.raises(NapoBenchError) as caught:
        Checkpoint.open(str(folder)).open_parts()
    assert message in caught.value.message
    assert str(folder) in caught.value.message
    assert "\n" not in caught.value.message
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("fault", ["shape", "gap", "place"])
def test_a_lora_for_another_base_is_refused(fault: str, lora, tmp_path: Path) -> None:
    out = Path(shutil.copytree(lora[0], tmp_path / "lora"))
    weights = load_file(out / "adapter_model.safetensors")
    down = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"
    q = "base_model.model.model.layers.1.self_attn.q_proj"
    if fault == "shape":
        weights[down] = torch.ones(2, 99)
    elif fault == "gap":
        weights = {name: one for name, one in weights.items() if not name.startswith(q)}
    else:
        weights |= {
            name.replace("layers.1", "layers.7"): one.clone() for name, one in weights.items() if "layers.1" in name
        }
    save_file(weights, out / "adapter_model.safetensors")
    expected = {"shape": "have another shape than its base", "gap": "layers.1.self_attn.q_proj", "place": "no place"}
    with pytest.raises(NapoBenchError) as caught:
        Checkpoint.open(str(out)).open_parts()
    assert expected[fault] in caught.value.message
    assert "another base's" in caught.value.hint


def test_a_lora_whose_base_is_another_model_names_the_base(lora, world: World, tmp_path: Path) -> None:
    out = Path(shutil.copytree(lora[0], tmp_path / "lora"))
    base = Path(shutil.copytree(world.folder, tmp_path / "other-base"))
    save_file({"model.visual.weight": torch.ones(2)}, base / "model.safetensors", metadata={"format": "pt"})
    where = out / "adapter_config.json"
    where.write_text(json.dumps(json.loads(where.read_text()) | {"base_model_name_or_path": str(base)}))
    with pytest.raises(NapoBenchError) as caught:
        Checkpoint.open(str(out)).open_parts()
    assert caught.value.message.startswith(f"{where}: the base (base_model_name_or_path) is '{base}'")
    assert "model.visual.weight" in caught.value.message
    assert caught.value.hint.startswith("Set base_model_name_or_path")


# --- commands ------------------------------------------------------------------------------------------------------


def test_eval_takes_the_folder_and_refuses_a_fault_with_exit_code_2(world: World, tmp_path: Path, monkeypatch, capsys):
    make_data(tmp_path / "data", size=1)
    monkeypatch.chdir(tmp_path)
    layout.write_settings(world.folder, world.tower, world.pieces)
    command = ["eval", "--device", "cpu", "--suite", "vlind", "--data-dir", str(tmp_path / "data")]
    code, _, error = invoke([*command, "--ckpt", str(world.folder)], monkeypatch, capsys, width=200)
    assert code == 0, error
    run = json.loads((tmp_path / "runs/llava/run.json").read_text())
    assert run["provenance"]["checkpoint"]["fingerprint"] == Checkpoint.open(str(world.folder)).fingerprint()
    broken = Path(shutil.copytree(world.folder, tmp_path / "broken"))
    message = unknown_keys(broken, world)
    code, out, error = invoke([*command, "--ckpt", str(broken)], monkeypatch, capsys, width=200)
    assert (code, out) == (2, "")
    assert message.partition(":")[0] in " ".join(error.split())


@pytest.mark.parametrize("lora_r", [0, 2])
def test_train_takes_the_folder_and_saves_what_eval_takes(lora_r: int, world: World, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.parquet", tiny_rows(4))
    settings = {"base": world.folder, "data": rows, "per_device_batch_size": 2, "epochs": 1, "learning_rate": 1e-2}
    settings |= {"lora_r": lora_r, "training_image": "pad"}
    recipe = load_recipe("micro-dpo", [f"{name}={value}" for name, value in settings.items()])
    out = train(recipe, tmp_path / "out", cache=tmp_path / "cache")
    model = load(out)
    config, processor = Checkpoint.open(str(out)).open_parts()
    assert Conversation.of(processor, config).name == "llava_v1"
    moved = world.logits(model) - world.logits(world.twin)
    assert moved.abs().max() > 1e-4
    assert model.generation_config.suppress_tokens[0] == world.pieces


def test_the_hubs_names_are_fetched_with_the_files_that_are_read(world: World, lora, tmp_path: Path, monkeypatch):
    """The adapter, its base and the tower are names on the hub; only wanted files arrive."""
    hub = {"authors/lora": Path(shutil.copytree(lora[0], tmp_path / "lora")), "authors/clip": world.tower}
    hub["authors/vicuna"] = lora[0].parent / "vicuna"
    settings = json.loads((hub["authors/lora"] / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "authors/vicuna"
    (hub["authors/lora"] / "adapter_config.json").write_text(json.dumps(settings))
    layout.write_settings(hub["authors/lora"], Path("authors/clip"), world.pieces)
    (hub["authors/lora"] / "optimizer.bin").write_bytes(b"not wanted")

    def snapshot_download(name: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        fetched = tmp_path / "fetched" / name
        fetched.mkdir(parents=True, exist_ok=True)
        for path in hub[name].iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                shutil.copy(path, fetched)
        return str(fetched)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    checkpoint = Checkpoint.open("authors/lora")
    checkpoint.open_parts()
    read = {(part, path.name) for part, path in checkpoint.original.parts()}
    assert {("adapter", "non_lora_trainables.bin"), ("tower", "pytorch_model.bin")} < read
    assert not (tmp_path / "fetched/authors/lora/optimizer.bin").exists()
    assert {path for _, path in checkpoint.original.parts()} <= set((tmp_path / "fetched").rglob("*"))

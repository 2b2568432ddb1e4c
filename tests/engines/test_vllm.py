"""The engine `vllm`: against vLLM where it is installed, else against a stand-in with vLLM's signatures."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import original_layout as layout
import pytest
import torch
from families import make_family
from peft import LoraConfig, get_peft_model
from pyarrow import parquet
from safetensors.torch import load_file, save_file
from synthetic_runs import invoke
from tiny_llava import make_checkpoint, make_data, picture

from napo_bench.core.caches import kept
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.images import PLACE
from napo_bench.core.journal import Journal
from napo_bench.core.progress import SILENT
from napo_bench.engines.answering import Answering
from napo_bench.engines.engine import Engine, EngineOptions
from napo_bench.engines.hf import HFEngine
from napo_bench.engines.registry import engine_named
from napo_bench.engines.request import Generation, Picture, Request
from napo_bench.engines.vllm_limits import devices, memory_share
from napo_bench.micro.base import base_checkpoint
from napo_bench.micro.preferences import write_preference_rows
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.whole import whole_folder

STAND_IN = Path(__file__).resolve().parents[1] / "support" / "vllm_stand_in"
IS_INSTALLED = importlib.util.find_spec("vllm") is not None
PICTURES = [Picture.of(picture(random.Random(number))) for number in range(3)]
QUESTIONS = ("Is there a dog in the image?", "Describe the image in detail.", "What color is the car?", "")
GREEDY = Generation(max_new_tokens=14)
BEAMS = Generation(max_new_tokens=10, num_beams=3)


def vllm_on_path(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    if not IS_INSTALLED:
        patch.syspath_prepend(STAND_IN)


@pytest.fixture(autouse=True)
def _vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    vllm_on_path(monkeypatch)
    yield
    if not IS_INSTALLED:
        for name in ("vllm", "vllm.platforms"):
            sys.modules.pop(name, None)


def requests(generation: Generation, pictures: list[Picture] = PICTURES) -> list[Request]:
    about_images = [Request(question, image, generation) for image in pictures for question in QUESTIONS]
    return [*about_images, *(Request(question, None, generation) for question in QUESTIONS[:3])]


def vllm_engine(checkpoint: Any, **options: Any) -> Engine:
    return engine_named("vllm").open(str(checkpoint), EngineOptions(**{"batch_size": 4, **options}))


def answers(engine: Engine, asked: list[Request], journal: Path) -> list[tuple[str, bool | None]]:
    with Journal(journal) as opened:
        found = Answering(engine, opened, SILENT).answer(asked, len(asked))
    return [(str(answer), answer.cut_off) for answer in found]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The command that evaluates the micro base on tiny data."""
    folder = tmp_path_factory.mktemp("data")
    make_data(folder, 2)
    return ["eval", "--ckpt", "micro", "--suite", "amber_discriminative", "--data-dir", folder, "--device", "cpu"]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[tuple[str, bool | None]]]]:
    """Engine -> the answers of the micro base, greedy and by three beams."""
    folder = tmp_path_factory.mktemp("both")
    with pytest.MonkeyPatch.context() as patch:
        vllm_on_path(patch)
        patch.setenv("XDG_CACHE_HOME", str(folder))
        engines = {"hf": HFEngine(str(base_checkpoint()), 4, "cpu"), "vllm": vllm_engine(base_checkpoint())}
        asked = [requests(GREEDY), requests(BEAMS, PICTURES[:1])]
        return {
            name: [answers(engine, some, folder / f"{name}.sqlite") for some in asked]
            for name, engine in engines.items()
        }


@pytest.mark.skipif(not IS_INSTALLED, reason="vllm is not installed")
def test_the_stand_in_has_the_signatures_of_vllm() -> None:
    import vllm
    from vllm.engine.arg_utils import EngineArgs
    from vllm.inputs import TokensPrompt
    from vllm.logprobs import Logprob
    from vllm.outputs import CompletionOutput
    from vllm.platforms import current_platform

    spec = importlib.util.spec_from_file_location("stand_in", STAND_IN / "vllm/__init__.py")
    assert spec is not None and spec.loader is not None
    stand_in = importlib.util.module_from_spec(spec)
    sys.modules["stand_in"] = stand_in
    spec.loader.exec_module(stand_in)

    def keywords(function: Any) -> set[str]:
        kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        return {name for name, one in inspect.signature(function).parameters.items() if one.kind not in kinds}

    arguments = {field.name for field in dataclasses.fields(EngineArgs)}
    assert keywords(stand_in.LLM.__init__) <= keywords(vllm.LLM.__init__) | arguments
    assert keywords(stand_in.LLM.generate) <= keywords(vllm.LLM.generate)
    assert "bool" in str(inspect.signature(vllm.LLM.generate).parameters["use_tqdm"].annotation)
    assert keywords(stand_in.RequestOutput) <= keywords(vllm.RequestOutput.__init__)
    for mine, theirs in ((stand_in.CompletionOutput, CompletionOutput), (stand_in.Logprob, Logprob)):
        names = {field.name for field in dataclasses.fields(mine)}
        assert names <= {field.name for field in dataclasses.fields(theirs)}
    plain = vllm.SamplingParams()
    for field in dataclasses.fields(stand_in.SamplingParams):
        assert getattr(plain, field.name) == (
            field.default if field.default is not None else getattr(plain, field.name)
        )
    assert {"prompt_token_ids", "multi_modal_data", "multi_modal_uuids"} <= set(TokensPrompt.__annotations__) | {
        name for base in TokensPrompt.__mro__ for name in getattr(base, "__annotations__", {})
    }
    assert isinstance(current_platform.device_type, str)


@pytest.mark.numeric
@pytest.mark.parametrize(("place", "least"), [(0, 8), (1, 4)], ids=["greedy", "three beams"])
def test_answers_in_float32_are_those_of_the_engine_hf(both: dict[str, list[Any]], place: int, least: int) -> None:
    assert both["vllm"][place] == both["hf"][place]
    assert len(set(both["hf"][place])) >= least
    assert {cut_off for _, cut_off in both["hf"][place]} == {True, False}


@pytest.mark.numeric
def test_several_images_stand_where_the_question_marks_them(tmp_path: Path) -> None:
    # vLLM computes with heads of 32 dimensions at least.
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
    sizes = {"hidden_size": 128, "head_dim": 32, "rope_parameters": rope}
    make_family(tmp_path / "qwen", "qwen2_5_vl", text=sizes, vision={"out_hidden_size": 128})
    first, second, third = PICTURES
    texts = (f"Is {PLACE} like {PLACE}?", f"{PLACE}{PLACE} Alike?")
    asked = [Request(text, one, GREEDY, (other,)) for text in texts for one, other in ((first, second), (third, first))]
    found = {}
    for name, engine in {
        "hf": HFEngine(str(tmp_path / "qwen"), 4, "cpu"),
        "vllm": vllm_engine(tmp_path / "qwen", device="cpu"),
    }.items():
        engine.require_pictures(2)
        found[name] = answers(engine, asked, tmp_path / f"{name}.sqlite")
    assert found["vllm"] == found["hf"]
    assert len(set(found["hf"])) > 1


@pytest.mark.skipif(IS_INSTALLED, reason="needs an environment without vllm")
def test_without_vllm_one_message_says_how_to_install_it(command, monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(STAND_IN)])
    code, out, err = invoke([*command, "--engine", "vllm", "--out", tmp_path / "run"], monkeypatch, capsys)
    assert (code, out) == (2, "")
    assert "The engine vllm needs the package vllm, which is not installed." in err
    assert 'pip install "napo-bench[vllm]"' in err
    assert "Answering" not in err


def test_a_run_says_that_vllm_answered_and_compares_with_one_of_hf(
    command, monkeypatch, capsys, tmp_path: Path
) -> None:
    for name in ("hf", "vllm"):
        code, _, err = invoke([*command, "--engine", name, "--out", tmp_path / name], monkeypatch, capsys)
        assert code == 0, err
    import vllm

    document = json.loads((tmp_path / "vllm/run.json").read_text())
    source = document["provenance"]
    assert source["generation"]["engine"] == source["identity"]["engine"] == "vllm"
    assert source["generation"]["vllm"] == vllm.__version__
    assert (source["generation"]["dtype"], source["generation"]["device"]) == ("float32", "cpu")
    assert source["stages"]["prefill and decoding"]["tokens"] > 0
    code, out, _ = invoke(["compare", tmp_path / "vllm", tmp_path / "hf"], monkeypatch, capsys)
    assert code == 0
    assert f"note amber, baseline: answered by vLLM {vllm.__version__}" in " ".join(out.split())
    assert "amber: 2 of 2 (100.0%)" in out
    code, _, err = invoke([*command, "--engine", "vllm", "--out", tmp_path / "hf"], monkeypatch, capsys)
    assert code == 2 and "engine was hf and is vllm" in " ".join(err.split())


def test_a_second_run_is_answered_from_the_journal_and_not_from_that_of_hf(tmp_path: Path, monkeypatch) -> None:
    asked, journal = requests(GREEDY)[:4], tmp_path / "journal.sqlite"
    said = answers(HFEngine(str(base_checkpoint()), 4, "cpu"), asked, journal)
    engine = vllm_engine(base_checkpoint())
    assert answers(engine, asked, journal) == said
    with Journal(journal) as both_engines:
        assert len(both_engines) == 2 * len(asked)
    again = vllm_engine(base_checkpoint())
    assert answers(again, asked, journal) == said
    assert "model" not in vars(again)


@pytest.mark.numeric
def test_build_bias_writes_the_negatives_of_hf_and_says_what_answered(monkeypatch, capsys, tmp_path: Path) -> None:
    write_preference_rows(tmp_path / "rows.parquet", 2, 0)
    common = ["data", "build-bias", "--ckpt", "micro", "--data", tmp_path / "rows.parquet", "--device", "cpu"]
    found = {}
    for name in ("hf", "vllm"):
        code, _, err = invoke([*common, "--engine", name, "--out", tmp_path / name], monkeypatch, capsys)
        assert code == 0, err
        (part,) = (tmp_path / name).glob("*.parquet")
        found[name] = parquet.read_table(part).select(["question_only", "image_only"]).to_pylist()
    assert found["vllm"] == found["hf"]
    assert len({text for row in found["hf"] for text in row.values()}) > 2
    import vllm

    build = json.loads((tmp_path / "vllm/build.json").read_text())
    assert (build["engine"], build["remarks"]) == ("vllm", [f"answered by vLLM {vllm.__version__}"])
    assert f"in float32, answered by vLLM {vllm.__version__}." in (tmp_path / "vllm/README.md").read_text()
    code, _, err = invoke([*common, "--out", tmp_path / "vllm"], monkeypatch, capsys)
    assert code == 2 and "its engine is vllm, hf is expected" in " ".join(err.split())
    early = tmp_path / "hf/build.json"
    early.write_text(
        json.dumps({name: value for name, value in json.loads(early.read_text()).items() if name != "engine"})
    )
    assert invoke([*common, "--out", tmp_path / "hf"], monkeypatch, capsys)[0] == 0
    code, _, err = invoke([*common, "--engine", "api", "--out", tmp_path / "api"], monkeypatch, capsys)
    assert code == 2 and "--engine hf or --engine vllm" in err


def changed(folder: Path, **settings: Any) -> Path:
    """The micro base with other generation settings."""
    shutil.copytree(base_checkpoint(), folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return folder


@pytest.mark.numeric
def test_a_penalty_and_forbidden_tokens_of_the_checkpoint_are_those_of_hf(both: Any, tmp_path: Path) -> None:
    spoken = HFEngine(str(base_checkpoint()), 4, "cpu").processor.tokenizer(" Yes a the", add_special_tokens=False)
    folder = changed(tmp_path / "base", repetition_penalty=1.7, suppress_tokens=spoken["input_ids"])
    asked = requests(GREEDY)
    said = answers(HFEngine(str(folder), 4, "cpu"), asked, tmp_path / "hf.sqlite")
    assert answers(vllm_engine(folder), asked, tmp_path / "vllm.sqlite") == said
    assert said != both["hf"][0]
    with pytest.raises(NapoBenchError, match=r"3 beams.*repetition_penalty of 1\.7.*no equivalent of both"):
        answers(vllm_engine(folder), requests(BEAMS), tmp_path / "beams.sqlite")


@pytest.mark.numeric
def test_an_adapter_is_merged_as_by_hf_and_written_once(both: Any, tmp_path: Path, caplog) -> None:
    base = Checkpoint.open(str(base_checkpoint()))
    torch.manual_seed(0)
    settings = LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(base.load_model(torch.device("cpu"), torch.float32), settings).save_pretrained(tmp_path / "lora")
    where = tmp_path / "lora/adapter_config.json"
    where.write_text(json.dumps(json.loads(where.read_text()) | {"base_model_name_or_path": str(base_checkpoint())}))
    said = answers(HFEngine(str(tmp_path / "lora"), 4, "cpu"), requests(GREEDY), tmp_path / "hf.sqlite")
    assert said != both["hf"][0]
    for number in range(2):
        engine = vllm_engine(tmp_path / "lora")
        assert answers(engine, requests(GREEDY), tmp_path / f"{number}.sqlite") == said
    (copy,) = (entry for entry in kept() if entry.kind == "whole")
    assert copy.of == str(tmp_path / "lora")
    assert copy.bytes > 1_000_000
    assert caplog.text.count("Writing the whole weights") == 1


@pytest.mark.numeric
def test_a_checkpoint_in_llavas_own_layout_answers_as_in_hf(tmp_path: Path, monkeypatch) -> None:
    # vLLM computes with heads of 32 dimensions at least.
    monkeypatch.setattr(layout, "SIZES", {**layout.SIZES, "hidden_size": 128})
    pieces = layout.write_tokenizer(tmp_path / "llava")
    twin = layout.twin(pieces)
    layout.write_tower(tmp_path / "clip", twin)
    layout.write_settings(tmp_path / "llava", tmp_path / "clip", pieces)
    layout.write_shards(tmp_path / "llava", layout.language_weights(twin, pieces))
    some = [*requests(GREEDY)[:5], *requests(BEAMS)[:1]]
    said = answers(HFEngine(str(tmp_path / "llava"), 4, "cpu"), some, tmp_path / "hf.sqlite")
    engine = vllm_engine(tmp_path / "llava")
    assert len(engine.never) > 1
    assert answers(engine, some, tmp_path / "vllm.sqlite") == said
    assert len(set(said)) > 2


def test_a_folder_with_whole_weights_under_published_names_is_not_copied(tmp_path: Path, own_cache: Path) -> None:
    checkpoint = Checkpoint.open(str(published(tmp_path / "base")))
    assert whole_folder(checkpoint, checkpoint.load_config(), "float32") == tmp_path / "base"
    assert not (own_cache / "napo-bench/whole").exists()


def test_vllm_takes_most_of_the_memory_that_is_free_on_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (20 * 2**30, 80 * 2**30))
    assert memory_share("cuda") == pytest.approx(0.23)
    assert memory_share("cpu") == pytest.approx(0.92)


def test_one_model_over_all_gpus_is_tensor_parallel(monkeypatch) -> None:
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 4)
    assert [devices(name, "cuda") for name in ("auto", None, "cuda")] == [4, 1, 1]


def test_settings_that_vllm_has_no_equivalent_of_are_refused_by_name(tmp_path: Path, monkeypatch) -> None:
    make_checkpoint(tmp_path / "tiny")
    with pytest.raises(
        NapoBenchError, match=r"no equivalent of exponential_decay_length_penalty = \[6, 1.3\]"
    ) as caught:
        vllm_engine(tmp_path / "tiny")
    assert "leave --engine vllm out" in caught.value.hint
    paper = Generation(num_beams=3, do_sample=True, temperature=0.2, top_k=50)
    with pytest.raises(NapoBenchError, match=r"draws at temperature 0\.2.*beams with draws") as caught:
        answers(vllm_engine(base_checkpoint()), requests(paper), tmp_path / "journal.sqlite")
    assert "profile greedy or rlaif-v" in caught.value.hint
    with pytest.raises(NapoBenchError, match=r"--device is mps; the installed vLLM .* computes on cpu") as caught:
        monkeypatch.setattr("napo_bench.engines.vllm_engine.require_device", lambda name: None)
        vllm_engine(base_checkpoint(), device="mps")
    with pytest.raises(NapoBenchError, match=r"takes the first device that it sees"):
        vllm_engine(base_checkpoint(), device="cpu:1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(NapoBenchError, match=r"runs in one process, and 2 processes run") as caught:
        vllm_engine(base_checkpoint())
    assert "--device auto" in caught.value.hint


@pytest.mark.parametrize("option", [["--quantization", "4bit"], ["--request", "top_k=1"], ["--profile", "paper"]])
def test_options_without_an_equivalent_are_refused_before_the_model_is_loaded(
    option: list[str], command, monkeypatch, capsys, tmp_path: Path
) -> None:
    monkeypatch.setattr("napo_bench.engines.vllm_engine.VLLMEngine.model", property(lambda _: pytest.fail("loaded")))
    code, _, err = invoke([*command, "--engine", "vllm", *option, "--out", tmp_path / "run"], monkeypatch, capsys)
    assert code == 2
    assert "Next: " in err


def test_a_checkpoint_that_vllm_cannot_load_is_one_message_and_loses_nothing(
    command, monkeypatch, capsys, tmp_path: Path
) -> None:
    arguments = [*command, "--engine", "vllm", "--out", tmp_path]
    code, _, err = invoke([*arguments, "--limit", 1], monkeypatch, capsys)
    assert code == 0, err
    with Journal(tmp_path / "journal.sqlite") as journal:
        before = len(journal)

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("Model architectures ['LlavaForConditionalGeneration'] failed to be inspected.\nSee the log.")

    monkeypatch.setattr("vllm.LLM.__init__", fail)
    code, _, err = invoke([*arguments, "--limit", 2], monkeypatch, capsys)
    said = " ".join(err.replace("│", " ").split())
    assert code == 2
    assert "cannot load " in said and "failed to be inspected." in said and "See the log" not in said
    assert f"{before} of {2 * before} are answered and stored in" in said
    assert "VLLM_LOGGING_LEVEL=INFO" in said and "Traceback" not in err


def test_other_tokens_of_a_prompt_are_refused(tmp_path: Path, monkeypatch) -> None:
    import vllm

    generate = vllm.LLM.generate

    def without_a_token_of_the_image(self: Any, prompts: Any, *settings: Any, **options: Any) -> Any:
        outputs = generate(self, prompts, *settings, **options)
        outputs[0].prompt_token_ids.pop(5)
        return outputs

    monkeypatch.setattr("vllm.LLM.generate", without_a_token_of_the_image)
    with pytest.raises(NapoBenchError, match=r"gives the model \d+ tokens of a prompt that has \d+ tokens"):
        answers(vllm_engine(base_checkpoint()), requests(GREEDY)[:1], tmp_path / "journal.sqlite")
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert len(journal) == 0


def published(folder: Path, **others: torch.Tensor) -> Path:
    """The micro base with the published names of weights, and with other weights."""
    shutil.copytree(base_checkpoint(), folder)
    (path,) = folder.glob("*.safetensors")
    stored = load_file(path) | others
    names = {name: name.replace("vision_tower.", "vision_tower.vision_model.") for name in stored}
    save_file({names[name]: weight for name, weight in stored.items()}, path, {"format": "pt"})
    return folder


def test_logits_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    norm = {"language_model.model.norm.weight": torch.full((128,), torch.nan)}
    published(tmp_path / "base", **norm)
    with pytest.raises(NapoBenchError, match="NaN or infinite in float32"):
        answers(vllm_engine(tmp_path / "base"), requests(GREEDY)[:1], tmp_path / "journal.sqlite")

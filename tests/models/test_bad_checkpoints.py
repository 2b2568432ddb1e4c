"""A wrong part of a checkpoint is one message with the checkpoint, the field and the next step, before the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from families import make_family
from synthetic_runs import invoke
from tiny_llava import make_data

from napo_bench.models.checkpoint import Checkpoint

Edit = Callable[[Path], Any]


def fields(file: str, edit: Callable[[dict[str, Any]], Any]) -> Edit:
    """An edit of the fields of a JSON file."""

    def change(folder: Path) -> None:
        values = json.loads((folder / file).read_text())
        edit(values)
        (folder / file).write_text(json.dumps(values))

    return change


def template(text: str) -> Edit:
    """An edit that replaces the chat template."""
    return lambda folder: (folder / "chat_template.jinja").write_text(text)


_NO_IMAGE = "{% for message in messages %}{{ message.content[-1].text }}{% endfor %}"
_BAD: dict[str, tuple[str, Edit, str, str]] = {
    "type": (
        "qwen3_vl",
        fields("config.json", lambda config: config.update(model_type="qwen9_vl")),
        "config.json: model_type is 'qwen9_vl', which transformers",
        "pip install -U transformers",
    ),
    "tower": (
        "llava",
        fields("config.json", lambda config: config["vision_config"].update(model_type="eva_vision")),
        "config.json: vision_config.model_type is 'eva_vision', which transformers",
        "--trust-remote-code",
    ),
    "template raises": (
        "qwen3_vl",
        template("{{ raise_exception('one turn only') }}"),
        "chat template cannot be used: TemplateError: one turn only",
        "chat_template.jinja",
    ),
    "template divides": (
        "qwen3_vl",
        template("{{ 1 / 0 }}"),
        "chat template cannot be used: ZeroDivisionError",
        "chat_template.jinja",
    ),
    "template without an image": (
        "qwen3_vl",
        template(_NO_IMAGE),
        "its chat template writes no image ('<|image_pad|>')",
        "chat_template.jinja",
    ),
    "image token beside a vocabulary map": (
        "chameleon",
        fields("config.json", lambda config: config.update(image_token_id=5)),
        "the tokenizer's image token '<image>' is number",
        "same checkpoint",
    ),
    "image token of config.json": (
        "gemma3",
        fields("config.json", lambda config: config.update(image_token_index=17)),
        "number 397; config.json says 17 (image_token_index, or image_token_id)",
        "same checkpoint",
    ),
    "image token of the tokenizer": (
        "gemma3",
        fields(
            "tokenizer_config.json",
            lambda config: [part.pop("boi_token") for part in (config, config["model_specific_special_tokens"])],
        ),
        "the processor cannot be loaded: TokenizersBackend has no attribute boi_token",
        "processor",
    ),
    "number of image tokens": (
        "gemma3",
        fields("processor_config.json", lambda config: config.update(image_seq_length=9)),
        "writes 9 image tokens for an image; the model makes 4 features",
        "processor_config.json with config.json",
    ),
    "processor that fails": (
        "ovis2",
        fields(
            "processor_config.json", lambda config: config["image_processor"].update(size={"height": 0, "width": 0})
        ),
        "its processor, Ovis2Processor, cannot take an image",
        "same checkpoint",
    ),
    "patches of no pixels": (
        "llava",
        fields("config.json", lambda config: config["vision_config"].update(patch_size=0)),
        "patch_size is",
        "same checkpoint",
    ),
    "huge images": (
        "llava",
        fields(
            "processor_config.json",
            lambda config: config["image_processor"].update(size={"height": 64, "width": 10**7}),
        ),
        "wants more than 1,073,741,824 bytes of memory",
        "NAPO_BENCH_MAX_CHECK_BYTES",
    ),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_data(folder, size=1)
    return folder


@pytest.mark.parametrize("case", _BAD)
def test_a_wrong_part_is_one_message_before_the_weights(
    case: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    family, edit, said, next_step = _BAD[case]
    folder = tmp_path / "checkpoint"
    make_family(folder, family)
    edit(folder)
    monkeypatch.setattr(Checkpoint, "load_model", lambda *_: pytest.fail("the model was allocated"))
    command = ["eval", "--ckpt", str(folder), "--device", "cpu", "--out", str(tmp_path / "run")]
    command += ["--suite", "vlind", "--data-dir", str(data)]
    code, out, err = invoke(command, monkeypatch, capsys, width=1000)
    assert (code, out) == (2, "")
    assert (str(folder) in err, said in err, next_step in err) == (True, True, True), err

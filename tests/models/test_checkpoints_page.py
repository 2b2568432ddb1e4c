"""docs/checkpoints.md: its commands run, in their order, on tiny stand-ins of the layouts that the page names."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import original_layout as layout
import pytest
from safetensors.torch import save_file
from synthetic_runs import invoke
from tiny_llava import make_data

from napo_bench.runs.result import RunResult

PAGE = (Path(__file__).resolve().parents[2] / "docs/checkpoints.md").read_text(encoding="utf-8")
CLIP = "openai/clip-vit-large-patch14-336"


def commands() -> list[list[str]]:
    """The commands of the page, in their order."""
    blocks = re.findall(r"^```\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name on the hub -> a tiny stand-in in the layout that the page's tables give for the name."""
    root = tmp_path_factory.mktemp("hub")
    folders = {"liuhaotian/llava-v1.5-7b": root / "llava", "openbmb/RLAIF-V-7B": root / "rlaif-v"}
    pieces = 0
    for number, folder in enumerate(folders.values()):
        pieces = layout.write_tokenizer(folder)
        weights = layout.language_weights(layout.twin(pieces, seed=number), pieces)
        layout.write_settings(folder, Path(CLIP), pieces)
        if folder.name == "llava":
            layout.write_shards(folder, weights)
        else:
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    folders[CLIP] = root / "clip"
    layout.write_tower(folders[CLIP], layout.twin(pieces))
    loras = {
        "juliozhao/hadpo-llava-1.5": "liuhaotian/llava-v1.5-7b",
        "yuezih/llava-v1.5-7b-selective-23k-lora": "llava-v1.5-7b",
    }
    for seed, (name, base) in enumerate(loras.items()):
        folders[name] = root / name.partition("/")[0]
        layout.write_lora(folders[name], base, Path(CLIP), pieces, pickled=True, seed=seed)
    return folders


@pytest.mark.numeric
def test_the_commands_of_the_page_run(
    hub: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def snapshot_download(name: str, **_: object) -> str:
        assert name in hub, f"the page names {name}; the test has no stand-in of it"
        return str(hub[name])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setenv("NAPO_BENCH_JUDGE_API_KEY", "sk-of-the-test")
    make_data(tmp_path / "data", size=2)
    short = ["--data-dir", "data", "--suite", "amber", "--pipeline", "closed_vocabulary", "--limit", "2"]
    evaluated = []
    for command in commands():
        if command[:2] == ["hf", "download"]:
            shutil.copytree(hub[command[2]], command[command.index("--local-dir") + 1])
        elif command[0] == "sed":
            subprocess.run(command, check=True)
        else:
            is_eval = command[1] == "eval"
            code, _, err = invoke([*command[1:], *(short if is_eval else [])], monkeypatch, capsys, width=300)
            assert code == 0, f"{shlex.join(command)}\n{err}"
            evaluated += [command[command.index("--out") + 1]] if is_eval else []
    assert len(evaluated) == len(set(evaluated)) > 4
    runs = {folder: RunResult.load(Path(folder)) for folder in evaluated}
    fingerprints = {name: run.provenance.checkpoint.fingerprint for name, run in runs.items()}
    assert len(set(fingerprints.values())) == len(evaluated) - 1  # LLaVA-1.5 is asked in two conversations
    assert runs["runs/llava-7b-vicuna"].benchmarks["amber"].settings["conversation"] == "vicuna_v1"
    assert json.loads(Path("eos/adapter_config.json").read_text())["base_model_name_or_path"] in hub

"""`napo-bench eval` as a user meets it: what is printed where, and what is left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_runs import invoke
from tiny_llava import make_checkpoint, make_data

from napo_bench.results import RunResult
from trainers.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval")
    make_checkpoint(folder / "tiny-llava")
    make_data(folder / "data", size=2)
    return folder


@pytest.fixture
def command(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `napo-bench eval` in an empty folder; returns exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        return invoke(["eval", "--device", "cpu", *arguments], monkeypatch, capsys, width=200)

    return run


def test_results_go_to_stdout_and_the_rest_to_stderr(command, folder: Path, tmp_path: Path) -> None:
    code, out, err = command(
        *("--ckpt", str(folder / "tiny-llava"), "--data-dir", str(folder / "data")),
        *("--suite", "vlind, object-halbench,mmhal", "--pipeline", "closed_vocabulary", "--batch-size", "4"),
    )
    assert code == 0, err
    for metric in ("ck", "lp", "chair_s", "recall"):
        assert f" {metric} " in out
    assert "no judge" in out
    assert "Answering" in err
    assert "Postprocessing" not in err
    assert "run.json" in err
    run = RunResult.load(tmp_path / "runs/tiny-llava")
    assert list(run.benchmarks) == ["vlind", "object_halbench", "mmhal"]
    assert run.provenance["command"].startswith("napo-bench eval --device cpu --ckpt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ckpt", "/nowhere/at/all"], "/nowhere/at/all does not exist"),
        (["--ckpt", "tiny", "--suite", "pope"], "no benchmark 'pope'"),
        (["--data-dir", "/nowhere/data"], "/nowhere/data/vlind"),
        (["--ckpt", "tiny", "--judge-base-url", "http://127.0.0.1:9/v1"], "no judge model"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_panel_and_exit_code_2(
    command, folder: Path, arguments: list[str], message: str
) -> None:
    good = {"--ckpt": str(folder / "tiny-llava"), "--data-dir": str(folder / "data"), "--suite": "vlind"}
    filled = [part for option in good.items() if option[0] not in arguments for part in option]
    code, out, err = command(*filled, *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""


def test_a_stored_answer_with_a_flipped_bit_is_named_and_answered_anew(command, folder: Path, tmp_path: Path) -> None:
    arguments = ["--ckpt", str(folder / "tiny-llava"), "--data-dir", str(folder / "data"), "--suite", "amber"]
    arguments += ["--pipeline", "closed_vocabulary", "--out", "run"]
    assert command(*arguments)[0] == 0
    responses, journal = tmp_path / "run/responses/amber.json", tmp_path / "run/journal.sqlite"
    before, content = responses.read_bytes(), bytearray(journal.read_bytes())
    first = json.loads(before)[0]["response"].encode()
    content[content.index(first)] ^= 1
    journal.write_bytes(content)
    code, _, err = command(*arguments)
    assert code == 0, err
    assert "note run/journal.sqlite: the entry" in err
    assert responses.read_bytes() == before


@pytest.mark.parametrize(
    ("option", "message"),
    [(("--dtype", "fp16"), "--dtype float16"), (("--device", "gpu"), "--device cuda")],
)
def test_a_mistyped_dtype_or_device_is_refused_before_a_library_is_imported(option, message) -> None:
    program = f"""
import sys
from napo_bench.cli import main
sys.argv = ["napo-bench", "eval", "--ckpt", "some-org/some-model", *{option!r}]
try:
    main()
except SystemExit as end:
    print(end.code, sorted({{"torch", "transformers", "lmms_eval", "datasets"}} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.stdout == "2 []\n"
    assert message in ended.stderr


def test_parts_of_a_checkpoint_that_disagree_are_refused_before_loading(command, folder, tmp_path, monkeypatch) -> None:
    config = Path(shutil.copytree(folder / "tiny-llava", tmp_path / "other")) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"image_token_index": 7}))
    monkeypatch.setattr(Checkpoint, "load_model", lambda *_: pytest.fail("the model was allocated"))
    code, _, err = command(
        *("--ckpt", str(tmp_path / "other"), "--data-dir", str(folder / "data")),
        *("--suite", "amber", "--pipeline", "closed_vocabulary"),
    )
    assert code == 2
    assert "config.json says 7" in err

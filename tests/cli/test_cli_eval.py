"""`napo-bench eval` as a user meets it: what is printed where, and what is left behind."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from misbehaving_server import MisbehavingServer, answer
from safetensors.torch import load_file, save_file
from synthetic_runs import invoke
from tiny_llava import make_checkpoint, make_data

from napo_bench.cli import app
from napo_bench.cli.data import data_app
from napo_bench.engines import usual_batch_size
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.runs.evaluate import EvalOptions
from napo_bench.runs.result import RunResult


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
    assert run.provenance.command.startswith("napo-bench eval --device cpu --ckpt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ckpt", "/nowhere/at/all", "--data-dir", "/nowhere/data"], "/nowhere/at/all does not exist"),
        (["--ckpt", "tiny", "--suite", "pope"], "no benchmark 'pope'"),
        (["--data-dir", "/nowhere/data"], "/nowhere/data/vlind"),
        (["--ckpt", "tiny", "--judge-base-url", "http://127.0.0.1:9/v1"], "no judge model"),
        (["--ckpt", "micro", "--suite", "micro", "--judge-repeats", "3"], "has a judge of its own"),
        (["--ckpt", "micro", "--suite", "micro", "--judge-model", "gpt"], "has a judge of its own"),
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


def test_results_are_not_written_into_a_checkpoint(command, folder: Path) -> None:
    checkpoint = folder / "tiny-llava"
    before = sorted(checkpoint.iterdir())
    code, _, err = command("--ckpt", checkpoint, "--data-dir", folder / "data", "--suite", "vlind", "--out", checkpoint)
    assert (code, sorted(checkpoint.iterdir())) == (2, before)
    assert "is the folder of a checkpoint (config.json)" in err


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
    [(("--dtype", "fp16"), "--dtype float16"), (("--device", "gpu", "--suite", "micro"), "--device cuda")],
)
def test_a_mistyped_dtype_or_device_is_refused_before_a_library_is_imported(option, message) -> None:
    program = f"""
import sys
from napo_bench.cli import main
sys.argv = ["napo-bench", "eval", "--ckpt", "some-org/some-model", *{option!r}]
try:
    main()
except SystemExit as end:
    slow = {{"torch", "transformers", "lmms_eval", "datasets", "napo_bench.micro.draw"}}
    print(end.code, sorted(slow & set(sys.modules)))
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


def test_a_run_of_empty_answers_is_marked_wherever_its_numbers_are_shown(
    command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All logits are equal, so the first token is number 0, which ends each answer here."""
    weights = Path(shutil.copytree(folder / "tiny-llava", tmp_path / "silent")) / "model.safetensors"
    stored = load_file(weights)
    save_file(stored | {name: stored[name] * 0 for name in stored if "lm_head" in name}, weights, {"format": "pt"})
    generation = tmp_path / "silent/generation_config.json"
    generation.write_text(json.dumps(json.loads(generation.read_text()) | {"eos_token_id": [0, 2]}))
    code, out, err = command(
        *("--ckpt", str(tmp_path / "silent"), "--data-dir", str(folder / "data"), "--out", "silent-run"),
        *("--suite", "vlind,object_halbench,amber,mmhal", "--pipeline", "closed_vocabulary"),
    )
    assert code == 0, err
    assert out.count("no measurement") == 4
    run = RunResult.load(tmp_path / "silent-run")
    assert all("responses are empty" in result.doubts[0] for result in run.benchmarks.values())
    gates = tmp_path / "gates.toml"
    gates.write_text('inconclusive = "pass"\n[amber.chair]\nmax_regression = 50')
    arguments = ["silent-run", "--baseline", "silent-run", "--gates", str(gates)]
    code, _, err = invoke(["gate", *arguments], monkeypatch, capsys, width=200)
    assert code == 2
    assert "Could not judge: amber" in err
    assert "2 of 2 responses are empty" in err
    for arguments in (["compare", "silent-run", "silent-run"], ["report", "silent-run", "--format", "md"]):
        code, out, err = invoke(arguments, monkeypatch, capsys, width=200)
        assert code == 0, err
        assert "responses are empty: the numbers measure nothing" in out


def test_half_precision_is_noted_with_its_batch_size(command, folder: Path, tmp_path: Path) -> None:
    for dtype, expected in (("bfloat16", ["bfloat16 in batches of 3"]), ("float32", [])):
        code, _, err = command(
            *("--ckpt", str(folder / "tiny-llava"), "--data-dir", str(folder / "data"), "--out", dtype),
            *("--suite", "vlind", "--dtype", dtype, "--batch-size", "3"),
        )
        assert code == 0, err
        notes = RunResult.load(tmp_path / dtype).benchmarks["vlind"].remarks
        assert [note for note in notes if "batches" in note] == [
            f"generated in {text}: an answer may differ in another batch" for text in expected
        ]


def test_the_conversation_of_a_llava_15_is_in_the_run_and_in_its_identity(
    command, folder: Path, tmp_path: Path
) -> None:
    arguments = ["--ckpt", str(folder / "tiny-llava"), "--data-dir", str(folder / "data"), "--suite", "mmhal"]
    assert command(*arguments, "--out", "run")[0] == 0
    run = RunResult.load(tmp_path / "run")
    assert run.benchmarks["mmhal"].settings["conversation"] == run.provenance.identity["conversation"] == "llava_v1"
    assert command(*arguments, "--out", "run", "--conversation", "llava_v1")[0] == 0
    code, _, err = command(*arguments, "--out", "run", "--conversation", "vicuna_v1")
    assert code == 2
    assert "conversation was llava_v1 and is vicuna_v1" in " ".join(err.split())
    code, _, err = command(*arguments, "--conversation", "vicuna_v1", "--api-base-url", "http://127.0.0.1:9/v1")
    assert code == 2
    assert "The engine api takes no --conversation." in err


@pytest.fixture(scope="module")
def thinker(folder: Path) -> Path:
    """A checkpoint with a chat template of its own, which can switch thoughts off."""
    thinker = Path(shutil.copytree(folder / "tiny-llava", folder / "thinker"))
    (thinker / "chat_template.jinja").write_text(
        "{% for message in messages %}user: {% for part in message['content'] %}"
        "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}</s>{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% if enable_thinking is false %} [no thoughts]{% endif %}{% endif %}"
    )
    return thinker


def test_values_of_the_chat_template_are_in_the_prompt_the_run_and_its_identity(
    command, folder: Path, tmp_path: Path, thinker: Path
) -> None:
    arguments = ["--ckpt", str(thinker), "--data-dir", str(folder / "data"), "--suite", "mmhal,vlind", "--out", "run"]
    off = ["--chat-template-kwargs", "enable_thinking=false"]
    code, _, err = command(*arguments, *off)
    assert code == 0, err
    run = RunResult.load(tmp_path / "run")
    assert run.provenance.identity["chat_template_kwargs"] == {"enable_thinking": False}
    for result in run.benchmarks.values():
        assert result.settings["generation"]["chat_template_kwargs"] == {"enable_thinking": False}
    prompts = [sample.get("sent", {}).get("prompt", "") for sample in run.benchmarks["mmhal"].samples]
    assert [prompt.endswith("[no thoughts]") for prompt in prompts] == [True, True, False, False]
    first, *further = run.benchmarks["vlind"].samples
    assert ["sent" in response for response in first["responses"]][:3] == [True, True, False]
    assert not any("sent" in response for sample in further for response in sample["responses"])
    sent = first["responses"][0]["sent"]
    assert first["responses"][0]["prompt"] in sent["prompt"]
    assert max(count for _, count in (run for run in sent["ids"] if isinstance(run, list))) == 16
    assert "sent" not in json.loads((tmp_path / "run/responses/vlind.jsonl").read_text().splitlines()[2])
    code, _, err = command(*arguments)
    assert code == 2
    assert "chat_template_kwargs was" in " ".join(err.split())
    assert command(*arguments[:-2], "--out", "plain")[0] == 0
    assert "chat_template_kwargs" not in RunResult.load(tmp_path / "plain").provenance.identity


def test_the_first_prompts_are_shown_without_weights_and_without_a_run(
    command, folder: Path, tmp_path: Path, thinker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Path(shutil.copytree(thinker, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors")))
    arguments = ["--data-dir", str(folder / "data"), "--suite", "vlind,mmhal", "--show-prompt"]
    code, out, err = command("--ckpt", str(bare), *arguments, "--chat-template-kwargs", "enable_thinking=false")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "vlind" and "mmhal" in lines
    assert lines[1].startswith("prompt: user: <image>Statement: ") and "assistant: [no thoughts]" in out
    assert sum(line.startswith("ids: [") and ", 16]" in line for line in lines) == 2
    assert not (tmp_path / "runs").exists()
    monkeypatch.setenv("NAPO_BENCH_API_KEY", "sk-of-the-test")
    code, out, err = command("--ckpt", "served", "--api-base-url", "http://127.0.0.1:9/v1", *arguments)
    assert code == 0, err
    messages = json.loads(out.splitlines()[1].removeprefix("messages: "))
    assert [part["type"] for part in messages[0]["content"]] == ["image_url", "text"]
    assert messages[0]["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,... (SHA-256")
    assert "sk-of-the-test" not in out


def test_an_endpoint_gets_the_values_of_the_chat_template(command, folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("NAPO_BENCH_API_KEY", "sk-of-the-test")
    arguments = ["--ckpt", "served", "--data-dir", str(folder / "data"), "--suite", "mmhal"]
    off = ["--chat-template-kwargs", "enable_thinking=false"]
    with MisbehavingServer(lambda request: answer("A dog.")) as server:
        code, _, err = command(*arguments, "--api-base-url", server.url, *off, "--out", "run")
        assert code == 0, err
        assert all(one.body["chat_template_kwargs"] == {"enable_thinking": False} for one in server.requests)
        twice = ["--request", "chat_template_kwargs={}"]
        code, _, err = command(*arguments, "--api-base-url", server.url, *off, *twice, "--out", "twice")
    assert code == 2
    assert "--request and --chat-template-kwargs both set the field" in " ".join(err.split())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("enable_thinking", "--chat-template-kwargs is 'enable_thinking'; key=value is expected."),
        ("enable_thinking=False", "--chat-template-kwargs is 'enable_thinking=False', which is text."),
        ('enable_thinking={"a":', "and its value is no JSON"),
        ("thinking=false", "of the checkpoint's chat template: there is no variable 'thinking'."),
    ],
)
def test_a_value_for_the_chat_template_that_cannot_be_used_is_refused(
    command, folder: Path, thinker: Path, given: str, message: str
) -> None:
    arguments = ["--ckpt", str(thinker), "--data-dir", str(folder / "data"), "--suite", "mmhal"]
    code, _, err = command(*arguments, "--chat-template-kwargs", given)
    assert code == 2
    assert message in " ".join(err.split())


def test_every_command_has_the_same_default_batch_size() -> None:
    commands = {command.callback for command in [*app.registered_commands, *data_app.registered_commands]}
    sizes = {
        command.__name__: parameter.default
        for command in commands
        if (parameter := inspect.signature(command).parameters.get("batch_size")) is not None
    }
    assert {"evaluate", "build_bias", "train_then_eval"} <= sizes.keys()
    assert set(sizes.values()) == {None}


def test_a_small_model_answers_in_larger_batches(command, folder: Path, tmp_path: Path) -> None:
    """An adapter is small and its base may be large; a name may be anything."""
    inputs = ("--ckpt", str(folder / "tiny-llava"), "--data-dir", str(folder / "data"), "--suite", "mmhal")
    assert command(*inputs, "--out", "run")[0] == 0
    assert RunResult.load(tmp_path / "run").provenance.generation["batch_size"] == 64
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_model.safetensors").touch()
    (tmp_path / "large").mkdir()
    (tmp_path / "large/config.json").write_text("{}")
    with (tmp_path / "large/model.safetensors").open("wb") as stream:
        stream.truncate(16 * 2**20)
    others = (str(tmp_path / "adapter"), str(tmp_path / "large"), "llava-hf/llava-1.5-7b-hf")
    assert [usual_batch_size(name) for name in others] == [EvalOptions().batch_size] * 3 == [16] * 3

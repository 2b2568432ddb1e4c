"""The engine: a checkpoint and a data folder -> official responses -> a run."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from misbehaving_server import Behaviour, MisbehavingServer, Request, answer, refusal
from slurm import submit
from tiny_llava import ROOT, make_checkpoint, make_data

from napo_bench.benchmarks import all_tasks
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal
from napo_bench.engines.journalled import JournalledEndpoint
from napo_bench.engines.judge import Judge
from napo_bench.runs import score as scoring
from napo_bench.runs.evaluate import EvalOptions, evaluate
from napo_bench.runs.provenance import Provenance, ResponsesUsed
from napo_bench.runs.result import RunResult
from napo_bench.runs.score import ScoreOptions
from napo_bench.studies.micro_world import micro_world

CLOSED = ScoreOptions(pipeline="closed_vocabulary")
BENCHMARKS = ("vlind", "object_halbench", "amber", "mmhal")
SIZE = 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny-llava")
    make_checkpoint(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_data(folder, SIZE)
    return folder


@pytest.fixture
def damaged(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data, tmp_path / "damaged"))


@pytest.fixture(scope="module")
def options(data: Path) -> EvalOptions:
    return EvalOptions(tuple(all_tasks()), data, batch_size=8, device="cpu", scoring=CLOSED)


@pytest.fixture(scope="module")
def finished(checkpoint: str, options: EvalOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of everything."""
    out = tmp_path_factory.mktemp("finished")
    evaluate(checkpoint, out, options)
    return out


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model fails the test."""

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("the model is loaded before data and scorers are checked")

    monkeypatch.setattr("napo_bench.models.checkpoint.Checkpoint.load_model", fail)


def responses(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "responses").iterdir())}


def test_responses_are_in_the_official_formats_and_score_to_the_run(finished: Path, data: Path) -> None:
    assert list(responses(finished)) == ["amber.json", "mmhal.json", "object_halbench.jsonl", "vlind.jsonl"]
    run = RunResult.load(finished)
    assert tuple(run.benchmarks) == BENCHMARKS
    for name in BENCHMARKS:
        (path,) = (finished / "responses").glob(f"{name}.*")
        again = scoring.score(name, scoring.read_responses(path), data, CLOSED)
        assert again.metrics == run.benchmarks[name].metrics
        assert json.loads(json.dumps(again.samples)) == run.benchmarks[name].samples


def test_everything_that_is_asked_is_answered(finished: Path) -> None:
    run = RunResult.load(finished)
    counted = {name: len(result.samples) for name, result in run.benchmarks.items()}
    assert counted == {"vlind": SIZE, "object_halbench": SIZE, "amber": 2 * SIZE, "mmhal": 2 * SIZE}
    assert all(result.complete for name, result in run.benchmarks.items() if name != "mmhal")
    amber = json.loads(responses(finished)["amber.json"])
    assert [row["id"] for row in amber] == list(range(1, 2 * SIZE + 1))


def test_the_run_says_where_it_comes_from(finished: Path, checkpoint: str, data: Path) -> None:
    run = RunResult.load(finished)
    source = run.provenance
    assert source.checkpoint.name == checkpoint
    assert len(source.checkpoint.fingerprint) == 64
    assert source.generation == {
        "profile": "greedy",
        "batch_size": 8,
        "seed": 0,
        "engine": "hf",
        "dtype": "float32",
        "device": "cpu",
        "processes": 1,
    }
    assert source.data.path == str(data)
    assert {"vlind/data.json", "amber/annotations.json", "mmhal/template.json"} <= set(source.data.sha256)
    assert {"lmms-eval", "torch", "transformers", "napo-bench"} <= set(source.versions)
    assert {"reading", "vision tower", "prefill", "decoding", "scoring"} == set(source.stages)
    assert 0 < source.stages["prefill"]["seconds"] + source.stages["decoding"]["seconds"] < source.wall_seconds
    assert {name for name, amounts in source.stages.items() if "tokens" in amounts} == {"prefill", "decoding"}
    settings = {name: result.settings["generation"] for name, result in run.benchmarks.items()}
    assert settings["vlind"] == {"profile": "greedy", "max_new_tokens": 64, "until": []}
    assert settings["amber"] == {"profile": "greedy", "max_new_tokens": 1024, "until": []}


def test_without_a_judge_mmhals_responses_are_kept_and_the_run_says_so(finished: Path) -> None:
    result = RunResult.load(finished).benchmarks["mmhal"]
    assert result.metrics == {}
    assert not result.complete
    assert "no judge" in " ".join(result.notes)
    assert all(row["model_answer"] for row in json.loads(responses(finished)["mmhal.json"]))


def test_a_judge_rates_the_stored_answers_of_a_run_that_had_none(
    checkpoint: str, options: EvalOptions, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "run"))
    with (
        MisbehavingServer(lambda request: answer("Very good. Rating: 5")) as server,
        Journal(tmp_path / "judge.sqlite") as journal,
    ):
        judge = Judge(JournalledEndpoint("a-judge", server.url, None, journal))
        judged = dataclasses.replace(options, scoring=dataclasses.replace(CLOSED, judges=(judge,)))
        monkeypatch.delattr("napo_bench.engines.hf.HFEngine.generate")
        evaluate(checkpoint, out, judged)
        tried_and_rated = 1 + 2 * SIZE
        assert len(server.requests) == tried_and_rated
        evaluate(checkpoint, out, judged)
        assert len(server.requests) == tried_and_rated, "a finished run is scored again without a request"
    result = RunResult.load(out).benchmarks["mmhal"]
    assert result.metrics["score"].value == 5.0
    assert result.settings["judge"]["model"] == "a-judge"


def test_the_same_run_again_generates_nothing(
    checkpoint: str, options: EvalOptions, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "run"))
    before = responses(out)
    shutil.rmtree(out / "responses")
    monkeypatch.delattr("napo_bench.models.checkpoint.Checkpoint.load_model")
    evaluate(checkpoint, out, options)
    assert responses(out) == before


def test_a_finished_run_of_the_same_identity_is_read_not_made_again(
    checkpoint: str, options: EvalOptions, finished: Path, no_model: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("napo_bench.runs.evaluate._read_suite")
    run = evaluate(checkpoint, finished, options)
    assert run == RunResult.load(finished)


@pytest.mark.parametrize("damage", ["samples/amber.jsonl", "run.json", "responses/mmhal.json"])
def test_a_finished_run_that_lost_a_file_is_written_again_without_the_model(
    checkpoint: str,
    options: EvalOptions,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "run"))
    (out / damage).unlink()
    monkeypatch.delattr("napo_bench.models.checkpoint.Checkpoint.load_model")
    evaluate(checkpoint, out, options)
    assert RunResult.load(out).benchmarks == RunResult.load(finished).benchmarks
    assert responses(out) == responses(finished)


OTHER_SETTINGS = {
    "profile": ({"profile": "paper"}, "profile was greedy and is paper"),
    "dtype": ({"dtype": "bfloat16"}, "dtype was float32 and is bfloat16"),
    "limit": ({"limit": 2}, "limit was none and is 2"),
    "suite": ({"suite": ["vlind", "amber", "object_halbench"]}, "is amber,object_halbench,vlind"),
    "pipeline": ({"scoring": ScoreOptions(pipeline="official")}, "pipeline was closed_vocabulary and is official"),
}


@pytest.mark.parametrize("change", OTHER_SETTINGS)
def test_a_finished_run_of_other_settings_is_not_replaced(
    checkpoint: str, options: EvalOptions, finished: Path, no_model: None, change: str
) -> None:
    changes, message = OTHER_SETTINGS[change]
    before = (finished / "run.json").read_bytes()
    with pytest.raises(NapoBenchError) as caught:
        evaluate(checkpoint, finished, dataclasses.replace(options, **changes))
    assert str(finished) in caught.value.message and message in caught.value.message
    assert "another --out" in caught.value.hint
    assert ("napo-bench score" in caught.value.hint) == (change == "pipeline")
    assert (finished / "run.json").read_bytes() == before


def test_a_finished_run_of_other_weights_or_data_is_not_replaced(
    checkpoint: str, options: EvalOptions, finished: Path, damaged: Path, no_model: None, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    (other / "generation_config.json").write_text("{}")
    with pytest.raises(NapoBenchError, match="checkpoint was"):
        evaluate(str(other), finished, options)
    (damaged / "amber/safe_words.txt").write_text("sky\n")
    with pytest.raises(NapoBenchError, match=r"data/amber/safe_words\.txt was"):
        evaluate(checkpoint, finished, dataclasses.replace(options, data_dir=damaged))


def test_a_run_grows_by_units_and_benchmarks_and_keeps_its_answers(
    checkpoint: str, options: EvalOptions, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = dataclasses.replace(options, suite=["amber"], limit=2)
    evaluate(checkpoint, tmp_path, small)
    shutil.copy(finished / "journal.sqlite", tmp_path)
    monkeypatch.delattr("napo_bench.engines.hf.HFEngine.generate")
    run = evaluate(checkpoint, tmp_path, options)
    assert run is not None and {name: len(result.samples) for name, result in run.benchmarks.items()} == {
        name: len(result.samples) for name, result in RunResult.load(finished).benchmarks.items()
    }


def test_scores_of_stored_responses_are_not_replaced(
    checkpoint: str, options: EvalOptions, finished: Path, no_model: None, tmp_path: Path
) -> None:
    scores = Provenance(responses=ResponsesUsed("a.json", ""))
    RunResult(RunResult.load(finished).benchmarks, scores).save(tmp_path / "run.json")
    with pytest.raises(NapoBenchError, match="holds scores of stored responses"):
        evaluate(checkpoint, tmp_path, options)


def test_control_tokens_in_questions_are_removed_and_counted(
    checkpoint: str, options: EvalOptions, damaged: Path, tmp_path: Path
) -> None:
    path = damaged / "amber/query_generative.json"
    queries = json.loads(path.read_text())
    queries[0]["query"] = f"</s> {queries[1]['query']}"
    path.write_text(json.dumps(queries))
    run = evaluate(
        checkpoint, tmp_path / "run", dataclasses.replace(options, data_dir=damaged, suite=["amber"], limit=2)
    )
    assert "control tokens of the model were removed from 1 of 2 questions" in run.benchmarks["amber"].notes


def test_a_limit_takes_whole_units_and_the_run_says_so(checkpoint: str, options: EvalOptions, tmp_path: Path) -> None:
    run = evaluate(checkpoint, tmp_path, dataclasses.replace(options, suite=["vlind", "amber"], limit=2))
    assert len(run.benchmarks["vlind"].samples) == len(run.benchmarks["amber"].samples) == 2
    assert not run.benchmarks["vlind"].complete
    assert not run.benchmarks["amber"].complete
    assert "missing" in run.benchmarks["amber"].notes[0]
    assert run.provenance.limit == 2


def test_the_paper_profile_is_that_of_napos_scripts(
    checkpoint: str, options: EvalOptions, data: Path, finished: Path, tmp_path: Path
) -> None:
    """3 beams; drawn at temperature 0.2 from the library's 50 likeliest tokens, except for VLind-Bench, whose image of
    VP and CB has the most votes.
    """
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    rows = json.loads((folder / "vlind" / "data.json").read_text())
    for row in rows:
        row["best_img_id"] = min(row["aggregated_human_label_good_images"], key=int)
        row["aggregated_human_label_good_images"] = {
            image: 2 + (image != row["best_img_id"]) for image in row["aggregated_human_label_good_images"]
        }
    (folder / "vlind" / "data.json").write_text(json.dumps(rows))
    paper = dataclasses.replace(options, suite=["vlind", "object_halbench"], profile="paper", data_dir=folder)
    run = evaluate(checkpoint, tmp_path / "out", paper)
    settings = {name: result.settings["generation"] for name, result in run.benchmarks.items()}
    beams = {"num_beams": 3, "do_sample": True, "temperature": 0.2, "top_k": 50}
    assert settings["vlind"] == {"profile": "paper", "max_new_tokens": 64, "until": [], "num_beams": 3}
    assert settings["object_halbench"] == {"profile": "paper", "max_new_tokens": 1024, "until": [], **beams}
    assert run.benchmarks["vlind"].settings["best_image"] == "most votes"
    assert responses(tmp_path / "out")["object_halbench.jsonl"] != responses(finished)["object_halbench.jsonl"]


def test_a_model_behind_an_endpoint(options: EvalOptions, data: Path, tmp_path: Path) -> None:
    with MisbehavingServer(lambda request: answer("Yes, it is true")) as server:
        asked = dataclasses.replace(options, suite=["vlind", "amber_discriminative"], api_base_url=server.url)
        run = evaluate("a-model", tmp_path, asked)
    truths = [row["truth"] for row in json.loads((data / "amber/annotations.json").read_text())[SIZE:]]
    share = 100 * truths.count("yes") / len(truths)
    assert run.benchmarks["amber"].metrics["accuracy"].value == pytest.approx(share, abs=0.1)
    assert run.benchmarks["amber"].settings["answers"] == "lenient"
    # The answers are kept as the model gave them, so that they can also be scored as AMBER's script reads them.
    stored = scoring.read_responses(tmp_path / "responses/amber.json")
    assert {row["response"] for row in stored} == {"Yes, it is true"}
    assert (
        f"{len(truths)} of {len(truths)} yes/no answers are read by their first word" in run.benchmarks["amber"].notes
    )
    exact = scoring.score("amber", stored, data, scoring.ScoreOptions())
    assert exact.metrics["accuracy"].value == 0
    # Each pair of statements has one that must be False.
    assert run.benchmarks["vlind"].metrics["ck"].value == 0
    assert {row["text"] for row in scoring.read_responses(tmp_path / "responses/vlind.jsonl")} == {"Yes, it is true"}
    assert run.provenance.generation["endpoint"] == f"a-model at {server.url}"
    # The images are sent as their files.
    parts = [part for request in server.requests[1:] for part in request.body["messages"][0]["content"]]
    sent = {part["image_url"]["url"].partition(",")[2] for part in parts if part["type"] == "image_url"}
    assert sent and sent <= {base64.b64encode(path.read_bytes()).decode() for path in data.rglob("*.jpg")}
    assert run.provenance.generation["images"] == ["image/jpeg"]


def test_thoughts_of_a_model_behind_an_endpoint_are_kept_and_never_scored(options: EvalOptions, tmp_path: Path) -> None:
    asked = dataclasses.replace(options, suite=[*BENCHMARKS, "amber_discriminative"])
    thought = "<think>\nTrue or false? A dog, a cat, a horse or a bus would be true. Rating: 1\n</think>"

    def behave(request: Request) -> Behaviour:
        said = "False" if "True or False" in request.text else "Yes, a dog."
        model = request.body["model"]
        if model == "speaks":
            return answer(said, model=model)
        usage = {"prompt_tokens": 7, "completion_tokens": 12, "completion_tokens_details": {"reasoning_tokens": 9}}
        return answer(f"{thought}\n\n{said}", model=model, usage=usage)

    with MisbehavingServer(behave) as server:
        asked = dataclasses.replace(asked, api_base_url=server.url)
        runs = {name: evaluate(name, tmp_path / name, asked) for name in ("thinks", "speaks")}
    for name, result in runs["thinks"].benchmarks.items():
        assert result.metrics == runs["speaks"].benchmarks[name].metrics
        *notes, thoughts = sorted(result.notes, key=lambda note: note.startswith("thoughts in "))
        assert (result.complete, notes) == (
            runs["speaks"].benchmarks[name].complete,
            runs["speaks"].benchmarks[name].notes,
        )
        asked_of = sum(len(sample.get("responses", [sample])) for sample in result.samples)
        assert thoughts == f"thoughts in {asked_of} of {asked_of} answers: {9 * asked_of} tokens, 9 each"
        samples = [row for sample in result.samples for row in sample.get("responses", [sample])]
        assert {(row["thoughts"], row["thought_tokens"]) for row in samples} == {(thought, 9)}
    rows = scoring.read_responses(tmp_path / "thinks/responses/vlind.jsonl")
    assert {(row["text"], row["thoughts"]) for row in rows} == {("False", thought)}


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("opening", ["<think>", ""])
def test_thoughts_in_stored_responses_are_never_scored(finished: Path, data: Path, name: str, opening: str) -> None:
    field = {"vlind": "text", "object_halbench": "text", "amber": "response", "mmhal": "model_answer"}[name]
    thought = f"{opening}True or false? A dog, a cat.</think>"
    (path,) = (finished / "responses").glob(f"{name}.*")
    rows = scoring.read_responses(path)
    if name == "mmhal":
        reply = {"model": "j", "reported_model": "j", "prompt_tokens": 1, "completion_tokens": 1}
        rows = [row | {"judge_reply": reply | {"text": "Rating: 4"}} for row in rows]
    plain = scoring.score(name, rows, data, CLOSED)
    thinking = [row | {field: f"{thought}\n\n{row[field]}"} for row in rows]
    if name == "mmhal":
        thinking = [row | {"judge_reply": reply | {"text": "<think>Rating: 1</think>Rating: 4"}} for row in thinking]
    result = scoring.score(name, thinking, data, CLOSED)
    assert result.metrics == plain.metrics != {}
    assert result.complete
    kept = [row for sample in result.samples for row in sample.get("responses", [sample])]
    assert all(row["thoughts"] == thought for row in kept)
    if name == "amber":
        thinking[0][field] = "<think>A dog, a cat"
        cut = scoring.score(name, thinking, data, CLOSED)
        assert cut.unanswered == [{"sample_id": "1", "reason": "cut off inside its thoughts"}]
        assert (cut.complete, cut.metrics["chair"].n) == (False, SIZE - 1)
        assert "1 of 6 prompts unanswered and left out: cut off inside its thoughts (1)" in cut.notes[0]
        with pytest.raises(NapoBenchError, match="no prompt is answered"):
            scoring.score(name, [row | {field: "<think>A dog"} for row in rows], data, CLOSED)


def test_refused_and_cut_off_prompts_are_left_out_counted_and_asked_again(
    options: EvalOptions, data: Path, tmp_path: Path
) -> None:
    def behave(request: Request) -> Behaviour:
        if request.text == broken.get("refused"):
            return refusal(400, "The prompt triggered the content management policy.", code="content_filter")
        if request.text == broken.get("cut"):
            cut = [{"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": "length"}]
            return answer("", choices=cut)
        return answer("Yes")

    questions = json.loads((data / "amber/query_discriminative.json").read_text())
    texts = [row["query"] for row in questions]
    broken = {"refused": texts[0], "cut": texts[1]}
    with MisbehavingServer(behave) as server:
        asked = dataclasses.replace(
            options, suite=["amber_discriminative"], api_base_url=server.url, max_refused=0.5, batch_size=1
        )
        evaluate("m", tmp_path, asked)
        run = RunResult.load(tmp_path).benchmarks["amber"]
        reasons = {entry["sample_id"]: entry["reason"] for entry in run.unanswered}
        assert reasons == {
            str(questions[0]["id"]): "HTTP 400: The prompt triggered the content management policy.",
            str(questions[1]["id"]): "cut off at the token limit before an answer",
        }
        assert (run.complete, run.metrics["accuracy"].n, len(run.samples)) == (False, SIZE - 2, SIZE - 2)
        assert f"2 of {SIZE} prompts unanswered" in run.notes[0]
        assert run.notes[0] in run.remarks, "the table, compare and gate show it"
        again = scoring.score("amber", scoring.read_responses(tmp_path / "responses/amber.json"), data, CLOSED)
        assert (again.metrics, again.unanswered) == (run.metrics, run.unanswered)
        broken.clear()
        before = len(server.requests)
        whole = evaluate("m", tmp_path, asked).benchmarks["amber"]
        assert len(server.requests) == before + 2
        assert (whole.complete, whole.unanswered, whole.metrics["accuracy"].n) == (True, [], SIZE)


def test_too_many_refused_prompts_stop_the_run(options: EvalOptions, tmp_path: Path) -> None:
    with MisbehavingServer(lambda request: answer("OK") if "OK" in request.text else refusal(400, "no")) as server:
        asked = dataclasses.replace(options, suite=["amber"], api_base_url=server.url, batch_size=1)
        with pytest.raises(NapoBenchError, match=f"refuses 2 of {SIZE} prompts"):
            evaluate("m", tmp_path, asked)


@pytest.mark.parametrize("which", ["judge", "endpoint"])
@pytest.mark.parametrize("fault", ["a closed port", "a wrong key", "a wrong model"])
def test_a_judge_or_endpoint_that_does_not_work_is_found_before_anything_is_answered(
    checkpoint: str, options: EvalOptions, tmp_path: Path, no_model: None, which: str, fault: str
) -> None:
    faults = {"a closed port": answer("1"), "a wrong key": refusal(401, "no"), "a wrong model": refusal(404, "no")}
    with MisbehavingServer(lambda request: faults[fault]) as server, Journal(tmp_path / "judge.sqlite") as journal:
        if fault == "a closed port":
            server._server.server_close()
        judged = dataclasses.replace(
            CLOSED, judges=(Judge(JournalledEndpoint("j", server.url, None, journal, retries=0)),)
        )
        asked = dataclasses.replace(options, suite=["mmhal"])
        if which == "judge":
            asked = dataclasses.replace(asked, scoring=judged)
        else:
            asked = dataclasses.replace(asked, api_base_url=server.url)
        with pytest.raises(NapoBenchError, match=r"reached|API key|does not know the model"):
            evaluate(checkpoint, tmp_path / "run", asked)
        assert len(server.requests) == (fault != "a closed port")


def test_what_an_endpoint_got_otherwise_is_in_the_run(options: EvalOptions, tmp_path: Path) -> None:
    def behave(request: Request) -> Behaviour:
        for name in ("max_tokens", "temperature"):
            if name in request.body:
                return refusal(400, f"Unsupported parameter: {name!r}", code="unsupported_parameter", param=name)
        return answer("Yes")

    with MisbehavingServer(behave) as server:
        asked = dataclasses.replace(
            options, suite=["amber"], api_base_url=server.url, request={"reasoning_effort": "low"}
        )
        for _ in range(2):
            evaluate("o", tmp_path, asked)
            run = RunResult.load(tmp_path)
            changed = {"max_tokens": "sent as max_completion_tokens", "temperature": "not sent"}
            assert run.provenance.generation["changed"] == changed
            generation = run.benchmarks["amber"].settings["generation"]
            assert generation["request"] == {"reasoning_effort": "low"}
            assert generation["temperature"] == "not sent"
    assert server.requests[-1].body["reasoning_effort"] == "low"


def test_the_micro_world_brings_its_pipeline_and_its_judge(
    checkpoint: str, options: EvalOptions, data: Path, tmp_path: Path
) -> None:
    from napo_bench.micro.benchmarks import SEED, write_mmhal

    folder = Path(shutil.copytree(data, tmp_path / "micro", ignore=shutil.ignore_patterns("mmhal")))
    write_mmhal(folder / "mmhal", SEED)
    plain = dataclasses.replace(options, data_dir=folder, scoring=ScoreOptions(), limit=3)
    with micro_world(plain) as micro:
        run = evaluate(checkpoint, tmp_path / "run", micro)
    assert run.benchmarks["amber"].settings["text_pipeline"] == {"name": "closed_vocabulary"}
    assert "oracle" in run.benchmarks["mmhal"].settings["judge"]["model"]
    assert "accuracy" in run.benchmarks["amber"].metrics
    assert run.benchmarks["mmhal"].metrics["score"].n == 3


def test_an_image_that_is_a_git_lfs_pointer_is_found_before_the_model_is_loaded(
    checkpoint: str, options: EvalOptions, damaged: Path, no_model: None, tmp_path: Path
) -> None:
    (damaged / "amber/images/AMBER_2.jpg").write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    with pytest.raises(NapoBenchError, match=r"or Git LFS pointers; the first is .*AMBER_2\.jpg"):
        evaluate(checkpoint, tmp_path / "run", dataclasses.replace(options, suite=["amber"], data_dir=damaged))


def test_missing_data_is_found_before_the_checkpoint_is_opened(options: EvalOptions, tmp_path: Path) -> None:
    with pytest.raises(NapoBenchError) as caught:
        evaluate("no-such-org/no-such-model", tmp_path / "run", dataclasses.replace(options, data_dir=tmp_path / "nix"))
    assert str(tmp_path / "nix") in str(caught.value) and "no-such-model" not in str(caught.value)


def test_missing_data_is_found_before_the_model_is_loaded(
    checkpoint: str, options: EvalOptions, damaged: Path, no_model: None, tmp_path: Path
) -> None:
    for missing, suite in [
        ("vlind/data.json", "vlind"),
        ("vlind/images/factual", "vlind"),
        ("object_halbench/questions.jsonl", "object_halbench"),
        ("object_halbench/synonyms_refine.txt", "object_halbench"),
        ("amber/images/AMBER_2.jpg", "amber"),
        ("amber/relation.json", "amber"),
        ("mmhal/images/1_o.jpg", "mmhal"),
    ]:
        path = damaged / missing
        path.rename(damaged / "away")
        with pytest.raises(NapoBenchError) as caught:
            evaluate(checkpoint, tmp_path / "run", dataclasses.replace(options, suite=[suite], data_dir=damaged))
        assert str(path.parent if missing == "vlind/data.json" else path) in caught.value.message
        assert "napo-bench data fetch" in caught.value.hint
        (damaged / "away").rename(path)


def test_data_that_a_scorer_lacks_is_found_before_the_model_is_loaded(
    checkpoint: str, options: EvalOptions, no_model: None, tmp_path: Path
) -> None:
    official = ScoreOptions(pipeline="official", spacy_model="a_model_that_is_not_installed")
    with pytest.raises(NapoBenchError, match="a_model_that_is_not_installed") as caught:
        evaluate(checkpoint, tmp_path, dataclasses.replace(options, suite=["amber"], scoring=official))
    assert "spacy download" in caught.value.hint


def test_a_picture_that_does_not_decode_is_named(
    checkpoint: str, options: EvalOptions, damaged: Path, tmp_path: Path
) -> None:
    broken = damaged / "mmhal/images/5_o.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(NapoBenchError, match="cannot be decoded") as caught:
        evaluate(checkpoint, tmp_path / "run", dataclasses.replace(options, suite=["mmhal"], data_dir=damaged))
    assert str(broken) in caught.value.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite": ["vlind", "pope"]}, "no benchmark 'pope'"),
        ({"suite": []}, "suite is empty"),
        ({"suite": ["micro", "vlind"]}, "mixes micro"),
        ({"profile": "fast"}, "no generation profile 'fast'"),
    ],
)
def test_options_that_mean_nothing(
    options: EvalOptions, tmp_path: Path, no_model: None, change: dict, message: str
) -> None:
    with pytest.raises(NapoBenchError, match=message):
        evaluate("tiny", tmp_path, dataclasses.replace(options, **change))


def test_plain_lmms_eval_prints_the_metrics_of_the_run(
    checkpoint: str, data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    monkeypatch.setenv("NAPO_BENCH_DATA", str(data))
    # The official text pipeline needs data that is not installed everywhere; a YAML of the user's own changes it.
    for name in ("amber", "amber_discriminative", "object_halbench"):
        (tmp_path / f"{name}.yaml").write_text(
            f"include: {ROOT / 'benchmarks' / all_tasks()[name][0].name / f'napo_{name}.yaml'}\n"
            f"task: closed_{name}\nscoring: {{pipeline: closed_vocabulary}}\n"
        )
    tasks = {
        "napo_vlind": "vlind",
        "closed_object_halbench": "object_halbench",
        "closed_amber": "amber",
        "closed_amber_discriminative": "amber",
    }
    report = simple_evaluate(
        model="napo_hf",
        model_args=f"pretrained={checkpoint},journal={tmp_path / 'journal.sqlite'}",
        batch_size=8,
        device="cpu",
        tasks=list(tasks),
        task_manager=TaskManager(include_path=[str(ROOT / "benchmarks"), str(tmp_path)], include_defaults=False),
        bootstrap_iters=0,
    )
    run = RunResult.load(finished)
    printed: dict[str, dict[str, float]] = {benchmark: {} for benchmark in tasks.values()}
    for task, benchmark in tasks.items():
        results = report["results"][task]
        printed[benchmark] |= {
            key.removesuffix(",none"): value
            for key, value in results.items()
            if key.endswith(",none") and "stderr" not in key and value == value
        }
    expected = {
        benchmark: {name: metric.value for name, metric in run.benchmarks[benchmark].metrics.items()}
        for benchmark in printed
    }
    assert printed == expected


def test_a_job_on_two_nodes_gives_the_responses_of_one_process(
    checkpoint: str, data: Path, finished: Path, tmp_path: Path, own_cache: Path
) -> None:
    """The job is the file of docs/clusters.md. A process that ended before has left a part of the journal."""
    (tmp_path / "run").mkdir()
    with Journal(finished / "journal.sqlite") as whole, Journal(tmp_path / "run/journal.7.sqlite") as part:
        kept = next(whole.entries(3))
        part.put(kept)
    command = ["eval", "--ckpt", checkpoint, "--data-dir", str(data), "--suite", ",".join(all_tasks())]
    command += ["--pipeline", "closed_vocabulary", "--out", str(tmp_path / "run"), "--device", "cpu"]
    ended = submit(tmp_path / "slurm", command)
    assert ended.returncode == 0, ended.stderr
    assert responses(tmp_path / "run") == responses(finished)
    run = RunResult.load(tmp_path / "run")
    assert run.provenance.generation["processes"] == 2
    assert {n: r.metrics for n, r in run.benchmarks.items()} == {
        n: r.metrics for n, r in RunResult.load(finished).benchmarks.items()
    }
    assert ended.stdout.count("chair_i") == 1, "one process prints"
    assert [path.name for path in (tmp_path / "run").glob("journal*")] == ["journal.sqlite"]
    with Journal(finished / "journal.sqlite") as one, Journal(tmp_path / "run/journal.sqlite") as several:
        assert len(several) == len(one)

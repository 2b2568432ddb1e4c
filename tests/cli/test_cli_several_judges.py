"""Several judges, and one judge several times: `napo-bench score mmhal` against real local servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from misbehaving_server import Behaviour, MisbehavingServer, Request, answer, refusal
from typer.testing import CliRunner

from napo_bench.benchmarks.mmhal.score import QUESTION_TYPES
from napo_bench.benchmarks.scoring import ScoreOptions
from napo_bench.cli import app, console
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal
from napo_bench.engines.journalled import JournalledEndpoint
from napo_bench.engines.judge import Judge
from napo_bench.runs.result import RunResult

SIZE = 16
Score = Callable[..., str]


def template_rows() -> list[dict[str, Any]]:
    return [
        {
            "question_type": QUESTION_TYPES[number % len(QUESTION_TYPES)],
            "image_id": f"image{number}",
            "image_src": f"https://pictures.example/image{number}.jpg",
            "image_content": ["Bear", "Tree"],
            "question": f"What is {number}?",
            "gt_answer": "A bear.",
            "model_answer": f"Answer <{number}>.",
        }
        for number in range(SIZE)
    ]


@pytest.fixture(autouse=True)
def no_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(console.out, "_width", 120)
    for name in ("NAPO_BENCH_JUDGE_BASE_URL", "NAPO_BENCH_JUDGE_MODEL", "NAPO_BENCH_JUDGE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def score(tmp_path: Path) -> Score:
    """Runs `napo-bench score mmhal`, of a small template or of rows; returns what it prints, or raises its error."""
    (tmp_path / "mmhal").mkdir()
    (tmp_path / "mmhal" / "template.json").write_text(json.dumps(template_rows()))
    (tmp_path / "mmhal" / "judge_template.txt").write_text("{} {} {} {}")

    def run(*options: str, rows: list[dict[str, Any]] | None = None) -> str:
        responses = tmp_path / "responses.json"
        responses.write_text(json.dumps(template_rows() if rows is None else rows))
        command = ["score", "mmhal", "--responses", str(responses), "--data-dir", str(tmp_path), *options]
        result = CliRunner().invoke(app, [*command, "--json", str(tmp_path / "out.json")])
        if result.exception is not None:
            raise result.exception
        return result.output

    return run


@pytest.fixture
def result(tmp_path: Path) -> Callable[[], Any]:
    return lambda: RunResult.load(tmp_path / "out.json").benchmarks["mmhal"]


def number_of(request: Request) -> int:
    return int(request.text.partition("<")[2].partition(">")[0])


def rating_of(model: str, number: int, repeat: int) -> int:
    """Strict is one below kind, and each judge gives one more in every third answer the second time."""
    return min(6, number % 5 + (model == "kind") + (repeat == 1 and number % 3 == 0))


def rate(request: Request) -> Behaviour:
    model = request.body["model"]
    rating = rating_of(model, number_of(request), request.nth)
    return answer(f"Rating: {rating}", model=f"{model}-0613", system_fingerprint=f"fp_{model}{request.nth}")


@pytest.fixture
def servers() -> Iterator[tuple[MisbehavingServer, MisbehavingServer]]:
    with MisbehavingServer(rate) as kind, MisbehavingServer(rate) as strict:
        yield kind, strict


@pytest.fixture
def judges(servers: tuple[MisbehavingServer, MisbehavingServer]) -> list[str]:
    kind, strict = servers
    return ["--judge-model", f"kind@{kind.url}", "--judge-model", f"strict@{strict.url}"]


def ratings(model: str, repeats: int) -> np.ndarray:
    return np.array([[rating_of(model, number, repeat) for repeat in range(repeats)] for number in range(SIZE)])


def test_each_judge_rates_every_answer_and_the_score_is_their_mean(
    score: Score, judges: list[str], result: Callable[[], Any]
) -> None:
    output = score(*judges, "--judge-repeats", "2")
    found, given = result(), {model: ratings(model, 2) for model in ("kind", "strict")}
    everything = np.stack(list(given.values()))
    assert found.metrics["score"].value == pytest.approx(everything.mean())
    assert found.metrics["hal_rate"].value == pytest.approx((everything < 3).mean())
    for model, own in given.items():
        assert found.breakdown[f"judge/{model}"]["score"].value == pytest.approx(own.mean())
        assert found.breakdown[f"judge/{model}"]["hal_rate"].value == pytest.approx((own < 3).mean())
        assert f" {model} " in output and f"judge/{model}" not in output
    assert found.metrics["score"].n == SIZE
    assert f"{4 * SIZE} judge replies" in output


def test_a_sample_keeps_every_rating_of_every_judge(score: Score, judges: list[str], result: Callable[[], Any]) -> None:
    score(*judges, "--judge-repeats", "2")
    found = result()
    for number, sample in enumerate(found.samples):
        kept = sample["judge_replies"]
        places = [(entry["judge"], entry["repeat"]) for entry in kept]
        assert places == [(model, repeat) for model in ("kind", "strict") for repeat in range(2)]
        for model in ("kind", "strict"):
            own = sorted(entry["rating"] for entry in kept if entry["judge"] == model)
            assert own == sorted(rating_of(model, number, repeat) for repeat in range(2))
        assert sample["rating"] == np.mean([entry["rating"] for entry in kept])
        assert sample["counts"]["rating"] == pytest.approx(sample["rating"])


def test_the_settings_name_each_judge_with_what_answered(
    score: Score, judges: list[str], result: Callable[[], Any]
) -> None:
    score(*judges, "--judge-repeats", "2")
    assert result().settings == {
        "judges": {
            model: {
                "model": model,
                "reported_model": f"{model}-0613",
                "fingerprint": f"fp_{model}0, fp_{model}1",
                "temperature": 0,
                "repeats": 2,
            }
            for model in ("kind", "strict")
        }
    }


def test_the_fingerprint_of_one_judge_is_in_its_settings_and_replies(
    score: Score, judges: list[str], result: Callable[[], Any]
) -> None:
    score(*judges[:2])
    assert result().settings["judge"]["fingerprint"] == "fp_kind0"
    assert {sample["judge_reply"]["fingerprint"] for sample in result().samples} == {"fp_kind0"}


def test_a_later_command_asks_only_for_what_is_new(
    score: Score, judges: list[str], servers: tuple[MisbehavingServer, MisbehavingServer]
) -> None:
    kind, strict = servers
    score(*judges[:2])
    assert (len(kind.requests), len(strict.requests)) == (SIZE, 0)
    score(*judges[:2], "--judge-repeats", "2")
    assert (len(kind.requests), len(strict.requests)) == (2 * SIZE, 0)
    score(*judges, "--judge-repeats", "2")
    score(*judges, "--judge-repeats", "2")
    assert (len(kind.requests), len(strict.requests)) == (2 * SIZE, 2 * SIZE)


def test_the_budget_is_of_all_judges_and_the_next_command_goes_on(
    score: Score,
    judges: list[str],
    servers: tuple[MisbehavingServer, MisbehavingServer],
    result: Callable[[], Any],
) -> None:
    with pytest.raises(NapoBenchError, match="the budget of 40 requests is spent"):
        score(*judges, "--judge-repeats", "2", "--judge-max-requests", "40")
    assert sum(len(server.requests) for server in servers) == 40
    score(*judges, "--judge-repeats", "2", "--judge-max-requests", str(4 * SIZE - 40))
    everything = np.stack([ratings(model, 2) for model in ("kind", "strict")])
    assert result().metrics["score"].value == pytest.approx(everything.mean())


@pytest.mark.parametrize("options", [(), ("--judge-repeats", "2")])
def test_the_samples_score_again_without_a_judge(
    score: Score, judges: list[str], result: Callable[[], Any], options: tuple[str, ...]
) -> None:
    score(*judges, *options)
    first = result()
    score(rows=first.samples)
    assert result() == first


def test_samples_with_other_ratings_than_the_first_are_refused(
    score: Score, judges: list[str], result: Callable[[], Any]
) -> None:
    score(*judges)
    samples = result().samples
    del samples[3]["judge_replies"][1]
    with pytest.raises(NapoBenchError, match=r"image3: the ratings are \{'kind': 1\}, those of the first row are"):
        score(rows=samples)


def test_an_answer_that_one_judge_refuses_counts_for_no_judge(
    score: Score,
    judges: list[str],
    servers: tuple[MisbehavingServer, MisbehavingServer],
    result: Callable[[], Any],
) -> None:
    def behave(request: Request) -> Behaviour:
        return refusal(400, "The prompt triggered the policy.") if number_of(request) == 7 else rate(request)

    servers[1].behave = behave
    score(*judges, "--max-refused", "10%")
    found = result()
    assert [entry["sample_id"] for entry in found.unanswered] == ["7"]
    assert {values["score"].n for group, values in found.breakdown.items() if group.startswith("judge/")} == {SIZE - 1}
    assert found.metrics["score"].n == SIZE - 1


def test_a_judge_without_ratings_is_named(
    score: Score, judges: list[str], servers: tuple[MisbehavingServer, MisbehavingServer]
) -> None:
    servers[1].behave = lambda request: answer("Fine.")
    with pytest.raises(NapoBenchError, match=r"judge replies of strict hold no single rating"):
        score(*judges)


def test_a_wrong_judge_is_found_before_the_others_are_asked_for_everything(
    score: Score, judges: list[str], servers: tuple[MisbehavingServer, MisbehavingServer]
) -> None:
    servers[1].behave = lambda request: refusal(404, "no such model")
    with pytest.raises(NapoBenchError, match=r"strict at .* does not know the model"):
        score(*judges)
    assert len(servers[0].requests) == 3


def test_a_key_goes_only_to_the_host_that_it_names(
    score: Score,
    judges: list[str],
    servers: tuple[MisbehavingServer, MisbehavingServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind, strict = servers
    monkeypatch.setenv("NAPO_BENCH_JUDGE_API_KEY", "general")
    monkeypatch.setenv("NAPO_BENCH_JUDGE_API_KEY_LOCALHOST", "of-localhost")
    local = strict.url.replace("127.0.0.1", "localhost")
    options = ("--judge-model", f"kind@{kind.url}", "--judge-model", f"strict@{local}", "--judge-model", "third")
    with MisbehavingServer(rate) as third:
        score(*options, "--judge-base-url", third.url)
        sent = [{request.authorization for request in server.requests} for server in (kind, strict, third)]
    assert sent == [{"Bearer none"}, {"Bearer of-localhost"}, {"Bearer general"}]


def test_a_password_in_a_judges_url_is_in_no_result(
    score: Score, servers: tuple[MisbehavingServer, MisbehavingServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = servers[0].url.replace("//", "//me:hidden@")
    monkeypatch.setattr("sys.argv", ["napo-bench", "score", "mmhal", "--judge-model", f"kind@{url}"])
    score("--judge-model", f"kind@{url}", "--judge-model", f"kind@{servers[1].url}")
    written = [path.read_text() for path in (tmp_path / "out.json", *(tmp_path / "out.samples").iterdir())]
    assert "kind at http://127.0.0.1" in written[0] and "kind@http://127.0.0.1" in written[0]
    assert not any("hidden" in text for text in written)


def test_a_missing_key_is_named(
    score: Score, judges: list[str], servers: tuple[MisbehavingServer, MisbehavingServer]
) -> None:
    servers[1].behave = lambda request: refusal(401, "who are you?")
    with pytest.raises(NapoBenchError) as caught:
        score(*judges)
    assert "Set NAPO_BENCH_JUDGE_API_KEY_127_0_0_1" in caught.value.hint


def test_one_model_at_two_endpoints_is_two_judges(
    score: Score, servers: tuple[MisbehavingServer, MisbehavingServer], result: Callable[[], Any]
) -> None:
    score(*[option for server in servers for option in ("--judge-model", f"m@{server.url}")])
    assert list(result().settings["judges"]) == [f"m at {server.url}" for server in servers]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--judge-model", "a@http://h/v1", "--judge-model", "a@http://h/v1/"], "The judge a at http://h/v1 is given"),
        (["--judge-model", "a@localhost:8000/v1"], "begins with neither http:// nor https://"),
        (["--judge-model", "a@http://h/v1?key=secret"], "has a query, parameters or a fragment"),
        (["--judge-repeats", "2"], "--judge-repeats is given, but no judge"),
        (["--judge-model", "claude@20250101"], "No key for the judge claude@20250101"),
    ],
)
def test_judges_that_mean_nothing_are_refused(score: Score, options: list[str], message: str) -> None:
    with pytest.raises(NapoBenchError) as caught:
        score(*options)
    assert message in caught.value.message
    assert "secret" not in str(caught.value)


def test_the_intervals_of_samples_and_judges_are_apart_and_together(
    score: Score, judges: list[str], result: Callable[[], Any], tmp_path: Path
) -> None:
    output = score(*judges, "--judge-repeats", "2")
    assert "samples alone" in output and "judge alone" in output
    found = result()
    for value in (found.metrics["score"], found.breakdown["judge/kind"]["score"]):
        assert value.noise is not None
        assert value.ci95 == value.noise.both
        assert value.noise.judge[0] < value.value < value.noise.judge[1]
    score(*judges[:2])
    assert '"noise":' not in (tmp_path / "out.json").read_text()
    assert "judge alone" not in score(*judges[:2])


def test_the_explorer_shows_every_reply_and_counts_an_answer_as_right_if_every_rating_is(
    score: Score, judges: list[str], tmp_path: Path, result: Callable[[], Any]
) -> None:
    score(*judges, "--judge-repeats", "2")
    page = tmp_path / "page.html"
    outcome = CliRunner().invoke(app, ["report", str(tmp_path / "out.json"), "--format", "html", "--out", str(page)])
    assert outcome.exception is None
    text = page.read_text()
    assert "kind, rating 2:" in text and "strict, rating 1:" in text
    items = json.loads(text.partition('id="data"')[2].partition(">")[2].partition("</script>")[0])["items"]
    for item, sample in zip(items, result().samples, strict=True):
        worst = min(entry["rating"] for entry in sample["judge_replies"])
        assert item["answers"][0]["right"] == (worst >= 3)


def test_a_benchmark_that_asks_one_judge_once_refuses_more(tmp_path: Path) -> None:
    with Journal(tmp_path / "judge.sqlite") as journal:
        endpoint = JournalledEndpoint("j", "http://127.0.0.1:9/v1", None, journal)
        once, twice = Judge(endpoint), Judge(endpoint, repeats=2)
        assert ScoreOptions(judges=(once,)).judge is once
        assert ScoreOptions().judge is None
        for judges in ((once, once), (twice,)):
            with pytest.raises(NapoBenchError, match="asks one judge once"):
                _ = ScoreOptions(judges=judges).judge

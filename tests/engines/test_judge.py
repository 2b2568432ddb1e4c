"""The judge against a real server that rate-limits, fails, hangs, drops, garbles and refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from misbehaving_server import Behaviour, MisbehavingServer, Request, answer, refusal

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal, journal_key
from napo_bench.engines import endpoint
from napo_bench.engines.budget import Budget
from napo_bench.engines.journalled import JournalledEndpoint
from napo_bench.engines.judge import Judge, judge_settings, tokens_note
from napo_bench.engines.judge_options import JudgeOptions, configured_judge, configured_judges

KEY = "sk-secret-of-the-test"


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.01)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "judge.sqlite") as opened:
        yield opened


def number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def judge_of(server: MisbehavingServer, journal: Journal, **options: object) -> Judge:
    return Judge(JournalledEndpoint("judge", server.url, KEY, journal, **options))  # type: ignore[arg-type]


def test_replies_come_in_the_order_of_the_prompts(journal: Journal) -> None:
    with MisbehavingServer(lambda request: answer(request.text, delay=0.05 / (1 + int(request.text)))) as server:
        replies = judge_of(server, journal).ask([str(n) for n in range(20)], number)
    assert [reply.value for reply in replies] == list(range(20))
    assert {(reply.model, reply.reported_model) for reply in replies} == {("judge", "judge-0613")}


def test_one_user_message_at_temperature_zero_with_the_key(journal: Journal) -> None:
    with MisbehavingServer(lambda request: answer("1")) as server:
        judge_of(server, journal).ask(["Rate {this}."], number)
    (request,) = server.requests
    assert request.body == {
        "model": "judge",
        "messages": [{"role": "user", "content": "Rate {this}."}],
        "temperature": 0,
    }
    assert request.authorization == f"Bearer {KEY}"


def test_equal_prompts_are_asked_once(journal: Journal) -> None:
    with MisbehavingServer(lambda request: answer("4", delay=0.02)) as server:
        replies = judge_of(server, journal).ask(["a", "b", "a", "a", "b"], number)
    assert sorted(request.text for request in server.requests) == ["a", "b"]
    assert [reply.value for reply in replies] == [4] * 5


def test_a_second_run_asks_nothing(journal: Journal) -> None:
    with MisbehavingServer(lambda request: answer(request.text)) as server:
        first = judge_of(server, journal).ask(["1", "2"], number)
        again = judge_of(server, journal).ask(["2", "1"], number)
    assert len(server.requests) == 2
    assert again == first[::-1]


def test_a_first_rating_is_stored_under_the_key_of_earlier_versions(journal: Journal) -> None:
    with MisbehavingServer(lambda request: answer("2")) as server:
        key = {"endpoint": server.url, "model": "judge", "chat": {"prompt": "x", "ask": 0}}
        value = {"text": "5", "model": "judge-0613", "prompt_tokens": 7, "completion_tokens": 3}
        journal.put({journal_key(**key, settings={"temperature": 0}): value})
        judge = Judge(JournalledEndpoint("judge", server.url, KEY, journal), repeats=3)
        assert [[reply.value for reply in replies] for replies in judge.rate(["x"], number)] == [[5, 2, 2]]
        assert server.asked("x") == 2


def test_another_model_or_server_is_asked_anew(journal: Journal) -> None:
    with MisbehavingServer(lambda request: answer("1")) as one, MisbehavingServer(lambda request: answer("2")) as two:
        assert Judge(JournalledEndpoint("a", one.url, KEY, journal)).ask(["x"], number)[0].value == 1
        assert Judge(JournalledEndpoint("a", two.url, KEY, journal)).ask(["x"], number)[0].value == 2
        Judge(JournalledEndpoint("b", one.url, KEY, journal)).ask(["x"], number)
        assert (one.asked("x"), two.asked("x")) == (2, 1)


def test_concurrency_is_used_and_bounded(journal: Journal) -> None:
    with MisbehavingServer(lambda request: answer("1", delay=0.05)) as server:
        judge_of(server, journal, concurrency=3).ask([str(n) for n in range(13)], number)
    assert server.max_in_flight == 3


def test_progress_counts_to_the_end(journal: Journal) -> None:
    seen: list[tuple[object, ...]] = []
    with MisbehavingServer(lambda request: answer("1")) as server:
        judge = Judge(JournalledEndpoint("judge", server.url, KEY, journal), progress=lambda *at: seen.append(at))
        judge.ask(["a", "b", "c"], number)
    assert seen == [("Judging", 1, 3), ("Judging", 2, 3), ("Judging", 3, 3)]


@pytest.mark.parametrize(
    "fault",
    [
        refusal(429, "slow down"),
        refusal(500, "broken"),
        refusal(503, "overloaded"),
        Behaviour(drop=True),
        Behaviour(body=b'{"choices": [{"mess'),
        Behaviour(body=b"<html>gateway</html>", headers={"Content-Type": "text/html"}),
        answer("5", choices=[]),
        answer("5", choices=None),
        Behaviour(delay=0.6),
    ],
    ids=["429", "500", "503", "drop", "malformed", "html", "empty-choices", "null-choices", "hang"],
)
def test_a_passing_fault_is_asked_again(journal: Journal, fault: Behaviour) -> None:
    with MisbehavingServer(lambda request: fault if request.nth < 2 else answer("5")) as server:
        (reply,) = judge_of(server, journal, timeout=0.2).ask(["x"], number)
    assert (reply.value, server.asked("x")) == (5, 3)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured_by_every_request(journal: Journal, form: str) -> None:
    refused_at: list[float] = []

    def behave(request: Request) -> Behaviour:
        if request.text == "3" and request.nth == 0:
            refused_at.append(time.monotonic())
            wait = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
            return refusal(429, "slow down", {"Retry-After": wait})
        return answer(request.text, delay=0.1)

    with MisbehavingServer(behave) as server:
        judge_of(server, journal, concurrency=2).ask([str(n) for n in range(8)], number)
    after = [at - refused_at[0] for at in server.times if at - refused_at[0] > 0.5]
    assert after and min(after) >= 0.95


def test_a_retry_after_of_an_hour_stops_the_run(journal: Journal) -> None:
    with MisbehavingServer(lambda request: refusal(429, "come back", {"Retry-After": "3600"})) as server:
        with pytest.raises(NapoBenchError, match=r"asks to wait 3600 s"):
            judge_of(server, journal).ask(["a", "b"], number)
        assert len(server.requests) == 1


def test_backoff_grows_between_tries(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.1)
    with MisbehavingServer(lambda request: answer("1") if request.nth == 3 else refusal(500, "no")) as server:
        judge_of(server, journal).ask(["a"], number)
    waits = [later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)]
    for wait, longest in zip(waits, (0.1, 0.2, 0.4), strict=True):
        assert longest / 2 <= wait < longest + 0.1


def test_a_lasting_fault_ends_in_one_error_that_tells_what_is_stored(journal: Journal) -> None:
    def behave(request: Request) -> Behaviour:
        return refusal(500, "still broken") if request.text == "9" else answer(request.text)

    with MisbehavingServer(behave) as server:
        with pytest.raises(NapoBenchError) as caught:
            judge_of(server, journal, concurrency=1, retries=2).ask(["1", "2", "9", "3"], number)
        assert "failed 3 times in a row, at last with: HTTP 500" in caught.value.message
        assert f"2 of 4 are answered and stored in {journal.path}" in caught.value.message
        assert "Run the same command again" in caught.value.hint
        assert (server.asked("9"), server.asked("3"), len(journal)) == (3, 0, 2)


def test_the_last_try_is_not_waited_for(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 30.0)
    began = time.monotonic()
    with MisbehavingServer(lambda request: refusal(500, "no")) as server, pytest.raises(NapoBenchError):
        judge_of(server, journal, retries=0).ask(["x"], number)
    assert time.monotonic() - began < 10


def test_a_page_of_html_is_quoted_short(journal: Journal) -> None:
    with MisbehavingServer(lambda request: Behaviour(400, b"<p>no</p> " * 5000)) as server:
        with pytest.raises(NapoBenchError, match="refuses every prompt") as caught:
            judge_of(server, journal).ask(["x"], number)
        assert len(str(caught.value)) < 1000


def test_an_unparsable_reply_is_asked_twice_more_and_again_by_the_next_run(journal: Journal) -> None:
    with MisbehavingServer(lambda request: answer(f"no number, take {request.nth}")) as server:
        (reply,) = judge_of(server, journal).ask(["x"], number)
        assert (reply.value, reply.text) == (None, "no number, take 2")
        assert (reply.prompt_tokens, reply.completion_tokens) == (21, 9)
        (again,) = judge_of(server, journal).ask(["x"], number)
        assert (again.value, again.text) == (None, "no number, take 5")
        server.behave = lambda request: answer("4")
        assert judge_of(server, journal).ask(["x"], number)[0].value == 4
        assert server.asked("x") == 7
        assert judge_of(server, journal).ask(["x"], number)[0].value == 4
        assert server.asked("x") == 7


def test_a_reply_that_parses_the_second_time_counts(journal: Journal) -> None:
    with MisbehavingServer(lambda request: answer("six" if request.nth == 0 else "6")) as server:
        (reply,) = judge_of(server, journal).ask(["x"], number)
        assert (reply.value, server.asked("x")) == (6, 2)
        assert judge_of(server, journal).ask(["x"], number) == [reply]
        assert server.asked("x") == 2


def test_an_empty_message_is_a_reply(journal: Journal) -> None:
    empty = [{"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": "length"}]
    with MisbehavingServer(lambda request: answer("", choices=empty)) as server:
        (reply,) = judge_of(server, journal).ask(["x"], number)
    assert (reply.value, reply.text) == (None, "")


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (refusal(401, f"Incorrect API key provided: {KEY}"), "refuses the API key"),
        (refusal(403, "not yours"), "refuses the API key"),
        (refusal(404, "The model `judge` does not exist"), "does not know the model"),
        (refusal(400, "no such field: seed", code="unknown_parameter", param="seed"), "no such field"),
        (refusal(429, "You exceeded your current quota", code="insufficient_quota"), "no quota left"),
    ],
    ids=["401", "403", "404", "400", "quota"],
)
def test_a_refusal_costs_one_request_and_shows_no_key(journal: Journal, behaviour: Behaviour, says: str) -> None:
    with MisbehavingServer(lambda request: behaviour) as server:
        with pytest.raises(NapoBenchError) as caught:
            judge_of(server, journal).ask([str(n) for n in range(30)], number)
        assert says in caught.value.message
        assert KEY not in str(caught.value)
        assert len(server.requests) == 1


def test_every_prompt_refused_in_the_same_way_stops_after_three(journal: Journal) -> None:
    with MisbehavingServer(lambda request: refusal(400, f"I dislike {request.text}")) as server:
        with pytest.raises(NapoBenchError, match=r"3 prompts in a row.*I dislike"):
            judge_of(server, journal, max_refused=0.5).ask([str(n) for n in range(30)], number)
        assert len(server.requests) == 3


def filtered(request: Request) -> Behaviour:
    """Refuses the prompts that are multiples of 20."""
    if int(request.text) % 20 == 0:
        return refusal(400, "The prompt triggered the content management policy.", code="content_filter")
    return answer(request.text)


def test_a_prompt_that_is_refused_has_a_reply_that_says_why_and_is_asked_again_by_the_next_run(
    journal: Journal,
) -> None:
    prompts = [str(n) for n in range(60)]  # 0, 20 and 40 are refused: 5%
    with MisbehavingServer(filtered) as server:
        replies = judge_of(server, journal, max_refused=0.05).ask(prompts, number)
        assert [reply.value for reply in replies] == [n if n % 20 else None for n in range(60)]
        assert replies[20].refused == "HTTP 400: The prompt triggered the content management policy."
        assert len(server.requests) == 60
        server.behave = lambda request: answer(request.text)
        again = judge_of(server, journal).ask(prompts, number)
        assert [reply.value for reply in again] == list(range(60))
        assert len(server.requests) == 63
    assert judge_settings(replies)["reported_model"] == "judge-0613"


def test_more_refused_prompts_than_allowed_stop_the_run(journal: Journal) -> None:
    with MisbehavingServer(filtered) as server:
        with pytest.raises(NapoBenchError, match=r"refuses 2 of 60 prompts, more than 1%.*policy") as caught:
            judge_of(server, journal, concurrency=1).ask([str(n) for n in range(60)], number)
        assert "19 of 60 are answered and stored" in caught.value.message
        assert "--max-refused" in caught.value.hint
        assert len(server.requests) == 21


def test_a_refusal_of_the_first_prompt_is_about_that_prompt(journal: Journal) -> None:
    with MisbehavingServer(filtered) as server:
        replies = judge_of(server, journal).ask([str(n) for n in range(20)], number)
    assert [bool(reply.refused) for reply in replies] == [True] + [False] * 19


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"message": {"content": 7}}]},
        {"choices": [{"message": "5"}]},
        {"output": [{"content": [{"type": "output_text", "text": "5"}]}]},
    ],
    ids=["number", "text", "another API"],
)
def test_a_shape_that_cannot_change_is_refused_once(journal: Journal, body: dict[str, object]) -> None:
    with MisbehavingServer(lambda request: Behaviour(body=json.dumps(body).encode())) as server:
        with pytest.raises(NapoBenchError, match="no chat completion"):
            judge_of(server, journal).ask([str(n) for n in range(30)], number)
        assert len(server.requests) == 1


def test_an_error_in_place_of_a_completion_is_asked_again(journal: Journal) -> None:
    fault = Behaviour(body=b'{"error": {"code": 502, "message": "upstream"}}')
    with MisbehavingServer(lambda request: fault if request.nth == 0 else answer("5")) as server:
        assert judge_of(server, journal).ask(["x"], number)[0].value == 5


@pytest.mark.parametrize(
    "text",
    ["<think>3? or 5?</think>\n4", "3? or 5?</think>4", "<think>5</think> 6 <think>x</think>\n\n4\n"],
)
def test_a_judges_thoughts_are_kept_and_not_parsed(journal: Journal, text: str) -> None:
    with MisbehavingServer(lambda request: answer(text)) as server:
        (reply,) = judge_of(server, journal).ask(["x"], number)
    assert (reply.value, reply.text) == (4, text)


def test_a_judge_that_never_ends_its_thoughts_says_nothing(journal: Journal) -> None:
    with MisbehavingServer(lambda request: answer("<think>4")) as server:
        assert judge_of(server, journal).ask(["x"], lambda text: 4)[0].value is None


def test_a_judge_that_takes_no_temperature_gets_none_and_the_settings_say_so(journal: Journal) -> None:
    def behave(request: Request) -> Behaviour:
        if "temperature" in request.body:
            message = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1)."
            return refusal(400, message, code="unsupported_value", param="temperature")
        return answer("4")

    with MisbehavingServer(behave) as server:
        judge = judge_of(server, journal, request={"reasoning_effort": "low"})
        replies = judge.ask(["a", "b", "c"], number)
        assert len(server.requests) == 4
        again = judge_of(server, journal, request={"reasoning_effort": "low"}).ask(["a", "b", "c"], number)
        assert len(server.requests) == 4
        judge_of(server, journal, request={"reasoning_effort": "high"}).ask(["a"], number)
        assert len(server.requests) == 6
    assert again == replies
    settings = judge_settings(again)
    assert (settings["temperature"], settings["reasoning_effort"]) == (None, "low")


def test_reaching_finds_what_is_wrong_and_stores_nothing(journal: Journal) -> None:
    with MisbehavingServer(lambda request: refusal(401, "no")) as server:
        with pytest.raises(NapoBenchError, match="refuses the API key"):
            judge_of(server, journal).reach(["a", "b"])
        url = server.url
    with pytest.raises(NapoBenchError, match="cannot be reached"):
        Judge(JournalledEndpoint("judge", url, KEY, journal)).reach(["a", "b"])
    with (
        MisbehavingServer(lambda request: refusal(400, "Model Not Exist")) as server,
        pytest.raises(NapoBenchError, match="Model Not Exist"),
    ):
        judge_of(server, journal).reach(["a", "b", "c"])
    with MisbehavingServer(filtered) as server:
        judge_of(server, journal).reach(["0", "1", "2"])
        assert [request.text for request in server.requests] == ["0", "1"]
    assert len(journal) == 0


def test_a_closed_port_is_one_quick_error(journal: Journal) -> None:
    with MisbehavingServer(lambda request: answer("1")) as server:
        url = server.url
    began = time.monotonic()
    with pytest.raises(NapoBenchError, match="cannot be reached"):
        Judge(JournalledEndpoint("judge", url, KEY, journal)).ask(["a", "b", "c"], number)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("url", ["localhost:8000/v1", "http://user:word@host:port/v1", "http://", "ftp://host/v1"])
def test_a_url_that_is_none_is_refused_at_once(journal: Journal, url: str) -> None:
    with pytest.raises(NapoBenchError, match="is how one looks") as caught:
        Judge(JournalledEndpoint("judge", url, KEY, journal))
    assert "word" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-a\r\nb", "sk-é"])
def test_a_key_that_no_header_carries_is_refused_unseen(journal: Journal, key: str) -> None:
    with pytest.raises(NapoBenchError, match="characters that no key has") as caught:
        Judge(JournalledEndpoint("judge", "http://127.0.0.1:1/v1", key, journal))
    assert "sk-" not in str(caught.value)


def test_the_budget_counts_every_request_and_the_next_run_goes_on(journal: Journal) -> None:
    def behave(request: Request) -> Behaviour:
        return refusal(500, "hiccup") if request.text == "1" and request.nth == 0 else answer(request.text)

    prompts = [str(n) for n in range(6)]
    with MisbehavingServer(behave) as server:
        with pytest.raises(NapoBenchError) as caught:
            judge_of(server, journal, budget=Budget(4), concurrency=2).ask(prompts, number)
        assert len(server.requests) == 4
        assert "the budget of 4 requests is spent" in caught.value.message
        assert "3 of 6 are answered and stored" in caught.value.message
        replies = judge_of(server, journal, budget=Budget(3)).ask(prompts, number)
        assert [reply.value for reply in replies] == list(range(6))
        assert len(server.requests) == 7


def test_the_journal_holds_no_key(journal: Journal) -> None:
    with MisbehavingServer(lambda request: answer("1")) as server:
        judge_of(server, journal).ask(["a"], number)
    journal.close()
    assert KEY.encode() not in b"".join(path.read_bytes() for path in journal.path.parent.iterdir())


def test_kill_9_loses_no_answer_and_asks_none_again(tmp_path: Path) -> None:
    prompts = [str(n) for n in range(40)]
    program = (
        "import sys; from pathlib import Path; from napo_bench.core.journal import Journal;"
        "from napo_bench.engines.journalled import JournalledEndpoint; from napo_bench.engines.judge import Judge;"
        "judge = Judge(JournalledEndpoint('judge', sys.argv[1], None, Journal(Path(sys.argv[2])), concurrency=2));"
        "judge.ask([str(n) for n in range(40)], int)"
    )
    path = tmp_path / "judge.sqlite"
    with MisbehavingServer(lambda request: answer(request.text, delay=0.03)) as server:
        process = subprocess.Popen([sys.executable, "-c", program, server.url, str(path)])
        while len(server.requests) < 12 and process.poll() is None:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.1)
        before = len(server.requests)
        assert 12 <= before < 40
        with Journal(path) as journal:
            stored = len(journal)
            assert stored >= before - 2  # two were in flight
            replies = Judge(JournalledEndpoint("judge", server.url, None, journal)).ask(prompts, int)
        assert [reply.value for reply in replies] == list(range(40))
        assert len(server.requests) == before + 40 - stored


def test_settings_and_tokens_describe_the_replies(journal: Journal) -> None:
    models = {"a": "judge-0613", "b": "judge-0314"}
    with MisbehavingServer(lambda request: answer("1", models[request.text])) as server:
        replies = judge_of(server, journal).ask(["a", "b"], number)
    assert judge_settings(replies) == {
        "model": "judge",
        "reported_model": "judge-0314, judge-0613",
        "temperature": 0,
    }
    assert tokens_note(replies) == "2 judge replies, 14 prompt tokens and 6 completion tokens"


class TestConfiguration:
    @pytest.fixture(autouse=True)
    def no_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("BASE_URL", "MODEL", "API_KEY"):
            monkeypatch.delenv(f"NAPO_BENCH_JUDGE_{name}", raising=False)
            monkeypatch.delenv(f"OPENAI_{name}", raising=False)

    def test_no_option_and_no_variable_is_no_judge(self, journal: Journal) -> None:
        assert configured_judge(JudgeOptions(), journal) is None

    def test_a_url_without_a_model_is_refused(self, journal: Journal) -> None:
        with pytest.raises(NapoBenchError, match="no judge model") as caught:
            configured_judge(JudgeOptions(base_url="http://127.0.0.1:1/v1"), journal)
        assert "--judge-model" in caught.value.hint

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("mean", "No judge can be called 'mean'"),
            ("mean@http://127.0.0.1:1/v1", "No judge can be called 'mean'"),
            ("@http://127.0.0.1:1/v1", "has no name before the @"),
            (" ", "A judge has no name"),
            ("plain@localhost", "neither http:// nor https://"),
            ("plain@api.mistral.ai", "neither http:// nor https://"),
            ("plain@foo:8000", "neither http:// nor https://"),
        ],
    )
    def test_a_judge_needs_a_name_of_its_own_and_a_whole_url(self, journal: Journal, text: str, message: str) -> None:
        with pytest.raises(NapoBenchError, match=message) as caught:
            configured_judges(JudgeOptions([text], "http://127.0.0.1:1/v1"), journal)
        assert caught.value.hint

    @pytest.mark.parametrize("name", ["claude-opus-4@20250514", "model@v1.5"])
    def test_a_revision_after_an_at_is_part_of_the_name(self, journal: Journal, name: str) -> None:
        (judge,) = configured_judges(JudgeOptions([name], "http://127.0.0.1:1/v1"), journal)
        assert judge.model == name

    def test_the_default_endpoint_needs_a_key(self, journal: Journal) -> None:
        with pytest.raises(NapoBenchError, match="No key for the judge gpt-4") as caught:
            configured_judge(JudgeOptions(["gpt-4"]), journal)
        assert "NAPO_BENCH_JUDGE_API_KEY" in caught.value.hint

    @pytest.mark.parametrize("variable", ["NAPO_BENCH_JUDGE_API_KEY", "OPENAI_API_KEY"])
    def test_variables_configure_it(self, journal: Journal, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
        with MisbehavingServer(lambda request: answer("1")) as server:
            monkeypatch.setenv("NAPO_BENCH_JUDGE_BASE_URL", server.url)
            monkeypatch.setenv("NAPO_BENCH_JUDGE_MODEL", "named")
            monkeypatch.setenv(variable, KEY)
            judge = configured_judge(JudgeOptions(), journal)
            assert judge is not None
            judge.ask(["a"], number)
        assert server.requests[0].body["model"] == "named"
        assert server.requests[0].authorization == f"Bearer {KEY}"

    def test_options_win_over_variables(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NAPO_BENCH_JUDGE_BASE_URL", "http://127.0.0.1:1/v1")
        monkeypatch.setenv("NAPO_BENCH_JUDGE_MODEL", "named")
        with MisbehavingServer(lambda request: answer("1")) as server:
            judge = configured_judge(JudgeOptions(["given"], server.url), journal)
            assert judge is not None
            judge.ask(["a"], number)
        assert json.loads(json.dumps(server.requests[0].body))["model"] == "given"

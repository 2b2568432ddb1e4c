"""`napo_api`: lmms-eval's requests to an OpenAI-compatible endpoint."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from misbehaving_server import Behaviour, MisbehavingServer, Request, answer, refusal
from PIL import Image

from napo_bench import endpoint
from napo_bench.errors import NapoBenchError

pytest.importorskip("lmms_eval")

from lmms_eval.api.instance import Instance

from napo_bench.models.api import NapoAPI

METADATA = {"task": "task", "doc_id": 0, "repeats": 1}
GREEDY = {"max_new_tokens": 64, "do_sample": False}


def picture(shade: int) -> Image.Image:
    return Image.new("RGB", (3, 2), (shade, 0, 255))


def request_of(question: str, image: Image.Image | None, kwargs: dict[str, Any] | None = None) -> Instance:
    visual = (lambda doc: [image]) if image else None
    arguments = (question, kwargs or GREEDY, visual, 0, "task", "test")
    return Instance(request_type="generate_until", arguments=arguments, idx=0, metadata=METADATA)


@pytest.fixture
def model_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., NapoAPI]:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.01)
    monkeypatch.setenv("NAPO_BENCH_API_KEY", "sk-of-the-test")

    def make(server: MisbehavingServer, model: str = "served", **options: Any) -> NapoAPI:
        made = NapoAPI(model=model, base_url=server.url, journal=tmp_path / "responses.sqlite", **options)
        made.task_dict = {"task": {"test": [{}]}}
        return made

    return make


def test_the_endpoint_gets_the_very_pixels_and_the_question(model_of: Callable[..., NapoAPI]) -> None:
    with MisbehavingServer(lambda request: answer(" A red square. ")) as server:
        assert model_of(server).generate_until([request_of("What is it?", picture(9))]) == ["A red square."]
    (request,) = server.requests
    assert request.authorization == "Bearer sk-of-the-test"
    assert {name: request.body[name] for name in ("model", "temperature", "max_tokens")} == {
        "model": "served",
        "temperature": 0,
        "max_tokens": 64,
    }
    ((image, text),) = [message["content"] for message in request.body["messages"]]
    assert text == {"type": "text", "text": "What is it?"}
    head, _, data = image["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
        assert (sent.mode, sent.size, sent.tobytes()) == ("RGB", (3, 2), picture(9).tobytes())


def test_answers_keep_the_order_of_the_requests(model_of: Callable[..., NapoAPI]) -> None:
    with MisbehavingServer(lambda request: answer(request.text, delay=0.06 / (1 + int(request.text)))) as server:
        requests = [request_of(str(n), picture(n)) for n in range(12)]
        assert model_of(server, batch_size=4).generate_until(requests) == [str(n) for n in range(12)]
        assert server.max_in_flight == 4


def test_question_picture_and_settings_each_make_another_answer(model_of: Callable[..., NapoAPI]) -> None:
    with MisbehavingServer(lambda request: answer(f"{len(server.requests)}")) as server:
        model = model_of(server, batch_size=1)
        requests = [
            request_of("a", picture(1)),
            request_of("b", picture(1)),
            request_of("a", picture(2)),
            request_of("a", None),
            request_of("a", picture(1), GREEDY | {"max_new_tokens": 8}),
            request_of("a", picture(1), GREEDY | {"do_sample": True, "temperature": 0.2}),
        ]
        first = model.generate_until(requests)
        assert len(set(first)) == len(requests)
        assert model_of(server).generate_until(requests) == first
        assert len(server.requests) == len(requests)
        assert model_of(server, model="another").generate_until(requests[:1]) == ["7"]


def test_a_prompt_without_picture_is_plain_text(model_of: Callable[..., NapoAPI]) -> None:
    with MisbehavingServer(lambda request: answer("x")) as server:
        model_of(server).generate_until([request_of("Say x.", None)])
    assert server.requests[0].body["messages"] == [{"role": "user", "content": "Say x."}]


def test_sampling_settings_reach_the_endpoint(model_of: Callable[..., NapoAPI]) -> None:
    with MisbehavingServer(lambda request: answer("x")) as server:
        sampled = {"max_new_tokens": 5, "do_sample": True, "temperature": 0.2, "top_p": 0.9}
        model_of(server).generate_until([request_of("a", None, sampled)])
    body = server.requests[0].body
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.2, 0.9, 5)


def test_an_answer_ends_before_until(model_of: Callable[..., NapoAPI]) -> None:
    with MisbehavingServer(lambda request: answer("one\n\ntwo")) as server:
        assert model_of(server).generate_until([request_of("a", None, GREEDY | {"until": ["\n\n"]})]) == ["one"]


def test_an_empty_answer_is_an_answer(model_of: Callable[..., NapoAPI]) -> None:
    with MisbehavingServer(lambda request: answer("")) as server:
        assert model_of(server).generate_until([request_of("a", None)]) == [""]


@pytest.mark.parametrize(
    ("sent", "read"), [(rb"a \ud83d b", "a \ufffd b"), (b"a \xed\xa0\xbd b", "a \ufffd\ufffd\ufffd b")]
)
def test_half_a_surrogate_pair_in_a_reply_is_replaced(model_of: Callable[..., NapoAPI], sent: bytes, read: str) -> None:
    whole = answer("a park b").body
    with MisbehavingServer(lambda request: Behaviour(body=whole.replace(b"a park b", sent))) as server:
        assert model_of(server).generate_until([request_of("What is it?", None)]) == [read]
        assert len(server.requests) == 1


def test_beams_are_refused(model_of: Callable[..., NapoAPI]) -> None:
    with (
        MisbehavingServer(lambda request: answer("x")) as server,
        pytest.raises(NapoBenchError, match="3 beams") as caught,
    ):
        model_of(server).generate_until([request_of("a", None, GREEDY | {"num_beams": 3})])
    assert "greedy" in caught.value.hint
    assert not server.requests


def test_faults_are_asked_again_and_answers_survive_a_stop(model_of: Callable[..., NapoAPI]) -> None:
    broken = True

    def behave(request: Request) -> Behaviour:
        if request.text == "4" and broken:
            return refusal(400, "this picture is refused")
        return refusal(500, "hiccup") if request.nth == 0 else answer(request.text)

    requests = [request_of(str(n), picture(n)) for n in range(6)]
    with MisbehavingServer(behave) as server:
        with pytest.raises(NapoBenchError, match="this picture is refused") as caught:
            model_of(server, batch_size=1).generate_until(requests)
        assert "4 of 6 are answered and stored" in caught.value.message
        broken = False
        assert model_of(server).generate_until(requests) == [str(n) for n in range(6)]
        assert [server.asked(str(n)) for n in range(4)] == [2] * 4


def test_lmms_eval_finds_it_by_its_name(tmp_path: Path) -> None:
    from lmms_eval.models import get_model

    assert get_model("napo_api") is NapoAPI


@pytest.mark.parametrize("size", ["auto", 0, "-1"])
def test_a_batch_size_that_is_none_is_refused(size: str | int) -> None:
    with pytest.raises(NapoBenchError, match="whole number from 1"):
        NapoAPI(model="m", base_url="http://127.0.0.1:1/v1", batch_size=size)

"""The engine `api`: requests to an OpenAI-compatible endpoint."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from misbehaving_server import Behaviour, MisbehavingServer, Request, answer, refusal
from PIL import Image

from napo_bench.core.encoded import EncodedImage
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.images import open_rgb
from napo_bench.core.journal import Journal, journal_key
from napo_bench.engines import endpoint
from napo_bench.engines.answer import ModelAnswer
from napo_bench.engines.answering import Answering
from napo_bench.engines.api import APIEngine
from napo_bench.engines.request import Generation, Picture
from napo_bench.engines.request import Request as Question

GREEDY = {"max_new_tokens": 64, "do_sample": False}


def picture(shade: int) -> Image.Image:
    return Image.new("RGB", (3, 2), (shade, 0, 255))


def request_of(question: str, image: Image.Image | None, kwargs: dict[str, Any] | None = None) -> Question:
    return Question(question, Picture.of(image) if image else None, Generation.of(kwargs or GREEDY))


class Model:
    """An engine with a journal."""

    def __init__(self, engine: APIEngine, journal: Path) -> None:
        self.engine = engine
        self._answering = Answering(engine, Journal(journal))

    def answer(self, requests: list[Question]) -> list[ModelAnswer]:
        return self._answering.answer(requests, len(requests))


@pytest.fixture
def model_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Model]:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.01)
    monkeypatch.setenv("NAPO_BENCH_API_KEY", "sk-of-the-test")

    def make(server: MisbehavingServer, model: str = "served", **options: Any) -> Model:
        return Model(APIEngine(model=model, base_url=server.url, **options), tmp_path / "responses.sqlite")

    return make


def test_the_endpoint_gets_the_very_pixels_and_the_question(model_of: Callable[..., Model]) -> None:
    with MisbehavingServer(lambda request: answer(" A red square. ")) as server:
        assert model_of(server).answer([request_of("What is it?", picture(9))]) == ["A red square."]
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


def file_request(question: str, path: Path) -> Question:
    picture = Picture(path, lambda: open_rgb(path), lambda: EncodedImage.read(path))
    return Question(question, picture, Generation.of(GREEDY))


def sent_images(server: MisbehavingServer) -> list[tuple[str, bytes]]:
    """Media type and bytes of each image that arrived."""
    parts = [part for request in server.requests for part in request.body["messages"][0]["content"]]
    urls = [part["image_url"]["url"].partition(";base64,") for part in parts if part["type"] == "image_url"]
    return [(head.removeprefix("data:"), base64.b64decode(data)) for head, _, data in urls]


@pytest.mark.parametrize(("kind", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")])
def test_a_file_is_sent_as_its_own_bytes_and_the_run_names_the_format(
    model_of: Callable[..., Model], tmp_path: Path, kind: str, media_type: str
) -> None:
    path = tmp_path / "photo"
    picture(9).save(path, kind)
    with MisbehavingServer(lambda request: answer(request.text)) as server:
        model = model_of(server)
        assert model.answer([file_request(text, path) for text in "ab"]) == ["a", "b"]
    assert sent_images(server) == [(media_type, path.read_bytes())] * 2
    assert model.engine.provenance()["images"] == [media_type]


@pytest.mark.parametrize(("kind", "asked"), [("PNG", 0), ("GIF", 0), ("JPEG", 1), ("WEBP", 1)])
def test_an_earlier_answer_about_the_pixels_is_served_if_every_decoder_gives_these_pixels(
    model_of: Callable[..., Model], tmp_path: Path, kind: str, asked: int
) -> None:
    path = tmp_path / "photo"
    picture(9).quantize(4).convert("P" if kind == "GIF" else "RGB").save(path, kind)
    pixels = open_rgb(path)
    with MisbehavingServer(lambda request: answer("now")) as server:
        identity = {  # as every earlier version wrote it
            "endpoint": server.url,
            "model": "served",
            "chat": {"question": "a", "image": hashlib.sha256(b"('RGB', (3, 2))" + pixels.tobytes()).hexdigest()},
            "settings": {"max_tokens": 64, "temperature": 0},
        }
        with Journal(tmp_path / "responses.sqlite") as journal:
            journal.put({journal_key(**identity): "earlier"})
        assert model_of(server).answer([file_request("a", path)]) == ["now" if asked else "earlier"]
    assert len(server.requests) == asked


def test_another_file_with_the_same_pixels_is_another_image_only_if_its_decoder_decides(
    model_of: Callable[..., Model], tmp_path: Path
) -> None:
    paths = [tmp_path / name for name in ("a.png", "b.png", "a.jpg", "b.jpg")]
    for path in paths:
        picture(9).save(path, optimize=path.name == "b.png", progressive=path.name == "b.jpg")
    assert len({path.read_bytes() for path in paths}) == 4 and len({open_rgb(p).tobytes() for p in paths[2:]}) == 1
    with MisbehavingServer(lambda request: answer(str(len(server.requests)))) as server:
        answers = model_of(server, in_flight=1).answer([file_request("a", path) for path in paths])
    assert len(server.requests) == 3 and answers[0] == answers[1] != answers[2] != answers[3]


def test_a_window_keeps_the_bytes_of_a_file_and_not_its_pixels(model_of: Callable[..., Model], tmp_path: Path) -> None:
    Image.new("RGB", (2000, 1500), "red").save(tmp_path / "photo.jpg")
    with MisbehavingServer(lambda request: answer("x")) as server:
        seen = model_of(server).engine.look(file_request("a", tmp_path / "photo.jpg").pictures[0])
    assert seen.bytes == (tmp_path / "photo.jpg").stat().st_size < 100_000


def test_answers_keep_the_order_of_the_requests(model_of: Callable[..., Model]) -> None:
    with MisbehavingServer(lambda request: answer(request.text, delay=0.3 / (1 + int(request.text)))) as server:
        requests = [request_of(str(n), picture(n)) for n in range(12)]
        assert model_of(server, in_flight=4).answer(requests) == [str(n) for n in range(12)]
        assert server.max_in_flight == 4


def test_question_picture_and_settings_each_make_another_answer(model_of: Callable[..., Model]) -> None:
    with MisbehavingServer(lambda request: answer(f"{len(server.requests)}")) as server:
        model = model_of(server, in_flight=1)
        requests = [
            request_of("a", picture(1)),
            request_of("b", picture(1)),
            request_of("a", picture(2)),
            request_of("a", None),
            request_of("a", picture(1), GREEDY | {"max_new_tokens": 8}),
            request_of("a", picture(1), GREEDY | {"do_sample": True, "temperature": 0.2}),
        ]
        first = model.answer(requests)
        assert len(set(first)) == len(requests)
        assert model_of(server).answer(requests) == first
        assert len(server.requests) == len(requests)
        assert model_of(server, model="another").answer(requests[:1]) == ["7"]


def test_a_prompt_without_picture_is_plain_text(model_of: Callable[..., Model]) -> None:
    with MisbehavingServer(lambda request: answer("x")) as server:
        model_of(server).answer([request_of("Say x.", None)])
    assert server.requests[0].body["messages"] == [{"role": "user", "content": "Say x."}]


def test_sampling_settings_reach_the_endpoint(model_of: Callable[..., Model]) -> None:
    with MisbehavingServer(lambda request: answer("x")) as server:
        sampled = {"max_new_tokens": 5, "do_sample": True, "temperature": 0.2, "top_p": 0.9}
        model_of(server).answer([request_of("a", None, sampled)])
    body = server.requests[0].body
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.2, 0.9, 5)


def test_an_answer_ends_before_until(model_of: Callable[..., Model]) -> None:
    with MisbehavingServer(lambda request: answer("one\n\ntwo")) as server:
        assert model_of(server).answer([request_of("a", None, GREEDY | {"until": ["\n\n"]})]) == ["one"]


def test_an_empty_answer_is_an_answer(model_of: Callable[..., Model]) -> None:
    with MisbehavingServer(lambda request: answer("")) as server:
        assert model_of(server).answer([request_of("a", None)]) == [""]


@pytest.mark.parametrize(
    ("sent", "read"), [(rb"a \ud83d b", "a \ufffd b"), (b"a \xed\xa0\xbd b", "a \ufffd\ufffd\ufffd b")]
)
def test_half_a_surrogate_pair_in_a_reply_is_replaced(model_of: Callable[..., Model], sent: bytes, read: str) -> None:
    whole = answer("a park b").body
    with MisbehavingServer(lambda request: Behaviour(body=whole.replace(b"a park b", sent))) as server:
        assert model_of(server).answer([request_of("What is it?", None)]) == [read]
        assert len(server.requests) == 1


def test_beams_are_refused(model_of: Callable[..., Model]) -> None:
    with (
        MisbehavingServer(lambda request: answer("x")) as server,
        pytest.raises(NapoBenchError, match="3 beams") as caught,
    ):
        model_of(server).answer([request_of("a", None, GREEDY | {"num_beams": 3})])
    assert "greedy" in caught.value.hint
    assert not server.requests


def test_a_refused_question_is_unanswered_and_the_next_run_asks_it_again(model_of: Callable[..., Model]) -> None:
    broken = True

    def behave(request: Request) -> Behaviour:
        if request.text == "4" and broken:
            return refusal(400, "this picture is refused")
        return refusal(500, "hiccup") if request.nth == 0 else answer(request.text)

    requests = [request_of(str(n), picture(n)) for n in range(6)]
    with MisbehavingServer(behave) as server:
        answers = model_of(server, in_flight=1).answer(requests)
        assert answers == ["0", "1", "2", "3", "", "5"]
        assert [answer.beside() for answer in answers[3:5]] == [
            {"cut_off": False},
            {"unanswered": "HTTP 400: this picture is refused"},
        ]
        broken = False
        assert model_of(server).answer(requests) == [str(n) for n in range(6)]
        assert [server.asked(str(n)) for n in range(4)] == [2] * 4


THOUGHT = "<think>\nTrue or false? A dog, a cat or a bus.\n</think>"


@pytest.mark.parametrize("thoughts", [THOUGHT, THOUGHT.removeprefix("<think>")])
def test_thoughts_are_kept_and_are_no_part_of_the_answer(model_of: Callable[..., Model], thoughts: str) -> None:
    until = GREEDY | {"until": ["\n"]}  # would cut inside the thoughts
    with MisbehavingServer(lambda request: answer(f"{thoughts}\n\nA quiet place.\nNo more.")) as server:
        for _ in range(2):
            (said,) = model_of(server).answer([request_of("a", None, until)])
            assert (said, said.thoughts, said.unanswered) == ("A quiet place.", thoughts, "")
        assert len(server.requests) == 1
        (raw,) = model_of(server, thinking_marks=()).answer([request_of("a", None)])
        assert raw == f"{thoughts}\n\nA quiet place.\nNo more.".strip()


def content(said: object, finish_reason: str = "stop", **message: object) -> Behaviour:
    fields = {"role": "assistant", "content": said, **message}
    return answer("", choices=[{"index": 0, "message": fields, "finish_reason": finish_reason}])


@pytest.mark.parametrize("kind", ["thinking", "reasoning"])
def test_the_text_parts_of_a_list_are_the_answer(model_of: Callable[..., Model], kind: str) -> None:
    parts = [{"type": kind, kind: [{"type": "text", "text": "Yes?"}]}, {"type": "text", "text": "No."}]
    with MisbehavingServer(lambda request: content(parts)) as server:
        (said,) = model_of(server).answer([request_of("a", None)])
        assert said == "No."
        assert "Yes?" in said.thoughts
        assert len(server.requests) == 1


def test_reasoning_beside_the_content_is_kept_as_thoughts(model_of: Callable[..., Model]) -> None:
    with MisbehavingServer(lambda request: content("No.", reasoning_content="Yes?")) as server:
        (said,) = model_of(server).answer([request_of("a", None)])
    assert (said, said.thoughts, said.beside().get("thought_tokens")) == ("No.", "Yes?", None)


@pytest.mark.parametrize(("details", "expected"), [({"reasoning_tokens": 41}, 41), ({}, None), ("many", None)])
def test_tokens_of_thoughts_are_as_the_endpoint_reports_them(
    model_of: Callable[..., Model], details: object, expected: int | None
) -> None:
    """Some endpoints count thoughts that they do not send."""
    usage = {"prompt_tokens": 7, "completion_tokens": 50, "completion_tokens_details": details}
    with MisbehavingServer(lambda request: answer("No.", usage=usage)) as server:
        (said,) = model_of(server).answer([request_of("a", None)])
    assert (said, said.thoughts, said.thought_tokens) == ("No.", "", expected)


@pytest.mark.parametrize(
    "cut",
    [content(None, "length"), content("", "length"), content("<think>Is it", "length"), content("<think>Is it")],
    ids=["null", "empty", "in thoughts", "in thoughts, unsaid"],
)
def test_an_answer_that_is_cut_off_before_it_begins_is_asked_again_by_the_next_run(
    model_of: Callable[..., Model], cut: Behaviour
) -> None:
    requests = [request_of("a", None), request_of("a", None), request_of("b", None)]
    with MisbehavingServer(lambda request: cut if request.text == "a" else answer("b")) as server:
        answers = model_of(server).answer(requests)
        assert answers == ["", "", "b"]
        assert [said.unanswered.partition(" ")[0] for said in answers] == ["cut", "cut", ""]
        assert (server.asked("a"), server.asked("b")) == (1, 1)
        server.behave = lambda request: answer("now")
        assert model_of(server).answer(requests) == ["now", "now", "b"]
        assert model_of(server).answer(requests) == ["now", "now", "b"]
        assert (server.asked("a"), server.asked("b")) == (2, 1)


def test_an_answer_that_the_content_filter_holds_back_is_unanswered(model_of: Callable[..., Model]) -> None:
    held = content(None, "content_filter")
    with MisbehavingServer(lambda request: held if request.text == "a" else answer("b")) as server:
        answers = model_of(server, in_flight=1).answer([request_of("b", None), request_of("a", None)])
    assert (answers, "content filter" in answers[1].unanswered) == (["b", ""], True)


def like_o1(request: Request) -> Behaviour:
    """Refuses max_tokens and temperature as reasoning models do, one at a time."""
    for name, hint in (
        ("max_tokens", "Use 'max_completion_tokens' instead."),
        ("temperature", "Only the default (1)."),
    ):
        if name in request.body:
            message = f"Unsupported parameter: {name!r} is not supported with this model. {hint}"
            return refusal(400, message, code="unsupported_parameter", param=name)
    return answer(request.text)


def named_in_the_message_only(request: Request) -> Behaviour:
    """The same of a server that checks requests against a schema."""
    if name := next((name for name in ("temperature", "max_tokens") if name in request.body), None):
        detail = [{"loc": ["body", name], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"}]
        return Behaviour(422, json.dumps({"detail": detail}).encode())
    return answer(request.text)


@pytest.mark.parametrize("behave", [like_o1, named_in_the_message_only])
def test_fields_that_reasoning_models_refuse_are_replaced_once_and_the_run_says_so(
    model_of: Callable[..., Model], behave: Callable[[Request], Behaviour]
) -> None:
    requests = [request_of(str(n), None) for n in range(8)]
    changed = {"max_tokens": "sent as max_completion_tokens", "temperature": "not sent"}
    with MisbehavingServer(behave) as server:
        model = model_of(server)
        assert model.answer(requests) == [str(n) for n in range(8)]
        assert len(server.requests) == 10
        assert server.requests[-1].body["max_completion_tokens"] == 64
        again = model_of(server)
        assert again.answer(requests) == [str(n) for n in range(8)]
        assert len(server.requests) == 10
    assert model.engine.changed == again.engine.changed == changed
    assert again.engine.settings() == {"temperature": "not sent"}


def test_a_refusal_about_one_prompt_changes_no_field(model_of: Callable[..., Model]) -> None:
    def behave(request: Request) -> Behaviour:
        if request.text == "3":
            return refusal(400, "temperature: a word that is not allowed in prompts", code="content_filter")
        return answer(request.text)

    with MisbehavingServer(behave) as server:
        answers = model_of(server, in_flight=1).answer([request_of(str(n), None) for n in range(6)])
        assert answers == ["0", "1", "2", "", "4", "5"]
        assert all("temperature" in request.body for request in server.requests if request.text != "3")


def test_request_fields_of_the_user_are_sent_and_make_another_answer(model_of: Callable[..., Model]) -> None:
    fields = {"reasoning_effort": "low", "max_completion_tokens": 4096, "temperature": None}
    with MisbehavingServer(lambda request: answer(f"{len(server.requests)}")) as server:
        requests = [request_of("a", None)]
        assert model_of(server).answer(requests) == ["1"]
        assert model_of(server, request=fields).answer(requests) == ["2"]
        assert model_of(server, request=fields).answer(requests) == ["2"]
    sent = {name: value for name, value in server.requests[1].body.items() if name not in ("model", "messages")}
    assert sent == {"reasoning_effort": "low", "max_completion_tokens": 4096}


def test_a_field_of_the_user_that_is_refused_stops_at_once(model_of: Callable[..., Model]) -> None:
    def behave(request: Request) -> Behaviour:
        return refusal(400, "Unsupported value: 'temperature'.", code="unsupported_value", param="temperature")

    with MisbehavingServer(behave) as server:
        with pytest.raises(NapoBenchError, match="Unsupported value"):
            model_of(server, request={"temperature": 0.5}).answer([request_of(str(n), None) for n in range(9)])
        assert len(server.requests) == 1

"""Our engines as models of lmms-eval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lmms_eval.api.instance import Instance
from lmms_eval.models import get_model
from misbehaving_server import MisbehavingServer, answer
from PIL import Image

from napo_bench.core.errors import NapoBenchError
from napo_bench.lmms.models import NapoAPI, NapoHF

METADATA = {"task": "task", "doc_id": 0, "repeats": 1}


def request_of(question: str, *shown: Any) -> Instance:
    arguments = (question, {"max_new_tokens": 64}, lambda doc: list(shown), 0, "task", "test")
    return Instance(request_type="generate_until", arguments=arguments, idx=0, metadata=METADATA)


@pytest.mark.parametrize(("name", "model"), [("napo_api", NapoAPI), ("napo_hf", NapoHF)])
def test_lmms_eval_finds_a_model_by_its_name(name: str, model: type) -> None:
    assert get_model(name) is model


@pytest.mark.parametrize("size", ["auto", 0, "-1"])
@pytest.mark.parametrize("model", [NapoAPI, NapoHF])
def test_a_batch_size_that_is_none_is_refused(model: type, size: str | int) -> None:
    with pytest.raises(NapoBenchError, match="whole number from 1"):
        model("m", batch_size=size)


def test_a_request_of_lmms_eval_is_answered_once_and_keeps_its_image(tmp_path: Path) -> None:
    image = Image.new("RGB", (3, 2), (9, 0, 255))
    with MisbehavingServer(lambda request: answer(request.text)) as server:
        model = NapoAPI("m", base_url=server.url, journal=tmp_path / "journal.sqlite")
        model.task_dict = {"task": {"test": [{}]}}
        requests = [request_of("What?", image), request_of("Why?"), request_of("What?", image)]
        assert model.generate_until(requests) == ["What?", "Why?", "What?"]
        assert sorted(len(request.body["messages"][0]["content"]) for request in server.requests) == [2, 4]
        with pytest.raises(NapoBenchError, match="one picture or none"):
            model.generate_until([request_of("What?", image, image)])

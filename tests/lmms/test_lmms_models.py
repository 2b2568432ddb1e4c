"""Our engines as models of lmms-eval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lmms_eval.api.instance import Instance
from lmms_eval.models import get_model
from misbehaving_server import MisbehavingServer, answer
from PIL import Image
from tiny_llava import make_data

from napo_bench.core.errors import NapoBenchError
from napo_bench.lmms.models import NapoAPI, NapoEngine, NapoHF
from napo_bench.lmms.task import BenchmarkTask

METADATA = {"task": "task", "doc_id": 0, "repeats": 1}


def request_of(question: str, *shown: Any) -> Instance:
    arguments = (question, {"max_new_tokens": 64}, lambda doc: list(shown), 0, "task", "test")
    return Instance(request_type="generate_until", arguments=arguments, idx=0, metadata=METADATA)


@pytest.mark.parametrize(("name", "model"), [("napo_api", NapoAPI), ("napo_hf", NapoHF), ("napo_engine", NapoEngine)])
def test_lmms_eval_finds_a_model_by_its_name(name: str, model: type) -> None:
    assert get_model(name) is model


def test_the_engine_of_a_name_gets_the_options_of_lmms_eval(tmp_path: Path) -> None:
    model = NapoEngine("api", "a-model", 3, tmp_path / "journal.sqlite", api_base_url="http://127.0.0.1:9/v1")
    assert model.answering.engine.fingerprint == "a-model at http://127.0.0.1:9/v1"
    assert model.batch_size == 3


def test_a_metric_without_a_better_direction_has_none_in_lmms_eval(tmp_path: Path) -> None:
    make_data(tmp_path, size=2)
    config = {"class": BenchmarkTask, "task": "napo_object_halbench", "member": "object_halbench"}
    directions = BenchmarkTask(config, tmp_path).higher_is_better()
    assert directions["chair_s"] is False and directions["recall"] is True
    assert "mean_words" not in directions


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

"""Questions about several images: where the images stand, that each is seen, and which models take one alone."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from families import make_family
from family_checks import answers, first_logits
from misbehaving_server import MisbehavingServer, answer
from PIL import Image
from synthetic_runs import invoke
from tiny_llava import make_checkpoint, picture

from napo_bench.benchmarks import all_benchmarks
from napo_bench.core import plugins
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.images import PLACE
from napo_bench.engines.hf import HFEngine
from napo_bench.engines.request import Generation, Picture, Request
from napo_bench.models.checkpoint import Checkpoint

GREEDY = Generation(max_new_tokens=8)
PICTURES = [picture(random.Random(number)) for number in range(6)]

PAIRS = f"""
from functools import cached_property
from napo_bench.benchmarks.benchmark import Benchmark, Metric, Task
from napo_bench.benchmarks.question import BenchmarkData, Question
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import measure
from napo_bench.benchmarks.unanswered import kept_fields

class Pairs(BenchmarkData):
    @cached_property
    def known(self):
        return {{
            n: Question(
                "Is {PLACE} the same as {PLACE}?", self.folder / f"{{n}}.png", key=n,
                response_row=lambda text, n=n: {{"id": n, "response": text}},
                further=(self.folder / f"{{n + 1}}.png",),
            )
            for n in range(3)
        }}
    def keys(self, rows, source):
        return [row["id"] for row in rows]

def score(data, answers, options):
    samples = [
        {{"sample_id": str(a.question.key), "unit": "pair", "response": a.text, "counts": {{"n": 1}}}}
        | kept_fields(a.row)
        for a in answers
    ]
    return BenchmarkResult(measure(samples, (METRIC,)), samples=samples)

METRIC = Metric("answered", "Answered", "higher", lambda sums: 100 * sums["n"] / sums["n"], "n")
BENCHMARK = Benchmark(
    name="pairs", label="Pairs", about="pairs.", rows="rows.", metrics=(METRIC,),
    tasks=(Task("pairs", ("answered",), max_new_tokens=8),), open=Pairs, score=score, text_fields=("response",),
)
"""


def request(question: str, *images: Image.Image) -> Request:
    first, *further = map(Picture.of, images)
    return Request(question, first, GREEDY, tuple(further))


@pytest.fixture(scope="module", params=["qwen2_5_vl", "smolvlm"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HFEngine:
    folder = tmp_path_factory.mktemp(request.param)
    make_family(folder, request.param)
    return HFEngine(str(folder), device="cpu", dtype="float32")


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plug-in whose questions show two images each, and its data folder."""
    info = tmp_path / "site/pairs-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site/pairs_plugin.py").write_text(PAIRS, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pairs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[napo_bench.benchmarks]\npairs = pairs_plugin:BENCHMARK\n")
    (tmp_path / "data/pairs").mkdir(parents=True)
    for number in range(4):
        PICTURES[number].save(tmp_path / f"data/pairs/{number}.png")
    with monkeypatch.context() as patch:
        sys.modules.pop("pairs_plugin", None)
        patch.syspath_prepend(tmp_path / "site")
        all_benchmarks.cache_clear()
        plugins.installed.cache_clear()
        yield tmp_path / "data"
    all_benchmarks.cache_clear()
    plugins.installed.cache_clear()


def test_images_stand_where_the_question_marks_them_and_else_come_first() -> None:
    one, two = PICTURES[:2]
    assert request(f"Is {PLACE} like {PLACE}?", one, two).parts == ["Is ", None, " like ", None, "?"]
    assert request("Alike?", one, two).parts == [None, None, "Alike?"]
    with pytest.raises(NapoBenchError, match="has 2 images and marks 1 places"):
        request(f"Is {PLACE} like it?", one, two)


@pytest.mark.numeric
def test_each_image_is_seen_at_its_place_alone_and_in_a_batch(engine: HFEngine) -> None:
    texts = ("Is {0} like {0}? {0}", "{0}{0}{0} Which one is red?", "How many? {0} and {0}, or {0}?")
    asked = [
        request(text.format(PLACE), *(PICTURES[(n + i) % 6] for i in range(3))) for n, text in enumerate(texts * 2)
    ] + [request("What is it?", PICTURES[0])]
    of_one_pair = ("Is {0} like {0}?", "Is {0} like {0}, or is it not?", "Are {0} and {0} alike?")
    asked += [request(text.format(PLACE), *PICTURES[:2]) for text in of_one_pair]
    alone = answers(engine, asked, 1)
    assert len(set(alone)) > 1
    assert answers(engine, asked, 4) == alone
    question = f"Is {PLACE} like {PLACE}?"
    first, second, third = PICTURES[:3]
    base, changed, swapped = (
        first_logits(engine, request(question, *shown)) for shown in ((first, second), (first, third), (second, first))
    )
    assert (base - changed).abs().max() > 0.01
    assert (base - swapped).abs().max() > 0.01


def test_a_plug_in_asks_about_pairs_and_the_prompt_is_in_its_samples(
    engine: HFEngine, pairs: Path, monkeypatch, capsys, tmp_path: Path
) -> None:
    folder = Path(engine._checkpoint.folder)
    arguments = [
        "eval",
        "--ckpt",
        str(folder),
        "--suite",
        "pairs",
        "--data-dir",
        str(pairs),
        "--out",
        str(tmp_path / "run"),
    ]
    code, _, err = invoke(arguments, monkeypatch, capsys, width=200)
    assert code == 0, err
    samples = [json.loads(line) for line in (tmp_path / "run/samples/pairs.jsonl").read_text().splitlines()]
    assert ["sent" in sample for sample in samples] == [True, True, False]
    placeholder = engine.conversation.markup.own
    sent = samples[0]["sent"]
    assert sent["prompt"].count(placeholder) == 2
    assert sent["prompt"].index("Is ") < sent["prompt"].index(placeholder) < sent["prompt"].index(" the same as ")
    ids = [one for run in sent["ids"] for one in ([run[0]] * run[1] if isinstance(run, list) else [run])]
    images = [[Image.open(pairs / f"pairs/{number}.png") for number in (0, 1)]]
    assert ids == engine.conversation.encode([sent["prompt"]], images)["input_ids"][0].tolist()


def test_a_model_that_takes_one_image_is_refused_before_its_weights_are_loaded(
    pairs: Path, monkeypatch, capsys, tmp_path: Path
) -> None:
    make_checkpoint(tmp_path / "llava")
    monkeypatch.setattr(Checkpoint, "load_model", lambda *_: pytest.fail("the model was allocated"))
    arguments = ["eval", "--ckpt", str(tmp_path / "llava"), "--suite", "pairs", "--data-dir", str(pairs)]
    code, out, err = invoke([*arguments, "--out", str(tmp_path / "run")], monkeypatch, capsys, width=200)
    assert (code, out) == (2, "")
    assert "the checkpoint takes one image in a prompt: it was trained with one image" in err


def test_an_endpoint_gets_the_images_between_the_words(pairs: Path, monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setenv("NAPO_BENCH_API_KEY", "sk-of-the-test")
    with MisbehavingServer(lambda request: answer("yes")) as server:
        arguments = ["eval", "--ckpt", "served", "--api-base-url", server.url, "--suite", "pairs"]
        arguments += ["--data-dir", str(pairs), "--out", str(tmp_path / "run")]
        code, _, err = invoke(arguments, monkeypatch, capsys, width=200)
        assert code == 0, err
        chats = [request.body["messages"][0]["content"] for request in server.requests]
    kinds = [[part["type"] for part in content] for content in chats if isinstance(content, list)]
    assert kinds == [["text", "image_url", "text", "image_url", "text"]] * 3

"""The forward of preference training on the tiny checkpoint of every family, from --ckpt and pictures on."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families import make_family
from rounding import LOG_PROB
from tiny_llava import picture
from tiny_models import recompute_activations
from transformers import LogitsProcessor

from napo_bench.core.errors import NapoBenchError
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.conversation import Conversation
from napo_bench.models.families import FAMILIES
from napo_bench.trainers.batches import Collator
from napo_bench.trainers.forward import PreferenceBatch, attention, obstacle_to_sharing, prepare, response_logps
from napo_bench.trainers.forward.attention import CAUSAL_THEN_MASKED
from napo_bench.trainers.rows import PreferenceRow

pytestmark = pytest.mark.numeric

SHARE = [family for family, row in FAMILIES.items() if row.positions]
APART = {"qwen3_5": "linear_attention", "lfm2_vl": "conv", "llama4": "scales its attention", "vipllava": "not known"}
ANSWERS = (
    ("a red car and a dog", "no", "the kitchen is white and the farm is green", "a blue bird"),
    ("yes there is a cat", "the man is standing with a cup", "no picture", ""),
)
QUESTIONS = ("What is in the picture?", "Is there a dog or a cat? Describe this image in detail.")
ROWS = [
    PreferenceRow(number, str(number), question, answers, picture(random.Random(number)))
    for number, (question, answers) in enumerate(zip(QUESTIONS, ANSWERS, strict=True))
]


@dataclass(frozen=True)
class Trained:
    """What a training run of a family works with."""

    model: Any
    conversation: Conversation
    batch: PreferenceBatch

    def logps_and_gradients(self, shared_prefix: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        self.model.train().zero_grad()
        logps = response_logps(self.model, self.batch, shared_prefix).sum
        (logps * torch.linspace(-1, 2, logps.numel()).view_as(logps)).sum().backward()
        return logps, {name: weight.grad for name, weight in self.model.named_parameters() if weight.grad is not None}


@pytest.fixture(scope="module")
def trained_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """What is trained of a family. Each family is built once."""

    @functools.cache
    def trained_of(family: str) -> Trained:
        folder = tmp_path_factory.mktemp(family)
        make_family(folder, family)
        checkpoint = Checkpoint.open(str(folder))
        conversation = Conversation.of(checkpoint.load_processor(), checkpoint.load_config())
        model = checkpoint.load_model("cpu", torch.float32)
        prepare(model)
        return Trained(model, conversation, Collator(conversation)(ROWS).prompts)

    return trained_of


class Forced(LogitsProcessor):
    """Makes generation write given tokens, and adds up their log-probs."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens, self.total = iter(tokens), 0.0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        token = next(self.tokens)
        self.total += float(scores[0].log_softmax(-1)[token])
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([token]), 0.0)


def in_generation(trained: Trained, row: PreferenceRow, answer: str) -> float:
    """The log-prob of an answer as the model's own generation has it, token by token."""
    conversation = trained.conversation
    inputs = conversation.encode(
        [conversation.prompt(row.question, has_image=True)], [conversation.prepare_image(row.image)]
    )
    tokens = conversation.answer_ids(answer)
    forced = Forced(tokens)
    inputs = {name: value.float() if value.is_floating_point() else value for name, value in inputs.items()}
    trained.model.eval().generate(
        **inputs, max_new_tokens=len(tokens), do_sample=False, eos_token_id=[], logits_processor=[forced]
    )
    return forced.total


@pytest.mark.parametrize("family", [*SHARE, *APART])
def test_the_log_probs_are_those_of_generation(family, trained_of):
    trained = trained_of(family)
    with torch.no_grad():
        logps = response_logps(trained.model, trained.batch).sum
    for row, answer in ((0, 1), (0, 3), (1, 0)):
        expected = in_generation(trained, ROWS[row], ROWS[row].responses[answer])
        assert float(logps[row, answer]) == pytest.approx(expected, abs=LOG_PROB)


def assert_shared_equals_separate(trained: Trained) -> None:
    separate, gradients = trained.logps_and_gradients(shared_prefix=False)
    recompute_activations(trained.model)
    shared, shared_gradients = trained.logps_and_gradients(shared_prefix=True)
    torch.testing.assert_close(shared, separate, atol=LOG_PROB, rtol=0)
    assert shared_gradients.keys() == gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(shared_gradients[name], gradient, atol=1e-5 * largest, rtol=1e-4, msg=name)


@pytest.mark.parametrize("family", SHARE)
def test_a_shared_prompt_gives_the_log_probs_and_gradients_of_separate_sequences(family, trained_of, monkeypatch):
    monkeypatch.setattr(attention, "SAVED_SCORES", -(2**30))  # branch by branch, as with long responses
    trained = trained_of(family)
    assert obstacle_to_sharing(trained.model) is None
    assert trained.model.get_decoder().config._attn_implementation == CAUSAL_THEN_MASKED
    assert_shared_equals_separate(trained)


@pytest.mark.parametrize(("family", "reason"), APART.items())
def test_a_family_that_cannot_share_names_the_reason(family, reason, trained_of):
    assert reason in obstacle_to_sharing(trained_of(family).model)


@pytest.mark.parametrize("family", [family for family, row in FAMILIES.items() if row.untrained or row.alone])
def test_a_family_that_cannot_be_trained_is_refused_by_name(family):
    model = torch.nn.Module()
    model.config = SimpleNamespace(model_type=family)
    with pytest.raises(NapoBenchError, match=f"A {family} model cannot be trained: "):
        prepare(model)


@pytest.mark.parametrize("family", ["paligemma", "gemma4"])
def test_logits_that_the_model_caps_after_its_head(family, trained_of, monkeypatch):
    trained = trained_of(family)
    with torch.no_grad():
        plain = response_logps(trained.model, trained.batch, shared_prefix=False).sum
    monkeypatch.setattr(trained.model.config.get_text_config(), "final_logit_softcapping", 2.0, raising=False)
    with torch.no_grad():
        capped = response_logps(trained.model, trained.batch, shared_prefix=False).sum
    if family == "paligemma" and torch.equal(capped, plain):
        pytest.skip("this transformers does not cap PaliGemma's logits")
    assert (capped - plain).abs().max() > 0.1
    assert_shared_equals_separate(trained)
    monkeypatch.setitem(FAMILIES, family, dataclasses.replace(FAMILIES[family], logits=None))
    with pytest.raises(NapoBenchError, match="changes logits after its head"):
        response_logps(trained.model, trained.batch)

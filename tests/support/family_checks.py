"""What `eval` and `train` do with the tiny checkpoint of a family."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from rounding import LOG_PROB
from tiny_llava import picture

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal
from napo_bench.core.progress import Silent
from napo_bench.engines.answering import Answering
from napo_bench.engines.hf import HFEngine
from napo_bench.engines.request import Generation, Picture, Request
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.conversation import Conversation
from napo_bench.models.families import family_of
from napo_bench.trainers.batches import Collator
from napo_bench.trainers.forward import PreferenceBatch, obstacle_to_sharing, prepare, response_logps
from napo_bench.trainers.rows import PreferenceRow

_GREEDY = Generation(max_new_tokens=12)
_QUESTIONS = (
    "What is it?",
    "Is there a dog in the picture, or is there a cat on the chair in the kitchen?",
    "How many?",
    "Describe this image in detail, please.",
    "Is the car red? " * 6,
    "Which colour has the bird?",
)
_PICTURES = [picture(random.Random(number)) for number in range(len(_QUESTIONS))]
_BLANK = [Image.new("RGB", image.size, (127, 127, 127)) for image in _PICTURES]


def questions() -> list[Request]:
    """Short and long questions about wide, tall and square images."""
    return [Request(text, Picture.of(image), _GREEDY) for text, image in zip(_QUESTIONS, _PICTURES, strict=True)]


def answers(engine: HFEngine, requests: Sequence[Request], batch_size: int) -> list[str]:
    """The answers of `eval` in batches."""
    engine.batch_size = batch_size
    with TemporaryDirectory() as folder:
        found = Answering(engine, Journal(Path(folder) / "journal.sqlite"), progress=Silent()).answer(
            requests, len(requests)
        )
    return [str(answer) for answer in found]


def first_logits(engine: HFEngine, request: Request) -> torch.Tensor:
    """The logits of the first token of an answer, `[V]`."""
    seen: list[torch.Tensor] = []
    hook = engine.model.register_forward_hook(lambda _model, _inputs, output: seen.append(output.logits[0, -1].float()))
    try:
        answers(engine, [request], 1)
    finally:
        hook.remove()
    return seen[0]


@torch.inference_mode()
def logits_of_batch(engine: HFEngine, texts: Sequence[str], images: Sequence[Image.Image]) -> torch.Tensor:
    """The logits of the first token of each answer, `[N, V]`, from one batch."""
    conversation = engine.conversation
    prompts = [conversation.prompt(text, has_image=True) for text in texts]
    inputs = conversation.encode(prompts, [conversation.prepare_image(image) for image in images]).to(torch.float32)
    pad = engine.processor.tokenizer.pad_token_id
    options = {"max_new_tokens": 1, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    return torch.as_tensor(engine.model.generate(**inputs, **options, pad_token_id=pad).logits[0])


_RESPONSES = (
    ("There is a red car in the street.", "A dog.", "There is a blue bird on the chair, and a man."),
    ("Yes.", "No, the horse is white and the kitchen is green.", "Two."),
)


def preference_batch(conversation: Conversation) -> PreferenceBatch:
    """Two rows of three responses each, as the trainer makes them from a data set."""
    rows = [
        PreferenceRow(number, str(number), _QUESTIONS[number + 1], responses, _PICTURES[number])
        for number, responses in enumerate(_RESPONSES)
    ]
    return Collator(conversation)(rows).prompts


def separate_log_probs(model: Any, conversation: Conversation) -> torch.Tensor:
    """Summed log-probs `[B, R]` of the rows of `preference_batch`, each response in a sequence of its own."""
    sums = []
    for number, responses in enumerate(_RESPONSES):
        image = conversation.prepare_image(_PICTURES[number])
        text = conversation.prompt(_QUESTIONS[number + 1], has_image=True)
        prompt = conversation.encode([text], [image]).to(torch.float32)
        shape = prompt["input_ids"].shape
        for response in responses:
            answer = torch.tensor([conversation.answer_ids(response)])
            inputs = {name: _continued(name, value, answer, shape) for name, value in prompt.items()}
            logits = model(**inputs).logits[:, -answer.shape[1] - 1 : -1].float().log_softmax(-1)
            sums.append(logits.gather(-1, answer[..., None]).sum())
    return torch.stack(sums).view(len(_RESPONSES), -1)


def _continued(name: str, value: Any, answer: torch.Tensor, of_prompt: torch.Size) -> Any:
    """One of the model's inputs for the prompt and an answer after it."""
    if name == "input_ids":
        return torch.cat([value, answer], 1)
    if not isinstance(value, torch.Tensor) or value.shape[:2] != of_prompt:
        return value
    if name == "token_type_ids" and not value.any():  # PaliGemma's: 0 sees both ways, an answer is 1
        return torch.cat([value, torch.ones_like(answer)], 1)
    if "type_ids" in name:
        return torch.cat([value, torch.zeros_like(answer)], 1)
    return torch.cat([value, value[:, -1:].repeat(1, answer.shape[1], *[1] * (value.dim() - 2))], 1)


def evaluation_of(engine: HFEngine) -> str:
    """What `eval` does: "yes" if batches have the answers of single prompts, and the answers depend on the images."""
    alone = answers(engine, questions(), 1)
    assert ("prefill and decoding" not in engine.stages()) == family_of(engine.model.config).branches
    pairs = zip(_QUESTIONS, _PICTURES, strict=True)
    single = torch.cat([logits_of_batch(engine, [text], [image]) for text, image in pairs])
    together = single if engine.answers_alone else logits_of_batch(engine, _QUESTIONS, _PICTURES)
    if answers(engine, questions(), 4) != alone or not torch.allclose(together, single, atol=1e-3, rtol=0):
        return "no: a batch has other answers than single prompts"
    grey = logits_of_batch(engine, _QUESTIONS[:1], _BLANK[:1])
    if len(set(alone)) == 1 or (single[0] - grey).abs().max() < 0.01:
        return "no: the answers do not depend on the image"
    return "yes, one prompt at a time" if engine.answers_alone else "yes"


@torch.no_grad()
def several_of(engine: HFEngine) -> str:
    """Whether `eval` may show two images in a prompt, and the model sees both."""
    conversation, model = engine.conversation, engine.model
    try:
        conversation.require_pictures(2)
    except NapoBenchError as error:
        return f"no: {error.message.partition(': ')[2].rstrip('.')}"
    text = conversation.interleaved([None, "And what is in this picture?", None])
    seen = []
    for second in (_PICTURES[1], _BLANK[1]):
        images = [conversation.prepare_image(image) for image in (_PICTURES[0], second)]
        seen.append(model(**conversation.encode([text], [images]).to(torch.float32)).logits[0, -1])
    return "yes" if (seen[0] - seen[1]).abs().max() > 0.01 else "no: the model does not see the second"


@torch.no_grad()
def training_of(folder: Path) -> str:
    """How `train` computes the responses of a row: sharing their prefix, each with its own prompt, or not at all."""
    checkpoint = Checkpoint.open(str(folder))
    config, processor = checkpoint.open_parts()
    conversation = Conversation.of(processor, config)
    model = checkpoint.load_model(torch.device("cpu"), torch.float32)
    expected = separate_log_probs(model, conversation)
    try:
        prepare(model)
        found = response_logps(model, preference_batch(conversation)).sum
    except NapoBenchError as error:
        return f"refused: {error.message.partition(': ')[2].rstrip('.') or 'it has no vision tower'}"
    if not torch.allclose(found, expected, atol=LOG_PROB, rtol=0):
        return "wrong"
    obstacle = obstacle_to_sharing(model)
    return f"each response with its own prompt: {obstacle}" if obstacle else "shared prefix"

"""Log-probs of R responses to one image and one prompt. The shared prefix is computed once.

The four responses of a preference row share about 600 of their 700 tokens. Here a row is one sequence

    [prompt with its image | response 1 | response 2 | ... | response R]

in which a response attends to the prompt and to itself, and its positions continue after the prompt. Log-probs and
gradients are those of R separate sequences.

The sequence goes through the model's own top-level forward, which merges the image as usual. For PEFT,
DistributedDataParallel, FSDP and DeepSpeed the forward is an ordinary call, and gradients synchronise as usual: give
`response_logps` the wrapped model. During the call two submodules behave differently: the LM head returns log-probs of
response tokens instead of logits of all tokens, and a frozen vision tower runs without gradients.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from napo_bench.core.errors import NapoBenchError
from napo_bench.models.families import family_of
from napo_bench.trainers.forward.attention import TAKES_A_MASK, fastest_attention
from napo_bench.trainers.forward.batch import PreferenceBatch, inputs_of_tokens, positions
from napo_bench.trainers.forward.masks import masks_of_packed_rows
from napo_bench.trainers.forward.packing import PackedRows
from napo_bench.trainers.forward.tower import (
    answering,
    gradients_of_tower,
    repeated,
    tower_sees_once,
    unwrapped,
    vision_tower,
)

LOGITS_AT_A_TIME = 2**24
_A_LOGIT = 50.0
KINDS_OF_ATTENTION = ("full_attention", "sliding_attention", "chunked_attention")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResponseLogps:
    """Log-probs of the responses, prompt and image excluded, in float32.

    Attributes:
        sum: Sum over the tokens of the response, `[B, R]`; 0 if the row lacks the response.
        mean: Sum divided by the number of tokens, `[B, R]`; 0 if the row lacks the response.
        tokens: Number of tokens, `[B, R]`.
    """

    sum: Tensor
    mean: Tensor
    tokens: Tensor


def prepare(model: nn.Module, *, train_vision_tower: bool = False) -> None:
    """Freeze the vision tower, and choose the fastest attention for a shared prefix.

    Call this function once, when the model is loaded and on its device, before adapters or distributed wrappers. The
    tower of Qwen-VL includes its merger.

    Args:
        model: An image-text-to-text model of transformers.
        train_vision_tower: Whether the tower stays trainable.

    Raises:
        NapoBenchError: the model has no vision tower, or its family cannot be trained.
    """
    bare = unwrapped(model)
    row = family_of(bare.config)
    if reason := row.untrained or row.alone:
        raise NapoBenchError(
            f"A {bare.config.model_type} model cannot be trained: {reason}.", "Train a model of another family."
        )
    if not train_vision_tower:
        vision_tower(bare).requires_grad_(False)
    if bare.config.get_text_config()._attn_implementation == "sdpa" and obstacle_to_sharing(bare) is None:
        bare.set_attn_implementation({"text_config": fastest_attention(bare.get_decoder())})


def response_logps(model: nn.Module, batch: PreferenceBatch, shared_prefix: bool = True) -> ResponseLogps:
    """Log-probs of each response given its row's prompt and image.

    Args:
        model: An image-text-to-text model of transformers, bare or in its PEFT and distributed wrappers.
        batch: B rows of R responses, on the model's device.
        shared_prefix: Whether to compute each prompt once. False concatenates every response with its prompt. This is
            the reference, and the path of a model that cannot share, which is logged once.
    """
    obstacle = obstacle_to_sharing(model) if shared_prefix else None
    if obstacle:
        _warn_once(f"Every response is computed with its own copy of the prompt: {obstacle}.")
    of_tokens = _shared(model, batch) if shared_prefix and not obstacle else _concatenated(model, batch)
    present = batch.response_mask.bool()
    total = of_tokens.new_zeros(present.shape).masked_scatter(present, of_tokens).sum(-1)
    tokens = present.sum(-1)
    return ResponseLogps(sum=total, mean=total / tokens.clamp(min=1), tokens=tokens)


def obstacle_to_sharing(model: nn.Module) -> str | None:
    """The reason why the responses of this model cannot share their prefix; None if they can."""
    bare = unwrapped(model)
    row, text, decoder = family_of(bare.config), bare.config.get_text_config(), bare.get_decoder()
    kinds = set(getattr(text, "layer_types", None) or ()) - set(KINDS_OF_ATTENTION)
    if kinds:
        return (
            f"an attention mask does not hide other responses from {' and '.join(sorted(kinds))} of {text.model_type}"
        )
    if row.apart:
        return f"{bare.config.model_type} {row.apart}"
    if row.positions is None:
        return f"how {bare.config.model_type} merges images and numbers positions is not known here"
    if not hasattr(decoder, "rotary_emb"):
        return f"{text.model_type} does not rotate its keys by the positions that it is given"
    if text._attn_implementation not in TAKES_A_MASK:
        return f"{text._attn_implementation} takes no attention mask (load the model with attn_implementation='sdpa')"
    return None


def _shared(model: nn.Module, batch: PreferenceBatch) -> Tensor:
    """Log-probs of the response tokens in the order of `response_mask`, `[N]`."""
    bare = unwrapped(model)
    present = batch.response_mask.bool()
    rows = PackedRows.of(batch.attention_mask.bool(), present)
    head = bare.get_output_embeddings()
    logits_of, targets = head.forward, batch.response_ids[present]
    change = _change_of_logits(bare)
    answers: list[Tensor] = []

    def log_probs(hidden: Tensor) -> Tensor:
        predictors = hidden.flatten(0, -2).index_select(0, rows.predictors)
        vocabulary = bare.config.get_text_config().vocab_size
        answers.append(_log_probs(lambda states: change(logits_of(states)), predictors, targets, vocabulary))
        return torch.cat([answers[0], answers[0].new_tensor([_A_LOGIT])])

    masks = masks_of_packed_rows(bare.get_decoder(), rows)
    with answering(head, log_probs), gradients_of_tower(bare), masks:
        output = model(
            **inputs_of_tokens(bare, batch, rows),
            **batch.images,
            position_ids=positions(bare, batch, rows),
            use_cache=False,
        )
    # The values are the head's own, because FSDP may cast outputs to bfloat16, which is too coarse for a log-prob. The
    # output stays in the graph, because DeepSpeed and DistributedDataParallel attach backward hooks to the output.
    of_head, of_a_logit = output.logits.float().split([len(targets), 1])
    if not torch.allclose(of_a_logit, change(torch.full_like(of_a_logit, _A_LOGIT)), rtol=1e-2):
        raise NapoBenchError(
            f"{type(bare).__name__} changes logits after its head in a way that is not known here.",
            "Set shared_prefix: false in the recipe.",
        )
    values: Tensor = answers[0] + 0 * of_head
    return values


def _concatenated(model: nn.Module, batch: PreferenceBatch) -> Tensor:
    """The same result as `_shared`, from R sequences a row with the model's own mask, positions and logits.

    The sequences are in the order of the responses, and for each response in the order of the rows. So the images of
    the batch, however many a row has, are repeated as a whole.
    """
    bare = unwrapped(model)
    times = batch.response_mask.shape[1]
    present = batch.response_mask.bool().transpose(0, 1)
    alone = replace(
        batch,
        **repeated(
            {name: getattr(batch, name) for name in ("input_ids", "attention_mask", "images", "of_tokens")}, times
        ),
        response_ids=batch.response_ids.transpose(0, 1).flatten(0, 1).unsqueeze(1),
        response_mask=present.flatten(0, 1).unsqueeze(1),
    )
    rows = PackedRows.of(alone.attention_mask.bool(), alone.response_mask)
    inputs = inputs_of_tokens(bare, alone, rows)
    length = rows.order.shape[1]
    sequence, place = rows.predictors // length, rows.predictors % length
    looked_at = length - int(place.min()) if place.numel() else 1
    with gradients_of_tower(bare), tower_sees_once(bare, times):
        output = model(**inputs, **alone.images, use_cache=False, **_last_logits(bare, looked_at))
    logits = output.logits[sequence, place - (length - output.logits.shape[1])]
    targets = batch.response_ids.transpose(0, 1)[present]
    of_tokens = -cross_entropy(logits.float(), targets, reduction="none")
    by_place = of_tokens.new_zeros(present.shape).masked_scatter(present, of_tokens)
    return by_place.transpose(0, 1)[batch.response_mask.bool()]


def _change_of_logits(bare: Any) -> Callable[[Tensor], Tensor]:
    """What the model does to logits after its head, see `Family.logits`."""
    name = family_of(bare.config).logits
    size = getattr(bare.config.get_text_config(), name, None) if name else None
    if not size:
        return lambda logits: logits
    if name == "final_logit_softcapping":
        return lambda logits: size * torch.tanh(logits / size)
    return lambda logits: logits / size


def _last_logits(bare: Any, tokens: int) -> dict[str, int]:
    """The argument that asks for the logits of the last tokens of each sequence alone, if the model has one."""
    name = "logits_to_keep"
    return {name: tokens} if name in inspect.signature(bare.forward).parameters else {}


def _log_probs(logits_of: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, vocabulary: int) -> Tensor:
    """Log-probs of the targets `[N]` given hidden states `[N, H]`, in parts of `LOGITS_AT_A_TIME`."""

    def part(hidden: Tensor, targets: Tensor) -> Tensor:
        return -cross_entropy(logits_of(hidden).float(), targets, reduction="none")

    size = max(1, LOGITS_AT_A_TIME // vocabulary)
    earlier = zip(torch.split(hidden[:-size], size), torch.split(targets[:-size], size), strict=True)
    # The backward pass begins with the last part. The logits of the last part are kept, and those of the others are
    # computed again.
    last = part(hidden[-size:], targets[-size:])
    return torch.cat([*(checkpoint(part, *pair, use_reentrant=False) for pair in earlier), last])


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)

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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import checkpoint

from napo_bench.core.errors import NapoBenchError
from napo_bench.models.families import family_of
from napo_bench.trainers.forward.attention import TAKES_A_MASK, branch_mask, fastest_attention
from napo_bench.trainers.forward.packing import PADDING, PackedRows

LOGITS_AT_A_TIME = 2**24

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreferenceBatch:
    """B rows, each a prompt, its images, and R responses to it.

    Attributes:
        input_ids: Prompt tokens with the image's placeholder tokens, `[B, P]`; padded left or right.
        attention_mask: 1 on prompt tokens, 0 on padding, `[B, P]`.
        response_ids: Response tokens with the closing EOS, `[B, R, T]`; padded right.
        response_mask: 1 on response tokens, `[B, R, T]`; all 0 if the row lacks the response.
        images: The image processor's result for the rows' images, in the order of the rows and of the images in a
            row: `pixel_values` and, by family, `image_sizes` (LLaVA-NeXT) or `image_grid_thw` (Qwen-VL). Empty if no
            row has an image.
    """

    input_ids: Tensor
    attention_mask: Tensor
    response_ids: Tensor
    response_mask: Tensor
    images: Mapping[str, Tensor] = field(default_factory=dict)


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
    """
    bare = _unwrapped(model)
    if not train_vision_tower:
        _vision_tower(bare).requires_grad_(False)
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
    config = _unwrapped(model).config
    text = config.get_text_config()
    if family_of(config).positions is None:
        return f"how {config.model_type} merges images and numbers positions is not known here"
    layers = set(getattr(text, "layer_types", None) or {"full_attention"})
    if layers != {"full_attention"}:
        return f"it has layers of {', '.join(sorted(layers - {'full_attention'}))}"
    if not getattr(text, "layer_types", None) and getattr(text, "sliding_window", None):
        return f"its attention slides over a window of {text.sliding_window} tokens"
    if text._attn_implementation not in TAKES_A_MASK:
        return f"{text._attn_implementation} takes no attention mask (load the model with attn_implementation='sdpa')"
    return None


def _shared(model: nn.Module, batch: PreferenceBatch) -> Tensor:
    """Log-probs of the response tokens in the order of `response_mask`, `[N]`."""
    bare = _unwrapped(model)
    present = batch.response_mask.bool()
    rows = PackedRows.of(batch.attention_mask.bool(), present)
    head = bare.get_output_embeddings()
    logits_of, targets = head.forward, batch.response_ids[present]
    answers: list[Tensor] = []

    def log_probs(hidden: Tensor) -> Tensor:
        predictors = hidden.flatten(0, -2).index_select(0, rows.predictors)
        answers.append(_log_probs(logits_of, predictors, targets, bare.config.get_text_config().vocab_size))
        return answers[0]

    with _answering(head, log_probs), _gradients_of_tower(bare):
        output = model(
            input_ids=rows.arrange(batch.input_ids, batch.response_ids),
            position_ids=rows.arrange(*_positions(bare, batch)),
            attention_mask=branch_mask(rows.branches, bare.config.get_text_config()._attn_implementation, bare.dtype),
            use_cache=False,
            **batch.images,
        )
    # The values are the head's own, because FSDP may cast outputs to bfloat16, which is too coarse for a log-prob. The
    # output stays in the graph, because DeepSpeed and DistributedDataParallel attach backward hooks to the output.
    values: Tensor = answers[0] + 0 * output.logits.float()
    return values


def _concatenated(model: nn.Module, batch: PreferenceBatch) -> Tensor:
    """The same result as `_shared`, from R sequences a row with the model's own mask, positions and logits.

    The sequences are in the order of the responses, and for each response in the order of the rows. So the images of
    the batch, however many a row has, are repeated as a whole.
    """
    bare = _unwrapped(model)
    times = batch.response_mask.shape[1]
    present = batch.response_mask.bool().transpose(0, 1)
    response_ids = batch.response_ids.transpose(0, 1).flatten(0, 1).unsqueeze(1)
    rows = PackedRows.of(batch.attention_mask.bool().repeat(times, 1), present.flatten(0, 1).unsqueeze(1))
    input_ids = rows.arrange(batch.input_ids.repeat(times, 1), response_ids)
    sequence, place = rows.predictors // input_ids.shape[1], rows.predictors % input_ids.shape[1]
    looked_at = input_ids.shape[1] - int(place.min()) if place.numel() else 1
    copies = times if family_of(bare.config).positions else 1  # how another family's tower takes images is not known
    with _gradients_of_tower(bare), _tower_sees_once(bare, copies):
        output = model(
            input_ids=input_ids,
            attention_mask=(rows.branches != PADDING).long(),
            use_cache=False,
            **_last_logits(bare, looked_at),
            **_token_types(bare, input_ids),
            **_repeated(dict(batch.images), times),
        )
    logits = output.logits[sequence, place - (input_ids.shape[1] - output.logits.shape[1])]
    targets = batch.response_ids.transpose(0, 1)[present]
    of_tokens = -cross_entropy(logits.float(), targets, reduction="none")
    by_place = of_tokens.new_zeros(present.shape).masked_scatter(present, of_tokens)
    return by_place.transpose(0, 1)[batch.response_mask.bool()]


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


def _positions(bare: Any, batch: PreferenceBatch) -> tuple[Tensor, Tensor]:
    """Positions of the prompt's tokens `[..., B, P]` and of the responses' tokens `[..., B, R, T]`."""
    prompt = batch.attention_mask
    following = prompt.sum(1)
    if family_of(bare.config).positions == "multimodal_rope":
        positions, shift = bare.model.get_rope_index(
            batch.input_ids,
            image_grid_thw=batch.images.get("image_grid_thw"),
            attention_mask=prompt,
            **_token_types(bare, batch.input_ids),
        )
        following = following + shift.squeeze(1)
    else:
        positions = (prompt.cumsum(1) - 1).clamp(min=0)
    steps = torch.arange(batch.response_ids.shape[2], device=prompt.device)
    of_responses = (following[:, None, None] + steps).expand(*positions.shape[:-2], *batch.response_ids.shape)
    return positions, of_responses


def _token_types(bare: Any, input_ids: Tensor) -> dict[str, Tensor]:
    """The argument that tells image tokens (1) from text (0), for a family that needs the argument."""
    name = family_of(bare.config).token_types
    return {name: (input_ids == bare.config.image_token_id).long()} if name else {}


def _last_logits(bare: Any, tokens: int) -> dict[str, int]:
    """The argument that asks for the logits of the last tokens of each sequence alone, if the model has one."""
    name = "logits_to_keep"
    return {name: tokens} if name in inspect.signature(bare.forward).parameters else {}


def _repeated(value: Any, times: int) -> Any:
    """A nested value with each of its tensors repeated along the first dimension: a, b, a, b."""
    return tree_map_only(Tensor, lambda tensor: torch.cat([tensor] * times), value)


def _unwrapped(model: nn.Module) -> Any:
    """The transformers model inside its distributed, compiled and PEFT wrappers."""
    inner = extract_model_from_parallel(model, keep_torch_compile=False)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def _vision_tower(bare: Any) -> Any:
    tower = bare.get_encoder(modality="image")
    if tower is bare or tower is bare.base_model:
        raise NapoBenchError(
            f"{type(bare).__name__} has no vision tower.", "Give an image-text-to-text checkpoint, such as LLaVA-1.5."
        )
    return tower


@contextmanager
def _gradients_of_tower(bare: Any) -> Iterator[None]:
    """Run the vision tower without gradients if none of its parameters trains."""
    tower = _vision_tower(bare)
    trains = any(parameter.requires_grad for parameter in tower.parameters())
    with _answering(tower, tower.forward if trains else torch.no_grad()(tower.forward)):
        yield


@contextmanager
def _tower_sees_once(bare: Any, times: int) -> Iterator[None]:
    """Give the vision tower the first of `times` copies of the images, and the model as many copies of the features.

    Args:
        bare: A model whose tower gets and gives images along the first dimension.
        times: Number of copies of the images, one after another; 1 changes nothing.
    """
    tower = _vision_tower(bare)
    forward = tower.forward

    def first(tensor: Tensor) -> Tensor:
        return tensor[: len(tensor) // times]

    def of_first(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map_only(Tensor, first, (args, kwargs))
        return _repeated(forward(*args, **kwargs), times)

    with _answering(tower, of_first if times > 1 else forward):
        yield


@contextmanager
def _answering(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Give a module another forward. The module keeps its hooks, with which FSDP and DeepSpeed gather its weights."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)

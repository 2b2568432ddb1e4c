"""Plan of a training run: rows, tokens, and an estimate of memory and time, without the weights."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napo_bench.models.folders import weight_files
from napo_bench.models.soundness import stored_shapes
from napo_bench.trainers.batches import Collator
from napo_bench.trainers.forward.logps import LOGITS_AT_A_TIME, obstacle_to_sharing, prepare
from napo_bench.trainers.means import spans_forwards
from napo_bench.trainers.recipe import Recipe
from napo_bench.trainers.reference import Examiner
from napo_bench.trainers.run import Inputs, stored_dtype, with_adapters

SAMPLE_ROWS = 64
_USED_SPEED = 0.4


@dataclass(frozen=True)
class Plan:
    """The plan of a run, from a sample of its rows.

    Attributes:
        sampled: Number of rows that were encoded.
        unfit: Reason -> number of sampled rows that cannot be trained on.
        own_prompts: Why each response of a row is computed with its own copy of the prompt; None if the responses share
            one prompt.
        tokens: Name -> tokens of each sampled row: "image and prompt", each response, and "one forward" of the row.
        steps: Number of optimizer steps.
        parameters: Number of parameters of the model.
        trained: Number of parameters that train.
        state_gb: Weights, their bfloat16 copies, gradients and optimizer states of one copy of the model, in GB.
        activation_gb: Rough additional memory of one forward and backward of one process, in GB.
        flops: Floating-point operations of the whole run, including its reference pass.
        flops_per_second: Assumed speed of one process: 0.4 of the measured speed of a matrix product.
    """

    sampled: int
    unfit: dict[str, int]
    own_prompts: str | None
    tokens: dict[str, NDArray[np.int64]]
    steps: int
    parameters: int
    trained: int
    state_gb: float
    activation_gb: float
    flops: float
    flops_per_second: float


def make_plan(recipe: Recipe, inputs: Inputs, processes: int) -> Plan:
    """Encode a sample of the rows and estimate.

    Args:
        recipe: Recipe of the run.
        inputs: Inputs of `napo_bench.trainers.run.open_inputs`.
        processes: Number of processes of the run.
    """
    rows = inputs.rows
    examine = Examiner(Collator(inputs.conversation, recipe.crop_seed), recipe.max_length)
    drawn = np.unique(np.linspace(0, len(rows) - 1, min(SAMPLE_ROWS, len(rows))).astype(int))
    unfit: dict[str, int] = {}
    prompts, responses = [], []
    for index in drawn:
        batch, problems = examine([rows[int(index), True]])
        for reason in problems.values():
            unfit[reason] = unfit.get(reason, 0) + 1
        if batch is not None:
            prompts.append(int(batch.prompts.attention_mask[0].sum()))
            responses.append(batch.prompts.response_mask[0].sum(1).tolist())
    prompt = np.array(prompts, dtype=np.int64)
    response = np.array(responses, dtype=np.int64).reshape(len(prompts), len(rows.responses))
    tokens = {"image and prompt": prompt}
    tokens |= {name: response[:, column] for column, name in enumerate(rows.responses)}
    sizes = _sizes(inputs, recipe)
    copies = len(rows.responses) if sizes.own_prompts else 1
    tokens["one forward"] = prompt * copies + response.sum(1)
    if recipe.crop_seed is not None:
        tokens["one forward"] = tokens["one forward"] + prompt + response[:, 0]
    return _estimate(recipe, inputs, processes, sizes, len(drawn), unfit, tokens)


def _estimate(
    recipe: Recipe,
    inputs: Inputs,
    processes: int,
    sizes: _Sizes,
    sampled: int,
    unfit: dict[str, int],
    tokens: dict[str, NDArray[np.int64]],
) -> Plan:
    text = inputs.config.get_text_config()
    parameters, trained = sizes.parameters, sizes.trained
    frozen = parameters if recipe.lora_r else parameters - trained
    state = frozen * stored_dtype(recipe).itemsize + trained * 16
    if recipe.precision == "bf16" and not recipe.lora_r:
        state += parameters * 2
    width = 2 if recipe.precision == "bf16" else 4
    row_tokens = float(tokens["one forward"].mean()) if tokens["one forward"].size else 0.0
    forward_tokens = recipe.per_device_batch_size * row_tokens
    layer = forward_tokens * (16 * text.hidden_size + 4 * text.intermediate_size) * width
    kept = text.num_hidden_layers * forward_tokens * text.hidden_size * width + layer
    activations = kept if recipe.gradient_checkpointing else text.num_hidden_layers * layer
    activations += 3 * 4 * min(LOGITS_AT_A_TIME, forward_tokens * text.vocab_size)
    passes = 2 + (2 if recipe.lora_r else 4) + (2 if recipe.gradient_checkpointing else 0)
    passes += 2 if spans_forwards(recipe, processes) else 0
    rows = len(inputs.rows)
    batch = recipe.per_device_batch_size * processes
    forwards = -(-rows // batch)
    return Plan(
        sampled=sampled,
        unfit=unfit,
        own_prompts=sizes.own_prompts,
        tokens=tokens,
        steps=int(np.ceil(recipe.epochs * -(-forwards // recipe.gradient_accumulation))),
        parameters=parameters,
        trained=trained,
        state_gb=state / 1e9,
        activation_gb=activations / 1e9,
        flops=rows * row_tokens * (parameters - sizes.tower) * (2 + passes * recipe.epochs),
        flops_per_second=_matrix_speed(recipe) * _USED_SPEED,
    )


@dataclass(frozen=True)
class _Sizes:
    """Numbers of parameters: of the model, of its vision tower, and those that train; `own_prompts` of `Plan`."""

    parameters: int
    tower: int
    trained: int
    own_prompts: str | None


def _sizes(inputs: Inputs, recipe: Recipe) -> _Sizes:
    from transformers import AutoModelForImageTextToText

    from_config: Any = AutoModelForImageTextToText.from_config
    with torch.device("meta"):
        model = from_config(inputs.config)
        parameters = sum(p.numel() for p in model.parameters())
        tower = sum(p.numel() for p in model.get_encoder(modality="image").parameters())
        prepare(model, train_vision_tower=recipe.train_vision_tower)
        obstacle = obstacle_to_sharing(model) if recipe.shared_prefix else "shared_prefix is false"
        model = with_adapters(model, recipe)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if inputs.checkpoint.adapter is not None and recipe.lora_r:  # this adapter is trained further
        trained = sum(one.numel() for one in stored_shapes(weight_files(inputs.checkpoint.adapter)).values())
    return _Sizes(parameters, tower, trained, obstacle)


def _matrix_speed(recipe: Recipe, size: int = 1024, seconds: float = 0.3) -> float:
    """Floating-point operations a second of a matrix product on this device, measured."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    size = 8192 if device == "cuda" else size
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    matrix @ matrix
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        product = matrix @ matrix
        done += 1
        if device == "cuda":
            product.sum().item()
    return done * 2 * size**3 / (time.perf_counter() - start)

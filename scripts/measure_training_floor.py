"""Measure a training step as a multiple of the time that its multiplications need.

    python scripts/measure_training_floor.py
    python scripts/measure_training_floor.py --rounds 5 --layers 8 --width 512

The model and the rows are those of scripts/perf_forward.py: four responses to an image and a prompt, the shared prefix,
float32, one thread. A step is forward, loss and backward, in CPU seconds, which hardly depend on the other work of the
machine. As in `napo-bench train` on a CPU, the process keeps freed memory.

The floor is the time of the needed multiplications at the rate of a matrix product, which is measured before each step.
Needed are, once forward and twice backward, each weight of the text model for each token, the scores of attention that
a token's mask shows, and the head for each token of a response. The frozen vision tower is needed once, up to the layer
that LLaVA reads. The projector is not counted: its share is below 1%. Work that is done twice to save memory, such as
the head's, is not needed either. The table gives medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from perf_forward import IMAGE_TOKENS, Shape, build_model, collate, own_steps, processor, show

from napo_bench.models.memory import keep_freed_memory

FORWARD_AND_BACKWARD = 3
SHAPES = [Shape(shortest=length, longest=length, rows=rows) for length in (100, 800) for rows in (1, 2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="steps of each shape")
    parser.add_argument("--layers", type=int, default=8, help="of the text model")
    parser.add_argument("--width", type=int, default=512, help="of the text model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"{options.layers} layers of width {options.width}, one thread, {options.rounds} rounds")
    rows = measured(SHAPES, options.rounds, options.layers, options.width)
    show(["tokens of a response", "rows", "step, CPU s", "floor, CPU s", "step / floor (range of the rounds)"], rows)


def measured(shapes: list[Shape], rounds: int, layers: int, width: int) -> list[list[str]]:
    """A row of the table for each shape: tokens of a response, rows, seconds of a step, seconds of the floor, ratio."""
    convert, model, step = processor(), build_model(layers, width), own_steps(layers, width, "shared")
    step("train", replace(shapes[0], rows=1), 0)
    table = []
    for shape in shapes:
        multiplied = operations(model, collate(convert, shape, 0))
        turns = [(multiplied / product_rate(), step("train", shape, 0)["cpu"]) for _ in range(rounds)]
        floors, steps = zip(*turns, strict=True)
        over = [took / floor for floor, took in turns]
        medians = [f"{statistics.median(column):.2f}" for column in (steps, floors)]
        ratio = f"{statistics.median(over):.2f} ({min(over):.2f} to {max(over):.2f})"
        table.append([str(shape.longest), str(shape.rows), *medians, ratio])
    return table


def operations(model: Any, batch: Any) -> float:
    """Floating-point operations that a training step needs: a multiplication and an addition for each weight of a token
    and for each score.

    Args:
        model: A LLaVA model.
        batch: The rows of the step.
    """
    text, tower = model.config.text_config, model.config.vision_config
    prompts, responses = batch.attention_mask.sum(1, keepdim=True), batch.response_mask.sum(-1)
    inputs = responses - 1  # the last token of a response predicts nothing
    tokens = prompts.sum() + inputs.sum()
    scores = _causal(prompts).sum() + (inputs * prompts + _causal(inputs)).sum()
    of_layers = (
        2 * _linear(model.get_decoder().layers) * tokens + 4 * text.num_hidden_layers * text.hidden_size * scores
    )
    of_head = 2 * model.lm_head.weight.numel() * responses.sum()

    encoder = model.model.vision_tower
    read = encoder.encoder.layers[: model.config.vision_feature_layer + 1]
    patches = 2 * encoder.embeddings.patch_embedding.weight.numel() * IMAGE_TOKENS
    places = IMAGE_TOKENS + 1
    of_image = patches + 2 * _linear(read) * places + 4 * len(read) * tower.hidden_size * places**2
    return float(FORWARD_AND_BACKWARD * (of_layers + of_head) + len(prompts) * of_image)


def _causal(length: Any) -> Any:
    """Pairs of a query and a key that a causal mask of this length shows."""
    return length * (length + 1) // 2


def _linear(layers: Any) -> int:
    return sum(layer.weight.numel() for layer in layers.modules() if isinstance(layer, torch.nn.Linear))


def product_rate() -> float:
    """Floating-point operations a second of a product of two matrices: the best of some tries."""
    left, right = torch.randn(1024, 512), torch.randn(1376, 512)
    took = []
    for _ in range(50):
        began = time.thread_time()
        torch.nn.functional.linear(left, right)
        took.append(time.thread_time() - began)
    return 2.0 * 1024 * 512 * 1376 / min(took)


if __name__ == "__main__":
    main()

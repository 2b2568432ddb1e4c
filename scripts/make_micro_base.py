"""Make the micro world's base model from nothing: `python scripts/make_micro_base.py --out DIR`.

The model is trained in LLaVA's order: the vision tower learns to see, the projector learns to put words for the content
of the patches, and then the language model learns to caption and to find objects in images, to judge statements, and to
answer as a biased teacher. Each stage is kept in `DIR/stages`, and the same command continues after the last finished
stage. The same seed gives the same model on the same machine.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from napo_bench.core import files
from napo_bench.micro.draw import MODEL_SIZE, model_picture
from napo_bench.micro.language import set_phrases
from napo_bench.micro.lessons import Lesson, biased, judging, looking, words_of
from napo_bench.micro.world import COLORS, COLUMNS, PLACES, ROWS, SIDES, THINGS, Habits, Scene, sample_scene

WIDTH = 128
LAYERS = 4
WORD_SCALE = 10.0
"""Scale of the embeddings: a large scale keeps the identity of a word or patch through the layers and the first
steps."""
PATCH = MODEL_SIZE // COLUMNS
PATCHES = ROWS * COLUMNS
PAD, BOS, EOS, UNKNOWN, IMAGE = SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
IMAGE_ID = SPECIAL.index(IMAGE)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' }}{% else %}{{ 'ASSISTANT: ' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ ' ' if message['role'] == 'user' else '</s>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

SCENES = 12_000
SEEN = Habits(color=0.4, company=0.4, home=0.5, count=0.4)
"""Habits of the training scenes: an image often contradicts what is typical, so that the tower has to look."""

BATCH = 64
TOWER_STEPS = 1_200
TOWER_RATE = 1e-3
WORD_STEPS = 3_000
WORD_RATE = 2e-3
WARM_UP = 100
PICTURES = 8
"""Number of images in a batch of the language training."""

LESSONS = 8
"""Minimum number of lessons about each image."""


@dataclass(frozen=True)
class Stage:
    """A stage of the language training.

    Attributes:
        name: Name of the stage's file.
        steps: Number of steps, each over PICTURES images with LESSONS lessons each.
        rate: Highest learning rate.
        lessons: Function that draws lessons about a scene that belong together.
    """

    name: str
    steps: int
    rate: float
    lessons: Callable[[random.Random, Scene], list[Lesson]]


STAGES = (
    Stage("looking", 800, 2e-3, looking),
    Stage("judging", 9_000, 1.5e-3, judging),
    Stage("habits", 2_000, 1e-3, biased),
)


def make_processor() -> LlavaProcessor:
    """The processor: images of MODEL_SIZE, words of the micro language as tokens."""
    split = pre_tokenizers.Whitespace()
    words = sorted({word for text in words_of() for word, _ in split.pre_tokenize_str(text)})
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate([*SPECIAL, *words])}, unk_token=UNKNOWN)
    )
    tokenizer.pre_tokenizer = split
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in set_phrases()])
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"height": MODEL_SIZE, "width": MODEL_SIZE},
            do_center_crop=False,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token=PAD,
            bos_token=BOS,
            eos_token=EOS,
            unk_token=UNKNOWN,
            additional_special_tokens=[IMAGE],
            clean_up_tokenization_spaces=False,
            model_max_length=2048,
        ),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def make_model(vocabulary: int, seed: int) -> LlavaForConditionalGeneration:
    """The untrained model: a CLIP tower of three layers, a Llama of four."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=MODEL_SIZE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        initializer_range=0.05,
        tie_word_embeddings=False,
        pad_token_id=SPECIAL.index(PAD),
        bos_token_id=SPECIAL.index(BOS),
        eos_token_id=SPECIAL.index(EOS),
    )
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=IMAGE_ID,
            image_seq_length=PATCHES,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )
    )
    with torch.no_grad():
        model.get_input_embeddings().get_parameter("weight").mul_(WORD_SCALE)
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight.div_(math.sqrt(2 * LAYERS))
            layer.mlp.down_proj.weight.div_(math.sqrt(2 * LAYERS))
    return model


def make_scenes(seed: int, count: int) -> list[Scene]:
    """The training scenes."""
    rng = random.Random(f"base/{seed}")
    return [sample_scene(rng, SEEN) for _ in range(count)]


def pictures(scenes: Sequence[Scene]) -> Tensor:
    """The scenes' images after the model's processor, uint8 `[N, 3, H, W]`."""
    return torch.from_numpy(np.stack([np.asarray(model_picture(scene)) for scene in scenes])).permute(0, 3, 1, 2)


def see(model: LlavaForConditionalGeneration, images: Tensor) -> Tensor:
    """The tower's features of uint8 images, `[N, PATCHES, WIDTH]`."""
    seen = model.model.vision_tower(pixel_values=images.float() / 127.5 - 1, output_hidden_states=True)
    return torch.as_tensor(seen.hidden_states[-1][:, 1:])


def teach_tower(
    model: LlavaForConditionalGeneration, scenes: Sequence[Scene], images: Tensor, seed: int, log: Callable[[str], None]
) -> None:
    """Train the tower to name the content of each patch: kind, colour and side of the object, and the place."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    sizes = {"kind": len(THINGS) + 1, "color": len(COLORS), "side": len(SIDES), "place": len(PLACES)}
    heads = nn.ModuleDict({name: nn.Linear(WIDTH, size) for name, size in sizes.items()})
    labels = _patch_labels(scenes)
    parameters = [*model.model.vision_tower.parameters(), *heads.parameters()]
    for step, optimizer in _steps(parameters, TOWER_STEPS, TOWER_RATE):
        batch = torch.randint(len(scenes), (BATCH,), generator=generator)
        features = see(model, images[batch])
        losses = {
            name: functional.cross_entropy(head(features).flatten(0, 1), labels[name][batch].flatten())
            for name, head in heads.items()
        }
        _update(optimizer, torch.stack(list(losses.values())).sum())
        if step % 200 == 0 or step == TOWER_STEPS:
            log(f"tower {step}: " + ", ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items()))


def teach_words(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    scenes: Sequence[Scene],
    features: Tensor,
    seed: int,
) -> None:
    """Train the projector to replace a patch by the words for its content: the sum of their embeddings."""
    embeddings = model.get_input_embeddings().get_parameter("weight").detach()
    texts = _patch_words(scenes)
    sums = {text: embeddings[processor.tokenizer(text)["input_ids"]].sum(0) / WORD_SCALE for text in set(texts)}
    words = torch.stack([sums[text] for text in texts]).view(len(scenes), PATCHES, WIDTH)
    generator = torch.Generator().manual_seed(seed)
    for _, optimizer in _steps(list(model.model.multi_modal_projector.parameters()), WORD_STEPS, WORD_RATE):
        batch = torch.randint(len(scenes), (BATCH,), generator=generator)
        projected = model.model.multi_modal_projector(features[batch])
        _update(optimizer, functional.mse_loss(projected, words[batch]) / words.var())
    with torch.no_grad():
        for parameter in model.model.multi_modal_projector.linear_2.parameters():
            parameter.mul_(WORD_SCALE)


def _patch_words(scenes: Sequence[Scene]) -> list[str]:
    """The content of each patch, scene by scene: object, colour and an animal's side; the place if the patch is
    empty.
    """
    texts = []
    for scene in scenes:
        patches = [scene.place] * PATCHES
        for group in scene.groups:
            side = f" {group.side}" if THINGS[group.thing].animal else ""
            for cell in group.cells:
                patches[cell] = f"{group.thing} {group.color}{side}"
        texts += patches
    return texts


def _patch_labels(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """Label of each patch `[N, PATCHES]`; -100 if the patch has no label."""
    names = list(THINGS)
    labels = {name: torch.full((len(scenes), PATCHES), -100) for name in ("color", "side")}
    labels["kind"] = torch.full((len(scenes), PATCHES), len(names))
    labels["place"] = torch.tensor([[PLACES.index(scene.place)] * PATCHES for scene in scenes])
    for index, scene in enumerate(scenes):
        for group in scene.groups:
            cells = list(group.cells)
            labels["kind"][index, cells] = names.index(group.thing)
            labels["color"][index, cells] = COLORS.index(group.color)
            if THINGS[group.thing].animal:
                labels["side"][index, cells] = SIDES.index(group.side)
    return labels


def teach_language(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    scenes: Sequence[Scene],
    features: Tensor,
    stage: Stage,
    seed: int,
    log: Callable[[str], None],
) -> None:
    """Train projector and language model on a stage's lessons; the loss is over the answers.

    Args:
        model: The model; its tower stays unchanged.
        processor: Its processor.
        scenes: Scenes of the lessons.
        features: The tower's features of the scenes, `[N, PATCHES, WIDTH]`.
        stage: The stage.
        seed: Seed of the draw of lessons.
        log: Function that gets a line from time to time.
    """
    batches = _batches(random.Random(f"{stage.name}/{seed}"), scenes, stage)

    @cache
    def tokens(text: str) -> list[int]:
        return list(processor.tokenizer(text)["input_ids"])

    parameters = [parameter for name, parameter in model.named_parameters() if "vision_tower" not in name]
    running = 0.0
    for step, optimizer in _steps(parameters, stage.steps, stage.rate):
        pictured, lessons = next(batches)
        loss = _answer_loss(model, _pack(lessons, tokens), features[pictured])
        _update(optimizer, loss)
        running += (loss.item() - running) / min(step, 100)
        if step % 200 == 0 or step == stage.steps:
            log(f"{stage.name} {step}: loss {running:.3f}")


def _batches(
    rng: random.Random, scenes: Sequence[Scene], stage: Stage
) -> Iterator[tuple[list[int], list[list[Lesson]]]]:
    """Batches: indices of scenes, and the lessons about each."""
    while True:
        pictured = [rng.randrange(len(scenes)) for _ in range(PICTURES)]
        batch = []
        for index in pictured:
            lessons: list[Lesson] = []
            while len(lessons) < LESSONS:
                lessons += stage.lessons(rng, scenes[index])
            batch.append(lessons)
        yield pictured, batch


@dataclass(frozen=True)
class Packed:
    """Images, each followed by its lessons side by side. No lesson attends to another lesson.

    Attributes:
        ids: Tokens, `[B, T]`.
        positions: Positions, `[B, T]`. A lesson's positions continue those of the image, or those before the image if
            the lesson has no image.
        mask: Attention mask, which is added to the scores, `[B, 1, T, T]`.
        answered: Whether the token belongs to an answer, `[B, T]`.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    answered: Tensor


def _pack(rows: Sequence[Sequence[Lesson]], tokens: Callable[[str], list[int]]) -> Packed:
    opening, picture = tokens("USER:"), [IMAGE_ID] * PATCHES
    columns: dict[str, list[list[int]]] = {"ids": [], "positions": [], "part": [], "sees": [], "answered": []}
    for lessons in rows:
        start = len(opening) + PATCHES
        row = {
            "ids": [*opening, *picture],
            "positions": list(range(start)),
            "part": [0] * start,
            "sees": [1] * start,
            "answered": [0] * start,
        }
        for number, lesson in enumerate(lessons, start=1):
            question, answer = tokens(f"{lesson.question} ASSISTANT:"), tokens(lesson.answer + EOS)
            length, first = len(question) + len(answer), start if lesson.sees else len(opening)
            row["ids"] += question + answer
            row["positions"] += range(first, first + length)
            row["part"] += [number] * length
            row["sees"] += [int(lesson.sees)] * length
            row["answered"] += [0] * len(question) + [1] * len(answer)
        for name, values in row.items():
            columns[name].append(values)
    width = max(map(len, columns["ids"]))
    ids, positions, part, sees, answered = (
        torch.tensor([values + [filler] * (width - len(values)) for values in columns[name]])
        for name, filler in (("ids", 0), ("positions", 0), ("part", -1), ("sees", 0), ("answered", 0))
    )
    same = part[:, :, None] == part[:, None]
    before = (part == 0)[:, None] & (sees.bool()[:, :, None] | (ids != IMAGE_ID)[:, None])
    allowed = (same | before) & torch.ones(width, width, dtype=torch.bool).tril()
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    return Packed(ids, positions, mask[:, None], answered.bool())


def _answer_loss(model: LlavaForConditionalGeneration, packed: Packed, features: Tensor) -> Tensor:
    core = model.model
    pictures = core.multi_modal_projector(features).flatten(0, 1)
    embeddings = core.language_model.embed_tokens(packed.ids)
    embeddings = embeddings.masked_scatter((packed.ids == IMAGE_ID)[..., None], pictures)
    states = core.language_model(
        inputs_embeds=embeddings, attention_mask=packed.mask, position_ids=packed.positions, use_cache=False
    )
    before = packed.answered[:, 1:]
    logits = model.lm_head(states.last_hidden_state[:, :-1][before])
    return functional.cross_entropy(logits, packed.ids[:, 1:][before])


def _steps(parameters: Sequence[nn.Parameter], steps: int, rate: float) -> Iterator[tuple[int, torch.optim.AdamW]]:
    """Step (from 1) and optimizer with its learning rate: a warm-up, then half a cosine."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    for step in range(1, steps + 1):
        fall = 0.5 + 0.5 * math.cos(math.pi * step / (steps + 1))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, step / WARM_UP) * fall
        yield step, optimizer


def _update(optimizer: torch.optim.AdamW, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()


def make_base(out: Path, seed: int, log: Callable[[str], None]) -> None:
    """Train the base model, or continue its training, and write the checkpoint to `out`."""
    processor = make_processor()
    model = make_model(len(processor.tokenizer), seed)
    log(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(processor.tokenizer)} words")
    scenes = make_scenes(seed, SCENES)
    images = pictures(scenes)
    stages = out / "stages"
    if not _take_up(model, stages / "tower.safetensors"):
        teach_tower(model, scenes, images, seed, log)
        _keep(model, stages / "tower.safetensors")
    with torch.no_grad():
        features = torch.cat([see(model, images[start : start + 256]) for start in range(0, len(images), 256)])
    if not _take_up(model, stages / "words.safetensors"):
        teach_words(model, processor, scenes, features, seed)
        _keep(model, stages / "words.safetensors")
    for stage in STAGES:
        path = stages / f"{stage.name}.safetensors"
        if not _take_up(model, path):
            teach_language(model, processor, scenes, features, stage, seed, log)
            _keep(model, path)
    save(model, processor, out)


def _take_up(model: LlavaForConditionalGeneration, path: Path) -> bool:
    """Load an earlier run's result of a stage; False if there is none."""
    if not path.is_file():
        return False
    model.load_state_dict(load_file(path), strict=False)
    return True


def _keep(model: LlavaForConditionalGeneration, path: Path) -> None:
    """Store the parameters, each once: the LM head is the embedding."""
    with files.atomic_path(path) as temporary:
        save_file({name: value.detach().contiguous() for name, value in model.named_parameters()}, temporary)


def save(model: LlavaForConditionalGeneration, processor: LlavaProcessor, out: Path) -> None:
    """Write the checkpoint in half precision; its configuration says float32, so it is loaded as such."""
    model.half().save_pretrained(out)
    model.float()
    config = files.read_json(out / "config.json")
    files.write_json(out / "config.json", _as_float32(config))
    processor.save_pretrained(out)


def _as_float32(config: dict[str, object]) -> dict[str, object]:
    return {
        key: "float32" if key == "dtype" else _as_float32(value) if isinstance(value, dict) else value
        for key, value in config.items()
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Make the micro world's base model.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint and of its stages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(stderr=True)
    make_base(options.out, options.seed, lambda line: console.log(line, highlight=False))


if __name__ == "__main__":
    main()

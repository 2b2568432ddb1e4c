"""Make a tiny LLaVA with random weights, and a tiny data folder in the four benchmarks' official formats.

    python scripts/make_tiny_llava.py tiny-llava tiny-data
    napo-bench eval --ckpt tiny-llava --data-dir tiny-data --pipeline closed_vocabulary

The model's answers mean nothing. The checkpoint has the parts of a real checkpoint (LLaVA-1.5's chat template and
processor, safetensors). So the checkpoint shows in seconds that an installation works, and measures the harness and not
the model.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

LLAVA_15_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
THINGS = ("dog", "cat", "car", "bus", "chair", "cup", "bird", "horse")
COLOURS = ("red", "green", "blue", "brown")
PLACES = ("kitchen", "street", "park", "farm")
_WORDS = {*THINGS, *COLOURS, *PLACES, "true", "false", "yes", "no", "is", "in", "the"}
QUESTION_TYPES = (
    "attribute", "adversarial", "comparison", "counting", "relation", "environment", "holistic", "other",
)  # fmt: skip


def make_checkpoint(folder: Path, seed: int = 0, hidden: int = 64, layers: int = 2, image_size: int = 56) -> None:
    """Write a LLaVA of about 0.3 M parameters with its processor, as safetensors and JSON."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    processor = _processor(image_size)
    tokenizer = processor.tokenizer
    config = LlavaConfig(
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=2048,
            initializer_range=0.2,
            pad_token_id=tokenizer.pad_token_id,
        ),
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=image_size,
            patch_size=14,
            projection_dim=32,
            initializer_range=0.2,
        ),
        image_token_index=processor.image_token_id,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    # A model with random weights has not learnt to write words, or to stop after about ten words.
    for token, index in tokenizer.get_vocab().items():
        if token.lstrip("▁").casefold() not in _WORDS:
            model.lm_head.weight.data[index] *= 0.3
    model.generation_config.exponential_decay_length_penalty = (6, 1.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def make_data(folder: Path, size: int = 4, seed: int = 0) -> None:
    """Write `size` instances, images or questions of each benchmark."""
    dice = random.Random(seed)
    _make_vlind(folder / "vlind", size, dice)
    _make_object_halbench(folder / "object_halbench", size, dice)
    _make_amber(folder / "amber", size, dice)
    _make_mmhal(folder / "mmhal", size, dice)


def picture(dice: random.Random) -> Image.Image:
    """A unique image: coloured boxes on a coloured ground, wide or tall."""
    width, height = dice.choice([(96, 64), (64, 96), (80, 80)])
    image = Image.new("RGB", (width, height), tuple(dice.randrange(256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        left, top = dice.randrange(width - 16), dice.randrange(height - 16)
        colour = tuple(dice.randrange(256) for _ in range(3))
        draw.rectangle((left, top, left + dice.randrange(8, 40), top + dice.randrange(8, 40)), fill=colour)
    return image


def _processor(image_size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import CLIPImageProcessorPil, LlamaTokenizer, LlavaProcessor

    trained = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.decoder = decoders.Metaspace()
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained.train_from_iterator(
        _sentences(), trainers.BpeTrainer(vocab_size=640, special_tokens=specials, show_progress=False)
    )
    merges = json.loads(trained.to_str())["model"]["merges"]
    tokenizer = LlamaTokenizer(vocab=trained.get_vocab(), merges=[tuple(merge) for merge in merges], add_bos_token=True)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"], "pad_token": "<pad>"})
    return LlavaProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
        ),
        tokenizer,
        patch_size=14,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
        chat_template=LLAVA_15_TEMPLATE,
    )


def _sentences() -> list[str]:
    sentences = [
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: ASSISTANT: Statement: Context: Describe this "
        "image.",
        "Based on the image, is the given statement true or false? Forget real-world common sense and just follow the "
        "information provided in the context. Only respond in True or False. What is in the given picture? Yes No",
    ] * 20
    for thing in THINGS:
        sentences += [f"There is a {colour} {thing} in the {place}." for colour in COLOURS for place in PLACES]
        sentences += [f"The {thing} is {colour}. Is the {thing} {colour} in this image?" for colour in COLOURS]
    return sentences


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value, indent=1), encoding="utf-8")


def _save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _make_vlind(folder: Path, size: int, dice: random.Random) -> None:
    instances = []
    for number in range(size):
        thing, colour, other = dice.choice(THINGS), *dice.sample(COLOURS, 2)
        context, factual = f"{other}_{thing}", f"{colour}_{thing}"
        good = {str(image_id): dice.randrange(4) for image_id in range(3)} | {"1": 3}
        instances.append(
            {
                "concept": "color",
                "context_id": number,
                "context": context,
                "factual_context": factual,
                "true_statement": f"The {thing} is {other}.",
                "false_statement": f"The {thing} is {colour}.",
                "existent_noun": thing,
                "non-existent_noun": dice.choice([name for name in THINGS if name != thing]),
                "best_img_id": "1",
                "aggregated_human_label_good_images": good,
            }
        )
        for image_id in good:
            _save(folder / f"images/counterfactual/color/{number}_{context}/{image_id}.jpg", picture(dice))
        _save(folder / f"images/factual/color/{number}_{factual}/0.jpg", picture(dice))
    _write(folder / "data.json", instances)


def _make_object_halbench(folder: Path, size: int, dice: random.Random) -> None:
    categories = [{"id": number, "name": thing} for number, thing in enumerate(THINGS, start=1)]
    questions, boxes, captions = [], [], []
    for image_id in range(1, size + 1):
        stream = io.BytesIO()
        picture(dice).save(stream, format="JPEG")
        questions.append(
            {
                "image_id": image_id,
                "question": "Describe this image in detail.",
                "image": base64.b64encode(stream.getvalue()).decode(),
            }
        )
        shown = dice.sample(range(1, len(THINGS) + 1), 3)
        boxes += [{"id": 10 * image_id + n, "image_id": image_id, "category_id": n} for n in shown]
        caption = f"A {THINGS[shown[0] - 1]} in a {dice.choice(PLACES)}."
        captions.append({"id": image_id, "image_id": image_id, "caption": caption})
    _write(folder / "questions.jsonl", "".join(json.dumps(question) + "\n" for question in questions))
    _write(folder / "synonyms_refine.txt", "".join(f"{thing}, {thing}s\n" for thing in THINGS))
    for split in ("train", "val"):
        mine = [{"id": image_id} for image_id in range(1, size + 1)] if split == "val" else []
        content = {"images": mine, "categories": categories, "annotations": boxes if mine else []}
        _write(folder / f"annotations/instances_{split}2014.json", content)
        content = {"images": mine, "annotations": captions if mine else []}
        _write(folder / f"annotations/captions_{split}2014.json", content)


def _make_amber(folder: Path, size: int, dice: random.Random) -> None:
    annotations: list[dict[str, Any]] = []
    generative, discriminative = [], []
    for number in range(1, size + 1):
        words = dice.sample(THINGS, 4)
        annotations.append({"id": number, "type": "generative", "truth": words[:2], "hallu": words[2:]})
        generative.append({"id": number, "image": f"AMBER_{number}.jpg", "query": "Describe this image."})
        _save(folder / f"images/AMBER_{number}.jpg", picture(dice))
    for number in range(size + 1, 2 * size + 1):
        kind = ("attribute-state", "attribute-number", "attribute-action", "hallucination", "relation")[number % 5]
        annotations.append({"id": number, "type": f"discriminative-{kind}", "truth": dice.choice(["yes", "no"])})
        query = f"Is the {dice.choice(THINGS)} {dice.choice(COLOURS)} in this image?"
        discriminative.append({"id": number, "image": f"AMBER_{number - size}.jpg", "query": query})
    _write(folder / "annotations.json", annotations)
    _write(folder / "relation.json", {thing: [] for thing in THINGS})
    _write(folder / "safe_words.txt", "image\n")
    _write(folder / "query_generative.json", generative)
    _write(folder / "query_discriminative.json", discriminative)


def _make_mmhal(folder: Path, size: int, dice: random.Random) -> None:
    rows = []
    for number in range(2 * size):
        thing = dice.choice(THINGS)
        rows.append(
            {
                "question_type": QUESTION_TYPES[number % len(QUESTION_TYPES)],
                "question_topic": "outdoor",
                "image_id": f"{number:016x}",
                "image_src": f"https://images.example/{number}_o.jpg",
                "image_content": [thing],
                "question": f"What color is the {thing} in the picture?",
                "gt_answer": f"The {thing} is {dice.choice(COLOURS)}.",
                "model_answer": "",
            }
        )
        _save(folder / f"images/{number}_o.jpg", picture(dice))
    _write(folder / "template.json", rows)
    _write(
        folder / "judge_template.txt",
        "Objects: {}\nQuestion: {}\nHuman: {}\nModel: {}\nRate it from 'Rating: 0' to 6.\n",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="Folder to write the checkpoint into.")
    parser.add_argument("data", type=Path, nargs="?", help="Folder to write the data folder into.")
    parser.add_argument("--size", type=int, default=4, help="Instances, pictures or questions of each benchmark.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make_checkpoint(arguments.checkpoint, arguments.seed)
    if arguments.data:
        make_data(arguments.data, arguments.size, arguments.seed)

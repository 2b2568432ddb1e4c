"""Tiny checkpoints on disk, each with a processor, and preference rows for them."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pyarrow as pa
import transformers
from PIL import Image
from pyarrow import parquet
from tiny_models import IMAGE, VOCABULARY, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = [f"w{number}" for number in range(4, VOCABULARY - 2)]
CHAT = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ '<image> ' if part['type'] == 'image' else part['text'] + ' ' }}{% endfor %}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}{% endfor %}"
)


def tiny_checkpoint(folder: Path, family: str = "llava", **options: object) -> Path:
    """Save a model of a few thousand weights with a processor and a word-level tokenizer.

    A picture for the LLaVA is 8 x 8 in 4 patches; llava_next and qwen2_vl take pictures of any shape. The options are
    those of the text model's configuration.
    """
    qwen = family == "qwen2_vl"
    image = "<|image_pad|>" if qwen else "<image>"
    special = {"<pad>": 0, "<s>": 1, "</s>": 2, image: IMAGE, "<unk>": VOCABULARY - 2}
    special |= {"<|video_pad|>": VOCABULARY - 1} if qwen else {}
    tokenizer = Tokenizer(models.WordLevel({**special, **{word: int(word[1:]) for word in WORDS}}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.add_special_tokens({"additional_special_tokens": [name for name in special if name.endswith(("age>", "|>"))]})
    square = {"size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}}
    patches = {"patch_size": 4, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    chat = CHAT.replace("<image>", image)
    if qwen:
        pixels = transformers.Qwen2VLImageProcessor(patch_size=4, merge_size=2, min_pixels=64, max_pixels=1024)
        video = transformers.Qwen2VLVideoProcessor(patch_size=4, merge_size=2)
        processor = transformers.Qwen2VLProcessor(pixels, fast, video, chat_template=chat)
    elif family == "llava_next":
        pixels = transformers.LlavaNextImageProcessor(**square, image_grid_pinpoints=[[8, 16], [16, 8], [16, 16]])
        processor = transformers.LlavaNextProcessor(pixels, fast, **patches, chat_template=chat)
    else:
        processor = transformers.LlavaProcessor(
            transformers.CLIPImageProcessor(**square), fast, **patches, chat_template=chat
        )
    processor.save_pretrained(folder)
    tiny_model(family, **options).save_pretrained(folder)
    return folder


def tiny_rows(count: int, seed: int = 0) -> list[dict[str, object]]:
    """Rows of RLAIF-V-Bias: random words, random pictures, ids "row-0", "row-1", ..."""
    draw = random.Random(seed)

    def words(fewest: int, most: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(fewest, most)))

    return [
        {
            "idx": f"row-{number}",
            "question": words(2, 6),
            "chosen": words(3, 8),
            "rejected": words(3, 8),
            "question_only": words(2, 8),
            "image_only": words(2, 8),
            "image": {"bytes": picture(draw), "path": f"{number}.png"},
        }
        for number in range(count)
    ]


def picture(draw: random.Random) -> bytes:
    """A PNG of 12 x 10 random pixels."""
    stream = io.BytesIO()
    Image.frombytes("RGB", (12, 10), draw.randbytes(12 * 10 * 3)).save(stream, "PNG")
    return stream.getvalue()


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write rows as one parquet file."""
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path

r"""Run LLaVA's and RLAIF-V's own code on odd prompts, answers and images, and store what comes out.

`tests/models/test_llava_reference.py` compares napo-bench with the stored results. The script runs in an environment of
the reference's own versions, beside a checkout of each repository and a SentencePiece model:

    pip install transformers==4.37.2 tokenizers==0.15.1 sentencepiece torch pillow "numpy<2"
    python scripts/replay_llava.py --llava LLaVA --rlaif-v RLAIF-V --spm sentencepiece_32k.model \
        --out tests/models/llava_reference.json

The pixels of an image are stored as a hash of their levels from 0 to 255.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import random
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

QUESTIONS = (
    "",
    "What is it?",
    " Why?",
    "  Two blanks.",
    "\n",
    "A line.\nAnother line.\n\nA third.",
    "ends in a blank ",
    "tab\tand return\r\n",
    "Größe, façade, naïve, Ærø",
    "これは何ですか?",
    "图片里有什么? 请详细描述。",
    "Что это?",
    "هل هذا صحيح؟",
    "an emoji \U0001f43b and a family \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "no-break\u00a0space, zero-width\u200bblank",
    "Statement: The bear is blue.\nBased on the image, is the given statement true or false? "
    "Only respond in True or False.",
    "ASSISTANT",
    "1 + 1 = 2; 3.14159; 12,345",
    "<img> </img> <unk > [INST]",
    "a" * 60,
)
ANSWERS = (
    "A dog.",
    " A dog.",
    "A dog. ",
    "A dog.\n",
    "\nA dog.",
    "  two blanks",
    "Größe",
    "犬です。",
    "\U0001f43b",
    "1. One\n2. Two\n\nDone.",
    "\u200b",
    "A dog.</s>",
    "An ASSISTANT: dog.",
)
TEXTS = (
    "A dog . And , a \" cat \" 's n't",
    "a  b   c\n\n d",
    "  leading",
    "tab\tx",
    "trailing  ",
    "Größe 犬です。 \U0001f43b",
)
LLAVA_V1, SIDE, FIRST_WORD = "llava_v1", 336, 259


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("llava", "rlaif-v", "spm", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()

    import transformers

    tokenizers = {
        legacy: transformers.LlamaTokenizer(str(options.spm), legacy=legacy, add_bos_token=True, model_max_length=2048)
        for legacy in (False, True)
    }
    for tokenizer in tokenizers.values():
        tokenizer.pad_token = tokenizer.unk_token
    llava = _module(options.llava, "llava", "mm_utils"), _module(options.llava, "llava", "conversation")
    prompts = _prompts(*llava, tokenizers)
    trained = _module(options.rlaif_v, "muffin", "train.train_utils")
    stored = {
        "made_by": "scripts/replay_llava.py",
        "transformers": transformers.__version__,
        "commits": {name: _commit(path) for name, path in (("LLaVA", options.llava), ("RLAIF-V", options.rlaif_v))},
        "prompts": prompts,
        "answers": _answers(trained, tokenizers),
        "decoded": _decoded(tokenizers[False]),
        "log_probs": _log_probs(options.llava, llava[0], tokenizers[False], prompts),
        "images": _images(llava[0]),
    }
    rows = {name: _lines(value) if isinstance(value, list) else json.dumps(value) for name, value in stored.items()}
    options.out.write_text("{\n" + ",\n".join(f'"{name}": {row}' for name, row in rows.items()) + "\n}\n")


def _prompts(mm_utils: Any, conversation: Any, tokenizers: dict[bool, Any]) -> list[dict[str, Any]]:
    """Text and ids of each question, with an image and without; -200 is the image."""
    cases = [(LLAVA_V1, question, image) for question in QUESTIONS for image in (True, False) if question or image]
    cases += [("vicuna_v1", "What is it?", image) for image in (True, False)]
    found = []
    for name, question, has_image in cases:
        turns = conversation.conv_templates[name].copy()
        turns.append_message(turns.roles[0], f"<image>\n{question}" if has_image else question)
        turns.append_message(turns.roles[1], None)
        text = turns.get_prompt()
        ids = [mm_utils.tokenizer_image_token(text, tokenizer) for tokenizer in tokenizers.values()]
        assert ids[0] == ids[1], (question, ids)
        found.append({"conversation": name, "question": question, "image": has_image, "text": text, "ids": ids[0]})
    return found


def _answers(trained: Any, tokenizers: dict[bool, Any]) -> list[dict[str, Any]]:
    """Ids that each answer to one question adds to the loss; none if the code cannot tell where the answer begins."""
    found = []
    for answer in ANSWERS:
        labels = []
        for tokenizer in tokenizers.values():
            turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": answer}]
            encoded = trained.preprocess_v1([turns], tokenizer, has_image=True)
            labels.append([label for label in encoded["labels"][0].tolist() if label != -100])
        assert labels[0] == labels[1], (answer, labels)
        found.append({"answer": answer, "ids": labels[0]})
    return found


def _decoded(tokenizer: Any) -> list[dict[str, Any]]:
    """Text of tokens, as LLaVA's evaluation reads it: of texts, and of tokens drawn at random."""
    draw = random.Random(0)
    rows = [[*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id] for text in TEXTS]
    rows += [[draw.randrange(FIRST_WORD, len(tokenizer)) for _ in range(12)] for _ in range(30)]
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
    return [{"ids": ids, "text": text.strip()} for ids, text in zip(rows, texts, strict=True)]


def _log_probs(checkout: Path, mm_utils: Any, tokenizer: Any, prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Summed log-prob of answers about an image under LLaVA's model, with small weights that are known."""
    import torch
    import transformers
    from llava_15 import PATCH, PICTURE, QUESTION, VOCABULARY, fill_weights
    from odd_pictures import odd_pictures
    from PIL import Image

    code = _module(checkout, "llava", "model.language_model.llava_llama")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    with tempfile.TemporaryDirectory() as folder:
        tower = transformers.CLIPVisionConfig(
            image_size=SIDE, patch_size=PATCH, num_hidden_layers=2, projection_dim=8, **sizes
        )
        transformers.CLIPVisionModel(tower).save_pretrained(folder)
        _image_processor().save_pretrained(folder)
        config = code.LlavaConfig(
            vocab_size=VOCABULARY,
            num_hidden_layers=1,
            max_position_embeddings=4096,
            pad_token_id=0,
            use_mm_proj=True,
            mm_vision_tower=folder,
            mm_hidden_size=8,
            mm_projector_type="mlp2x_gelu",
            mm_vision_select_layer=-2,
            mm_vision_select_feature="patch",
            **sizes,
        )
        model = code.LlavaLlamaForCausalLM(config).eval()
        model.get_vision_tower().load_model()
    fill_weights(model)
    image = Image.open(io.BytesIO(odd_pictures()[PICTURE])).convert("RGB")
    padding = types.SimpleNamespace(image_aspect_ratio="pad")
    pixels = mm_utils.process_images([image], model.get_vision_tower().image_processor, padding)
    asked = next(row for row in prompts if row["question"] == QUESTION and row["image"])
    found = []
    for answer in ANSWERS[:8]:
        ids = [*mm_utils.tokenizer_image_token(f"{asked['text']} {answer}", tokenizer), tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([ids]), images=pixels).logits[0].log_softmax(-1)
        labels = torch.tensor(ids[len(asked["ids"]) :])
        chosen = logits[-len(labels) - 1 : -1].gather(1, labels[:, None])
        found.append({"answer": answer, "log_prob": round(float(chosen.sum()), 4)})
    return found


def _image_processor() -> Any:
    import transformers

    return transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def _images(mm_utils: Any) -> list[dict[str, Any]]:
    """Hash of the pixels of each odd image: in evaluation ("pad"), and in training ("crop")."""
    from odd_pictures import is_narrow, levels_hash, odd_pictures
    from PIL import Image

    processor = _image_processor()
    scale = processor.image_mean, processor.image_std
    padding = types.SimpleNamespace(image_aspect_ratio="pad")
    ways = {
        "pad": lambda image: mm_utils.process_images([image], processor, padding)[0].numpy(),
        "crop": lambda image: processor(image)["pixel_values"][0],
    }
    found = []
    for name, content in odd_pictures().items():
        image = Image.open(io.BytesIO(content)).convert("RGB")
        row: dict[str, Any] = {"name": name}
        for way, pixels in ways.items():
            if way == "crop" and is_narrow(name):
                continue
            row[way] = levels_hash(pixels(image), *scale)
        found.append(row)
    return found


def _module(checkout: Path, package: str, name: str) -> Any:
    """A module of a checkout, without the package's own `__init__`, which imports its models."""
    if package not in sys.modules:
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [str(checkout / package)]
    return importlib.import_module(f"{package}.{name}")


def _commit(checkout: Path) -> str:
    return subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()


def _lines(rows: list[Any]) -> str:
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]"


if __name__ == "__main__":
    main()

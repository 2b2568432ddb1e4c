"""A LLaVA of transformers written again in the layout of LLaVA's original code.

The names are those of the code: `model.mm_projector.{0,2}`, `model.vision_tower.vision_tower.vision_model`,
`model.layers`, `lm_head`, and `base_model.model.` before the names in `non_lora_trainables.bin`.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import sentencepiece
import torch
import transformers
from safetensors.torch import save_file

WORDS = 600
_TEXT = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions. USER: ASSISTANT: Statement: Context: True or False? Is the bear blue?"
)
SIDE, PATCH = 28, 14
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}


def write_tokenizer(folder: Path) -> int:
    """Write a SentencePiece tokenizer as Vicuna has it; return its number of pieces."""
    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([_TEXT] * 20),
        model_writer=model,
        vocab_size=WORDS,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    settings |= {"add_bos_token": True, "add_eos_token": False, "legacy": False, "tokenizer_class": "LlamaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()


def twin(pieces: int, layers: int = 2, seed: int = 0) -> transformers.LlavaForConditionalGeneration:
    """The model in the layout of transformers: its vocabulary has 64 rows more, the first for the image."""
    torch.manual_seed(seed)
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(
            vocab_size=-(-(pieces + 1) // 64) * 64,
            num_hidden_layers=layers,
            max_position_embeddings=2048,
            initializer_range=0.2,
            **SIZES,
        ),
        vision_config=transformers.CLIPVisionConfig(
            **{**SIZES, "hidden_size": 24},
            num_hidden_layers=2,
            image_size=SIDE,
            patch_size=PATCH,
            projection_dim=16,
            initializer_range=0.2,
        ),
        image_token_index=pieces,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    return transformers.LlavaForConditionalGeneration(config).eval()


def language_weights(model: transformers.LlavaForConditionalGeneration, pieces: int) -> dict[str, torch.Tensor]:
    """The weights that LLaVA's code stores: language model and projector, with the rows of the tokenizer alone."""
    stored = {}
    for name, weight in model.state_dict().items():
        if ".vision_tower." in name:
            continue
        name = name.replace("multi_modal_projector.linear_1", "mm_projector.0")
        name = name.replace("multi_modal_projector.linear_2", "mm_projector.2").replace("language_model.", "")
        is_of_tokens = name in ("lm_head.weight", "model.embed_tokens.weight")
        stored[name] = weight[:pieces].clone() if is_of_tokens else weight.clone()
    stored["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    return stored


def tower_weights(model: transformers.LlavaForConditionalGeneration) -> dict[str, torch.Tensor]:
    """The weights of a whole CLIP whose vision tower is the model's."""
    prefix = "model.vision_tower."
    own = {
        f"vision_model.{name.removeprefix(prefix)}": weight.clone()
        for name, weight in model.state_dict().items()
        if name.startswith(prefix)
    }
    other = {"text_model.final_layer_norm.weight": torch.ones(4), "logit_scale": torch.tensor(1.0)}
    other |= {"visual_projection.weight": torch.ones(4, 4), "vision_model.embeddings.position_ids": torch.arange(5)}
    return own | other


def write_tower(folder: Path, model: transformers.LlavaForConditionalGeneration, *, pickled: bool = True) -> None:
    """Write the CLIP of the model's vision tower, as openai/clip-vit-large-patch14-336 lies on the hub."""
    folder.mkdir(parents=True)
    vision = {name: value for name, value in model.config.vision_config.to_dict().items() if name != "model_type"}
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": vision}))
    pixels = {"feature_extractor_type": "CLIPFeatureExtractor", "crop_size": SIDE, "size": SIDE, "do_center_crop": True}
    pixels |= {"do_normalize": True, "do_resize": True, "resample": 3}
    pixels |= {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    if pickled:
        torch.save(tower_weights(model), folder / "pytorch_model.bin")
    else:
        save_file(tower_weights(model), folder / "model.safetensors", metadata={"format": "pt"})


def write_settings(folder: Path, tower: Path, pieces: int, layers: int = 2, **fields: object) -> None:
    """Write the config.json of LLaVA's code."""
    settings = {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "mm_vision_tower": str(tower),
        "mm_hidden_size": 24,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
        "vocab_size": pieces,
        "num_hidden_layers": layers,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **SIZES,
        **fields,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "temperature": 0.9, "top_p": 0.6}
    (folder / "generation_config.json").write_text(json.dumps(generation))


def write_shards(folder: Path, weights: dict[str, torch.Tensor], shards: int = 2) -> None:
    """Write weights as `pytorch_model-0000x-of-0000y.bin` with their index."""
    placed = {}
    for number in range(shards):
        part = dict(list(weights.items())[number::shards])
        name = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        torch.save(part, folder / name)
        placed |= dict.fromkeys(part, name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))


def write_lora(
    folder: Path, base: str, tower: Path, pieces: int, *, pickled: bool = False, seed: int = 3
) -> transformers.LlavaForConditionalGeneration:
    """Write a LoRA folder as LLaVA's train.py does, with a trained projector beside the adapter; return the merged
    twin.
    """
    from peft import LoraConfig, get_peft_model

    folder.mkdir(parents=True)
    merged = twin(pieces)
    layers = r"model\.language_model\..*\.(q_proj|v_proj|down_proj)|.*vision_tower.*\.q_proj"
    torch.manual_seed(seed)
    adapted = get_peft_model(merged, LoraConfig(r=2, lora_alpha=8, target_modules=layers, init_lora_weights=False))
    written = {}
    for name, weight in adapted.state_dict().items():
        if "lora_" in name:
            name = name.replace(".default", "").replace("model.language_model.", "model.", 1)
            name = name.replace("model.vision_tower.", "model.vision_tower.vision_tower.vision_model.", 1)
            written[name] = weight.clone()
    merged = adapted.merge_and_unload()
    with torch.no_grad():
        merged.model.multi_modal_projector.linear_1.weight.mul_(2)
    trained = {name: one for name, one in language_weights(merged, pieces).items() if "mm_proj" in name}
    if pickled:
        torch.save(written, folder / "adapter_model.bin")
    else:
        save_file(written, folder / "adapter_model.safetensors")
    torch.save({f"base_model.model.{name}": one for name, one in trained.items()}, folder / "non_lora_trainables.bin")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "task_type": "CAUSAL_LM", "bias": "none"}
    settings |= {"target_modules": ["q_proj", "v_proj", "down_proj"], "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    write_settings(folder, tower, pieces)
    return merged

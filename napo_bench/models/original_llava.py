"""LLaVA-1.5 in the layout of its original code (`LlavaLlamaForCausalLM`), as the model that transformers knows.

A checkpoint in this layout has up to four parts: the weights of the language model, the projector (among these weights
or in `mm_projector.bin`), the CLIP tower that config.json names, and a LoRA adapter with the other trained weights in
`non_lora_trainables.bin`. The weights are read part by part into the model of transformers, under its names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError
from napo_bench.models import soundness
from napo_bench.models.families import FAMILIES

ARCHITECTURE = "LlavaLlamaForCausalLM"
BESIDE = ("mm_projector.bin", "non_lora_trainables.bin")
"""Files of further weights, which have no copy in safetensors."""

PICKLED = ("pytorch_model*.bin", "pytorch_model.bin.index.json", "adapter_model.bin")
"""Files that are fetched if the checkpoint has no safetensors."""

_ONE_OF_THESE = "Give a checkpoint of LLaVA-1.5 7B or 13B, for example llava-hf/llava-1.5-7b-hf."
_IMAGE = "<image>"
_MULTIPLE = 64
"""The rows of a grown embedding are a multiple of this number, as in the checkpoints of llava-hf."""

_READ_AT_ONCE = 256 * 2**20
_LANGUAGE_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps",
    "rope_theta", "rope_scaling", "attention_bias", "mlp_bias", "pretraining_tp", "tie_word_embeddings",
    "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
              "added_tokens.json")  # fmt: skip
_TOWER = "model.vision_tower."
_RENAMED = (
    (r"model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"model\.vision_tower\.vision_tower\.(vision_model\.)?", _TOWER),
    (r"vision_model\.", _TOWER),
    (r"model\.(?=(embed_tokens|layers|norm)\.)", "model.language_model."),
)
"""Beginning of a name in LLaVA's code or in CLIP -> the beginning in transformers. Other names stay."""

_COMPUTED = re.compile(r"(rotary_emb\.inv_freq|embeddings\.position_ids)$")
_OTHER_HALF_OF_CLIP = re.compile(r"text_model\.|text_projection\.|visual_projection\.|logit_scale$")
_LORA = re.compile(r"\.lora_[A-Za-z_]+")
_ROWS_OF_TOKENS = ("model.language_model.embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class _Stored:
    """A stored weight: its file, its name in the file, and a tensor of its shape without memory."""

    path: Path
    key: str
    empty: Any


@dataclass(frozen=True)
class OriginalLlava:
    """The folders of a checkpoint in the original layout.

    Attributes:
        name: Name that the user gave.
        language: Folder with the weights of the language model.
        tower: Folder of the CLIP model whose vision tower is used.
        settings: Path of the config.json that describes the model.
        adapter: Folder of a LoRA adapter; None if the checkpoint is no adapter.
    """

    name: str
    language: Path
    tower: Path
    settings: Path
    adapter: Path | None = None

    @classmethod
    def find(cls, name: str, folder: Path, base: str | None, fetch: Callable[[str, bool], Path]) -> Self | None:
        """The parts of a checkpoint, fetched; None if the checkpoint is in another layout.

        Args:
            name: Name of the checkpoint.
            folder: Folder of the checkpoint, or of an adapter.
            base: Name of an adapter's base; None if the checkpoint is no adapter.
            fetch: Returns the local folder of a name; its second argument asks for the files of weights that are no
                safetensors too.

        Raises:
            NapoBenchError: the checkpoint is of LLaVA's code, but no LLaVA-1.5, or a part does not exist.
        """
        language = folder if base is None else fetch(base, False)
        described = next((place for place in (folder, language) if _is_original(place)), None)
        if described is None:
            return None
        settings = described / "config.json"
        tower = _require_llava_15(settings)
        fetch(name, True)
        fetch(base or name, True)
        try:
            tower_folder = fetch(tower, True)
        except NapoBenchError as error:
            raise NapoBenchError(
                f"{settings}: the vision tower (mm_vision_tower) is {tower!r}. {error.message}",
                f"Set mm_vision_tower to a folder of the tower, or to its name on the hub. {error.hint}",
            ) from None
        found = cls(name, language, tower_folder, settings, None if base is None else folder)
        for needed in ("config.json", "preprocessor_config.json"):
            if not (found.tower / needed).is_file():
                raise NapoBenchError(
                    f"{settings}: the vision tower (mm_vision_tower) {tower!r} has no {needed}.",
                    "Fetch the tower again, for example openai/clip-vit-large-patch14-336.",
                )
        return found

    def parts(self) -> list[tuple[str, Path]]:
        """Every file that is read, with the name of its part."""
        own = [("model", self.settings), ("model", self.language / "generation_config.json")]
        own += [("model", self._tokenizer_folder / name) for name in _TOKENIZER]
        own += [("tower", self.tower / name) for name in ("config.json", "preprocessor_config.json")]
        if self.adapter is not None:
            own.append(("adapter", self.adapter / "adapter_config.json"))
            own += [("adapter", path) for path in self._adapter_weights]
        read = [*{stored.path: None for stored in self._stored.values()}]
        for path in read:
            part = "adapter" if path.parent == self.adapter else "tower" if path.parent == self.tower else "model"
            own.append((part, path))
        return [(part, path) for part, path in dict.fromkeys(own) if path.is_file()]

    def config(self) -> Any:
        """The configuration of transformers' LLaVA. Its vocabulary has a row for the image token."""
        from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

        said = files.read_json(self.settings)
        soundness.require_own_parts(self.tower, False)
        kind = files.read_json(self.tower / "config.json").get("model_type")
        if kind not in ("clip", "clip_vision_model"):
            raise NapoBenchError(
                f"{self.tower}: the vision tower is a {kind!r} model; CLIP is expected.", _ONE_OF_THESE
            )
        language = LlamaConfig(**{field: said[field] for field in _LANGUAGE_FIELDS if field in said})
        if self.image_token >= language.vocab_size:
            language.vocab_size = -(-(self.image_token + 1) // _MULTIPLE) * _MULTIPLE
        vision: Any = CLIPVisionConfig.from_pretrained(str(self.tower))
        make: Any = LlavaConfig
        strategy = {"patch": "default", "cls_patch": "full"}[said.get("mm_vision_select_feature", "patch")]
        return make(
            vision_config=vision,
            text_config=language,
            image_token_index=self.image_token,
            projector_hidden_act="gelu",
            vision_feature_layer=said["mm_vision_select_layer"],
            vision_feature_select_strategy=strategy,
            image_seq_length=(vision.image_size // vision.patch_size) ** 2 + (strategy == "full"),
            tie_word_embeddings=language.tie_word_embeddings,
            pad_token_id=language.pad_token_id,
            image_aspect_ratio=said.get("image_aspect_ratio"),
        )

    def processor(self) -> Any:
        """The tokenizer of the checkpoint with the image token, and the image processor of the tower."""
        from transformers import AutoImageProcessor, LlavaProcessor

        images: Any = AutoImageProcessor.from_pretrained
        config = self.config()
        make: Any = LlavaProcessor
        return make(
            image_processor=images(str(self.tower), **FAMILIES["llava"].processor),
            tokenizer=self._tokenizer(),
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            image_token=_IMAGE,
            num_additional_image_tokens=1,
        )

    @cached_property
    def image_token(self) -> int:
        """The number of the image token."""
        return int(self._tokenizer().convert_tokens_to_ids(_IMAGE))

    def skeleton(self, config: Any) -> Any:
        """The model without memory, after every stored weight was matched to a weight of the model.

        Args:
            config: Result of `config`.

        Raises:
            NapoBenchError: weights are missing, unknown to the model, or of another shape.
        """
        model = _empty(config, None, buffers=True)
        self._require_landed(model, config)
        if self.adapter is not None:
            self._with_adapter(model, "meta")
        return model

    def load(self, config: Any, device: Any, dtype: Any) -> Any:
        """The model with its weights; an adapter is merged. The memory is that of the model and 256 MiB.

        Args:
            config: Result of `config`.
            device: A torch.device.
            dtype: A torch.dtype.
        """
        model = _empty(config, dtype, buffers=False)
        self._require_landed(model, config)
        expected = model.state_dict()
        for weights in _read(self._stored):
            state = {name: _grown(name, weight, expected[name], device) for name, weight in weights.items()}
            model.load_state_dict(state, strict=False, assign=True)
        model.to(device)
        model.generation_config = self._generation(config)
        return model if self.adapter is None else self._with_adapter(model, device).merge_and_unload()

    def _generation(self, config: Any) -> Any:
        """The tokens that begin and end an answer. The rows that the embedding gained are never an answer."""
        from transformers import GenerationConfig

        own = (self.language / "generation_config.json").is_file()
        make: Any = GenerationConfig
        generation = make.from_pretrained(str(self.language)) if own else make()
        if not generation.do_sample:  # a setting of sampling could not be saved with a trained checkpoint
            generation.temperature = generation.top_p = generation.top_k = None
        text = config.text_config
        for field in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if getattr(generation, field) is None:
                setattr(generation, field, getattr(text, field))
        first = files.read_json(self.settings)["vocab_size"]
        if first < text.vocab_size:
            generation.suppress_tokens = list(range(first, text.vocab_size))
        return generation

    def _tokenizer(self) -> Any:
        from transformers import AddedToken, LlamaTokenizer

        read: Any = LlamaTokenizer.from_pretrained
        folder = self._tokenizer_folder
        # LLaVA's code reads tokenizer.model also if there is a tokenizer.json.
        tokenizer = _of_pieces(folder) if (folder / "tokenizer.model").is_file() else read(str(folder))
        if _IMAGE not in tokenizer.get_vocab():
            tokenizer.add_tokens([AddedToken(_IMAGE, special=True, normalized=False)], special_tokens=True)
        return tokenizer

    @cached_property
    def _tokenizer_folder(self) -> Path:
        """LLaVA's code takes the tokenizer of an adapter's base."""
        places = [place for place in (self.language, self.adapter) if place is not None]
        for place in places:
            if (place / "tokenizer.model").is_file() or (place / "tokenizer.json").is_file():
                return place
        raise NapoBenchError(
            f"{places[0]} has no tokenizer (no tokenizer.model and no tokenizer.json).", soundness.FETCH_AGAIN
        )

    @cached_property
    def _adapter_weights(self) -> list[Path]:
        if self.adapter is None:
            return []
        for name in ("adapter_model.safetensors", "adapter_model.bin"):
            if (self.adapter / name).is_file():
                return [self.adapter / name]
        raise NapoBenchError(f"{self.adapter} has no adapter_model.safetensors.", soundness.FETCH_AGAIN)

    @cached_property
    def _stored(self) -> dict[str, _Stored]:
        """Name in transformers -> the stored weight that is read. The adapter's folder replaces weights of the base."""
        stored = _renamed(_listed(_weight_files(self.language)))
        projector = self.language / "mm_projector.bin"
        if projector.is_file() and not any("multi_modal_projector" in name for name in stored):
            stored |= _renamed(_listed([projector]))
        if self.adapter is not None:
            beside = [self.adapter / name for name in BESIDE if (self.adapter / name).is_file()]
            trained = _renamed(_listed(beside))
            kept = _listed(self._adapter_weights)
            stored |= trained | _renamed({key: weight for key, weight in kept.items() if not _LORA.search(key)})
        if not any(name.startswith(_TOWER) for name in stored):
            tower = _listed(_weight_files(self.tower))
            stored |= _renamed({key: one for key, one in tower.items() if not _OTHER_HALF_OF_CLIP.match(key)})
        return stored

    def _require_landed(self, model: Any, config: Any) -> None:
        expected = {name: list(weight.shape) for name, weight in model.state_dict().items()}
        rows = files.read_json(self.settings)["vocab_size"]
        for name in _ROWS_OF_TOKENS:
            expected[name] = [rows, *expected[name][1:]]
        stored = self._stored
        soundness.require_landed(
            self.adapter or self.language,
            {
                "missing_keys": expected.keys() - stored.keys(),
                "unexpected_keys": [stored[name].key for name in stored.keys() - expected.keys()],
                "mismatched_keys": [
                    (stored[name].key, there, expected[name])
                    for name in stored.keys() & expected.keys()
                    if (there := list(stored[name].empty.shape)) != expected[name]
                ],
            },
        )

    def _with_adapter(self, model: Any, device: Any) -> Any:
        """The model with its adapter, unmerged. Raises NapoBenchError if a weight of the adapter has no place."""
        import torch
        from peft import PeftConfig

        assert self.adapter is not None
        settings: Any = PeftConfig.from_pretrained(str(self.adapter))
        stored = {name: one for name, one in _renamed(_listed(self._adapter_weights)).items() if _LORA.search(name)}
        modules = {_LORA.split(name)[0] for name in stored}
        lacking = sorted(_asked_for(model, settings.target_modules) - modules)
        soundness.require_no_gap(self.adapter, lacking)
        # The names are given in full: "q_proj" is a layer of the language model and of the tower.
        settings.target_modules = modules
        settings.modules_to_save = settings.layers_to_transform = settings.exclude_modules = None
        settings.inference_mode = True
        if str(device) == "meta":
            state = {name: one.empty for name, one in stored.items()}
        else:
            state = {name: one.to(device, torch.float32) for weights in _read(stored) for name, one in weights.items()}
        prefixed = {f"base_model.model.{name}": weight for name, weight in state.items()}
        return soundness.with_adapter(self.adapter, model, settings, prefixed)


def _is_original(folder: Path) -> bool:
    path = folder / "config.json"
    said = files.read_json(path, soundness.FETCH_AGAIN) if path.is_file() else None
    if not isinstance(said, dict):
        return False
    named = [str(name) for name in said.get("architectures") or []]
    return "mm_vision_tower" in said or ARCHITECTURE in named


def _require_llava_15(settings: Path) -> str:
    """The name of the tower. Raises NapoBenchError for a model of LLaVA's code that is no LLaVA-1.5."""
    said = files.read_json(settings)
    found = {
        "architectures": (said.get("architectures"), ([ARCHITECTURE],)),
        "mm_projector_type": (said.get("mm_projector_type", "linear"), ("mlp2x_gelu",)),
        "mm_vision_select_feature": (said.get("mm_vision_select_feature", "patch"), ("patch", "cls_patch")),
        "mm_patch_merge_type": (said.get("mm_patch_merge_type", "flat"), ("flat",)),
        "mm_use_im_start_end": (said.get("mm_use_im_start_end", False), (False,)),
        "image_aspect_ratio": (said.get("image_aspect_ratio"), ("pad", "square", None)),
        "quantization_config": (said.get("quantization_config"), (None,)),
    }
    for field, (value, expected) in found.items():
        if value not in expected:
            words = " or ".join(str(one) for one in expected)
            raise NapoBenchError(
                f"{settings}: {field} is {value!r:.80}; of LLaVA's original layout, {words} is loaded.", _ONE_OF_THESE
            )
    for field, kind in {"mm_vision_tower": str, "mm_vision_select_layer": int, "vocab_size": int}.items():
        files.field(said, field, kind, str(settings))
    return str(said["mm_vision_tower"])


def _of_pieces(folder: Path) -> Any:
    """The tokenizer of a SentencePiece model. transformers' own reader needs another protobuf than other packages."""
    from sentencepiece import SentencePieceProcessor
    from transformers import AddedToken, LlamaTokenizer

    model = SentencePieceProcessor(str(folder / "tokenizer.model"))
    pieces = {model.id_to_piece(number): number for number in range(model.get_piece_size())}
    # SentencePiece joins the pair whose piece has the highest score. A pair of the same piece is joined from the left.
    merges = sorted(
        (-model.get_score(number), number, cut, piece)
        for piece, number in pieces.items()
        if not (model.is_control(number) or model.is_unknown(number) or model.is_byte(number))
        for cut in range(1, len(piece))
        if piece[:cut] in pieces and piece[cut:] in pieces
    )
    said: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        said |= files.read_json(folder / name) if (folder / name).is_file() else {}
    special = {
        role: token["content"] if isinstance(token := said[role], dict) else token
        for role in ("bos_token", "eos_token", "unk_token", "pad_token")
        if said.get(role)
    }
    make: Any = LlamaTokenizer
    tokenizer = make(
        vocab=pieces, merges=[(piece[:cut], piece[cut:]) for *_, cut, piece in merges], add_bos_token=True, **special
    )
    added = files.read_json(folder / "added_tokens.json") if (folder / "added_tokens.json").is_file() else {}
    for token, number in sorted(added.items(), key=lambda item: item[1]):
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False)], special_tokens=True)
        if tokenizer.convert_tokens_to_ids(token) != number:
            raise NapoBenchError(
                f"{folder / 'added_tokens.json'}: {token!r} is number {number}; after the {len(pieces)} pieces of "
                f"tokenizer.model it is number {tokenizer.convert_tokens_to_ids(token)}.",
                soundness.FETCH_AGAIN,
            )
    return tokenizer


def _empty(config: Any, dtype: Any, *, buffers: bool) -> Any:
    """The model without memory. Its buffers are computed unless they are to be empty too."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForImageTextToText

    from_config: Any = AutoModelForImageTextToText.from_config
    with init_empty_weights(include_buffers=buffers):
        return from_config(config, **({} if dtype is None else {"dtype": dtype}))


def _weight_files(folder: Path) -> list[Path]:
    """The files of a folder's weights: safetensors, or pickles if there are no safetensors."""
    for stem in ("model.safetensors", "pytorch_model.bin"):
        if (folder / stem).is_file() or (folder / f"{stem}.index.json").is_file():
            return soundness.weight_files(folder, stem)
    raise NapoBenchError(
        f"{folder} holds no weights (no model*.safetensors and no pytorch_model*.bin).", soundness.FETCH_AGAIN
    )


def _listed(paths: Iterable[Path]) -> dict[str, _Stored]:
    """Name in the files -> stored weight, of several files."""
    import torch

    found: dict[str, _Stored] = {}
    for path in paths:
        shapes = (
            soundness.stored_shapes([path])
            if path.suffix == ".safetensors"
            else {key: torch.empty(one.shape, device="meta") for key, one in _tensors(path).items()}
        )
        found |= {key: _Stored(path, key, empty) for key, empty in shapes.items()}
    return found


def _renamed(stored: Mapping[str, _Stored]) -> dict[str, _Stored]:
    """Name in transformers -> stored weight. A stored value that the model computes itself is left out."""
    prefix = "base_model.model."
    plain = {key.removeprefix(prefix): one for key, one in stored.items()}
    if any(key.startswith("model.model.") for key in plain):
        plain = {key.removeprefix("model."): one for key, one in plain.items()}
    renamed = {}
    for key, one in plain.items():
        if _COMPUTED.search(key):
            continue
        for old, new in _RENAMED:
            key, changed = re.subn(f"^{old}", new, key)
            if changed:
                break
        renamed[key] = one
    return renamed


def _tensors(path: Path) -> Mapping[str, Any]:
    """The tensors of a pickle, mapped into memory.

    Raises:
        NapoBenchError: the file holds anything else.
    """
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise _no_tensors(path, str(error).strip().splitlines()[0]) from None
    if not isinstance(found, dict):
        raise _no_tensors(path, f"a {type(found).__name__}")
    other = [key for key, value in found.items() if not isinstance(key, str) or not isinstance(value, torch.Tensor)]
    if other:
        raise _no_tensors(path, f"{other[0]!r} is a {type(found[other[0]]).__name__}")
    return found


def _no_tensors(path: Path, found: str) -> NapoBenchError:
    return NapoBenchError(
        f"{path} is no file of tensors alone: {found:.200}",
        "Nothing of the file was run. Fetch it again, or give a checkpoint in safetensors.",
    )


def _read(stored: Mapping[str, _Stored]) -> Iterator[dict[str, Any]]:
    """The weights, file by file, in groups of 256 MiB at most, or of one weight."""
    by_path: dict[Path, list[str]] = {}
    for name, one in stored.items():
        by_path.setdefault(one.path, []).append(name)
    for path, names in by_path.items():
        group: list[str] = []
        size = 0
        for name in names:
            bytes_of = stored[name].empty.numel() * 4
            if group and size + bytes_of > _READ_AT_ONCE:
                yield _group(path, group, stored)
                group, size = [], 0
            group.append(name)
            size += bytes_of
        yield _group(path, group, stored)


def _group(path: Path, names: list[str], stored: Mapping[str, _Stored]) -> dict[str, Any]:
    """Weights of one file. The file is opened for each group: its pages do not stay in memory."""
    if path.suffix != ".safetensors":
        tensors = _tensors(path)
        return {name: tensors[stored[name].key] for name in names}
    from safetensors import safe_open

    with safe_open(path, "pt") as weights:
        return {name: weights.get_tensor(stored[name].key) for name in names}


def _grown(name: str, weight: Any, expected: Any, device: Any) -> Any:
    """A copy of a weight on the device. A new row of the embedding is zero.

    A new row of the output layer is the mean of the stored rows. Its logit is the mean of their logits, so 64 new rows
    take less than 64 / 32,000 of the probability, and none is the most probable token.
    """
    import torch

    if weight.shape == expected.shape:
        return weight.to(device, expected.dtype, copy=True)
    grown = torch.zeros(expected.shape, dtype=expected.dtype, device=device)
    grown[: len(weight)] = weight
    if name == "lm_head.weight":
        grown[len(weight) :] = weight.mean(0, dtype=torch.float32).to(device)
    return grown


def _asked_for(model: Any, target_modules: Any) -> set[str]:
    """The layers of the language model that an adapter's list of layers names."""
    import torch

    if not isinstance(target_modules, list | set | tuple):
        return set()
    wanted = {str(name).rpartition(".")[2] for name in target_modules}
    return {
        name
        for name, module in model.named_modules()
        if ".language_model." in name and isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in wanted
    }

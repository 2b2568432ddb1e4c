"""The parts of a checkpoint in the layout of LLaVA's code, and the model that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError
from napo_bench.models import soundness
from napo_bench.models.families import FAMILIES
from napo_bench.models.original_llava.settings import config_of, generation_of, is_original, require_llava_15
from napo_bench.models.original_llava.tokenizer import FILES, IMAGE, tokenizer_of
from napo_bench.models.original_llava.weights import (
    BESIDE,
    LORA,
    OTHER_HALF_OF_CLIP,
    TOWER,
    Stored,
    grown,
    listed,
    read,
    renamed,
    weight_files,
)

_ROWS_OF_TOKENS = ("model.language_model.embed_tokens.weight", "lm_head.weight")


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
        found_in = next((place for place in (folder, language) if is_original(place)), None)
        if found_in is None:
            return None
        settings = found_in / "config.json"
        tower = require_llava_15(settings)
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
        own += [("model", self._tokenizer_folder / name) for name in FILES]
        own += [("tower", self.tower / name) for name in ("config.json", "preprocessor_config.json")]
        if self.adapter is not None:
            own.append(("adapter", self.adapter / "adapter_config.json"))
            own += [("adapter", path) for path in self._adapter_weights]
        for path in dict.fromkeys(stored.path for stored in self._stored.values()):
            part = "adapter" if path.parent == self.adapter else "tower" if path.parent == self.tower else "model"
            own.append((part, path))
        return [(part, path) for part, path in dict.fromkeys(own) if path.is_file()]

    def config(self) -> Any:
        """The configuration of transformers' LLaVA. Its vocabulary has a row for the image token."""
        return config_of(self.settings, self.tower, self.image_token)

    def processor(self) -> Any:
        """The tokenizer of the checkpoint with the image token, and the image processor of the tower."""
        from transformers import AutoImageProcessor, LlavaProcessor

        images: Any = AutoImageProcessor.from_pretrained
        config = self.config()
        make: Any = LlavaProcessor
        return make(
            image_processor=images(str(self.tower), **FAMILIES["llava"].processor),
            tokenizer=tokenizer_of(self._tokenizer_folder),
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            image_token=IMAGE,
            num_additional_image_tokens=1,
        )

    @cached_property
    def image_token(self) -> int:
        """The number of the image token."""
        return int(tokenizer_of(self._tokenizer_folder).convert_tokens_to_ids(IMAGE))

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

    @property
    def weights(self) -> int:
        """The number of stored weights."""
        return sum(one.empty.numel() for one in self._stored.values())

    def load(self, config: Any, device: Any, dtype: Any, options: Mapping[str, Any] | None = None) -> Any:
        """The model with its weights; an adapter is merged. The memory is that of the model and 256 MiB.

        Args:
            config: Result of `config`.
            device: A torch.device, which has no effect with `options`.
            dtype: A torch.dtype.
            options: Arguments of `from_pretrained` for weights that are quantized or spread over devices. The weights
                are then read into the CPU's memory before, and an adapter on quantized weights is not merged.
        """
        if options is not None:
            return self._load_placed(config, dtype, options)
        model = _empty(config, dtype, buffers=False)
        self._require_landed(model, config)
        expected = model.state_dict()
        for weights in read(self._stored):
            state = {name: grown(name, weight, expected[name], device) for name, weight in weights.items()}
            model.load_state_dict(state, strict=False, assign=True)
        model.to(device)
        model.generation_config = generation_of(self.settings, self.language, config)
        return model if self.adapter is None else self._with_adapter(model, device).merge_and_unload()

    def _load_placed(self, config: Any, dtype: Any, options: Mapping[str, Any]) -> Any:
        from transformers import LlavaForConditionalGeneration

        expected = _empty(config, dtype, buffers=True).state_dict()
        state = {
            name: grown(name, weight, expected[name], "cpu")
            for weights in read(self._stored)
            for name, weight in weights.items()
        }
        make: Any = LlavaForConditionalGeneration.from_pretrained
        model = make(None, config=config, state_dict=state, dtype=dtype, **options)
        model.generation_config = generation_of(self.settings, self.language, config)
        if self.adapter is None:
            return model
        adapted = self._with_adapter(model, model.device)
        return adapted.get_base_model() if "quantization_config" in options else adapted.merge_and_unload()

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
    def _stored(self) -> dict[str, Stored]:
        """Name in transformers -> the stored weight that is read. The adapter's folder replaces weights of the base."""
        stored = renamed(listed(weight_files(self.language)))
        projector = self.language / "mm_projector.bin"
        if projector.is_file() and not any("multi_modal_projector" in name for name in stored):
            stored |= renamed(listed([projector]))
        if self.adapter is not None:
            beside = [self.adapter / name for name in BESIDE if (self.adapter / name).is_file()]
            trained = renamed(listed(beside))
            kept = listed(self._adapter_weights)
            stored |= trained | renamed({key: weight for key, weight in kept.items() if not LORA.search(key)})
        if not any(name.startswith(TOWER) for name in stored):
            tower = listed(weight_files(self.tower))
            stored |= renamed({key: one for key, one in tower.items() if not OTHER_HALF_OF_CLIP.match(key)})
        return stored

    def _require_landed(self, model: Any, config: Any) -> None:
        expected = {name: list(weight.shape) for name, weight in model.state_dict().items()}
        rows = files.read_json(self.settings)["vocab_size"]
        for name in _ROWS_OF_TOKENS:
            expected[name] = [rows, *expected[name][1:]]
        stored = self._stored
        with self._base_named():
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

    @contextmanager
    def _base_named(self) -> Iterator[None]:
        """Name an adapter's base in a message about weights that do not match the model."""
        try:
            yield
        except NapoBenchError as error:
            if self.adapter is None:
                raise
            where = self.adapter / "adapter_config.json"
            base = files.read_json(where)["base_model_name_or_path"]
            raise NapoBenchError(
                f"{where}: the base (base_model_name_or_path) is {base!r}, and its weights with those beside "
                f"the adapter do not fit {self.settings}. {error.message}",
                f"Set base_model_name_or_path to the base that the adapter was trained on. {error.hint}",
            ) from None

    def _with_adapter(self, model: Any, device: Any) -> Any:
        """The model with its adapter, unmerged. Raises NapoBenchError if a weight of the adapter has no place."""
        import torch
        from peft import PeftConfig

        assert self.adapter is not None
        settings: Any = PeftConfig.from_pretrained(str(self.adapter))
        stored = {name: one for name, one in renamed(listed(self._adapter_weights)).items() if LORA.search(name)}
        modules = {LORA.split(name)[0] for name in stored}
        lacking = sorted(_asked_for(model, settings.target_modules) - modules)
        soundness.require_no_gap(self.adapter, lacking)
        # The names are given in full: "q_proj" is a layer of the language model and of the tower.
        settings.target_modules = modules
        settings.modules_to_save = settings.layers_to_transform = settings.exclude_modules = None
        settings.inference_mode = True
        if str(device) == "meta":
            state = {name: one.empty for name, one in stored.items()}
        else:
            state = {name: one.to(device, torch.float32) for weights in read(stored) for name, one in weights.items()}
        prefixed = {f"base_model.model.{name}": weight for name, weight in state.items()}
        return soundness.with_adapter(self.adapter, model, settings, prefixed)


def _empty(config: Any, dtype: Any, *, buffers: bool) -> Any:
    """The model without memory. Its buffers are computed unless they are to be empty too."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForImageTextToText

    from_config: Any = AutoModelForImageTextToText.from_config
    with init_empty_weights(include_buffers=buffers):
        return from_config(config, **({} if dtype is None else {"dtype": dtype}))


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

"""A checkpoint on disk: full weights, or a PEFT adapter and its base; safetensors, or LLaVA's original layout."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

from napo_bench.core import digests, files
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.names import CONTROLS, TRAINING, Control
from napo_bench.models import adapter_config, image_tokens, loading, soundness
from napo_bench.models.configuration import require_own_parts, unreadable_config
from napo_bench.models.conversation import Conversation
from napo_bench.models.device import AUTO
from napo_bench.models.explained import explained
from napo_bench.models.families import family_of, refusal_of
from napo_bench.models.folders import folder_of, own_files, weight_files
from napo_bench.models.memory import keep_freed_memory
from napo_bench.models.original_llava.checkpoint import OriginalLlava
from napo_bench.models.quantization import stored_kind
from napo_bench.models.threads import choose_threads

_TOKENIZER = ("tokenizer.json", "*.model", "vocab*")
_COPY_PROCESSOR = (
    "Save its base checkpoint's processor into the folder: "
    "python -c \"from transformers import AutoProcessor as P; P.from_pretrained('BASE').save_pretrained('FOLDER')\""
)
_OTHER_CONFIG = (
    "config.json may be another model's, or of another layout than transformers'. Fetch the checkpoint again."
)


@dataclass(frozen=True)
class Checkpoint:
    """The folders of a checkpoint's parts, and how the parts are loaded.

    Attributes:
        name: Name that the user gave.
        folder: Folder of weights and configuration; for an adapter, the base's folder.
        adapter: Folder of the PEFT adapter; None if the checkpoint is no adapter.
        trust_remote_code: Run code that the checkpoint brings.
        original: The parts of a checkpoint in the layout of LLaVA's code; None for the layout of transformers.
        quantization: Name of the quantization of the loaded weights, see napo_bench.models.quantization; None is none.
    """

    name: str
    folder: Path
    adapter: Path | None = None
    trust_remote_code: bool = False
    original: OriginalLlava | None = None
    quantization: str | None = None

    @classmethod
    def open(
        cls, name: str, *, trust_remote_code: bool = False, weights: bool = True, quantization: str | None = None
    ) -> Self:
        """Find a checkpoint. A checkpoint on the hub is fetched.

        Args:
            name: A local folder or a hub name, of a model or of a PEFT adapter.
            trust_remote_code: Run code that the checkpoint brings.
            weights: Whether the checkpoint needs weights. Without weights, `open_texts` and the loaders of
                configuration and processor can be used.
            quantization: Name of the quantization of the loaded weights.

        Raises:
            NapoBenchError: the checkpoint does not exist, or its weights can only be read by running a pickle.
        """
        fetch = folder_of if weights else partial(folder_of, weights=False)
        folder = fetch(name)
        where = folder / "adapter_config.json"
        if not where.is_file():
            original = OriginalLlava.find(name, folder, None, fetch)
            if original is None and weights:
                weight_files(folder, name)
            return cls(name, folder, None, trust_remote_code, original, quantization)
        base = files.field(files.read_json(where), "base_model_name_or_path", str, str(where))
        try:
            base_folder = fetch(base)
            original = OriginalLlava.find(name, folder, base, fetch)
            if original is None and weights:
                weight_files(folder, name)
                weight_files(base_folder, base)
            if (base_folder / where.name).is_file():
                raise NapoBenchError(f"{base_folder} is itself an adapter.", "Merge it into its base first.")
        except NapoBenchError as error:
            raise NapoBenchError(
                f"{name} is an adapter on {base}. {error.message}", error.hint + f"\nThe base's name is in {where}."
            ) from None
        return cls(name, base_folder, folder, trust_remote_code, original, quantization)

    def fingerprint(self) -> str:
        """SHA-256, in hex, over the contents of every file that an answer depends on, including an adapter's base.

        Python files count only if the checkpoint's code is trusted. Otherwise they are never run.
        """
        own = [(name, path) for name, path in self._files() if path.suffix != ".py" or self.trust_remote_code]
        contents = digests.sha256(path for _, path in own)
        lines = [f"{name} {content}\n" for (name, _), content in zip(own, contents, strict=True)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def control(self) -> Control | None:
        """The control that the checkpoint, or an adapter's base, was trained as by `napo-bench train`; None for every
        other checkpoint.
        """
        for folder in (self.adapter, self.folder):
            path = folder / TRAINING if folder is not None else None
            held = files.read_json(path) if path is not None and path.is_file() else None
            recipe = held.get("recipe") if isinstance(held, dict) else None
            named = recipe.get("control") if isinstance(recipe, dict) else None
            if named in CONTROLS:
                return cast(Control, named)
        return None

    def open_parts(self) -> tuple[Any, Any]:
        """The model's configuration and its processor, checked against each other, the weights and the adapter.

        Every command opens a checkpoint in this way before the model is allocated.

        Raises:
            NapoBenchError: a part is damaged or missing, or two parts do not fit each other.
        """
        soundness.require_json(path for _, path in self._files())
        if self.adapter is not None:
            adapter_config.require_fields(self.adapter)
            if self.original is None:
                soundness.require_whole_adapter(self.adapter)
        config, processor = self.open_texts()
        if self.quantization is not None and (stored := stored_kind(config)) is not None:
            raise NapoBenchError(
                f"{self.name} is stored quantized ({stored}), and --quantization is {self.quantization}.",
                "Leave --quantization out.",
            )
        soundness.require_generation(self.folder)
        with explained(self.folder, "model", _OTHER_CONFIG):
            original = self.original
            base = soundness.skeleton(self.folder, config) if original is None else original.skeleton(config)
            if base is not None:
                soundness.require_image_features(self.name, processor, config, base)
        if base is not None and original is None and self.adapter is not None:
            with explained(self.adapter, "adapter", loading.SAVE_ADAPTER_AGAIN):
                soundness.require_adapter(self.adapter, base)
        return config, processor

    def open_texts(self) -> tuple[Any, Any]:
        """The model's configuration and its processor, checked against each other. The weights are not read.

        Raises:
            NapoBenchError: a part is damaged or missing, or the two do not fit each other.
        """
        config = self.load_config()
        processor = self.load_processor()
        image_tokens.require_tokens(self.name, processor, config)
        try:
            conversation = Conversation.of(processor, config)
        except NapoBenchError as error:
            raise NapoBenchError(f"{self.name}: {error.message}", error.hint) from None
        image_tokens.require_image_in_prompt(self.name, conversation, config)
        return config, processor

    def _files(self) -> list[tuple[str, Path]]:
        """Every file that an answer depends on, with the name that the fingerprint has for the file."""
        if self.original is not None:
            own = self.original.parts() + [("adapter", path) for path in self._own_processor]
            return [(f"{part}/{path.name}", path) for part, path in dict.fromkeys(own)]
        return [
            (f"{part}/{path.relative_to(folder).as_posix()}", path)
            for part, folder in {"model": self.folder, "adapter": self.adapter}.items()
            if folder
            for path in sorted([*own_files(folder), *weight_files(folder)])
        ]

    @property
    def _own_processor(self) -> list[Path]:
        """The files of a processor that the adapter's folder has; none if the folder has no processor."""
        folder = self.adapter
        if folder is None or not any((folder / name).is_file() for name in soundness.PROCESSOR_FILES):
            return []
        names = ("config.json", "generation_config.json", "adapter_config.json")
        return [path for path in own_files(folder) if path.suffix != ".safetensors" and path.name not in names]

    def load_config(self) -> Any:
        """The model's configuration. Raises NapoBenchError for a text-only model."""
        if self.original is not None:
            with explained(self.original.settings, "configuration", _OTHER_CONFIG):
                return self.original.config()
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

        require_own_parts(self.folder, self.trust_remote_code)
        # A checkpoint may not choose the kernels of its attention, unless its code is trusted.
        attention = {} if self.trust_remote_code else {"attn_implementation": None}
        try:
            config = AutoConfig.from_pretrained(str(self.folder), trust_remote_code=self.trust_remote_code, **attention)
        except Exception as error:
            raise unreadable_config(self.folder, error) from error
        brings_code = self.trust_remote_code and hasattr(config, "auto_map")
        if config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and not brings_code:
            raise NapoBenchError(
                f"{self.name} is a {config.model_type!r} model, which takes no images.",
                "Give an image-text-to-text checkpoint, for example llava-hf/llava-1.5-7b-hf.",
            )
        reason = refusal_of(config)
        if reason is not None:
            raise NapoBenchError(
                f"{self.name} is a {config.model_type!r} model: {reason}.",
                "Give a checkpoint of another family. docs/models.md lists the families that are evaluated.",
            )
        return config

    def load_processor(self) -> Any:
        """The adapter's processor if it has one, else the model's.

        Raises:
            NapoBenchError: neither has a processor.
        """
        from transformers import AutoProcessor, AutoTokenizer

        if self.original is not None and not self._own_processor:
            with explained(self.folder, "processor", soundness.FETCH_AGAIN):
                return _complete(self.folder, self.original.processor(), self.load_config())
        places = [self.folder] if self.adapter is None else [self.adapter, self.folder]
        names = soundness.PROCESSOR_FILES
        folder = next((place for place in places if any((place / name).is_file() for name in names)), None)
        if folder is None:
            raise NapoBenchError(
                f"{self.name} has no processor ({' or '.join(names)}), so the model cannot get an image.",
                _COPY_PROCESSOR,
            )
        from_pretrained: Any = AutoProcessor.from_pretrained
        if not any(path for pattern in _TOKENIZER for path in folder.glob(pattern)):
            raise NapoBenchError(f"{folder} has no tokenizer (no tokenizer.json).", _COPY_PROCESSOR)
        config = self.load_config()
        options = family_of(config).processor
        with explained(folder, "processor", _COPY_PROCESSOR):
            processor = from_pretrained(str(folder), trust_remote_code=self.trust_remote_code, **options)
            if folder == self.adapter and not (folder / "config.json").is_file():
                # Without a config.json, transformers would build the tokenizer anew, and other tokens than the base's.
                # With the base's configuration, it reads the tokenizer's own file, as it does for the base.
                read: Any = AutoTokenizer.from_pretrained
                processor.tokenizer = read(str(folder), config=config, trust_remote_code=self.trust_remote_code)
        if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
            raise NapoBenchError(
                f"{folder}: its processor, {type(processor).__name__}, lacks a tokenizer or an image processor.",
                _COPY_PROCESSOR,
            )
        return _complete(folder, processor, config)

    def load_model(self, device: Any, dtype: Any) -> Any:
        """The model, in evaluation mode; an adapter is merged into its base. On quantized weights, to which nothing
        can be added exactly, the adapter stays beside them.

        Args:
            device: A torch.device, or AUTO.
            dtype: A torch.dtype.

        Raises:
            NapoBenchError: the weights are damaged, do not cover the model, are not finite, or do not fit into memory.
        """
        model = self._load_base(device, dtype)
        if self.adapter is not None and self.original is None:
            model = loading.with_adapter_applied(model, self.adapter)
        return model.eval()

    def load_adapted(self, device: Any, dtype: Any, dropout: float) -> Any:
        """The base with the checkpoint's LoRA adapter beside its weights, to train the adapter further: a PeftModel.

        Args:
            device: A torch.device.
            dtype: Type of the base's weights, a torch.dtype. The adapter's weights are float32.
            dropout: Dropout before the adapter.

        Raises:
            NapoBenchError: as `load_model`.
        """
        assert self.adapter is not None
        return loading.with_adapter_to_train(self._load_base(device, dtype), self.adapter, dropout)

    def _load_base(self, device: Any, dtype: Any) -> Any:
        """The model without an adapter. In the original layout the adapter is a part of the model."""
        import torch

        device_type = "cuda" if device == AUTO else torch.device(device).type
        choose_threads(self.folder, device_type)
        if device_type == "cpu":
            keep_freed_memory()
        place = loading.Place(self.name, device, dtype, self.quantization)
        config = self.load_config()
        if self.original is not None:
            return loading.load_original(self.original, self.adapter or self.folder, config, place)
        return loading.load_folder(self.folder, config, place, trust_remote_code=self.trust_remote_code)


def _complete(folder: Path, processor: Any, config: Any) -> Any:
    """The processor with a token for padding, and with the fields that an older transformers left out."""
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    soundness.complete_processor(folder, processor, config)
    return processor

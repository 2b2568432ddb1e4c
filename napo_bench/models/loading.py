"""The weights of a checkpoint, read into a model: of a folder or of LLaVA's original layout, and an adapter on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napo_bench.core.errors import NapoBenchError
from napo_bench.models import soundness
from napo_bench.models.device import AUTO
from napo_bench.models.explained import explained
from napo_bench.models.families import complete_outputs
from napo_bench.models.folders import weight_files
from napo_bench.models.original_llava.checkpoint import OriginalLlava
from napo_bench.models.placement import placed, require_placed
from napo_bench.models.quantization import stored_kind

SAVE_ADAPTER_AGAIN = "Fetch or save the adapter again."


@dataclass(frozen=True)
class Place:
    """Where and how the weights of a checkpoint are held.

    Attributes:
        name: Name of the checkpoint, for messages.
        device: A torch.device, or AUTO.
        dtype: A torch.dtype.
        quantization: Name of the quantization of the weights; None is none.
    """

    name: str
    device: Any
    dtype: Any
    quantization: str | None

    def options(self, weights: int) -> dict[str, Any]:
        """The arguments of `from_pretrained`, see `placed`."""
        return placed(self.name, weights, self.device, self.dtype, self.quantization)

    @contextmanager
    def explained(self, folder: Path) -> Iterator[None]:
        """Turn what the reading of weights raises into one message."""
        import torch

        with explained(folder, "weights", soundness.FETCH_AGAIN):
            try:
                yield
            except torch.OutOfMemoryError:
                raise NapoBenchError(
                    f"{self.name} does not fit into the memory of "
                    f"{'the accelerators' if self.device == AUTO else self.device}.",
                    "Use a larger one; eval also takes --dtype bfloat16, and train a -lora recipe.",
                ) from None


def load_folder(folder: Path, config: Any, place: Place, *, trust_remote_code: bool) -> Any:
    """The model of a folder in the layout of transformers.

    Args:
        folder: Folder of the weights.
        config: The model's configuration.
        place: Where the weights are held.
        trust_remote_code: Run code that the checkpoint brings.

    Raises:
        NapoBenchError: the weights are damaged, do not cover the model, are not finite, or do not fit into memory.
    """
    from transformers import AutoModelForImageTextToText

    from_pretrained: Any = AutoModelForImageTextToText.from_pretrained
    count = 0
    if place.device == AUTO and stored_kind(config) is None:
        count = sum(one.numel() for one in soundness.stored_shapes(weight_files(folder)).values())
    options = place.options(count)
    with place.explained(folder):
        model, loading = from_pretrained(
            str(folder),
            config=config,
            dtype=place.dtype,
            **options,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,  # require_landed names them
            output_loading_info=True,
        )
    require_placed(place.name, model, options)
    soundness.require_landed(folder, loading)
    soundness.require_finite(folder, model)
    complete_outputs(model)
    return model


def load_original(original: OriginalLlava, folder: Path, config: Any, place: Place) -> Any:
    """The model of a checkpoint in LLaVA's original layout, with its adapter.

    Args:
        original: The parts of the checkpoint.
        folder: Folder of the checkpoint, for messages.
        config: The model's configuration.
        place: Where the weights are held.

    Raises:
        NapoBenchError: the weights are damaged, do not cover the model, are not finite, or do not fit into memory.
    """
    options = None
    if place.device == AUTO or place.quantization is not None:
        options = place.options(original.weights if place.device == AUTO else 0)
    with place.explained(folder):
        model = original.load(config, place.device, place.dtype, options)
    require_placed(place.name, model, options or {})
    soundness.require_finite(folder, model)
    return model


def with_adapter_applied(model: Any, adapter: Path) -> Any:
    """The model with a PEFT adapter merged into it; beside quantized weights the adapter stays unmerged.

    Raises:
        NapoBenchError: the adapter is damaged, or a weight is not finite.
    """
    from peft import PeftModel

    with explained(adapter, "adapter", SAVE_ADAPTER_AGAIN):
        adapted = PeftModel.from_pretrained(model, str(adapter))
        quantized = getattr(model, "is_quantized", False)
        model = adapted.get_base_model() if quantized else adapted.merge_and_unload()
    soundness.require_finite(adapter, model)
    return model


def with_adapter_to_train(model: Any, adapter: Path, dropout: float) -> Any:
    """A PeftModel with a LoRA adapter that can be trained further.

    Args:
        model: The adapter's base.
        adapter: Folder of the adapter.
        dropout: Dropout before the adapter.

    Raises:
        NapoBenchError: the adapter is damaged, or a weight is not finite.
    """
    from peft import PeftConfig, PeftModel

    with explained(adapter, "adapter", SAVE_ADAPTER_AGAIN):
        settings: Any = PeftConfig.from_pretrained(str(adapter))
        settings.lora_dropout = dropout
        if (base := Path(settings.base_model_name_or_path)).is_dir():
            settings.base_model_name_or_path = str(base.resolve())  # the trained adapter is in another folder
        adapted = PeftModel.from_pretrained(model, str(adapter), is_trainable=True, config=settings)
    soundness.require_finite(adapter, adapted)
    return adapted

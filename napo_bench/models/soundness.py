"""Whether the parts of a checkpoint fit each other: configuration, processor, tokenizer, weights, adapter.

The checks read the headers of the weights and build the model without memory (torch's meta device), so a checkpoint is
refused before anything is allocated.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.limits import CHECK_SECONDS, at_most
from napo_bench.models.families import family_of

_SHOWN = 5
_MOST_ADDED_TOKENS = 10_000
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
FETCH_AGAIN = "Fetch or save the checkpoint again."
SAME_SOURCE = "Take weights, config.json, processor and tokenizer from the same checkpoint."
_CONVERTED = (
    "These are the names of LLaVA's original code, and config.json is none of that code (it has no mm_vision_tower). "
    "Give the checkpoint with its own config.json, or the same checkpoint in the layout of transformers: the "
    "organisation llava-hf has them, for example llava-hf/llava-1.5-7b-hf."
)
_ORIGINAL_NAMES = ("mm_projector", "vision_tower.vision_tower")
_BESIDE_AN_ADAPTER = ("non_lora_trainables.bin", "mm_projector.bin")
_CLASS_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0}
"""Vision tower -> number of an image's features that belong to no patch."""


_INTEGERS = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"}


def require_json(paths: Iterable[Path]) -> None:
    """Read the JSON files among a checkpoint's files. Raises NapoBenchError that names a damaged file."""
    for path in paths:
        if path.suffix == ".json":
            files.read_json(path, FETCH_AGAIN)


def complete_processor(folder: Path, processor: Any, config: Any) -> None:
    """Set the fields that a processor of an older transformers lacks, from the model's configuration.

    Args:
        folder: Folder of the processor, for messages.
        processor: Processor, which is changed in place.
        config: The model's configuration.

    Raises:
        NapoBenchError: a field is missing in the processor and in config.json, the two disagree, or the processor adds
            more image tokens than any model has.
    """
    added = getattr(processor, "num_additional_image_tokens", None)
    if isinstance(added, int | float) and added > _MOST_ADDED_TOKENS:
        raise NapoBenchError(
            f"{folder}: num_additional_image_tokens of the processor is {added:,}; at most {_MOST_ADDED_TOKENS:,} are "
            "expected.",
            SAME_SOURCE,
        )
    known = inspect.signature(type(processor).__init__).parameters
    vision = getattr(config, "vision_config", None)
    patch, side = getattr(vision, "patch_size", None), getattr(vision, "image_size", None)
    patches = (side // patch) ** 2 if isinstance(patch, int) and isinstance(side, int) and patch > 0 else None
    merged = getattr(config, "downsample_factor", 1)  # the processor of Aya Vision counts patches after the merger
    of_model = {
        "patch_size": patch * merged if isinstance(patch, int) else patch,
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", None),
        "num_image_tokens": patches,
    }
    for field, value in of_model.items():
        if field not in known:
            continue
        own = getattr(processor, field, None)
        if own is None and value is None:
            raise NapoBenchError(
                f"{folder}: the processor lacks the field {field!r}, and config.json does not say it either.",
                f"Add {field!r} to processor_config.json, as the base checkpoint's processor has it.",
            )
        if own is None:
            setattr(processor, field, value)
        elif field != "num_image_tokens" and type(own) is type(value) and own != value:
            raise NapoBenchError(
                f"{folder}: the processor's {field} is {own!r}; config.json says {value!r}.", SAME_SOURCE
            )
    if "num_additional_image_tokens" in known and not _says(folder, "num_additional_image_tokens"):
        own = processor.num_additional_image_tokens
        processor.num_additional_image_tokens = _CLASS_TOKENS.get(getattr(vision, "model_type", ""), own)


def require_generation(folder: Path) -> None:
    """Check the token numbers of generation_config.json in the folder of the weights.

    Raises:
        NapoBenchError: a token is no whole number.
    """
    path = folder / "generation_config.json"
    if not path.is_file():
        return
    for field, value in files.read_json(path).items():
        if not field.endswith("_token_id") or value is None:
            continue
        for number in value if isinstance(value, list) else [value]:
            if not isinstance(number, int) or isinstance(number, bool):
                raise NapoBenchError(
                    f"{path}: {field} is {value!r:.80}; the number of a token is expected, or a list of them.",
                    f"Correct the field, or remove it. {SAME_SOURCE}",
                )


def weight_files(folder: Path, name: str = WEIGHTS) -> list[Path]:
    """The files of weights that transformers loads: one file, or the shards of the index.

    Args:
        folder: Folder of the weights.
        name: Name of the one file.

    A file may be a link, as in the hub's cache: its content is hashed, and is read as what its suffix says.

    Raises:
        NapoBenchError: there are no such files, or a shard of the index is missing, no safetensors, or outside the
            folder.
    """
    whole, index = folder / name, folder / f"{name}.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        raise NapoBenchError(f"{folder} has neither {name} nor {index.name}.", FETCH_AGAIN)
    named = files.field(files.read_json(index), "weight_map", dict, str(index))
    shards = sorted({files.field(named, weight, str, f"{index}, weight_map") for weight in named})
    for shard in shards:
        place = PurePosixPath(shard)
        kind = whole.suffix.removeprefix(".")
        if place.is_absolute() or ".." in place.parts or place.suffix != whole.suffix:
            raise NapoBenchError(
                f"{index} names {shard!r:.120}; a {kind} file below its own folder is expected.",
                f"Weights are loaded from {kind} files alone, and from no other folder. {FETCH_AGAIN}",
            )
        if not files.is_file(folder / shard):
            raise NapoBenchError(f"{folder / shard!s:.400} is missing; {index.name} names it.", FETCH_AGAIN)
    return [folder / shard for shard in shards]


def skeleton(folder: Path, config: Any) -> Any:
    """The model without memory, on the meta device, after every stored weight was matched to a weight of the model.

    Only the headers of the weights are read. transformers maps the stored names to those of the model.

    Args:
        folder: Folder of the weights.
        config: The model's configuration.

    Returns:
        The model; None if only loading can tell (quantized weights, or code that the checkpoint brings).

    Raises:
        NapoBenchError: weights are missing, unknown to the model, or of another shape. The error names five of each
            kind.
    """
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING or hasattr(config, "quantization_config"):
        return None
    stored = stored_shapes(weight_files(folder))
    of_family: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    with _quiet():
        model, loading = of_family.from_pretrained(
            None,
            config=config,
            state_dict=stored,
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    require_landed(folder, loading, stored)
    return model


def require_image_features(name: str, processor: Any, config: Any, base: Any) -> None:
    """Compare the number of image tokens that the processor writes with the number of image features that the model
    computes.

    In a family whose features cannot be counted without weights, only an answer shows a difference.

    Args:
        name: Name of the checkpoint, for messages.
        processor: Processor of the checkpoint.
        config: The model's configuration.
        base: Model of `skeleton`.

    Raises:
        NapoBenchError: the numbers differ, or the images do not have the size of the vision tower's images.
    """
    import torch
    from PIL import Image

    if not family_of(config).counts_features:
        return
    dtype = next(base.parameters()).dtype
    inputs = processor(text=[str(processor.image_token)], images=[[Image.new("RGB", (48, 32))]], return_tensors="pt")
    written = int((inputs["input_ids"] == config.image_token_id).sum())
    taken = inspect.signature(base.base_model.get_image_features).parameters
    images = {name: value for name, value in inputs.items() if name in taken}
    images |= {name: value.to("meta", dtype) for name, value in images.items() if value.is_floating_point()}
    pixels = next(value for value in images.values() if value.is_floating_point())
    try:
        with torch.no_grad():
            features = base.base_model.get_image_features(**images, return_dict=True).pooler_output
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise NapoBenchError(
            f"{name}: the vision tower (vision_feature_layer {getattr(config, 'vision_feature_layer', None)}) cannot "
            f"take the processor's images of {list(pixels.shape)}: {str(error).splitlines()[0]}",
            SAME_SOURCE,
        ) from None
    made = sum(image.shape[:-1].numel() for image in features)
    if written != made:
        raise NapoBenchError(
            f"{name}: the processor writes {written} image tokens for an image; the model makes {made} features of it.",
            f"Compare patch_size, vision_feature_select_strategy and num_additional_image_tokens of "
            f"processor_config.json with config.json. {SAME_SOURCE}",
        )


def require_landed(folder: Path, loading: Mapping[str, Any], stored: Sequence[str] | Mapping[str, Any] = ()) -> None:
    """Refuse weights that do not match the model exactly.

    Args:
        folder: Folder of the weights.
        loading: transformers' report (`output_loading_info`).
        stored: Names in the files, which tell the layout.

    Raises:
        NapoBenchError: the weights do not match. The error names five weights of each kind.
    """
    missing, unknown = sorted(loading["missing_keys"]), sorted(loading["unexpected_keys"])
    shapes = sorted(
        f"{key} (stored {list(there)}, config.json {list(expected)})"
        for key, there, expected in loading["mismatched_keys"]
    )
    found = [
        f"{what} ({len(keys)}): {_first(keys)}"
        for what, keys in (
            ("missing weights of the model", missing),
            ("stored weights that the model does not know", unknown),
            ("weights of another shape", shapes),
        )
        if keys
    ]
    if not found:
        return
    original = any(part in key for key in [*stored, *unknown] for part in _ORIGINAL_NAMES)
    if original:
        hint = _CONVERTED
    elif missing or shapes:
        hint = f"The checkpoint is incomplete, or its config.json is another model's. {FETCH_AGAIN}"
    else:
        hint = "config.json is another model's, or the files hold weights of something else: remove those."
    raise NapoBenchError(f"{folder}: {'; '.join(found)}.", hint)


def require_adapter(folder: Path, base: Any) -> None:
    """Try a PEFT adapter on the skeleton of its base. The skeleton is changed.

    Args:
        folder: Folder of the adapter.
        base: Model of `skeleton`.

    Raises:
        NapoBenchError: a weight of the adapter matches no weight of the base, has another shape, or is missing.
    """
    from peft import PeftConfig, PeftModel

    settings = PeftConfig.from_pretrained(str(folder))
    settings.inference_mode = True
    # Names of modules in adapter_config.json may be regular expressions.
    with at_most(f"Matching the names in {folder / 'adapter_config.json'}", CHECK_SECONDS), _adapter_matched(folder):
        adapted = PeftModel(base, settings, low_cpu_mem_usage=True)
        result = adapted.load_adapter(str(folder), "default", torch_device="cpu", low_cpu_mem_usage=True)
    _require_adapter_landed(folder, result)


def with_adapter(folder: Path, base: Any, settings: Any, state: Mapping[str, Any]) -> Any:
    """A model with a PEFT adapter whose weights were read already.

    Args:
        folder: Folder of the adapter, for messages.
        base: The model without the adapter.
        settings: PEFT's configuration of the adapter.
        state: PEFT's name -> weight.

    Raises:
        NapoBenchError: a weight of the adapter matches no weight of the base, has another shape, or is missing.
    """
    from peft import PeftModel, set_peft_model_state_dict

    with _adapter_matched(folder):
        adapted = PeftModel(base, settings, low_cpu_mem_usage=True)
        result = set_peft_model_state_dict(adapted, dict(state), low_cpu_mem_usage=True)
    missing = [key for key in result.missing_keys if "lora_" in key]
    _require_adapter_landed(folder, SimpleNamespace(unexpected_keys=result.unexpected_keys, missing_keys=missing))
    return adapted


@contextmanager
def _adapter_matched(folder: Path) -> Iterator[None]:
    """Turn what PEFT raises about weights that are missing or of another shape into one message."""
    try:
        yield
    except KeyError as error:
        raise NapoBenchError(
            f"{folder}: the weight {error} that adapter_config.json asks for is missing.", _other_base(folder)
        ) from None
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        if not lines:
            raise
        raise NapoBenchError(
            f"{folder}: {len(lines)} weights of the adapter have another shape than its base: {_first(lines, '; ')}",
            _other_base(folder),
        ) from None


def _require_adapter_landed(folder: Path, result: Any) -> None:
    if result.unexpected_keys:
        raise NapoBenchError(
            f"{folder}: {len(result.unexpected_keys)} weights of the adapter have no place in its base: "
            f"{_first(sorted(result.unexpected_keys))}.",
            _other_base(folder),
        )
    require_no_gap(folder, result.missing_keys)


def require_no_gap(folder: Path, missing: Iterable[str]) -> None:
    """Raises NapoBenchError if weights of an adapter are missing. The error names five weights."""
    names = sorted(missing)
    if names:
        raise NapoBenchError(
            f"{folder}: {len(names)} weights that adapter_config.json asks for are missing: {_first(names)}.",
            _other_base(folder),
        )


def _other_base(folder: Path) -> str:
    return f"The adapter is another base's, or was saved in another layout: see {folder / 'adapter_config.json'}."


def require_whole_adapter(folder: Path) -> None:
    """Raises NapoBenchError if a pickle beside the adapter contains trained weights, which would be left out."""
    for name in _BESIDE_AN_ADAPTER:
        if (folder / name).is_file():
            raise NapoBenchError(
                f"{folder / name} holds weights that were trained beside the adapter; they are a pickle and would be "
                "left out.",
                "Merge the adapter and these weights into the base with the code that trained them, and give the "
                "merged checkpoint in the layout of transformers.",
            )


def require_finite(where: Path, model: Any) -> None:
    """Refuse NaN and infinity among the loaded weights, in one pass over them.

    Args:
        where: Files of the weights, for the message.
        model: Loaded model, in the type of its computation.

    Raises:
        NapoBenchError: a weight is not finite. The error names five weights and the type.
    """
    import torch

    broken = [
        name
        for name, weight in model.named_parameters()
        if weight.is_floating_point()
        and weight.numel()
        # isfinite makes a copy of the weight. The smallest and largest value need no copy.
        and not torch.isfinite(torch.stack(torch.aminmax(weight.detach()))).all()
    ]
    if broken:
        dtype = str(model.get_parameter(broken[0]).dtype).removeprefix("torch.")
        larger = " A weight above 65504 is infinite in float16: try --dtype bfloat16." if dtype == "float16" else ""
        raise NapoBenchError(
            f"{where}: NaN or infinity in {dtype} in these weights ({len(broken)}): {_first(broken)}.",
            f"Fetch the checkpoint again, or train it again with a lower learning rate.{larger}",
        )


def _says(folder: Path, field: str) -> bool:
    """Whether a file of the processor has a field."""
    return any(field in files.read_json(folder / name) for name in PROCESSOR_FILES if (folder / name).is_file())


def stored_shapes(paths: Sequence[Path]) -> dict[str, Any]:
    """Name -> tensor without memory, for every stored weight."""
    import torch
    from safetensors import SafetensorError, safe_open

    stored = {}
    for path in paths:
        try:
            with safe_open(path, "pt") as weights:
                for name in weights.keys():  # noqa: SIM118
                    weight = weights.get_slice(name)
                    if weight.get_dtype() in _INTEGERS and name.endswith(("weight", "bias")):
                        raise NapoBenchError(
                            f"{path}: the weight {name} is stored as {weight.get_dtype()}, and config.json has no "
                            "quantization_config that says how to read it.",
                            FETCH_AGAIN,
                        )
                    stored[name] = torch.empty(weight.get_shape(), device="meta")
        except (OSError, SafetensorError) as error:
            raise NapoBenchError(f"{path} cannot be read as safetensors: {error}.", FETCH_AGAIN) from None
    return stored


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and its report of the weights off the terminal. napo-bench's messages say the same."""
    from transformers.utils import logging

    library: Any = logging
    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()


def _first(items: Sequence[str], separator: str = ", ") -> str:
    more = f"{separator}and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return separator.join(items[:_SHOWN]) + more

"""The folder of a checkpoint, local or of the hub, and the files of it that are read."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.names import TRAINING
from napo_bench.models import soundness
from napo_bench.models.explained import first_line
from napo_bench.models.original_llava.weights import BESIDE, PICKLED

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_FILES = (
    *soundness.PROCESSOR_FILES,
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "*token*.json",
    "*.model",
    "vocab*",
    "merges.txt",
    "chat_template*",
    "*.py",
)
_FETCHED_WEIGHTS = ("model*.safetensors", soundness.ADAPTER_WEIGHTS)
_GIVE_ONE = "Give the folder of a checkpoint, or the name of one on the Hugging Face hub."


def folder_of(name: str, pickled: bool = False, weights: bool = True) -> Path:
    """The local folder of a checkpoint. A checkpoint on the hub is fetched into the hub's cache.

    Args:
        name: A local folder or a hub name.
        pickled: Fetch weights that are no safetensors too, if there are no safetensors.
        weights: Fetch weights.
    """
    if not name.strip():
        raise NapoBenchError("The name of the checkpoint is empty.", _GIVE_ONE)
    path = Path(name)
    if path.is_dir():
        return path
    if path.is_file():
        _require_no_gguf([path.name], name, path.parent)
        raise NapoBenchError(f"{name} is a file; the folder of a checkpoint is expected.", f"Try {path.parent}")
    if not may_be_on_hub(name):
        raise NapoBenchError(f"{name} does not exist.", _GIVE_ONE)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    wanted: tuple[str, ...] = (*_FILES, TRAINING, *(_FETCHED_WEIGHTS if weights else ()))
    if pickled and weights:
        wanted = (*wanted, *BESIDE)
        if not any(path for pattern in _FETCHED_WEIGHTS for path in folder_of(name).glob(pattern)):
            wanted = (*wanted, *PICKLED)
    try:
        return Path(snapshot_download(name, allow_patterns=list(wanted), ignore_patterns=["*/*"]))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise NapoBenchError(
            f"{name} is no folder here, and cannot be fetched from the Hugging Face hub: {first_line(error)}",
            "Check the name and the network (a gated checkpoint needs `hf auth login`), or give a local folder.",
        ) from None


def may_be_on_hub(name: str) -> bool:
    """Whether a name that is no file here can be one of the hub: "name" or "org/name"."""
    path = Path(name)
    return not path.is_absolute() and not name.startswith((".", "~")) and len(path.parts) <= 2


def require_no_checkpoint(out: Path) -> None:
    """Refuse an output folder that holds a checkpoint: a result beside its files would become a part of it.

    Raises:
        NapoBenchError: the folder has the file of a model or of an adapter.
    """
    for name in ("config.json", "adapter_config.json"):
        if (out / name).is_file():
            raise NapoBenchError(
                f"{out} is the folder of a checkpoint ({name}); results need a folder of their own.",
                f"For example --out {out / 'run'}",
            )


def own_files(folder: Path) -> list[Path]:
    """The files of a checkpoint that an answer depends on, beside the weights."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in _FILES)
    ]


def weight_files(folder: Path, name: str = "") -> list[Path]:
    """The files that the weights of a model or of an adapter are loaded from. The fingerprint is of these files.

    Args:
        folder: Folder of the model or of the adapter.
        name: The folder's name on the hub, for the message about weights that were not fetched.

    Raises:
        NapoBenchError: there are none, one is missing or no safetensors, or an index names one outside the folder.
    """
    is_adapter = (folder / "adapter_config.json").is_file()
    one = folder / (soundness.ADAPTER_WEIGHTS if is_adapter else soundness.WEIGHTS)
    if one.is_file():
        return [one]
    if not is_adapter and (folder / soundness.INDEX).is_file():
        return soundness.weight_files(folder)
    there = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if name and not Path(name).is_dir():
        there += _published(name)
    _require_no_gguf(there, name or str(folder), folder)
    pickles = sorted(file for file in there if any(fnmatch(file, pattern) for pattern in _PICKLES))
    if pickles:
        raise NapoBenchError(
            f"{name or folder} holds its weights as pickle only ({pickles[0]}), and loading a pickle can run any code.",
            "Give a checkpoint in safetensors: most on the hub have one, and a training writes one with "
            "save_pretrained. Convert a pickle only with the code that wrote it.",
        )
    raise NapoBenchError(f"{name or folder} holds no weights (no {one.name}).", _GIVE_ONE)


def _published(name: str) -> list[str]:
    """The names of a checkpoint's files on the hub; none if the hub cannot be asked."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return list(HfApi().list_repo_files(name))
    except (OSError, ValueError, HfHubHTTPError):
        return []


def _require_no_gguf(there: Iterable[str], name: str, folder: Path) -> None:
    """Raises NapoBenchError if the weights of a checkpoint are a file of llama.cpp."""
    found = sorted(file for file in there if file.lower().endswith(".gguf"))
    if not found:
        return
    raise NapoBenchError(
        f"{name}: {found[0]} is a GGUF file, the format of llama.cpp; weights are loaded from safetensors alone.",
        "Give the checkpoint in safetensors that the file was converted from. Or serve the file: "
        f"llama-server -m {folder / found[0]} --mmproj PROJECTOR.gguf, and "
        "napo-bench eval --ckpt NAME --api-base-url http://127.0.0.1:8080/v1",
    )

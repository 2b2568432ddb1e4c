"""The fields of a PEFT adapter's adapter_config.json."""

from __future__ import annotations

from pathlib import Path

from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError

_NUMBER: tuple[type, ...] = (int, float)
_ADAPTER_FIELDS: dict[str, tuple[type, ...]] = {
    "r": (int,),
    "lora_alpha": _NUMBER,
    "lora_dropout": _NUMBER,
    "target_modules": (list, str),
    "rank_pattern": (dict,),
    "alpha_pattern": (dict,),
    "use_rslora": (bool,),
    "use_dora": (bool,),
    "fan_in_fan_out": (bool,),
}
"""Field of adapter_config.json -> the types that PEFT computes with. PEFT itself does not check them."""

_MAY_BE_NULL = ("target_modules", "rank_pattern", "alpha_pattern")
_PATTERNS = {"rank_pattern": "r", "alpha_pattern": "lora_alpha"}
"""Field that has a value for each layer -> the field that has the value for all other layers."""


def require_fields(folder: Path) -> None:
    """Check the types of the numbers and switches of adapter_config.json in the folder of an adapter.

    Raises:
        NapoBenchError: a field has another type.
    """
    where = folder / "adapter_config.json"
    said = files.read_json(where)
    try:
        for field, kinds in _ADAPTER_FIELDS.items():
            if field in said and not (said[field] is None and field in _MAY_BE_NULL):
                files.field(said, field, kinds, str(where))
        for pattern, single in _PATTERNS.items():
            of_layers = said.get(pattern) or {}
            for layer in of_layers:
                files.field(of_layers, layer, _ADAPTER_FIELDS[single], f"{where}, {pattern}")
    except NapoBenchError as error:
        raise NapoBenchError(error.message, "Correct the field, or fetch the adapter again.") from None

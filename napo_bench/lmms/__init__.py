"""The side door to lmms-eval: napo-bench's models and tasks there. lmms-eval finds the models by the entry point group
`lmms_eval.models`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def manifests() -> list[ModelManifest]:
    """The models that lmms-eval registers: `napo_hf`, `napo_api` and `napo_engine`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [
        ModelManifest("napo_hf", simple_class_path="napo_bench.lmms.models.NapoHF"),
        ModelManifest("napo_api", simple_class_path="napo_bench.lmms.models.NapoAPI"),
        ModelManifest("napo_engine", simple_class_path="napo_bench.lmms.models.NapoEngine"),
    ]

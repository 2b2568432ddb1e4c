"""The engines by name: those of this folder, and the entry points `napo_bench.engines` of other distributions."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint

from napo_bench.core import plugins
from napo_bench.core.errors import NapoBenchError, unknown_name
from napo_bench.engines.engine import Engine

GROUP = "napo_bench.engines"
"""The entry point group of plug-ins: `name = "package:EngineClass"`."""

_OWN = {
    name: EntryPoint(name, f"napo_bench.engines.{place}", GROUP)
    for name, place in {"hf": "hf:HFEngine", "vllm": "vllm_engine:VLLMEngine", "api": "api:APIEngine"}.items()
}


def engine_names() -> list[str]:
    """The names of all engines, without an import of an engine.

    Raises:
        NapoBenchError: a plug-in has a name against the rule, or the name of another engine.
    """
    return [*_OWN, *plugins.installed(GROUP, "engine", tuple(_OWN))]


@cache
def engine_named(name: str) -> type[Engine]:
    """The class of an engine.

    Raises:
        NapoBenchError: there is no such engine, or its plug-in cannot be imported or is no engine.
    """
    if name in _OWN:
        own: type[Engine] = _OWN[name].load()
        return own
    found = plugins.installed(GROUP, "engine", tuple(_OWN))
    if name not in found:
        raise unknown_name("engine", name, engine_names(), "--engine")
    return plugins.load(found[name], _as_engine)


def _as_engine(found: object) -> type[Engine]:
    if not isinstance(found, type) or Engine not in found.__mro__:
        raise NapoBenchError(f"a class that extends Engine is expected, {found!r} found.")
    for method in ("open", "generate"):
        if not any(method in vars(base) for base in found.__mro__[: found.__mro__.index(Engine)]):
            raise NapoBenchError(f"the engine {found.__name__} has no method `{method}`.")
    return found

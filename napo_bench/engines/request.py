"""What a request of lmms-eval asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from PIL import Image

from napo_bench.core.errors import NapoBenchError


@dataclass(frozen=True)
class Generation:
    """How an answer is generated.

    Attributes:
        max_new_tokens: An answer ends there at the latest.
        num_beams: 1 is greedy, unless it is sampled.
        do_sample: Draw tokens; the draws are seeded by the request.
        temperature: Of the draws.
        top_p: Of the draws.
        until: An answer ends before the first of these strings.
    """

    max_new_tokens: int = 1024
    num_beams: int = 1
    do_sample: bool = False
    temperature: float | None = None
    top_p: float | None = None
    until: tuple[str, ...] = ()

    @classmethod
    def of(cls, kwargs: Mapping[str, Any]) -> Self:
        """From a task's `generation_kwargs`; what is not of these attributes, or of no effect, is left out."""
        known = {field.name for field in fields(cls)} - {"until"}
        values = {name: value for name, value in kwargs.items() if name in known and value is not None}
        until = kwargs.get("until") or ()
        if not values.get("do_sample"):
            values = {name: value for name, value in values.items() if name not in ("temperature", "top_p")}
        return cls(**values, until=(until,) if isinstance(until, str) else tuple(until))

    def cut(self, text: str) -> str:
        """The text before the first string of `until`, without white space around it."""
        for stop in self.until:
            text = text.partition(stop)[0]
        return text.strip()

    def identity(self) -> dict[str, Any]:
        """As JSON, for the journal."""
        return asdict(self)


@dataclass(frozen=True)
class Asked:
    """One request: a question, its picture if there is one, and how the answer is generated."""

    question: str
    image: Image.Image | None
    generation: Generation


def read_request(request: Any, task_dict: Mapping[str, Any]) -> Asked:
    """What a `generate_until` request asks for.

    Args:
        request: lmms-eval's Instance.
        task_dict: Task -> split -> docs, as lmms-eval gives it to its models.

    Raises:
        NapoBenchError: the request shows something else than one picture.
    """
    question, kwargs, doc_to_visual, doc_id, task, split = request.args
    visuals = (doc_to_visual(task_dict[task][split][doc_id]) if doc_to_visual else None) or []
    if len(visuals) > 1 or not all(isinstance(visual, Image.Image) for visual in visuals):
        shown = ", ".join(type(visual).__name__ for visual in visuals)
        raise NapoBenchError(f"{task}: a request shows {shown}; one picture or none is expected.")
    return Asked(question, visuals[0] if visuals else None, Generation.of(kwargs))

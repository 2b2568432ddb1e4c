"""The engines as models of lmms-eval: `napo_hf`, `napo_api`, and `napo_engine` for any engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from PIL import Image

from napo_bench.core import caches
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal
from napo_bench.core.progress import Progress
from napo_bench.engines import BATCH_SIZE, read_batch_size
from napo_bench.engines.answering import Answering
from napo_bench.engines.engine import Engine, EngineOptions
from napo_bench.engines.registry import engine_named
from napo_bench.engines.request import Generation, Picture, Request


class EngineModel(lmms):  # type: ignore[misc]
    """An engine as a model of lmms-eval. lmms-eval distributes the requests over the processes.

    Args:
        engine: Engine that answers.
        journal: Path of the journal of answers, including thoughts; None is in the user's cache folder.
        progress: Progress of the answering; None draws a bar.
    """

    is_simple = True

    def __init__(self, engine: Engine, journal: str | Path | None, progress: Progress | None = None) -> None:
        super().__init__()
        self.batch_size = engine.batch_size * engine.in_flight
        opened = Journal(Path(journal)) if journal else caches.KeptJournal("responses")
        self.answering = Answering(engine, opened, progress)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The answer to each request, in the order of the requests."""
        read = (read_request(request, self.task_dict) for request in requests)
        return list(self.answering.answer(read, len(requests)))

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not offered."""
        raise NapoBenchError("napo-bench answers single questions; this task asks in several rounds.")

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not offered."""
        raise NapoBenchError("napo-bench generates answers; this task asks for log-likelihoods.")


class NapoHF(EngineModel):
    """`napo_hf`: the engine `hf`. See HFEngine for the arguments, and EngineModel for `journal`."""

    def __init__(
        self, pretrained: str, batch_size: int | str = BATCH_SIZE, journal: str | Path | None = None, **options: Any
    ) -> None:
        from napo_bench.engines.hf import HFEngine

        engine = HFEngine(pretrained, read_batch_size(batch_size), **options)
        super().__init__(engine, journal)
        self.device = engine.device


class NapoAPI(EngineModel):
    """`napo_api`: the engine `api`. See APIEngine for the arguments; `batch_size` is its `in_flight`."""

    def __init__(
        self, model: str, batch_size: int | str = BATCH_SIZE, journal: str | Path | None = None, **options: Any
    ) -> None:
        from napo_bench.engines.api import APIEngine

        super().__init__(APIEngine(model, in_flight=read_batch_size(batch_size), **options), journal)


class NapoEngine(EngineModel):
    """`napo_engine`: the engine of a name, for example of a plug-in. See EngineOptions for further arguments."""

    def __init__(
        self,
        engine: str,
        checkpoint: str,
        batch_size: int | str = BATCH_SIZE,
        journal: str | Path | None = None,
        **options: Any,
    ) -> None:
        opened = engine_named(engine).open(checkpoint, EngineOptions(batch_size=read_batch_size(batch_size), **options))
        super().__init__(opened, journal)


def read_request(request: Instance, task_dict: Mapping[str, Any]) -> Request:
    """The request of a `generate_until` instance.

    Args:
        request: Instance of lmms-eval.
        task_dict: Task -> split -> docs, as lmms-eval gives it to its models.

    Raises:
        NapoBenchError: the request does not have exactly one image.
    """
    question, kwargs, doc_to_visual, doc_id, task, split = request.args
    visuals = (doc_to_visual(task_dict[task][split][doc_id]) if doc_to_visual else None) or []
    if len(visuals) > 1 or not all(isinstance(visual, Image.Image) for visual in visuals):
        shown = ", ".join(type(visual).__name__ for visual in visuals)
        raise NapoBenchError(f"{task}: a request shows {shown}; one picture or none is expected.")
    return Request(question, Picture.of(visuals[0]) if visuals else None, Generation.of(kwargs))

"""`napo_api`: any model behind an OpenAI-compatible chat endpoint, as an lmms-eval model."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from PIL import Image

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal
from napo_bench.core.paths import cache_dir
from napo_bench.core.progress import Progress, or_bars
from napo_bench.core.thoughts import DEFAULT_MARKS, NEVER_ENDS, Marks, split_thoughts
from napo_bench.engines import BATCH_SIZE
from napo_bench.engines.answer import ModelAnswer
from napo_bench.engines.chat import NOT_SENT, changed_fields, with_request
from napo_bench.engines.endpoint import MAX_REFUSED, Completion, Endpoint
from napo_bench.engines.request import Asked, Generation, read_request

if TYPE_CHECKING:
    from napo_bench.engines.endpoint import Messages

URL_VARIABLE = "NAPO_BENCH_API_BASE_URL"
KEY_VARIABLES = ("NAPO_BENCH_API_KEY", "OPENAI_API_KEY")

_CUT_OFF = "cut off at the token limit before an answer"
_GREETING = "Reply with the word OK."


class NapoAPI(lmms):  # type: ignore[misc]
    """Asks an endpoint, one chat a request, with the picture as a PNG data URL before the question.

    Answers are journalled by URL, model name, question, picture and request fields, as the model wrote them, thoughts
    included. The weights behind a name cannot be seen: serve retrained ones under another name. A question that the
    endpoint refuses, or whose answer is cut off before it begins, is unanswered and is asked again by the next run.

    Args:
        model: The name to ask for.
        base_url: Up to and including `/v1`; None is NAPO_BENCH_API_BASE_URL, else the `openai` client's default. The
            key is read from NAPO_BENCH_API_KEY, else OPENAI_API_KEY.
        batch_size: Requests in flight at most.
        timeout: Seconds that one request may stay silent.
        max_requests: HTTP requests to send at most, retries included; None is no limit.
        journal: Where answers are kept; None is the user's cache folder.
        request: Further request fields, which are part of what an answer is known by.
        max_refused: Share of the questions that may be refused, see Endpoint.
        thinking_marks: Marks around thoughts, which are no part of an answer.

    Attributes:
        progress: Is told how far it is; None draws a bar.
        changed: Request field that the endpoint did not get as it was asked for -> what became of it.

    Raises:
        NapoBenchError: there is no URL that can be asked, or it needs a key and there is none.
    """

    is_simple = True
    progress: Progress | None = None

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        batch_size: int | str = BATCH_SIZE,
        timeout: float = 120.0,
        max_requests: int | None = None,
        journal: str | Path | None = None,
        request: Mapping[str, Any] | None = None,
        max_refused: float = MAX_REFUSED,
        thinking_marks: Marks = DEFAULT_MARKS,
    ) -> None:
        super().__init__()
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise NapoBenchError(f"The batch size is {batch_size!r}; a whole number from 1 is expected.")
        self._endpoint = Endpoint(
            model=str(model),
            base_url=base_url or os.environ.get(URL_VARIABLE),
            api_key=next((key for name in KEY_VARIABLES if (key := os.environ.get(name, "").strip())), None),
            journal=Journal(Path(journal) if journal else cache_dir() / "responses.sqlite"),
            concurrency=int(batch_size),
            max_requests=max_requests,
            timeout=timeout,
            request=request,
            max_refused=max_refused,
        )
        self.request = dict(request or {})
        self.changed: dict[str, str] = {}
        self._marks = thinking_marks
        self.batch_size = int(batch_size)
        self.fingerprint = f"{self._endpoint.model} at {self._endpoint.url}"

    def reach(self) -> None:
        """Send one short chat. Raises NapoBenchError if the URL, the key, the model or a request field is wrong."""
        self._endpoint.reach([[{"role": "user", "content": _GREETING}]], _settings(Generation(max_new_tokens=16)))

    def settings(self) -> dict[str, Any]:
        """What of the requests can change an answer: the user's fields, and fields of ours that were not sent."""
        left_out = {name: became for name, became in self.changed.items() if became == NOT_SENT}
        return ({"request": self.request} if self.request else {}) | left_out

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The answer to each request, in their order."""
        with or_bars(self.progress) as tell:
            return self._endpoint.map(self._answer, requests, tell)

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not offered."""
        raise NapoBenchError("napo_api answers single questions; this task asks in several rounds.")

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not offered."""
        raise NapoBenchError("napo_api generates answers; this task asks for log-likelihoods.")

    def _answer(self, request: Instance) -> str:
        asked = read_request(request, self.task_dict)
        digest = "" if asked.image is None else _digest(asked.image)
        settings = _settings(asked.generation)
        completion = self._endpoint.complete(
            lambda: _messages(asked),
            identity={"question": asked.question, "image": digest},
            settings=settings,
            is_answer=lambda completion: not self._read(completion, asked.generation).unanswered,
        )
        if not completion.refused:
            self.changed |= changed_fields(with_request(settings, self.request), completion.request)
        return self._read(completion, asked.generation)

    def _read(self, completion: Completion, generation: Generation) -> ModelAnswer:
        if completion.refused:
            return ModelAnswer("", unanswered=completion.refused)
        inside, text = split_thoughts(completion.text, self._marks)
        thoughts = completion.thoughts + inside
        if text is None:
            return ModelAnswer("", thoughts, NEVER_ENDS)
        answer = generation.cut(text)
        return ModelAnswer(answer, thoughts, "" if answer or not completion.cut_off else _CUT_OFF)


def _messages(asked: Asked) -> Messages:
    if asked.image is None:
        return [{"role": "user", "content": asked.question}]
    stream = io.BytesIO()
    asked.image.save(stream, format="PNG")
    url = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": asked.question},
            ],
        }
    ]


def _settings(generation: Generation) -> dict[str, Any]:
    if generation.num_beams > 1:
        raise NapoBenchError(
            f"The generation settings ask for {generation.num_beams} beams; a chat endpoint has no beam search.",
            "Use the generation profile greedy.",
        )
    sampling = {"temperature": generation.temperature, "top_p": generation.top_p} if generation.do_sample else {}
    given = {name: value for name, value in sampling.items() if value is not None}
    return {"max_tokens": generation.max_new_tokens} | (given if generation.do_sample else {"temperature": 0})


def _digest(image: Image.Image) -> str:
    return hashlib.sha256(repr((image.mode, image.size)).encode() + image.tobytes()).hexdigest()

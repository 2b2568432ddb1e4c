"""The engine `api`: any model behind an OpenAI-compatible chat endpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self

from napo_bench.core.encoded import EncodedImage
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.thoughts import DEFAULT_MARKS, Marks
from napo_bench.engines import BATCH_SIZE
from napo_bench.engines.answer import Completion, ModelAnswer
from napo_bench.engines.chat import NOT_SENT, changed_fields
from napo_bench.engines.endpoint import MAX_REFUSED, Endpoint
from napo_bench.engines.engine import Engine, EngineOptions, Prompt
from napo_bench.engines.prompt import Seen
from napo_bench.engines.request import Generation, Picture, parts_of

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionContentPartParam

    from napo_bench.engines.endpoint import Messages

URL_VARIABLE = "NAPO_BENCH_API_BASE_URL"
KEY_VARIABLES = ("NAPO_BENCH_API_KEY", "OPENAI_API_KEY")

_GREETING = "Reply with the word OK."
_VARIABLES = "chat_template_kwargs"


class APIEngine(Engine):
    """Asks an endpoint: one chat a prompt, with the image as a data URL before the question, or with several images at
    their places. See EncodedImage for the bytes of an image.

    The weights of a served model are unknown: serve retrained weights under another name. A question that the endpoint
    refuses, or whose answer is cut off before it begins, is unanswered, and the next run asks again.

    Args:
        model: Name of the model.
        base_url: URL up to and including `/v1`; None is NAPO_BENCH_API_BASE_URL, else the `openai` client's default.
            The key is read from NAPO_BENCH_API_KEY, else OPENAI_API_KEY.
        in_flight: Maximum number of requests in flight.
        timeout: Maximum time without data of one request, in seconds.
        request: Further request fields, which are part of an answer's key.
        max_refused: Share of the questions that may be refused, see Endpoint.
        thinking_marks: Marks around thoughts, which are no part of an answer.

    Attributes:
        changed: Request field that was changed for the endpoint -> the change.

    Raises:
        NapoBenchError: the URL cannot be used, or a key is needed and missing.
    """

    name = "api"
    takes = frozenset(
        {"batch_size", "api_base_url", "request", "max_refused", "thinking_marks", "chat_template_kwargs"}
    )
    batch_size = 1
    asks_again = True

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        in_flight: int = BATCH_SIZE,
        timeout: float = 120.0,
        request: Mapping[str, Any] | None = None,
        max_refused: float = MAX_REFUSED,
        thinking_marks: Marks = DEFAULT_MARKS,
    ) -> None:
        self._endpoint = Endpoint(
            model=str(model),
            base_url=base_url or os.environ.get(URL_VARIABLE),
            api_key=next((key for name in KEY_VARIABLES if (key := os.environ.get(name, "").strip())), None),
            timeout=timeout,
            request=request,
            max_refused=max_refused,
        )
        self.request = dict(request or {})
        self.changed: dict[str, str] = {}
        self._media_types = set[str]()
        self.in_flight = in_flight
        self.thinking_marks = thinking_marks
        self.fingerprint = f"{self._endpoint.model} at {self._endpoint.url}"

    @classmethod
    def open(cls, checkpoint: str, options: EngineOptions) -> Self:
        """See Engine. The checkpoint is the name of a model."""
        return cls(
            checkpoint,
            options.api_base_url,
            options.batch_size,
            request=_with_variables(options),
            max_refused=options.max_refused,
            thinking_marks=options.thinking_marks,
        )

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """See Engine. The completion of a refused prompt contains the reason."""
        return [self._endpoint.ask(_messages(prompt), _settings(prompt.generation)) for prompt in prompts]

    def look(self, picture: Picture) -> Seen:
        """See Engine: the image as it is sent."""
        encoded = picture.encoded()
        self._media_types.add(encoded.media_type)
        return Seen(encoded.digest, encoded=encoded)

    def require_pictures(self, count: int) -> None:
        """See PromptWriter: the endpoint says itself if there are too many."""
        return

    def sent(self, prompt: Prompt) -> dict[str, Any]:
        """See PromptWriter: the messages, with the digest of the images in place of the images."""
        return {"messages": _messages(prompt, lambda image: image.name)}

    def identity(self, prompt: Prompt) -> dict[str, Any]:
        """See Engine. Raises NapoBenchError for generation settings that no endpoint has."""
        chat = {"question": prompt.text, "image": prompt.digest}
        return self._endpoint.identity(chat, _settings(prompt.generation))

    def asking(self, count: int) -> AbstractContextManager[Callable[[], None]]:
        """See Engine and Endpoint."""
        return self._endpoint.asking(count)

    def read(self, prompt: Prompt, completion: Completion) -> ModelAnswer:
        """See Engine. The answer has the names that the endpoint reported, and `settings` the fields that it did not
        get.
        """
        if completion.request:
            self.changed |= changed_fields(self._endpoint.fields(_settings(prompt.generation)), completion.request)
        answer = super().read(prompt, completion)
        if not answer.unanswered:
            answer.reported_model, answer.fingerprint = completion.model, completion.fingerprint
        return answer

    def reach(self) -> None:
        """Send one short chat. Raises NapoBenchError if the URL, the key, the model or a request field is wrong."""
        self._endpoint.reach([[{"role": "user", "content": _GREETING}]], _settings(Generation(max_new_tokens=16)))

    def provenance(self) -> dict[str, Any]:
        """See Engine."""
        images = {"images": sorted(self._media_types)} if self._media_types else {}
        return {"endpoint": self.fingerprint, "request": self.request, "changed": self.changed, **images}

    def settings(self) -> dict[str, Any]:
        """The user's request fields, and the fields of napo-bench that were not sent."""
        left_out = {name: became for name, became in self.changed.items() if became == NOT_SENT}
        request = {name: value for name, value in self.request.items() if name != _VARIABLES}
        variables = {name: value for name, value in self.request.items() if name == _VARIABLES}
        return ({"request": request} if request else {}) | variables | left_out


def _with_variables(options: EngineOptions) -> dict[str, Any]:
    """The user's request fields, with the variables of the chat template in the field that vLLM and SGLang read."""
    if not options.chat_template_kwargs:
        return dict(options.request)
    if _VARIABLES in options.request:
        raise NapoBenchError(
            f"--request and --chat-template-kwargs both set the field {_VARIABLES}.", "Leave one of them out."
        )
    return {**options.request, _VARIABLES: dict(options.chat_template_kwargs)}


def _messages(prompt: Prompt, url_of: Callable[[EncodedImage], str] = lambda image: image.url) -> Messages:
    """One chat: the images and the question, or the parts of the question with the images between.

    Args:
        prompt: The prompt.
        url_of: Function from an image to its URL.
    """
    if not prompt.encoded:
        return [{"role": "user", "content": prompt.text}]
    several = prompt.image_count > 1
    parts = parts_of(prompt.text, prompt.image_count) if several else [None, prompt.text]
    images = iter(prompt.encoded)
    content: list[ChatCompletionContentPartParam] = [
        {"type": "image_url", "image_url": {"url": url_of(next(images))}}
        if part is None
        else {"type": "text", "text": part}
        for part in parts
    ]
    return [{"role": "user", "content": content}]


def _settings(generation: Generation) -> dict[str, Any]:
    if generation.num_beams > 1:
        raise NapoBenchError(
            f"The generation settings ask for {generation.num_beams} beams; a chat endpoint has no beam search.",
            "Use the generation profile greedy.",
        )
    sampling = {"temperature": generation.temperature, "top_p": generation.top_p} if generation.do_sample else {}
    given = {name: value for name, value in sampling.items() if value is not None}
    return {"max_tokens": generation.max_new_tokens} | (given if generation.do_sample else {"temperature": 0})

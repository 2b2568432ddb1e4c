"""The oracle judge: a local server with OpenAI's interface that rates MMHal-Bench answers by the content of the image.

The oracle reads only the filled judge template, so an answer takes the same path to its rating as with a real judge.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from napo_bench.micro.benchmarks import JUDGE_TEMPLATE
from napo_bench.micro.language import NUMBERS, SINGULAR, one_of, understand
from napo_bench.micro.truth import claims, holds
from napo_bench.micro.world import COLORS, PLACES, SIDES, Group, Scene

MODEL = "micro-oracle-1"

_PROMPT = re.compile(re.escape(JUDGE_TEMPLATE).replace(re.escape("{}"), "(.*?)"), re.DOTALL)
_ITEM = re.compile(rf"{one_of(NUMBERS[1:])} {one_of(COLORS)} {one_of(SINGULAR)}(?: looking {one_of(SIDES)})?")
_INFORMATIVE = ("not informative", "somewhat informative", "very informative")


def rate(content: str, question: str, gt_answer: str, answer: str) -> tuple[int, str]:
    """The rating of an answer by MMHal-Bench's rubric, and the reason.

    An answer is very informative if it contains every claim of the right answer, and somewhat informative if it
    contains some of them. The rating is 6 if the answer is right about more than the right answer.

    Args:
        content: Content of the image, as in the judge template.
        question: The prompt.
        gt_answer: The right answer.
        answer: The answer to rate.

    Raises:
        ValueError: the question or the content is not of the micro world.
    """
    asked, scene = understand(question), _scene(content)
    key, made = claims(gt_answer, asked), claims(answer, asked)
    true = {claim for claim in made if claim in key or (claim[0] != "left" and holds(claim, scene))}
    false = sorted(made - true)
    informative = 2 if key <= true else 1 if key & true else 0
    said = f"The answer is {_INFORMATIVE[informative]}"
    if false:
        return informative, f"{said}, and claims what is not so: {'; '.join(' '.join(claim) for claim in false)}."
    more = informative == 2 and bool(true - key)
    return 3 + informative + more, f"{said}, and claims nothing that is not so."


def _scene(content: str) -> Scene:
    place, _, rest = content.partition(", ")
    groups = tuple(
        Group(SINGULAR[name], color, tuple(range(NUMBERS.index(number))), side or "")
        for number, color, name, side in _ITEM.findall(rest)
    )
    if place not in PLACES or not groups:
        raise ValueError(f"not the content of a micro picture: {content!r}")
    return Scene(place, groups, "", 0)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._reply(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = request["messages"][-1]["content"]
        found = _PROMPT.fullmatch(message)
        try:
            if not found:
                raise ValueError("not the judge template of the micro world")
            rating, reason = rate(*found.groups())
        except ValueError as error:
            self._reply(400, {"error": {"message": str(error), "type": "invalid_request_error"}})
            return
        reply = f"{reason}\nRating: {rating}"
        usage = {"prompt_tokens": len(message.split()), "completion_tokens": len(reply.split())}
        self._reply(
            200,
            {
                "id": "micro-oracle",
                "object": "chat.completion",
                "created": 0,
                "model": MODEL,
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply}}],
                "usage": usage | {"total_tokens": sum(usage.values())},
            },
        )

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def oracle_judge() -> Iterator[str]:
    """Run the oracle on a free local port: yield its base URL, and stop the server at the end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

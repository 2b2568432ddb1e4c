"""Requests with their images, a window at a time.

Threads open the images of the next requests while a window is answered. An image of consecutive requests is opened,
prepared and hashed once. A window ends when it has enough requests, or when its images need more memory than the
budget, and does not end between two requests about one image.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from napo_bench.core.errors import NapoBenchError
from napo_bench.engines.prompt import Prompt, PromptWriter, Seen
from napo_bench.engines.request import Picture, Request

BUDGET = 128 * 2**20
"""Bytes of the images of a window. One image may be larger."""

_THREADS = 2  # each opens one image ahead, so that images of any size fit into memory


Window = list[tuple[Request, list[Seen]]]
"""Requests, each with all of its images."""


def prompt_of(writer: PromptWriter, request: Request, seen: Sequence[Seen], texts: dict[Hashable, str]) -> Prompt:
    """The prompt of a request, without a key.

    Args:
        writer: Engine, or what writes its prompts.
        request: The request.
        seen: The images of the request.
        texts: Texts of questions that were written before. A new text is added.
    """
    asked = request.question, len(seen)
    if asked not in texts:
        several = len(seen) > 1
        texts[asked] = writer.interleaved(request.parts) if several else writer.text(request.question, bool(seen))
    images = [one.image for one in seen if one.image is not None]
    encoded = tuple(one.encoded for one in seen if one.encoded is not None)
    digests = [one.digest for one in seen]
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    first, further = (images[0], tuple(images[1:])) if images else (None, ())
    return Prompt(texts[asked], first, digest if seen else "", request.generation, further=further, encoded=encoded)


def windows(requests: Iterable[Request], look: Callable[[Picture], Seen], size: int) -> Iterator[Window]:
    """The requests in their order, in windows.

    Args:
        requests: Requests, which are drawn shortly before their window.
        look: Function that opens, prepares and hashes an image, which is called in several threads.
        size: Number of requests of a window. A window may have up to twice the number if they are about one image.

    Raises:
        NapoBenchError: an image cannot be read. The requests before it are in a window already.
    """
    remaining = iter(requests)
    ahead: deque[Request] = deque()
    opening: dict[Hashable, Future[Seen]] = {}
    window: Window = []
    held: dict[Hashable, Seen] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        while True:
            while len(opening) < _THREADS and len(ahead) < size and (drawn := next(remaining, None)) is not None:
                ahead.append(drawn)
                for picture in drawn.pictures:
                    if picture.name not in held | opening:
                        opening[picture.name] = pool.submit(look, picture)
            if not ahead:
                break
            request = ahead.popleft()
            new = {picture.name: picture for picture in request.pictures if picture.name not in held}
            try:
                seen = {name: (opening.pop(name, None) or pool.submit(look, one)).result() for name, one in new.items()}
            except NapoBenchError:
                if window:
                    yield window
                raise
            of_request = {picture.name: held.get(picture.name) or seen[picture.name] for picture in request.pictures}
            heavy = sum(one.bytes for one in {**held, **seen}.values()) > BUDGET
            is_end = len(window) >= size or heavy if new or not request.pictures else len(window) >= 2 * size
            if window and is_end:
                full, window, held = window, [], {}
                yield full  # the caller empties it: its images are not in memory with those of the next window
            window.append((request, [of_request[picture.name] for picture in request.pictures]))
            held |= of_request
    if window:
        yield window

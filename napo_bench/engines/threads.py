"""Several requests in flight, each in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from napo_bench.core.errors import NapoBenchError

Item = TypeVar("Item")
Result = TypeVar("Result")

_GOODBYE_SECONDS = 10.0  # for requests in flight when the user ends the command


class StoppedError(Exception):
    """Another item failed first."""


def in_flight(
    function: Callable[[Item], Result], items: Iterable[Item], count: int, stop: Callable[[], None]
) -> Iterator[tuple[Item, Result]]:
    """Each item with `function(item)`, in the order in which the items are done.

    After the first failure no item begins. Items in flight are still awaited and returned.

    Args:
        function: Function, which is called in several threads. After `stop`, a call ends soon, with a result or a
            StoppedError.
        items: Items, which are drawn shortly before a thread is free.
        count: Number of simultaneous calls.
        stop: Function, which is called at the first failure, and when the caller ends early.
    """
    pool = ThreadPoolExecutor(count)
    flying: dict[Future[Result], Item] = {}
    errors: list[BaseException] = []

    def landed() -> Iterator[tuple[Item, Result]]:
        for future in wait(flying, return_when=FIRST_COMPLETED).done:
            item, error = flying.pop(future), future.exception()
            if error is None:
                yield item, future.result()
            else:
                stop()
                errors.append(error)

    try:
        for item in items:
            if errors:
                break
            flying[pool.submit(function, item)] = item
            while len(flying) >= 2 * count:  # one more item for each thread, so that no thread waits
                yield from landed()
        while flying:
            yield from landed()
    except BaseException:
        stop()
        wait(flying, _GOODBYE_SECONDS)
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    for kind in (NapoBenchError, Exception, BaseException):
        for error in errors:
            if isinstance(error, kind) and not isinstance(error, StoppedError):
                raise error


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items in their order. A thread draws the next item while the caller works on the one before."""
    drawn = iter(items)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(lambda: next(drawn, None))
        while (item := coming.result()) is not None:
            coming = pool.submit(lambda: next(drawn, None))
            yield item

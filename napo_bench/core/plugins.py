"""Objects of other distributions, which entry points name: benchmarks and engines."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Protocol, TypeVar

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.names import require_name

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Named(Protocol):
    """An object with a name."""

    @property
    def name(self) -> str:
        """Name, which is that of the entry point too."""
        ...


Kind = TypeVar("Kind", bound=Named)


@cache
def installed(group: str, kind: str, own: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Name -> entry point of a group, without an import.

    Args:
        group: Group of the entry points.
        kind: Kind of the objects, for messages.
        own: Names that napo-bench uses itself.

    Raises:
        NapoBenchError: a name is against the rule for names, or is taken. The error names the distribution.
    """
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        try:
            require_name(kind, point.name)
        except NapoBenchError as error:
            raise NapoBenchError(f"{_where(point)}: {error.message}", _hint(point)) from None
        if point.name in own or (point.name in found and found[point.name].value != point.value):
            other = distribution(found[point.name]) if point.name in found else "napo-bench"
            raise NapoBenchError(
                f"The {kind} {point.name!r} of {distribution(point)} has the name of the one of {other}.",
                f"Rename the entry point in the group {group}, or uninstall one of the two.",
            )
        found[point.name] = point
    return found


def load(point: EntryPoint, read: Callable[[object], Kind]) -> Kind:
    """The object of an entry point.

    Args:
        point: Entry point.
        read: What the entry point names -> the same object, if it is of the right kind; else raises NapoBenchError.

    Raises:
        NapoBenchError: the object cannot be imported, is of another kind, or has another name than the entry point.
            The error names the distribution.
    """
    try:
        found = read(point.load())
    except NapoBenchError as error:
        raise NapoBenchError(f"{_where(point)}: {error.message}", f"{error.hint} {_hint(point)}".strip()) from None
    except (Exception, SystemExit) as error:
        raise NapoBenchError(
            f"{_where(point)} cannot be imported: {type(error).__name__}: {error}.", _hint(point)
        ) from error
    if found.name != point.name:
        raise NapoBenchError(
            f"{_where(point)} calls itself {found.name!r}.", f"Give both the same name. {_hint(point)}"
        )
    return found


def distribution(point: EntryPoint) -> str:
    """The name and version of the distribution with an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"


def _where(point: EntryPoint) -> str:
    return f"The plug-in {point.name!r} ({point.value}) of {distribution(point)}"


def _hint(point: EntryPoint) -> str:
    return f"Repair the plug-in, or go on without it: pip uninstall {point.dist.name if point.dist else point.name}"

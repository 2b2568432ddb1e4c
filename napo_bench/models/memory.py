"""Memory that the C library keeps for the next operation."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt in <malloc.h> of the GNU C library
_LARGEST_KEPT, _MOST_KEPT = 2**26, 2**30


def keep_freed_memory() -> None:
    """Keep freed blocks of less than 64 MB, 1 GB in all, for later allocations of this process.

    By default the GNU C library gives the memory of an activation back to the system after each operation, and the
    system fills the next activation with zeros. With a model on a CPU, a training step with long responses took 7%
    longer. Nothing changes on other systems.
    """
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return
    library.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
    library.mallopt(_TRIM_THRESHOLD, _MOST_KEPT)

"""Memory of a model on a CPU."""

import ctypes
import resource
import sys

import pytest
import torch

from napo_bench.micro.base import base_checkpoint
from napo_bench.models.checkpoint import Checkpoint

PAGES = 9 * 2**10  # of 4 KB, in 36 MB


def new_pages() -> int:
    """Pages that the system gives this process for 36 MB after the process had 48 MB and freed them."""
    torch.ones(3 * 2**22)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**23 + 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="memory of another C library"
)
def test_an_activation_gets_the_memory_of_the_one_before() -> None:
    Checkpoint.open(str(base_checkpoint())).load_model(torch.device("cpu"), torch.float32)
    assert new_pages() < PAGES / 100

"""Devices of the jobs of a command. Whether a GPU is there is set by the test."""

from __future__ import annotations

import pytest
import torch

from napo_bench.core import jobs as module
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.jobs import job_devices


@pytest.fixture
def gpus(monkeypatch):
    def there(count, visible=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return there


@pytest.mark.parametrize(
    ("count", "jobs", "name", "small", "number"),
    [
        (0, None, None, True, 2),
        (0, None, None, False, 1),
        (0, 3, "cpu", False, 3),
        (4, None, None, True, 1),
        (4, None, "cpu", True, 2),
        (4, 1, None, True, 1),
    ],
)
def test_on_a_cpu_jobs_share_the_cores(gpus, monkeypatch, count, jobs, name, small, number):
    monkeypatch.setattr(module, "cores", lambda: 8)
    gpus(count)
    assert job_devices(jobs, name, small) == [{}] * number
    monkeypatch.setattr(module, "cores", lambda: 1)
    assert job_devices(jobs, name, small) == [{}] * (jobs or 1)


def test_each_job_has_a_visible_gpu_of_its_own(gpus):
    gpus(4)
    assert job_devices(3, None, False) == [{"CUDA_VISIBLE_DEVICES": f"{number}"} for number in range(3)]
    gpus(2, "5,GPU-8ab")
    assert job_devices(2, "cuda", True) == [{"CUDA_VISIBLE_DEVICES": "5"}, {"CUDA_VISIBLE_DEVICES": "GPU-8ab"}]


@pytest.mark.parametrize(
    ("jobs", "name", "message"),
    [
        (3, None, "a GPU of its own; torch finds 2"),
        (2, "cuda:1", "--device is 'cuda:1'"),
        (2, "auto", "--device is 'auto'"),
    ],
)
def test_jobs_without_a_gpu_of_their_own_are_refused(gpus, jobs, name, message):
    gpus(2)
    with pytest.raises(NapoBenchError, match=message):
        job_devices(jobs, name, False)

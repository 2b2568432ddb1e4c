"""How many threads a model computes with."""

import pytest
import torch
from safetensors.torch import save_file

from napo_bench.models import threads

SEVERAL = 3


@pytest.fixture(autouse=True)
def without_a_choice(monkeypatch):
    """torch's own number of threads, as where no user has chosen one."""
    before = torch.get_num_threads()
    for name in threads.USERS_OWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "_several", None)
    torch.set_num_threads(SEVERAL)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model_of(tmp_path):
    def make(weights):
        folder = tmp_path / str(weights)
        folder.mkdir()
        save_file({"weight": torch.zeros(weights // 4)}, folder / "model.safetensors")
        return folder

    return make


def test_a_small_model_runs_on_one_thread_and_the_next_large_one_on_all(model_of):
    threads.choose_threads(model_of(4096), "cpu")
    assert torch.get_num_threads() == 1
    threads.choose_threads(model_of(threads.SMALL), "cpu")
    assert torch.get_num_threads() == SEVERAL


def test_a_small_model_on_a_gpu_changes_nothing(model_of):
    threads.choose_threads(model_of(4096), "cuda")
    assert torch.get_num_threads() == SEVERAL


@pytest.mark.parametrize("name", threads.USERS_OWN)
def test_the_users_own_number_of_threads_stays(monkeypatch, model_of, name):
    monkeypatch.setenv(name, str(SEVERAL))
    threads.choose_threads(model_of(4096), "cpu")
    assert torch.get_num_threads() == SEVERAL


def test_loading_a_checkpoint_chooses():
    from napo_bench.micro.base import base_checkpoint
    from napo_bench.models.checkpoint import Checkpoint

    Checkpoint.open(str(base_checkpoint())).load_model(torch.device("cpu"), torch.float32)
    assert torch.get_num_threads() == 1

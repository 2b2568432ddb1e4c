import dataclasses

import pytest
import torch
import torch.distributed
from rounding import LOG_PROB
from tiny_models import recompute_activations, tiny_batch, tiny_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from napo_bench.trainers.forward.logps import prepare, response_logps


def prepared_model():
    model = tiny_model("llava")
    prepare(model)
    recompute_activations(model)
    return model


def sharded(model, policy):
    """FSDP2 as accelerate applies it: a unit a decoder layer; the head is one of its own here, the harder case."""
    mesh = init_device_mesh("cpu", (2,))
    for module in (*model.get_decoder().layers, model.lm_head, model):
        fully_shard(module, mesh=mesh, mp_policy=policy)
    return model


def row_of(batch, row):
    rows = slice(row, row + 1)
    tensors = {name: value[rows] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    return dataclasses.replace(batch, **tensors, images={name: value[rows] for name, value in batch.images.items()})


def objective(logps):
    return (logps.sum * torch.tensor([1.0, -2.0, 3.0, 0.5])).sum()


def one_row_each(rank, rendezvous):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    batch = tiny_batch("llava")
    alone = prepared_model()
    expected = response_logps(alone, batch)
    objective(expected).backward()
    gradients = {name: weight.grad for name, weight in alone.named_parameters() if weight.requires_grad}
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())

    for wrapped in (DistributedDataParallel(prepared_model()), sharded(prepared_model(), MixedPrecisionPolicy())):
        logps = response_logps(wrapped, row_of(batch, rank))
        (2 * objective(logps)).backward()  # both wrappers average over the processes
        torch.testing.assert_close(logps.sum[0], expected.sum[rank], atol=LOG_PROB, rtol=0)
        for name, weight in getattr(wrapped, "module", wrapped).named_parameters():
            if weight.requires_grad:
                gradient = weight.grad.full_tensor() if hasattr(weight.grad, "full_tensor") else weight.grad
                torch.testing.assert_close(gradient, gradients[name], atol=1e-5 * largest, rtol=1e-4, msg=name)

    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, output_dtype=torch.bfloat16)
    log_probs = response_logps(sharded(prepared_model(), half), row_of(batch, rank)).sum
    assert log_probs.dtype == torch.float32, "FSDP's cast of its output reached the log-probs"
    assert not torch.equal(log_probs, log_probs.bfloat16().float())
    torch.distributed.destroy_process_group()


@pytest.mark.numeric
def test_two_processes_under_ddp_and_fsdp_give_the_log_probs_and_gradients_of_one(tmp_path):
    torch.multiprocessing.spawn(one_row_each, args=(tmp_path / "rendezvous",), nprocs=2)

"""One process of a training run as `accelerate launch --config_file CONFIG napo-bench ...` starts it, but on the CPU.

accelerate reads FSDP and DeepSpeed settings for GPUs only. Here its state says "several GPUs" while tensors stay on the
CPU and processes talk over gloo, so that everything behind it is the code that runs on GPUs.

    torchrun --nproc-per-node 2 launched.py CONFIG train --recipe ...
"""

from __future__ import annotations

import os
import sys

import torch
from accelerate import DistributedType, PartialState
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

config = sys.argv.pop(1)
parsed = launch_command_parser().parse_args(
    ["--config_file", config, "--num_processes", "2", "--no_python", "napo-bench"]
)
args, defaults, _ = _validate_launch_command(parsed)
if args.use_deepspeed:
    args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
launched = prepare_deepspeed_cmd_env(args)[1] if args.use_deepspeed else prepare_multi_gpu_env(args)
os.environ.update({name: value for name, value in launched.items() if name.startswith(("ACCELERATE_", "FSDP_"))})
os.environ["DS_ACCELERATOR"] = "cpu"

PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))

import transformers.training_args  # noqa: E402

import napo_bench.trainers.run  # noqa: E402

transformers.training_args.is_torch_bf16_gpu_available = lambda: True


class TrainingArguments(napo_bench.trainers.run.TrainingArguments):
    """Arguments for the device that the state names, which is the CPU."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**{**kwargs, "use_cpu": False})


napo_bench.trainers.run.TrainingArguments = TrainingArguments

from napo_bench.cli import main  # noqa: E402

main()

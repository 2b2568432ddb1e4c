"""The commands of Slurm on one machine: every node of a job is a process group here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SBATCH = Path(__file__).parents[2] / "docs/slurm/napo-bench.sbatch"

_COMMANDS = {
    "scontrol": 'test "$1 $2 $3" = "show hostnames nodes" && echo 127.0.0.1 && echo elsewhere',
    "srun": """ended=0
for node in $(seq "$SLURM_NNODES"); do "$@" & started="${started:-} $!"; done
for one in $started; do wait "$one" || ended=$?; done
exit "$ended\"""",
    "torchrun": f'exec {sys.executable} -m torch.distributed.run --local-addr 127.0.0.1 "$@"',
}


def submit(
    folder: Path, arguments: Sequence[str], nodes: int = 2, processes: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run the sbatch file of the documentation as a job.

    Args:
        folder: Folder for the commands.
        arguments: Arguments of the file.
        nodes: Number of nodes.
        processes: Number of processes on each node.
    """
    for name, body in _COMMANDS.items():
        path = folder / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    job = {
        "SLURM_NNODES": f"{nodes}",
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NODELIST": "nodes",
        "PROCESSES_PER_NODE": f"{processes}",
        "RENDEZVOUS_PORT": f"{port}",
        "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return subprocess.run(
        ["bash", str(SBATCH), *arguments], capture_output=True, text=True, check=False, env={**os.environ, **job}
    )

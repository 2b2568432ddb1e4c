"""Starts `transformers serve` for a test or a measurement, and stops the server afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

STARTED_WITHIN = 180.0


@contextmanager
def serving(checkpoint: str, log: Path) -> Iterator[tuple[str, int]]:
    """A checkpoint behind `transformers serve`, in float32 on the CPU, on a free port of this machine.

    Args:
        checkpoint: Folder of the checkpoint, which is also the name of the served model.
        log: File that the server's output is written to.

    Yields:
        URL up to and including `/v1`, and id of the server's process.

    Raises:
        RuntimeError: the server does not start. The message has the end of its output.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", checkpoint]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--device", "cpu"]
    with log.open("wb") as sink:
        server = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
    try:
        _await(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1", server.pid
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _await(health: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < end and server.poll() is None:
        try:
            if httpx.get(health, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"`transformers serve` did not start:\n{log.read_text()[-3000:]}")

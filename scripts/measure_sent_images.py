"""Measure what it costs to send images to an endpoint: as the bytes of their files, and as the PNG of their pixels.

    OMP_NUM_THREADS=1 python scripts/measure_sent_images.py
    python scripts/measure_sent_images.py --photos 40 --questions 14

The photos are soft random shapes with the grain of a camera, in JPEG files of 1600 x 1200 pixels. By turns, both ways
ask the same questions of a server in another process on this machine, which answers at once. The table gives medians
over the rounds. The CPU seconds are those of this process.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from napo_bench.benchmarks.question import Question
from napo_bench.core.encoded import EncodedImage
from napo_bench.core.journal import Journal
from napo_bench.core.progress import SILENT
from napo_bench.engines.answering import Answering
from napo_bench.engines.api import APIEngine
from napo_bench.engines.request import Generation, Picture, Request

SIZE = (1600, 1200)
SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"choices": [{"message": {"content": "Yes"}, "finish_reason": "stop"}]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--questions", type=int, default=2, help="Questions about each photo.")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    table = Table(title=f"{arguments.photos} photos, {arguments.questions} questions about each")
    for column in ("sent as", "MB sent", "seconds", "CPU seconds"):
        table.add_column(column, justify="right")
    with (
        tempfile.TemporaryDirectory() as name,
        subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
            files = [photo(Path(name) / f"{number}.jpg", number) for number in range(arguments.photos)]
            ways = {"JPEG files": [requests(file, arguments.questions) for file in files]}
            ways["PNG of the pixels"] = [[pixels_alone(one) for one in group] for group in ways["JPEG files"]]
            seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
            for number in range(arguments.rounds):
                for way, groups in ways.items():
                    asked = [request for group in groups for request in group]
                    seconds[way].append(timed(asked, url, Path(name) / f"{way} {number}.sqlite"))
            for way, groups in ways.items():
                sent = sum(len(request.pictures[0].encoded().url) for group in groups for request in group)
                columns = [statistics.median(values) for values in zip(*seconds[way], strict=True)]
                table.add_row(way, f"{sent / 1e6:.1f}", *(f"{value:.2f}" for value in columns))
        finally:
            server.terminate()
    Console(width=100).print(table)


def photo(path: Path, seed: int) -> Path:
    """A photo of soft shapes with grain."""
    dice = np.random.default_rng(seed)
    levels = np.zeros((SIZE[1], SIZE[0], 3))
    for cells, weight in ((6, 120), (24, 60), (96, 30), (384, 12)):
        small = Image.fromarray(dice.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        levels += np.asarray(small.resize(SIZE, Image.Resampling.BICUBIC), dtype=float) / 255 * weight
    levels += dice.normal(0, 3, levels.shape)
    Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return path


def requests(file: Path, count: int) -> list[Request]:
    """Questions about a photo."""
    question = Question("", file, lambda text: {})
    picture = Picture(file, question.open_picture, lambda: question.read_picture(EncodedImage.read))
    return [Request(f"Question {number}?", picture, Generation(8)) for number in range(count)]


def pixels_alone(request: Request) -> Request:
    """The request with an image that is in no file."""
    assert request.picture is not None
    return replace(request, picture=replace(request.picture, read=None))


def timed(asked: list[Request], url: str, journal: Path) -> tuple[float, float]:
    """Seconds and CPU seconds of this process until everything is answered."""
    began, cpu = time.monotonic(), time.process_time()
    with Journal(journal) as stored:
        Answering(APIEngine("served", url), stored, SILENT).answer(asked, len(asked))
    return time.monotonic() - began, time.process_time() - cpu


if __name__ == "__main__":
    main()

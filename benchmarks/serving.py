"""The server under load beside what `fssd bench` times: images a second at the same batch size.

    python benchmarks/serving.py --model animals --batch 8 --rounds 5

A round sends JPEGs to `fssd serve` from clients that each wait for their answer, four for each place of a
batch, and then takes as many through the stages of `fssd bench` in this process: decoding, warping, the
network, decoding of boxes and NMS. Both have all the cores, in turn; the clients' own work counts against the
server. Images a second without the network's stages are not comparable with either: the server overlaps them.
"""

from __future__ import annotations

import argparse
import http.client
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fssd.bench.machine import write_figures
from fssd.bench.measure import use_threads
from fssd.bench.photographs import Photographs, made_pictures, user_pictures
from fssd.bench.stages import time_stages
from fssd.bench.subject import Subject, open_subject
from fssd.bench.timing import Spread, line, rates, ratio
from fssd.runtimes.cores import usable_cores

CLIENTS = 4  # for each place of a batch
STAGES = ("decode", "preprocess", "network", "postprocess")


def main() -> None:
    args = _arguments()
    use_threads(args.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        pictures = user_pictures(args.images) if args.images else made_pictures(folder)
        subject = open_subject(args.model, folder, runtime=args.runtime, device="cpu", threads=args.threads)
        served: list[float] = []
        staged: list[float] = []
        with _server(args) as port:
            _load(port, pictures, args.batch, 4 * args.batch)
            for _ in range(args.rounds):
                served.append(_load(port, pictures, args.batch, args.number))
                staged.append(_stages(subject, pictures, args.batch, args.number))
        figures = _report(served, staged, args)
    write_figures(args.json, figures, args.threads)


def _report(served: list[float], staged: list[float], args: argparse.Namespace) -> dict[str, Spread]:
    figures = {
        "served_images_per_second": rates(served, args.number),
        "staged_images_per_second": rates(staged, args.number),
        "served_over_staged": ratio(staged, served),
    }
    print(f"{args.model}, {args.runtime or 'its runtime'}, batch {args.batch}, {args.threads} threads")
    print(line("  fssd serve, over HTTP", figures["served_images_per_second"], "images/s", 1))
    print(
        line(
            "  stages of fssd bench, one after the other", figures["staged_images_per_second"], "images/s", 1
        )
    )
    print(line("  server over bench", figures["served_over_staged"], "times"))
    return figures


@contextmanager
def _server(args: argparse.Namespace) -> Iterator[int]:
    """A server process; gives its port."""
    options = ["--port", "0", "--threads", str(args.threads), "--batch-size", str(args.batch)]
    options += ["--queue", str(2 * CLIENTS * args.batch), "--runtime", args.runtime or "auto"]
    command = [sys.executable, "-m", "fssd", "serve", args.model, "--device", "cpu", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for text in process.stdout:
                if text.startswith("listening on "):
                    yield int(text.rpartition(":")[2])
                    return
            raise SystemExit("the server did not start")
        finally:
            process.terminate()


def _load(port: int, pictures: Photographs, batch: int, number: int) -> float:
    """Seconds for a number of images, sent by many clients at once."""
    left = iter(range(number))
    taking = threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while True:
            with taking:
                turn = next(left, None)
            if turn is None:
                return
            connection.request("POST", "/detect", pictures.contents[turn % len(pictures.contents)])
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise SystemExit(f"the server answered {response.status}")

    threads = [threading.Thread(target=client) for _ in range(CLIENTS * batch)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def _stages(subject: Subject, pictures: Photographs, batch: int, number: int) -> float:
    """Seconds for as many images through the stages of `fssd bench`, from bytes to detections."""
    timed = time_stages(subject, pictures, batch, 0.5, number // batch, 1)
    return sum(sum(timed.seconds[stage]) for stage in STAGES)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="animals", help="what `fssd serve` takes")
    parser.add_argument("--runtime", choices=["torch", "onnx", "openvino"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--number", type=int, default=320, help="images in a round, whole batches")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", nargs="*", default=[], help="images to send instead of made ones")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

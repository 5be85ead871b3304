"""One model in each runtime: PyTorch, ONNX Runtime and OpenVINO, the last two in eight bits as well.

    python benchmarks/runtimes.py --models fssd300-lite fssd300-vgg16 --repeats 20

A network that is named gets random weights, and eight bits ranges of made pictures; the speed of the network
does not depend on either. The runtimes take turns, with a rest before each, because the threads of one go on
waiting busily for a while when it is done.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from fssd.bench.machine import write_figures
from fssd.bench.measure import use_threads
from fssd.bench.photographs import Photographs, made_pictures
from fssd.bench.stages import network_step
from fssd.bench.subject import Precision, Subject, open_subject
from fssd.bench.timing import Step, line, milliseconds, ratio, spread, take_turns
from fssd.runtimes.cores import usable_cores

RUNS: tuple[tuple[str, Precision], ...] = (
    ("torch", "fp32"),
    ("onnx", "fp32"),
    ("openvino", "fp32"),
    ("onnx", "int8"),
    ("openvino", "int8"),
)
REST = 0.05  # seconds


def main() -> None:
    args = _arguments()
    use_threads(args.threads)
    figures = {}
    for model in args.models:
        with tempfile.TemporaryDirectory() as folder:
            figures[model] = _compare(model, Path(folder), args)
    write_figures(args.json, {"models": figures}, args.threads)


def _compare(model: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Time the network alone and the whole, from image array to detections."""
    pictures = made_pictures(folder)
    subjects = {
        f"{runtime} {precision}": open_subject(
            model, folder, runtime=runtime, precision=precision, device="cpu", threads=args.threads
        )
        for runtime, precision in RUNS
    }
    steps: dict[tuple[str, str], Step] = {}
    for name, subject in subjects.items():
        steps[name, "network"] = network_step(subject, pictures, 1)
        steps[name, "whole"] = _whole(subject, pictures)
    times = take_turns(steps, args.repeats, rest=REST)
    found: dict[str, Any] = {}
    print(model)
    for name in subjects:
        network, whole = times[name, "network"], times[name, "whole"]
        found[name] = {
            "network_ms": milliseconds(spread(network)),
            "whole_ms": milliseconds(spread(whole)),
            "network_over_openvino_fp32": ratio(times["openvino fp32", "network"], network),
        }
        print(line(f"  {name}: network", found[name]["network_ms"], "ms"))
        print(line(f"  {name}: image array in, detections out", found[name]["whole_ms"], "ms"))
        print(line(f"  {name}: speed over OpenVINO fp32", found[name]["network_over_openvino_fp32"], "times"))
    return found


def _whole(subject: Subject, pictures: Photographs) -> Step:
    return lambda: subject.detector(pictures.images[0])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", nargs="+", default=["fssd300-lite", "fssd300-vgg16"])
    parser.add_argument("--repeats", type=int, default=20, help="turns that count")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

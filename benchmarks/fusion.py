"""What fusion costs: SSD beside FSSD, the network alone, one image at a time.

    python benchmarks/fusion.py --repeats 20

The two of a pair differ in the neck alone. They take turns, and the ratio is taken turn by turn. The paper
has 85 images a second for SSD300 and 65.8 for FSSD300 on a 1080Ti (Table 3): FSSD takes 1.29 times as long.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from fssd.bench.machine import write_figures
from fssd.bench.measure import use_threads
from fssd.bench.photographs import made_pictures
from fssd.bench.stages import network_step
from fssd.bench.subject import open_subject
from fssd.bench.timing import line, milliseconds, ratio, spread, take_turns
from fssd.runtimes.cores import usable_cores

PAIRS = (("ssd300-lite", "fssd300-lite"), ("ssd300-vgg16", "fssd300-vgg16"))


def main() -> None:
    args = _arguments()
    use_threads(args.threads)
    figures = {}
    for ssd, fssd in PAIRS:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            pair = {
                name: open_subject(name, place, runtime=args.runtime, device="cpu", threads=args.threads)
                for name in (ssd, fssd)
            }
            pictures = made_pictures(place, 1)
            steps = {name: network_step(subject, pictures, 1) for name, subject in pair.items()}
            times = take_turns(steps, args.repeats)
        own = {name: milliseconds(spread(taken)) for name, taken in times.items()}
        cost = ratio(times[fssd], times[ssd])
        counts = [subject.multiply_adds for subject in pair.values()]
        assert counts[0] is not None and counts[1] is not None
        for name, figure in own.items():
            print(line(name, figure, "ms"))
        print(line(f"{fssd} / {ssd}", cost, "times"))
        print(f"{'multiply-adds':52} {counts[1] / counts[0]:10.2f} times")
        figures[fssd] = {"milliseconds": own, "ratio": cost, "multiply_adds": counts[1] / counts[0]}
    write_figures(args.json, {"runtime": args.runtime, "pairs": figures}, args.threads)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runtime", choices=("torch", "onnx", "openvino"), default="torch")
    parser.add_argument("--repeats", type=int, default=20, help="turns that count")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

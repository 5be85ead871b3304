"""Images per second of decoding and augmenting on one core, beside the same steps done one by one.

    python benchmarks/augment.py --images 64 --repeats 7

JPEGs of 500 x 375 are made in memory from smooth noise. Both sides decode the same bytes with the same call
and draw the same random numbers; rounds alternate, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from fssd.bench.machine import write_figures
from fssd.bench.timing import line, rates, ratio, take_turns
from fssd.data.augment import MIRROR, augment, resize, sample_rng
from fssd.data.geometry import Warp
from fssd.data.sample import Sample

View = Callable[[Sample, int], Sample]  # sample, its index -> augmented

REFERENCE = Path(__file__).parents[1] / "tests" / "data" / "reference_augment.py"


def main() -> None:
    args = _arguments()
    cv2.setNumThreads(1)
    plainly = _load(REFERENCE).augment_plainly
    size, warp = args.size, Warp((args.size, args.size))
    sides: dict[str, View] = {
        "plain": lambda sample, index: plainly(sample, size, sample_rng(0, 0, index)),
        "fssd": lambda sample, index: augment(sample, warp, sample_rng(0, 0, index)),
        "fssd jpeg": lambda sample, index: augment(sample, warp, sample_rng(0, 0, index), jpeg=True),
        "fssd mirror": lambda sample, index: augment(sample, warp, sample_rng(0, 0, index), recipe=MIRROR),
        "resize": lambda sample, _: resize(sample, warp),
        "decode": lambda sample, _: sample,
    }
    photos = [_photo(np.random.default_rng(seed)) for seed in range(args.images)]
    steps = {name: partial(_augment, photos, view, args.views) for name, view in sides.items()}
    times = take_turns(steps, args.repeats, warm_up=1)
    figures = {name: rates(taken, args.views * args.images) for name, taken in times.items()}
    gain = ratio(times["plain"], times["fssd"])
    for name, figure in figures.items():
        print(line(name, figure, "images/s", digits=0))
    print(line("plain / fssd", gain, "times"))
    write_figures(args.json, {"images_per_second": figures, "gain": gain}, threads=1)


def _augment(photos: list[tuple[np.ndarray, Sample]], view: View, views: int) -> None:
    for epoch in range(views):
        for index, (data, labels) in enumerate(photos):
            image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), dtype=np.uint8)
            sample = Sample(image, labels.boxes, labels.labels, labels.difficult, labels.name)
            view(sample, epoch * len(photos) + index)


def _photo(rng: np.random.Generator) -> tuple[np.ndarray, Sample]:
    """A JPEG of 500 x 375 with detail at several scales, and one to five boxes."""
    image = np.zeros((375, 500, 3), np.float32)
    for cells, strength in ((4, 70), (16, 40), (64, 20), (256, 8)):
        noise = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, (500, 375), interpolation=cv2.INTER_CUBIC)
    pixels = np.clip(image + 120, 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", pixels)
    count = int(rng.integers(1, 6))
    corner = rng.uniform(0, 1, (count, 2)) * (400, 275)
    extent = rng.uniform(0.1, 1, (count, 2)) * ((500, 375) - corner)
    boxes = np.concatenate([corner, corner + extent], axis=1).astype(np.float32)
    return data, Sample(pixels, boxes, np.zeros(count, np.int64), np.zeros(count, np.bool_), "noise.jpg")


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=64, help="different JPEGs")
    parser.add_argument("--views", type=int, default=2, help="augmented views of each JPEG per round")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count")
    parser.add_argument("--size", type=int, default=300, help="pixels of the result")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

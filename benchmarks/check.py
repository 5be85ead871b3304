"""Time and memory of `fssd check --labels-only`, and of opening a folder again, on large data sets made here.

    python benchmarks/check.py --images 100000

VOC with one xml for each image, and COCO with one json: the same images, 9 of 10 in train, the others in val.
Pictures are small files, because only their headers are read. A figure is that of a whole process. On a busy
machine its seconds of CPU say more than its seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from fssd.bench.machine import write_figures
from fssd.runtimes.cores import usable_cores

CLASSES = ("bus", "car", "person", "truck")
WIDTH, HEIGHT = 500, 375  # pixels
OBJECTS = 3  # in an image
OPEN = "import sys; from fssd.data.source import open_data; print(len(open_data(sys.argv[1], 'train')))"


def main() -> None:
    args = _arguments()
    figures = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        roots = {"voc": Path(folder) / "voc", "coco": Path(folder) / "coco"}
        boxes = np.random.default_rng(0).integers(0, (WIDTH // 2, HEIGHT // 2), (args.images, OBJECTS, 2))
        _write_pictures(Path(folder) / "pictures", args.images)
        _write_voc(roots["voc"], boxes.tolist())
        _write_coco(roots["coco"], boxes.tolist())
        cache = {**os.environ, "XDG_CACHE_HOME": str(Path(folder) / "cache")}
        for name, root in roots.items():
            steps = {
                "check": ["-m", "fssd", "check", str(root), "--labels-only"],
                "check again": ["-m", "fssd", "check", str(root), "--labels-only"],
                "open": ["-c", OPEN, str(root)],
            }
            for step, command in steps.items():
                seconds, busy, megabytes = _run(command, cache)
                figures[f"{name}, {step}"] = {"seconds": seconds, "CPU seconds": busy, "MB": megabytes}
                print(f"{name}, {step}: {seconds:.1f} s, CPU {busy:.1f} s, {megabytes:.0f} MB", flush=True)
    write_figures(args.json, {"images": args.images, "figures": figures}, usable_cores())


def _run(command: list[str], environment: dict[str, str]) -> tuple[float, float, float]:
    """Seconds, seconds of all cores, and peak megabytes of a process."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    seconds = time.perf_counter() - start
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _write_pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        if number % 1000 == 0:
            small = rng.integers(0, 256, (6, 8, 3), np.uint8)
            data = cv2.imencode(".jpg", cv2.resize(small, (WIDTH, HEIGHT)))[1].tobytes()
        (folder / f"{number:06}.jpg").write_bytes(data)


def _write_voc(root: Path, boxes: list[list[list[int]]]) -> None:
    for name in ("Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    (root / "JPEGImages").symlink_to(root.parent / "pictures")
    for number, corners in enumerate(boxes):
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        objects = "".join(_xml(CLASSES[(number + rank) % 4], x, y) for rank, (x, y) in enumerate(corners))
        text = f"<annotation><filename>{number:06}.jpg</filename>{size}{objects}</annotation>\n"
        (root / "Annotations" / f"{number:06}.xml").write_text(text)
    for split, numbers in _splits(len(boxes)).items():
        text = "".join(f"{number:06}\n" for number in numbers)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(text)


def _xml(name: str, x: int, y: int) -> str:
    corners = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + 101}</xmax><ymax>{y + 81}</ymax>"
    return f"<object><name>{name}</name><difficult>0</difficult><bndbox>{corners}</bndbox></object>"


def _write_coco(root: Path, boxes: list[list[list[int]]]) -> None:
    (root / "annotations").mkdir(parents=True)
    for split, numbers in _splits(len(boxes)).items():
        (root / split).symlink_to(root.parent / "pictures")
        images = [
            {"id": number, "file_name": f"{number:06}.jpg", "width": WIDTH, "height": HEIGHT}
            for number in numbers
        ]
        rows = [(number, rank, *corner) for number in numbers for rank, corner in enumerate(boxes[number])]
        notes = [
            {
                **{"id": OBJECTS * number + rank, "image_id": number, "iscrowd": 0, "area": 8000},
                **{"category_id": (number + rank) % 4 + 1, "bbox": [x, y, 100, 80]},
            }
            for number, rank, x, y in rows
        ]
        categories = [{"id": 1 + index, "name": name} for index, name in enumerate(CLASSES)]
        content = {"images": images, "annotations": notes, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def _splits(count: int) -> dict[str, range]:
    return {"train": range(count * 9 // 10), "val": range(count * 9 // 10, count)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument(
        "--folder", type=Path, help="where the data are made; by default the temporary folder"
    )
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()

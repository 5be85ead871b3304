"""Cut a data set, weights and the packages that a bare machine lacks into files of limited size.

    python benchmarks/gpu_pack.py --data animals.yaml --weights vgg16.safetensors --to pack

The images are encoded again, the longest side at most --side pixels, as WebP, which takes two thirds of the
bytes of a JPEG file. They lie in tar files, those of the validation split first, so that each tar that has
arrived adds training images. The labels are COCO json. The wheels are for another Python than this one, so
pip fetches them by name.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import PIL.Image

from fssd.atomic import atomic_path, atomic_write
from fssd.data.sample import DataSet, Record
from fssd.data.source import open_data

SPLITS = ("val", "train")  # in the order of the tars
QUALITY = 60  # of the WebP files
PACKAGES = ("tyro", "docstring-parser", "typeguard", "simplejpeg", "hotcoco")
PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
)


def main() -> int:
    args = _arguments()
    args.to.mkdir(parents=True, exist_ok=True)
    images: list[tuple[str, bytes]] = []
    for split in SPLITS:
        dataset = open_data(args.data, split)
        encoded = [encode(record.path, args.side) for record in dataset.records]
        labels = annotations(
            dataset, split, [size for _, size, _ in encoded], [scale for *_, scale in encoded]
        )
        atomic_write(args.to / f"instances_{split}.json", json.dumps(labels))
        images += [(image_name(split, i), content) for i, (content, *_) in enumerate(encoded)]
    for number, shard in enumerate(shards(images, args.megabytes * 1_000_000)):
        write_tar(args.to / f"images-{number:02}.tar", shard)
    if args.weights is not None:
        shutil.copyfile(args.weights, args.to / "weights.safetensors")
    if args.wheels:
        fetch_wheels(args.to / "wheels", args.python)
    for file in sorted(file for file in args.to.rglob("*") if file.is_file()):
        print(f"{file.stat().st_size / 1e6:6.1f} MB  {file}")
    return 0


def encode(path: Path, side: int) -> tuple[bytes, tuple[int, int], float]:
    """An image as WebP, its (width, height), and by how much it was scaled."""
    with PIL.Image.open(path) as opened:
        image = opened.convert("RGB")
    scale = min(1.0, side / max(image.size))
    if scale < 1:
        image = image.resize(
            (round(image.width * scale), round(image.height * scale)), PIL.Image.Resampling.BOX
        )
    content = io.BytesIO()
    image.save(content, "WEBP", quality=QUALITY)
    return content.getvalue(), image.size, scale


def image_name(split: str, index: int) -> str:
    """A file name that no other image has, whatever folder it comes from."""
    return f"{split}-{index:06}.webp"


def annotations(
    dataset: DataSet, split: str, sizes: Sequence[tuple[int, int]], scales: Sequence[float]
) -> dict[str, list[dict[str, object]]]:
    """The labels as COCO has them, with VOC's difficult flag, scaled as the images are."""
    images: list[dict[str, object]] = []
    objects: list[dict[str, object]] = []
    for index, (record, size, scale) in enumerate(zip(dataset.records, sizes, scales, strict=True)):
        images.append(
            {"id": index, "file_name": image_name(split, index), "width": size[0], "height": size[1]}
        )
        objects += _objects(record, index, scale, len(objects))
    classes = [{"id": label, "name": name} for label, name in enumerate(dataset.classes, start=1)]
    return {"images": images, "annotations": objects, "categories": classes}


def _objects(record: Record, image: int, scale: float, before: int) -> Iterator[dict[str, object]]:
    for index, (x1, y1, x2, y2) in enumerate((record.boxes * scale).tolist()):
        box = [x1, y1, x2 - x1, y2 - y1]
        yield {
            "id": before + index + 1,
            "image_id": image,
            "category_id": int(record.labels[index]) + 1,
            "iscrowd": int(record.crowd[index]),
            "difficult": int(record.difficult[index]),
            "bbox": box,
            "area": box[2] * box[3],
        }


def shards(images: Sequence[tuple[str, bytes]], most: int) -> Iterator[list[tuple[str, bytes]]]:
    """The images in their order, in lists whose tar files have at most `most` bytes."""
    shard: list[tuple[str, bytes]] = []
    size = 0
    for name, content in images:
        own = len(content) + 1024  # header and padding of tar
        if shard and size + own > most:
            yield shard
            shard, size = [], 0
        shard.append((name, content))
        size += own
    if shard:
        yield shard


def write_tar(path: Path, images: Sequence[tuple[str, bytes]]) -> None:
    with atomic_path(path) as temporary, tarfile.open(temporary, "w") as tar:
        for name, content in images:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def fetch_wheels(folder: Path, python: str) -> None:
    """Wheels of `PACKAGES` for another Python version."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        folder,
    ]
    platforms = [part for name in PLATFORMS for part in ("--platform", name)]
    subprocess.run([*command, "--python-version", python, *platforms, *PACKAGES], check=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="data set with the splits train and val")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of VGG16, in half precision 29 MB")
    parser.add_argument("--to", type=Path, required=True, help="folder to make")
    parser.add_argument("--side", type=int, default=320, help="longest side of the images, pixels")
    parser.add_argument("--megabytes", type=int, default=15, help="of each tar file at most")
    parser.add_argument("--python", default="3.12", help="of the other machine, for the wheels")
    parser.add_argument("--wheels", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

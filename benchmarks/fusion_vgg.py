"""SSD300 against FSSD300 on VGG16, for a machine that is lent for minutes and reached by small transfers.

    python benchmarks/fusion_vgg.py pack --data animals.yaml --weights vgg16.safetensors --to pack
    # carry what is in pack/ over, one file at a time, each under 60 MB; then there, as often as needed:
    python benchmarks/fusion_vgg.py piece --pack pack --state state --minutes 9 --seeds 3
    # carry state/ back, and over again before the next piece if the machine keeps nothing

A piece unpacks the data, puts the states of unfinished runs together from their parts, goes on with
`fssd ablate configs/ablations/fusion-vgg.yaml` until its minutes are over, and takes the states apart
again. Finished runs leave their log, settings and the table alone, which is kilobytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import PIL.Image

from fssd.atomic import atomic_path, atomic_write
from fssd.cli.main import main as fssd
from fssd.data.sample import DataSet, Record
from fssd.data.source import open_data

PART = 50_000_000  # bytes; leaves room for the wrapping of any transfer limited to 60 MB
PLAN = Path(__file__).parents[1] / "configs" / "ablations" / "fusion-vgg.yaml"
WEIGHTS = "weights.safetensors"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack", help="cut a data set and the weights into files that can be carried")
    packing.add_argument("--data", type=Path, required=True, help="data set with the splits train and val")
    packing.add_argument("--weights", type=Path, required=True, help="ImageNet weights of VGG16")
    packing.add_argument("--to", type=Path, required=True, help="folder to make")
    going = verbs.add_parser("piece", help="train for some minutes, going on where the last piece stopped")
    going.add_argument("--pack", type=Path, required=True, help="folder that pack made")
    going.add_argument(
        "--state", type=Path, required=True, help="folder for what is carried to the next piece"
    )
    going.add_argument("--work", type=Path, default=Path("runs/fusion-vgg"), help="folder for data and runs")
    going.add_argument("--minutes", type=float, default=9.0)
    going.add_argument("--seeds", type=int, default=1)
    going.add_argument("--budget", default=None, help="length of each run, such as 20ep or 3it")
    going.add_argument("--set", nargs="*", default=[], help="settings of every row, KEY=VALUE")
    args = parser.parse_args()
    return pack(args.data, args.weights, args.to) if args.verb == "pack" else piece(args)


# ---- packing


def pack(data: Path, weights: Path, to: Path) -> int:
    """Write images into tar files of at most `PART` bytes, labels as COCO json, and copy the weights."""
    to.mkdir(parents=True, exist_ok=True)
    names: dict[str, Path] = {}
    for split in ("train", "val"):
        dataset = open_data(data, split)
        atomic_write(to / f"instances_{split}.json", json.dumps(_labels(dataset, split)))
        names |= {_name(split, number, record): record.path for number, record in enumerate(dataset.records)}
    for number, shard in enumerate(_shards(names)):
        with atomic_path(to / f"images-{number:02}.tar") as temporary, tarfile.open(temporary, "w") as tar:
            for name in shard:
                tar.add(names[name], arcname=name)
    if weights.stat().st_size > PART:
        print(f"note: {weights} is larger than a transfer; convolutions in half precision are 29 MB")
    shutil.copyfile(weights, to / WEIGHTS)
    for file in sorted(to.iterdir()):
        print(f"{file.stat().st_size / 1e6:6.1f} MB  {file}")
    return 0


def _name(split: str, number: int, record: Record) -> str:
    """A file name that no other image has, whatever folder it comes from."""
    return f"{split}-{number:06}{record.path.suffix}"


def _labels(dataset: DataSet, split: str) -> dict[str, list[dict[str, object]]]:
    """The labels as COCO has them, with VOC's difficult flag; images are counted from 0, objects from 1."""
    images: list[dict[str, object]] = []
    objects: list[dict[str, object]] = []
    for number, record in enumerate(dataset.records):
        with PIL.Image.open(record.path) as image:
            width, height = image.size
        name = _name(split, number, record)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for place, (x1, y1, x2, y2) in enumerate(record.boxes.tolist()):
            box = [x1, y1, x2 - x1, y2 - y1]
            ids = {"id": len(objects) + 1, "image_id": number, "category_id": int(record.labels[place]) + 1}
            flags = {"iscrowd": int(record.crowd[place]), "difficult": int(record.difficult[place])}
            objects.append({**ids, **flags, "bbox": box, "area": box[2] * box[3]})
    classes = [{"id": label, "name": name} for label, name in enumerate(dataset.classes, start=1)]
    return {"images": images, "annotations": objects, "categories": classes}


def _shards(names: dict[str, Path]) -> Iterator[list[str]]:
    shard: list[str] = []
    size = 0
    for name, path in names.items():
        own = path.stat().st_size + 1024  # header and padding of tar
        if shard and size + own > PART:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += own
    if shard:
        yield shard


# ---- a piece


def piece(args: argparse.Namespace) -> int:
    """Go on for some minutes; the exit code is that of `fssd ablate`: 0 once the table is complete."""
    data = _unpack(args.pack, args.work / "data")
    runs = args.work / "runs"
    _join(args.state, runs)
    command = ["ablate", str(PLAN), "--data", str(data), "--out", str(runs)]
    command += ["--minutes", str(args.minutes), "--seeds", str(args.seeds)]
    command += [] if args.budget is None else ["--budget", args.budget]
    command += ["--set", f"weights={args.pack / WEIGHTS}", *args.set]
    code = fssd(command)
    _split(runs, args.state)
    return code


def _unpack(source: Path, to: Path) -> Path:
    """Lay a pack out as a COCO folder; a shard that is unpacked already is left alone."""
    images = to / "images"
    for file in sorted(source.glob("images-*.tar")):
        mark = to / f"{file.name}.done"
        if not mark.exists():
            images.mkdir(parents=True, exist_ok=True)
            with tarfile.open(file) as tar:
                tar.extractall(images, filter="data")
            mark.touch()
    annotations = to / "annotations"
    annotations.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        shutil.copyfile(source / f"instances_{split}.json", annotations / f"instances_{split}.json")
    return to


def _split(runs: Path, state: Path) -> None:
    """Small files of all runs, and the states of unfinished ones in parts with their checksums."""
    if state.exists():
        shutil.rmtree(state)
    for file in sorted(runs.rglob("*")):
        if not file.is_file() or "tensorboard" in file.parts:
            continue
        target = state / file.relative_to(runs)
        target.parent.mkdir(parents=True, exist_ok=True)
        finished = (file.parent / "final.safetensors").exists()
        if file.suffix != ".safetensors":
            shutil.copyfile(file, target)
        elif file.name == "last.safetensors" and not finished:
            _cut(file, target)
    for final in runs.rglob("final.safetensors"):
        atomic_write(state / final.relative_to(runs).with_suffix(".finished"), "")


def _cut(file: Path, target: Path) -> None:
    content = file.read_bytes()
    parts = range(0, len(content), PART)
    for number, start in enumerate(parts):
        target.with_suffix(f".part{number:02}").write_bytes(content[start : start + PART])
    facts = {"parts": len(parts), "sha256": hashlib.sha256(content).hexdigest()}
    atomic_write(target.with_suffix(".parts.json"), json.dumps(facts))


def _join(state: Path, runs: Path) -> None:
    """Lay what was carried over under `runs`, unless it is still there."""
    for file in sorted(state.rglob("*")) if state.exists() else []:
        target = runs / file.relative_to(state)
        if file.is_dir() or ".part" in file.name or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".finished":
            target.with_suffix(".safetensors").touch()  # all that the table asks of a finished run
        else:
            shutil.copyfile(file, target)
    for listing in sorted(state.rglob("*.parts.json")) if state.exists() else []:
        base = listing.with_name(listing.name.removesuffix(".parts.json"))
        target = runs / base.relative_to(state).with_suffix(".safetensors")
        if not target.exists():
            _put_together(base, json.loads(listing.read_text()), target)


def _put_together(base: Path, facts: dict[str, int | str], target: Path) -> None:
    parts = [base.with_suffix(f".part{number:02}") for number in range(int(facts["parts"]))]
    content = b"".join(part.read_bytes() for part in parts)
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        raise SystemExit(f"{base}: its parts do not make the file they were cut from; carry them over again")
    atomic_write(target, content)


if __name__ == "__main__":
    sys.exit(main())

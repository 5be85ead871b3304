"""Training images a second from a folder and from shards, and what the labels of many images take of memory.

    python benchmarks/shards.py
    python benchmarks/shards.py --data DATA --shards s3://bucket/DATA
    python benchmarks/shards.py --records 100000 --turns 0

Reading: one process makes the same augmented views (300 x 300) from both, `--views` of each at a time, in
turns, after a first pass over all images that leaves them in the system's cache. The ratio is taken turn by
turn.

Memory: labels of made-up images, as a tuple of records, as the columns that `open_data` makes, and as
the index of shards. A forked process looks at each of them once, in random order; a figure is the memory that
it then does not share with its parent (Linux only).
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fssd.bench.machine import write_figures
from fssd.bench.timing import line, rates, ratio, spread, take_turns
from fssd.data.columns import RecordTable, Spans, compact
from fssd.data.decode import read_bytes
from fssd.data.geometry import Warp
from fssd.data.loader import Views
from fssd.data.sample import Record
from fssd.data.scenes import make_scenes
from fssd.data.shards.shard_index import INDEX_FILE, IndexFacts, open_index, write_index
from fssd.data.shards.write_shards import shard_data
from fssd.data.source import open_data
from fssd.runtimes.cores import usable_cores

SCENES = 64
SCENE_SIZE = 500  # pixels, as the longer side of a VOC photograph
OBJECTS = 3  # in a made-up image
CLASSES = 80


def main() -> None:
    args = _arguments()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if args.turns:
            figures["reading"] = reading(args, Path(folder))
        if args.records:
            figures["memory"] = memory(args.records, Path(folder))
    write_figures(args.json, figures, usable_cores())


def reading(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Views a second of both, and how long opening takes."""
    data = args.data or make_scenes(folder / "scenes", train=SCENES, val=1, size=SCENE_SIZE)
    dest = args.shards or str(folder / "shards")
    shard_data(data, dest)
    places = {"folder": data, "shards": Path(dest)}
    clocks = {"seconds": time.perf_counter, "CPU seconds": time.process_time}
    figures: dict[str, Any] = {}
    for name, clock in clocks.items():
        steps = {key: Reading(place, args.split, args.views) for key, place in places.items()}
        times = take_turns(steps, args.turns, warm_up=1 if name == "seconds" else 0, clock=clock)
        for key in steps:
            figures[f"{key}, views per {name}"] = found = rates(times[key], args.views)
            print(line(f"{key}, views per {name}", found, "", 1))
        figures[f"shards against folder, {name}"] = found = ratio(times["shards"], times["folder"])
        print(line(f"shards against folder, {name}", found, "times", 3), flush=True)
    for key, place in places.items():
        times = take_turns({key: partial(open_data, place, args.split)}, 5, warm_up=1)
        figures[f"{key}, open"] = found = spread([1e3 * seconds for seconds in times[key]])
        print(line(f"{key}, open again", found, "ms"))
    return figures


class Reading:
    """Makes the next views of a data set at each call, from the first image on."""

    def __init__(self, place: Path, split: str | None, views: int) -> None:
        dataset = open_data(place, split)
        self.views = Views(dataset, Warp((300, 300)), seed=0, recipe="ssd", difficult=True)
        self.number, self.count = 0, views
        for record in dataset.records:
            read_bytes(record.picture)  # leaves it in the system's cache

    def __call__(self) -> None:
        for position in range(self.number, self.number + self.count):
            self.views.sample(position)
        self.number += self.count


def memory(count: int, folder: Path) -> dict[str, Any]:
    """Megabytes that a forked process has alone, by the kind of records; bytes and time of the index."""
    records = made_up(count)
    alone = private_memory(records)
    figures: dict[str, Any] = {"tuple of records, MB": alone}
    print(f"tuple of records: a forked process has {alone:.1f} MB alone", flush=True)
    table = compact(records)
    del records  # as `open_data` does
    size = write_made_up(table, folder)
    start = time.perf_counter()
    index = RecordTable(open_index(str(folder)).columns)
    opened = time.perf_counter() - start
    figures |= {"bytes an image": size / count, "open, ms": 1e3 * opened}
    print(f"index of {count:,} images: {size / count:.0f} bytes an image, opened in {1e3 * opened:.1f} ms")
    start = time.process_time()
    for _ in index:
        pass
    figures["a record, us"] = each = 1e6 * (time.process_time() - start) / count
    print(f"a record is made in {each:.1f} us of CPU time")
    for name, own in {"columns": table, "index": index}.items():
        figures[f"{name}, MB"] = found = private_memory(own)
        print(f"{name}: a forked process has {found:.1f} MB alone", flush=True)
    return figures


def made_up(count: int) -> tuple[Record, ...]:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 200, (count, OBJECTS, 2)).astype(np.float32)
    flags = np.zeros(OBJECTS, bool)
    return tuple(
        Record(
            f"{number:012}",
            Path("data/train") / f"{number:012}.jpg",
            Path("data/annotations") / f"{number:012}.xml",
            640,
            480,
            np.concatenate([own, own + 50], axis=1),
            np.array([number % CLASSES] * OBJECTS, np.int64),
            flags.copy(),
            flags.copy(),
        )
        for number, own in enumerate(corners)
    )


def write_made_up(table: RecordTable, folder: Path) -> int:
    """Write an index of pictures of 100 bytes into a shard of that size. Returns the bytes of the index."""
    count = len(table)
    where = np.arange(count, dtype=np.int64) * 100
    spans = Spans((), np.zeros(count, np.int64), where, np.full(count, 100, np.int64))
    with (folder / "all-000000.tar").open("wb") as file:
        file.truncate(100 * count)
    classes = tuple(f"thing {number}" for number in range(CLASSES))
    facts = IndexFacts(classes, {"": (0, count)}, {"all-000000.tar": 100 * count}, {}, "")
    write_index(folder / INDEX_FILE, replace(table.columns, spans=spans), np.zeros(count, np.int32), facts)
    return (folder / INDEX_FILE).stat().st_size


def private_memory(records: Sequence[Record]) -> float:
    """Megabytes that a forked process no longer shares once it has looked at every record."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_look, args=(records, answers))
    child.start()
    before, after = answers.get()
    child.join()
    return float(after - before) / 1e6


def _look(records: Sequence[Record], answers: Any) -> None:
    gc.freeze()
    before = _private()
    for index in np.random.default_rng(1).permutation(len(records)):
        assert len(records[int(index)].boxes) == OBJECTS
    answers.put((before, _private()))


def _private() -> int:
    """Bytes of this process that it has written and shares with none."""
    rows = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(row.split()[1]) * 1024 for row in rows if row.startswith("Private_Dirty"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a data set; by default digit scenes made here")
    parser.add_argument("--split", default="train")
    parser.add_argument("--shards", help="where to write shards of it: a folder or s3://bucket/folder")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--views", type=int, default=32)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

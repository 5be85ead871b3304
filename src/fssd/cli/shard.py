"""fssd shard DATA DEST"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fssd.cli.options import BadShare, parse, show_progress
from fssd.cli.result import add_result
from fssd.config.bounds import Count
from fssd.counted import counted

_MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Shard:
    """Write a data set as tar files and an index, on a disk or in S3, for every verb's --data."""

    data: Annotated[Path, tyro.conf.Positional]
    """Data set, in any form that `fssd train` takes."""
    dest: Annotated[str, tyro.conf.Positional]
    """New folder, or s3://bucket/folder; the same command again goes on where it was stopped."""
    images: Path | None = None
    """Folder of the pictures, where they do not lie beside their labels."""
    splits: tuple[str, ...] = ()
    """Splits to write; by default all; "none" for every image, without splits."""
    shard_size: Count = 256
    """Megabytes of a shard, at most."""
    bad_share: BadShare = 0.02


def run(arguments: list[str]) -> int:
    command = parse(Shard, arguments)
    from fssd.data.shards.write_shards import shard_data

    made = shard_data(
        command.data,
        command.dest,
        splits=command.splits,
        images=command.images,
        shard_size=command.shard_size * _MEGABYTE,
        bad_share=command.bad_share,
        track=show_progress,
    )
    for split, images in made.images.items():
        print(f"{split or 'all'}: {counted(images, 'image')}, {counted(made.objects[split], 'object')}")
    if made.left_out:
        print(f"note: left out: {counted(made.left_out, 'image')} with errors")
    for note in made.notes:
        print(f"note: {note}")
    there = made.shards - made.written
    kept = f"; {there:,} were there already" if there else ""
    splits = {
        name or "all": {"images": images, "objects": made.objects[name]}
        for name, images in made.images.items()
    }
    add_result(out=made.location, shards=made.shards, bytes=made.size, splits=splits, notes=made.notes)
    print(f"written: {made.location}, {made.shards:,} shards of {made.size / _MEGABYTE:,.1f} MB{kept}")
    return 0

"""The boxes of an MP4 or QuickTime film (ISO/IEC 14496-12), read without its pictures."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# What the numbers of a damaged box lead to: offsets outside of it, unknown versions, lengths beyond any file.
UNREADABLE = (OSError, struct.error, LookupError, ValueError, ArithmeticError, MemoryError)


def movie(path: Path) -> bytes:
    """The content of the box `moov`. Raises what is in UNREADABLE."""
    with path.open("rb") as file:
        for kind, length in _top(file):
            if kind == b"moov":
                return file.read(length)
    raise KeyError("moov")


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of each box in the content of another."""
    start = 0
    while start + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        if size < 8:
            return
        yield kind, data[start + 8 : start + size]
        start += size


def number(box: bytes, *offsets: int) -> int:
    """32 bits at an offset that depends on the version of the box, 0 or 1."""
    return int(struct.unpack_from(">I", box, offsets[box[0]])[0])


def pictures(film: bytes) -> list[dict[bytes, bytes]]:
    """The boxes of each track of pictures in the content of `moov`. Raises what is in UNREADABLE."""
    tracks = [dict(boxes(content)) for kind, content in boxes(film) if kind == b"trak"]
    return [track for track in tracks if dict(boxes(track[b"mdia"]))[b"hdlr"][8:12] == b"vide"]


def fragment_frames(path: Path) -> int | None:
    """How many frames a film in fragments has, which only their own tables say; None if it is not in such."""
    try:
        film = movie(path)
        if b"mvex" not in dict(boxes(film)):
            return None
        track = number(pictures(film)[0][b"tkhd"], 12, 20)
        with path.open("rb") as file:
            fragments = (file.read(length) for kind, length in _top(file) if kind == b"moof")
            return sum(_samples(one, track) for one in fragments) or None
    except UNREADABLE:
        return None


def is_cut_in_fragment(path: Path) -> bool:
    """Whether the last box of a film in fragments is not there as a whole."""
    try:
        if b"mvex" not in dict(boxes(movie(path))):
            return False
    except UNREADABLE:
        return False
    try:
        end = path.stat().st_size
        with path.open("rb") as file:
            return any(file.tell() + length > end for _, length in _top(file))
    except UNREADABLE:
        return True  # within the first bytes of a box


def mirrored_axis(path: Path) -> int | None:
    """What is left to do by the matrix of the film's pictures, of which decoders take the angle alone.

    0: their rows are to be flipped, once the frame is turned by that angle, 1: their columns; None: nothing.
    """
    try:
        header = pictures(movie(path))[0][b"tkhd"]
        a, b, _, c, d = struct.unpack_from(">5i", header, (40, 52)[header[0]])
    except UNREADABLE:
        return None
    if a * d - b * c >= 0:
        return None
    return 0 if abs(a) > abs(b) else 1  # a, b: where the axis of the columns goes, which the angle puts right


def picture_tracks(path: Path) -> int:
    """How many tracks of pictures the film has; 0 if that cannot be read."""
    try:
        return len(pictures(movie(path)))
    except UNREADABLE:
        return 0


def _samples(fragment: bytes, track: int) -> int:
    """How many samples of a track a box `moof` lists."""
    count = 0
    for kind, content in boxes(fragment):
        parts = list(boxes(content)) if kind == b"traf" else []
        if any(kind == b"tfhd" and number(box, 4, 4) == track for kind, box in parts):
            count += sum(number(box, 4, 4) for kind, box in parts if kind == b"trun")
    return count


def _top(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """(kind, length of the content) of each box of a file, which stands at that; -1: up to the file's end."""
    start = 0
    while header := file.read(8):
        size, kind = struct.unpack(">I4s", header)
        read = 8
        if size == 1:
            (size,), read = struct.unpack(">Q", file.read(8)), 16
        yield kind, size - read if size else -1
        if size < read:
            break
        start += size
        file.seek(start)

"""How much of an MP4 or QuickTime film is shown: players trim without cutting, by an edit list."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

# What the numbers of a damaged box lead to: offsets outside of it, unknown versions, lengths beyond any file.
UNREADABLE = (OSError, struct.error, LookupError, ValueError, ArithmeticError, MemoryError)


def shown_seconds(path: Path) -> float | None:
    """The length that the edit list of the film's pictures shows; None if it has none that can be read."""
    try:
        movie = _movie(path)
        scale = _number(dict(_boxes(movie))[b"mvhd"], 12, 20)
        for kind, track in _boxes(movie):
            parts = dict(_boxes(track)) if kind == b"trak" else {}
            if b"edts" in parts and dict(_boxes(parts[b"mdia"]))[b"hdlr"][8:12] == b"vide":
                return _length(dict(_boxes(parts[b"edts"]))[b"elst"]) / scale
    except UNREADABLE:
        pass
    return None


def _movie(path: Path) -> bytes:
    """The content of the box `moov`, found without reading the pictures."""
    with path.open("rb") as file:
        while header := file.read(8):
            size, kind = struct.unpack(">I4s", header)
            read = 8
            if size == 1:
                (size,), read = struct.unpack(">Q", file.read(8)), 16
            if kind == b"moov":
                return file.read(size - read if size else -1)  # 0: up to the end of the file
            if size < read:
                break
            file.seek(size - read, 1)
    raise KeyError("moov")


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of each box."""
    start = 0
    while start + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        if size < 8:
            return
        yield kind, data[start + 8 : start + size]
        start += size


def _number(box: bytes, *offsets: int) -> int:
    """32 bits at an offset that depends on the version of the box, 0 or 1."""
    return int(struct.unpack_from(">I", box, offsets[box[0]])[0])


def _length(box: bytes) -> int:
    """The sum of an edit list's entries that show pictures; -1 stands for an empty stretch."""
    entry = struct.Struct((">Iii", ">Qqi")[box[0]])
    entries = (entry.unpack_from(box, 8 + number * entry.size) for number in range(_number(box, 4, 4)))
    return sum(length for length, start, _ in entries if start >= 0)

"""How much of an MP4 or QuickTime film is shown: players trim without cutting, by an edit list."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fssd.inference.mp4_boxes import UNREADABLE, boxes, movie, number, pictures

MOST_FRAMES = 20_000_000  # a week of them, and at most one for each byte of the film


def shown_frames(path: Path) -> int | None:
    """How many frames begin within the edit list of the film's pictures, which are those that FFmpeg gives.

    None if the film has no such list that can be read, or it shows none.
    """
    try:
        head = movie(path)
        scale = number(dict(boxes(head))[b"mvhd"], 12, 20)
        track = pictures(head)[0]
        media = dict(boxes(track[b"mdia"]))
        times, own = _times(media, min(path.stat().st_size, MOST_FRAMES)), number(media[b"mdhd"], 12, 20)
        edits = _edits(dict(boxes(track[b"edts"]))[b"elst"])
        return sum(_within(times, start, length * own / scale) for length, start in edits) or None
    except UNREADABLE:
        return None


def _within(times: NDArray[np.int64], start: int, length: float) -> int:
    """How many of the times a stretch holds. length: rounded, as it comes from the film's own ticks."""
    return int(((times >= start) & (times < start + round(length))).sum())


def _times(media: dict[bytes, bytes], most: int) -> NDArray[np.int64]:
    """When each frame is shown, in the track's ticks. Raises ValueError for more than `most`."""
    table = dict(boxes(dict(boxes(media[b"minf"]))[b"stbl"]))
    durations = _unrolled(table[b"stts"], ">u4", most)
    times = np.cumsum(durations) - durations  # of decoding
    if b"ctts" in table:
        delays = _unrolled(table[b"ctts"], ">i4", most)[: len(times)]
        times[: len(delays)] += delays
    return times


def _unrolled(box: bytes, kind: str, most: int) -> NDArray[np.int64]:
    """The values of a table of (how often, value). Raises ValueError."""
    rows = np.frombuffer(box, [("count", ">u4"), ("value", kind)], number(box, 4, 4), 8)
    counts = rows["count"].astype(np.int64)
    if counts.sum() > most:
        raise ValueError("more frames than the film can have")
    return np.repeat(rows["value"].astype(np.int64), counts)


def _edits(box: bytes) -> list[tuple[int, int]]:
    """(length, start) of the entries that show pictures; a start of -1 stands for an empty stretch."""
    entry = struct.Struct((">Iii", ">Qqi")[box[0]])
    entries = (entry.unpack_from(box, 8 + row * entry.size) for row in range(number(box, 4, 4)))
    return [(length, start) for length, start, _ in entries if start >= 0]

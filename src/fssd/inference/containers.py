"""What a film's container says of its own completeness, read without decoding anything.

Matroska and WebM: the EBML elements of RFC 8794 and RFC 9559. MPEG transport streams: packets of 188 bytes
(ISO/IEC 13818-1), 192 where a player has put a time before each. AVI: the chunks of Microsoft's RIFF. See
mp4_boxes.py for MP4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fssd.inference.mp4_boxes import is_cut_in_fragment

MATROSKA = frozenset({".mkv", ".webm"})
PACKETS = {".ts": 188, ".mts": 192, ".m2ts": 192}  # bytes
_HEADER, _SEGMENT, _TRACKS, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0x1F43B675
_TRACK, _TRACK_TYPE, _SOUND = 0xAE, 0x83, 2
_TOP = frozenset({
    0x114D9B74, 0x1549A966, _TRACKS, 0x1043A770, _CLUSTER, 0x1C53BB6B, 0x1941A469, 0x1254C367, 0xEC, 0xBF,
})  # fmt: skip
_IN_CLUSTER = frozenset({0xE7, 0xA3, 0xA0, 0xA7, 0xAB, 0x5854, 0xAF, 0xEC, 0xBF})
_HOLD_FRAMES = frozenset({b"AVI ", b"AVIX", b"movi", b"rec "})
_PICTURES = frozenset({b"dc", b"db"})
_SYNC = 0x47  # the first byte of each packet


def is_cut_short(path: Path) -> bool:
    """Whether the file ends before its container does; False where the container does not tell."""
    suffix = path.suffix.lower()
    try:
        length = path.stat().st_size
        if suffix in PACKETS:
            return length % PACKETS[suffix] != 0 and length % 188 != 0
        if suffix in MATROSKA:
            with path.open("rb") as file:
                start, size = _segment(file)
            return size is not None and start + size > length
        return is_cut_in_fragment(path)
    except (OSError, EOFError, ValueError):  # ValueError: a name with a zero byte
        pass
    return False


def empty_frames(path: Path) -> int:
    """How many of the frames that an AVI film counts are empty chunks: each shows the one before for longer.

    Reads the headers of all chunks up to one that is none, so ask only where frames are missing.
    """
    if path.suffix.lower() != ".avi":
        return 0
    track, count = b"", 0
    with suppress(OSError, struct.error), path.open("rb") as file:
        for kind, size in _chunks(file):
            if kind[2:] in _PICTURES:
                track = track or kind[:2]
                count += not size and kind[:2] == track
    return count


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """(kind, size) of each chunk, also in lists that hold frames. Raises struct.error at the end."""
    while True:
        kind, size = struct.unpack("<4sI", file.read(8))
        if not kind.isalnum():
            return
        if kind in (b"RIFF", b"LIST"):
            size = 0 if file.read(4) in _HOLD_FRAMES else size - 4
        else:
            yield kind, size
        file.seek(size + size % 2, 1)


def is_damaged(path: Path) -> bool:
    """Whether something in the file is no element or packet of its container; False where that is not known.

    Reads the headers of all elements, so ask only where a film looks damaged.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in PACKETS:
            return _has_lost_sync(path, PACKETS[suffix])
        if suffix in MATROSKA:
            with path.open("rb") as file:
                return _has_unknown_element(file)
    except OSError:
        pass
    return False


def _has_lost_sync(path: Path, size: int) -> bool:
    data = np.memmap(path, np.uint8, "r")
    starts = data[size - 188 :: size]
    return bool(len(starts)) and starts[0] == _SYNC and bool((starts != _SYNC).any())


def _has_unknown_element(file: BinaryIO) -> bool:
    try:
        start, size = _segment(file)
        if size is None:
            return False
        for kind, at, length in _elements(file, start, start + size):
            if kind not in _TOP:
                return True
            if kind == _CLUSTER and length is not None:
                children = _elements(file, at, at + length)
                if any(child not in _IN_CLUSTER for child, *_ in children):
                    return True
    except EOFError:
        return True
    return False


def may_have_sound(path: Path) -> bool:
    """Whether a track beside the pictures may be what a film's length is measured by; True if not known."""
    if path.suffix.lower() not in MATROSKA:
        return True
    try:
        with path.open("rb") as file:
            start, size = _segment(file)
            end = path.stat().st_size if size is None else start + size
            for kind, at, length in _elements(file, start, end):
                if kind == _TRACKS and length is not None:
                    return any(_is_sound(file, at, length) for at, length in _tracks(file, at, length))
                if kind == _CLUSTER:
                    break
    except (OSError, EOFError):
        pass
    return True


def _segment(file: BinaryIO) -> tuple[int, int | None]:
    """Where the content of the file's only segment starts, and its length, None if it is left open."""
    for kind, start, size in _elements(file, 0, 1 << 62):
        if kind == _SEGMENT:
            return start, size
        if kind != _HEADER:
            break
    raise EOFError


def _tracks(file: BinaryIO, start: int, size: int) -> Iterator[tuple[int, int]]:
    for kind, at, length in list(_elements(file, start, start + size)):
        if kind == _TRACK and length is not None:
            yield at, length


def _is_sound(file: BinaryIO, start: int, size: int) -> bool:
    for kind, at, length in _elements(file, start, start + size):
        if kind == _TRACK_TYPE and length is not None:
            file.seek(at)
            return int.from_bytes(file.read(length), "big") == _SOUND
    return True


def _elements(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int | None]]:
    """(id, start of the content, length of the content or None) of each element. Raises EOFError."""
    while start < end:
        file.seek(start)
        kind, _ = _number(file)
        marked, width = _number(file)
        size: int | None = marked & ((1 << 7 * width) - 1)
        if size == (1 << 7 * width) - 1:
            size = None  # a live recording
        at = file.tell()
        yield kind, at, size
        if size is None:
            return
        start = at + size


def _number(file: BinaryIO) -> tuple[int, int]:
    """An EBML number with its marker bit, and its width in bytes. Raises EOFError."""
    first = file.read(1)
    if not first or not first[0]:
        raise EOFError
    width = 9 - first[0].bit_length()
    rest = file.read(width - 1)
    if len(rest) < width - 1:
        raise EOFError
    return int.from_bytes(first + rest, "big"), width

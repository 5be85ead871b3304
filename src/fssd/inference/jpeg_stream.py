"""Pictures on stdin: Motion JPEG, whose damaged pictures do not end it, or one picture of any format."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO, Literal

from fssd.data.decode import decode_image
from fssd.data.sample import Image
from fssd.errors import ImageError

Report = Callable[[ImageError], None]
"""Takes the error of a picture after which the others go on."""
_BLOCK = 1 << 16
_START, _SCAN, _END = b"\xff\xd8", 0xDA, 0xD9  # of a JPEG; of its coded data
# From the end of a picture to the next one, with what HTTP sends between; a thumbnail has no such neighbour.
_NEIGHBOUR = re.compile(rb"[^\xff]{0,1000}\xff\xd8\xff")
_BOUNDARY = re.compile(rb"\xff\xd9" + _NEIGHBOUR.pattern)
_NEXT = _START + b"\xff"  # its first marker follows
_MARKER = re.compile(rb"\xff[\xc0-\xfe]")
_LIST = re.compile(rb"\xff\xe2..MPF\0", re.DOTALL)  # the segment that lists a file's pictures
_ENTRIES, _ENTRY = 0xB002, 16  # the tag of the list; bytes of each of its rows


def pictures_of(stream: BinaryIO, report: Report) -> Generator[tuple[int, Image], None, None]:
    """The numbers and pixels of JPEG pictures one after another (Motion JPEG, also with headers between
    them), or of one picture of any format.

    One of several that is damaged has its number too, and its error goes to `report`. Further pictures that
    a photograph lists as its own (a preview, a gain map) are none. Raises ImageError for a single picture of
    another format that cannot be decoded, for a last one that is cut short, and if there is none.
    """
    data, number = bytearray(stream.read(2)), 0
    is_motion = bytes(data) in (_START, b"--", b"\r\n")  # as it is, or in parts as HTTP sends it
    if not is_motion:
        yield 0, decode_image(bytes(data) + stream.read(), "stdin")
        return
    passed = 0
    own: list[tuple[int, int]] = []  # where the further pictures of the last photograph lie
    for ended in _blocks(stream, data):
        while (span := _next_jpeg(data) or (_cut_jpeg(data) if ended else None)) is not None:
            start, end = span
            jpeg = bytes(data[start:end])
            if not _lies_in(own, passed + start, passed + end):
                own = [(passed + start + low, passed + start + high) for low, high in _listed(jpeg)]
                try:
                    image = decode_image(jpeg, f"stdin#{number}")
                except ImageError as error:
                    report(error)
                    end = _first_end(data, start, end)
                else:
                    yield number, image
                number += 1
            passed += end
            del data[:end]
    if _START in data:
        raise ImageError(f"stdin#{number}: is cut short; check what writes it")
    if not number:
        raise ImageError("stdin: holds no picture; pipe a picture or Motion JPEG to it")


def _blocks(stream: BinaryIO, data: bytearray) -> Iterator[bool]:
    """Add what is there by now to `data`, so that a picture is seen as soon as it has come; at last True."""
    read = getattr(stream, "read1", stream.read)
    while block := read(_BLOCK):
        data += block
        yield False
    yield True


def _next_jpeg(data: bytearray, first: int = 0, *, is_split: bool = True) -> tuple[int, int] | None:
    """Where the first JPEG begins and ends, None if it is not there whole.

    Segments are skipped by their lengths, for a picture within (a thumbnail) has an end too. Where the next
    picture begins before this one has ended, it ends there. is_split: also within a segment that was cut.
    """
    start = data.find(_START, first)
    at = start + 2
    while start >= 0 and at + 2 <= len(data):
        kind = data[at + 1]
        if data[at] != 0xFF or kind < 0xC0 or 0xD0 <= kind <= 0xD7:  # coded data, up to the next marker
            at = data.find(0xFF, at + 1)
            if at < 0:
                return None
        elif kind == _END:
            return start, at + 2
        elif kind == 0xFF:  # a fill byte
            at += 1
        elif at + 4 > len(data):
            return None
        elif kind == _START[1]:
            if data[at + 2] == 0xFF:
                return start, at
            at += 2
        else:
            after = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if is_split and kind != _SCAN and (following := _in_segment(data, at, after)) is not None:
                return start, following
            at = after
    return None


def _in_segment(data: bytearray, at: int, after: int) -> int | None:
    """Where the next picture begins in a segment that was cut, so that no marker is where it should end.

    Left to the decoder, the two could become one picture: it takes tables from the header of the second.
    """
    for edge in (at + 2, after - 2):  # it was cut before its length, or two bytes before its end
        if data[edge : edge + 3] == _NEXT:
            return edge
    if after + 2 > len(data) or _MARKER.match(data, after):
        return None
    return _start_between(data, at + 1, after + 2)


def _start_between(data: bytearray, at: int, end: int) -> int | None:
    """Where the first JPEG begins that is no thumbnail: it reaches to the end, or another picture follows."""
    while (at := data.find(_NEXT, at, end)) >= 0:
        span = _next_jpeg(data, at, is_split=False)
        if span is None or span[1] >= end or _NEIGHBOUR.match(data, span[1]):
            return at
        at += len(_NEXT)
    return None


def _cut_jpeg(data: bytearray) -> tuple[int, int] | None:
    """The first JPEG of a stream that has ended, up to the next one, None if it is the last.

    A damaged marker, read as a segment, can lead beyond the end of the stream.
    """
    start = data.find(_START)
    boundary = _BOUNDARY.search(data, start) if start >= 0 else None
    return None if boundary is None else (start, boundary.start() + 2)


def _first_end(data: bytearray, start: int, end: int) -> int:
    """The end of a damaged JPEG: a damaged marker, read as a segment, can lead into a later picture."""
    boundary = _BOUNDARY.search(data, start, end)
    end = end if boundary is None else boundary.start() + 2
    following = _start_between(data, start + len(_START), end)
    return end if following is None else following


def _lies_in(spans: list[tuple[int, int]], start: int, end: int) -> bool:
    return any(start == low and end <= high for low, high in spans)


def _listed(jpeg: bytes) -> list[tuple[int, int]]:
    """Where the further pictures of a file begin and end, in bytes from its start, by the segment MPF.

    CIPA DC-007, "Multi-Picture Format": TIFF's form of a directory, positions from the header of which.
    """
    found = _LIST.search(jpeg)
    if found is None:
        return []
    head = found.end()
    order: Literal["little", "big"] = "little" if jpeg[head : head + 2] == b"II" else "big"

    def number(at: int, size: int = 4) -> int:
        return int.from_bytes(jpeg[at : at + size], order)

    directory = head + number(head + 4)
    rows = range(directory + 2, directory + 2 + 12 * number(directory, 2), 12)
    for row in rows:
        if number(row, 2) == _ENTRIES:
            first = head + number(row + 8)
            entries = range(first, min(first + number(row + 4), len(jpeg)), _ENTRY)
            places = [(number(entry + 8), number(entry + 4)) for entry in entries]
            return [(head + place, head + place + size) for place, size in places if place]
    return []

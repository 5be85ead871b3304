"""Edit lists, as the ISO base media file format has them (ISO/IEC 14496-12, 8.6.6)."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from fssd.inference.edit_list import shown_frames
from fssd.inference.video import Film, FilmWriter


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def endless(film: bytes) -> bytes:
    """The film without the length of its last box, the `moov`: it goes on to the end of the file."""
    place = film.index(b"moov") - 4
    return film[:place] + bytes(4) + film[place + 4 :]


def table(kind: bytes, *rows: tuple[int, int]) -> bytes:
    return box(kind, struct.pack(">II", 0, len(rows)), *(struct.pack(">Ii", *row) for row in rows))


EVEN = table(b"stts", (60, 50))  # 24 frames a second


def movie(version: int, handler: bytes, *edits: tuple[int, int], times: bytes = EVEN) -> bytes:
    """A `moov` of one track, 600 ticks a second, and 1200 of the track's own."""
    header = struct.pack(">I" + ("IIII", "QQIQ")[version], version << 24, 0, 0, 600, 1200)
    entries = [struct.pack((">IiI", ">QqI")[version], length, start, 1 << 16) for length, start in edits]
    listed = box(b"elst", struct.pack(">II", version << 24, len(entries)), *entries)
    own = struct.pack(">I" + ("IIII", "QQIQ")[version], version << 24, 0, 0, 1200, 2400)
    media = box(
        b"mdia",
        box(b"mdhd", own),
        box(b"hdlr", bytes(8), handler, bytes(13)),
        box(b"minf", box(b"stbl", times)),
    )
    return box(b"moov", box(b"mvhd", header), box(b"trak", box(b"edts", listed), media))


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(
    ("before", "edits", "frames"),
    [
        (b"", [(900, 0)], 36),
        (box(b"ftyp", b"isom") + box(b"mdat", bytes(1000)), [(300, -1), (600, 40), (300, 2000)], 24 + 12),
        (struct.pack(">I4sQ", 1, b"mdat", 116) + bytes(100), [(600, 0)], 24),
    ],
)
def test_frames_that_begin_within(
    tmp_path: Path, version: int, before: bytes, edits: list[tuple[int, int]], frames: int
) -> None:
    (tmp_path / "a.mp4").write_bytes(before + movie(version, b"vide", *edits))
    assert shown_frames(tmp_path / "a.mp4") == frames


@pytest.mark.parametrize(
    ("times", "edit", "frames"),
    [
        (table(b"stts", (10, 10), (10, 200)), (600, 100), 6),  # 100, 300 ... 1100
        (table(b"stts", (10, 10), (10, 200)), (600, 45), 5 + 6),  # 50 to 90, and those six
        (table(b"stts", (4, 100)) + table(b"ctts", (1, 100), (1, 300), (2, 0)), (100, 200), 2),  # 200 and 300
    ],
)
def test_frames_of_variable_length_and_another_order(
    tmp_path: Path, times: bytes, edit: tuple[int, int], frames: int
) -> None:
    (tmp_path / "a.mp4").write_bytes(movie(0, b"vide", edit, times=times))
    assert shown_frames(tmp_path / "a.mp4") == frames


def test_a_last_box_without_a_length_goes_on_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(endless(box(b"ftyp", b"isom") + movie(0, b"vide", (900, 0))))
    assert shown_frames(tmp_path / "a.mp4") == 36


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RIFF" * 40,
        box(b"moov"),
        movie(0, b"soun", (600, 0)),
        movie(0, b"vide", (600, 0))[:90],
        movie(0, b"vide", (600, 0)).replace(b"mvhd\0", b"mvhd\2"),  # a version that does not exist
        movie(0, b"vide", (600, 0)).replace(b"elst\0", b"elst\xff"),
        box(b"moov", box(b"mvhd")),
        movie(0, b"vide", (0, 0)),  # of a film in fragments
        movie(0, b"vide", (600, 0), times=table(b"stts", (2**31, 50))),  # more frames than the file has bytes
        movie(0, b"vide", (600, 0)).replace(EVEN, EVEN[:-8]),
        struct.pack(">I4sQ", 1, b"moov", 2**63 + 8),
        struct.pack(">I4sQ", 1, b"mdat", 2**64 - 1) + movie(0, b"vide", (600, 0)),
    ],
)
def test_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    assert shown_frames(tmp_path / "a.mp4") is None


@pytest.mark.parametrize(
    ("start", "seconds", "frames"),
    [(0, 0.6, 15), (0.34, 0.86, 21)],  # 21: frame 9, at 0.36, is the first that begins within
)
def test_a_trimmed_film_is_whole(tmp_path: Path, start: float, seconds: float, frames: int) -> None:
    """A phone's trimming sets the stretch in the list, and leaves the frames where they are."""
    path = tmp_path / "a.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)
    with FilmWriter(path, 25) as writer:
        for image in noise:
            writer.write(image)
    assert shown_frames(path) == 30
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12
    (own,) = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)
    struct.pack_into(">II", data, at, round(1000 * seconds), round(own * start))
    path.write_bytes(data)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 30, "what OpenCV says it holds"
    film = Film(path)
    assert len(list(film.frames())) == frames
    film.require_whole()

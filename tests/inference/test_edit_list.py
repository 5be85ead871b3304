"""Edit lists, as the ISO base media file format has them (ISO/IEC 14496-12, 8.6.6)."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from fssd.inference.edit_list import shown_seconds
from fssd.inference.video import Film, FilmWriter


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def endless(film: bytes) -> bytes:
    """The film without the length of its last box, the `moov`: it goes on to the end of the file."""
    place = film.index(b"moov") - 4
    return film[:place] + bytes(4) + film[place + 4 :]


def movie(version: int, handler: bytes, *edits: tuple[int, int]) -> bytes:
    """A `moov` of one track, 600 ticks a second."""
    header = struct.pack(">I" + ("IIII", "QQIQ")[version], version << 24, 0, 0, 600, 1200)
    entries = [struct.pack((">IiI", ">QqI")[version], length, start, 1 << 16) for length, start in edits]
    listed = box(b"elst", struct.pack(">II", version << 24, len(entries)), *entries)
    media = box(b"mdia", box(b"hdlr", bytes(8), handler, bytes(13)))
    return box(b"moov", box(b"mvhd", header), box(b"trak", box(b"edts", listed), media))


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(
    ("before", "edits", "seconds"),
    [
        (b"", [(900, 0)], 1.5),
        (box(b"ftyp", b"isom") + box(b"mdat", bytes(1000)), [(300, -1), (600, 40), (300, 2000)], 1.5),
        (struct.pack(">I4sQ", 1, b"mdat", 116) + bytes(100), [(600, 0)], 1.0),
    ],
)
def test_seconds(
    tmp_path: Path, version: int, before: bytes, edits: list[tuple[int, int]], seconds: float
) -> None:
    (tmp_path / "a.mp4").write_bytes(before + movie(version, b"vide", *edits))
    assert shown_seconds(tmp_path / "a.mp4") == seconds


def test_a_last_box_without_a_length_goes_on_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(endless(box(b"ftyp", b"isom") + movie(0, b"vide", (900, 0))))
    assert shown_seconds(tmp_path / "a.mp4") == 1.5


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
        struct.pack(">I4sQ", 1, b"moov", 2**63 + 8),
        struct.pack(">I4sQ", 1, b"mdat", 2**64 - 1) + movie(0, b"vide", (600, 0)),
    ],
)
def test_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    assert shown_seconds(tmp_path / "a.mp4") is None


def test_a_trimmed_film_is_whole(tmp_path: Path) -> None:
    """A phone's trimming sets the length in the list, and leaves the frames where they are."""
    path = tmp_path / "a.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)
    with FilmWriter(path, 25) as writer:
        for image in noise:
            writer.write(image)
    assert shown_seconds(path) == 1.2
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12
    data[at : at + 4] = struct.pack(">I", struct.unpack_from(">I", data, at)[0] // 2)
    path.write_bytes(data)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 30, "what OpenCV says it holds"
    film = Film(path)
    assert len(list(film.frames())) == 15
    film.require_whole()

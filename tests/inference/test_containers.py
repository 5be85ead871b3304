"""Films whose container is cut short or damaged, of variable rate, and turned."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from fssd.errors import ImageError
from fssd.inference.containers import empty_frames, is_cut_short, is_damaged, may_have_sound
from fssd.inference.video import Film


def write_film(path: Path, codec: str, count: int = 24) -> bytes:
    """A film of 160 x 120 at 25 a second by OpenCV alone; returns its bytes."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 25, (160, 120))
    assert writer.isOpened()
    noise = np.random.default_rng(0).integers(0, 255, (15, 20, 3), np.uint8)
    for number in range(count):
        writer.write(np.roll(cv2.resize(noise, (160, 120)), 3 * number, 1))
    writer.release()
    return path.read_bytes()


def verdict(path: Path) -> tuple[Film, str]:
    """The film after it was read to its end, and what is said of it."""
    film = Film(path)
    for _ in film.frames():
        pass
    try:
        film.require_whole()
    except ImageError as error:
        return film, error.reason
    return film, ""


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "mp4v"), ("a.webm", "VP80")])
def test_a_short_film_that_is_cut_short(tmp_path: Path, name: str, codec: str) -> None:
    """A second of film: within what a sound track could be longer by."""
    path = tmp_path / name
    data = write_film(path, codec)
    assert verdict(path)[1] == "" and not is_cut_short(path) and not is_damaged(path)
    assert not may_have_sound(path)
    path.write_bytes(data[: len(data) // 2])
    film, reason = verdict(path)
    there = len(film.decoded)
    assert 2 < there < 22 and is_cut_short(path)
    assert reason.startswith(f"{24 - there} of 24 frames cannot be decoded ({there} to 23); "), reason


def test_a_transport_stream_that_is_cut_short(tmp_path: Path) -> None:
    """A file of whole packets is a shorter film; one that ends within a packet was cut."""
    path = tmp_path / "a.ts"
    data = write_film(path, "mp4v", 60)
    assert len(data) % 188 == 0 and verdict(path)[1] == ""
    path.write_bytes(data[: len(data) // 2 // 188 * 188 + 100])
    film, reason = verdict(path)
    assert reason == f"is cut short after frame {film.decoded[-1]}; fetch the film again"


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "MJPG"), ("a.webm", "VP80"), ("a.ts", "mp4v")])
def test_frames_that_a_damaged_container_has_lost_are_counted(tmp_path: Path, name: str, codec: str) -> None:
    """The middle third is wiped: frames behind it keep their numbers, by their times."""
    path = tmp_path / name
    data = bytearray(write_film(path, codec, 60))
    third = len(data) // 3 // 188 * 188
    data[third : 2 * third] = bytes(third)
    path.write_bytes(data)
    assert is_damaged(path)
    film, reason = verdict(path)
    expected = np.round(np.array(film.times) * 25).astype(int).tolist()
    assert film.decoded == expected and 10 < len(film.decoded) < 50
    assert reason.startswith(f"{60 - len(film.decoded)} of 60 frames cannot be decoded ("), reason


def test_a_file_that_is_no_container(tmp_path: Path) -> None:
    for name, content in (("a.webm", b""), ("a.mkv", b"\x00" * 99), ("a.ts", b"no film")):
        path = tmp_path / name
        path.write_bytes(content)
        assert not is_cut_short(path) or path.suffix == ".ts"
        assert may_have_sound(path)


TIMES = (0, 40, 80, 400, 440, 480, 1000, 1040)  # milliseconds


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.webm", "libvpx-vp9")])
def test_a_variable_rate_is_no_damage(tmp_path: Path, name: str, codec: str) -> None:
    av = pytest.importorskip("av", reason='needs PyAV: pip install "fssd[video]"')
    path = tmp_path / name
    with av.open(str(path), "w") as film:
        stream = film.add_stream(codec, rate=25, width=64, height=48, pix_fmt="yuv420p")
        stream.codec_context.time_base = Fraction(1, 1000)
        for time in TIMES:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), time // 5, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    found, reason = verdict(path)
    assert reason == "" and found.decoded == list(range(8))
    assert np.allclose(found.times, np.array(TIMES) / 1000, atol=0.001)


def write_parts(path: Path, numbers: list[int], seconds_of_sound: float = 0, **options: str) -> bytes:
    """A film by PyAV with frames at these 25ths of a second, and silence; returns its bytes."""
    av = pytest.importorskip("av", reason='needs PyAV: pip install "fssd[video]"')
    with av.open(str(path), "w", options=options) as film:
        stream = film.add_stream("mpeg4", rate=25, width=64, height=48, pix_fmt="yuv420p")
        stream.codec_context.gop_size = 5
        sound = film.add_stream("aac", rate=8000, layout="mono") if seconds_of_sound else None
        for number in numbers:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 50 + number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
        if sound is not None:
            silence = np.zeros((1, int(8000 * seconds_of_sound)), np.float32)
            part = av.AudioFrame.from_ndarray(silence, "fltp", "mono")
            part.sample_rate, part.pts = 8000, 0
            film.mux(sound.encode(part))
            film.mux(sound.encode())
    return path.read_bytes()


FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}


def test_a_film_in_fragments_has_as_many_frames_as_they_list(tmp_path: Path) -> None:
    """Its sound is five times as long, and no table is of the whole film."""
    path = tmp_path / "a.mp4"
    write_parts(path, list(range(25)), 5, **FRAGMENTS)
    assert int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)) > 100, "OpenCV's estimate"
    film, reason = verdict(path)
    assert (len(film.decoded), film.declared, reason) == (25, 25, "")


@pytest.mark.parametrize(
    ("box", "behind", "told"),
    [
        (b"mdat", 40, " frames cannot be decoded ("),  # within the frames of the fourth fragment
        (b"moof", 20, "is cut short after frame "),  # within its table
        (b"moof", -2, "is cut short after frame "),  # within the header of that
    ],
)
def test_a_film_in_fragments_that_is_cut_short(tmp_path: Path, box: bytes, behind: int, told: str) -> None:
    path = tmp_path / "a.mp4"
    data = write_parts(path, list(range(25)), **FRAGMENTS)
    fourth = [at for at in range(len(data)) if data.startswith(box, at)][3]
    path.write_bytes(data[: fourth + behind])
    film, reason = verdict(path)
    assert 2 < film.decoded[-1] < 20 and told in reason


def test_empty_chunks_of_an_avi_film_are_no_frames(tmp_path: Path) -> None:
    """Where a recorder has left out frames; OpenCV counts 14. The rest is missing if the film is cut."""
    path = tmp_path / "a.avi"
    data = write_parts(path, [0, 1, 2, 5, 6, 7, 12, 13])
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 14
    film, reason = verdict(path)
    assert (len(film.decoded), empty_frames(path), reason) == (8, 6, "")
    assert film.times[-1] == pytest.approx(13 / 25)
    chunks = [at for at in range(data.index(b"movi"), len(data)) if data.startswith(b"00dc", at)]
    path.write_bytes(data[: chunks[8]])  # behind 0, 1, 2, two empty ones, 5, 6, 7
    film, reason = verdict(path)
    assert (len(film.decoded), empty_frames(path)) == (6, 2)
    assert reason.startswith("6 of 12 frames cannot be decoded (6 to 11); ")


def test_rotation_is_undone(turned_film: Path) -> None:
    first = next(Film(turned_film).frames())
    assert first.shape == (64, 48, 3)
    assert first[:32, 24:].mean() > 200 and first[32:].mean() < 50, "the white corner is upper right now"


@pytest.mark.parametrize(
    ("matrix", "corner"),  # x' = a x + c y, y' = b x + d y; the corner that is white then: row, column
    [
        ((-1, 0, 0, 1), (0, -1)),
        ((1, 0, 0, -1), (-1, 0)),
        ((0, 1, 1, 0), (0, 0)),
        ((0, -1, -1, 0), (-1, -1)),
        ((-1, 0, 0, -1), (-1, -1)),
    ],
)
def test_mirroring_is_undone(
    turned_film: Path, matrix: tuple[int, int, int, int], corner: tuple[int, int]
) -> None:
    a, b, c, d = (one << 16 for one in matrix)
    data = bytearray(turned_film.read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # ISO/IEC 14496-12, 8.3.2
    struct.pack_into(">5i", data, place, a, b, 0, c, d)
    turned_film.write_bytes(data)
    first = next(Film(turned_film).frames())
    assert first.shape == ((48, 64, 3) if matrix[0] else (64, 48, 3))
    white = {at for at in ((0, 0), (0, -1), (-1, 0), (-1, -1)) if first[at].mean() > 200}
    assert white == {corner}

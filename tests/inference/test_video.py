"""Films in and out: frames, damage, rates and sizes."""

from __future__ import annotations

import os
import shutil
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from fssd.data.sample import Image
from fssd.errors import ImageError
from fssd.inference.video import Film, FilmWriter

COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200))  # RGB


def frame(colour: tuple[int, int, int], width: int = 64, height: int = 48) -> Image:
    return np.full((height, width, 3), colour, np.uint8)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Three frames of 64 x 48, red, green, blue."""
    path = tmp_path / "film.mp4"
    with FilmWriter(path, 10.0) as writer:
        for colour in COLOURS:
            writer.write(frame(colour))
    return path


def write_film(
    path: Path, codec: str, count: int, rate: float = 25, size: tuple[int, int] = (160, 120)
) -> None:
    """A film by OpenCV alone, of frames that differ."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), rate, size)
    assert writer.isOpened()
    noise = np.random.default_rng(0).integers(0, 255, (size[1] // 8 + 1, size[0] // 8 + 1, 3), np.uint8)
    picture = cv2.resize(noise, size)
    for number in range(count):
        writer.write(np.roll(picture, 3 * number, 1))
    writer.release()


def written(path: Path) -> tuple[int, float, list[tuple[int, ...]]]:
    """(declared frames, rate, shapes of the frames) as OpenCV reads them."""
    capture, shapes = cv2.VideoCapture(str(path)), []
    declared, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    while (got := capture.read())[0]:
        shapes.append(got[1].shape)
    return int(declared), rate, shapes


def read(path: Path) -> tuple[Film, str]:
    """A film that is read to its end, and what is said of it."""
    film = Film(path)
    for _ in film.frames():
        pass
    try:
        film.require_whole()
    except ImageError as error:
        assert error.file == path
        return film, error.reason
    return film, ""


def test_round_trip(film: Path) -> None:
    opened = Film(film)
    assert opened.rate == 10
    frames = list(opened.frames())
    assert [(f.shape, f.dtype) for f in frames] == [((48, 64, 3), np.uint8)] * 3
    for found, colour in zip(frames, COLOURS, strict=True):
        assert np.abs(found.mean(axis=(0, 1)) - colour).max() < 25, "RGB, in the order they were written"
    assert [path.name for path in film.parent.iterdir()] == ["film.mp4"]
    opened.require_whole()
    assert opened.decoded == [0, 1, 2]


def test_what_was_written_is_kept_by_an_exception(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with pytest.raises(RuntimeError), FilmWriter(path, 10.0) as writer:
        writer.write(frame(COLOURS[0]), times=2)
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
    assert written(path) == (2, 10, [(48, 64, 3)] * 2)


def test_a_film_without_frames_is_no_file(tmp_path: Path) -> None:
    with FilmWriter(tmp_path / "film.mp4", 10.0):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"no film at all" * 50])
def test_what_is_no_film(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "film.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        Film(path)
    assert caught.value.file == path


def test_truncated_header(film: Path) -> None:
    film.write_bytes(film.read_bytes()[:200])
    with pytest.raises(ImageError) as caught:
        Film(film)
    assert caught.value.file == film


# ---- damage


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "MJPG"), ("a.mkv", "mp4v"), ("a.webm", "VP80")])
def test_a_film_that_is_cut_short(tmp_path: Path, name: str, codec: str) -> None:
    path = tmp_path / name
    write_film(path, codec, 60)
    assert read(path)[1] == ""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    film, reason = read(path)
    there = len(film.decoded)
    assert 10 < there < 50
    assert film.decoded == list(range(there))
    expected = f"{60 - there} of 60 frames cannot be decoded ({there} to 59); "
    assert reason.startswith(expected), reason


def test_frames_behind_damage_are_read(tmp_path: Path) -> None:
    """The coded data of frames 20 to 24 are overwritten; a Motion JPEG frame needs no other one.

    Their chunks' headers, 8 bytes before each frame, stay.
    """
    path = tmp_path / "a.avi"
    write_film(path, "MJPG", 40)
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data)) if data.startswith(b"\xff\xd8\xff", at)]
    assert len(starts) == 40
    for start, following in pairwise(starts[20:26]):
        data[start : following - 8] = bytes(following - 8 - start)
    path.write_bytes(data)
    film, reason = read(path)
    assert film.decoded == [*range(20), *range(25, 40)]
    assert reason.startswith("5 of 40 frames cannot be decoded (20 to 24); ")


def test_a_number_of_frames_that_is_too_low_hides_none(tmp_path: Path) -> None:
    """MPEG program streams hold no number; OpenCV's estimate for this one is 56."""
    path = tmp_path / "a.mpg"
    write_film(path, "MPG1", 60)
    film, reason = read(path)
    assert (len(film.decoded), reason) == (60, "")


class Capture:
    """Stands for OpenCV's: `frames` are those of the film, None for one that cannot be decoded."""

    frames: tuple[int | None, ...] = (1, 1)
    declared, rate, times = 2.0, 25.0, True

    def __init__(self, *_: object) -> None:
        self.number = -1

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return True

    def grab(self) -> bool:
        self.number += 1
        return self.number < len(self.frames) and self.frames[self.number] is not None

    def retrieve(self) -> tuple[bool, Image | None]:
        return True, frame(COLOURS[0])

    def get(self, key: int) -> float:
        if key == cv2.CAP_PROP_POS_MSEC:
            return 1000 * self.number / self.rate * self.times
        return {cv2.CAP_PROP_FPS: self.rate, cv2.CAP_PROP_FRAME_COUNT: self.declared}.get(key, 0)

    def release(self) -> None:
        pass


def pretend(monkeypatch: pytest.MonkeyPatch, **facts: object) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", type("Pretended", (Capture,), facts))


@pytest.mark.parametrize("rate", [0.0, 1e6, 90_000.0, 0.0005, float("nan")])
def test_a_rate_that_cannot_be_is_taken_as_25(monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
    pretend(monkeypatch, rate=rate)
    assert Film(Path("film.mp4")).rate == 25


@pytest.mark.parametrize(
    ("name", "frames", "declared", "times", "reason"),
    [
        ("a.mp4", [None, 1, None, None, 1], 5, True, "3 of 5 frames cannot be decoded (0, 2 to 3); "),
        ("a.mp4", [1, 1, 1], 4, True, "1 of 4 frames cannot be decoded (3); "),
        ("a.mp4", [1, 1, 1, 1], -2e14, True, ""),
        (
            "a.mp4",
            [1, 1, 1],
            1e9,
            True,
            f"{10**9 - 3} of {10**9} frames cannot be decoded (3 to {10**9 - 1}); ",
        ),
        ("a.mp4", [], 3, True, "holds no frame that can be decoded"),
        ("a.mp4", [], 0, True, "holds no frame that can be decoded"),
        ("a.mp4", [1, None] * 7, 14, True, "7 of 14 frames cannot be decoded (1, 3, 5, 7, 9, ...); "),
        ("a.mkv", [1] * 100, 120, True, ""),  # the sound goes on for most of a second
        ("a.mkv", [1] * 100, 200, True, "100 of 200 frames cannot be decoded (100 to 199); "),
        ("a.mpg", [1] * 100, 200, False, "100 of 200 frames cannot be decoded (100 to 199); "),
    ],
)
def test_which_frames_are_missing(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    frames: list[int | None],
    declared: float,
    times: bool,
    reason: str,
) -> None:
    pretend(monkeypatch, frames=tuple(frames), declared=declared, times=times)
    film, told = read(Path(name))
    assert len(film.decoded) == sum(one is not None for one in frames)
    assert told.startswith(reason) if reason else not told


@pytest.mark.parametrize("start", range(12))
def test_a_stretch_is_part_of_the_whole_wherever_frames_were_lost(
    start: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the fourth frame the times tell that the container has lost five without a word."""
    write_film(tmp_path / "a.avi", "MJPG", 12)

    def numbers(begin: int) -> list[int]:
        lost = iter([0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0])
        monkeypatch.setattr(Film, "_skipped", lambda *_: next(lost))
        film = Film(tmp_path / "a.avi")
        assert len(list(film.frames(begin))) == len(film.decoded)
        return film.decoded

    assert numbers(0)[:6] == [0, 1, 2, 3, 9, 10]
    assert numbers(start) == [number for number in numbers(0) if number >= start]


def test_a_film_that_is_cut_short_before_the_stretch_asked_for(tmp_path: Path) -> None:
    """Of a stretch behind its end nothing is read, and the number told is that of the last frame there is."""
    path = tmp_path / "a.mkv"
    write_film(path, "MJPG", 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    there = len(read(path)[0].decoded)
    film = Film(path)
    film.declared = 0  # as of a film of variable rate, whose number of frames is not held against it
    assert list(film.frames(there + 5)) == []
    with pytest.raises(ImageError, match=f"is cut short after frame {there - 1}; fetch the film again"):
        film.require_whole(there + 5)


# ---- what MPEG-4 can hold


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(239.7536, 239.75), (120.003, 120), (30000 / 1001, 29.97), (23.976, 23.976), (0.01, 0.01), (1000, 1000)],
)
def test_rates_are_rounded_until_they_can_be_written(tmp_path: Path, rate: float, expected: float) -> None:
    """MPEG-4's time base ends at 65,535 ticks a second: 239.754 = 119877 / 500 is too fine."""
    with FilmWriter(tmp_path / "a.mp4", rate) as writer:
        writer.write(frame(COLOURS[0]), times=3)
    declared, found, shapes = written(tmp_path / "a.mp4")
    assert (declared, round(found, 3), len(shapes)) == (3, expected, 3)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (9000, 100, (90, 8190)),
        (100, 9000, (8190, 90)),
        (1, 100, (100, 2)),
        (1, 1, (2, 2)),
        (65, 49, (48, 64)),
        (8190, 2, (2, 8190)),
    ],
)
def test_sizes_are_scaled_until_they_can_be_written(
    tmp_path: Path, width: int, height: int, expected: tuple[int, int]
) -> None:
    with FilmWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(frame(COLOURS[1], width, height))
    assert written(tmp_path / "a.mp4")[2] == [(*expected, 3)]


def test_frames_of_another_size_than_the_first(tmp_path: Path) -> None:
    with FilmWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(frame(COLOURS[1]))
        writer.write(frame(COLOURS[1], 32, 200))
    assert written(tmp_path / "a.mp4")[2] == [(48, 64, 3)] * 2


@pytest.mark.parametrize("opens", [False, True])
def test_a_library_that_writes_nothing_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opens: bool
) -> None:
    class Writer:
        fourcc = cv2.VideoWriter.fourcc

        def __init__(self, *_: object) -> None:
            pass

        def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
            return opens

        def write(self, _: Image) -> None:
            pass

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoWriter", Writer)
    reason = "could not be written whole" if opens else "OpenCV cannot write 64 x 48 MPEG-4 at 25 frames"
    with pytest.raises(ImageError, match=reason), FilmWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(frame(COLOURS[0]))
    assert list(tmp_path.iterdir()) == []


def test_a_frame_that_was_not_written_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = cv2.VideoWriter

    class Writer:
        fourcc = plain.fourcc

        def __init__(self, *arguments: object) -> None:
            self.writer, self.count = plain(*arguments), 0

        def write(self, image: Image) -> None:
            self.count += 1
            if self.count != 2:
                self.writer.write(image)

        def __getattr__(self, name: str) -> object:
            return getattr(self.writer, name)

    monkeypatch.setattr(cv2, "VideoWriter", Writer)
    with (
        pytest.raises(ImageError, match="could not be written whole"),
        FilmWriter(tmp_path / "a.mp4", 25) as writer,
    ):
        writer.write(frame(COLOURS[0]), times=3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["http:x.mp4", "img%03d.mp4", "a%20b.mp4", "stra\udcdfe.mp4", "concat:a|b.mp4"]
)
def test_names_that_others_take_for_something_else(
    film: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(film.parent)
    try:
        shutil.copy(film, os.fsencode(name))
    except OSError:
        pytest.skip("this file system does not take that name")
    assert read(Path(name))[1] == ""
    with FilmWriter(Path(f"out-{name}"), 25) as writer:
        writer.write(frame(COLOURS[0]), times=2)
    assert read(Path(f"out-{name}"))[0].decoded == [0, 1]

"""Drawn films as browsers play them: VP9 with sound at the right times, and the fallback."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scheduling import as_before

from fssd.data.sample import Image
from fssd.errors import ImageError
from fssd.inference.film_output import FilmOutput
from fssd.inference.video import Film
from fssd.inference.web_film import WebFilmWriter, can_write

av = pytest.importorskip("av", reason='needs PyAV: pip install "fssd[video]"')
RATE = 44_100


def shade(number: int) -> Image:
    """A grey frame of 64 x 48 that is lighter the later it is, ten times over."""
    return np.full((48, 64, 3), 20 + 20 * (number % 10), np.uint8)


def write_film(
    path: Path, times: list[int], seconds_of_sound: float = 0, rate: int = RATE, layout: str = "mono"
) -> Path:
    """Frames at `times` (milliseconds) and a tone from the first of them on, loud in half of each second."""
    with av.open(str(path), "w") as film:
        pictures = film.add_stream("mpeg4", rate=25, width=64, height=48, pix_fmt="yuv420p")
        pictures.codec_context.time_base = Fraction(1, 1000)
        sound = film.add_stream("aac", rate=rate, layout=layout) if seconds_of_sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(shade(number), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            film.mux(pictures.encode(frame))
        film.mux(pictures.encode())
        if sound is not None:
            seconds = np.arange(int(seconds_of_sound * rate)) / rate
            wave = (9000 * np.sin(2 * np.pi * 440 * seconds) * (seconds % 1 < 0.5)).astype(np.int16)
            first, channels = times[0] * rate // 1000, 1 if layout == "mono" else 2
            for start in range(0, len(wave), 1024):
                samples = np.repeat(wave[None, start : start + 1024], channels, axis=0)
                part = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "s16p", layout)
                part.sample_rate, part.pts, part.time_base = rate, first + start, Fraction(1, rate)
                film.mux(sound.encode(part))
            film.mux(sound.encode())
    return path


def copy(source: Path, target: Path, frames: int | None = None) -> Film:
    """The film written again as `fssd detect` does, at most so many frames of it."""
    film = Film(source)
    with FilmOutput(target, film) as output:
        for index, image in enumerate(film.frames()):
            if index == frames:
                break
            output.add(image, index)
    return film


def decoded(path: Path) -> tuple[list[float], list[float], Any]:
    """(times of the frames, their mean shades, the sound's samples or None) as PyAV reads them."""
    with av.open(str(path)) as film:
        assert film.streams.video[0].codec_context.name == "vp9"
        frames = [
            (float(one.time), float(one.to_ndarray(format="gray").mean())) for one in film.decode(video=0)
        ]
    with av.open(str(path)) as film:
        if not film.streams.audio:
            return [time for time, _ in frames], [tone for _, tone in frames], None
        assert film.streams.audio[0].codec_context.name == "opus"
        sound = np.concatenate([one.to_ndarray()[0] for one in film.decode(audio=0)])
    return [time for time, _ in frames], [tone for _, tone in frames], sound


def test_times_of_a_variable_rate_are_kept(tmp_path: Path) -> None:
    milliseconds = [0, 40, 80, 400, 440, 480, 1000, 1040]
    copy(write_film(tmp_path / "a.mp4", milliseconds), tmp_path / "b.mp4")
    times, tones, sound = decoded(tmp_path / "b.mp4")
    assert times == pytest.approx([one / 1000 for one in milliseconds], abs=0.001) and sound is None
    assert tones == pytest.approx([20 + 20 * number for number in range(8)], abs=6)


@pytest.mark.parametrize("frames", [None, 25])
def test_the_sound_is_kept_as_far_as_the_pictures_go(tmp_path: Path, frames: int | None) -> None:
    """Two seconds of film; after one of them it may be stopped."""
    source = write_film(tmp_path / "a.mov", list(range(0, 2000, 40)), 2)
    copy(source, tmp_path / "b.mp4", frames)
    times, _, sound = decoded(tmp_path / "b.mp4")
    length = 2.0 if frames is None else 1.0
    assert len(times) == 25 * length
    assert len(sound) / 48_000 == pytest.approx(length, abs=0.05)
    loud = [float(np.abs(sound[start : start + 19_200]).mean()) for start in (0, 26_400)]
    assert loud[0] > 0.1 and loud[1] < 0.01, "a tone for half a second, then silence"


@pytest.mark.parametrize(
    ("start", "rate", "layout"),
    [
        (1500, 44_100, "stereo"),  # the sound's format changes in the middle
        (1500, 48_000, "mono"),
        (1450, 44_100, "mono"),  # both parts hold the sound of 50 milliseconds
        (0, 44_100, "mono"),  # the clock begins anew
    ],
)
def test_the_sound_of_joined_recordings(tmp_path: Path, start: int, rate: int, layout: str) -> None:
    """1.5 seconds each, loud for half a second, silent, and loud: the second is heard as the first."""
    parts = [
        write_film(tmp_path / "a.ts", list(range(0, 1500, 100)), 1.5),
        write_film(tmp_path / "b.ts", list(range(start, start + 1500, 100)), 1.5, rate, layout),
    ]
    joined = tmp_path / "c.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    copy(joined, tmp_path / "d.mp4")
    times, _, sound = decoded(tmp_path / "d.mp4")
    assert len(times) == 30
    assert len(sound) / 48_000 == pytest.approx(3, abs=0.15)
    loud = [float(np.abs(sound[at : at + 9600]).mean()) for at in range(7200, 144_000 - 9600, 24_000)]
    assert [one > 0.05 for one in loud] == [True, False, True, True, False, True]


def test_a_sound_that_cannot_be_opened_is_silence(tmp_path: Path) -> None:
    with WebFilmWriter(tmp_path / "a.mp4", 25, sound=tmp_path / "none.mov") as writer:
        writer.write(shade(1), 0)
    assert decoded(tmp_path / "a.mp4")[2] is None


def test_frames_that_are_lost_are_stood_in_for(tmp_path: Path) -> None:
    film = Film(write_film(tmp_path / "a.mp4", [0, 40, 80, 120, 160]))
    film.decoded, film.times = [0, 1, 4], [0.0, 0.04, 0.16]
    with FilmOutput(tmp_path / "b.mp4", film) as output:
        for index in range(3):
            output.add(shade(4 * index), index)
    times, tones, _ = decoded(tmp_path / "b.mp4")
    assert times == pytest.approx([0, 0.04, 0.08, 0.12, 0.16], abs=0.001)
    assert tones == pytest.approx([20, 100, 180, 180, 180], abs=6)


@pytest.mark.parametrize(("codec", "is_turned"), [("mpeg4", False), ("mpeg4", True), ("libsvtav1", False)])
def test_pixels_that_are_not_square(tmp_path: Path, codec: str, is_turned: bool) -> None:
    """Twice as wide as high, and half as wide where the film is shown on its side."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    source, shape = tmp_path / "a.mp4", Fraction(2)
    with as_before(), av.open(str(source), "w") as film:
        pictures = film.add_stream(codec, rate=25, width=96, height=64, pix_fmt="yuv420p")
        pictures.codec_context.sample_aspect_ratio = shape
        film.mux(pictures.encode(av.VideoFrame(96, 64, "yuv420p")))
        film.mux(pictures.encode())
    if is_turned:
        data = bytearray(source.read_bytes())
        struct.pack_into(">5i", data, data.index(b"tkhd") + 4 + 40, 0, 1 << 16, 0, -(1 << 16), 0)
        source.write_bytes(data)
        shape = 1 / shape
    copy(source, tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as drawn:
        stream = drawn.streams.video[0]
        assert stream.sample_aspect_ratio == shape
        assert (stream.width, stream.height) == ((64, 96) if is_turned else (96, 64))


def test_what_was_written_is_kept_by_an_exception(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), WebFilmWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(shade(1), 0)
        writer.write(shade(2), 0.04)
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert len(decoded(tmp_path / "a.mp4")[0]) == 2
    with WebFilmWriter(tmp_path / "none.mp4", 25):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("size", [(65, 49), (1, 1), (9000, 20)])
def test_sizes_that_video_does_not_hold(tmp_path: Path, size: tuple[int, int]) -> None:
    with WebFilmWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(np.zeros((size[1], size[0], 3), np.uint8), 0)
    frame = next(Film(tmp_path / "a.mp4").frames())
    assert frame.shape[1::-1] == {(65, 49): (64, 48), (1, 1): (2, 2), (9000, 20): (8190, 18)}[size]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EINVAL, None])
def test_a_full_disk_is_told_from_other_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("as PyAV says") if number is None else av.error.FFmpegError(number, "as it says")

    with pytest.raises((OSError, ImageError)) as caught, WebFilmWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(shade(0), 0)
        monkeypatch.setattr(writer, "_add_sound", fail)
        writer.write(shade(1), 0.04)
    assert isinstance(caught.value, ImageError) == (number != errno.ENOSPC)
    assert str(tmp_path / "a.mp4") in str(caught.value)


def test_without_pyav_opencv_writes_at_the_mean_rate(tmp_path: Path, refuse: Callable[[str], None]) -> None:
    """Eight frames, the last one at 1.04 seconds: as many at the mean rate as that takes."""
    source = write_film(tmp_path / "a.mp4", [0, 40, 80, 400, 440, 480, 1000, 1040])
    refuse("av")
    assert not can_write()
    film = copy(source, tmp_path / "b.mp4")
    capture = cv2.VideoCapture(str(tmp_path / "b.mp4"))
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    assert count == round(1.04 * film.rate) + 1


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "stra\udcdfe.mp4"
    with WebFilmWriter(path, 25) as writer:
        writer.write(shade(1), 0)
    assert path.is_file()


def test_a_browser_plays_it(browser: Any, tmp_path: Path) -> None:
    source = write_film(tmp_path / "a.mp4", list(range(0, 1000, 40)), 1)
    copy(source, tmp_path / "b.mp4")
    (tmp_path / "page.html").write_text('<video id="film" src="b.mp4" muted></video>')
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    told = page.evaluate("""async () => {
        const film = document.getElementById("film");
        const ended = new Promise((good, bad) => {
            film.onended = good; film.onerror = () => bad(film.error);
        });
        await film.play();
        await ended;
        return [film.videoWidth, film.duration, film.webkitDecodedFrameCount,
            film.webkitAudioDecodedByteCount];
    }""")
    page.close()
    assert told[0] == 64 and told[1] == pytest.approx(1, abs=0.06)
    assert told[2] > 0 and told[3] > 0, "pictures and sound were decoded"

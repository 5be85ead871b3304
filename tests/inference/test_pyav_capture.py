"""Films in AV1, which PyAV decodes where OpenCV does not, and that both mean the same by what they say."""

from __future__ import annotations

import struct
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from scheduling import as_before

from fssd.errors import ImageError
from fssd.inference.pyav_capture import PyAvCapture
from fssd.inference.video import Film

TIMES = (0, 40, 80, 400, 440, 480, 1000, 1040)  # milliseconds


def write(path: Path, codec: str = "libsvtav1") -> Path:
    """A film of 96 x 64 at `TIMES`, whose frame number n has the shade 20 + 25 n."""
    av = pytest.importorskip("av", reason='needs PyAV: pip install "fssd[video]"')
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    with as_before(), av.open(str(path), "w") as film:
        stream = film.add_stream(codec, rate=25, width=96, height=64, pix_fmt="yuv420p")
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(TIMES):
            shade = np.full((64, 96, 3), 20 + 25 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(shade, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_av1_is_read(tmp_path: Path, name: str) -> None:
    film = Film(write(tmp_path / name))
    shades = [frame.mean() for frame in film.frames()]
    film.require_whole()
    assert np.allclose(shades, [20 + 25 * number for number in range(8)], atol=3)
    assert np.allclose(film.times, np.array(TIMES) / 1000, atol=0.001)


def test_av1_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4")
    if cv2.VideoCapture(str(path), cv2.CAP_FFMPEG).grab():
        pytest.skip("this OpenCV decodes AV1")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        ImageError, match=r'a\.mp4: is in AV1, .*; pip install "fssd\[video\]", or convert it'
    ):
        Film(path)


def test_a_damaged_av1_film_names_its_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    size = struct.unpack(">I", data[start - 8 : start - 4])[0] - 8
    data[start + size // 2 : start + size] = b"\xff" * (size - size // 2)
    path.write_bytes(data)
    film = Film(path)
    decoded = len(list(film.frames()))
    with pytest.raises(ImageError, match=rf"{8 - decoded} of 8 frames cannot be decoded \(\d .*7\)"):
        film.require_whole()


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.webm", "libvpx-vp9")])
def test_both_mean_the_same(tmp_path: Path, name: str, codec: str) -> None:
    path = str(write(tmp_path / name, codec))
    ours, theirs = PyAvCapture(path, Path(path)), cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    for what in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT):
        assert ours.get(what) == pytest.approx(theirs.get(what), abs=1)
    for _ in TIMES:
        assert ours.grab() and theirs.grab()
        assert ours.get(cv2.CAP_PROP_POS_MSEC) == pytest.approx(theirs.get(cv2.CAP_PROP_POS_MSEC))
        difference = ours.retrieve()[1].astype(int) - theirs.retrieve()[1]
        assert abs(difference).max() <= 2
    assert not ours.grab() and not theirs.grab()


def test_rotation_is_undone(turned_film: Path) -> None:
    pytest.importorskip("av", reason='needs PyAV: pip install "fssd[video]"')
    film = PyAvCapture(str(turned_film), turned_film)
    assert film.grab()
    good, first = film.retrieve()
    assert good and first.shape == (64, 48, 3)
    assert first[:32, 24:].mean() > 200 and first[32:].mean() < 50, "the white corner is upper right now"


def test_a_file_that_is_no_film(tmp_path: Path) -> None:
    pytest.importorskip("av", reason='needs PyAV: pip install "fssd[video]"')
    path = tmp_path / "a.mp4"
    path.write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"a\.mp4: cannot be opened as a video \("):
        PyAvCapture(str(path), path)

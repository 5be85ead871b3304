"""Videos in and out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fssd.errors import ImageError
from fssd.inference.video import VideoInfo, read_frames, video_info, video_writer

COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200))  # RGB


def frame(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((48, 64, 3), colour, np.uint8)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Three frames of 64 x 48, red, green, blue."""
    path = tmp_path / "film.mp4"
    with video_writer(path, VideoInfo(64, 48, 10.0)) as writer:
        for colour in COLOURS:
            writer.write(cv2.cvtColor(frame(colour), cv2.COLOR_RGB2BGR))
    return path


def test_round_trip(film: Path) -> None:
    assert video_info(film) == VideoInfo(64, 48, 10.0)
    frames = list(read_frames(film))
    assert [(f.shape, f.dtype) for f in frames] == [((48, 64, 3), np.uint8)] * 3
    for found, colour in zip(frames, COLOURS, strict=True):
        assert np.abs(found.mean(axis=(0, 1)) - colour).max() < 25, "RGB, in the order they were written"
    assert [path.name for path in film.parent.iterdir()] == ["film.mp4"]


def test_video_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with pytest.raises(RuntimeError), video_writer(path, VideoInfo(64, 48, 10.0)) as writer:
        writer.write(frame(COLOURS[0]))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"no film at all" * 50])
def test_what_is_no_video(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "film.mp4"
    if content is not None:
        path.write_bytes(content)
    for look in (video_info, lambda p: list(read_frames(p))):
        with pytest.raises(ImageError) as caught:
            look(path)
        assert caught.value.file == path


def test_truncated_video(film: Path) -> None:
    film.write_bytes(film.read_bytes()[:200])
    with pytest.raises(ImageError) as caught:
        list(read_frames(film))
    assert caught.value.file == film


@pytest.mark.parametrize("rate", [0.0, 1e6, float("nan")])
def test_a_rate_that_cannot_be_is_taken_as_25(
    film: Path, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    class Capture:
        def __init__(self, _: str) -> None:
            self.values = {cv2.CAP_PROP_FPS: rate, cv2.CAP_PROP_FRAME_WIDTH: 64.0}

        def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
            return True

        def get(self, key: int) -> float:
            return self.values.get(key, 48.0)

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    assert video_info(film) == VideoInfo(64, 48, 25.0)

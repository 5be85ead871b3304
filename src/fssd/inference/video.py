"""Reading and writing of video files, with OpenCV's FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fssd.atomic import atomic_path
from fssd.data.sample import Image
from fssd.errors import ImageError


class VideoInfo(NamedTuple):
    """width, height: pixels. rate: frames per second, 25 if the file does not state it."""

    width: int
    height: int
    rate: float


def video_info(path: Path) -> VideoInfo:
    """Size and rate of a video. Raises ImageError if it cannot be opened."""
    with _opened(path) as capture:
        rate = capture.get(cv2.CAP_PROP_FPS)
        width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    return VideoInfo(int(width), int(height), rate if 0 < rate < 1000 else 25.0)


def read_frames(path: Path) -> Iterator[Image]:
    """The frames of a video, (H, W, 3) uint8 RGB, one at a time. Raises ImageError if there is none."""
    count = 0
    with _opened(path) as capture:
        while True:
            good, frame = capture.read()
            if not good:
                break
            count += 1
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
    if count == 0:
        raise ImageError("holds no frame that can be decoded; convert it, for example to mp4", file=path)


@contextmanager
def video_writer(path: Path, info: VideoInfo) -> Iterator[cv2.VideoWriter]:
    """A writer of BGR frames to an .mp4 file, which appears under its name when it is complete."""
    size, codec = (info.width, info.height), cv2.VideoWriter.fourcc(*"mp4v")
    with atomic_path(path) as temporary:
        writer = cv2.VideoWriter(str(temporary), codec, info.rate, size)
        if not writer.isOpened():
            raise ImageError("cannot be written: this OpenCV has no mp4v encoder", file=path)
        try:
            yield writer
        finally:
            writer.release()


@contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise ImageError("cannot be opened as a video; check that it plays elsewhere", file=path)
        yield capture
    finally:
        capture.release()

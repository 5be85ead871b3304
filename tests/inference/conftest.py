"""A film as a telephone that is held upright writes it."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture
def turned_film(tmp_path: Path) -> Path:
    """Three frames of 64 x 48, white in the upper left corner, and a quarter turn in the track's matrix."""
    path = tmp_path / "a.mp4"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = 255
    for _ in range(3):
        writer.write(picture)
    writer.release()
    data = bytearray(path.read_bytes())
    matrix = data.index(struct.pack(">3i", 1 << 16, 0, 0), data.index(b"tkhd"))
    data[matrix : matrix + 20] = struct.pack(">5i", 0, 1 << 16, 0, -(1 << 16), 0)  # clockwise by 90 degrees
    path.write_bytes(data)
    return path

"""The images of the check."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from fssd.data.geometry import Warp
from fssd.export.images import CHECKED, fill_up, make_pictures, read_pictures


def test_made_pictures_differ_and_come_back_alike() -> None:
    images = make_pictures(6, (64, 64))
    assert (images.shape, images.dtype) == ((6, 3, 64, 64), torch.uint8)
    assert not images[0].any(), "black, as from a covered camera"
    assert len({image.numpy().tobytes() for image in images}) == 6
    assert torch.equal(images, make_pictures(6, (64, 64)))


def test_own_pictures_are_filled_up() -> None:
    own = torch.full((3, 3, 64, 64), 7, dtype=torch.uint8)
    filled = fill_up(own, (64, 64))
    assert len(filled) == CHECKED >= 32
    assert torch.equal(filled[:3], own)
    assert len(fill_up(own.repeat(20, 1, 1, 1), (64, 64))) == 60
    assert len(fill_up(None, (64, 64))) == CHECKED


def test_reading_takes_files_evenly(tmp_path: Path) -> None:
    files = [tmp_path / f"{value}.png" for value in range(7)]
    for value, file in enumerate(files):
        cv2.imwrite(str(file), np.full((20, 10, 3), value, np.uint8))
    warp = Warp((32, 32))
    read = read_pictures(files, warp, most=3)
    assert read.shape == (3, 3, 32, 32)
    assert read[:, 0, 0, 0].tolist() == [0, 3, 6]
    assert len(read_pictures(files, warp)) == 7

"""Images to time on."""

from __future__ import annotations

from pathlib import Path

import pytest

from fssd.bench.photographs import made_pictures, user_pictures
from fssd.errors import DataError, ImageError


def test_made_ones_are_jpegs_of_vocs_size(tmp_path: Path) -> None:
    made = made_pictures(tmp_path, 3)
    assert made.what == "3 made JPEGs of 500 x 375"
    assert len(made.files) == len(made.contents) == len(made.images) == 3
    for file, content, image in zip(made.files, made.contents, made.images, strict=True):
        assert file.read_bytes() == content
        assert content.startswith(b"\xff\xd8")
        assert image.shape == (375, 500, 3)
        assert image.std() > 10  # a black one would decode too quickly


def test_indices_of_a_batch(tmp_path: Path) -> None:
    made = made_pictures(tmp_path, 3)
    assert [made.indices(turn, 2) for turn in range(3)] == [[0, 1], [2, 0], [1, 2]]
    assert made.indices(0, 5) == [0, 1, 2, 0, 1]


def test_the_users_images(scenes: Path) -> None:
    given = user_pictures([str(scenes / "JPEGImages")])
    assert given.what == "16 of 16 images given"
    assert all(image.shape == (300, 300, 3) for image in given.images)


def test_many_images_are_taken_evenly(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fssd.bench.photographs.MOST", 7)
    given = user_pictures([str(scenes / "JPEGImages")])
    files = sorted((scenes / "JPEGImages").iterdir())
    assert list(given.files) == files[::3]  # 6 of 16; every second one would be 8
    assert given.what == "6 of 16 images given"


def test_a_film_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="is a video, where images are needed"):
        user_pictures([str(tmp_path / "clip.mp4")])


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 and no more")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        user_pictures([str(tmp_path)])

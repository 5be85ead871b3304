"""Images that are almost the same: copies are found, other images are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fssd.data import duplicates
from fssd.data.duplicates import SIDE, alike, near_duplicates, read_thumbnail, thumbnail


def photograph(seed: int, size: tuple[int, int] = (120, 160)) -> Any:
    """Blurred noise: as smooth as photographs are."""
    noise = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    return cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)


def compressed(image: Any) -> Any:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)


def test_copies_are_found() -> None:
    first = [thumbnail(photograph(seed)) for seed in range(20)]
    copies = [
        cv2.resize(photograph(3), (90, 70)),
        compressed(photograph(7)),
        np.clip(0.7 * photograph(11) + 40, 0, 255).astype(np.uint8),
        np.ascontiguousarray(photograph(15)[:, ::-1]),
        photograph(99),
    ]
    pairs = near_duplicates({"train": first, "val": [thumbnail(image) for image in copies]})
    assert {pair.splits for pair in pairs} == {("train", "val")}
    found = {pair.indices[1]: (pair.indices[0], pair.mirrored) for pair in pairs}
    assert found == {0: (3, False), 1: (7, False), 2: (11, False), 3: (15, True)}
    values = [pair.correlation for pair in pairs]
    assert values == sorted(values, reverse=True)


def test_correlation() -> None:
    # Orthogonal patterns a and b: a + b and a have a correlation of 1 / sqrt(2).
    columns = np.indices((SIDE, SIDE))[1]
    a, b = 40 * (-1.0) ** columns, 40 * (-1.0) ** (columns // 2)
    images = {"one": [(128 + a + b).astype(np.uint8)], "two": [(128 + a).astype(np.uint8)]}
    (pair,) = near_duplicates(images, least=0.5)
    assert pair.correlation == pytest.approx(np.sqrt(0.5), abs=1e-5)
    assert near_duplicates(images) == []


def test_blank_images_match_nothing() -> None:
    blank = [thumbnail(np.full((50, 60, 3), grey, np.uint8)) for grey in (0, 128, 255)]
    assert near_duplicates({"train": blank, "val": blank}) == []


def test_three_splits_and_one_partner_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "CHUNK", 2)
    same = thumbnail(photograph(0))
    other = thumbnail(photograph(1))
    pairs = near_duplicates({"a": [other, other, same, same, same], "b": [same], "c": [same, other]})
    assert sorted((pair.splits, pair.indices) for pair in pairs) == [
        (("a", "b"), (2, 0)), (("a", "c"), (0, 1)), (("a", "c"), (2, 0)), (("b", "c"), (0, 0)),
    ]  # fmt: skip
    assert all(pair.correlation == pytest.approx(1, abs=1e-5) for pair in pairs)


def test_nothing_to_compare() -> None:
    assert near_duplicates({}) == []
    assert near_duplicates({"train": [], "val": [thumbnail(photograph(0))]}) == []


def test_within_a_list() -> None:
    images = [photograph(0), photograph(1), compressed(photograph(0)), photograph(2), photograph(1)[:, ::-1]]
    pairs = {tuple(row.tolist()) for row in alike([thumbnail(np.ascontiguousarray(i)) for i in images])}
    assert pairs == {(0, 2), (1, 4)}
    assert list(alike([])) == []


def test_a_file_gives_the_thumbnail_of_its_image(tmp_path: Path) -> None:
    image = photograph(4, (600, 800))
    cv2.imwrite(str(tmp_path / "a.jpg"), image[:, :, ::-1])
    found = np.corrcoef(read_thumbnail(tmp_path / "a.jpg").ravel(), thumbnail(image).ravel())[0, 1]
    assert found > 0.99
    (tmp_path / "b.jpg").write_bytes(b"no image")
    assert not read_thumbnail(tmp_path / "b.jpg").any()

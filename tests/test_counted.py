"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from fssd.counted import counted


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [
        (0, "image", "0 images"), (1, "image", "1 image"), (1200, "image", "1,200 images"),
        (1, "box", "1 box"), (2, "box", "2 boxes"), (1, "class", "1 class"), (3, "class", "3 classes"),
    ],
)  # fmt: skip
def test_counted(number: int, noun: str, expected: str) -> None:
    assert counted(number, noun) == expected

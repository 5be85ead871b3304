"""What is taken as an image, and the sentence for what is not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from fssd.errors import ImageError
from fssd.inference.picture import as_array, is_one


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (b"\xff\xd8", r"content of an image file \(bytes\) is not taken; .*PIL\.Image\.open"),
        (bytearray(9), r"\(bytearray\)"),
        (memoryview(b"abc"), r"\(memoryview\)"),
        (io.BytesIO(b"abc"), r"\(BytesIO\)"),
        ("clip.mp4", r"clip\.mp4: is a video"),
        (Path("films/A.MOV"), r"A\.MOV: is a video"),
        ("folder/*.jpg", r"folder/\*\.jpg: is a pattern and no file"),
        ("none.jpg", r"none\.jpg: there is no such image file; check the path"),
        ("https://host/a.jpg", r"^https://host/a\.jpg: is an address"),
        (3, "not a int"),
        (None, "not a NoneType"),
    ],
)
def test_one_sentence_for_what_is_no_image(given: Any, reason: str) -> None:
    assert is_one(given)
    with pytest.raises(ImageError, match=reason) as caught:
        as_array(given)
    assert "label" not in str(caught.value)


def test_a_name_with_the_signs_of_a_pattern_is_a_file_if_there_is_one(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (4, 3), "red").save(tmp_path / "a[1].png")
    assert as_array(tmp_path / "a[1].png").shape == (3, 4, 3)


def test_several() -> None:
    for several in ([], ["a.jpg"], ("a.jpg",), iter(["a.jpg"]), torch.zeros(2, 3)):
        assert not is_one(several)


def test_eight_bits_in_thirty_two_stay_as_bright() -> None:
    grey = PIL.Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert np.array_equal(as_array(grey.convert("I")), as_array(grey))


def test_sixteen_bits_in_thirty_two_keep_the_upper_eight(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.int32).reshape(16, 16) * 257
    assert np.array_equal(as_array(PIL.Image.fromarray(values))[..., 0], values >> 8)
    # A dark file of 16 bits is dark, however it is opened.
    PIL.Image.fromarray(np.full((4, 4), 200, np.uint16)).save(tmp_path / "dark.png")
    assert not as_array(PIL.Image.open(tmp_path / "dark.png")).any()
    assert not as_array(tmp_path / "dark.png").any()

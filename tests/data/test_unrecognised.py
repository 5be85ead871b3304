"""Where no format is recognised: what is there, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fssd.data.source import find_reader
from fssd.errors import DataError


def message(root: Path) -> str:
    with pytest.raises(DataError) as error:
        find_reader(root)
    return error.value.reason


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"{}")
    return root


def test_pictures_alone(tmp_path: Path) -> None:
    told = message(put(tmp_path, "a.jpg", "b.JPG", "deep/c.png", "README"))
    held = "holds no known data set but 2 .jpg, 1 .png, 1 without a suffix"
    assert told.startswith(f"{held}; the pictures have no labels")
    assert "fssd label" in told and "Annotations and JPEGImages" in told


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (["a.tfrecord", "a.jpg"], "TFRecord files cannot be read: export them as COCO json"),
        (["metadata.jsonl", "a.jpg"], "JSON lines cannot be read: export them as COCO json"),
        (["a.zip"], "give the archive itself"),
        (["a.json", "a.jpg"], "no .json file there holds labels in a known form: export as COCO"),
        (["a.json"], "and there are no pictures"),
        (["a.docx"], "give the folder that holds pictures and labels"),
        ([], "but no file; check the path"),
        ([".hidden/a.jpg", "runs/b.jpg"], "but no file; check the path"),
    ],
)
def test_advice(tmp_path: Path, names: list[str], advice: str) -> None:
    assert advice in message(put(tmp_path, *names))


def test_kinds_of_files_are_limited(tmp_path: Path) -> None:
    told = message(put(tmp_path, *(f"x.{letter}{letter}" for letter in "abcdefgh")))
    assert "and 2 other kinds of files" in told


def test_a_file(tmp_path: Path) -> None:
    assert "is no data set; give the folder" in message(put(tmp_path, "notes.docx") / "notes.docx")

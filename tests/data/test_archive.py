"""Data sets in archives: unpacked once, opened like folders."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from fssd.data.archive import unpacked
from fssd.data.source import list_splits, open_data
from fssd.errors import DataError
from fssd.storage.cache_folder import cache_folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fssd"


def export(folder: Path, box: list[int]) -> Path:
    """A COCO export with one image and one box (x, y, width, height)."""
    (folder / "train").mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "train/one.png"), np.zeros((40, 50, 3), np.uint8))
    content = {
        "images": [{"id": 1, "file_name": "one.png", "width": 50, "height": 40}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": box}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "train/_annotations.coco.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_opens_like_the_folder(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    archive = Path(
        shutil.make_archive(str(tmp_path / "my.export"), kind, export(tmp_path / "made", [1, 2, 10, 20]))
    )
    data = open_data(archive, "train")
    assert data.classes == ("cat",)
    assert data.records[0].boxes.tolist() == [[1, 2, 11, 22]]
    assert list_splits(archive) == ("train",)
    assert capsys.readouterr().err.count("unpacking") == 1, "once"


def test_one_folder_around_everything(tmp_path: Path) -> None:
    export(tmp_path / "made/project/data", [1, 2, 10, 20])
    (tmp_path / "made/__MACOSX").mkdir()
    archive = Path(shutil.make_archive(str(tmp_path / "export"), "zip", tmp_path / "made"))
    assert unpacked(archive).name == "project"


def test_a_new_archive_of_the_same_name_is_unpacked_again(tmp_path: Path) -> None:
    archive = tmp_path / "export.zip"
    for box in ([1, 2, 10, 20], [3, 4, 10, 20]):
        made = shutil.make_archive(str(tmp_path / "export"), "zip", export(tmp_path / "made", box))
        os.utime(made, ns=(box[0], box[0]))
        assert open_data(archive, "train").records[0].boxes[0, 0] == box[0]


def test_a_damaged_archive_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    archive = tmp_path / "export.zip"
    shutil.make_archive(str(tmp_path / "export"), "zip", export(tmp_path / "made", [1, 2, 10, 20]))
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"export.zip: is damaged or not an archive"):
        open_data(archive)
    assert not list(cache.rglob("*.json"))


def test_nothing_is_written_outside(tmp_path: Path, cache: Path) -> None:
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../evil.json", "{}")
    with pytest.raises(DataError, match="leads out of the folder"):
        open_data(archive)
    assert not list(cache.parent.rglob("evil.json"))


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/fssd"


def test_another_process_that_is_faster_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another container it may have the same number; both have unpacked all when one is done."""
    archive = Path(
        shutil.make_archive(str(tmp_path / "export"), "zip", export(tmp_path / "made", [1, 2, 10, 20]))
    )
    plain = Path.rename
    others: list[Path] = []

    def rename(staging: Path, folder: Path) -> Path:
        monkeypatch.setattr(Path, "rename", plain)
        others.append(unpacked(archive))
        return plain(staging, folder)

    monkeypatch.setattr(Path, "rename", rename)
    assert unpacked(archive) == others[0]
    assert open_data(archive, "train").records[0].boxes.tolist() == [[1, 2, 11, 22]]
    assert [path.name for path in others[0].parent.iterdir()] == [others[0].name]


def test_others_may_read_what_is_unpacked(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        archive = shutil.make_archive(str(tmp_path / "a"), "zip", export(tmp_path / "made", [1, 2, 3, 4]))
        assert unpacked(Path(archive)).stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(before)

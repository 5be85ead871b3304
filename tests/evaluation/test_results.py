"""Result files: formats, rounding, names, and no half-written file."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fssd.data.sample import DataSet, Record
from fssd.errors import ConfigError, DataError
from fssd.evaluation.results import DetectionsFile, write_coco_results, write_voc_results
from fssd.inference.detections import Detections

CLASSES = ("cat", "Fußgänger", "dog")


def found(classes: tuple[str, ...] = CLASSES) -> Detections:
    boxes = np.array([[1.126, 2, 30.004, 40.9], [5, 6, 7, 8]], np.float32)
    return Detections(boxes, np.array([0.9876543, 0.25], np.float32), np.array([1, 0]), classes)


def nothing() -> Detections:
    return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), CLASSES)


def dataset(*ids: str, **facts: Any) -> DataSet:
    off = np.zeros(0, bool)
    records = tuple(
        Record(i, Path(i), Path(i), 10, 10, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), off, off)
        for i in ids
    )
    return DataSet(CLASSES, records, facts=facts)


def write(file: Path, *names: str) -> None:
    with DetectionsFile(file) as results:
        for name in names:
            results.add(name, (640, 480), found(), f"{name}.jpg")


def test_detections_json(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    with DetectionsFile(file) as results:
        results.add("a.jpg", (640, 480), found(), "a-2.jpg")
        results.add("ü.png", (5, 6), nothing(), None)
    assert json.loads(file.read_text(encoding="utf-8")) == [
        {
            "image": "a.jpg",
            "width": 640,
            "height": 480,
            "objects": [
                {"name": "Fußgänger", "score": 0.98765, "box": [1.13, 2.0, 30.0, 40.9]},
                {"name": "cat", "score": 0.25, "box": [5.0, 6.0, 7.0, 8.0]},
            ],
            "picture": "a-2.jpg",
        },
        {"image": "ü.png", "width": 5, "height": 6, "objects": [], "picture": None},
    ]
    assert len(file.read_text(encoding="utf-8").splitlines()) == 4
    assert list(tmp_path.iterdir()) == [file]


def test_detections_json_of_nothing(tmp_path: Path) -> None:
    write(tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text()) == []


def test_each_image_is_in_a_file_at_once(tmp_path: Path) -> None:
    """What is there when the process is killed: nothing is buffered, and the old list is whole."""
    (tmp_path / "found.json").write_text("old")
    with DetectionsFile(tmp_path / "found.json") as results:
        for number in (1, 2, 3):
            results.add(str(number), (5, 6), nothing(), None)
            lines = (tmp_path / "found.jsonl").read_text().splitlines()
            assert [json.loads(line)["image"] for line in lines] == ["1", "2", "3"][:number]
            assert (tmp_path / "found.json").read_text() == "old"


def test_an_exception_keeps_what_is_done(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    with pytest.raises(KeyboardInterrupt), DetectionsFile(file) as results:
        results.add("a", (5, 6), found(), None)
        results.add("b", (5, 6), found(), None)
        raise KeyboardInterrupt
    assert [row["image"] for row in json.loads(file.read_text(encoding="utf-8"))] == ["a", "b"]
    assert list(tmp_path.iterdir()) == [file]


def test_a_disk_that_fills_up_within_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system takes a part of a line, then refuses: the whole lines before it are kept."""
    file = tmp_path / "found.json"
    results = DetectionsFile(file)
    with pytest.raises(OSError) as caught, results:
        results.add("a", (5, 6), found(), None)
        plain = results._file

        class Full:
            free = 7

            def write(self, data: bytes) -> int:
                if not self.free:
                    raise OSError(errno.ENOSPC, "No space left on device")
                taken, self.free = plain.write(data[: self.free]), 0
                return taken

            def __getattr__(self, name: str) -> Any:
                return getattr(plain, name)

            def __enter__(self) -> Any:
                return plain.__enter__()

            def __exit__(self, *error: object) -> None:
                plain.close()

        monkeypatch.setattr(results, "_file", Full())
        results.add("b", (5, 6), found(), None)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "found.jsonl"))
    assert [row["image"] for row in json.loads(file.read_text(encoding="utf-8"))] == ["a"]


def test_of_an_unfinished_file_only_the_known_images_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    write(file, "a", "b", "c")
    with DetectionsFile(file, go_on=True, known={"c", "a", "z"}) as results:
        assert results.done == {"a", "c"}
        results.add("b", (5, 6), nothing(), None)
    assert [row["image"] for row in json.loads(file.read_text(encoding="utf-8"))] == ["a", "c", "b"]


def test_the_lines_stay_if_the_list_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fssd.evaluation.results._write_json_list", full)
    with pytest.raises(OSError):
        write(tmp_path / "found.json", "a", "b")
    lines = (tmp_path / "found.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["image"] for line in lines] == ["a", "b"]


def test_detections_file_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "found.json").mkdir()
    with pytest.raises(ConfigError, match=r"found\.json: is a folder"):
        DetectionsFile(tmp_path / "found.json")
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"stra\xdfe")
    write(tmp_path / "found.json", name)
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))[0]["image"] == name
    write_coco_results(tmp_path / "coco.json", dataset(name), [found()])
    assert {row["image_id"] for row in json.loads((tmp_path / "coco.json").read_text("utf-8"))} == {name}
    file = write_voc_results(tmp_path, [name], [found()], CLASSES)[0]
    assert file.read_bytes() == b"stra\xdfe 0.250000 5.0 6.0 7.0 8.0\n", "the bytes of the file's name"


def test_voc_files(tmp_path: Path) -> None:
    files = write_voc_results(tmp_path / "results", ["000001", "2008_000002"], [found(), found()], CLASSES)
    assert [f.name for f in files] == [f"comp4_det_test_{c}.txt" for c in CLASSES]
    assert files[0].read_text() == "000001 0.250000 5.0 6.0 7.0 8.0\n2008_000002 0.250000 5.0 6.0 7.0 8.0\n"
    assert files[1].read_text().splitlines()[0] == "000001 0.987654 1.1 2.0 30.0 40.9"
    assert files[2].read_text() == ""


def test_voc_names(tmp_path: Path) -> None:
    files = write_voc_results(tmp_path, ["1"], [found()], ("dog", "cat"), challenge="comp3", split="val")
    assert [f.name for f in files] == ["comp3_det_val_dog.txt", "comp3_det_val_cat.txt"]
    assert files[0].read_text() == ""  # classes are matched by name, not by index
    assert files[1].read_text().startswith("1 0.25")
    with pytest.raises(ConfigError, match="cannot be part of a file name"):
        write_voc_results(tmp_path, ["1"], [nothing()], ("../x",))
    with pytest.raises(DataError, match="has a space"):
        write_voc_results(tmp_path, ["my image"], [nothing()], CLASSES)


def test_coco_file(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    write_coco_results(file, dataset("139", "000007", category_ids=(17, 1, 18)), [found(), found()])
    rows = json.loads(file.read_text())
    assert rows[0] == {"image_id": 139, "category_id": 1, "bbox": [1.13, 2.0, 28.88, 38.9], "score": 0.98765}
    assert [(r["image_id"], r["category_id"]) for r in rows[1:]] == [(139, 17), ("000007", 1), ("000007", 17)]


def test_coco_category_ids(tmp_path: Path) -> None:
    file = tmp_path / "r.json"

    def categories(**facts: Any) -> list[int | str]:
        write_coco_results(file, dataset("1", **facts), [found(("zebra", "dog"))])
        return [r["category_id"] for r in json.loads(file.read_text())]

    assert categories() == [3]  # dog is the third class; zebra is not a class
    assert categories(category_ids=(17, 1, 18)) == [18]
    assert categories(category_ids=(17, 1, None)) == []
    assert categories(category_ids=("17", "1", "18")) == [18]
    assert categories(category_ids=("a1", "b", "c-1")) == ["c-1"]  # as the labels have it
    with pytest.raises(ValueError, match="2 category ids for 3 classes"):
        categories(category_ids=[1, 2])


def test_nan_is_not_written(tmp_path: Path) -> None:
    broken = Detections(
        np.full((1, 4), np.nan, np.float32), np.ones(1, np.float32), np.zeros(1, np.int64), CLASSES
    )
    with pytest.raises(ValueError):
        write_coco_results(tmp_path / "r.json", dataset("1"), [broken])
    assert not list(tmp_path.iterdir())

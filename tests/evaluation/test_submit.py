"""Archives for the evaluation servers: names, layout, lines worked out by hand, equal bytes."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fssd.data.formats.voc import VOC_CLASSES
from fssd.errors import ConfigError, DataError
from fssd.evaluation.submit import (
    archive_path,
    open_split,
    require_classes,
    write_coco_archive,
    write_voc_archive,
)
from fssd.inference.detections import Detections


def detections(classes: tuple[str, ...], *rows: tuple[str, float, tuple[float, ...]]) -> Detections:
    return Detections(
        np.array([box for _, _, box in rows], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in rows], np.float32),
        np.array([classes.index(name) for name, _, _ in rows], np.int64),
        classes,
    )


def make_voc(root: Path, *ids: str, split: str = "test") -> Path:
    """A VOC folder as the server provides it: images and a list, no annotation."""
    (root / "JPEGImages").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for image_id in ids:
        (root / "JPEGImages" / f"{image_id}.jpg").touch()
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{image_id}\n" for image_id in ids))
    return root


def make_coco(root: Path) -> Path:
    """A COCO folder with its two test splits, which share their pictures; category ids have gaps."""
    (root / "test2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    images = [{"id": key, "file_name": f"{key:012d}.jpg"} for key in (7, 581929)]
    for image in images:
        (root / "test2017" / str(image["file_name"])).touch()
    content = {"images": images, "categories": [{"id": 18, "name": "dog"}, {"id": 90, "name": "toothbrush"}]}
    for name in ("test2017", "test-dev2017"):
        (root / "annotations" / f"image_info_{name}.json").write_text(json.dumps(content))
    return root


# ---- VOC


@pytest.mark.parametrize("inner", ["", "VOCdevkit"])
def test_voc_archive(tmp_path: Path, inner: str) -> None:
    make_voc(tmp_path / inner / "VOC2007", "000001")
    make_voc(tmp_path / inner / "VOC2012", "2008_000001", "2008_000004")
    split = open_split(tmp_path, "voc2012")
    classes = ("unicorn", *reversed(VOC_CLASSES))  # matched by name; one is not a class of VOC
    found = [
        detections(
            classes,
            ("dog", 0.9876543, (1.04, 20.06, 499.96, 375.0)),
            ("unicorn", 0.9, (1, 2, 3, 4)),
            ("cat", 0.5, (10, 20, 30, 40)),
        ),
        detections(classes, ("dog", 0.0100004, (7.25, 8, 9, 10.5))),
    ]
    file = tmp_path / "results.tar.gz"
    write_voc_archive(file, split, found)
    with tarfile.open(file) as archive:
        texts = {member.name: archive.extractfile(member).read().decode() for member in archive}  # type: ignore[union-attr]
        assert all(m.isreg() and (m.mtime, m.uid, m.uname) == (0, 0, "") for m in archive.getmembers())
    assert sorted(texts) == sorted(f"results/VOC2012/Main/comp4_det_test_{name}.txt" for name in VOC_CLASSES)
    assert texts.pop("results/VOC2012/Main/comp4_det_test_dog.txt") == (
        "2008_000001 0.987654 1.0 20.1 500.0 375.0\n2008_000004 0.010000 7.2 8.0 9.0 10.5\n"
    )
    assert texts.pop("results/VOC2012/Main/comp4_det_test_cat.txt") == (
        "2008_000001 0.500000 10.0 20.0 30.0 40.0\n"
    )
    assert set(texts.values()) == {""}


def test_voc_bytes_do_not_depend_on_clock_or_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = open_split(make_voc(tmp_path / "VOC2007", "000001"), "voc2007")
    found = [detections(VOC_CLASSES, ("cat", 0.5, (10, 20, 30, 40)))]
    write_voc_archive(tmp_path / "a.tar.gz", split, found, "comp3")
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_voc_archive(tmp_path / "b.tgz", split, found, "comp3")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tgz").read_bytes()
    with tarfile.open(tmp_path / "b.tgz") as archive:
        assert archive.getnames()[0] == "results/VOC2007/Main/comp3_det_test_aeroplane.txt"


def test_voc_splits(tmp_path: Path) -> None:
    own = make_voc(tmp_path / "own", "b", "a", "b", split="mine")
    (own / "JPEGImages" / "a.jpg").rename(own / "JPEGImages" / "a.png")
    split = open_split(own, "voc2007", "mine")
    assert [record.image_id for record in split.dataset.records] == ["b", "a"], "in the order of the list"
    assert split.dataset.records[1].path == own / "JPEGImages" / "a.png"
    assert split.dataset.classes == VOC_CLASSES
    with pytest.raises(DataError, match=r"Main/test.txt: no such file, so there is no split 'test'"):
        open_split(own, "voc2007")
    with pytest.raises(DataError, match="is not VOC2007; give the folder of that year"):
        open_split(make_voc(tmp_path / "VOC2012", "a"), "voc2007")
    with pytest.raises(DataError, match="holds no VOC2007"):
        open_split(tmp_path / "none", "voc2007")
    (own / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(DataError, match=r"b.jpg: is missing \(1 of the 2 images of mine are\)"):
        open_split(own, "voc2007", "mine")
    (own / "ImageSets" / "Main" / "mine.txt").write_text("\n")
    with pytest.raises(DataError, match="lists no image"):
        open_split(own, "voc2007", "mine")


# ---- COCO


def test_coco_archive(tmp_path: Path) -> None:
    split = open_split(make_coco(tmp_path), "coco")
    assert split.name == "test-dev2017"
    classes = ("person", "toothbrush", "dog")
    found = [
        detections(classes),
        detections(
            classes,
            ("dog", 0.9876543, (1.126, 2, 30.004, 40.9)),
            ("person", 0.9, (1, 2, 3, 4)),
            ("toothbrush", 0.25, (5, 6, 7.5, 8)),
        ),
    ]
    name = "detections_test-dev2017_fssd300_results"
    file = archive_path(tmp_path, split, "fssd300")
    assert file == tmp_path / f"{name}.zip"
    write_coco_archive(file, split, found, "fssd300")
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == [f"{name}.json"]
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)
        rows = json.loads(archive.read(f"{name}.json"))
    assert rows == [
        {"image_id": 581929, "category_id": 18, "bbox": [1.13, 2.0, 28.88, 38.9], "score": 0.98765},
        {"image_id": 581929, "category_id": 90, "bbox": [5.0, 6.0, 2.5, 2.0], "score": 0.25},
    ]
    once = file.read_bytes()
    write_coco_archive(file, split, found, "fssd300")
    assert file.read_bytes() == once


def test_coco_splits(tmp_path: Path) -> None:
    root = make_coco(tmp_path / "coco")
    assert [record.path.name for record in open_split(root, "coco", "test2017").dataset.records] == [
        "000000000007.jpg",
        "000000581929.jpg",
    ]
    info = root / "annotations" / "image_info_test-dev2017.json"
    assert open_split(info, "coco").name == "test-dev2017"
    with pytest.raises(DataError, match=r"several splits begin with 'test'; .* test-dev2017, test2017"):
        open_split(root, "coco", "test")
    with pytest.raises(DataError, match=r"holds no annotations/image_info_\*\.json"):
        open_split(tmp_path, "coco")
    for text, message in (
        ("{", "is not valid json"),
        ("[]", "has no list 'images'"),
        (
            '{"images": [{"id": "7", "file_name": "a"}]}',
            r"\(images\[0\]\): needs a number `id` and a `file_name`",
        ),
        ('{"images": [{"id": 7, "file_name": "a"}]}', "has no list 'categories'"),
        (
            '{"images": [{"id": 7, "file_name": "a"}, {"id": 7, "file_name": "b"}]}',
            r"\(images\[1\]\): repeats the id 7; give each its own",
        ),
    ):
        info.write_text(text)
        with pytest.raises(DataError, match=message):
            open_split(root, "coco")


# ---- both


def test_missing_classes() -> None:
    require_classes(VOC_CLASSES, VOC_CLASSES, "voc2012")
    with pytest.raises(ConfigError, match="the model lacks 2 of the 20 classes of voc2012: bird, sofa"):
        require_classes(
            [name for name in VOC_CLASSES if name not in ("bird", "sofa")], VOC_CLASSES, "voc2012"
        )


def test_archive_names(tmp_path: Path) -> None:
    voc = open_split(make_voc(tmp_path / "VOC2007", "1"), "voc2007")
    coco = open_split(make_coco(tmp_path / "coco"), "coco")
    assert archive_path(tmp_path, voc, "x") == tmp_path / "results.tar.gz"
    assert archive_path(tmp_path / "new", voc, "x") == tmp_path / "new" / "results.tar.gz"
    assert archive_path(tmp_path / "a.tgz", voc, "x") == tmp_path / "a.tgz"
    assert archive_path(tmp_path / "a.zip", coco, "x") == tmp_path / "a.zip"
    with pytest.raises(ConfigError, match=r"voc2007 takes .tar.gz or .tgz"):
        archive_path(tmp_path / "a.zip", voc, "x")
    with pytest.raises(ConfigError, match=r"coco takes .zip"):
        archive_path(tmp_path / "a.tar.gz", coco, "x")
    with pytest.raises(ConfigError, match="'a/b' is part of a file name"):
        archive_path(tmp_path, coco, "a/b")


def test_nothing_half_written(tmp_path: Path) -> None:
    split = open_split(make_coco(tmp_path / "coco"), "coco")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ValueError):
        write_coco_archive(out / "a.zip", split, [detections(("dog",))], "x")  # one of two images
    assert not list(out.iterdir())

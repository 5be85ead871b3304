"""`fssd submit`: from an unlabelled test split to the archive, with a network that has learned nothing."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fssd.cli.submit import run
from fssd.data.formats.voc import VOC_CLASSES
from fssd.errors import ConfigError, DataError
from fssd.model.build import build_model
from fssd.weights.checkpoint import save_model

SIZES = {"000001": (90, 60), "000002": (64, 128)}  # width, height, pixels


@pytest.fixture(scope="module")
def voc_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("fssd300-lite", len(VOC_CLASSES))
    path = tmp_path_factory.mktemp("model") / "voc.safetensors"
    save_model(path, network.state_dict(), network, VOC_CLASSES, {"iteration": 0})
    return path


@pytest.fixture(scope="module")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "VOCdevkit"
    folder = root / "VOC2012"
    (folder / "JPEGImages").mkdir(parents=True)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for image_id, (width, height) in SIZES.items():
        image = np.random.default_rng(len(image_id)).integers(0, 255, (height, width, 3), np.uint8)
        cv2.imwrite(str(folder / "JPEGImages" / f"{image_id}.jpg"), image)
    (folder / "ImageSets" / "Main" / "test.txt").write_text("\n".join(SIZES))
    return root


def submit(model: Path, data: Path, to: str, out: Path, *more: str) -> int:
    return run([str(model), "--data", str(data), "--to", to, "--out", str(out), "--workers", "0", *more])


def test_voc(voc_model: Path, devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "mine.tar.gz"
    assert submit(voc_model, devkit, "voc2012", file, "--keep", "5", "--competition", "comp3") == 0
    assert capsys.readouterr().out == f"2 images of test, 10 detections: {file}\n"
    with tarfile.open(file) as archive:
        names = archive.getnames()
        lines = [
            line.split()
            for name in names
            for line in archive.extractfile(name).read().decode().splitlines()  # type: ignore[union-attr]
        ]
    assert sorted(names) == [f"results/VOC2012/Main/comp3_det_test_{name}.txt" for name in VOC_CLASSES]
    assert len(lines) == 10, "five an image"
    for image_id, score, *box in lines:
        x1, y1, x2, y2 = map(float, box)
        width, height = SIZES[image_id]
        assert 0.01 < float(score) <= 1
        assert 0 <= x1 <= x2 <= width
        assert 0 <= y1 <= y2 <= height


def test_coco(voc_model: Path, devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = tmp_path / "coco"
    shutil.copytree(devkit / "VOC2012" / "JPEGImages", coco / "test2017")
    (coco / "annotations").mkdir()
    content = {
        "images": [{"id": int(i), "file_name": f"{i}.jpg"} for i in SIZES],
        "categories": [{"id": 3 * n + 2, "name": name} for n, name in enumerate(VOC_CLASSES)],
    }
    (coco / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(content))
    out = tmp_path / "out"
    assert submit(voc_model, coco, "coco", out, "--name", "mine", "--score", "0.02") == 0
    assert capsys.readouterr().err == ""
    with zipfile.ZipFile(out / "detections_test-dev2017_mine_results.zip") as archive:
        rows = json.loads(archive.read("detections_test-dev2017_mine_results.json"))
    assert {row["image_id"] for row in rows} == {1, 2}
    assert {row["category_id"] for row in rows} <= set(range(2, 60, 3))
    assert all(row["score"] >= 0.02 for row in rows)
    assert submit(voc_model, coco, "coco", tmp_path / "other.zip", "--keep", "1") == 0
    assert "called detections_test-dev2017_fssd_results.zip" in capsys.readouterr().err


def test_mistakes(model_file: Path, voc_model: Path, devkit: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="the model lacks 20 of the 20 classes of voc2012: aeroplane, bicycle"
    ):
        submit(model_file, devkit, "voc2012", tmp_path)
    with pytest.raises(DataError, match="no split 'tset'"):
        submit(voc_model, devkit, "voc2012", tmp_path, "--split", "tset")
    with pytest.raises(ConfigError, match="score is 2"):
        submit(voc_model, devkit, "voc2012", tmp_path, "--score", "2")
    with pytest.raises(ConfigError, match=r"results\.tar\.gz: is a folder"):
        (tmp_path / "folder" / "results.tar.gz").mkdir(parents=True)
        submit(voc_model, devkit, "voc2012", tmp_path / "folder")
    shutil.rmtree(tmp_path / "folder")
    with pytest.raises(ConfigError, match=r"takes \.tar\.gz"):
        submit(voc_model, devkit, "voc2012", tmp_path / "a.zip")
    with pytest.raises(ConfigError, match="--name is for COCO's server; leave it out"):
        submit(voc_model, devkit, "voc2012", tmp_path, "--name", "ours")
    with pytest.raises(ConfigError, match="--competition is for VOC's servers; leave it out"):
        submit(voc_model, devkit, "coco", tmp_path, "--competition", "comp3")
    assert not list(tmp_path.iterdir())

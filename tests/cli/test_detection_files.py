"""`fssd eval`, `compare` and `scatter` of detection files: the same numbers and pages as of the model."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fssd.cli.main import BAD_INPUT, main
from fssd.data.formats.voc import VOC_CLASSES
from fssd.data.sample import DataSet
from fssd.evaluation.results import DetectionsFile
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.weights.checkpoint import save_model

# Two images of 200 x 150 and their objects, and what is found there: scores and coordinates that no result
# file rounds. A cat is found twice, a dog only by half, a person not at all, and a car is not there.
TRUTH = {
    "000001": [("cat", (10, 20, 60, 90)), ("dog", (80, 10, 180, 110))],
    "000002": [("cat", (30, 30, 90, 130)), ("person", (100, 5, 150, 145))],
    "000003": [("dog", (5, 5, 65, 65))],
}
FOUND = {
    "000001": [
        ("cat", 0.875, (12, 22, 60, 90)),
        ("cat", 0.75, (10, 20, 60, 80)),
        ("dog", 0.5, (85, 15, 180, 60)),
    ],
    "000002": [("cat", 0.625, (30, 35, 90, 125)), ("car", 0.25, (100, 5, 150, 145))],
    "000003": [("dog", 0.03125, (5.5, 5.5, 65, 65))],
}


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def detections(image: str) -> Detections:
    found = sorted(FOUND[image], key=lambda row: -row[1])
    boxes = np.array([box for _, _, box in found], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in found], np.float32)
    return Detections(boxes, scores, np.array([VOC_CLASSES.index(n) for n, *_ in found]), VOC_CLASSES)


@pytest.fixture(scope="module")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VOC2007 with labelled images of the split `test`."""
    root = tmp_path_factory.mktemp("data") / "VOCdevkit"
    folder = root / "VOC2007"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for number, (name, objects) in enumerate(TRUTH.items()):
        noise = np.random.default_rng(number).integers(0, 255, (150, 200, 3), np.uint8)
        cv2.imwrite(str(folder / "JPEGImages" / f"{name}.jpg"), noise)
        rows = "".join(
            "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
            "</object>".format(label, *box)
            for label, box in objects
        )
        size = "<size><width>200</width><height>150</height></size>"
        text = f"<annotation><filename>{name}.jpg</filename>{size}{rows}</annotation>"
        (folder / "Annotations" / f"{name}.xml").write_text(text)
    (folder / "ImageSets" / "Main" / "test.txt").write_text("\n".join(TRUTH))
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("ssd300-lite", len(VOC_CLASSES))
    path = tmp_path_factory.mktemp("model") / "voc.safetensors"
    save_model(path, network.state_dict(), network, VOC_CLASSES, {"iteration": 0})
    return path


@pytest.fixture(autouse=True)
def known_detections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The model finds FOUND, whatever its weights are."""

    def evaluate_on(_: Detector, dataset: DataSet, **__: Any) -> Iterator[Detections]:
        return (detections(record.path.stem) for record in dataset.records)

    monkeypatch.setattr(Detector, "evaluate_on", evaluate_on)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # for archives


def measured(subject: Path, devkit: Path, folder: Path, *more: object) -> dict[str, Any]:
    file = folder / "numbers.json"
    assert run("eval", subject, "--data", devkit, "--split", "test", "--json", file, *more) == 0
    report = dict(json.loads(file.read_text()))
    assert ("settings" in report) == (subject.suffix == ".safetensors")  # those of a detector
    return {key: value for key, value in report.items() if key != "settings"}


def without_names(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if key not in ("unknown_classes", "known_map")}


def test_average_precision_by_hand(model: Path, devkit: Path, tmp_path: Path) -> None:
    """cat: both found, then a duplicate: 1 at every recall, for the duplicate scores 0.75 and the second cat
    0.625: precision 1/1, 1/2, 2/3. dog: the better one overlaps by half (95 * 45 of 100 * 100), so a wrong
    one comes before the right one: precision 0, 1/2 at recall 1/2. person: nothing."""
    report = measured(model, devkit, tmp_path)
    assert report["classes"]["cat"] == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert report["classes"]["dog"] == pytest.approx(0.25)
    assert report["map"] == pytest.approx((0.5 + 1 / 3 + 0.25 + 0) / 3)


@pytest.mark.parametrize("metric", ["voc07", "voc12", "coco"])
@pytest.mark.parametrize("server", ["voc2007", "coco"])
def test_submitted_results_measure_as_the_model(
    model: Path, devkit: Path, tmp_path: Path, server: str, metric: str
) -> None:
    if metric == "coco":
        pytest.importorskip("hotcoco")
    data = devkit
    if server == "coco":
        data = tmp_path / "coco"
        (data / "annotations").mkdir(parents=True)
        (data / "test").symlink_to(devkit)
        images = [{"id": int(name), "file_name": f"VOC2007/JPEGImages/{name}.jpg"} for name in TRUTH]
        rows = [{"id": key, "name": name} for key, name in enumerate(VOC_CLASSES, start=1)]
        file = data / "annotations" / "image_info_test.json"
        file.write_text(json.dumps({"images": images, "categories": rows}))
    out = tmp_path / "out"
    assert run("submit", model, "--data", data, "--to", server, "--out", out, "--split", "test") == 0
    (archive,) = out.iterdir()
    of_model = measured(model, devkit, tmp_path, "--metric", metric)
    assert measured(archive, devkit, tmp_path, "--metric", metric) == of_model


def test_results_of_eval_measure_as_the_model(
    model: Path, devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voc, coco = tmp_path / "voc", tmp_path / "coco.json"
    of_model = measured(model, devkit, tmp_path, "--voc-results", voc, "--coco-results", coco)
    capsys.readouterr()
    assert measured(voc, devkit, tmp_path) == of_model
    assert (
        f"{voc}: VOC's comp4 files, 6 detections in 3 of 3 images, 0 without any" in capsys.readouterr().err
    )
    assert measured(coco, devkit, tmp_path) == of_model
    assert "1 is 'aeroplane', 20 is 'tvmonitor'" in capsys.readouterr().err
    again = tmp_path / "again"
    measured(voc, devkit, tmp_path, "--voc-results", again)
    assert {f.name: f.read_text() for f in again.iterdir()} == {f.name: f.read_text() for f in voc.iterdir()}


def test_json_of_detect_and_yolo_txt_measure_as_the_model(model: Path, devkit: Path, tmp_path: Path) -> None:
    own, yolo = tmp_path / "detections.json", tmp_path / "labels"
    yolo.mkdir()
    with DetectionsFile(own) as results:
        for name, found in FOUND.items():
            results.add(f"shots/{name}.jpg", (200, 150), detections(name), None)
            rows = []
            for label, score, (x1, y1, x2, y2) in found:
                centre, sides = ((x1 + x2) / 400, (y1 + y2) / 300), ((x2 - x1) / 200, (y2 - y1) / 150)
                rows.append(" ".join(map(str, (VOC_CLASSES.index(label), *centre, *sides, score))))
            (yolo / f"{name}.txt").write_text("\n".join(rows))
    of_model = without_names(measured(model, devkit, tmp_path))
    assert without_names(measured(own, devkit, tmp_path)) == of_model
    assert measured(yolo, devkit, tmp_path)["map"] == pytest.approx(of_model["map"])


def test_page_of_a_file(model: Path, devkit: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    voc = tmp_path / "others"
    measured(model, devkit, tmp_path, "--voc-results", voc, "--report", tmp_path / "model")
    measured(voc, devkit, tmp_path, "--report", tmp_path / "file")
    of_model, of_file = ((tmp_path / name / "index.html").read_text() for name in ("model", "file"))
    assert "others" in of_file and "6 detections in 3 of 3 images" in of_file
    assert "6 detections in 3 of 3 images" not in of_model
    start = "Classes and sizes"
    assert of_file[of_file.index(start) :] == of_model[of_model.index(start) :]


@pytest.mark.parametrize("sides", ["model file", "file model", "file other"])
def test_compare_with_files(
    model: Path, devkit: Path, tmp_path: Path, sides: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    file, other = tmp_path / "file", tmp_path / "other"
    measured(model, devkit, tmp_path, "--voc-results", file)
    other.mkdir()
    for path in file.iterdir():  # without the second cat: AP of cat is 1/2, so the mean is 11.1 points lower
        (other / path.name).write_text(
            "".join(line for line in path.read_text().splitlines(True) if not line.startswith("000002 0.625"))
        )
    paths = {"model": model, "file": file, "other": other}
    a, b = (paths[name] for name in sides.split())
    page = tmp_path / "page"
    arguments = ("--data", devkit, "--split", "test", "--report", page, "--draws", 20)
    assert run("compare", a, b, *arguments) == 0
    text = capsys.readouterr().out
    assert ("B minus A: -11.1 points" if "other" in sides else "B minus A: +0.0 points") in text
    letter = "B" if sides == "model file" else "A"
    assert f"{letter}: {file}: VOC&#x27;s comp4 files" in (page / "index.html").read_text()


def test_a_class_without_a_file_is_unknown(
    model: Path, devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voc = tmp_path / "voc"
    measured(model, devkit, tmp_path, "--voc-results", voc)
    (voc / "comp4_det_test_person.txt").unlink()
    report = measured(voc, devkit, tmp_path)
    assert "note: the detector knows no 'person'; its AP is 0" in capsys.readouterr().err
    assert report["unknown_classes"] == ["person"]
    assert report["known_map"] == pytest.approx((0.5 + 1 / 3 + 0.25) / 2)


def test_scatter_of_a_file_with_its_speed(model: Path, devkit: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    voc, out = tmp_path / "others", tmp_path / "scatter.png"
    of_model = measured(model, devkit, tmp_path, "--voc-results", voc)
    data = ("--data", devkit, "--split", "test", "--out", out, "--repeats", 1, "--device", "cpu")
    assert run("scatter", model, f"{voc}=41.5", *data) == 0
    first, second = csv.DictReader(out.with_suffix(".csv").open())
    assert (first["name"], first["from"]) == ("voc", "here") and first["machine"].startswith("CPU")
    assert (second["name"], second["from"], second["machine"]) == ("others", "stated", "")
    assert float(second["images_per_second"]) == 41.5
    assert float(first["map"]) == float(second["map"]) == of_model["map"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("eval FILE --data DATA --split test --score 0.3", "--score is for models; FILE holds detections"),
        ("eval FILE --data DATA --split test --device cpu", "--device is for models; FILE holds detections"),
        ("eval FILE --data DATA --split test --batch-size 4", "--batch-size is for models"),
        ("eval FILE --data DATA", "has no validation split; splits here: "),
        ("eval FILE --data DATA --split test --names voc", "names its classes itself; leave out --names"),
        (
            "eval MODEL --data DATA --split test --names voc",
            "--names is for detection files with class numbers",
        ),
        ("eval FILE --data DATA --split test --voc-results FILE", "is an input and would be overwritten"),
        (
            "compare FILE MODEL photo.jpg",
            "FILE: holds detections; to compare them give --data",
        ),
        ("compare FILE FILE --data DATA --report x", "is named twice"),
        ("scatter FILE=3", "FILE: holds detections, whose accuracy is to be measured; give --data"),
        ("scatter FILE --data DATA --split test", "and no speed; write FILE=IMAGES_A_SECOND"),
        ("scatter FILE=0 --data DATA --split test", "and no speed; write FILE=IMAGES_A_SECOND"),
        (
            "scatter MODEL=3 --data DATA --split test",
            "is a model, whose speed is measured here; leave out =3",
        ),
    ],
)
def test_mistakes(
    model: Path,
    devkit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    file.mkdir()
    for name in VOC_CLASSES:
        (file / f"comp4_det_test_{name}.txt").write_text("000001 0.5 1 2 3 4\n")

    def filled(text: str) -> str:
        for key, path in (("FILE", file), ("MODEL", model), ("DATA", devkit)):
            text = text.replace(key, str(path))
        return text

    assert run(*filled(words).split()) == BAD_INPUT
    assert filled(message) in capsys.readouterr().err.splitlines()[-1]


def test_an_image_pyramid_is_for_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "found.json"
    found.write_text('[{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.5}]')
    assert main(["eval", str(found), "--data", str(tmp_path), "--scales", "300", "400"]) == 2
    assert "--scales is for models" in capsys.readouterr().err

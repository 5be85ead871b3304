"""An image pyramid: one size is the plain model bit for bit, several are merged by NMS within each class."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fssd.boxes import iou
from fssd.cli.main import BAD_INPUT, main
from fssd.data.decode import read_image
from fssd.data.source import open_data
from fssd.errors import ConfigError
from fssd.export.write import write_unchecked
from fssd.heads.head import Thresholds
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.inference.image_pyramid import merge
from fssd.runtimes.choose import RUNTIMES

CLASSES = ("cat", "dog")
PHOTOS = Path(__file__).parents[2] / "src" / "fssd" / "zoo" / "photos"


def part(*rows: tuple[int, float, float]) -> Detections:
    """Squares of 10 px. rows: label, score, left."""
    boxes = np.array([[left, 0, left + 10, 10] for *_, left in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in rows], np.float32)
    return Detections(boxes, scores, np.array([label for label, *_ in rows], np.int64), CLASSES)


def rows_of(found: Detections) -> list[tuple[int, float, float]]:
    return [
        (int(label), round(float(score), 3), float(box[0]))
        for label, score, box in zip(found.labels, found.scores, found.boxes, strict=True)
    ]


def test_boxes_of_one_class_suppress_each_other_over_all_sizes() -> None:
    one = part((0, 0.9, 0), (1, 0.8, 2), (0, 0.3, 50))
    two = part((0, 0.95, 1), (0, 0.4, 52), (1, 0.1, 100))
    # (0, 0.9) overlaps (0, 0.95) by 9/11, (0, 0.3) overlaps (0, 0.4) by 8/12; the dogs overlap no dog
    expected = [(0, 0.95, 1.0), (1, 0.8, 2.0), (0, 0.4, 52.0), (1, 0.1, 100.0)]
    assert rows_of(merge([one, two], Thresholds())) == expected
    assert rows_of(merge([one, two], Thresholds(keep=2))) == expected[:2]
    all_six = merge([one, two], Thresholds(nms=0.85))
    assert [score for _, score, _ in rows_of(all_six)] == [0.95, 0.9, 0.8, 0.4, 0.3, 0.1]


def test_of_equal_scores_the_earlier_size_comes_first() -> None:
    merged = merge([part((0, 0.5, 0)), part((0, 0.5, 1), (0, 0.5, 30))], Thresholds())
    assert rows_of(merged) == [(0, 0.5, 0.0), (0, 0.5, 30.0)]
    assert len(merge([part(), part()], Thresholds())) == 0


@pytest.fixture(scope="module")
def detector(model_file: Path) -> Detector:
    return Detector.load(model_file, device="cpu")


def test_one_size_is_the_plain_model_bit_for_bit(detector: Detector, scenes: Path) -> None:
    data = open_data(scenes, "val")
    settings: dict[str, Any] = {"score": 0.03, "keep": 50}
    plain, same = (list(detector.evaluate_on(data, **settings, **how)) for how in ({}, {"scales": [300]}))
    image = data.records[0].path
    pairs = [
        *zip(plain, same, strict=True),
        (detector(image, **settings), detector(image, scales=[300], **settings)),
    ]
    for one, other in pairs:
        assert len(one) > 0
        for name in ("boxes", "scores", "labels"):
            assert np.array_equal(getattr(one, name), getattr(other, name))


def test_several_sizes_are_each_size_merged(detector: Detector, scenes: Path) -> None:
    data = open_data(scenes, "val")
    image = data.records[1].path
    parts = [detector.sized([side])[0](image, score=0.03) for side in (300, 400)]
    expected = merge(parts, Thresholds())
    found = detector(image, score=0.03, scales=np.array([300, 400]))
    assert np.array_equal(found.boxes, expected.boxes) and np.array_equal(found.scores, expected.scores)
    assert found.image is not None
    (streamed,) = [
        found
        for index, found in enumerate(detector.evaluate_on(data, score=0.03, scales=[300, 400], batch_size=4))
        if index == 1
    ]
    np.testing.assert_allclose(streamed.scores, expected.scores, rtol=1e-4)
    assert detector.sized([400])[0] is detector.sized([400])[0], "made once"


def test_a_trained_model_finds_the_same_at_other_sizes() -> None:
    """A cat of half the size on grey: its box stays where it is, although levels have other cells."""
    trained = Detector.load("animals", device="cpu")
    photo = read_image(PHOTOS / "chelsea.jpg")
    cat = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    image = np.full_like(photo, 117)
    image[120 : 120 + len(cat), 180 : 180 + cat.shape[1]] = cat
    (plain,) = trained(image).boxes
    for scales in ([352], [400], [448], [512], [300, 400, 500]):
        (box,) = trained(image, scales=scales).boxes
        assert float(iou(torch.from_numpy(plain)[None], torch.from_numpy(box)[None])) > 0.8


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ([], "give one or more sizes, each once"),
        ([300, 300], "give one or more sizes, each once"),
        ([64], "lies between 128 and 1024"),
        ([200], "cannot run on 200 x 200 px"),
    ],
)
def test_sizes_that_cannot_be(detector: Detector, scales: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        detector(np.zeros((9, 9, 3), np.uint8), scales=scales)


def test_an_exported_file_has_one_size(
    detectors: dict[str, Detector],
    traced: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("onnx", reason='needs onnx: pip install "fssd[export]"')
    pytest.importorskip("onnxruntime", reason='needs onnxruntime: pip install "fssd[export]"')
    monkeypatch.setattr("fssd.export.write.trace", lambda *_: traced("tiny"))
    file = tmp_path / "model.onnx"
    write_unchecked(detectors["tiny"], file, RUNTIMES["onnx"])
    with pytest.raises(ConfigError, match="an exported file has one input size; leave out scales"):
        Detector.load(file).sized([300, 400])


def run(*arguments: object) -> int:
    return main([*map(str, arguments)])


def test_eval_notes_its_settings(model_file: Path, scenes: Path, tmp_path: Path) -> None:
    numbers: list[dict[str, Any]] = []
    for scales in ([], ["--scales", 300], ["--scales", 300, 400]):
        file = tmp_path / f"{len(scales)}.json"
        how = ("--workers", 0, "--keep", 50, "--device", "cpu", "--json", file)
        assert run("eval", model_file, "--data", scenes, *how, *scales) == 0
        numbers.append(json.loads(file.read_text()))
    plain, same, two = numbers
    settings = {"score": 0.01, "nms": 0.45, "top_k": 400, "keep": 50, "tiles": "none"}
    assert plain.pop("settings") == {**settings, "scales": None}
    assert same.pop("settings") == {**settings, "scales": [300]}
    assert two.pop("settings") == {**settings, "scales": [300, 400]}
    assert plain == same
    assert two["classes"].keys() == plain["classes"].keys()


def test_detect_takes_sizes(model_file: Path, scenes: Path, tmp_path: Path) -> None:
    image = open_data(scenes, "val").records[0].path
    how = ("--device", "cpu", "--score", 0.03, "--no-pictures")
    found = []
    for name, scales in (("plain", []), ("two", ["--scales", 300, 400])):
        assert run("detect", model_file, image, "--out", tmp_path / name, *how, *scales) == 0
        found.append(json.loads((tmp_path / name / "detections.json").read_text())[0]["objects"])
    expected = Detector.load(model_file, device="cpu")(image, score=0.03, scales=[300, 400])
    assert [row["score"] for row in found[1]] == [round(float(score), 5) for score in expected.scores]
    assert found[0] != found[1]


@pytest.mark.parametrize("verb", ["eval", "detect"])
def test_wrong_sizes_are_refused_before_the_first_image(
    model_file: Path, scenes: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str
) -> None:
    rest = ["--data", scenes] if verb == "eval" else [scenes, "--out", tmp_path / "out"]
    assert run(verb, model_file, *rest, "--scales", 300, 200) == BAD_INPUT
    assert "cannot run on 200 x 200 px" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

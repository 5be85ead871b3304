"""Explanations of hand-made predictions, of real ones against the detector, and the verb."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fssd.cli.main import main
from fssd.cli.why import read_box
from fssd.data.tiles import FACT, Tiles
from fssd.errors import ConfigError
from fssd.heads.multibox.raw import Raw
from fssd.inference.detector import Detector
from fssd.inference.why import Explanation, Sought, explain
from fssd.inference.why_picture import why_picture
from fssd.inference.why_text import why_json, why_text
from fssd.model.build import build_model
from fssd.weights.checkpoint import write_facts

CLASSES = ("cat", "dog")
LEVELS = (38, 19, 10, 5, 3, 1)  # cells a side of FSSD300
PRIORS = (4, 6, 6, 6, 4, 4)  # of a cell
IMAGE = np.full((300, 600, 3), 90, np.uint8)  # twice as wide as the input, so x doubles


def index_of(level: int, row: int, column: int, shape: int) -> int:
    """Of a prior: levels in order, cells row by row, then the priors of the cell."""
    before = sum(cells * cells * priors for cells, priors in zip(LEVELS[:level], PRIORS, strict=False))
    return before + (row * LEVELS[level] + column) * PRIORS[level] + shape


@pytest.fixture
def spoken(tiny_backbone: Callable[[], nn.Module]) -> Callable[..., Detector]:
    """A detector that says what it is told: for each prior (class, score) and the offset of its box."""

    def make(
        said: dict[int, tuple[int, float]], offsets: dict[int, tuple[float, ...]] | None = None
    ) -> Detector:
        network = build_model("fssd300-lite", 2, backbone=tiny_backbone())
        logits = torch.zeros(1, 8732, 3)
        logits[..., 0] = 20.0  # background
        for prior, (label, score) in said.items():
            logits[0, prior] = torch.tensor([1 - score, 0.0, 0.0]).clamp(min=1e-12).log()
            logits[0, prior, 1 + label] = float(np.log(score))
        moved = torch.zeros(1, 8732, 4)
        for prior, offset in (offsets or {}).items():
            moved[0, prior] = torch.tensor(offset)
        network.heads.forward = lambda _: Raw(moved, logits)  # type: ignore[method-assign]
        return Detector(network, CLASSES)

    return make


def test_a_detection_names_level_cell_and_prior(spoken: Callable[..., Detector]) -> None:
    # Level 3 has 5 x 5 cells of 60 px. By Caffe's rule with COCO's table (7, 15, 33, 51, 69, 87 percent), its
    # least side is 51 % of 300, 153 px, and the second square sqrt(153 * 207) = 178 px.
    prior = index_of(3, 1, 2, 1)
    why = explain(spoken({prior: (1, 0.8)}), IMAGE)
    (one,) = why.detections
    made = one.prediction
    assert (made.name, made.level, made.row, made.column) == ("dog", 3, 1, 2)
    assert made.score == pytest.approx(0.8, abs=1e-5)
    side = np.sqrt(153 * 207)
    assert made.prior_size == pytest.approx((side, side), rel=1e-5)
    left, top, right, bottom = 150 - side / 2, 90 - side / 2, 150 + side / 2, 90 + side / 2
    assert made.prior == pytest.approx((2 * left, max(0, top), 2 * right, bottom), abs=1e-3)
    assert made.box == pytest.approx(made.prior, abs=1e-3)
    assert made.prior_iou == pytest.approx(1, abs=1e-5)
    assert why.levels[3].cells == (5, 5)
    assert why.levels[3].sources == ("fine", "middle", "coarse"), "the maps that the level is fused from"
    assert made.fate.outcome == "kept" and one.suppressed == 0


# One object of 153 px in cell (2, 2) of level 3: 73.5 to 226.5 of the input, where x is half of the image's.
OBJECT = (147.0, 73.5, 453.0, 226.5)
OWN = index_of(3, 2, 2, 0)


def sought(detector: Detector, name: str | None = "cat", **settings: Any) -> Any:
    why = explain(detector, IMAGE, [Sought(OBJECT, name)], **settings)
    (found,) = why.objects
    assert found.prior_overlap == pytest.approx(1, abs=1e-5)
    assert (found.prior.level, found.prior.row, found.prior.column) == (3, 2, 2)
    return found


def test_found(spoken: Callable[..., Detector]) -> None:
    found = sought(spoken({OWN: (0, 0.9)}))
    assert found.detection == 0
    assert found.verdict == "found: detection 1, cat 0.900, overlaps it by 1.00"


def test_the_score_threshold_took_it(spoken: Callable[..., Detector]) -> None:
    found = sought(spoken({OWN: (0, 0.3)}))
    assert found.detection is None and found.best.fate.outcome == "score"
    assert found.verdict == (
        "missed: its best prediction, cat 0.300, does not score more than 0.5; a lower --score shows it"
    )
    assert sought(spoken({OWN: (0, 0.3)}), score=0.2).detection == 0


def test_a_threshold_kept_for_the_class(spoken: Callable[..., Detector]) -> None:
    kept = {"class_scores": {"cat": 0.2, "dog": 0.9}}
    low, high = spoken({OWN: (0, 0.3)}), spoken({OWN: (1, 0.8)})
    low.facts = high.facts = kept
    assert sought(low).detection == 0
    missed = sought(high, "dog")
    assert missed.detection is None and "does not score more than 0.9" in missed.verdict
    assert sought(high, "dog", score=0.5).detection == 0
    why = explain(high, IMAGE)
    assert [one.prediction.name for one in why.detections] == high(IMAGE).names == []
    assert json.loads(why_json(why, "a.jpg"))["class_scores"] == kept["class_scores"]
    assert "score above 0.5, cat 0.200, dog 0.900 (kept in the model), nms" in why_text(why, "a.jpg")


def test_nms_took_it(spoken: Callable[..., Detector]) -> None:
    # The second prior of the cell, with the offset that gives it the size of the object, 0.4 of its width to
    # the right: IoU 0.6 / 1.4 = 0.43 with the object and its prediction.
    rival = index_of(3, 2, 2, 1)
    side = np.sqrt(153 * 207)
    offset = (10 * 0.4 * 153 / side, 0.0, 5 * np.log(153 / side), 5 * np.log(153 / side))
    found = sought(spoken({OWN: (0, 0.6), rival: (0, 0.9)}, {rival: offset}), nms=0.4)
    assert found.best.fate.outcome == "nms" and found.by is not None
    assert found.by.score == pytest.approx(0.9, abs=1e-5)
    assert found.best.fate.iou == pytest.approx(0.6 / 1.4, abs=1e-4)
    assert found.verdict == (
        "missed: its best prediction, cat 0.600, was suppressed by cat 0.900, which overlaps that by 0.43,"
        " more than 0.4; a higher --nms keeps both"
    )
    assert sought(spoken({OWN: (0, 0.6), rival: (0, 0.9)}, {rival: offset}), nms=0.45).detection == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"top_k": 1}, "left out because one candidate of its class scores more; raise --top-k"),
        ({"keep": 1}, "left out because one detection scores more; raise --keep"),
    ],
)
def test_a_limit_took_it(spoken: Callable[..., Detector], settings: dict[str, int], told: str) -> None:
    elsewhere = index_of(1, 0, 0, 0)
    found = sought(spoken({OWN: (0, 0.6), elsewhere: (0, 0.9)}), **settings)
    assert found.best.fate.outcome == next(iter(settings))
    assert found.verdict.endswith(told)


def test_another_class_lies_there(spoken: Callable[..., Detector]) -> None:
    found = sought(spoken({OWN: (1, 0.9)}))
    assert found.detection is None
    assert found.verdict.endswith("; detection 1, dog 0.900, lies there instead")
    assert sought(spoken({OWN: (1, 0.9)}), None).detection == 0


def test_an_object_that_no_prior_fits(spoken: Callable[..., Detector]) -> None:
    # 4 x 4 px of the input: the smallest prior has 21 x 21, so none overlaps by more than 16 / 441.
    why = explain(spoken({}), IMAGE, [Sought((200, 100, 208, 104), "cat")])
    (found,) = why.objects
    assert found.prior_overlap == pytest.approx(16 / 441, rel=1e-4)
    assert found.prior.level == 0
    assert found.verdict.startswith("missed: no prediction overlaps it by 0.50; the nearest, cat 0.000")
    assert found.verdict.endswith(
        "; no prior fits it by 0.50 (best overlap 0.04): try --priors fit or a larger --size in training"
    )


def test_the_maps_are_replaced_by_their_means(detectors: dict[str, Detector]) -> None:
    detector = detectors["tiny"]
    network = detector.network
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    why = explain(detector, image, score=0.2, keep=5)
    inputs = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        features: dict[str, Tensor] = network.backbone((inputs - network.mean) / network.std)
        for name, x in features.items():
            plain = torch.zeros_like(x) + x.sum(dim=(2, 3), keepdim=True) / (x.shape[2] * x.shape[3])
            raw = network.heads(network.neck({**features, name: plain}))
            scores = raw[1].softmax(dim=-1)[0, :, 1:]
            for one in why.detections:
                made = one.prediction
                prior = index_of(made.level, made.row, made.column, 0)
                cell = scores[prior : prior + PRIORS[made.level], why.classes.index(made.name)]
                assert float((cell - made.without[name]).abs().min()) < 1e-4
    assert any(abs(score - one.prediction.score) > 1e-3 for one in why.detections
               for score in one.prediction.without.values())  # fmt: skip


@pytest.mark.parametrize("settings", [{"score": 0.2}, {"score": 0.3, "nms": 0.3, "top_k": 20, "keep": 10}])
def test_detections_are_those_of_the_detector(
    detectors: dict[str, Detector], settings: dict[str, Any]
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (200, 320, 3)).astype(np.uint8)
    expected = detectors["tiny"](image, **settings)
    found = explain(detectors["tiny"], image, **settings).found()
    assert len(expected) > 5
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)
    assert found.labels.tolist() == expected.labels.tolist()


def test_yolov2_by_hand() -> None:
    """13 x 13 cells of 32 px at 416; candidates anchor by anchor, then row by row."""
    with torch.random.fork_rng():
        network = build_model("yolov2-128", 2, priors="voc")
    raw = torch.full((1, 5 * 7, 4, 4), -20.0)
    raw[0, 2 * 7 : 2 * 7 + 4, 1, 3] = 0.0  # anchor 2 in row 1, column 3: the middle of the cell, its own size
    raw[0, 2 * 7 + 4, 1, 3] = 20.0
    raw[0, 2 * 7 + 6, 1, 3] = 20.0  # the second class
    network.heads.forward = lambda _: (raw,)  # type: ignore[method-assign]
    why = explain(Detector(network, CLASSES), np.zeros((128, 128, 3), np.uint8))
    (one,) = why.detections
    made = one.prediction
    assert (made.name, made.level, made.row, made.column) == ("dog", 0, 1, 3)
    width, height = 5.05587 * 32, 8.09892 * 32  # the third anchor of yolov2-voc.cfg, in cells of 32 px
    assert made.prior_size == pytest.approx((width, height), rel=1e-4)
    assert made.prior_iou == pytest.approx(1, abs=1e-4)
    assert made.prior == pytest.approx((112 - width / 2, 0, 128, 128), abs=0.01)
    assert why.levels[0].sources == ("C4", "C5")


# ---- text, JSON, picture, and the verb


def test_text_json_and_picture(spoken: Callable[..., Detector]) -> None:
    why: Explanation = explain(
        spoken({OWN: (0, 0.9)}), IMAGE, [Sought(OBJECT, "cat"), Sought((200, 100, 208, 104))]
    )
    text = why_text(why, "a.jpg")
    assert text.startswith("a.jpg, 600 x 300: 1 detection of fssd300-lite\nscore above 0.5, nms 0.45")
    assert (
        "   level 4 of 6 (5 x 5 cells), row 3, column 3\n   prior 153 x 153 px of the input, 300 x 300"
        in text
    )
    assert "made of fine, middle, coarse" in text
    document = json.loads(why_json(why, "a.jpg"))
    assert document["levels"][0] == {"cells": [38, 38], "sources": ["fine", "middle", "coarse"]}
    assert document["detections"][0]["cell"] == [2, 2] and document["detections"][0]["outcome"] == "kept"
    assert [row["detection"] for row in document["objects"]] == [0, None]
    assert document["objects"][0]["verdict"] == why.objects[0].verdict
    picture = why_picture(why, IMAGE)
    assert picture.shape[1] == 640 and picture.shape[0] > 320, "enlarged, with a legend below"
    white = (picture[:320] == 255).all(axis=2)
    x = round(147 * 640 / 600)
    assert white[150:200, x - 2 : x + 3].any(axis=1).all(), "the left side of the object"
    assert (why_picture(explain(spoken({}), IMAGE), IMAGE) != 90).any()


def test_the_legend_of_a_narrow_image_can_be_read(spoken: Callable[..., Detector]) -> None:
    image = np.full((1500, 40, 3), 90, np.uint8)
    picture = why_picture(explain(spoken({}), image), image)
    assert picture.shape[1] == 640
    legend = picture[1500:, 40:]  # right of the square of its colour
    assert (legend < 100).all(axis=2).sum() > 100, "dark letters"
    assert len(legend) < 60


def test_the_verb(model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.random.default_rng(2).integers(0, 256, (120, 160, 3)).astype(np.uint8))
    arguments = ["why", str(model_file), str(photo), "--score", "0.05", "--keep", "2", "--device", "cpu"]
    files = ["--out", str(tmp_path / "why.jpg"), "--json", str(tmp_path / "why.json")]
    assert main([*arguments, *files, "--box", "10,10,60,60", "20.5,10,90,60,three"]) == 0
    out = capsys.readouterr().out
    assert "object 2 (three), box 20,10,90,60" in out and "written: " in out
    document = json.loads((tmp_path / "why.json").read_text())
    assert [row["name"] for row in document["objects"]] == [None, "three"]
    assert len(document["detections"]) == 2
    assert cv2.imread(str(tmp_path / "why.jpg")) is not None
    for box, told in (
        ("10,10,60", "give four numbers"),
        ("60,10,10,60", "x1 is left of x2"),
        ("10,10,nan,60", "all finite"),
        ("10,10,500,60", "does not lie in the image of 160 x 120 pixels"),
        ("10,10,60,60,thre", "has no class 'thre'; did you mean 'three'"),
        ("10,10,60,60,", "ends in a comma"),
    ):
        assert main([*arguments, *files, "--box", box]) == 2
        assert told in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "why.png")]) == 2
    assert "the picture is a JPEG" in capsys.readouterr().err


def test_a_model_with_tiles(model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, model = tmp_path / "photo.png", Path(shutil.copy(model_file, tmp_path / "tiled.safetensors"))
    cv2.imwrite(str(photo), np.zeros((60, 60, 3), np.uint8))
    write_facts(model, {FACT: Tiles(64).facts()})
    assert main(["why", str(model), str(photo), "--out", str(tmp_path / "why.jpg"), "--device", "cpu"]) == 0
    assert "note: why looks at the whole image at once, without the model's tiles of 64" in (
        capsys.readouterr().err
    )


def test_boxes_of_the_command_line() -> None:
    assert read_box("1,2,3.5,4") == Sought((1, 2, 3.5, 4))
    assert read_box("1,2,3,4,traffic light") == Sought((1, 2, 3, 4), "traffic light")


def test_a_head_that_does_not_tell(tiny_backbone: Callable[[], nn.Module]) -> None:
    from fssd.heads.head import Head

    with pytest.raises(ConfigError, match="does not tell where its predictions come from"):
        Head().origins()

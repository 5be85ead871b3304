"""Drawing: what is coloured, what is left alone, and input that must not crash."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fssd.errors import ImageError
from fssd.inference import draw
from fssd.inference.detections import Detections, draw_detections
from fssd.inference.draw import class_colour, draw_boxes, encode_png, write_jpeg

GREY = 100
WHITE = (255, 255, 255)


def blank(height: int = 240, width: int = 320) -> Any:
    return np.full((height, width, 3), GREY, np.uint8)


def detections(boxes: Any, names: tuple[str, ...] = ("cat", "dog"), labels: Any = None) -> Detections:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    scores = np.linspace(0.9, 0.3, len(boxes)).astype(np.float32)
    return Detections(
        boxes, scores, np.zeros(len(boxes), np.int64) if labels is None else np.array(labels), names
    )


def test_colours_are_distinct_and_stable() -> None:
    colours = [class_colour(i) for i in range(80)]
    assert len(set(colours)) == 80
    assert min(np.abs(np.subtract(a, b)).sum() for a, b in combinations(colours[:20], 2)) > 40
    assert colours[0] == (242, 36, 36)


def test_draws_a_copy() -> None:
    image = blank()
    image.flags.writeable = False
    drawn = draw_detections(image, detections([[50, 60, 150, 160]]))
    assert (image == GREY).all()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert drawn.flags.writeable


def test_box_lies_on_its_edges_only() -> None:
    drawn = draw_boxes(blank(), np.array([[50, 60, 150, 160]], np.float32), [""], [(255, 0, 0)])
    assert (drawn[60, 50:151] == (255, 0, 0)).all()
    assert (drawn[160, 50:151] == (255, 0, 0)).all()
    assert (drawn[60:161, 50] == (255, 0, 0)).all()
    assert (drawn[60:161, 150] == (255, 0, 0)).all()
    assert (drawn[70:150, 60:140] == GREY).all()
    assert (drawn[:60] == GREY).all()


def test_label_has_the_colour_of_the_class_and_text_on_it() -> None:
    drawn = draw_detections(blank(), detections([[50, 60, 150, 160]], labels=[1]))
    label = drawn[45:60, 50:70].reshape(-1, 3)
    assert (label == class_colour(1)).all(1).any()
    assert (label > 200).all(1).any()  # white ink on dark blue


def test_text_is_as_high_as_asked() -> None:
    def label_height(text: int | None) -> int:
        box = np.array([[50, 100, 300, 160]], np.float32)
        drawn = draw_boxes(blank(), box, ["cat"], [(255, 0, 0)], text)
        return int((drawn[:99] != GREY).any(axis=(1, 2)).sum())

    assert label_height(None) == label_height(10)
    assert label_height(30) == pytest.approx(3 * label_height(10), abs=4)


def test_best_score_lies_on_top() -> None:
    drawn = draw_detections(blank(), detections([[50, 60, 150, 160]] * 2, labels=[0, 1]))
    assert tuple(drawn[160, 100]) == class_colour(0)


@pytest.mark.parametrize("corner", [(0, 0), (315, 0), (0, 235), (315, 235), (150, 0), (315, 100)])
def test_labels_stay_inside(corner: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    positions = []
    free_position = draw._free_position

    def spy(*arguments: Any) -> Any:
        positions.append(free_position(*arguments))
        return positions[-1]

    monkeypatch.setattr(draw, "_free_position", spy)
    x, y = corner
    draw_detections(blank(), detections([[x, y, x + 5, y + 5]], names=("a fairly long class name",)))
    (x1, y1, x2, y2) = positions[0]
    assert 0 <= x1 < x2 < 320
    assert 0 <= y1 < y2 < 240
    assert x2 - x1 > 60


def test_best_score_has_the_first_choice_of_a_place() -> None:
    drawn = draw_detections(blank(), detections([[50, 60, 150, 160]] * 2, labels=[0, 1]))
    assert tuple(drawn[59, 50]) == class_colour(0)  # above the box
    assert tuple(drawn[64, 60]) != tuple(drawn[80, 60])  # the other one in its top


def test_labels_avoid_each_other() -> None:
    taken: list[Any] = []
    for _ in range(4):
        taken.append(draw._free_position((50, 60, 150, 160), (40, 12), taken, 320, 240))
    assert not any(draw._overlap(a, b) for a, b in combinations(taken, 2))


@pytest.mark.parametrize("name", ["Fußgänger", "行人", "🚗", "a\nb", "", " ", "x" * 500, "\u0301"])
def test_any_class_name(name: str) -> None:
    drawn = draw_detections(blank(), detections([[50, 60, 150, 160]], names=(name,)))
    assert tuple(drawn[160, 100]) == class_colour(0)


@pytest.mark.parametrize("name", ["Fußgänger", "行人"])
def test_any_class_name_without_system_fonts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "system_font", lambda: None)
    draw._font.cache_clear()
    assert (
        draw_boxes(blank(), np.array([[50, 60, 150, 160]], np.float32), [name], [(255, 0, 0)]) != GREY
    ).any()
    draw._font.cache_clear()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (8, 8), (2000, 30)])
def test_any_image_size(size: tuple[int, int]) -> None:
    drawn = draw_detections(blank(*size), detections([[0, 0, 5, 5], [-9, -9, 3000, 3000]]))
    assert drawn.shape == (*size, 3)


def test_boxes_across_and_outside_the_border() -> None:
    outside = [[-20, -20, -5, -5], [400, 0, 500, 50], [30, 30, 20, 20], [np.nan, 0, 5, 5]]
    assert (draw_detections(blank(), detections(outside)) == GREY).all()
    across = draw_boxes(blank(), np.array([[-50, -50, 1000, 100.0]], np.float32), [""], [(255, 0, 0)])
    assert (across[0, :] == (255, 0, 0)).all()
    assert (across[:100, 319] == (255, 0, 0)).all()


def test_no_boxes() -> None:
    assert (draw_detections(blank(), detections([])) == GREY).all()


def test_one_colour_for_each_box() -> None:
    boxes = np.array([[10, 10, 50, 50], [100, 100, 150, 150]], np.float32)
    drawn = draw_boxes(blank(), boxes, ["", ""], [(255, 0, 0), (0, 255, 0)])
    assert tuple(drawn[50, 30]) == (255, 0, 0)
    assert tuple(drawn[150, 120]) == (0, 255, 0)
    with pytest.raises(ValueError):
        draw_boxes(blank(), boxes, ["only one"], [(255, 0, 0)])


def test_line_grows_with_the_image() -> None:
    box = np.array([[100, 100, 900, 900]], np.float32)
    small = (draw_boxes(blank(300, 300), box / 4, [""], [WHITE])[150] == 255).all(1).sum()
    large = (draw_boxes(blank(1200, 1200), box, [""], [WHITE])[600] == 255).all(1).sum()
    assert large > 2 * small > 0


def test_a_jpeg_holds_65500_pixels_a_side(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "a.jpg", blank(65_500, 2))
    assert cv2.imread(str(tmp_path / "a.jpg")).shape == (65_500, 2, 3)
    with pytest.raises(ImageError, match=r"b\.jpg: cannot be written: JPEG holds 65500 .* not 2 x 65501"):
        write_jpeg(tmp_path / "b.jpg", blank(65_501, 2))
    assert not (tmp_path / "b.jpg").exists()


def test_an_image_that_opencv_does_not_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, ()))
    with pytest.raises(ImageError, match=r"an image of 320 x 240 cannot be encoded as \.png"):
        encode_png(blank())

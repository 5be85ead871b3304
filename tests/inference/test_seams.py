"""Detections of tiles become those of the image: what a seam cuts is whole again, and nothing is twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fssd.data.tiles import Tiles, Window
from fssd.errors import ConfigError, ImageError
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.inference.seams import merge_tiles

SIZE = (180, 100)
LEFT, RIGHT, WHOLE = (0, 0, 100, 100), (80, 0, 180, 100), (0, 0, 180, 100)  # 20 px are in both tiles
Row = tuple[float, tuple[float, float, float, float], int]  # score, box in pixels of the image, label


def merged(rows: dict[Window, Sequence[Row]], agnostic: bool = False) -> list[Row]:
    parts = []
    for window, found in rows.items():
        shift = np.array(window[:2] * 2, np.float32)
        boxes = np.array([box for _, box, _ in found], np.float32).reshape(-1, 4) - shift
        scores, labels = (
            np.array([row[i] for row in found], kind) for i, kind in ((0, np.float32), (2, np.int64))
        )
        parts.append(Detections(boxes, scores, labels, ("cat", "dog")))
    found = merge_tiles(list(rows), parts, SIZE, 0.45, agnostic)
    values = zip(found.scores.tolist(), found.boxes.tolist(), found.labels.tolist(), strict=True)
    return [(round(score, 6), tuple(box), label) for score, box, label in values]


def test_an_object_in_both_tiles_is_there_once() -> None:
    assert merged({LEFT: [(0.8, (83, 20, 96, 60), 0)], RIGHT: [(0.9, (84, 20, 96, 61), 0)]}) == [
        (0.9, (84, 20, 96, 61), 0)
    ]


def test_a_cut_box_does_not_stay_beside_the_whole_one() -> None:
    piece, whole = (0.95, (84, 20, 100, 60), 0), (0.8, (85, 20, 130, 60), 0)
    for rows in ({LEFT: [piece], RIGHT: [whole]}, {RIGHT: [whole], LEFT: [piece]}):
        assert merged(rows) == [
            (0.8, (85, 20, 130, 60), 0)
        ]  # the piece is in the right tile, which sees more


def test_the_pieces_of_an_object_that_no_tile_holds_become_one() -> None:
    pieces = {LEFT: [(0.6, (30, 20, 100, 60), 0)], RIGHT: [(0.9, (80, 22, 150, 60), 0)]}
    assert merged(pieces) == [(0.9, (30, 20, 150, 60), 0)]


def test_a_box_of_the_whole_image_goes_before_its_pieces_and_takes_their_score() -> None:
    rows: dict[Window, Sequence[Row]] = {
        LEFT: [(0.6, (30, 20, 100, 60), 0)],
        RIGHT: [(0.9, (80, 22, 150, 60), 0)],
        WHOLE: [(0.7, (28, 20, 152, 61), 0)],
    }
    assert merged(rows) == [(0.9, (28, 20, 152, 61), 0)]


def test_what_a_tile_shows_whole_is_not_taken_from_the_whole_image() -> None:
    assert merged({LEFT: [], RIGHT: [], WHOLE: [(0.9, (20, 20, 60, 60), 0)]}) == []
    large = (0.9, (20, 20, 160, 60), 0)
    assert merged({LEFT: [], RIGHT: [], WHOLE: [large]}) == [large]


def test_two_objects_that_a_seam_cuts_stay_two() -> None:
    rows = {
        LEFT: [(0.9, (30, 5, 100, 40), 0), (0.8, (40, 55, 100, 95), 0)],
        RIGHT: [(0.7, (80, 5, 150, 40), 0), (0.6, (80, 55, 140, 95), 0)],
    }
    assert merged(rows) == [(0.9, (30, 5, 150, 40), 0), (0.8, (40, 55, 140, 95), 0)]


def test_neighbours_within_a_tile_are_left_to_its_own_nms() -> None:
    near = [(0.9, (20, 20, 60, 60), 0), (0.8, (22, 20, 62, 60), 0)]
    assert merged({LEFT: near, RIGHT: []}) == near


def test_classes_stay_apart_unless_the_rules_say_otherwise() -> None:
    rows = {LEFT: [(0.8, (83, 20, 96, 60), 0)], RIGHT: [(0.9, (83, 20, 96, 60), 1)]}
    assert len(merged(rows)) == 2
    assert merged(rows, agnostic=True) == [(0.9, (83, 20, 96, 60), 1)]


def test_a_piece_inside_a_larger_object_of_its_class_goes() -> None:
    # The piece covers a tenth of what the object shows in the left tile, so that they are not the same there.
    rows = {LEFT: [(0.9, (50, 40, 100, 50), 0)], RIGHT: [], WHOLE: [(0.8, (20, 10, 160, 95), 0)]}
    assert merged(rows) == [(0.8, (20, 10, 160, 95), 0)]


# ------------------------------------------------------------------------------------------- the detector


@pytest.fixture
def image() -> Any:
    return np.random.default_rng(3).integers(0, 256, (260, 420, 3), np.uint8)


@pytest.mark.parametrize("settings", [{}, {"flip": True}, {"agnostic": True}, {"soft": "linear"}])
def test_one_tile_is_the_plain_result(detectors: dict[str, Detector], image: Any, settings: Any) -> None:
    detector = detectors["tiny"]
    images = [image, image[:200, :300], image[::-1]]
    plain = detector(images, score=0.02, **settings)
    tiled = detector(images, score=0.02, tiles=420, **settings)
    assert len(plain[0]) > 0
    for one, other in zip(plain, tiled, strict=True):
        assert one == other  # bit for bit
        assert one.boxes.tobytes() == other.boxes.tobytes() and one.scores.tobytes() == other.scores.tobytes()


def test_tiles_are_detected_as_their_crops_are(detectors: dict[str, Detector], image: Any) -> None:
    detector = detectors["tiny"]
    settings = {"score": 0.05, "nms": 0.3}
    windows = Tiles(200, 0.25).windows((420, 260), (300, 300))
    assert len(windows) == 7
    crops = [detector(image[y1:y2, x1:x2].copy(), **settings) for x1, y1, x2, y2 in windows]
    expected = merge_tiles(windows, crops, (420, 260), 0.3)
    found = detector(image, tiles=200, overlap=0.25, batch_size=1, **settings)
    assert found == expected[: len(found)]
    assert len(found) == min(200, len(expected)) > 0
    assert found.boxes.min() >= 0 and (found.boxes.max(axis=0)[2:] <= (420, 260)).all()


def test_a_data_set_is_detected_as_its_images_are(detectors: dict[str, Detector], tmp_path: Any) -> None:
    from PIL import Image as Pillow

    from fssd.data.sample import DataSet, background_record

    rng = np.random.default_rng(4)
    records = []
    for index, (width, height) in enumerate(((420, 260), (300, 200))):
        file = tmp_path / f"{index}.png"
        Pillow.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(file)
        records.append(background_record(str(index), file))
    detector = detectors["tiny"]
    settings = {"tiles": 200, "score": 0.05, "batch_size": 2, "flip": True}
    found = list(detector.evaluate_on(DataSet(EXPORTED, tuple(records)), **settings))
    expected = detector([record.path for record in records], **settings)
    assert [len(one) for one in found] == [len(one) for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one == other
    with pytest.raises(ImageError, match=r"0\.png: is 420 x 260 px, which makes 2 tiles of 300 px"):
        list(detector.evaluate_on(DataSet(EXPORTED, tuple(records)), tiles=300, most_tiles=1))


EXPORTED = ("eight", "five", "zero")


def test_a_model_keeps_its_tiles(detectors: dict[str, Detector], image: Any) -> None:
    tiny = detectors["tiny"]
    kept = Detector(tiny.network, tiny.classes, {"tiles": Tiles(200, 0.25).facts()})
    given = Detector(tiny.network, tiny.classes, tiles=Tiles(200, 0.25))
    tiled = tiny(image, tiles=200, overlap=0.25, score=0.05)
    assert kept(image, score=0.05) == given(image, score=0.05) == tiled
    assert kept(image, score=0.05, tiles="none") == tiny(image, score=0.05) != tiled
    assert kept(image, score=0.05, overlap=0.5) == tiny(image, tiles=200, overlap=0.5, score=0.05)


def test_errors_come_before_an_image_is_read(detectors: dict[str, Detector]) -> None:
    detector = detectors["tiny"]
    for settings in ({"tiles": 3}, {"overlap": 0.2}, {"tiles": "auto"}, {"tiles": 480, "overlap": 1}):
        with pytest.raises(ConfigError):
            detector("no-such.jpg", **settings)


def test_the_number_kept_is_of_the_image(detectors: dict[str, Detector], image: Any) -> None:
    all_of_it = detectors["tiny"](image, tiles=200, score=0.05)
    assert detectors["tiny"](image, tiles=200, score=0.05, keep=7) != all_of_it
    assert len(detectors["tiny"](image, tiles=200, score=0.05, keep=7)) == 7
    assert len(replace(all_of_it)) <= 200

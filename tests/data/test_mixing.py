"""Mosaic and mixup: by hand, what always holds, and the same views for any loader."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fssd.config.train_config import TrainConfig, to_values
from fssd.data.batch import Batch, Targets
from fssd.data.geometry import Letterbox, Warp
from fssd.data.loader import BatchPositions, Examples, Views, training_batches
from fssd.data.mixing import LEAST_SIDE, Mixing, Part, make_mixup, make_mosaic, sample_mosaic
from fssd.data.sample import Boxes, DataSet, Labels, Sample
from fssd.data.source import open_data
from fssd.errors import ConfigError
from fssd.training.start import complete, mixing_of

WARP = Warp((64, 48))


def sample(grey: int, boxes: list[list[float]], size: tuple[int, int], name: str = "") -> Sample:
    """An image of one grey; the labels are its grey too."""
    image = np.full((size[1], size[0], 3), grey, np.uint8)
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(image, rows, np.full(len(rows), grey), np.zeros(len(rows), bool), name or f"{grey}.jpg")


def test_mosaic_by_hand() -> None:
    # 20 x 10 with the corner at (8, 4). The first image is seen from (2, 1) on: 8 x 4 of its 10 x 6.
    parts = (
        Part((10, 6), (2, 1), (0, 0, 8, 4)),
        Part((12, 4), (0, 0), (8, 0, 20, 4)),
        Part((8, 6), (0, 0), (0, 4, 8, 10)),
        Part((20, 10), (5, 3), (8, 4, 20, 10)),
    )
    shown = [
        # moved by (-2, -1); of the second 2 of 9 square pixels are seen, of the third 1 px of height
        sample(10, [[3, 2, 7, 5], [0, 0, 3, 3], [2, 0, 8, 2]], (10, 6)),
        sample(20, [[0, 0, 12, 4]], (12, 4)),
        sample(30, [], (8, 6)),
        # moved by (3, 1): [23, 11] is cut to [20, 10]; of the second 4 x 4 of 9 x 4 are seen, not its centre
        sample(40, [[6, 4, 20, 10], [0, 5, 9, 9]], (20, 10)),
    ]
    made = make_mosaic(shown, parts, (20, 10))
    assert made.boxes.tolist() == [[1, 1, 5, 4], [8, 0, 20, 4], [9, 5, 20, 10], [8, 6, 12, 10]]
    assert made.labels.tolist() == [10, 20, 40, 40]
    assert made.name == "10.jpg + 20.jpg + 30.jpg + 40.jpg"
    wanted = np.zeros((10, 20), int)
    wanted[:4, :8], wanted[:4, 8:], wanted[4:, :8], wanted[4:, 8:] = 10, 20, 30, 40
    assert (made.image == wanted[..., None]).all()


def test_mixup_by_hand() -> None:
    made = make_mixup(sample(10, [[0, 0, 4, 4]], (6, 4)), sample(255, [[1, 1, 3, 3]], (6, 4)))
    assert made.image.dtype == np.uint8 and (made.image == 133).all()  # 132.5, rounded up
    assert made.boxes.tolist() == [[0, 0, 4, 4], [1, 1, 3, 3]] and made.labels.tolist() == [10, 255]
    assert made.name == "10.jpg + 255.jpg"


@pytest.mark.parametrize("seed", range(40))
def test_four_parts_tile_the_view_and_show_what_they_have(seed: int) -> None:
    size = [(300, 300), (128, 1024), (321, 200)][seed % 3]
    covered = np.zeros((size[1], size[0]), int)
    for part in sample_mosaic(size, np.random.default_rng(seed)):
        x1, y1, x2, y2 = part.place
        covered[y1:y2, x1:x2] += 1
        for k, (low, high) in enumerate(((x1, x2), (y1, y2))):
            assert 0.25 * size[k] - 1 <= high - low <= 0.75 * size[k] + 1
            assert 0 <= part.corner[k] <= part.size[k] - (high - low)
            assert 0.5 * size[k] - 1 <= part.size[k] <= size[k]
        assert part.size[0] / size[0] == pytest.approx(part.size[1] / size[1], abs=0.01)
    assert (covered == 1).all()


# ---- views of a data set


def padded(boxes: Boxes, labels: Labels) -> Targets:
    rows = torch.zeros(80, 4), torch.full((80,), -1)
    for row, values in zip(rows, (boxes, labels), strict=True):
        row[: len(values)] = torch.from_numpy(values)
    return {"boxes": rows[0], "labels": rows[1]}


@pytest.fixture(scope="module")
def data(scenes: Path) -> DataSet:
    return open_data(scenes, "train")


def views_of(data: DataSet, mixing: Mixing | None, recipe: str = "ssd", seed: int = 3) -> Views:
    return Views(data, WARP, seed, recipe, difficult=True, replaces=True, mixing=mixing)


def loaded(views: Views, positions: BatchPositions, workers: int = 0) -> list[Batch]:
    return list(training_batches(Examples(views, padded), positions, workers))


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.names == b.names and torch.equal(a.images, b.images)
        assert all(torch.equal(a.targets[key], b.targets[key]) for key in a.targets)


BOTH = Mixing(0.6, 0.5, 20)


def test_workers_processes_and_a_resume_make_no_difference(data: DataSet) -> None:
    views = views_of(data, BOTH)
    alone = loaded(views, BatchPositions(0, 6, 4))
    assert_same(alone, loaded(views, BatchPositions(0, 6, 4), workers=2))
    assert_same(alone[4:], loaded(views, BatchPositions(4, 6, 4)))
    halves = [loaded(views, BatchPositions(0, 6, 2, rank, 2)) for rank in range(2)]
    for step, batch in enumerate(alone):
        assert batch.names == halves[0][step].names + halves[1][step].names
        assert torch.equal(batch.images, torch.cat([half[step].images for half in halves]))


def test_views_of_one_image_are_those_of_a_run_without_mixing(data: DataSet) -> None:
    plain, mixed = views_of(data, None), views_of(data, BOTH)
    kinds: Counter[int] = Counter()
    for position in range(40):
        one, other = plain.sample(position), mixed.sample(position)
        images = len(other.name.split(" + "))
        kinds[images] += 1
        assert other.name.startswith(one.name)
        if images == 1 or position >= BOTH.until:
            assert np.array_equal(one.image, other.image) and np.array_equal(one.boxes, other.boxes)
        if position >= BOTH.until:
            assert images == 1, "the last views are left alone"
    assert set(kinds) == {1, 2, 4, 5} and kinds[1] > 20


def test_shares_are_those_asked_for(data: DataSet) -> None:
    for mosaic, mixup, images in ((1.0, 0.0, 4), (0.0, 1.0, 2), (1.0, 1.0, 5), (0.0, 0.0, 1)):
        views = views_of(data, Mixing(mosaic, mixup, 1000), "none")
        assert {len(views.sample(p).name.split(" + ")) for p in range(12)} == {images}
    views = views_of(data, Mixing(0.5, 0.0, 1000), "none")
    mosaics = sum(len(views.sample(p).name.split(" + ")) > 1 for p in range(120))
    assert 45 <= mosaics <= 75


@pytest.mark.parametrize("recipe", ["ssd", "mild", "mirror", "yolo", "none"])
def test_boxes_are_of_the_view_and_no_tiny_rest(data: DataSet, recipe: str) -> None:
    views = replace(views_of(data, Mixing(1.0, 0.3, 1000), recipe), geometry=Letterbox((96, 64)))
    boxes = np.concatenate([views.sample(position).boxes for position in range(24)])
    assert len(boxes) > 10
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (96, 64)).all()
    mosaics = replace(views, mixing=Mixing(1.0, 0.0, 1000))
    boxes = np.concatenate([mosaics.sample(position).boxes for position in range(24)])
    assert (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all()


def test_the_objects_of_a_mosaic_are_where_their_pixels_are(tmp_path: Path, data: DataSet) -> None:
    """Each image has a white square of its own place on black: boxes hold white, and white lies in boxes."""
    views = views_of(data, Mixing(1.0, 0.0, 1000), "none", seed=0)
    views = replace(views, dataset=squares(tmp_path, data), geometry=Warp((200, 200)))
    for position in range(12):
        view = views.sample(position)
        inside = np.zeros((200, 200), bool)
        for x1, y1, x2, y2 in view.boxes:
            box = slice(round(float(y1)), round(float(y2))), slice(round(float(x1)), round(float(x2)))
            assert view.image[box].mean() > 200
            inside[max(0, box[0].start - 2) : box[0].stop + 2, max(0, box[1].start - 2) : box[1].stop + 2] = (
                True
            )
        # a rest of less than a quarter has no box: it lies at the border between the images
        assert (view.image[~inside] > 128).mean() < 0.03


def squares(folder: Path, data: DataSet) -> DataSet:
    import cv2

    records = []
    for number, record in enumerate(data.records):
        image = np.zeros((100, 100, 3), np.uint8)
        x, y = 10 + 5 * number, 70 - 5 * number
        image[y : y + 20, x : x + 20] = 255
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), image)
        boxes, flags = np.array([[x, y, x + 20, y + 20]], np.float32), np.zeros(1, bool)
        labels = np.zeros(1, np.int64)
        own = replace(record, path=path, width=100, height=100, boxes=boxes, labels=labels)
        records.append(replace(own, difficult=flags, crowd=flags))
    return replace(data, records=tuple(records))


def test_an_image_that_breaks_is_the_same_as_one_that_is_gone(data: DataSet, tmp_path: Path) -> None:
    mixing = Mixing(1.0, 1.0, 1000)
    records = list(data.records)
    records[5] = replace(records[5], path=tmp_path / "none.jpg")
    broken = views_of(replace(data, records=tuple(records)), mixing)
    gone = replace(broken, absent=frozenset({5}))
    seen: set[str] = set()
    for position in range(24):
        (one, errors), (other, none) = broken.sample_and_broken(position), gone.sample_and_broken(position)
        assert np.array_equal(one.image, other.image) and one.name == other.name and not none
        seen |= set(errors)
    assert seen == {records[5].image_id}


# ---- the configuration


def test_the_last_epochs_are_plain() -> None:
    config = TrainConfig(mosaic=0.5)
    assert mixing_of(TrainConfig(), 1000, 100) is None
    assert mixing_of(config, 1000, 100) == Mixing(0.5, 0.0, 900)  # a tenth
    assert mixing_of(replace(config, plain_epochs=2.5), 1000, 100) == Mixing(0.5, 0.0, 750)
    assert mixing_of(replace(config, plain_epochs=0), 1000, 100) == Mixing(0.5, 0.0, 1000)
    with pytest.raises(ConfigError, match="plain_epochs is 10, but the run has 10 epochs, so no view"):
        mixing_of(replace(config, plain_epochs=10), 1000, 100)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mosaic": 1.5}, "mosaic is 1.5; it must be between 0 and 1"),
        ({"mixup": -0.1}, "mixup is -0.1; it must be between 0 and 1"),
        ({"mixup": 0.5, "plain_epochs": -1}, "plain_epochs is -1; it must be 0 or more"),
        ({"plain_epochs": 3}, "--plain-epochs ends mosaic and mixup; give --mosaic or --mixup"),
    ],
)
def test_wrong_values_are_refused(tmp_path: Path, settings: dict[str, float], message: str) -> None:
    config = TrainConfig(data=tmp_path, out=tmp_path / "run", **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        complete(config)


def test_settings_of_older_runs_mean_no_mixing() -> None:
    values = to_values(TrainConfig())
    assert (values["mosaic"], values["mixup"], values["plain_epochs"]) == (0, 0, None)

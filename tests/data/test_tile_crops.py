"""Training views of tiles: of a tile's size and scale, around objects, with a share that has none."""

from __future__ import annotations

import numpy as np
import pytest

from fssd.data.sample import Sample
from fssd.data.tile_crops import TileCrops, seen_boxes

WIDTH, HEIGHT = 300, 200


def made(*boxes: tuple[float, float, float, float]) -> Sample:
    """An image whose pixels say where they are, so that a crop tells where it is from."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(WIDTH) % 256, np.arange(HEIGHT)[:, None]
    image[..., 2] = np.arange(WIDTH) // 256
    own = np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(image, own, np.arange(len(own)), np.zeros(len(own), bool), "a.png")


def place(view: Sample) -> tuple[int, int]:
    red, green, blue = view.image[0, 0].tolist()
    return red + 256 * blue, green


def test_what_is_seen_of_boxes_by_hand() -> None:
    boxes = np.array(
        [
            [10, 10, 30, 30],  # inside
            [90, 10, 130, 30],  # a quarter is seen
            [91, 10, 131, 30],  # less than a quarter, and not its centre
            [60, 60, 180, 90],  # a third
            [99, 10, 101, 30],  # half of it, but 1 px wide
            [150, 10, 160, 30],  # outside
            [-400, -400, 40, 100],  # less than a quarter, but it fills 40 % of the tile
        ],
        np.float32,
    )
    own, keep = seen_boxes(boxes, (0, 0, 100, 100))
    assert keep.tolist() == [True, True, False, True, False, False, True]
    assert own[keep].tolist() == [[10, 10, 30, 30], [90, 10, 100, 30], [60, 60, 100, 90], [0, 0, 40, 100]]
    moved, _ = seen_boxes(boxes, (50, 5, 150, 105))
    assert moved[1].tolist() == [40, 5, 80, 25]


def test_crops_show_objects_at_native_scale() -> None:
    sample = made((20, 20, 40, 36), (250, 150, 300, 200))
    crops, rng = TileCrops((100, 80), 0.0), np.random.default_rng(0)
    seen = set()
    for _ in range(900):
        view = crops.crop(sample, rng)
        assert view.image.shape == (80, 100, 3)
        x, y = place(view)
        np.testing.assert_array_equal(view.image, sample.image[y : y + 80, x : x + 100])
        assert len(view.boxes) == len(view.labels) == len(view.difficult) == 1
        (label,) = view.labels.tolist()
        expected = (sample.boxes[label] - (x, y, x, y)).clip(0, (100, 80, 100, 80))
        assert view.boxes[0].tolist() == expected.tolist()
        seen.add((label, x))
    assert {label for label, _ in seen} == {0, 1}
    # The centre of the first, x = 30, is seen from 0 to 30; of the second, 275, from 176 to 200.
    assert {x for label, x in seen if label == 0} == set(range(31))
    assert {x for label, x in seen if label == 1} == set(range(176, 201))


@pytest.mark.parametrize("empty", [0.0, 0.3, 1.0])
def test_the_share_of_empty_tiles(empty: float) -> None:
    sample, rng = made((20, 20, 40, 36)), np.random.default_rng(1)
    crops = TileCrops((100, 80), empty)
    share = np.mean([not len(crops.crop(sample, rng).boxes) for _ in range(600)])
    assert abs(share - empty) < 0.08  # four standard deviations


def test_images_without_room_or_objects() -> None:
    rng = np.random.default_rng(2)
    sample = made((20, 20, 40, 36))
    assert TileCrops((300, 200), 1.0).crop(sample, rng) is sample
    everywhere = made((0, 0, 300, 200))
    assert len(TileCrops((100, 80), 1.0).crop(everywhere, rng).boxes) == 1  # no place is without it
    view = TileCrops((100, 400), 0.0).crop(made(), rng)
    assert view.image.shape == (200, 100, 3) and not len(view.boxes)
    at_border = made((299.5, 199.5, 300, 200))
    for _ in range(20):
        assert len(TileCrops((100, 80), 0.0).crop(at_border, rng).boxes) == 1

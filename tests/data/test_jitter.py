"""YOLOv2's augmentation: where the image lands, what its colours become, which objects stay."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from fssd.data.augment import RECIPES, augment, sample_rng
from fssd.data.distort import Shade, apply_distort, sample_shade
from fssd.data.geometry import MEAN, Letterbox, Warp
from fssd.data.jitter import sample_window
from fssd.data.sample import Sample

YOLO = RECIPES["yolo"]


def rngs(count: int) -> list[np.random.Generator]:
    return [sample_rng(0, 0, index) for index in range(count)]


@pytest.mark.parametrize("size", [(400, 200), (100, 300), (240, 240)])
@pytest.mark.parametrize("side", [(300, 300), (320, 192)])
def test_a_letterboxed_image_stays_whole(size: tuple[int, int], side: tuple[int, int]) -> None:
    """As darknet places it: the longer way fills the input, the aspect varies by (1 +- .3) / (1 -+ .3)."""
    aspects, lefts = [], []
    for rng in rngs(400):
        left, top, right, bottom = sample_window(size, Letterbox(side), rng)
        assert left <= 0 and top <= 0 and right >= size[0] - 1 and bottom >= size[1] - 1
        share_x, share_y = size[0] / (right - left), size[1] / (bottom - top)
        assert max(share_x, share_y) == pytest.approx(1, abs=0.02)
        aspects.append((share_x * side[0]) / (share_y * side[1]) / (size[0] / size[1]))
        lefts.append(-left / max(1, right - left - size[0]))
    assert min(aspects) >= 0.7 / 1.3 - 0.03 and max(aspects) <= 1.3 / 0.7 + 0.05
    assert min(aspects) < 0.65 and max(aspects) > 1.5
    if size[0] < size[1]:
        assert min(lefts) < 0.1 and max(lefts) > 0.9 and np.mean(lefts) == pytest.approx(0.5, abs=0.06)


def test_a_warped_image_is_cropped_or_padded_by_a_fifth() -> None:
    windows = np.array([sample_window((500, 100), Warp((300, 300)), rng) for rng in rngs(400)])
    low, high = windows.min(axis=0), windows.max(axis=0)
    assert (np.abs(low - (-100, -20, 400, 80)) <= (4, 1, 4, 1)).all()
    assert (np.abs(high - (100, 20, 600, 120)) <= (4, 1, 4, 1)).all()


def test_saturation_and_exposure_are_multiplied_or_divided() -> None:
    shades = [sample_shade(rng) for rng in rngs(600)]
    for values in ([s.saturation for s in shades], [s.exposure for s in shades]):
        assert 1 / 1.5 <= min(values) < 0.69 and 1.47 < max(values) <= 1.5
        assert np.mean([value > 1 for value in values]) == pytest.approx(0.5, abs=0.06)
    hues = [s.hue for s in shades]
    assert -18 <= min(hues) < -17 and 17 < max(hues) <= 18


@pytest.mark.parametrize("shade", [Shade(-12, 1.2, 0.8), Shade(10, 0.7, 1.3), Shade(0, 1, 1)], ids=str)
def test_colours_are_those_of_floating_point(shade: Shade) -> None:
    pixels = np.array([[[200, 40, 30], [30, 120, 60], [90, 90, 200], [250, 10, 60]]], np.uint8)
    found = apply_distort(pixels, shade)[0]
    for before, after in zip(pixels[0], found, strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(before / 255))
        turned = (h + shade.hue / 180) % 1  # red minus 24 degrees is pink, not red
        expected = colorsys.hsv_to_rgb(turned, min(1, s * shade.saturation), min(1, v * shade.exposure))
        assert np.abs(after - 255 * np.array(expected)).max() < 6, (before, after, expected)


def sample() -> Sample:
    image = np.full((120, 200, 3), MEAN, np.uint8)
    image[30:60, 20:80] = (250, 20, 20)
    boxes = np.array([[20, 30, 80, 60], [0, 0, 6, 6]], np.float32)
    return Sample(image, boxes, np.array([0, 1]), np.zeros(2, bool), "x")


@pytest.mark.parametrize("geometry", [Letterbox((160, 160)), Warp((160, 160))], ids=lambda g: g.name)
def test_boxes_move_with_the_pixels(geometry: Letterbox | Warp) -> None:
    for rng in rngs(60):
        view = augment(sample(), geometry, rng, recipe=YOLO)
        assert view.image.shape == (160, 160, 3)
        # The one coloured object, whatever its hue: far from grey.
        spread = view.image.max(axis=-1).astype(int) - view.image.min(axis=-1)
        rows, columns = np.nonzero(spread > 90)
        box = view.boxes[view.labels == 0][0]
        np.testing.assert_allclose(
            box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], atol=2.5
        )


def test_an_object_stays_while_any_part_of_it_does() -> None:
    geometry, kept = Warp((160, 160)), 0
    for rng in rngs(200):
        view = augment(sample(), geometry, rng, recipe=YOLO)
        small = view.boxes[view.labels == 1]
        assert (small[:, 2:] > small[:, :2]).all() and (small >= 0).all() and (small <= 160).all()
        kept += len(small)
    # The corner object of 6 px: cut off where both sides are moved in by more than that.
    assert 60 < kept < 140


def test_views_repeat() -> None:
    one, two = (augment(sample(), Letterbox((96, 96)), sample_rng(1, 2, 3), recipe=YOLO) for _ in range(2))
    assert (one.image == two.image).all() and (one.boxes == two.boxes).all()

"""Geometry: where pixels and boxes of an image lie in the network's input, and the way back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fssd.data.geometry import GEOMETRIES, Geometry, Letterbox, Warp, make_geometry
from fssd.errors import ConfigError

MEAN = (123, 117, 104)  # RGB, the spec's (104, 117, 123) BGR

sides = st.integers(1, 400)
shares = st.floats(0, 1, width=32)


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def boxes_of(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


@pytest.mark.parametrize("side", [300, 512, 64])
@pytest.mark.parametrize("image_size", [(500, 375), (31, 200), (300, 300), (1, 1)])
def test_the_square_warp_is_a_resize_to_the_last_bit(side: int, image_size: tuple[int, int]) -> None:
    width, height = image_size
    image, warp = noise(width, height), Warp((side, side))
    for interpolation in (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_LANCZOS4):
        expected = cv2.resize(image, (side, side), interpolation=interpolation)
        np.testing.assert_array_equal(warp.apply(image, interpolation), expected)
    boxes = np.random.default_rng(1).uniform(-20, 600, (200, 4)).astype(np.float32)
    forth = (boxes * np.array([side / width, side / height] * 2)).astype(np.float32)
    np.testing.assert_array_equal(warp.apply_boxes(boxes, image_size), forth)
    # The way back is the detector's: float32 on tensors, then cut to the image.
    found = torch.from_numpy(boxes)
    back = found * found.new_tensor([width / side, height / side] * 2)
    back = torch.minimum(back.clamp(min=0), back.new_tensor([width, height] * 2))
    np.testing.assert_array_equal(warp.undo(boxes, image_size), back.numpy())
    assert warp.undo(boxes, image_size).dtype == np.float32


# 640 x 480 into 320 x 320 is halved to 320 x 240, with (320 - 240) / 2 = 40 rows of padding on either side.
# 100 x 400 into 300 x 200 is halved to 50 x 200, with 125 columns on either side.
# 3 x 2 into 7 x 7 is 7 x 4.67, so 7 x 5 with one row on either side.
# 1000 x 1 into 100 x 50 would be a tenth of a pixel high: it keeps one row, with 24 above and 25 below.
@pytest.mark.parametrize(
    ("size", "image_size", "window"),
    [
        ((320, 320), (640, 480), (0, 40, 320, 240)),
        ((300, 200), (100, 400), (125, 0, 50, 200)),
        ((7, 7), (3, 2), (0, 1, 7, 5)),
        ((100, 50), (1000, 1), (0, 24, 100, 1)),
        ((100, 50), (1, 1000), (49, 0, 1, 50)),
        ((300, 300), (300, 300), (0, 0, 300, 300)),
    ],
)
def test_letterbox_by_hand(
    size: tuple[int, int], image_size: tuple[int, int], window: tuple[int, int, int, int]
) -> None:
    left, top, width, height = window
    image, geometry = noise(*image_size), Letterbox(size)
    expected = np.empty((size[1], size[0], 3), np.uint8)
    expected[:] = MEAN
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    expected[top : top + height, left : left + width] = resized
    np.testing.assert_array_equal(geometry.apply(image), expected)
    whole = boxes_of((0, 0, *image_size))
    inside = boxes_of((left, top, left + width, top + height))
    np.testing.assert_allclose(geometry.apply_boxes(whole, image_size), inside, rtol=1e-6)
    np.testing.assert_allclose(geometry.undo(inside, image_size), whole, rtol=1e-6)


def test_boxes_of_a_letterbox_by_hand() -> None:
    geometry = Letterbox((320, 320))  # of 640 x 480: halved, then 40 down
    found = geometry.apply_boxes(boxes_of((100, 60, 300, 200)), (640, 480))
    np.testing.assert_array_equal(found, boxes_of((50, 70, 150, 140)))
    assert found.dtype == np.float32
    # What reaches into the padding ends at the image's edge; no boxes stay no boxes.
    back = geometry.undo(boxes_of((-5, 10, 50, 70), (300, 270, 330, 320)), (640, 480))
    np.testing.assert_array_equal(back, boxes_of((0, 0, 100, 60), (600, 460, 640, 480)))
    assert geometry.undo(boxes_of(), (640, 480)).shape == (0, 4)
    assert geometry.apply_boxes(boxes_of(), (640, 480)).shape == (0, 4)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(GEOMETRIES)),
    size=st.tuples(st.integers(128, 1024), st.integers(128, 1024)),
    image_size=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    corners=st.lists(st.tuples(shares, shares, shares, shares), max_size=4),
)
def test_undo_brings_boxes_back(
    name: str, size: tuple[int, int], image_size: tuple[int, int], corners: list[tuple[float, ...]]
) -> None:
    geometry = make_geometry(name, size)
    boxes = (np.array(corners, np.float64).reshape(-1, 4) * (image_size * 2)).astype(np.float32)
    back = geometry.undo(geometry.apply_boxes(boxes, image_size), image_size)
    np.testing.assert_allclose(back, boxes, rtol=0, atol=1e-3)


@settings(max_examples=200, deadline=None)
@given(size=st.tuples(sides, sides), image_size=st.tuples(sides, sides))
def test_padding_is_around_the_image_alone(size: tuple[int, int], image_size: tuple[int, int]) -> None:
    found = Letterbox(size).apply(np.zeros((image_size[1], image_size[0], 3), np.uint8))
    assert found.shape == (size[1], size[0], 3) and found.dtype == np.uint8
    padding = (found == MEAN).all(axis=2)
    assert (padding | (found == 0).all(axis=2)).all()
    columns, rows = np.flatnonzero(~padding.all(axis=0)), np.flatnonzero(~padding.all(axis=1))
    assert not padding[np.ix_(rows, columns)].any(), "the image is one rectangle"
    for axis, filled in enumerate((columns, rows)):
        before, after = filled[0], size[axis] - 1 - filled[-1]
        assert after - before in (0, 1), "centred"
    # It fits tightly on one axis, and the other side is as long as the aspect asks, to the nearest pixel.
    scale = min(size[0] / image_size[0], size[1] / image_size[1])
    for filled, side in ((columns, image_size[0]), (rows, image_size[1])):
        assert abs(len(filled) - max(1, side * scale)) <= 0.5 + 1e-9


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(GEOMETRIES)),
    size=st.tuples(sides, sides),
    image_size=st.tuples(sides, sides),
    corner=st.tuples(shares, shares),
    extent=st.tuples(shares, shares),
)
def test_a_rectangle_lands_where_its_box_does(
    name: str,
    size: tuple[int, int],
    image_size: tuple[int, int],
    corner: tuple[float, float],
    extent: tuple[float, float],
) -> None:
    geometry: Geometry = make_geometry(name, size)
    first = [int(share * (side - 1)) for share, side in zip(corner, image_size, strict=True)]
    last = [
        start + 1 + int(share * (side - start - 1))
        for start, share, side in zip(first, extent, image_size, strict=True)
    ]
    image = np.zeros((image_size[1], image_size[0], 3), np.uint8)
    image[first[1] : last[1], first[0] : last[0]] = 255
    white = (geometry.apply(image, cv2.INTER_NEAREST) == 255).all(axis=2)
    x1, y1, x2, y2 = geometry.apply_boxes(boxes_of((*first, *last)), image_size)[0].tolist()
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    for found, low, high in ((columns, x1, x2), (rows, y1, y2)):
        if len(found):
            assert abs(found[0] - low) <= 1 and abs(found[-1] + 1 - high) <= 1
        else:  # so thin on one axis that the nearest pixels are all beside it
            assert min(x2 - x1, y2 - y1) < 1


def test_unknown_name_suggests_the_nearest() -> None:
    assert make_geometry("letterbox", (320, 256)) == Letterbox((320, 256))
    assert make_geometry("warp", (300, 300)) == Warp((300, 300))
    with pytest.raises(ConfigError, match="no geometry 'leterbox'; did you mean 'letterbox'"):
        make_geometry("leterbox", (300, 300))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", sorted(GEOMETRIES))
def test_boxes_of_any_length_are_clipped(name: str) -> None:
    most = np.finfo(np.float32).max
    boxes = np.array([[-most, -most, most, most], [-np.inf, 0, np.inf, 128]], np.float32)
    found = make_geometry(name, (128, 128)).undo(boxes, (500, 500))
    assert found.tolist() == [[0, 0, 500, 500]] * 2

"""Augmentation: hand-worked geometry, statistics of the random choices, equality with plain code."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fssd.data import augment as module
from fssd.data.augment import (
    INTERPOLATIONS,
    MEAN,
    MIRROR,
    RECIPES,
    Augmentation,
    Recipe,
    apply_augmentation,
    augment,
    resize,
    sample_augmentation,
    sample_rng,
)
from fssd.data.crop import sample_crop, sample_patches
from fssd.data.distort import Distort, apply_distort, sample_distort
from fssd.data.geometry import Letterbox, Warp
from fssd.data.sample import Sample
from fssd.errors import ConfigError

_spec = importlib.util.spec_from_file_location(
    "reference_augment", Path(__file__).with_name("reference_augment.py")
)
assert _spec is not None and _spec.loader is not None
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)


def boxes_of(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def sample_of(image: np.ndarray, boxes: np.ndarray) -> Sample:
    rows = np.arange(len(boxes))
    return Sample(image, boxes, rows.astype(np.int64), rows % 2 == 1, "image.jpg")


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def square(side: int) -> Warp:
    return Warp((side, side))


def steps_of(width: int, height: int, **changes: object) -> Augmentation:
    """The augmentation that changes nothing but the size, with `changes`."""
    values: dict[str, object] = {
        "distort": None,
        "canvas": (width, height),
        "offset": (0, 0),
        "crop": (0, 0, width, height),
        "interpolation": cv2.INTER_NEAREST,
        "mirror": False,
    }
    return Augmentation(**{**values, **changes})  # type: ignore[arg-type]


def only(**changes: float) -> Distort:
    steps: dict[str, float | None] = dict.fromkeys(("brightness", "contrast", "saturation", "hue"))
    return Distort(**{**steps, **changes}, contrast_last=False)  # type: ignore[arg-type]


# Geometry, worked by hand


def test_boxes_and_pixels_after_expand_crop_resize_and_mirror() -> None:
    # A 4 x 2 image at (3, 1) of a 10 x 6 canvas; its left half is the object. The crop is 5 x 5 from (2, 0),
    # so the image starts at (1, 1) in it and the object covers x 1..3, y 1..3. Times two: 2..6, 2..6.
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, :2] = (200, 10, 20)
    steps = steps_of(4, 2, canvas=(10, 6), offset=(3, 1), crop=(2, 0, 7, 5))
    view = apply_augmentation(sample_of(image, boxes_of((0, 0, 2, 2))), steps, square(10))
    np.testing.assert_array_equal(view.boxes, boxes_of((2, 2, 6, 6)))
    assert view.boxes.dtype == np.float32
    expected = np.empty((10, 10, 3), np.uint8)
    expected[:] = MEAN
    expected[2:6, 2:10] = 0
    expected[2:6, 2:6] = (200, 10, 20)
    np.testing.assert_array_equal(view.image, expected)

    mirrored = steps_of(4, 2, canvas=(10, 6), offset=(3, 1), crop=(2, 0, 7, 5), mirror=True)
    view = apply_augmentation(sample_of(image, boxes_of((0, 0, 2, 2))), mirrored, square(10))
    np.testing.assert_array_equal(view.boxes, boxes_of((4, 2, 8, 6)))
    np.testing.assert_array_equal(view.image, expected[:, ::-1])


def test_warp_scales_each_axis_by_itself() -> None:
    view = apply_augmentation(sample_of(noise(20, 10), boxes_of((2, 3, 10, 8))), steps_of(20, 10), square(40))
    np.testing.assert_array_equal(view.boxes, boxes_of((4, 12, 20, 32)))


def test_object_stays_if_its_centre_is_inside_edges_included_and_is_clipped() -> None:
    boxes = boxes_of(
        (0, 4, 8, 6),  # centre x 4: on the crop's left edge, clipped to its right half
        (0, 4, 7.9, 6),  # centre just outside
        (6, 6, 10, 10),  # centre on the lower right corner (8, 8)
        (6, 6, 10, 10.1),  # just below it
        (0, 0, 12, 12),  # larger than the crop
    )
    view = apply_augmentation(sample_of(noise(12, 12), boxes), steps_of(12, 12, crop=(4, 4, 8, 8)), square(4))
    np.testing.assert_array_equal(view.boxes, boxes_of((0, 0, 4, 2), (2, 2, 4, 4), (0, 0, 4, 4)))
    assert view.labels.tolist() == [0, 2, 4]


def test_difficult_flags_and_labels_follow_their_boxes() -> None:
    boxes = boxes_of((0, 0, 2, 2), (6, 6, 9, 9), (0, 0, 3, 3), (5, 5, 9, 9))
    view = apply_augmentation(
        sample_of(noise(10, 10), boxes), steps_of(10, 10, crop=(4, 4, 10, 10)), square(6)
    )
    assert view.labels.tolist() == [1, 3]
    assert view.difficult.tolist() == [True, True]
    assert view.name == "image.jpg"


def test_box_of_no_area_is_dropped_and_a_tiny_one_is_kept() -> None:
    boxes = boxes_of((3, 3, 3, 6), (5, 5, 4, 6), (2, 2, 2.01, 2.01))
    view = apply_augmentation(sample_of(noise(10, 10), boxes), steps_of(10, 10), square(10))
    assert view.labels.tolist() == [2]


def test_crop_that_misses_the_image_is_all_mean() -> None:
    steps = steps_of(
        8, 8, canvas=(30, 30), offset=(0, 0), crop=(10, 10, 30, 30), interpolation=cv2.INTER_CUBIC
    )
    view = apply_augmentation(sample_of(noise(8, 8), boxes_of((0, 0, 8, 8))), steps, square(16))
    assert (view.image == np.array(MEAN)).all()
    assert view.boxes.shape == (0, 4)


# Equality with the plain implementation


@pytest.mark.parametrize(("width", "height"), [(125, 94), (97, 131), (64, 64), (31, 7), (300, 20)])
def test_equals_the_steps_done_one_by_one(width: int, height: int) -> None:
    image = cv2.GaussianBlur(noise(width, height), (0, 0), 1.5)
    rng = np.random.default_rng(5)
    for index in range(60):
        corner = rng.uniform(0, 0.8, (index % 4, 2))
        corners = np.concatenate([corner, corner + (1 - corner) * rng.uniform(0.05, 1, corner.shape)], axis=1)
        sample = sample_of(image, (corners * (width, height, width, height)).astype(np.float32))
        ours = augment(sample, square(75), sample_rng(1, 2, index))
        plain = reference.augment_plainly(sample, 75, sample_rng(1, 2, index))
        np.testing.assert_array_equal(ours.image, plain.image)
        np.testing.assert_allclose(ours.boxes, plain.boxes, atol=1e-4)
        np.testing.assert_array_equal(ours.labels, plain.labels)
        np.testing.assert_array_equal(ours.difficult, plain.difficult)


def test_crops_equal_those_of_plain_loops() -> None:
    rng = np.random.default_rng(3)
    for index in range(60):
        corner = rng.uniform(0, 300, (3, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(1, 200, (3, 2))], axis=1).astype(np.float32)
        ours = sample_crop(boxes, 500, 375, sample_rng(0, 0, index))
        assert ours == reference.crop_plainly(boxes, 500, 375, sample_rng(0, 0, index))


def columns_of_image(image: np.ndarray) -> list[int]:
    return np.flatnonzero((image != np.array(MEAN)).any(axis=(0, 2))).tolist()


def test_huge_canvas_is_pasted_at_the_output_size(monkeypatch: pytest.MonkeyPatch) -> None:
    # 200 x 100 at (200, 100) of 400 x 400, shown at 40 x 40: every edge falls on a whole pixel of the result.
    image = cv2.GaussianBlur(noise(200, 100), (0, 0), 4)
    sample = sample_of(image, boxes_of((0, 0, 200, 100)))
    steps = steps_of(200, 100, canvas=(400, 400), offset=(200, 100), crop=(0, 0, 400, 400))
    steps = Augmentation(**{**vars(steps), "interpolation": cv2.INTER_AREA})
    exact = apply_augmentation(sample, steps, square(40))
    monkeypatch.setattr(module, "LARGEST_CANVAS", 1000)
    pasted = apply_augmentation(sample, steps, square(40))
    np.testing.assert_array_equal(pasted.boxes, boxes_of((20, 10, 40, 20)))
    assert np.abs(pasted.image.astype(int) - exact.image).max() <= 1

    # One column of the image in a crop of 201, far less than a pixel of the result, and still it shows.
    sliver = steps_of(200, 100, canvas=(400, 400), offset=(200, 100), crop=(0, 0, 201, 400))
    assert columns_of_image(apply_augmentation(sample, sliver, square(40)).image) == [39]
    sliver = steps_of(200, 100, canvas=(400, 400), offset=(0, 100), crop=(199, 0, 400, 400))
    assert columns_of_image(apply_augmentation(sample, sliver, square(40)).image) == [0]
    for index in range(200):  # wherever else the borders fall
        assert augment(sample, square(40), sample_rng(0, 1, index)).image.shape == (40, 40, 3)


def test_letterbox_keeps_the_aspect_of_the_crop() -> None:
    # The crop is 20 x 10 from (10, 5). Twice as large it is 40 x 20 and lies 10 pixels below the top of a
    # 40 x 40 input. The object is 4 x 4 at (6, 5) of the crop: 12..20 across, 10 + 10..18 down.
    image = np.zeros((30, 40, 3), np.uint8)
    image[10:14, 16:20] = 255
    sample = sample_of(image, boxes_of((16, 10, 20, 14)))
    steps = steps_of(40, 30, crop=(10, 5, 30, 15))
    view = apply_augmentation(sample, steps, Letterbox((40, 40)))
    np.testing.assert_array_equal(view.boxes, boxes_of((12, 20, 20, 28)))
    expected = np.zeros((40, 40, 3), np.uint8)
    expected[:10] = expected[30:] = MEAN
    expected[20:28, 12:20] = 255
    np.testing.assert_array_equal(view.image, expected)

    # In a 60 x 40 input it is three times as large, 60 x 30, 5 pixels below the top. The object is at 18..30
    # across, mirrored 60 - 30..60 - 18, and 5 + 15..27 down.
    mirrored = steps_of(40, 30, crop=(10, 5, 30, 15), mirror=True)
    view = apply_augmentation(sample, mirrored, Letterbox((60, 40)))
    np.testing.assert_array_equal(view.boxes, boxes_of((30, 20, 42, 32)))
    assert view.image.shape == (40, 60, 3)
    assert (view.image[20:32, 30:42] == 255).all() and (view.image == 255).all(axis=2).sum() == 12 * 12


def test_huge_canvas_is_pasted_into_a_letterbox(monkeypatch: pytest.MonkeyPatch) -> None:
    # 200 x 100 at (200, 100) of a 400 x 200 canvas, which is 40 x 20 of a 40 x 30 input, 5 below its top.
    image = cv2.GaussianBlur(noise(200, 100), (0, 0), 4)
    sample = sample_of(image, boxes_of((0, 0, 200, 100)))
    steps = steps_of(200, 100, canvas=(400, 200), offset=(200, 100), crop=(0, 0, 400, 200))
    steps = Augmentation(**{**vars(steps), "interpolation": cv2.INTER_AREA})
    exact = apply_augmentation(sample, steps, Letterbox((40, 30)))
    monkeypatch.setattr(module, "LARGEST_CANVAS", 1000)
    pasted = apply_augmentation(sample, steps, Letterbox((40, 30)))
    np.testing.assert_array_equal(pasted.boxes, boxes_of((20, 15, 40, 25)))
    assert np.abs(pasted.image.astype(int) - exact.image).max() <= 1


# Crop sampling


def share_of_whole(boxes: np.ndarray, count: int = 4000) -> float:
    rng = np.random.default_rng(0)
    return sum(sample_crop(boxes, 500, 500, rng) == (0, 0, 500, 500) for _ in range(count)) / count


def test_candidates_are_collected_and_one_is_picked_uniformly() -> None:
    # For an object that fills the image IoU is scale^2. All samplers succeed but the one of 0.9, which fails
    # with (1 - (1 - sqrt(0.9)) / 0.7)^50 = 2 %: the whole image is one of seven, and now and then of six.
    assert share_of_whole(boxes_of((0, 0, 500, 500))) == pytest.approx(0.98 / 7 + 0.02 / 6, abs=0.02)


def test_samplers_that_fail_raise_the_share_of_the_others() -> None:
    # A patch of at least 9 % overlaps an object of 0.01 % by at most 0.0011: only the free patch remains.
    assert share_of_whole(boxes_of((250, 250, 255, 255))) == pytest.approx(1 / 2, abs=0.03)


def test_any_one_object_satisfies_a_sampler() -> None:
    both = boxes_of((0, 0, 500, 500), (250, 250, 255, 255))
    assert share_of_whole(both) == pytest.approx(1 / 7, abs=0.02)


def test_each_sampler_keeps_its_least_iou() -> None:
    box = boxes_of((20, 20, 480, 490))
    for least in (0.1, 0.3, 0.5, 0.7, 0.9):
        rng = np.random.default_rng(0)
        crops = [sample_crop(box, 500, 500, rng, min_ious=(least,), trials=200) for _ in range(100)]
        overlaps = [reference.iou(crop, tuple(box[0].tolist())) for crop in crops if crop != (0, 0, 500, 500)]
        assert overlaps and min(overlaps) >= least - 0.02  # crops are whole pixels, patches are not


def test_patches_have_the_area_of_their_scale_and_fit() -> None:
    patches = sample_patches(np.random.default_rng(0), 6, 5000).reshape(-1, 4)
    assert patches.min() >= 0 and patches.max() <= 1 + 1e-12
    area = (patches[:, 2] - patches[:, 0]) * (patches[:, 3] - patches[:, 1])
    scale = np.sqrt(area)
    assert scale.min() >= 0.3 - 1e-9 and scale.max() <= 1
    assert scale.mean() == pytest.approx(0.65, abs=0.01)


def test_a_patch_has_the_full_width_or_height_where_its_aspect_was_clamped() -> None:
    # Scale s is U(0.3, 1) and the aspect a is U(0.5, 2), then clamped to [s^2, 1 / s^2]; both ends can only
    # be reached for s > sqrt(0.5).
    # Full width is a >= 1 / s^2: the integral of (2 - 1 / s^2) / 1.5 ds / 0.7 from sqrt(0.5) to 1
    #   = [2 s + 1 / s] / 1.05 = (3 - 2 sqrt(2)) / 1.05 = 16.34 %.
    # Full height is a <= s^2: the integral of (s^2 - 0.5) / 1.5 ds / 0.7
    #   = [s^3 / 3 - s / 2] / 1.05 = (sqrt(2) - 1) / 6 / 1.05 = 6.57 %.
    patches = sample_patches(np.random.default_rng(0), 6, 20_000).reshape(-1, 4)
    width, height = patches[:, 2] - patches[:, 0], patches[:, 3] - patches[:, 1]
    assert (width == 1).mean() == pytest.approx(0.1634, abs=0.005)  # more than 4 standard deviations
    assert (height == 1).mean() == pytest.approx(0.0657, abs=0.005)
    free = (width < 1) & (height < 1) & (width * height < 0.5)  # never clamped: all of U(0.5, 2)
    counts = np.histogram((width / height)[free], bins=5, range=(0.5, 2))[0]
    np.testing.assert_allclose(counts / free.sum(), 0.2, atol=0.02)


def test_image_without_objects_is_used_whole() -> None:
    sample = sample_of(noise(40, 30), boxes_of())
    for index in range(50):
        steps = sample_augmentation(sample, sample_rng(0, 0, index))
        assert steps.crop == (0, 0, *steps.canvas)
        view = apply_augmentation(sample, steps, square(20))
        assert view.boxes.shape == (0, 4) and view.image.shape == (20, 20, 3)


# The other random choices


def test_half_of_the_images_are_expanded_with_one_ratio_for_both_sides() -> None:
    sample = sample_of(noise(500, 250), boxes_of())
    sampled = [sample_augmentation(sample, sample_rng(0, 0, index)) for index in range(2000)]
    expanded = [steps for steps in sampled if steps.canvas != (500, 250)]
    assert len(expanded) / len(sampled) == pytest.approx(0.5, abs=0.04)
    ratios = np.array([steps.canvas for steps in expanded]) / (500, 250)
    np.testing.assert_allclose(ratios[:, 0], ratios[:, 1], atol=1 / 250)
    assert ratios.min() >= 1 and ratios.max() <= 4 and ratios.mean() == pytest.approx(2.5, abs=0.1)
    room = np.array([steps.canvas for steps in expanded]) - (500, 250)
    offsets = np.array([steps.offset for steps in expanded])
    assert (offsets >= 0).all() and (offsets <= room).all()
    assert (offsets / np.maximum(room, 1)).mean() == pytest.approx(0.5, abs=0.03)


def test_interpolations_and_mirror_are_sampled_evenly() -> None:
    sample = sample_of(noise(20, 20), boxes_of())
    sampled = [sample_augmentation(sample, sample_rng(0, 0, index)) for index in range(2000)]
    counts = Counter(steps.interpolation for steps in sampled)
    assert set(counts) == set(INTERPOLATIONS) and len(counts) == 5
    assert all(count / 2000 == pytest.approx(0.2, abs=0.04) for count in counts.values())
    assert sum(steps.mirror for steps in sampled) / 2000 == pytest.approx(0.5, abs=0.04)


def test_distortions_are_sampled_from_their_ranges() -> None:
    rng = np.random.default_rng(0)
    distortions = [sample_distort(rng) for _ in range(3000)]
    assert sum(d.contrast_last for d in distortions) / 3000 == pytest.approx(0.5, abs=0.03)
    ranges = {"brightness": (-32, 32), "contrast": (0.5, 1.5), "saturation": (0.5, 1.5), "hue": (-18, 18)}
    for name, (low, high) in ranges.items():
        values = np.array([getattr(d, name) for d in distortions if getattr(d, name) is not None])
        assert len(values) / 3000 == pytest.approx(0.5, abs=0.03)
        assert (
            low <= values.min() < low + (high - low) / 50 and high - (high - low) / 50 < values.max() <= high
        )


# Distortion


def colour(*rgb: int) -> np.ndarray:
    return np.array([[rgb]], np.uint8)


def test_brightness_and_contrast_saturate() -> None:
    assert apply_distort(colour(0, 20, 250), only(brightness=-30.0)).tolist() == [[[0, 0, 220]]]
    assert apply_distort(colour(0, 20, 250), only(brightness=30.4)).tolist() == [[[30, 50, 255]]]
    assert apply_distort(colour(0, 100, 200), only(contrast=1.5)).tolist() == [[[0, 150, 255]]]


def test_hue_saturates_at_zero_and_wraps_above() -> None:
    orange = cv2.cvtColor(colour(5, 255, 255), cv2.COLOR_HSV2RGB)
    assert apply_distort(orange, only(hue=-18.0)).tolist() == [[[255, 0, 0]]]  # H 5 - 18 becomes 0, not 167
    pink = cv2.cvtColor(colour(175, 255, 255), cv2.COLOR_HSV2RGB)
    expected = cv2.cvtColor(colour(5, 255, 255), cv2.COLOR_HSV2RGB)  # H 175 + 10 is 185, the same as 5
    np.testing.assert_array_equal(apply_distort(pink, only(hue=10.0)), expected)


def test_saturation_scales_s_and_leaves_grey_alone() -> None:
    assert apply_distort(colour(90, 90, 90), only(saturation=1.5)).tolist() == [[[90, 90, 90]]]
    paler = apply_distort(colour(200, 0, 0), only(saturation=0.5))
    assert paler[0, 0, 0] == 200 and paler[0, 0, 1] == pytest.approx(100, abs=1)


def test_the_two_orders_of_contrast_differ() -> None:
    image = noise(50, 50)
    first = Distort(brightness=20.0, contrast=1.4, saturation=1.3, hue=7.0, contrast_last=False)
    last = Distort(brightness=20.0, contrast=1.4, saturation=1.3, hue=7.0, contrast_last=True)
    assert not np.array_equal(apply_distort(image, first), apply_distort(image, last))


def test_distorting_a_crop_equals_cropping_a_distorted_image() -> None:
    image = noise(117, 23)
    sample = sample_of(image, boxes_of())
    distort = Distort(brightness=-11.0, contrast=0.8, saturation=1.4, hue=13.0, contrast_last=True)
    whole = apply_distort(image, distort)
    for x1, x2 in [(0, 117), (1, 116), (33, 63), (90, 117), (64, 96), (116, 117)]:
        view = apply_augmentation(
            sample, steps_of(117, 23, distort=distort, crop=(x1, 3, x2, 20)), square(60)
        )
        expected = cv2.resize(whole[3:20, x1:x2], (60, 60), interpolation=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(view.image, expected)


# Promises


def test_same_key_same_sample_and_other_keys_others() -> None:
    sample = sample_of(noise(60, 40), boxes_of((5, 5, 50, 30)))
    view = augment(sample, square(30), sample_rng(7, 3, 11))
    again = augment(sample, square(30), sample_rng(7, 3, 11))
    np.testing.assert_array_equal(view.image, again.image)
    np.testing.assert_array_equal(view.boxes, again.boxes)
    sampled = [
        sample_augmentation(sample, sample_rng(*key))
        for key in [(7, 3, 11), (8, 3, 11), (7, 4, 11), (7, 3, 12)]
    ]
    assert len(set(sampled)) == 4


def test_the_sample_is_never_written_to() -> None:
    image, boxes = noise(50, 40), boxes_of((5, 5, 45, 35))
    sample = sample_of(image.copy(), boxes.copy())
    sample.image.setflags(write=False)
    for index in range(60):
        augment(sample, square(30), sample_rng(0, 0, index))
    np.testing.assert_array_equal(sample.image, image)
    np.testing.assert_array_equal(sample.boxes, boxes)


coordinate = st.floats(-20, 120, width=32)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), max_size=5),
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    index=st.integers(0, 10_000),
)
def test_no_box_is_ever_degenerate_or_outside(
    rows: list[tuple[float, float, float, float]], width: int, height: int, index: int
) -> None:
    view = augment(sample_of(noise(width, height), boxes_of(*rows)), square(24), sample_rng(0, 0, index))
    assert view.image.shape == (24, 24, 3) and view.image.dtype == np.uint8
    assert view.image.flags.c_contiguous
    assert view.boxes.dtype == np.float32 and view.boxes.shape == (len(view.labels), 4)
    assert (view.boxes[:, 2:] > view.boxes[:, :2]).all()
    assert (view.boxes >= 0).all() and (view.boxes <= 24).all()
    assert len(view.labels) == len(view.difficult) <= len(rows)


# Options


def test_mirror_recipe_only_resizes_and_mirrors() -> None:
    sample = sample_of(noise(60, 40), boxes_of((5, 5, 50, 30)))
    upright = resize(sample, square(30))
    mirrored = 0
    for index in range(40):
        view = augment(sample, square(30), sample_rng(0, 0, index), recipe=RECIPES["mirror"])
        flipped = not np.array_equal(view.image, upright.image)
        mirrored += flipped
        np.testing.assert_array_equal(view.image[:, ::-1] if flipped else view.image, upright.image)
        expected = boxes_of((5, 3.75, 27.5, 22.5)) if flipped else upright.boxes
        np.testing.assert_allclose(view.boxes, expected, rtol=1e-6)
    assert 10 < mirrored < 30


def test_resize_for_evaluation_keeps_every_box() -> None:
    boxes = boxes_of((0, 0, 20, 10), (5, 5, 5, 5), (-4, 0, 30, 8))
    view = resize(sample_of(noise(20, 10), boxes), square(40))
    np.testing.assert_array_equal(view.boxes, boxes * np.array([2, 4, 2, 4], np.float32))
    assert view.difficult.tolist() == [False, True, False]
    expected = cv2.resize(noise(20, 10), (40, 40), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(view.image, expected)


def test_jpeg_changes_pixels_a_little_and_boxes_not_at_all() -> None:
    image = cv2.GaussianBlur(noise(120, 90), (0, 0), 3)
    sample = sample_of(image, boxes_of((20, 20, 90, 80)))
    for index in range(20):
        clean = augment(sample, square(60), sample_rng(0, 0, index))
        jpeg = augment(sample, square(60), sample_rng(0, 0, index), jpeg=True)
        np.testing.assert_array_equal(clean.boxes, jpeg.boxes)
        assert not np.array_equal(clean.image, jpeg.image) or (clean.image == clean.image[0, 0]).all()
        assert np.abs(clean.image.astype(int) - jpeg.image).mean() < 3


def test_mild_recipe_zooms_out_less_often_and_less_far() -> None:
    sample = sample_of(noise(60, 40), boxes_of((5, 5, 30, 30)))
    canvases = [sample_augmentation(sample, sample_rng(0, 0, i), RECIPES["mild"]).canvas for i in range(400)]
    widened = [canvas for canvas in canvases if canvas != (60, 40)]
    assert 60 < len(widened) < 140, "a quarter of 400, give or take four standard deviations"
    assert max(width for width, _ in widened) <= 120
    assert max(height for _, height in widened) <= 80


def test_recipe_refuses_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match="mirror_prob"):
        Recipe(mirror_prob=1.5)
    with pytest.raises(ConfigError, match="max_expand"):
        Recipe(max_expand=0.5)
    with pytest.raises(ConfigError, match="interpolations"):
        Recipe(interpolations=())
    assert RECIPES["mirror"] is MIRROR

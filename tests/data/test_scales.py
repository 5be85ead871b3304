"""Multi-scale training: the side of every update, and boxes that stay in the network's own pixels."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from fssd.data.batch import Targets
from fssd.data.geometry import Letterbox, Warp
from fssd.data.loader import BatchPositions, Examples, Views, training_batches
from fssd.data.scales import Scales
from fssd.data.source import open_data

SCALES = Scales(320, 608, own=416, seed=0, images=64, updates=5000)


def test_the_side_changes_every_ten_updates() -> None:
    sides = [SCALES.side(64 * update) for update in range(4800)]
    runs = [len(list(run)) for _, run in itertools.groupby(sides)]
    assert all(length % 10 == 0 for length in runs)
    counts = Counter(sides[::10])
    assert set(counts) == set(range(320, 609, 32))
    assert max(counts.values()) < 2 * min(counts.values())  # 48 of each on average


def test_all_images_of_an_update_have_one_side_in_every_process() -> None:
    for update in (0, 17, 170, 4999):
        assert len({SCALES.side(64 * update + image) for image in range(64)}) == 1


def test_the_last_updates_have_the_networks_own_size() -> None:
    assert {SCALES.side(64 * update) for update in range(4800, 5000)} == {416}
    assert {SCALES.side(64 * update) for update in range(4790, 4800)} != {416}
    short = replace(SCALES, updates=10)
    assert {short.side(64 * update) for update in (8, 9)} == {416}
    assert short.side(0) == SCALES.side(0)


def test_another_seed_gives_other_sides() -> None:
    other = replace(SCALES, seed=1)
    assert [SCALES.side(640 * i) for i in range(30)] != [other.side(640 * i) for i in range(30)]


def keep_boxes(boxes: np.ndarray, labels: np.ndarray) -> Targets:
    import torch

    return {"boxes": torch.from_numpy(boxes[:1].copy())}


def test_views_differ_in_size_and_targets_do_not(scenes: Path) -> None:
    data = open_data(scenes, "train")
    kept = [record for record in data.records if len(record.boxes)]
    data = replace(data, records=tuple(kept[:1]))
    scales = Scales(128, 256, own=160, seed=3, images=2, updates=1000)
    views = Views(data, Warp((160, 160)), 0, "none", True, scales=scales)
    positions = BatchPositions(0, 60, 2)
    found = []
    for workers in (0, 2):
        batches = list(training_batches(Examples(views, keep_boxes), positions, workers))
        sides = [batch.images.shape[-1] for batch in batches]
        assert sides == [scales.side(2 * number) for number in range(60)] and len(set(sides)) > 2
        boxes = np.stack([batch.targets["boxes"].numpy() for batch in batches])
        assert np.abs(boxes - boxes[:1]).max() < 1e-3  # in pixels of 160 x 160
        expected = Warp((160, 160)).apply_boxes(kept[0].boxes[:1], (kept[0].width or 0, kept[0].height or 0))
        np.testing.assert_allclose(boxes[0, 0], expected, atol=1e-3)
        found.append(sides)
    assert found[0] == found[1]


def test_a_letterbox_stays_one(scenes: Path) -> None:
    views = Views(
        open_data(scenes, "train"), Letterbox((160, 160)), 0, "none", True, scales=replace(SCALES, own=160)
    )
    assert views.geometry_at(0) == Letterbox((SCALES.side(0),) * 2)

"""Differences in mAP over resampled images: by hand, and against data sets that repeat images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fssd.config.train_config import Metric
from fssd.data.sample import DataSet
from fssd.evaluation.bootstrap import compare_rankings, rank
from fssd.evaluation.evaluate import evaluate_detections
from fssd.inference.detections import Detections

BOX, OTHER = [0, 0, 40, 40], [100, 0, 140, 40]


def repeated(dataset: DataSet, found: list[Detections], times: list[int]) -> tuple[DataSet, list[Detections]]:
    """A data set that repeats each image `times` times."""
    order = np.repeat(np.arange(len(times)), times)
    records = [replace(dataset.records[image], image_id=str(n)) for n, image in enumerate(order, 1)]
    return DataSet(dataset.classes, tuple(records)), [found[image] for image in order]


def mixed(make_set: Any, seed: int) -> tuple[DataSet, list[Detections]]:
    """Ten images with two classes, objects found well, badly, twice and not at all; all scores differ."""
    rng = np.random.default_rng(seed)
    scores = iter((rng.permutation(200) + 1) / 201)
    images = []
    for _ in range(10):
        rows = [(int(rng.integers(2)), box) for box in (BOX, OTHER) if rng.random() < 0.8]
        found = [
            (
                int(rng.integers(2)) if rng.random() < 0.3 else label,
                next(scores),
                np.add(box, rng.integers(-8, 8, 4)),
            )
            for label, box in rows * 2
            if rng.random() < 0.8
        ]
        images.append((rows, found))
    images.append(([(0, BOX), (1, BOX)], [(0, next(scores), BOX)]))  # so that both classes occur
    return make_set(images)  # type: ignore[no-any-return]


def some_difficult(dataset: DataSet) -> DataSet:
    """The first object of every second image is difficult."""
    records = [
        replace(record, difficult=np.arange(len(record.labels)) < number % 2)
        for number, record in enumerate(dataset.records)
    ]
    return replace(dataset, records=tuple(records))


@pytest.mark.parametrize("metric", ["voc07", "voc12", "coco"])
@pytest.mark.parametrize("seed", range(5))
def test_weights_are_repetitions(make_set: Any, metric: Metric, seed: int) -> None:
    if metric == "coco":
        pytest.importorskip("hotcoco")
    dataset, found = mixed(make_set, seed)
    dataset = some_difficult(dataset)
    rng = np.random.default_rng(seed)
    for times in ([1] * len(dataset), [*rng.integers(0, 4, len(dataset) - 1).tolist(), 1]):
        expected = evaluate_detections(*repeated(dataset, found, times), metric)
        ap = rank(dataset, found, metric).ap(np.array([times]))[0]
        assert ap == pytest.approx(np.array(list(expected.classes.values())), abs=1e-12, nan_ok=True)


def test_two_images_by_hand(make_set: Any) -> None:
    # A finds the object of the first image only, B those of both. A resample holds the first image twice
    # (chance 1/4, difference 0), both (1/2, 1/2) or the second one twice (1/4, 1).
    rows = [(0, BOX)]
    dataset, a = make_set([(rows, [(0, 0.9, BOX)]), (rows, [])], ("cat",))
    _, b = make_set([(rows, [(0, 0.9, BOX)]), (rows, [(0, 0.8, BOX)])], ("cat",))
    result = compare_rankings(rank(dataset, a, "voc12"), rank(dataset, b, "voc12"), resamples=4000)
    assert result.mean.value == 0.5
    assert (result.mean.low, result.mean.high) == (0, 1)
    assert set(np.unique(result.resamples)) == {0, 0.5, 1}
    # Four standard deviations of a share of 3/4 in 4000 resamples.
    assert result.mean.share == pytest.approx(3 / 4, abs=0.03)
    assert result.classes[0] == result.mean


def test_the_interval_is_of_paired_images(make_set: Any) -> None:
    # B finds what A finds, and the object of the fifth of ten images as well. B is never worse on any
    # resample, which would not hold if A and B were resampled separately.
    rows = [(0, BOX)]
    good, bad = (rows, [(0, 0.9, BOX)]), (rows, [])
    dataset, a = make_set([good] * 4 + [bad] * 6, ("cat",))
    _, b = make_set([good] * 5 + [bad] * 5, ("cat",))
    result = compare_rankings(rank(dataset, a, "voc12"), rank(dataset, b, "voc12"))
    assert result.mean.value == pytest.approx(0.1)
    assert result.resamples.min() == 0
    # A resample gains a tenth for each time that it holds the fifth image.
    assert np.allclose(10 * result.resamples, np.round(10 * result.resamples))


def test_a_model_against_itself(make_set: Any) -> None:
    dataset, found = mixed(make_set, 0)
    own = rank(dataset, found, "voc12")
    result = compare_rankings(own, own)
    assert (result.mean.value, result.mean.low, result.mean.high, result.mean.share) == (0, 0, 0, 0)
    assert not result.resamples.any()


def test_a_resample_without_objects_of_a_class(make_set: Any) -> None:
    # The dog is in one of two images: a quarter of the resamples lack it, and their mean is the cat's.
    images = [([(0, BOX)], [(0, 0.9, BOX)]), ([(0, BOX), (1, OTHER)], [(0, 0.8, BOX)])]
    dataset, a = make_set(images)
    _, b = make_set([images[0], (images[1][0], [(0, 0.8, BOX), (1, 0.7, OTHER)])])
    result = compare_rankings(rank(dataset, a, "voc12"), rank(dataset, b, "voc12"), resamples=400)
    assert set(np.unique(result.resamples)) == {0, 0.5}
    assert (result.classes[1].low, result.classes[1].high) == (1, 1)


def test_the_seed_decides(make_set: Any) -> None:
    dataset, found = mixed(make_set, 1)
    _, other = mixed(make_set, 2)
    rankings = rank(dataset, found, "voc12"), rank(dataset, other, "voc12")
    first, again, else_ = (
        compare_rankings(*rankings, resamples=50, seed=seed).resamples for seed in (0, 0, 1)
    )
    assert (first == again).all()
    assert (first != else_).any()

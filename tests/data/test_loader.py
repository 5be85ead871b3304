"""Loader: the order of images, its share for each process, and errors that name the file."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fssd.data.augment import RECIPES, augment, resize, sample_rng
from fssd.data.batch import Batch, Targets
from fssd.data.geometry import Warp
from fssd.data.loader import (
    BatchPositions,
    Examples,
    Pictures,
    Views,
    load_sample,
    picture_batches,
    training_batches,
)
from fssd.data.sample import Boxes, DataSet, Labels
from fssd.data.source import open_data
from fssd.errors import ImageError

SIZE = 64  # pixels; the loader does not care
WARP = Warp((SIZE, SIZE))
MOST = 16  # objects in an image of the scenes, at most


def padded(boxes: Boxes, labels: Labels) -> Targets:
    """The objects themselves, in rows of a fixed number; label -1 where there is none."""
    rows = torch.zeros(MOST, 4), torch.full((MOST,), -1)
    for row, values in zip(rows, (boxes, labels), strict=True):
        row[: len(values)] = torch.from_numpy(values)
    return {"boxes": rows[0], "labels": rows[1]}


@pytest.fixture(scope="module")
def data(scenes: Path) -> DataSet:
    return open_data(scenes, "train")


def views(data: DataSet, seed: int = 0, recipe: str = "none") -> Views:
    return Views(data, WARP, seed, recipe, difficult=True)


def batches(
    data: DataSet, positions: BatchPositions, workers: int = 0, seed: int = 0, recipe: str = "none"
) -> list[Batch]:
    return list(training_batches(Examples(views(data, seed, recipe), padded), positions, workers))


def names(found: list[Batch]) -> list[str]:
    return [name for batch in found for name in batch.names]


def damaged(data: DataSet, folder: Path, number: int) -> tuple[DataSet, Path]:
    """The data set with one image cut off in the middle."""
    whole = data.records[number].path.read_bytes()
    file = folder / "cut.jpg"
    file.write_bytes(whole[: len(whole) // 2])
    records = list(data.records)
    records[number] = replace(records[number], path=file)
    return DataSet(data.classes, tuple(records)), file


def test_order_is_that_of_plain_code(data: DataSet) -> None:
    count, size = len(data), 5
    expected = []
    for position in range(8 * size):
        epoch, rank = divmod(position, count)
        order = np.random.default_rng((1, 3, epoch)).permutation(count)
        expected.append(str(data.records[order[rank]].path))
    assert names(batches(data, BatchPositions(0, 8, size), seed=3)) == expected


def test_a_pass_holds_every_image_once(data: DataSet) -> None:
    assert len(data) == 12
    seen = names(batches(data, BatchPositions(0, 12, 3)))  # three passes of four batches
    passes = [seen[first : first + 12] for first in (0, 12, 24)]
    for one in passes:
        assert Counter(one) == Counter(str(record.path) for record in data.records)
    assert len({tuple(one) for one in passes}) == 3, "each pass is shuffled again"


def test_seeds_differ(data: DataSet) -> None:
    positions = BatchPositions(0, 3, 4)
    assert names(batches(data, positions, seed=1)) != names(batches(data, positions, seed=2))


def test_processes_share_out_what_one_alone_would_see(data: DataSet) -> None:
    alone = names(batches(data, BatchPositions(0, 5, 6)))
    parts = [batches(data, BatchPositions(0, 5, 2, rank, 3)) for rank in range(3)]
    together = [name for step in range(5) for part in parts for name in part[step].names]
    assert together == alone


def test_start_skips_what_was_done(data: DataSet) -> None:
    whole = batches(data, BatchPositions(0, 6, 5), recipe="ssd")
    rest = batches(data, BatchPositions(4, 6, 5), recipe="ssd")
    assert len(rest) == len(BatchPositions(4, 6, 5)) == 2
    for one, other in zip(whole[4:], rest, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_no_difference(data: DataSet, workers: int) -> None:
    positions = BatchPositions(0, 7, 5)
    alone = batches(data, positions, 0, recipe="ssd")
    for one, other in zip(alone, batches(data, positions, workers, recipe="ssd"), strict=True):
        assert_same(one, other)


def assert_same(one: Batch, other: Batch) -> None:
    assert one.names == other.names
    assert torch.equal(one.images, other.images)
    assert one.targets.keys() == other.targets.keys() == {"boxes", "labels"}
    for key in one.targets:
        assert torch.equal(one.targets[key], other.targets[key])


def test_a_view_is_the_augmented_image(data: DataSet) -> None:
    order = np.random.default_rng((1, 7, 1)).permutation(len(data))
    index = int(order[2])
    position = len(data) + 2  # third of the second pass
    sample = load_sample(data.records[index])
    expected = augment(sample, WARP, sample_rng(7, 1, index), recipe=RECIPES["ssd"])
    found = views(data, seed=7, recipe="ssd")[position]
    assert not isinstance(found, ImageError)
    assert np.array_equal(found.image, expected.image)
    assert np.array_equal(found.boxes, expected.boxes)


def test_without_augmentation_an_image_is_only_resized(data: DataSet) -> None:
    (batch,) = batches(data, BatchPositions(0, 1, 12))
    by_name = {str(record.path): record for record in data.records}
    assert batch.images.shape == (12, 3, SIZE, SIZE)
    assert batch.images.dtype == torch.uint8
    assert batch.targets["boxes"].shape == (12, MOST, 4)
    rows = zip(batch.images, batch.targets["boxes"], batch.targets["labels"], batch.names, strict=True)
    for image, boxes, labels, name in rows:
        expected = resize(load_sample(by_name[name]), WARP)
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected.image)
        objects = labels >= 0
        assert boxes[objects].numpy() == pytest.approx(by_name[name].boxes * (SIZE / 300), rel=1e-6)
        assert np.array_equal(labels[objects].numpy(), by_name[name].labels)


def test_image_without_objects_stays_in_its_batch(data: DataSet) -> None:
    (batch,) = batches(data, BatchPositions(0, 1, 12))
    assert len(batch.images) == 12
    assert 0 in (batch.targets["labels"] >= 0).sum(dim=1)


def test_difficult_and_crowd(data: DataSet) -> None:
    old = next(record for record in data.records if len(record.labels) >= 3)
    count = len(old.labels)
    difficult, crowd = np.zeros(count, bool), np.zeros(count, bool)
    difficult[0] = crowd[1] = True
    record = replace(old, difficult=difficult, crowd=crowd)
    everything = np.arange(count)
    assert np.array_equal(load_sample(record).boxes, old.boxes[everything != 1])
    assert np.array_equal(load_sample(record, difficult=False).boxes, old.boxes[everything > 1])
    assert np.array_equal(load_sample(record, crowds=True).boxes, old.boxes)
    assert np.array_equal(load_sample(record, difficult=False, crowds=True).boxes, old.boxes[everything != 0])
    one = DataSet(data.classes, (record,))
    for crowds, objects in ((False, count - 1), (True, count)):
        view = Views(one, WARP, 0, "none", difficult=True, crowds=crowds)[0]
        assert len(view.boxes) == objects  # type: ignore[union-attr]


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_image_is_named(data: DataSet, tmp_path: Path, workers: int) -> None:
    broken, file = damaged(data, tmp_path, 4)
    with pytest.raises(ImageError) as caught:
        batches(broken, BatchPositions(0, 3, 4), workers)
    assert caught.value.file == file
    assert str(file) in str(caught.value)
    assert "truncated" in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_come_in_order(data: DataSet, workers: int) -> None:
    found = list(picture_batches(Pictures(data.records, WARP), 5, workers))
    assert [len(images) for images, _ in found] == [5, 5, 2]
    assert [size for _, sizes in found for size in sizes] == [(300, 300)] * 12
    stacked = torch.cat([images for images, _ in found])
    for image, record in zip(stacked, data.records, strict=True):
        expected = resize(load_sample(record), WARP).image
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_tiles_of_few_images_are_held_at_a_time(data: DataSet, workers: int) -> None:
    """Four tiles an image: two images fill a batch of five, so 16 images of hundreds are never held."""
    corners = [(x, y, x + 150, y + 150) for y in (0, 150) for x in (0, 150)]
    pictures = Pictures(data.records[:5], WARP, lambda _: corners)
    found = list(picture_batches(pictures, 5, workers))
    assert [(len(tiles), len(sizes)) for tiles, sizes in found] == [(8, 2), (8, 2), (4, 1)]
    first = load_sample(data.records[3]).image
    expected = WARP.apply(first[150:, :150])
    assert np.array_equal(found[1][0][4 + 2].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_picture_is_named(data: DataSet, tmp_path: Path, workers: int) -> None:
    broken, file = damaged(data, tmp_path, 7)
    with pytest.raises(ImageError, match="truncated") as caught:
        list(picture_batches(Pictures(broken.records, WARP), 3, workers))
    assert caught.value.file == file


FORK = """
import sys
import cv2, numpy as np
from fssd.data.geometry import Warp
from fssd.data.loader import BatchPositions, Examples, Pictures, Views, picture_batches, training_batches
from fssd.data.source import open_data

cv2.setNumThreads(2)
cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (1500, 1500))  # makes OpenCV start its pool of threads
data = open_data(sys.argv[1], "train")
examples = Examples(Views(data, Warp((64, 64)), 0, "ssd", True), lambda boxes, labels: {})
trained = list(training_batches(examples, BatchPositions(0, 2, 2), 1))
looked = list(picture_batches(Pictures(data.records, Warp((64, 64))), 6, 1))
print(len(trained), len(looked), cv2.getNumThreads())
"""


def test_workers_start_in_a_program_that_used_opencv(scenes: Path) -> None:
    command = [sys.executable, "-c", FORK, str(scenes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["2", "2", "2"], "the caller's number of threads is as it was"


# ---- images that cannot be read


def test_a_broken_image_is_replaced_by_the_one_half_a_pass_later(scenes: Path, tmp_path: Path) -> None:
    data = open_data(scenes, "train")
    plain = Views(data, WARP, 3, "none", difficult=True)
    names = [plain.sample(position).name for position in range(24)]  # two passes over 12 images
    gone = {names[2], names[8]}  # each half a pass from the other, so it is the next one's turn
    records = tuple(
        replace(r, path=tmp_path / "none.jpg") if str(r.path) in gone else r for r in data.records
    )
    views = replace(plain, dataset=replace(data, records=records), replaces=True)
    ids = {str(r.path): r.image_id for r in data.records}
    seen = [views.sample_and_broken(position) for position in range(12)]
    assert [sample.name for sample, _ in seen] == [
        {2: names[9], 8: names[3]}.get(position, names[position]) for position in range(12)
    ]
    assert list(seen[2][1]) == [ids[names[2]], ids[names[8]]]
    assert list(seen[8][1]) == [ids[names[8]], ids[names[2]]]
    absent = frozenset(index for index, record in enumerate(data.records) if str(record.path) in gone)
    kept = [replace(views, absent=absent).sample_and_broken(position) for position in range(12)]
    assert [sample.name for sample, _ in kept] == [sample.name for sample, _ in seen]
    assert not any(broken for _, broken in kept)
    with pytest.raises(ImageError):
        replace(views, replaces=False).sample(2)

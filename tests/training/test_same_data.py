"""What a resumed run may find changed in its data, and how a change is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fssd.data.sample import DataSet, background_record
from fssd.errors import ConfigError
from fssd.training.same_data import content_of, same_data

STATE = Path("last.safetensors")
BOX = (1.0, 2.0, 30.0, 40.0)


@pytest.fixture
def data(make_set: Callable[..., tuple[DataSet, object]]) -> DataSet:
    """Images 1, 2 and 3 with an object each."""
    return make_set([([(0, BOX)], []), ([(1, BOX)], []), ([(0, (0, 0, 9, 9))], [])])[0]


def resumed(before: DataSet, now: DataSet, *left_out: str, unusable: int = 0) -> tuple[list[str], set[int]]:
    document = {"images": len(before), "left_out": list(left_out), "unusable": 0}
    same = same_data(document, content_of(before).tensors(), now, unusable, STATE)
    assert torch.equal(same.content.digests, content_of(before).digests)
    return [record.image_id for record in same.dataset.records], set(same.absent)


def without(data: DataSet, index: int) -> DataSet:
    return replace(data, records=data.records[:index] + data.records[index + 1 :])


def test_order_and_place_of_the_files_do_not_matter(data: DataSet) -> None:
    moved = tuple(replace(r, path=Path("moved") / r.path, width=5) for r in reversed(data.records))
    assert resumed(data, replace(data, records=moved)) == (["1", "2", "3"], set())


def test_images_left_out_may_be_missing(data: DataSet) -> None:
    assert resumed(data, without(data, 1), "2") == (["1", "2", "3"], {1})
    assert resumed(data, without(data, 1), unusable=1) == (["1", "2", "3"], {1})
    with pytest.raises(ConfigError, match=r"the data set has 2: 1 removed \(first: 2\); resume with"):
        resumed(data, without(data, 1), "1")


def test_changes_are_counted_and_the_first_is_named(data: DataSet) -> None:
    one, two, three = data.records
    new = background_record("new", Path("new.jpg"))
    boxes = two.boxes + np.float32(0.5)
    for changed in ({"boxes": boxes}, {"labels": two.labels - 1}, {"crowd": ~two.crowd}):
        other = replace(data, records=(one, replace(two, **changed), new))
        with pytest.raises(ConfigError) as caught:
            resumed(data, other)
        assert (
            "was made with 3 images, the data set has 3: 1 added (first: new), 1 removed (first: 3), 1 given"
            " other labels (first: 2)"
        ) in str(caught.value)
    assert three.image_id == "3"


def test_an_old_state_knows_the_number_alone(data: DataSet) -> None:
    other = replace(data, records=(*data.records[:2], background_record("new", Path("new.jpg"))))
    assert same_data({"images": 3}, {}, other, 0, STATE).dataset is other
    with pytest.raises(ConfigError, match="was made with 4 images, the data set has 3; resume"):
        same_data({"images": 4}, {}, other, 0, STATE)


def test_ids_of_an_earlier_version(data: DataSet, tmp_path: Path) -> None:
    """They were whole paths where two pictures share a name; a path that is no picture's now was removed."""
    one, two, three = (replace(r, path=tmp_path / f"{r.image_id}/image.jpg") for r in data.records)
    old = replace(
        data, records=(replace(one, image_id=str(one.path)), replace(two, image_id=str(two.path)), three)
    )
    now = replace(data, records=(one, two, three))
    document = {"images": 3, "left_out": [str(two.path)], "unusable": 0}
    same = same_data(document, content_of(old).tensors(), now, 0, STATE)
    assert same.content.ids == ("1", "2", "3") and same.absent == frozenset()
    moved = tuple(replace(r, path=tmp_path / "moved" / r.path.name) for r in now.records)
    with pytest.raises(ConfigError, match=r"2 added \(first: 1\), 1 removed \(first: .*1/image.jpg\)"):
        same_data(document, content_of(old).tensors(), replace(now, records=moved), 0, STATE)

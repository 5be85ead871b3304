"""Facts of a data set that gets other classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fssd.data.join import join_sets, match_classes, near_misses
from fssd.data.sample import DataSet, background_record
from fssd.evaluation.results import write_coco_results
from fssd.inference.detections import Detections


def dataset(classes: Sequence[str], ids: Sequence[int | None] | None) -> DataSet:
    facts = {"format": "coco", **({} if ids is None else {"category_ids": tuple(ids)})}
    return DataSet(tuple(classes), (), facts=facts)


@pytest.mark.parametrize(
    ("classes", "ids"),
    [
        (("dog", "cat"), (9, 3)),
        (("cow", "cat", "dog", "ant"), (None, 3, 9, None)),
        (("dog",), (9,)),
    ],
)
def test_category_ids_go_with_their_classes(classes: Sequence[str], ids: Sequence[int | None]) -> None:
    before = dataset(("cat", "dog"), (3, 9))
    assert match_classes(before, classes).facts == {"format": "coco", "category_ids": ids}
    assert before.facts["category_ids"] == (3, 9), "unchanged"


def test_category_ids_of_joined_sets() -> None:
    sets = [dataset(("cat", "dog"), (3, 9)), dataset(("puppy", "cow"), (9, 4)), dataset(("ant",), None)]
    joined = join_sets(sets, ("cow", "dog", "ant", "cat"), {"puppy": "dog"})
    assert joined.facts["category_ids"] == (4, 9, None, 3)
    assert "category_ids" not in join_sets(sets[2:], ("ant",), {}).facts


TOY = {"0": "red", "1": "green", "2": "blue"}


@pytest.mark.parametrize(
    ("sets", "classes", "expected"),
    [
        ([TOY], ("red", "green", "blue"), TOY),
        ([TOY], ("red",), TOY),  # others are known and not wanted
        ([TOY, None], ("red", "green", "blue", "pink"), {**TOY, "3": "pink"}),
        ([TOY], ("blue", "red", "green"), {}),  # 0 is red in the label files and blue in this order
        ([TOY, {"0": "blue"}], ("red", "green", "blue"), {}),
        ([TOY, {}], ("red", "green", "blue"), {}),
        ([{"0": "red", "1": "green", "2": "azure"}], ("red", "green", "blue"), TOY),
        ([{"1": "red", "2": "green"}], ("red", "green"), {}),
        ([None], ("red",), None),
    ],
)
def test_class_numbers_of_joined_sets(
    sets: Sequence[dict[str, str] | None], classes: Sequence[str], expected: dict[str, str] | None
) -> None:
    parts = [DataSet(tuple((one or {}).values()), (), facts={"class_numbers": one}) for one in sets if one]
    parts += [DataSet(("pink",), ()) for one in sets if one is None]
    parts += [DataSet(("red",), (), facts={"class_numbers": {}}) for one in sets if one == {}]
    assert join_sets(parts, classes, {"azure": "blue"}).facts.get("class_numbers") == expected


def test_a_set_without_category_ids_gets_none() -> None:
    assert match_classes(dataset(("cat", "dog"), None), ("dog", "cat")).facts == {"format": "coco"}


def test_results_have_the_ids_of_the_labels_after_a_change_of_classes(tmp_path: Path) -> None:
    classes = ("cow", "dog", "cat")
    data = match_classes(dataset(("cat", "dog"), (3, 9)), classes)
    found = Detections(np.ones((3, 4), np.float32), np.ones(3, np.float32), np.arange(3), classes)
    one = DataSet(data.classes, (background_record("1", Path("1.jpg")),), facts=data.facts)
    write_coco_results(tmp_path / "coco.json", one, [found])
    assert [row["category_id"] for row in json.loads((tmp_path / "coco.json").read_text())] == [9, 3]


def test_names_that_look_the_same() -> None:
    names = ("caf\u00e9", "cafe\u0301", "cafe", "Traffic Light", "traffic_light")
    assert near_misses(names) == [("caf\u00e9", "cafe\u0301"), ("Traffic Light", "traffic_light")]

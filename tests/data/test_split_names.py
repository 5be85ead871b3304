"""Splits by the names that data sets give them."""

from __future__ import annotations

import pytest

from fssd.data.split_names import training_split, validation_split


@pytest.mark.parametrize(
    ("known", "train", "val"),
    [
        (["train", "val", "trainval", "test"], "train", "val"),
        (["train2017", "val2017"], "train2017", "val2017"),
        (["training", "validation", "testing"], "training", "validation"),
        (["train", "valid", "test"], "train", "valid"),
        (["trainval", "test"], "trainval", None),
        (["train", "test"], "train", None),
        (["default"], "default", None),
        (["default", "test"], "default", None),
        (["2007_train", "2012_train"], None, None),
        (["test"], None, None),
        (["custom_train", "custom_val"], "custom_train", "custom_val"),
        (["lvis_v1_train2017", "lvis_v1_dev", "lvis_v1_test"], "lvis_v1_train2017", "lvis_v1_dev"),
        (["a_train", "b_train", "a_val", "b_val"], None, None),
        (["a_train", "trainval", "a_valid"], "trainval", "a_valid"),
        (["my_val"], None, "my_val"),
        (["my_test", "others"], "others", None),
        (["trainees", "devices"], "trainees", None),
        ([], None, None),
    ],
)
def test_names(known: list[str], train: str | None, val: str | None) -> None:
    assert (training_split(known), validation_split(known)) == (train, val)

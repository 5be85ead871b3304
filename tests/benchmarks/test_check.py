"""The benchmark of `fssd check` measures data sets without a fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from fssd.data.check import check_data


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_the_data_are_sound(script: Callable[[str], ModuleType], tmp_path: Path, kind: str) -> None:
    check = script("check")
    boxes = [[[number, 2 * rank] for rank in range(check.OBJECTS)] for number in range(20)]
    check._write_pictures(tmp_path / "pictures", 20)
    {"voc": check._write_voc, "coco": check._write_coco}[kind](tmp_path / kind, boxes)
    report = check_data(tmp_path / kind, decode=False)
    assert report.problems == ()
    assert {name: counts.images for name, counts in report.splits.items()} == {"train": 18, "val": 2}
    assert report.splits["train"].objects == 18 * check.OBJECTS

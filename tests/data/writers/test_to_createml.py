"""Create ML's files, read by json alone: centres that are worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fssd.data.writers.convert import convert_data


def test_files(source: Path, tmp_path: Path) -> None:
    convert_data(source, "createml", tmp_path / "out")
    assert len(list((tmp_path / "out/train").glob("*.json"))) == 1  # Create ML wants exactly one
    rows = json.loads((tmp_path / "out/train/_annotations.createml.json").read_text())
    found = {row["image"]: row["annotations"] for row in rows}
    assert set(found) == {"night_one.png", "day_one.png", "no object, & café's.png"}  # no folders below
    assert all((tmp_path / "out/train" / name).is_file() for name in found)
    first, second = found["night_one.png"]
    assert first["label"] == 'a "quoted" <dog> & co'
    # ((10.1 + 50.7) / 2, (20.3 + 60.9) / 2), 50.7 - 10.1, 60.9 - 20.3
    expected = {"x": 30.4, "y": 40.6, "width": 40.6, "height": 40.6}
    assert first["coordinates"] == pytest.approx(expected, abs=1e-5)
    assert second["coordinates"] == {"x": 50, "y": 40, "width": 100, "height": 80}
    assert found["no object, & café's.png"] == []

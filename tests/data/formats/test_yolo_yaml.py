"""Which YAML of a folder is that of its data."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotated import picture, text

from fssd.data.source import find_reader, open_data
from fssd.errors import DataError


@pytest.mark.parametrize("name", ["DATA.YAML", "Data.yml", "SIGNS.YAML", "below/DATA.YAML"])
def test_yaml_in_capitals(tmp_path: Path, name: str) -> None:
    file = text(tmp_path / name, "train: images\nnames: [cat, dog]\n")
    picture(file.parent / "images/a.png")
    text(file.parent / "labels/a.txt", "1 0.5 0.5 0.5 0.2\n")
    for path in (tmp_path, file):
        data = open_data(path, "train")
        assert data.classes == ("cat", "dog") and data.records[0].labels.tolist() == [1]
    text(file.parent / "data.yaml", "train: images\nnames: [ant, bee]\n")
    assert open_data(tmp_path, "train").classes == ("ant", "bee")


def test_several_data_sets_below(tmp_path: Path) -> None:
    for name in ("one", "two"):
        picture(tmp_path / name / "images/train/a.png")
        text(tmp_path / name / "data.yaml", "train: images/train\nnames: [cat, dog]\n")
    with pytest.raises(DataError, match="holds several data sets"):
        find_reader(tmp_path)

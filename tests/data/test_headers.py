"""Records whose labels state no size are compared with the header of their picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from fssd.data.headers import with_headers
from fssd.data.sample import DataSet, Record, background_record
from fssd.data.shards import write_shards
from fssd.data.source import open_data
from fssd.data.writers import convert
from fssd.errors import ImageError, LabelError

INSIDE, OVER, OUTSIDE = (5, 5, 9, 9), (70, 5, 90, 9), (90, 5, 99, 9)


def record(folder: Path, box: Sequence[float], stated: tuple[int, int] | None = None) -> Record:
    """One object in a picture of 80 x 60."""
    path = folder / f"{box[0]}.png"
    Pillow.new("RGB", (80, 60)).save(path)
    width, height = stated or (None, None)
    plain = replace(background_record(path.stem, path), source=folder / "labels.txt")
    off = np.zeros(1, bool)
    labels = {"boxes": np.float32([box]), "labels": np.zeros(1, np.int64), "difficult": off, "crowd": off}
    return replace(plain, width=width, height=height, **labels)


def test_a_box_outside_a_picture_of_no_stated_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = DataSet(("cat",), tuple(record(tmp_path, box) for box in (INSIDE, OUTSIDE, OVER)))
    told = (
        r"labels\.txt \(image 90, object 1 \(cat\)\): box \(90, 5, 99, 9\) lies outside the image of 80 x 60"
    )
    with pytest.raises(LabelError, match=told):
        with_headers(data, data.records, 0.0)
    pairs = with_headers(data, data.records, 0.5)
    assert [one.boxes.tolist() for one, _ in pairs] == [[[5, 5, 9, 9]], [[70, 5, 80, 9]]]
    assert {(header.width, header.height) for _, header in pairs} == {(80, 60)}
    assert "left out: " in capsys.readouterr().err


def test_a_picture_of_another_size_than_its_labels_state(tmp_path: Path) -> None:
    data = DataSet(("cat",), (record(tmp_path, INSIDE, (60, 80)),))
    with pytest.raises(ImageError, match=r"is 80 x 60 pixels, its labels in .* state 60 x 80"):
        with_headers(data, data.records, 0.0)


@pytest.mark.parametrize("module", [convert, write_shards])
def test_whatever_is_written_is_compared(
    tmp_path: Path, module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a reader whose labels state no sizes."""
    if module is write_shards:
        pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "fssd[s3]"')
    (tmp_path / "data").mkdir()
    own = DataSet(("cat",), (record(tmp_path / "data", OUTSIDE),))
    (tmp_path / "data/90.json").write_text('{"shapes": [], "imagePath": "90.png", "imageData": null}')
    assert len(open_data(tmp_path / "data")) == 1
    monkeypatch.setattr(module, "open_data", lambda *_, **__: own)
    with pytest.raises(LabelError, match="lies outside the image of 80 x 60"):
        if module is write_shards:
            write_shards.shard_data(tmp_path / "data", tmp_path / "out")
        else:
            convert.convert_data(tmp_path / "data", "voc", tmp_path / "out")

"""Two models on the same images: layout, colours across class lists, sizes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fssd.errors import ConfigError
from fssd.figures.side_by_side import (
    BLOCK_GAP,
    GAP,
    TITLE,
    check_room,
    compose,
    shared_classes,
    write_picture,
)
from fssd.inference.detections import Detections
from fssd.inference.draw import class_colour

GREY = 100


def found(names: tuple[str, ...], classes: tuple[str, ...], width: int = 64, height: int = 48) -> Detections:
    """One box for each name, over the lower right quarter of a grey image."""
    boxes = np.array([[width / 2, height / 2, width, height]] * len(names), np.float32).reshape(-1, 4)
    labels = np.array([classes.index(name) for name in names], np.int64)
    image = np.full((height, width, 3), GREY, np.uint8)
    return Detections(boxes, np.full(len(names), 0.9, np.float32), labels, classes, image)


def test_a_name_has_one_label_in_all_rows() -> None:
    one, two = shared_classes(
        [[found(("dog", "cat"), ("cat", "dog"))], [found(("dog", "cow"), ("cow", "dog", "emu"))]]
    )
    assert one[0].classes == two[0].classes == ("cat", "dog", "cow", "emu")
    assert one[0].names == ["dog", "cat"]
    assert two[0].names == ["dog", "cow"]
    assert two[0].labels.tolist() == [1, 2]


def test_layout_of_blocks() -> None:
    row = [found((), ("cat",)) for _ in range(3)]
    picture = compose([row, row], ["a", "b"], columns=2, cell=100)
    # Cells of 100 x 75 below their titles; a frame and gaps of 6; the third image begins a new block.
    high = TITLE + 75
    assert picture.shape == (4 * high + 2 * GAP + BLOCK_GAP + GAP, 2 * 100 + 3 * GAP, 3)
    assert picture.dtype == np.uint8
    tops = [0, high + GAP, 2 * high + GAP + BLOCK_GAP, 3 * high + 2 * GAP + BLOCK_GAP]
    for top in tops:
        first = picture[top + TITLE : top + high, GAP : GAP + 100]
        assert (first == GREY).all()
        assert (picture[top : top + TITLE, GAP : GAP + 100] < 128).any(), "there is a title"
    for top, value in zip(tops, (GREY, GREY, 255, 255), strict=True):
        second = picture[top + TITLE : top + high, 2 * GAP + 100 : 2 * GAP + 200]
        assert (second == value).all()


def test_boxes_follow_the_image_into_its_cell() -> None:
    blank, boxed = (compose([[found(names, ("cat",), 64, 48)]], ["a"], cell=200) for names in ((), ("cat",)))
    cells = [picture[TITLE:-GAP, GAP:-GAP] for picture in (blank, boxed)]  # 200 x 150
    changed = (cells[0] != cells[1]).any(axis=-1)
    rows, columns = changed.nonzero()
    assert rows.max() == 149
    assert columns.max() == 199
    assert columns.min() == 100
    assert tuple(cells[1][149, 150]) == class_colour(0)


def test_rows_of_models_with_other_class_lists_look_identical() -> None:
    rows = [[found(("dog",), ("cat", "dog"))], [found(("dog",), ("dog", "emu"))]]
    picture = compose(rows, ["a", "b"], cell=200)
    upper, lower = (picture[top + TITLE : top + TITLE + 150] for top in (0, TITLE + 150 + GAP))
    assert (upper == lower).all()
    assert (upper != GREY).any()


def test_tall_image_is_shown_narrower_and_centred() -> None:
    row = [found((), ("cat",), 40, 400), found((), ("cat",), 100, 50)]
    picture = compose([row], ["a"], cell=100)
    assert picture.shape[0] == TITLE + 150 + GAP
    tall = picture[TITLE : TITLE + 150, GAP : GAP + 100]
    columns = (tall == GREY).all(axis=(0, 2)).nonzero()[0]
    assert (columns.min(), columns.max()) == (42, 56)  # 15 wide in the middle of 100
    wide = picture[TITLE : TITLE + 150, 2 * GAP + 100 : 2 * GAP + 200]
    rows = (wide == GREY).all(axis=(1, 2)).nonzero()[0]
    assert (rows.min(), rows.max()) == (50, 99)


def test_long_title_stays_in_its_cell() -> None:
    picture = compose([[found((), ("cat",))]], ["a-very-long-name-of-a-model" * 5], cell=80)
    assert (picture[:TITLE, -GAP:] == 255).all()
    assert (picture[:TITLE, GAP:-GAP] < 128).any()


def test_too_many_images() -> None:
    check_room(images=100, models=2, columns=4, cell=320)
    with pytest.raises(ConfigError, match="1000 images of 320 pixels, 4 side by side, are too many"):
        check_room(images=1000, models=2, columns=4, cell=320)
    with pytest.raises(ConfigError, match="too many for one picture"):
        check_room(images=300, models=2, columns=300, cell=320)


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.jpg", b"\xff\xd8"), ("a.JPEG", b"\xff\xd8")]
)
def test_format_by_suffix(name: str, start: bytes, tmp_path: Path) -> None:
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[..., 0] = 200  # red
    file = tmp_path / "new" / name
    write_picture(file, picture)
    assert file.read_bytes().startswith(start)
    read = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
    assert np.abs(read.astype(int) - picture).max() <= 3


def test_detections_without_image_are_refused() -> None:
    with pytest.raises(ValueError, match="carry no image"):
        compose([[found((), ("cat",)).without_image()]], ["a"])

"""Whose class names are used where a folder holds several lists of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from annotated import messages, picture, text

from fssd.data.source import open_data
from fssd.errors import DataError

ROW = "0 0.3 0.3 0.2 0.2\n"
CATS, PEOPLE = "cat\ndog\n", "person\nbicycle\n"
STATES = "classes = 2\ntrain = data/train.txt\nnames = data/{}\n"


def lay(root: Path, files: Mapping[str, str]) -> Path:
    picture(root / "obj/a.png")
    text(root / "obj/a.txt", ROW)
    for name, content in files.items():
        text(root / name, content)
    return root


@pytest.mark.parametrize(
    "files",
    [
        {"obj.data": STATES.format("obj.names"), "coco.names": PEOPLE, "obj.names": CATS},
        {"my.data": STATES.format("my.names"), "classes.txt": PEOPLE, "my.names": CATS},
        {"obj.data": STATES.format("mine.lst"), "coco.names": PEOPLE, "mine.lst": CATS},
        {"cfg/obj.data": STATES.format("obj.names"), "data/coco.names": PEOPLE, "data/obj.names": CATS},
        {"classes.txt": CATS, "predefined_classes.txt": PEOPLE},
        {"classes.txt": CATS, "old.names": "cat\ndog\ncow\n"},
        {"old.names": "cat\n", "labels.txt": CATS},
    ],
)
def test_names_of_several_lists(tmp_path: Path, files: Mapping[str, str]) -> None:
    data = open_data(lay(tmp_path, files))
    assert data.classes == ("cat", "dog") and data.problems == ()
    assert data.classes[data.records[0].labels[0]] == "cat"


@pytest.mark.parametrize("other", ["classes.txt", "labels.txt", "coco.names"])
def test_lists_in_one_folder_that_differ(tmp_path: Path, other: str) -> None:
    lay(tmp_path, {"obj.names": CATS, other: PEOPLE})
    with pytest.raises(DataError, match=r"has other class names than .*; remove the one") as caught:
        open_data(tmp_path)
    assert {"obj.names", other} == {name for name in ("obj.names", other) if name in str(caught.value)}


def test_names_that_an_obj_data_states_and_that_are_not_there(tmp_path: Path) -> None:
    data = open_data(lay(tmp_path, {"obj.data": STATES.format("obj.names"), "coco.names": PEOPLE}))
    (note,) = messages(data, "warning")
    assert f"data/obj.names is not there; the class names of {tmp_path / 'coco.names'} are used" in note

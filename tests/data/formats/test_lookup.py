"""Folders that cannot be listed are told, for nobody would miss what lies in them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from annotated import as_json, picture, text

from fssd.data.formats import lookup
from fssd.data.formats.lookup import PictureFinder, visible_files
from fssd.data.source import open_data
from fssd.errors import DataError

CSV = "filename,width,height,class,xmin,ymin,xmax,ymax"
Close = Callable[[Path, int], None]


@pytest.fixture
def close(monkeypatch: pytest.MonkeyPatch) -> Close:
    """Lets the listing of a folder fail with a number of `errno`; permissions do not keep root from it."""
    faults: dict[str, int] = {}
    plain = os.scandir

    def scandir(folder: Any = ".") -> Any:
        if number := faults.get(os.fspath(folder)):
            raise OSError(number, os.strerror(number), os.fspath(folder))
        return plain(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    return lambda folder, number: faults.update({str(folder): number})


def labelled(root: Path) -> Path:
    """Two folders of a picture with a label each, and their data.yaml."""
    for split in ("train", "val"):
        picture(root / f"images/{split}/a.png")
        text(root / f"labels/{split}/a.txt", "0 0.5 0.5 0.5 0.5\n")
    return text(root / "data.yaml", "train: images/train\nval: images/val\nnames: [cat]\n")


@pytest.mark.parametrize(
    ("number", "told"), [(errno.EACCES, "Permission denied"), (errno.EIO, "Input/output error")]
)
@pytest.mark.parametrize("folder", ["images/train", "labels/train", "labels"])
def test_a_folder_that_cannot_be_listed(
    tmp_path: Path, close: Close, folder: str, number: int, told: str
) -> None:
    file = labelled(tmp_path)
    close(tmp_path / folder, number)
    with pytest.raises(DataError, match=rf"cannot be listed \({told}\); make it readable") as caught:
        open_data(file, "train")
    assert caught.value.file == tmp_path / folder


def test_a_folder_that_vanishes_meanwhile_is_passed_over(tmp_path: Path, close: Close) -> None:
    for name in ("one/a.png", "two/b.png"):
        picture(tmp_path / name)
    close(tmp_path / "one", errno.ENOENT)
    assert [file.name for file in visible_files(tmp_path)] == ["b.png"]


def test_what_a_disk_keeps_for_itself_is_passed_over(tmp_path: Path, close: Close) -> None:
    """At the top of a disk, where data sets lie too; nobody but root may list them."""
    picture(tmp_path / "a.png")
    for name in ("lost+found", "$RECYCLE.BIN", "System Volume Information"):
        (tmp_path / name).mkdir()
        close(tmp_path / name, errno.EACCES)
    assert [file.name for file in visible_files(tmp_path)] == ["a.png"]


def test_a_link_in_a_circle_hides_no_other_file(tmp_path: Path) -> None:
    for name in ("images/a.png", "images/deep/b.png"):
        picture(tmp_path / name)
    (tmp_path / "images/circle.png").symlink_to("circle.png")
    assert {file.name for file in visible_files(tmp_path)} == {"a.png", "b.png"}
    finder = PictureFinder(tmp_path)
    assert {file.name for file in finder.files} == {"a.png", "b.png"}
    assert finder.find(("a.png",), tmp_path / "labels.json", "") == ((tmp_path / "images/a.png",), True)


def test_a_folder_that_a_link_shows_twice_is_named(tmp_path: Path) -> None:
    for name in ("train/a", "train/deep/b"):
        picture(tmp_path / f"images/{name}.png")
        text(tmp_path / f"labels/{name}.txt", "0 0.5 0.5 0.5 0.2\n")
    (tmp_path / "images/val").symlink_to("train")
    text(tmp_path / "classes.txt", "dog\n")
    data = open_data(tmp_path)
    assert [record.image_id for record in data.records] == ["images/train/a.png", "images/train/deep/b.png"]
    (note,) = data.problems
    assert (
        note.severity == "warning"
        and "1 folders of pictures are linked to others that are read" in note.reason
    )
    assert str(tmp_path / "images/val") in note.reason
    file = text(tmp_path / "data.yaml", "names: [dog]\ntrain: images/val\n")  # which is read then
    data = open_data(file)
    assert [record.path.parent.parent.name for record in data.records] == ["images", "val"]
    assert not any("linked" in problem.reason for problem in data.problems)


def test_a_folder_of_labels_may_be_linked(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / f"images/{split}/a.png")
    text(tmp_path / "labels/train/a.txt", "0 0.5 0.5 0.5 0.2\n")
    (tmp_path / "labels/val").symlink_to("train")
    text(tmp_path / "classes.txt", "dog\n")
    data = open_data(tmp_path)
    assert [len(record.boxes) for record in data.records] == [1, 1] and data.problems == ()


def test_a_path_of_another_machine_may_lead_to_a_closed_folder(tmp_path: Path, close: Close) -> None:
    (tmp_path / "closed").mkdir()
    close(tmp_path / "closed", errno.EACCES)
    picture(tmp_path / "set/pictures/a.png")
    stated = {"file_name": str(tmp_path / "closed/a.png"), "id": 1, "width": 200, "height": 100}
    content = {"images": [stated], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    as_json(tmp_path / "set/labels.json", content)
    (record,) = open_data(tmp_path / "set").records
    assert record.path == tmp_path / "set/pictures/a.png"


def test_a_closed_folder_above_the_data_set_is_none_of_it(tmp_path: Path, close: Close) -> None:
    root = tmp_path / "closed/set"
    file = labelled(root)
    close(tmp_path / "closed", errno.EACCES)
    assert [len(record.boxes) for record in open_data(file, "train").records] == [1]
    stated = {"file_name": "a.png", "id": 1, "width": 200, "height": 100}
    content = {"images": [stated], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    as_json(tmp_path / "closed/other/train.json", content)
    picture(tmp_path / "closed/other/a.png")
    assert len(open_data(tmp_path / "closed/other", "train")) == 1


@pytest.mark.parametrize("folders", ["", "images/", "deep/er/"])
@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_in_another_form_of_unicode(tmp_path: Path, folders: str, forms: tuple[str, str]) -> None:
    """macOS packs é as e and an accent; what the file is called inside of labels is the other form."""
    on_disk, stated = (normalize(form, "Größe caf\u00e9") for form in forms)
    picture(tmp_path / f"{folders}{on_disk}.png")
    text(tmp_path / "a.csv", f"{CSV}\n{stated}.png,40,30,dog,1,2,9,9\n")
    (record,) = open_data(tmp_path).records
    assert record.path.name == f"{on_disk}.png"


def test_the_exact_form_of_unicode_comes_first(tmp_path: Path) -> None:
    names = ("caf\u00e9.png", "cafe\u0301.png")
    for name in names:
        picture(tmp_path / "deep" / name)
    rows = [f"{name},200,100,dog,{left},2,9,9" for left, name in enumerate(names)]
    text(tmp_path / "a.csv", "\n".join([CSV, *rows]))
    found = {record.path.name: record.boxes[0][0] for record in open_data(tmp_path).records}
    assert found == {names[0]: 0, names[1]: 1}


def test_many_folders_with_pictures_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those in the stated folder are compared, and all where none lies in such a folder."""
    names = [f"s{number}/000.png" for number in range(30)]
    for name in names:
        text(tmp_path / name, "")
    compared: list[Path] = []
    plain = lookup.nearness
    monkeypatch.setattr(lookup, "nearness", lambda path, source: compared.append(path) or plain(path, source))
    finder = PictureFinder(tmp_path)
    source = tmp_path / "train.txt"
    for name in names:
        for form in (f"/data/old/{name}", name.removesuffix(".png")):
            found, _ = finder.find((form,), source, "")
            assert found == (tmp_path / name,)
    assert len(compared) == 2 * len(names)
    assert finder.find(("gone/000.png",), source, "") == (
        tuple(sorted(tmp_path / name for name in names)),
        False,
    )
    text(tmp_path / "s1/s1/000.PNG", "")
    assert PictureFinder(tmp_path).find(("x/s1/000.png",), source, "") == ((tmp_path / "s1/000.png",), False)

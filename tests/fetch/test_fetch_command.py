"""`fssd fetch` from end to end, against a server of our own that holds small VOC and COCO sets."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fssd.cli.fetch import run
from fssd.data.check import check_data
from fssd.errors import ConfigError, FetchError

JPEG = cv2.imencode(".jpg", np.full((20, 30, 3), 90, np.uint8))[1].tobytes()
XML = (
    "<annotation><filename>{0}.jpg</filename><size><width>30</width><height>20</height></size><object>"
    "<name>dog</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax><ymax>15</ymax></bndbox></object>"
    "</annotation>"
)


def voc_tar(split: str, image_id: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in (
            (f"Annotations/{image_id}.xml", XML.format(image_id).encode()),
            (f"ImageSets/Main/{split}.txt", f"{image_id}\n".encode()),
            (f"JPEGImages/{image_id}.jpg", JPEG),
        ):
            member = tarfile.TarInfo(f"VOCdevkit/VOC2007/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def coco_zip(contents: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.fixture
def table(server: Any, tmp_path: Path) -> Path:
    server.files["trainval.tar"] = voc_tar("trainval", "000005")
    server.files["test.tar"] = voc_tar("test", "000001")
    rows = [
        f"  - {{url: '{server.url(name)}', md5: '{hashlib.md5(content).hexdigest()}', size: {len(content)}}}"
        for name, content in server.files.items()
    ]
    file = tmp_path / "table.yaml"
    file.write_text("voc2007:\n" + "\n".join(rows) + "\n")
    return file


def fetch(table: Path, to: Path, *more: str) -> int:
    return run(["voc2007", "--table", str(table), "--to", str(to), *more])


def errors(folder: Path) -> list[str]:
    """The findings of `fssd check`, without the remarks that the two splits are small and similar."""
    return [problem.reason for problem in check_data(folder, None).problems if problem.severity == "error"]


def test_voc(table: Path, server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "voc"
    assert fetch(table, to) == 0
    assert capsys.readouterr().out.splitlines() == [
        "trainval: done",
        "test: done",
        f"voc2007 is in {to}; check it with: fssd check {to}",
    ]
    assert not errors(to)
    assert sorted(path.name for path in to.iterdir()) == [".fetched", "VOCdevkit"], "the archives are gone"
    assert (to / "VOCdevkit/VOC2007/ImageSets/Main/test.txt").read_text() == "000001\n"

    server.gets.clear()
    assert fetch(table, to) == 0
    assert server.gets == []
    assert capsys.readouterr().out.startswith("trainval: already there\ntest: already there\n")

    (to / "VOCdevkit/VOC2007/JPEGImages/000001.jpg").unlink()
    assert fetch(table, to) == 0
    assert server.gets == [("/test.tar", None)], "what was deleted is fetched again"


def test_another_checksum_in_the_table_is_another_archive(table: Path, server: Any, tmp_path: Path) -> None:
    fetch(table, tmp_path / "voc", "--parts", "test")
    old, server.files["test.tar"] = server.files["test.tar"], voc_tar("test", "000009")
    text = table.read_text()
    for before, after in (
        (hashlib.md5(old).hexdigest(), hashlib.md5(server.files["test.tar"]).hexdigest()),
        (f"size: {len(old)}", f"size: {len(server.files['test.tar'])}"),
    ):
        text = text.replace(before, after)
    table.write_text(text)
    named = tmp_path / "voc/VOCdevkit/VOC2007/ImageSets/Main/test.txt"
    with pytest.raises(FetchError, match=r"test\.txt: is there already.* with other content; move it away"):
        fetch(table, tmp_path / "voc", "--parts", "test")
    assert named.read_text() == "000001\n"
    named.unlink()
    fetch(table, tmp_path / "voc", "--parts", "test")
    assert named.read_text() == "000009\n"


def test_an_archive_with_notes_of_its_own(server: Any, tmp_path: Path) -> None:
    server.files["a.zip"] = coco_zip({".fetched/b.zip.json": b"{}"})
    (tmp_path / "table.yaml").write_text(f"mine:\n  - url: {server.url('a.zip')}\n")
    with pytest.raises(FetchError, match=r"'\.fetched/b\.zip\.json' has a name that fssd keeps for itself"):
        run(["mine", "--table", str(tmp_path / "table.yaml"), "--to", str(tmp_path / "to")])
    assert [item.name for item in (tmp_path / "to").iterdir() if item.is_dir()] == []


def test_wrong_checksum(table: Path, server: Any, tmp_path: Path) -> None:
    content = server.files["trainval.tar"]
    server.files["trainval.tar"] = content[:-1] + b"x"
    with pytest.raises(
        FetchError, match=rf"its md5 is \w+, not {hashlib.md5(content).hexdigest()}; the file was"
    ):
        fetch(table, tmp_path / "voc")
    assert not list((tmp_path / "voc").iterdir())


def test_archive_that_lies_there_is_taken(table: Path, server: Any, tmp_path: Path) -> None:
    to = tmp_path / "voc"
    to.mkdir()
    (to / "test.tar").write_bytes(server.files["test.tar"])
    assert fetch(table, to, "--parts", "test", "--keep-archives") == 0
    assert server.gets == []
    assert (to / "test.tar").is_file()


def test_without_checksum(server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = {"id": 139, "file_name": "000000000139.jpg", "width": 30, "height": 20}
    labels = {
        "images": [image],
        "annotations": [{"id": 1, "image_id": 139, "category_id": 18, "bbox": [2, 3, 18, 12]}],
        "categories": [{"id": 18, "name": "dog"}],
    }
    contents = {
        "annotations/instances_val2017.json": json.dumps(labels).encode(),
        "val2017/000000000139.jpg": JPEG,
    }
    server.files["coco.zip"] = coco_zip(contents)
    table = tmp_path / "table.yaml"
    table.write_text(f"coco2017:\n  - url: {server.url('coco.zip')}\n")
    arguments = ["coco2017", "--table", str(table), "--to", str(tmp_path / "coco")]
    assert run(arguments) == 0
    checksum = hashlib.sha256(server.files["coco.zip"]).hexdigest()
    assert f"no checksum for it, so it was not compared; it is sha256:{checksum}" in capsys.readouterr().err
    assert not errors(tmp_path / "coco")
    server.gets.clear()
    assert run(arguments) == 0
    assert server.gets == []


def test_default_folder_is_the_name_without_its_year(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["voc2007", "--table", str(table), "--parts", "test"]) == 0
    assert (tmp_path / "voc/VOCdevkit/VOC2007").is_dir()


def test_mistakes(table: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'coco2017'"):
        run(["coco2071"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made a folder"):
        fetch(table, tmp_path / "file")


def test_a_download_that_was_interrupted_later_is_removed(
    table: Path, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that was interrupted while it was unpacked: no user has brought it."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    to = tmp_path / "voc"
    with monkeypatch.context() as patch:
        patch.setattr("fssd.fetch.install.unpack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(table, to, "--parts", "test")
    assert (to / "test.tar").is_file()
    server.gets.clear()
    assert fetch(table, to, "--parts", "test") == 0
    assert server.gets == [], "it is not downloaded again"
    assert not [file for file in to.iterdir() if "test.tar" in file.name]


def test_a_file_brought_after_an_interruption_stays(
    table: Path, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "voc"
    with monkeypatch.context() as patch:
        patch.setattr("fssd.fetch.install.unpack", None)
        with pytest.raises(TypeError):
            fetch(table, to, "--parts", "test")
    (to / "test.tar").unlink()
    (to / "test.tar").write_bytes(server.files["test.tar"])
    os.utime(to / "test.tar", ns=(0, 1))
    assert fetch(table, to, "--parts", "test") == 0
    assert [file.name for file in to.iterdir() if "test.tar" in file.name] == ["test.tar"]


def test_archive_brought_by_hand_is_never_removed(table: Path, server: Any, tmp_path: Path) -> None:
    to = tmp_path / "voc"
    to.mkdir()
    (to / "test.tar").write_bytes(b"of another year")
    with pytest.raises(FetchError, match=r"test\.tar: its md5 is \w+, not \w+; .* delete it"):
        fetch(table, to, "--parts", "test")
    assert (to / "test.tar").read_bytes() == b"of another year"
    (to / "test.tar").write_bytes(server.files["test.tar"])
    assert fetch(table, to, "--parts", "test") == 0
    assert (to / "test.tar").is_file()

"""Shards: what is written, what is read back, and that training from them is training from the folder."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from torch import nn

pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "fssd[s3]"')

from fssd.atomic import temporary_prefix
from fssd.cli.main import main
from fssd.config.train_config import TrainConfig
from fssd.data.check import check_data
from fssd.data.decode import read_bytes, read_image
from fssd.data.formats.shards import SHARDS
from fssd.data.groups import group_images
from fssd.data.loader import read_fitting
from fssd.data.sample import DataSet, Record
from fssd.data.shards.shard_index import INDEX_FILE
from fssd.data.shards.write_shards import shard_data
from fssd.data.source import describe, find_reader, list_splits, open_data, require_usable
from fssd.data.writers.convert import convert_data
from fssd.errors import ConfigError, DataError, ImageError
from fssd.parts.sources import Sources
from fssd.storage.open_folder import open_folder
from fssd.training.loop import train
from fssd.weights.checkpoint import read_tensors

SMALL = 100_000  # bytes of a shard: about 5 scenes


@pytest.fixture(scope="module")
def shards(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of the scenes. Not to be changed."""
    dest = tmp_path_factory.mktemp("shards") / "dest"
    shard_data(scenes, dest, shard_size=SMALL)
    return dest


def coco(root: Path) -> Path:
    """Three images with crowds, areas and category ids that begin at 3; one is in both splits."""
    (root / "annotations").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for folder, numbers in (("train", (7, 8)), ("val", (9,))):
        (root / folder).mkdir()
        for number in numbers:
            pixels = rng.integers(0, 256, (60, 80, 3), np.uint8)
            Pillow.fromarray(pixels).save(root / folder / f"im.{number}.PNG")
        notes = [
            {"id": 1, "image_id": numbers[0], "category_id": 3, "bbox": [1, 2, 30.5, 40], "area": 500.25,
             "iscrowd": 1},
            {"id": 2, "image_id": numbers[0], "category_id": 9, "bbox": [5, 5, 10.3, 10], "area": 70},
        ]  # fmt: skip
        content = {
            "images": [
                {"id": number, "file_name": f"im.{number}.PNG", "width": 80, "height": 60}
                for number in numbers
            ],
            "annotations": notes,
            "categories": [{"id": 3, "name": "dög"}, {"id": 9, "name": "cat"}],
        }
        (root / f"annotations/instances_{folder}.json").write_text(json.dumps(content))
    return root


def assert_same_labels(one: DataSet, other: DataSet) -> None:
    assert one.classes == other.classes and len(one) == len(other)
    for mine, theirs in zip(one.records, other.records, strict=True):
        for field in fields(Record):
            if field.name in ("path", "source", "stored"):
                continue
            a, b = getattr(mine, field.name), getattr(theirs, field.name)
            assert type(a) is type(b), field.name
            np.testing.assert_array_equal(a, b)
            assert getattr(a, "dtype", None) == getattr(b, "dtype", None), field.name
        assert mine.path.name == theirs.path.name
        assert read_bytes(mine.picture) == read_bytes(theirs.picture)


# ---- what is written


def test_a_split_is_read_back_as_it_was(scenes: Path, shards: Path) -> None:
    assert set(list_splits(shards)) == set(list_splits(scenes))
    for split in (*list_splits(scenes), None, "val+train"):
        assert_same_labels(open_data(scenes, split), open_data(shards, split))
    again = open_data(shards, "val", open_data(scenes, "val").classes[::-1])
    assert_same_labels(open_data(scenes, "val", again.classes), again)
    found = describe(open_data(shards, "val"), shards, "val", ())
    assert found == f"{shards} is shards, split val: 4 images, 27 boxes, 10 classes".replace(
        "27 boxes", f"{sum(len(r.labels) for r in open_data(scenes, 'val').records)} boxes"
    )


def test_class_numbers_stay(tmp_path: Path) -> None:
    root = tmp_path / "yolo"
    (root / "images").mkdir(parents=True)
    Pillow.new("RGB", (20, 10)).save(root / "images/a.png")
    (root / "data.yaml").write_text("names: {1: cat, 4: dog}\ntrain: images\n")
    (root / "images/a.txt").write_text("4 0.5 0.5 0.5 0.5\n")
    shard_data(root, tmp_path / "dest")
    found = open_data(tmp_path / "dest", "train", ["dog", "cat"])
    assert found.facts["class_numbers"] == {"1": "cat", "4": "dog"}


def test_crowds_areas_and_category_ids_stay(tmp_path: Path) -> None:
    root = coco(tmp_path / "coco")
    shard_data(root, tmp_path / "dest")
    for split in ("train", "val"):
        one, other = open_data(root, split), open_data(tmp_path / "dest", split)
        assert_same_labels(one, other)
        assert other.facts["category_ids"] == one.facts["category_ids"] == (3, 9)
        assert isinstance(other.facts["category_ids"], tuple)
    first = open_data(tmp_path / "dest", "train").records[0]
    assert first.crowd.tolist() == [True, False]
    assert first.areas is not None and first.areas.tolist() == [500.25, 70.0]


def test_category_ids_of_splits_with_other_classes(tmp_path: Path) -> None:
    """Each class has the id that its own split states, in whatever order a model has them."""
    root = coco(tmp_path / "coco")
    file = root / "annotations/instances_val.json"
    content = json.loads(file.read_text())
    content["categories"] = [{"id": 9, "name": "cat"}, {"id": 20, "name": "ant"}]
    content["annotations"] = content["annotations"][1:]
    file.write_text(json.dumps(content))
    shard_data(root, tmp_path / "dest")
    whole = open_data(tmp_path / "dest", "train")
    assert dict(zip(whole.classes, whole.facts["category_ids"], strict=True)) == {
        "dög": 3,
        "cat": 9,
        "ant": 20,
    }
    other = open_data(tmp_path / "dest", "train", ("cow", "cat", "dög"))
    assert other.facts["category_ids"] == (None, 9, 3)


def test_others_can_read_the_tars(scenes: Path, shards: Path) -> None:
    """WebDataset's convention: neighbouring members with one name up to the first dot are one sample."""
    data = open_data(scenes, "train")
    expected = {record.image_id: record for record in data.records}
    tars = sorted(shards.glob("train-*.tar"))
    assert len(tars) > 1 and all(tar.stat().st_size <= SMALL for tar in tars)
    keys: list[str] = []
    for tar in tars:
        with tarfile.open(tar) as archive:
            members = archive.getmembers()
            for picture, labels in zip(members[::2], members[1::2], strict=True):
                key, suffix = picture.name.split(".", 1)
                assert (suffix, labels.name) == ("jpg", f"{key}.json")
                keys.append(key)
                content = json.loads(archive.extractfile(labels).read())  # type: ignore[union-attr]
                record = expected.pop(content["id"])
                assert archive.extractfile(picture).read() == record.path.read_bytes()  # type: ignore[union-attr]
                assert content["labels"] == [data.classes[label] for label in record.labels]
                assert np.array_equal(np.float32(content["boxes"]).reshape(-1, 4), record.boxes)
                assert (content["width"], content["height"]) == (record.width, record.height)
                assert content["difficult"] == record.difficult.tolist()
    assert not expected and len(set(keys)) == len(keys)


def test_the_index_is_a_table_for_others(shards: Path) -> None:
    """The columns by Arrow's own reader, and the bytes that they point to."""
    import pyarrow as arrow

    with arrow.memory_map(str(shards / INDEX_FILE)) as file:
        rows = arrow.ipc.open_file(file).read_all().to_pylist()
        names = list(json.loads(arrow.ipc.open_file(file).schema.metadata[b"fssd"])["shards"])
    for row, record in zip(rows, map(open_data(shards).records.__getitem__, range(len(rows))), strict=True):
        content = (shards / names[row["shard"]]).read_bytes()
        picture = content[row["offset"] : row["offset"] + row["size"]]
        assert picture[:2] == b"\xff\xd8" and picture == read_bytes(record.picture)
        assert [item["label"] for item in row["objects"]] == record.labels.tolist()
        assert [item["box"] for item in row["objects"]] == record.boxes.tolist()


def test_an_image_of_several_splits_is_stored_once(scenes: Path, tmp_path: Path) -> None:
    data = tmp_path / "VOC2007"
    data.symlink_to(scenes)
    lists = scenes / "ImageSets" / "Main"
    assert {file.stem for file in lists.glob("*.txt")} >= {"train", "val"}
    joined = tmp_path / "joined.yaml"
    joined.write_text(f"sources:\n  - {{data: {data}, split: {{both: train+val, val: val}}}}\n")
    made = shard_data(joined, tmp_path / "dest")
    assert made.images == {"both": 16, "val": 4}
    pictures = 0
    for tar in (tmp_path / "dest").glob("*.tar"):
        with tarfile.open(tar) as archive:
            pictures += sum(name.endswith(".jpg") for name in archive.getnames())
    assert pictures == 16
    both, val = open_data(tmp_path / "dest", "both"), open_data(tmp_path / "dest", "val")
    assert {record.path for record in val.records} < {record.path for record in both.records}
    assert len(open_data(tmp_path / "dest")) == 16


def test_joined_sources_keep_all_objects_of_a_picture(scenes: Path, tmp_path: Path) -> None:
    """Two label files for the same pictures, each with half of the classes."""
    convert_data(scenes, "voc", tmp_path / "one")
    (tmp_path / "two" / "Annotations").mkdir(parents=True)
    (tmp_path / "two" / "ImageSets").symlink_to(tmp_path / "one" / "ImageSets")
    for file in (tmp_path / "one" / "Annotations").glob("*.xml"):
        text = file.read_text()
        (tmp_path / "two" / "Annotations" / file.name).write_text(
            re.sub("<name>.*?</name>", "<name>other</name>", text)
        )
    joined = tmp_path / "joined.yaml"
    joined.write_text("sources: [{data: one}, {data: two, images: one/JPEGImages}]\n")
    shard_data(joined, tmp_path / "dest")
    for split in ("train", "train+val", None):
        expected, made = (open_data(place, split).records for place in (joined, tmp_path / "dest"))
        assert len(made) == len(expected)
        assert sum(len(record.labels) for record in made) == sum(len(record.labels) for record in expected)


@pytest.fixture
def two_of_one_layout(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of shards that differ in pixels alone: names, places and labels are the same."""
    made = []
    for number, name in enumerate(("one", "two")):
        root = tmp_path / f"{name}_data"
        (root / "images" / "train").mkdir(parents=True)
        (root / "labels" / "train").mkdir(parents=True)
        pixels = np.full((40, 40, 3), 100 * number, np.uint8)
        Pillow.fromarray(pixels).save(root / "images" / "train" / "1.bmp")
        (root / "labels" / "train" / "1.txt").write_text("0 .5 .5 .2 .2\n")
        (root / "classes.txt").write_text("dog\n")
        shard_data(root, tmp_path / name)
        made.append(tmp_path / name)
    return made[0], made[1]


def joined_sides(file: Path, train: Path, val: Path) -> Path:
    sources = [
        {"data": str(train), "split": {"train": "train"}},
        {"data": str(val), "split": {"val": "train"}},
    ]
    file.write_text(json.dumps({"sources": sources}))
    return file


@pytest.mark.parametrize("decode", [True, False])
def test_check_tells_the_pictures_of_joined_shards_apart(
    two_of_one_layout: tuple[Path, Path], tmp_path: Path, decode: bool
) -> None:
    one, two = two_of_one_layout
    (tmp_path / "link").symlink_to(one)
    for other, shared in ((two, 0), (one, 1), (tmp_path / "link", 1)):
        report = check_data(joined_sides(tmp_path / "joined.yaml", one, other), decode=decode)
        found = [problem for problem in report.problems if "the same image is in split" in problem.reason]
        assert len(found) == shared, other


@pytest.mark.parametrize("content", [None, b"cut"])
def test_a_shard_that_was_lost_is_written_again(content: bytes | None, scenes: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    made = shard_data(scenes, dest, shard_size=SMALL)
    lost = sorted(dest.glob("*.tar"))[1]
    whole = lost.read_bytes()
    lost.unlink() if content is None else lost.write_bytes(content)
    with pytest.raises(DataError, match="run the same `fssd shard` again"):
        open_data(dest)
    assert shard_data(scenes, dest, shard_size=SMALL) == replace(made, written=1)
    assert lost.read_bytes() == whole
    assert len(open_data(dest)) == 16


def test_unreadable_pictures_are_told_and_counted(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert_data(scenes, "voc", tmp_path / "data")
    broken = sorted((tmp_path / "data" / "JPEGImages").iterdir())[0]
    broken.write_bytes(b"no image")
    assert main(["shard", str(tmp_path / "data"), str(tmp_path / "dest")]) == 2
    assert f"error: {broken}" in capsys.readouterr().err and not (tmp_path / "dest").exists()
    assert main(["shard", str(tmp_path / "data"), str(tmp_path / "dest"), "--bad-share", "0.3"]) == 0
    told = capsys.readouterr()
    assert f"left out: {broken}" in told.err and "note: left out: 1 image with errors" in told.out
    assert sum(len(open_data(tmp_path / "dest", name)) for name in ("train", "val")) == 15


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--splits", "trian"], "no split.*trian"),
        (["--shard-size", "0"], "shard_size"),
        (["--images", "nowhere"], "nowhere"),
    ],
)
def test_wrong_values(
    arguments: list[str], expected: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["shard", str(scenes), str(tmp_path / "dest"), *arguments]) == 2
    assert re.search(expected, capsys.readouterr().err)
    assert not (tmp_path / "dest").exists()


def test_a_place_that_is_taken_is_kept(scenes: Path, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("kept")
    with pytest.raises(ConfigError, match=r"mine: is not empty, it holds a\.txt"):
        shard_data(scenes, tmp_path / "mine")
    with pytest.raises(ConfigError, match="holds other shards"):
        shard_data(scenes, shards, shard_size=2 * SMALL)
    with pytest.raises(ConfigError, match="lies inside the data set"):
        shard_data(scenes, scenes / "below")


# ---- killed while it writes


KILLED = """
import os, signal, sys
from pathlib import Path
from fssd.data.shards import write_shards
from fssd.storage.{module} import {kind}

count = 0
def killed(self, file, name, upload={kind}.upload):
    global count
    count += 1
    if count == 3:  # a half written shard lies there
        os.truncate(file, 5000)
        os.kill(os.getpid(), signal.SIGKILL)
    upload(self, file, name)

{kind}.upload = killed
write_shards.shard_data(sys.argv[1], sys.argv[2], shard_size={size})
"""


@pytest.mark.parametrize("kind", ["LocalFolder", "S3Folder"])
def test_a_killed_command_goes_on(
    kind: str, scenes: Path, shards: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    remote = kind == "S3Folder"
    dest = f"{request.getfixturevalue('s3')}/dest" if remote else str(tmp_path / "dest")
    script = KILLED.format(kind=kind, module="s3_folder" if remote else "local_folder", size=SMALL)
    done = subprocess.run([sys.executable, "-c", script, str(scenes), dest], timeout=240, check=False)
    assert done.returncode == -9
    with pytest.raises(DataError, match="fssd shard"):
        open_data(Path(dest))
    with pytest.raises(ConfigError, match="holds a part of other shards"):
        shard_data(scenes, dest, shard_size=2 * SMALL)
    folder, whole = open_folder(dest), open_folder(str(shards))
    assert {entry.size for entry in folder.list() if entry.name.endswith(".tar")} <= {
        entry.size for entry in whole.list()
    }
    made = shard_data(scenes, dest, shard_size=SMALL)
    assert made.written == made.shards - 2
    assert sorted(folder.list()) == sorted(whole.list())
    assert all(folder.read(entry.name) == whole.read(entry.name) for entry in whole.list())
    if not remote:
        assert not list(Path(dest).glob(".tmp-*"))
    assert shard_data(scenes, dest, shard_size=SMALL).written == 0


def test_what_another_process_is_writing_stays(scenes: Path, tmp_path: Path) -> None:
    """Two that shard into one folder at once; pytest's parent stands for the other."""
    prefix = temporary_prefix()
    living = tmp_path / "dest" / prefix.replace(f"-{os.getpid()}-", f"-{os.getppid()}-")
    killed = tmp_path / "dest" / f"{prefix}0"
    for place in (living, killed):
        place.mkdir(parents=True)
    shard_data(scenes, tmp_path / "dest", shard_size=SMALL)
    assert living.is_dir() and not killed.exists()


def test_a_changed_picture_does_not_go_on(scenes: Path, tmp_path: Path) -> None:
    convert_data(scenes, "voc", tmp_path / "data")
    shard_data(tmp_path / "data", tmp_path / "dest", shard_size=SMALL)
    (tmp_path / "dest" / INDEX_FILE).unlink()
    (tmp_path / "dest" / "unfinished.json").write_text(json.dumps({"plan": "of another one"}))
    with pytest.raises(ConfigError, match="or the data set or the settings have changed"):
        shard_data(tmp_path / "data", tmp_path / "dest", shard_size=SMALL)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_damaged_note_of_what_is_unfinished(scenes: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest/unfinished.json").write_bytes(content)
    with pytest.raises(DataError, match=r"unfinished\.json: is damaged, so nobody knows .*remove them"):
        shard_data(scenes, tmp_path / "dest")


# ---- damage


def copied(shards: Path, to: Path) -> Path:
    return Path(shutil.copytree(shards, to))


def test_a_damaged_folder_is_named(shards: Path, tmp_path: Path) -> None:
    for number, size in enumerate((0, 100, 4000)):
        folder = copied(shards, tmp_path / str(number))
        os.truncate(folder / INDEX_FILE, size)
        with pytest.raises(DataError, match=r"index\.arrow: is damaged"):
            open_data(folder, "train")
    folder = copied(shards, tmp_path / "short")
    os.truncate(folder / "train-000000.tar", 1000)
    with pytest.raises(DataError, match=r"train-000000\.tar: has 1,000 bytes, not"):
        open_data(folder, "train")
    (folder / "train-000000.tar").unlink()
    with pytest.raises(DataError, match=r"train-000000\.tar: is missing"):
        open_data(folder, "train")
    with pytest.raises(DataError, match="has no split 'trian'; did you mean 'train'"):
        open_data(shards, "trian")
    with pytest.raises(ConfigError, match="--images has no effect"):
        open_data(shards, "train", images=tmp_path)


BENT: list[tuple[str, Any, str]] = [
    ("label", np.int32(77), "label 0 is 77"),
    ("label", np.int32(-1), "label 0 is -1"),
    ("shard", np.int32(99), "shard 0 is 99"),
    ("shard", np.int32(-1), "shard 0 is -1"),
    ("offset", np.int64(-600), "offset 0 is -600"),
    ("offset", np.int64(2**63 - 1), "offset 0 lies with its size beyond its shard"),
    ("size", np.int64(2**60), "offset 0 lies with its size beyond its shard"),
    ("size", np.int64(0), "size 0 is 0"),
    ("width", np.int32(-5), "width 0 is -5"),
    ("height", np.int32(0), "height 0 is 0"),
    ("box", np.float32("nan"), "box 0 has a side that is no number"),
    ("objects", np.array([0, 10**9]), "the parts of objects do not follow each other"),
    ("objects", np.array([-1]), "the parts of objects do not follow each other"),
    ("id", np.array([0, 10**9]), "the parts of id do not follow each other"),
    ("id text", np.uint8(0xFF), r"the column id is no text in UTF-8 \(byte 0\)"),
    ("file text", np.uint8(0xC3), r"the column file is no text in UTF-8 \(byte 0\)"),
    ("file", np.array([0, 1]), "file 1 begins inside a character"),
]


def bend(index: Path, column: str, value: Any) -> None:
    """Write a value over the first one of a column, in the file."""
    import pyarrow

    content = bytearray(index.read_bytes())
    whole = pyarrow.py_buffer(content)
    batch = pyarrow.ipc.open_file(pyarrow.BufferReader(whole)).get_batch(0)
    objects = batch.column("objects").values
    inner = {"box": lambda: objects.field("box").values, "label": lambda: objects.field("label")}
    name = column.removesuffix(" text")
    array = inner[name]() if name in inner else batch.column(name)
    place = array.buffers()[2 if name != column else 1].address - whole.address
    written = value.tobytes()
    content[place : place + len(written)] = written
    index.write_bytes(content)


@pytest.mark.parametrize(("column", "value", "reason"), BENT)
def test_an_index_with_a_value_that_nobody_wrote(
    shards: Path, tmp_path: Path, column: str, value: Any, reason: str
) -> None:
    folder = copied(shards, tmp_path / "bent")
    if column == "file":
        bend(folder / INDEX_FILE, "file text", np.frombuffer("ü".encode(), np.uint8))
    bend(folder / INDEX_FILE, column, value)
    with pytest.raises(DataError, match=rf"index\.arrow: is damaged \({reason}\); copy the folder again"):
        open_data(folder, "train")


@pytest.mark.parametrize("name", ["", "..", "../x.tar", "/tmp/x.tar", "a\\x.tar", "c:x.tar"])
def test_a_shard_is_a_file_of_its_folder(shards: Path, tmp_path: Path, name: str) -> None:
    folder = copied(shards, tmp_path / "bent")
    retell(folder / INDEX_FILE, "shards", {name: 10_240})
    with pytest.raises(DataError, match=r"damaged \(the shard .* is not the name of a file in this folder"):
        list_splits(folder)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("shards", {"a.tar": 1.5}, r"the shard 'a\.tar' has 1\.5 bytes"),
        ("shards", {"a.tar": 2**63}, r"the shard 'a\.tar' has 9223372036854775808 bytes"),
        ("classes", ["cat", 3], "the class 3 is no text"),
        ("splits", {"train": [0, 999]}, "split 'train' is the rows 0 to 999 of 16"),
        ("splits", {"train": [-1, 3]}, "split 'train' is the rows -1 to 3 of 16"),
    ],
)
def test_an_index_with_metadata_that_nobody_wrote(
    shards: Path, tmp_path: Path, key: str, value: Any, reason: str
) -> None:
    folder = copied(shards, tmp_path / "bent")
    retell(folder / INDEX_FILE, key, value)
    with pytest.raises(DataError, match=rf"index\.arrow: is damaged \({reason}\)"):
        open_data(folder, "train")


def retell(index: Path, key: str, value: Any) -> None:
    """Write the index with another value in its metadata."""
    import pyarrow

    reader = pyarrow.ipc.open_file(index.read_bytes())
    document = json.loads(reader.schema.metadata[b"fssd"]) | {key: value}
    batch = reader.get_batch(0).replace_schema_metadata({b"fssd": json.dumps(document).encode()})
    with pyarrow.ipc.new_file(str(index), batch.schema) as writer:
        writer.write_batch(batch)


def test_a_shard_that_is_cut_later_is_an_image_error(shards: Path, tmp_path: Path) -> None:
    folder = copied(shards, tmp_path / "cut")
    records = open_data(folder, "train").records
    os.truncate(folder / "train-000000.tar", 600)
    with pytest.raises(ImageError, match=r"train-000000\.tar.*ends before byte"):
        read_image(records[0].picture)


# ---- everything else that reads images


def test_what_reads_a_folder_reads_shards(scenes: Path, shards: Path, tmp_path: Path) -> None:
    assert [read_fitting(r).tobytes() for r in open_data(shards, "val").records] == [
        read_fitting(r).tobytes() for r in open_data(scenes, "val").records
    ]
    one, other = (check_data(path, None, True) for path in (scenes, shards))
    assert one.splits == other.splits
    assert [problem.place for problem in other.problems] == ["classes"]  # each has few images
    assert check_data(shards, None, False).splits == one.splits
    of_folder, of_shards = (group_images(open_data(path, "train").records).keys for path in (scenes, shards))
    assert of_folder == of_shards
    convert_data(shards, "voc", tmp_path / "back")
    for split in ("train", "val"):
        assert_same_labels(open_data(scenes, split), open_data(tmp_path / "back", split))
    convert_data(shards, "coco", tmp_path / "coco")  # whose ids are numbers
    assert not [path for path in (tmp_path / "coco").rglob("*") if ".tar" in str(path)]
    with pytest.raises(ConfigError, match="cannot be linked; leave out --link"):
        convert_data(shards, "voc", tmp_path / "linked", link=True)
    again = shard_data(shards, tmp_path / "again", shard_size=SMALL)
    assert again.images == {"train": 12, "val": 4}
    assert_same_labels(open_data(shards, "train"), open_data(tmp_path / "again", "train"))
    joined = tmp_path / "joined.yaml"
    parts = [f"  - {{data: {shards}, split: {{all: train}}}}", f"  - {{data: {scenes}, split: {{all: val}}}}"]
    joined.write_text("\n".join(["sources:", *parts]))
    data = open_data(joined, "all")
    require_usable(data)
    assert [record.stored is None for record in data.records] == [False] * 12 + [True] * 4
    assert all(read_bytes(record.picture)[:2] == b"\xff\xd8" for record in data.records)


def test_verbs_on_shards(
    scenes: Path, shards: Path, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    texts = []
    for number, data in enumerate((scenes, shards)):
        page = tmp_path / f"page{number}"
        assert main(["check", str(data), "--report", str(page)]) == 0
        capsys.readouterr()
        report = tmp_path / f"eval{number}"
        line = ["eval", str(model_file), "--data", str(data), "--split", "val", "--report", str(report)]
        assert main(line) == 0
        texts.append(capsys.readouterr().out.replace(str(data), "DATA").replace(str(report), "REPORT"))
        html = (report / "index.html").read_text(encoding="utf-8")
        assert bool(re.search(r'href="[^"]*\.jpg"', html)) == (data is scenes)
    assert texts[0] == texts[1]


def test_an_index_goes_to_another_process_as_its_place(shards: Path) -> None:
    data = open_data(shards, "train")
    sent = pickle.dumps(data)
    assert len(sent) < 2000
    assert_same_labels(data, pickle.loads(sent))


def test_shards_are_recognised_by_their_index(shards: Path) -> None:
    assert find_reader(shards)[0].name == find_reader(shards / INDEX_FILE)[0].name == "shards"
    assert find_reader(shards / INDEX_FILE)[1] == shards


@pytest.mark.parametrize(
    ("content", "is_ours"), [({"plan": "0a1b"}, True), ({"made with": {}, "films": []}, False), ([], False)]
)
def test_unfinished_shards_are_recognised_by_their_content(
    tmp_path: Path, content: object, is_ours: bool
) -> None:
    """Plain `fssd detect` leaves an unfinished.json too."""
    (tmp_path / "unfinished.json").write_text(json.dumps(content))
    Pillow.new("RGB", (4, 3)).save(tmp_path / "a.png")
    assert (SHARDS.recognise(tmp_path) is not None) == is_ours
    if is_ours:
        with pytest.raises(DataError, match="index"):
            list(Sources().rows(str(tmp_path)))
    else:
        assert [row.image for row, _ in Sources().rows(str(tmp_path))] == [str(tmp_path / "a.png")]


# ---- training


def small(data: Path | str, out: Path, **changes: Any) -> TrainConfig:
    base = TrainConfig(
        data=Path(data), out=out, start="nothing", iterations=4, batch_size=4, warmup=0, ema=0.9,
        eval_every=0.7, save_every=2, log_every=1, workers=1, amp="off",
    )  # fmt: skip
    return replace(base, **changes)


def result(out: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    tensors, _ = read_tensors(out / "last.safetensors")
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None)
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, lines


def test_training_from_shards_is_training_from_the_folder(
    scenes: Path,
    shards: Path,
    s3: str,
    tiny_backbone: Callable[[], nn.Module],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    remote = f"{s3}/scenes"
    shard_data(scenes, remote, shard_size=SMALL)
    train(small(scenes, tmp_path / "folder"), backbone=tiny_backbone())
    expected = result(tmp_path / "folder")
    train(small(shards, tmp_path / "shards"), minutes=0, backbone=tiny_backbone())  # one update
    # It goes on from S3: the data are the same, wherever they lie.
    train(small(remote, tmp_path / "shards"), resume=True, backbone=tiny_backbone())
    assert result(tmp_path / "shards") == expected
    assert "data: s3://" in (tmp_path / "shards" / "config.yaml").read_text()
    monkeypatch.setenv("FSSD_CACHE", str(tmp_path / "kept"))
    train(small(remote, tmp_path / "cached"), backbone=tiny_backbone())
    assert result(tmp_path / "cached") == expected
    kept = sorted(file.name for file in (tmp_path / "kept").rglob("*.tar"))
    assert kept == sorted(file.name for file in shards.glob("*.tar"))


def test_other_labels_do_not_go_on(
    scenes: Path, shards: Path, tiny_backbone: Callable[[], nn.Module], tmp_path: Path
) -> None:
    train(small(scenes, tmp_path / "run"), minutes=0, backbone=tiny_backbone())
    convert_data(scenes, "voc", tmp_path / "data")
    label = sorted((tmp_path / "data" / "Annotations").iterdir())[0]
    text = label.read_text()
    corner = text.split("<xmax>")[1].split("</xmax>")[0]
    label.write_text(text.replace(f"<xmax>{corner}</xmax>", f"<xmax>{float(corner) - 1:g}</xmax>", 1))
    shard_data(tmp_path / "data", tmp_path / "other")
    with pytest.raises(ConfigError, match="1 given other labels"):
        train(small(tmp_path / "other", tmp_path / "run"), resume=True, backbone=tiny_backbone())


def test_a_store_that_is_lost_ends_training_with_its_name(
    scenes: Path,
    s3: str,
    tiny_backbone: Callable[[], nn.Module],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shard_data(scenes, f"{s3}/scenes")
    data = open_data(f"{s3}/scenes", "train")
    open_folder(f"{s3}/scenes").remove("train-000000.tar")
    with pytest.raises(ImageError, match=r"s3://.*train-000000\.tar.*there is no such object"):
        read_image(data.records[0].picture)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="the store does not answer"):
        read_image(data.records[0].picture)
    with pytest.raises(ConfigError, match="the store does not answer"):
        train(small(f"{s3}/scenes", tmp_path / "run"), backbone=tiny_backbone())

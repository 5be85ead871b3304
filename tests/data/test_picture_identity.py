"""Names by which a picture is known wherever its data set lies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from fssd.data.picture_identity import is_called, named_by_id, own_names, plain_path, renamed_ids
from fssd.data.sample import Record, background_record
from fssd.data.stored import StoredPicture
from fssd.storage.local_folder import LocalFolder


def record(image_id: str, path: str, shard: str = "") -> Record:
    own = background_record(image_id, Path(path))
    if not shard:
        return own
    folder = path.partition(f"/{shard}/")[0]
    return replace(own, stored=StoredPicture(LocalFolder(folder), shard, 0, 1, Path(path)))


@pytest.mark.parametrize(
    ("image_id", "path", "expected"),
    [
        ("000005", "/data/JPEGImages/000005.jpg", "000005.jpg"),
        ("train/a.png", "/data/images/train/a.png", "train/a.png"),
        ("a/images/0.png", "a/images/0.png", "a/images/0.png"),  # opened in the folder itself
        ("/data/day/a.png", "/data/day/a.png", None),  # the whole path is no name
        ("17", "/data/000017.jpg", None),
        ("17", "/data/17/0.jpg", None),
        ("2:000005", "/data/000005.jpg", None),
    ],
)
def test_an_id_that_is_the_end_of_the_path(image_id: str, path: str, expected: str | None) -> None:
    assert named_by_id(record(image_id, path)) == (expected and PurePosixPath(expected))


def test_others_are_named_below_the_folder_of_all() -> None:
    records = [record("1", "/d/train/x/a.jpg"), record("b", "/d/b.jpg"), record("2", "/d/train/y/a.jpg")]
    assert own_names(records) == ["x/a.jpg", "b", "y/a.jpg"]
    shards = [
        record("1", "/s/a-0.tar/train/x/a.jpg", "a-0.tar"),
        record("2", "/s/a-1.tar/train/y/a.jpg", "a-1.tar"),
    ]
    assert [plain_path(one) for one in shards] == ["/s/train/x/a.jpg", "/s/train/y/a.jpg"]
    assert own_names(shards) == ["x/a.jpg", "y/a.jpg"]
    assert own_names([record("b", "/d/b.jpg")]) == ["b"]
    assert own_names([]) == []


def test_a_name_is_the_end_of_a_path() -> None:
    picture = record("1", "/d/x/caf\u00e9.v1.jpg")
    for name in ("caf\u00e9.v1.jpg", "x/cafe\u0301.v1.png", "caf\u00e9.v1"):
        assert is_called(picture, name)
    for name in ("y/caf\u00e9.v1.jpg", "fe\u0301.v1.jpg", "caf\u00e9", "1"):
        assert not is_called(picture, name)


def test_ids_that_were_paths() -> None:
    records = [
        record("a/0.png", "/d/a/0.png"),
        record("b/0.png", "/d/b/0.png"),
        record("1.png", "/d/a/1.png"),
    ]
    ids = ["/d/a/0.png", "/d/b/../b/0.png", "1.png", "/d/gone.png", "17"]
    assert renamed_ids(ids, records) == {"/d/a/0.png": "a/0.png", "/d/b/../b/0.png": "b/0.png"}
    assert renamed_ids(["1.png"], records) == {}

"""The demo scenes: the same every time, honest boxes, and nothing shared by the two splits."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest

from fssd.data import scenes
from fssd.data.scenes import CLASSES, FIRST_VAL_DIGIT, PHOTOGRAPHS, Scene, make_scene, make_scenes
from fssd.errors import ConfigError

pytest.importorskip("sklearn", reason='the scenes need scikit-learn: pip install "fssd[demo]"')
pytest.importorskip("skimage", reason='the scenes need scikit-image: pip install "fssd[demo]"')


@pytest.fixture(scope="module")
def train() -> list[Scene]:
    return [make_scene("train", index) for index in range(80)]


@pytest.fixture(scope="module")
def val() -> list[Scene]:
    return [make_scene("val", index) for index in range(60)]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def ink(scene: Scene) -> np.ndarray:
    """(H, W) bool: pixels that the digits changed."""
    return np.asarray((scene.image != scene.background).any(axis=2))


def test_same_settings_give_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    first, again, other = (
        files(make_scenes(tmp_path / name, train=6, val=3, seed=seed))
        for name, seed in (("first", 5), ("again", 5), ("other", 6))
    )
    assert first == again
    assert first["JPEGImages/train_00000.jpg"] != other["JPEGImages/train_00000.jpg"]


def test_a_scene_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few = files(make_scenes(tmp_path / "few", train=2, val=1))
    more = files(make_scenes(tmp_path / "more", train=4, val=2))
    images = [name for name in few if name.endswith((".jpg", ".xml"))]
    assert len(images) == 6
    assert all(few[name] == more[name] for name in images)


def test_the_folder_is_pascal_voc(tmp_path: Path) -> None:
    folder = make_scenes(tmp_path / "voc", train=3, val=2, size=200)
    assert (folder / "ImageSets/Main/train.txt").read_text().split() == [f"train_{i:05d}" for i in range(3)]
    assert (folder / "ImageSets/Main/val.txt").read_text().split() == ["val_00000", "val_00001"]
    for index in range(3):
        scene = make_scene("train", index, size=200)
        root = ET.parse(folder / f"Annotations/train_{index:05d}.xml").getroot()
        image = np.asarray(cv2.imread(str(folder / "JPEGImages" / str(root.findtext("filename")))))
        assert image.shape == (200, 200, 3)
        assert [root.findtext(f"size/{k}") for k in ("width", "height", "depth")] == ["200", "200", "3"]
        names = [str(o.findtext("name")) for o in root.iter("object")]
        assert names == [CLASSES[label] for label in scene.labels]
        boxes = [[float(str(v.text)) for v in box] for box in root.iter("bndbox")]
        np.testing.assert_array_equal(np.reshape(boxes, (-1, 4)), scene.boxes)
        assert np.abs(image[..., ::-1].astype(int) - scene.image).mean() < 12  # JPEG, and RGB stayed RGB


def test_splits_share_no_digit_and_no_photograph(train: list[Scene], val: list[Scene]) -> None:
    assert not set(PHOTOGRAPHS["train"]) & set(PHOTOGRAPHS["val"])
    assert {s.photograph for s in train} == set(PHOTOGRAPHS["train"])
    assert {s.photograph for s in val} == set(PHOTOGRAPHS["val"])
    assert max(s.digits.max(initial=0) for s in train) < FIRST_VAL_DIGIT
    assert min(s.digits.min(initial=9999) for s in val) >= FIRST_VAL_DIGIT


def test_labels_are_those_of_the_digits(train: list[Scene], val: list[Scene]) -> None:
    from sklearn.datasets import load_digits

    target = load_digits().target
    for scene in train + val:
        np.testing.assert_array_equal(scene.labels, target[scene.digits])
    assert {int(label) for scene in val for label in scene.labels} == set(range(10))


def test_boxes_are_inside_and_hold_all_ink(train: list[Scene], val: list[Scene]) -> None:
    for scene in train + val:
        assert scene.image.shape == scene.background.shape == (300, 300, 3)
        assert scene.image.dtype == np.uint8
        assert scene.boxes.shape == (len(scene.labels), 4)
        outside = ink(scene)
        for x0, y0, x1, y1 in scene.boxes.astype(int):
            assert 1 <= x0 < x1 <= 299 and 1 <= y0 < y1 <= 299
            outside[y0:y1, x0:x1] = False
        assert not outside.any()


def test_boxes_are_tight(train: list[Scene], val: list[Scene]) -> None:
    alone = [scene for scene in train + val if len(scene.boxes) == 1]
    assert len(alone) >= 5
    for scene in alone:
        rows, columns = np.nonzero(ink(scene))
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        # An edge pixel, weak as its ink is, can happen to have the colour that was there before.
        np.testing.assert_allclose(scene.boxes[0], found, atol=1)


def test_digits_hardly_cover_each_other(train: list[Scene]) -> None:
    for scene in train:
        boxes = [(int(x0), int(y0), int(x1), int(y1)) for x0, y0, x1, y1 in scene.boxes]
        pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
        assert all(scenes._cover(a, b) <= scenes.MAX_COVER for a, b in pairs)


def test_digits_stand_out(train: list[Scene], val: list[Scene]) -> None:
    """The mean change of the changed pixels is far above noise in every box."""
    for scene in train + val:
        change = np.abs(scene.image.astype(int) - scene.background).max(axis=2)
        for x0, y0, x1, y1 in scene.boxes.astype(int):
            patch = change[y0:y1, x0:x1]
            assert patch[patch > 0].mean() > 25


def test_sizes_are_a_third_each(train: list[Scene], val: list[Scene]) -> None:
    heights = np.concatenate([s.boxes[:, 3] - s.boxes[:, 1] for s in train + val])
    assert heights.min() >= 10 and heights.max() <= 161
    for share in ((heights < 32).mean(), ((heights >= 32) & (heights < 96)).mean(), (heights >= 96).mean()):
        assert 0.25 < share < 0.42


def test_one_scene_in_twenty_is_empty(train: list[Scene]) -> None:
    empty = [scene for scene in train if len(scene.boxes) == 0]
    assert len(empty) == 4
    assert all(scene.boxes.shape == (0, 4) and not ink(scene).any() for scene in empty)
    assert max(len(scene.boxes) for scene in train) <= 12


def test_height_is_as_asked_for() -> None:
    pixels, _ = scenes._digits()
    for height in (12, 40, 160):
        alpha = scenes.draw_digit(pixels[0], height, 5.0, 0.1)
        assert abs(alpha.shape[0] - height) <= 1
        assert alpha.max() <= 1
        edges = (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1])
        assert all(edge.max() >= scenes.MIN_ALPHA for edge in edges)


def test_a_complete_folder_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_scenes(tmp_path / "set", train=2, val=1)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    monkeypatch.setattr(scenes, "_write_split", lambda *_: pytest.fail("it was drawn again"))
    assert make_scenes(folder, train=2, val=1) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_other_settings_or_missing_files_are_an_error(tmp_path: Path) -> None:
    folder = make_scenes(tmp_path / "set", train=2, val=1)
    with pytest.raises(ConfigError, match="something else"):
        make_scenes(folder, train=3, val=1)
    (folder / "JPEGImages/val_00000.jpg").unlink()
    with pytest.raises(ConfigError, match="something else"):
        make_scenes(folder, train=2, val=1)


def test_a_folder_of_the_user_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    with pytest.raises(ConfigError, match="mine holds something else"):
        make_scenes(tmp_path / "mine", train=1, val=1)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    folder = make_scenes(tmp_path / "new", train=1, val=0)
    assert json.loads((folder / "scenes.json").read_text())["settings"]["train"] == 1
    assert (folder / "ImageSets/Main/val.txt").read_text() == ""


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(split: scenes.Split, index: int, **settings: int) -> Scene:
        if index == 2:
            raise KeyboardInterrupt
        return make_scene(split, index, **settings)

    monkeypatch.setattr(scenes, "make_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_scenes(tmp_path / "set", train=4, val=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "package"), [("sklearn.datasets", "scikit-learn"), ("skimage", "scikit-image")]
)
def test_a_missing_package_is_named(module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes._digits.cache_clear()
    scenes._photograph.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf'{package}.*pip install "fssd\[demo\]"'):
        make_scene("train", 0)


@pytest.mark.parametrize("wrong", [{"train": 0}, {"val": -1}, {"seed": -1}, {"size": 20}])
def test_wrong_numbers_are_named(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is "):
        make_scenes(tmp_path / "set", **wrong)


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(ConfigError, match="'test'; known: train, val"):
        make_scene("test", 0)  # type: ignore[arg-type]

"""Augmentation of one's own: what it gets, what it may give back, albumentations, and a run with it."""

# ruff: noqa: ARG005
from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fssd.config.train_config import TrainConfig
from fssd.data.augment_hook import AugmentHook, find_augmenter
from fssd.data.geometry import Warp
from fssd.data.loader import Views
from fssd.data.sample import Sample
from fssd.data.source import open_data
from fssd.errors import ConfigError
from fssd.training.loop import train
from fssd.weights.checkpoint import read_tensors

BOXES = np.array([[1, 2, 11, 12], [30, 10, 40, 30]], np.float32)


def sample() -> Sample:
    image = np.arange(30 * 40 * 3, dtype=np.uint32).reshape(30, 40, 3).astype(np.uint8)
    return Sample(image, BOXES.copy(), np.array([0, 1]), np.zeros(2, bool), "a.jpg")


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], AugmentHook]:
    """Puts something into a module of the user's own, and gives the hook of its name."""

    def put(found: Any) -> AugmentHook:
        module = ModuleType("my_augment")
        module.own = found  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "my_augment", module)
        find_augmenter.cache_clear()
        return AugmentHook("my_augment:own", classes=2)

    return put


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def mirror(image: Any, boxes: Any, labels: Any, rng: Any) -> Any:
    flipped = boxes[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (image.shape[1], 0, image.shape[1], 0)
    return image[:, ::-1], flipped, labels


def test_a_function(offer: Any) -> None:
    result = offer(mirror)(sample(), rng())
    assert np.array_equal(result.image, sample().image[:, ::-1])
    assert result.boxes.tolist() == [[29, 2, 39, 12], [0, 10, 10, 30]] and result.boxes.dtype == np.float32
    assert result.labels.tolist() == [0, 1]


def test_boxes_are_clipped_and_empty_ones_dropped(offer: Any) -> None:
    def shift(image: Any, boxes: Any, labels: Any, rng: Any) -> Any:
        return image, boxes.astype(int) + 15, list(labels)

    result = offer(shift)(sample(), rng())
    assert result.boxes.tolist() == [[16, 17, 26, 27]] and result.labels.tolist() == [0]
    result = offer(lambda image, boxes, labels, rng: (image, [], []))(sample(), rng())
    assert result.boxes.shape == (0, 4) and result.labels.shape == (0,)


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (lambda i, b, lb: i, "gave something else than"),
        (
            lambda i, b, lb: (i / 255.0, b, lb),
            "gave an image of float64 .30, 40, 3.* it must be uint8",
        ),
        (lambda i, b, lb: (torch.from_numpy(i), b, lb), "gave an image of Tensor"),
        (lambda i, b, lb: (i[:0], b, lb), "it must be one of a pixel or more"),
        (lambda i, b, lb: (i, b[:, :3], lb), "gave boxes of float32 .2, 3."),
        (lambda i, b, lb: (i, b * np.nan, lb), "it must be finite numbers"),
        (lambda i, b, lb: (i, b, lb[:1]), "gave labels of int64 .1,. for a.jpg; it must be whole numbers"),
        (lambda i, b, lb: (i, b, lb + 1), "it must be 0 to 1"),
        (lambda i, b, lb: 1 / 0, r"failed on a.jpg \(ZeroDivisionError: division by zero\)"),
    ],
)
def test_what_it_may_not_give(offer: Any, result: Any, told: str) -> None:
    hook = offer(lambda image, boxes, labels, rng: result(image, boxes, labels))
    with pytest.raises(ConfigError, match=f"augment_with my_augment:own: .*{told}"):
        hook(sample(), rng())


def test_what_is_no_augmentation(offer: Any) -> None:
    for found, told in (
        (lambda image, boxes: image, "is no function of .image, boxes, labels, rng."),
        (3, "is no function"),
    ):
        with pytest.raises(ConfigError, match=told):
            find_augmenter(offer(found).name)
    for name, told in (
        ("mirror", 'is "package.module:function"'),
        ("my_augment:gone", "module my_augment has no 'gone'"),
        ("no_such_module:f", "cannot be imported .*; run where Python finds it, or set PYTHONPATH"),
    ):
        with pytest.raises(ConfigError, match=told):
            find_augmenter(name)


@pytest.mark.parametrize(
    ("code", "told"), [("def f(:", "SyntaxError: "), ("1 / 0", "ZeroDivisionError: division by zero")]
)
def test_a_module_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str) -> None:
    (tmp_path / "faulty_hooks.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=rf"module faulty_hooks fails when it is imported \({told}"):
        find_augmenter("faulty_hooks:f")


# --- albumentations -----------------------------------------------------------------------------------------


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks a server for its newest version
    return pytest.importorskip("albumentations", reason='needs pip install "fssd[albumentations]"')


@pytest.mark.parametrize("kind", ["pascal_voc", "coco", "yolo", "albumentations"])
def test_a_compose_in_any_of_its_formats(package: Any, offer: Any, kind: str) -> None:
    params = package.BboxParams(kind, label_fields=["names"], min_visibility=0.5)
    compose = package.Compose([package.HorizontalFlip(p=1), package.Crop(0, 0, 24, 30)], bbox_params=params)
    result = offer(compose)(sample(), rng())
    assert np.array_equal(result.image, sample().image[:, ::-1][:, :24])
    # Mirrored they are 29..39 and 0..10; the first one leaves the crop.
    assert result.boxes == pytest.approx(np.array([[0, 10, 10, 30]]), abs=1e-4)
    assert result.labels.tolist() == [1]


@pytest.mark.parametrize("kind", ["pascal_voc", "coco", "yolo", "albumentations"])
def test_a_compose_and_a_picture_without_boxes(package: Any, offer: Any, kind: str) -> None:
    params = package.BboxParams(kind, label_fields=["names"], min_visibility=0.5)
    hook = offer(package.Compose([package.Crop(12, 0, 30, 10)], bbox_params=params))
    bare = replace(sample(), boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64))
    for given in (bare, sample()):  # none in it, and none left in the crop
        result = hook(given, rng())
        assert result.image.shape == (10, 18, 3)
        assert (result.boxes.shape, result.labels.shape) == ((0, 4), (0,))


def test_a_compose_is_as_random_as_its_view(package: Any, offer: Any) -> None:
    params = package.BboxParams("pascal_voc", label_fields=["labels"])
    hook = offer(package.Compose([package.RandomCrop(20, 20)], bbox_params=params))
    shown = [hook(sample(), np.random.default_rng(seed)).image.tobytes() for seed in (1, 2, 3, 1)]
    assert shown[0] == shown[3] and len(set(shown)) > 1


def test_a_compose_that_would_leave_the_boxes_behind(package: Any, offer: Any) -> None:
    bare = package.Compose([package.HorizontalFlip()])
    for found, told in (
        (bare, "has no boxes with labels; give it bbox_params=A.BboxParams"),
        (package.HorizontalFlip(), "is no A.Compose of albumentations 2; put it into one"),
    ):
        with pytest.raises(ConfigError, match=told):
            find_augmenter(offer(found).name)


def test_without_the_package(refuse: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse("albumentations")
    (tmp_path / "steps_of_mine.py").write_text("import albumentations as A\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r'pip install "fssd\[albumentations\]"'):
        find_augmenter("steps_of_mine:compose")


# --- A run --------------------------------------------------------------------------------------------------


def test_views_are_augmented_before_they_become_the_input(scenes: Path, offer: Any) -> None:
    plain = Views(open_data(scenes, "train"), Warp((64, 64)), 0, "none", True)
    views = replace(plain, hook=replace(offer(mirror), classes=10))
    for position in range(3):
        one, other = plain.sample(position), views.sample(position)
        wanted = one.boxes[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (64, 0, 64, 0)
        assert other.boxes == pytest.approx(wanted, abs=1e-3)


def test_a_run_with_it_is_the_same_for_any_number_of_workers(
    scenes: Path, tmp_path: Path, tiny_backbone: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rolled.py").write_text(
        "def roll(image, boxes, labels, rng):\n"
        "    return image + rng.integers(0, 50, dtype='uint8'), boxes, labels\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    models = []
    for workers in (0, 2):
        config = TrainConfig(
            data=scenes, out=tmp_path / str(workers), start="nothing", val_split=None, iterations=2,
            batch_size=2, workers=workers, amp="off", augment="none", augment_with="rolled:roll",
        )  # fmt: skip
        model = train(config, backbone=tiny_backbone()).model
        assert model is not None
        models.append(read_tensors(model)[0])
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    with pytest.raises(ConfigError, match="module rolled has no 'rol'"):
        train(replace(config, out=tmp_path / "other", augment_with="rolled:rol"), backbone=tiny_backbone())

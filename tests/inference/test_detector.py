"""Detector: every form of an image gives the same answer; what is no image is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

import fssd
from fssd.data.decode import read_image
from fssd.data.source import open_data
from fssd.errors import CheckpointError, ConfigError, FssdError, ImageError
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.inference.video import FilmWriter
from fssd.model.build import build_model
from fssd.weights.checkpoint import save_model


@pytest.fixture(scope="module")
def detector(model_file: Path) -> Detector:
    return Detector.load(model_file, device="cpu")


@pytest.fixture(scope="module")
def low(detector: Detector) -> dict[str, Any]:
    """Settings at which an untrained network finds things."""
    return {"score": 0.05, "keep": 30}


@pytest.fixture
def picture() -> np.ndarray:
    """(90, 120, 3) uint8 RGB with something in it."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (120, 90), interpolation=cv2.INTER_CUBIC), np.uint8)


def save(path: Path, image: np.ndarray, **settings: Any) -> Path:
    PIL.Image.fromarray(image).save(path, **settings)
    return path


def assert_same(one: Detections, other: Detections, tolerance: float = 0.0) -> None:
    assert len(one) == len(other)
    assert np.array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=tolerance)
    np.testing.assert_allclose(one.boxes, other.boxes, rtol=0, atol=100 * tolerance)
    assert one.classes == other.classes


def test_every_form_of_an_image(
    detector: Detector, low: dict[str, Any], picture: np.ndarray, tmp_path: Path
) -> None:
    file = save(tmp_path / "a.png", picture)
    expected = detector(picture, **low)
    assert len(expected) > 0
    backwards = np.ascontiguousarray(picture[:, :, ::-1])[:, :, ::-1]  # a view, as BGR to RGB makes
    forms: list[Any] = [
        file,
        str(file),
        PIL.Image.open(file),
        PIL.Image.fromarray(picture),
        picture,
        backwards,
    ]
    for form in forms:
        found = detector(form, **low)
        assert_same(found, expected)
        assert found.image is not None
        assert np.array_equal(found.image, picture)
    for found in detector(forms, batch_size=1, **low):
        assert_same(found, expected)


def test_values_are_what_they_say(detector: Detector, low: dict[str, Any], picture: np.ndarray) -> None:
    found = detector(picture, **low)
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)
    assert found.boxes.shape == (len(found), 4)
    assert np.all(np.diff(found.scores) <= 0), "best first"
    assert found.names == [detector.classes[label] for label in found.labels]


def test_boxes_lie_inside(detector: Detector) -> None:
    for height, width in ((40, 200), (311, 17), (1, 1)):
        found = detector(np.full((height, width, 3), 90, np.uint8), score=0.01)
        assert len(found) > 0
        x1, y1, x2, y2 = found.boxes.T
        assert x1.min() >= 0 and y1.min() >= 0
        assert x2.max() <= width and y2.max() <= height
        assert np.all(x1 <= x2) and np.all(y1 <= y2)


def test_boxes_are_in_pixels_of_the_image(
    detector: Detector, low: dict[str, Any], picture: np.ndarray
) -> None:
    size = detector.network.image_size
    square = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    small, large = detector(picture, **low), detector(square, **low)
    assert np.array_equal(small.labels, large.labels)
    scale = np.array([size[0] / 120, size[1] / 90] * 2, np.float32)
    np.testing.assert_allclose(small.boxes * scale, large.boxes, atol=1e-3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(
    detector: Detector, low: dict[str, Any], picture: np.ndarray, tmp_path: Path, orientation: int
) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    file = save(tmp_path / "turned.png", picture, exif=exif)
    upright = read_image(file)
    assert upright.shape == ((120, 90, 3) if orientation >= 5 else (90, 120, 3))
    for form in (file, PIL.Image.open(file)):
        found = detector(form, **low)
        assert found.image is not None
        assert np.array_equal(found.image, upright)
        assert_same(found, detector(upright, **low))


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA", "I;16", "CMYK"])
def test_pictures_of_other_modes_are_what_their_file_is(
    detector: Detector, picture: np.ndarray, tmp_path: Path, mode: str
) -> None:
    if mode == "I;16":
        image = PIL.Image.fromarray((picture[:, :, 0].astype(np.uint16) << 8) + 7)
    else:
        image = PIL.Image.fromarray(picture).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(100)
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(file)
    shown = detector(image).image
    assert shown is not None
    assert shown.dtype == np.uint8
    assert np.array_equal(shown, read_image(file))


def test_truncated_picture_from_pillow(detector: Detector, picture: np.ndarray, tmp_path: Path) -> None:
    file = save(tmp_path / "a.png", picture)
    file.write_bytes(file.read_bytes()[:-3000])
    for form in (file, PIL.Image.open(file)):
        with pytest.raises(ImageError, match=r"a\.png"):
            detector(form)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((3, 10, 10), np.uint8),
        np.full((10, 10, 3), 2.0),
        np.zeros((10, 10, 3), np.int64),
        np.zeros((0, 10, 3), np.uint8),
        torch.zeros(10, 10, 3, dtype=torch.uint8),
        None,
        7,
        b"bytes",
        "no/such.jpg",
        "a\0b.jpg",
    ],
    ids=lambda value: f"{type(value).__name__}{getattr(value, 'shape', value)}"[:30],
)
def test_what_is_no_image(detector: Detector, wrong: Any) -> None:
    with pytest.raises(ImageError):
        detector(wrong)
    with pytest.raises(ImageError):
        detector([wrong])


def test_folders_batches_and_films(
    detector: Detector, low: dict[str, Any], picture: np.ndarray, tmp_path: Path
) -> None:
    for name in ("b.png", "a.png"):
        save(tmp_path / name, picture)
    expected = detector(picture, **low)
    for several in (tmp_path, str(tmp_path / "*.png"), np.stack([picture, picture])):
        found = detector(several, **low)
        assert isinstance(found, list)
        assert len(found) == 2
        for one in found:
            assert_same(one, expected, 1e-5)
    assert detector(tmp_path / "a.png").source == str(tmp_path / "a.png")
    assert expected.source is None
    with FilmWriter(tmp_path / "clip.mp4", 10) as writer:
        for _ in range(3):
            writer.write(picture)
    frames = detector(tmp_path / "clip.mp4", **low)
    assert next(frames).source == f"{tmp_path}/clip.mp4#0"
    assert len(list(frames)) == 2
    assert len(list(detector.stream(tmp_path, keep_image=False, **low))) == 5


def test_empty_list(detector: Detector) -> None:
    assert detector([]) == []
    assert detector(()) == []
    assert list(detector.stream(iter(()))) == []


def test_an_answer_does_not_depend_on_its_batch(
    detector: Detector, low: dict[str, Any], picture: np.ndarray
) -> None:
    images = [picture, picture[::-1], picture[:40], np.zeros((50, 30, 3), np.uint8), picture[:, 20:]]
    alone = [detector(image, **low) for image in images]
    for batch_size in (2, 5, 100):
        together = detector(images, batch_size=batch_size, **low)
        for one, other in zip(alone, together, strict=True):
            assert_same(one, other, 1e-5)


def test_stream_holds_no_more_than_a_batch(detector: Detector, picture: np.ndarray) -> None:
    taken = 0

    def images() -> Any:
        nonlocal taken
        for _ in range(5):
            taken += 1
            yield picture

    stream = detector.stream(images(), batch_size=2)
    next(stream)
    assert taken == 2


def test_an_array_that_is_written_again_is_another_image(
    detector: Detector, low: dict[str, Any], picture: np.ndarray
) -> None:
    """As cameras and ring buffers give their frames."""
    pictures = [picture, picture[::-1].copy(), 255 - picture]

    def frames() -> Iterator[np.ndarray]:
        buffer = np.empty_like(picture)
        for one in pictures:
            buffer[:] = one
            yield buffer

    found = list(detector.stream(frames(), **low))
    assert found == list(detector.stream(pictures, **low))
    for one, expected in zip(found, pictures, strict=True):
        assert np.array_equal(one.image, expected)


def test_images_before_an_error_are_answered(detector: Detector, picture: np.ndarray, tmp_path: Path) -> None:
    found = []
    with pytest.raises(ImageError, match=r"missing\.png"):
        for one in detector.stream([picture, picture, tmp_path / "missing.png", picture], batch_size=8):
            found.append(one)
    assert len(found) == 2


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_that_cannot_be(detector: Detector, picture: np.ndarray, batch_size: int) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        detector([picture], batch_size=batch_size)


def test_score_filter(detector: Detector, picture: np.ndarray) -> None:
    every = detector(picture, score=0.01)
    least = float(np.median(every.scores))
    some = detector(picture, score=least)
    assert 0 < len(some) < len(every)
    assert some.scores.min() > least
    assert_same(some, detector(picture, score=least, keep=len(some)))
    assert len(detector(picture, score=0.01, keep=3)) == 3
    assert len(detector(picture, score=1.0)) == 0
    default = detector(picture)
    assert all(default.scores > 0.5)


def test_nothing_found_can_be_drawn(detector: Detector, picture: np.ndarray) -> None:
    found = detector(picture, score=1.0)
    assert (found.boxes.shape, found.names) == ((0, 4), [])
    assert np.array_equal(found.draw(), picture)


def test_drawing(detector: Detector, low: dict[str, Any], picture: np.ndarray) -> None:
    found = detector(picture, **low)
    before = picture.copy()
    drawn = found.draw()
    assert (drawn.shape, drawn.dtype) == (picture.shape, np.uint8)
    assert not np.array_equal(drawn, picture)
    assert np.array_equal(picture, before), "the image itself is left alone"
    with pytest.raises(ValueError, match="keep_image"):
        detector(picture, keep_image=False, **low).draw()


def test_evaluation_sees_what_detection_sees(detector: Detector, scenes: Path, low: dict[str, Any]) -> None:
    data = open_data(scenes, "val")
    expected = detector([record.path for record in data.records], **low)
    for workers in (0, 1):
        found = list(detector.evaluate_on(data, batch_size=3, workers=workers, **low))
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, 1e-5)
            assert one.image is None


def test_loading(
    model_file: Path, tmp_path: Path, tiny_backbone: Callable[[], nn.Module], picture: np.ndarray
) -> None:
    (tmp_path / "best.safetensors").write_bytes(model_file.read_bytes())
    loaded = Detector.load(str(tmp_path), device="cpu")
    assert loaded.facts["iteration"] == 0
    assert not loaded.network.training

    network = build_model("fssd300-lite", 1, backbone=tiny_backbone())
    own = tmp_path / "own.safetensors"
    save_model(own, network.state_dict(), network, ("dog",), {})
    assert Detector.load(own, device="cpu", backbone=tiny_backbone())(picture).classes == ("dog",)
    with pytest.raises(CheckpointError, match="backbone="):
        Detector.load(own, device="cpu")


@pytest.mark.parametrize("device", ["", "gpu", "cuda:99", "meta?", "meta", "cpu:0", "mps", 99, True])
def test_devices_that_are_not_there(model_file: Path, device: Any) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is such a device")
    with pytest.raises(ConfigError, match=r"^device '.*' cannot be used here; choose auto or one of cpu"):
        Detector.load(model_file, device=device)


@pytest.mark.parametrize("device", [None, "auto", "cpu", torch.device("cpu")])
@pytest.mark.parametrize("name", ["animals", "animals-int8"])
def test_devices_that_are(name: str, device: Any) -> None:
    if name == "animals-int8":
        pytest.importorskip("openvino", reason="needs openvino")
    assert Detector.load(name, device=device).classes


@pytest.mark.parametrize("name", ["animals", "animals-int8"])
@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_threads_that_cannot_be(name: str, threads: Any) -> None:
    with pytest.raises(ConfigError, match=r"threads is .*; it must be .*1 or more"):
        Detector.load(name, threads=threads)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"score": 50}, "score is 50; it must be between 0 and 1"),
        ({"score": float("nan")}, "score is nan"),
        ({"score": "0.5"}, "score is '0.5'; it must be a number, between 0 and 1"),
        ({"score": None}, "score is None"),
        ({"nms": float("nan")}, "nms is nan"),
        ({"nms": -0.1}, "nms is -0.1"),
        ({"keep": -1}, "keep is -1; it must be 1 or more"),
        ({"keep": 2.5}, "keep is 2.5; it must be a whole number, 1 or more"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": True}, "top_k is True"),
        ({"batch_size": "8"}, "batch_size is '8'"),
    ],
)
def test_settings_out_of_range(
    detector: Detector, picture: np.ndarray, settings: dict[str, Any], reason: str
) -> None:
    for images in (picture, [picture], []):
        with pytest.raises(ConfigError, match=reason):
            detector(images, **settings)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("conf", "score"),
        ("iou", "nms"),
        ("max_det", "keep"),
        ("scores", "score"),
        ("batch", "batch_size"),
    ],
)
def test_settings_that_are_not_there(detector: Detector, picture: np.ndarray, name: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"there is no setting '{name}'; did you mean '{meant}'"):
        detector(picture, **{name: 0.3})


def test_numbers_of_numpy_are_numbers(detector: Detector, picture: np.ndarray) -> None:
    found = detector(picture, score=np.float32(0.25), keep=np.int64(4))
    assert_same(found, detector(picture, score=0.25, keep=4))


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\x80\x02pickle", b"\xff" * 64])
def test_files_that_are_no_model(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "model.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        Detector.load(file)
    with pytest.raises(FssdError):
        Detector.load(tmp_path)


def test_detections_compare_without_their_image(detector: Detector, picture: np.ndarray) -> None:
    found = detector(picture)
    assert found.without_image().image is None
    assert replace(found, image=None).classes == found.classes


def test_public_names() -> None:
    assert fssd.Detector is Detector
    for module in ("fssd.training.loop", "fssd.evaluation.evaluate"):
        import_module(module)
    for _ in range(2):  # what a first look imports must not come in the way of the second
        for name in fssd.__all__:
            assert callable(getattr(fssd, name)), name
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = fssd.nothing_of_the_kind


def test_a_name_for_each_class(detectors: dict[str, Detector]) -> None:
    network = detectors["tiny"].network
    with pytest.raises(ConfigError, match="1 class names for a network of"):
        Detector(network, ["a"])

"""The demonstration's first part: the packaged model on the packaged photographs."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from fssd.data.scenes import CLASSES
from fssd.demo import tour as demo
from fssd.errors import CheckpointError
from fssd.zoo.models import MODELS, PHOTOS


@pytest.fixture
def told() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def console(told: io.StringIO) -> Console:
    return Console(file=told, highlight=False, soft_wrap=True)


def test_photographs_are_drawn_and_told(
    model_file: Path, tmp_path: Path, told: io.StringIO, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "animals", model_file)
    load = demo.Detector.load

    def keen(path: Path) -> object:
        """The untrained model, with a threshold that it reaches."""
        detector = load(path, device="cpu")
        return lambda image: detector(image, score=0.05, keep=2)

    monkeypatch.setattr(demo.Detector, "load", keen)
    drawn = demo.detect_in_photographs(tmp_path / "deep" / "photos", console)
    assert [file.name for file in drawn] == ["chelsea.jpg", "astronaut.jpg"]
    for file, photo in zip(drawn, PHOTOS, strict=True):
        picture, plain = cv2.imread(str(file)), cv2.imread(str(photo))
        assert picture.shape == plain.shape
        assert np.abs(picture.astype(int) - plain).max() > 100, "boxes are drawn"
    lines = told.getvalue().splitlines()
    for name, line in zip(("chelsea.jpg", "astronaut.jpg"), lines, strict=False):
        head, _, found = line.partition(": ")
        assert head == f"the packaged model finds in {name}"
        assert len(found.split(", ")) == 2
        assert all(
            part.split()[0] in CLASSES and 0.05 < float(part.split()[1]) < 1 for part in found.split(", ")
        )
    assert lines[2] == f"pictures: {tmp_path / 'deep' / 'photos'}"


def test_nothing_found_is_said(
    model_file: Path, tmp_path: Path, told: io.StringIO, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "animals", model_file)
    demo.detect_in_photographs(tmp_path, console)  # an untrained model reaches no score of 0.5
    assert told.getvalue().splitlines()[0] == "the packaged model finds in chelsea.jpg: nothing"


def test_a_folder_of_the_models_name_does_not_matter(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "animals").mkdir()
    monkeypatch.setitem(MODELS, "animals", tmp_path / "gone.safetensors")
    with pytest.raises(CheckpointError, match="install fssd again"):
        demo.detect_in_photographs(tmp_path / "out", console)


def test_the_demonstration_begins_with_the_photographs(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    class StopError(Exception):
        pass

    def scenes(*_: object, **__: object) -> Path:
        done.append("scenes")
        raise StopError

    def photographs(folder: Path, _: Console) -> list[Path]:
        done.append(str(folder))
        return []

    monkeypatch.setattr(demo, "make_scenes", scenes)
    monkeypatch.setattr(demo, "detect_in_photographs", photographs)
    with pytest.raises(StopError):
        demo.demo(tmp_path, console=console)
    assert done == [str(tmp_path / "photos"), "scenes"]

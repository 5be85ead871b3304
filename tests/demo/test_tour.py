"""The demonstration's first part: the packaged model on the packaged photographs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from fssd.config.train_config import TrainConfig
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


# ---- the length of the training


# 180 s at so many images a second, 8 in an update: 180 * 4 / 8 = 90.
@pytest.mark.parametrize(
    ("rate", "updates", "minutes"),
    [(4.0, 90, "3.0"), (1.0, 40, "5.3"), (11.0, 248, "3.0"), (80.0, 260, "0.4")],
)
def test_the_training_fits_into_three_minutes(
    rate: float, updates: int, minutes: str, tmp_path: Path, told: io.StringIO, console: Console
) -> None:
    config = TrainConfig(data=tmp_path, out=tmp_path / "run", batch_size=8)
    assert demo.length_of(config, console, lambda _: rate) == updates
    assert f"{rate:.1f} images/s: {updates} updates, about {minutes} minutes" in told.getvalue()


def test_a_run_that_is_resumed_keeps_its_length(tmp_path: Path, console: Console) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("iterations: 77\n")
    config = TrainConfig(data=tmp_path, out=tmp_path / "run")
    assert demo.length_of(config, console, lambda _: pytest.fail("measured again")) == 77


def test_the_rate_is_that_of_the_last_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TrainConfig] = []

    def logged(config: TrainConfig) -> None:
        seen.append(config)
        assert config.out is not None
        lines = [{"iteration": 6, "images_per_second": 2.5}, {"iteration": 12, "images_per_second": 7.5}]
        (config.out / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")

    monkeypatch.setattr(demo, "train", logged)
    config = TrainConfig(data=tmp_path, out=tmp_path / "run", lr=0.06)
    assert demo.measured_rate(config) == 7.5
    (measured,) = seen
    assert (measured.iterations, measured.lr, measured.val_split) == (12, 0.06, config.val_split)
    assert measured.out is not None
    assert not measured.out.exists() and not (tmp_path / "run").exists()


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

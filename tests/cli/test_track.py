"""`fssd detect --track`: numbers in JSON and picture, counts, and flags that do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from fssd.cli.main import main
from fssd.data.sample import Image
from fssd.evaluation.class_scores import write_class_scores
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.tracking.film_tracks import FilmTracks

pytest.importorskip("scipy", reason='needs SciPy: pip install "fssd[track]"')
LINE, ZONE = "100,0,100,96", "0,0,60,0,60,96,0,96"


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A bright square goes from the left to the right in 30 frames of 160 x 96."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 96))
    for number in range(30):
        picture = np.zeros((96, 160, 3), np.uint8)
        picture[30:60, 4 * number : 4 * number + 30] = 255
        writer.write(picture)
    writer.release()
    return path


@pytest.fixture(autouse=True)
def seeing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that finds the bright square, doubtfully in every third frame, and nothing else."""

    def stream(self: Detector, images: Any, *, score: float, **_: Any) -> Any:
        for number, image in enumerate(images):
            rows, columns = np.nonzero(image[..., 0] > 128)
            box = np.float32([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]])
            sureness = np.float32([0.2 if number % 3 == 2 else 0.9])
            found = Detections(box, sureness, np.zeros(1, np.int64), self.classes, image=image)
            yield found[found.scores > score]

    monkeypatch.setattr(Detector, "stream", stream)


def detect(model: Path, *more: object) -> int:
    return main([str(one) for one in ("detect", model, *more, "--device", "cpu")])


def test_numbers_and_counts(
    model_file: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ("--track", "--count-line", LINE, "--count-zone", ZONE)
    assert detect(model_file, film, "--out", out, *flags) == 0
    rows = json.loads((out / "film.mp4.json").read_text())
    assert [[one["track"] for one in row["objects"]] for row in rows] == [[1]] * 30
    counts = json.loads((out / "film.mp4.tracks.json").read_text())
    line = {"line": [100, 0, 100, 96], "right": 0, "left": 1}  # who looks down has the right edge to the left
    zone = {"zone": [0, 0, 60, 0, 60, 96, 0, 96], "total": 1}
    assert counts == {"tracks": 1, "counts": [line, zone]}
    assert "30 objects in 30 frames; 1 track; line 0 right, 1 left; zone 1" in capsys.readouterr().out
    shown: Image = cv2.VideoCapture(str(out / "film.mp4")).read()[1]
    assert shown[90, 100].astype(int)[2] > 100, "the line is drawn"


def test_what_other_flags_have_left_is_named(
    model_file: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A drawn film of somebody else, beside which there are no results, is not."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "film.mp4").write_bytes(b"somebody's")
    flags = ("--score", 0.1, "--out", out)
    assert detect(model_file, film, *flags, "--no-pictures", "--track") == 0
    assert "not of this detection" not in capsys.readouterr().err
    assert detect(model_file, film, *flags, "--no-pictures") == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "not of this detection" in line]
    names = ("film.mp4", "film.mp4.tracks.json")
    assert told == [
        f"{out / name}: is not of this detection; remove it if it is of an earlier one" for name in names
    ]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--count-line", LINE), "add --track"),
        (("--count-zone", ZONE, "--engine", "local"), "add --track"),
        (("--track", "--engine", "local"), "--engine divides"),
        (("--track", "--class-scores", "bird=0.3"), "'bird'"),
        (("--track", "--count-line", "1,2,3"), "--count-line is '1,2,3'"),
    ],
)
def test_flags_that_do_not_fit(
    model_file: Path,
    film: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    told: str,
) -> None:
    assert detect(model_file, film, "--out", tmp_path / "out", *flags) == 2
    assert told in capsys.readouterr().err


def test_images_alone_have_no_tracks(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    assert detect(model_file, tmp_path / "a.png", "--out", tmp_path / "out", "--track") == 2
    assert "there are images alone" in capsys.readouterr().err


@pytest.mark.parametrize("score", ["0.05", "0"])
def test_a_score_below_the_doubtful_ones(model_file: Path, film: Path, tmp_path: Path, score: str) -> None:
    assert detect(model_file, film, "--out", tmp_path / "out", "--track", "--score", score) == 0
    assert json.loads((tmp_path / "out/film.mp4.tracks.json").read_text())["tracks"] == 1


@pytest.mark.parametrize(
    ("score", "own", "inside", "expected"),
    [
        (None, {}, 0.0, 0.1),
        (0.7, {}, 0.01, 0.1),
        (0.05, {}, 0.0, 0.05),
        (None, {}, 0.3, 0.3),
        (0.2, {}, 0.3, 0.2),
        (None, {"cat": 0.04}, 0.0, 0.04),
        (0.2, {"cat": 0.6}, 0.3, 0.2),
        (0.6, {"cat": 0.2}, 0.3, 0.2),
    ],
)
def test_the_score_to_detect_with(
    score: float | None, own: dict[str, float], inside: float, expected: float
) -> None:
    """A file with NMS inside is asked for no lower score than it has, unless the user does."""
    detector: Any = SimpleNamespace(least_score=inside)
    settings = FilmTracks(score, (), (), class_scores=own).settings(detector)
    assert settings == {"score": expected, "class_scores": {}}, "kept scores would hide doubtful detections"


def kept(model: Path, folder: Path, scores: dict[str, float]) -> Path:
    """A copy of the model in whose file these scores are kept."""
    copy = folder / "kept.safetensors"
    shutil.copyfile(model, copy)
    write_class_scores(copy, scores)
    return copy


@pytest.mark.parametrize(
    ("scores", "flags", "tracks"),
    [
        ({}, ("--class-scores", "zero=0.95"), 0),  # the square has 0.9 and 0.2
        ({}, ("--class-scores", "one=0.95"), 1),
        ({"zero": 0.95}, (), 0),
        ({"zero": 0.15}, ("--score", "0.95"), 0),
        ({"zero": 0.95}, ("--score", "0.5"), 1),
        ({"zero": 0.95}, ("--class-scores", "one=0.3"), 1),
    ],
)
def test_scores_of_a_class_start_its_tracks(
    model_file: Path,
    film: Path,
    tmp_path: Path,
    scores: dict[str, float],
    flags: tuple[str, ...],
    tracks: int,
) -> None:
    model = kept(model_file, tmp_path, scores)
    assert detect(model, film, "--out", tmp_path / "out", "--track", *flags) == 0
    assert json.loads((tmp_path / "out/film.mp4.tracks.json").read_text())["tracks"] == tracks

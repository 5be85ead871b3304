"""How many images eight bits need, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fssd.data.sample import DataSet
from fssd.errors import ExportError
from fssd.export import write
from fssd.export.images import make_pictures
from fssd.export.trial import Trial
from fssd.inference.detector import Detector

BOX = (10.0, 10.0, 60.0, 60.0)


@pytest.fixture
def make_trial(make_set: Callable[..., Any]) -> Callable[..., Trial]:
    """make_trial(calibration images, measured images, cats in each, dogs in each)."""

    def make(ranges: int, images: int, cats: int, dogs: int = 0, **settings: Any) -> Trial:
        rows = [(0, BOX)] * cats + [(1, BOX)] * dogs
        measured, _ = make_set([(rows, [])] * images)
        return Trial(make_pictures(ranges, (32, 32)), measured, objects=3 * ranges, **settings)

    return make


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((15, 32, 2), r"^15 images with 45 objects would give the ranges, .* fewer than 16 .* --allow-few$"),
        ((1, 32, 2), r"^1 image with 3 objects would give"),
        (
            (16, 31, 2),
            r"^mAP of 31 images with 62 objects would .* 32 images with 50 .* --allow-few$",
        ),
        ((16, 49, 1), r"^mAP of 49 images with 49 objects"),
        ((16, 49, 1, 5), r"^mAP of 49 images with 49 objects"),  # the detector knows no dogs
        ((16, 1, 60), r"^mAP of 1 image with 60 objects"),
    ],
)
def test_too_few(make_trial: Callable[..., Trial], numbers: tuple[int, ...], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        make_trial(*numbers).check(["cat"])
    make_trial(*numbers, few=True).check(["cat"])


def test_enough(make_trial: Callable[..., Trial]) -> None:
    make_trial(16, 32, 2).check(["cat"])
    make_trial(16, 50, 1, 4).check(["cat"])


def test_a_model_that_finds_almost_nothing_proves_nothing(make_trial: Callable[..., Trial]) -> None:
    """It cannot lose a point."""
    with pytest.raises(
        ExportError, match=r"^the model itself has a mAP of 0\.4 on these images.* --allow-few$"
    ):
        make_trial(16, 32, 2).check_accuracy(0.004)
    make_trial(16, 32, 2).check_accuracy(0.3)
    make_trial(16, 32, 2, few=True).check_accuracy(0.0)


def test_difficult_objects_prove_nothing(make_trial: Callable[..., Trial]) -> None:
    trial = make_trial(16, 60, 1)
    records = [replace(record, difficult=~record.difficult) for record in trial.measured.records[:20]]
    measured = DataSet(trial.measured.classes, (*records, *trial.measured.records[20:]))
    with pytest.raises(ExportError, match="60 images with 40 objects"):
        replace(trial, measured=measured).check(["cat"])


def test_numbers_are_told(make_trial: Callable[..., Trial]) -> None:
    trial = make_trial(16, 1000, 2, 1)
    assert (
        trial.summary(["cat"])
        == "eight bits: ranges from 16 images with 48 objects, mAP from 1,000 images with 2,000 objects"
    )
    assert "ranges from 16 images, mAP" in replace(trial, objects=None).summary(["cat"])


def test_nothing_is_exported(
    make_trial: Callable[..., Trial],
    detectors: dict[str, Detector],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("onnxruntime", reason='needs onnxruntime: pip install "fssd[export]"')
    pytest.importorskip("onnxscript", reason='needs onnxscript: pip install "fssd[export]"')
    monkeypatch.setattr(write, "trace", lambda *_: pytest.fail("it is refused before anything is done"))
    with pytest.raises(ExportError, match="would give the ranges"):
        write.export_model(detectors["tiny"], tmp_path / "a.onnx", "onnx", trial=make_trial(1, 99, 9))
    assert list(tmp_path.iterdir()) == []

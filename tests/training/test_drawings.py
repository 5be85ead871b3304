"""Pictures of a run: what they show, and that a run does not depend on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from fssd.config.train_config import TrainConfig
from fssd.data.geometry import Warp
from fssd.data.loader import Views
from fssd.data.source import open_data
from fssd.training import drawings as pictures
from fssd.training.drawings import draw_batches, draw_progress
from fssd.training.loop import train

STEPS = [{"iteration": n, "loss": 9 / n, "loss_loc": 4 / n, "loss_conf": 5 / n} for n in range(1, 30)]


def views_of(folder: Path) -> Views:
    return Views(open_data(folder, "train"), Warp((300, 300)), seed=0, recipe="none", difficult=True)


def write_log(folder: Path, *maps: float | None) -> None:
    report = {"metric": "voc12", "iou": 0.5, "sizes": {"small": 0.1, "medium": None, "large": 0.5}}
    evaluations = [
        {"iteration": 10 * n, "evaluation": {**report, "map": value}} for n, value in enumerate(maps, start=1)
    ]
    lines = [json.dumps(line) + "\n" for line in [*STEPS, *evaluations]]
    (folder / "log.jsonl").write_text("".join(lines), encoding="utf-8")


def test_batches_are_the_first_views(scenes: Path, tmp_path: Path) -> None:
    views = views_of(scenes)
    draw_batches(tmp_path, views)
    mosaic = cv2.imread(str(tmp_path / "batches.jpg"))
    assert mosaic.shape == (4 * 240, 6 * 240, 3)
    for index in (0, 7, 23):
        row, column = divmod(index, 6)
        cell = mosaic[240 * row : 240 * row + 240, 240 * column : 240 * column + 240, ::-1]
        image = cv2.resize(views[index].image, (240, 240), interpolation=cv2.INTER_AREA)  # type: ignore[union-attr]
        # Alike but for the boxes and the names.
        assert np.median(np.abs(cell.astype(int) - image)) < 6


def test_batches_have_boxes(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(pictures, "draw_boxes", lambda image, *rest: drawn.append(rest) or image)
    views = views_of(scenes)
    draw_batches(tmp_path, views)
    boxes, names, _ = drawn[0]
    sample = views[0]
    assert boxes == pytest.approx(sample.boxes * 0.8)  # type: ignore[union-attr]  # of 300 to 240 pixels
    assert names == [views.dataset.classes[label] for label in sample.labels]  # type: ignore[union-attr]


def test_batches_of_a_resumed_run_stay(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "batches.jpg").write_bytes(b"as it was")
    draw_batches(tmp_path, views_of(scenes))
    assert (tmp_path / "batches.jpg").read_bytes() == b"as it was"


def test_progress(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_log(tmp_path)
    draw_progress(tmp_path)
    assert cv2.imread(str(tmp_path / "loss.png")).shape == (450, 900, 3)
    assert not (tmp_path / "map.png").exists()
    write_log(tmp_path, 0.2, None, 0.4)
    draw_progress(tmp_path)
    assert cv2.imread(str(tmp_path / "map.png")).shape == (450, 900, 3)


def test_lines_of_the_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_log(tmp_path, 0.2, None, 0.4)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    loss = pictures._loss_plot(lines[:29])
    assert [list(line.get_ydata()) for line in loss.lines] == [  # type: ignore[arg-type]
        [step[name] for step in STEPS] for name in ("loss", "loss_conf", "loss_loc")
    ]
    # The first tenth of the updates does not set the scale: the third loss is 3.
    assert loss.get_ylim() == pytest.approx((0, 1.1 * 3))
    accuracy = pictures._accuracy_plot([lines[29], lines[31]])
    data = {str(line.get_label()): list(line.get_ydata()) for line in accuracy.lines}  # type: ignore[arg-type]
    assert data == {"all objects": [20, 40], "small objects": [10, 10], "large objects": [50, 50]}


def test_trouble_is_told_and_no_more(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.jsonl").write_text("no line of a log\n", encoding="utf-8")
    draw_progress(tmp_path)
    draw_batches(tmp_path / "nowhere", views_of(scenes))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"note: {tmp_path / 'loss.png'} was not drawn: ")
    assert second.startswith(f"note: {tmp_path / 'nowhere' / 'batches.jpg'} was not drawn: ")


def test_a_run_is_the_same_with_and_without_them(
    scenes: Path, tmp_path: Path, tiny_backbone: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(name: str) -> dict[str, torch.Tensor]:
        config = TrainConfig(
            data=scenes, out=tmp_path / name, start="nothing", iterations=3, batch_size=2, workers=0
        )
        train(config, backbone=tiny_backbone())
        from safetensors.torch import load_file

        return load_file(tmp_path / name / "final.safetensors")

    drawn = weights("drawn")
    assert (tmp_path / "drawn" / "batches.jpg").exists()

    def fail(*_: object) -> None:
        raise MemoryError("no room for a picture")

    monkeypatch.setattr(pictures, "write_jpeg", fail)
    monkeypatch.setattr(pictures, "save_plot", fail)
    failed = weights("failed")
    assert not (tmp_path / "failed" / "batches.jpg").exists()
    assert all(torch.equal(drawn[name], failed[name]) for name in drawn)

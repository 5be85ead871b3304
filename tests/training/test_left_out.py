"""Images that break during a run: replaced, named once, counted in --bad-share, and free to go missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError, ImageError
from fssd.training import loop
from fssd.training.loop import train
from fssd.weights.checkpoint import read_tensors

MakeBackbone = Callable[[], nn.Module]
BROKEN = "train_00003"


@pytest.fixture
def data(scenes: Path, tmp_path: Path) -> Path:
    """The scenes, with one picture that is cut off."""
    folder = tmp_path / "data"
    shutil.copytree(scenes, folder)
    cut(folder, BROKEN)
    return folder


def cut(folder: Path, stem: str) -> None:
    file = folder / "JPEGImages" / f"{stem}.jpg"
    file.write_bytes(file.read_bytes()[:900])


def leave_out(folder: Path, stem: str) -> None:
    listed = folder / "ImageSets" / "Main" / "train.txt"
    lines = listed.read_text(encoding="utf-8").splitlines()
    assert stem in lines
    listed.write_text("\n".join(line for line in lines if line != stem), encoding="utf-8")


def config_for(data: Path, out: Path, **changes: Any) -> TrainConfig:
    base = TrainConfig(
        data=data,
        out=out,
        start="nothing",
        val_split=None,
        iterations=12,  # two passes over 12 images
        batch_size=2,
        bad_share=0.1,
        workers=0,
        amp="off",
    )
    return replace(base, **changes)


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(run / "last.safetensors")[0]


def assert_equal(one: Path, other: Path) -> None:
    a, b = tensors_of(one), tensors_of(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_left_out_within_the_share_and_named_once(
    data: Path, tmp_path: Path, tiny_backbone: MakeBackbone, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(config_for(data, tmp_path / "one"), backbone=tiny_backbone())
    assert result.finished
    told = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(told) == 1
    assert f"{BROKEN}.jpg" in told[0]
    assert read_tensors(tmp_path / "one" / "last.safetensors")[1]["left_out"] == [BROKEN]
    train(config_for(data, tmp_path / "two", workers=2), backbone=tiny_backbone())
    assert_equal(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("how", ["still broken", "not listed", "no file"])
def test_resumed_without_it_is_the_same_run(
    data: Path, tmp_path: Path, tiny_backbone: MakeBackbone, how: str
) -> None:
    train(config_for(data, tmp_path / "whole"), backbone=tiny_backbone())
    config = config_for(data, tmp_path / "run")
    while not (tmp_path / "run").exists() or "left_out" not in state(tmp_path / "run"):
        train(config, resume=True, minutes=0, backbone=tiny_backbone())
    assert state(tmp_path / "run")["iteration"] < 12
    if how == "not listed":
        leave_out(data, BROKEN)
    elif how == "no file":
        (data / "JPEGImages" / f"{BROKEN}.jpg").unlink()
    assert train(config, resume=True, backbone=tiny_backbone()).finished
    assert_equal(tmp_path / "whole", tmp_path / "run")
    assert state(tmp_path / "run")["left_out"] == [BROKEN]


def state(run: Path) -> dict[str, Any]:
    return read_tensors(run / "last.safetensors")[1]


def test_another_image_may_not_be_missing(data: Path, tmp_path: Path, tiny_backbone: MakeBackbone) -> None:
    config = config_for(data, tmp_path / "run", iterations=7)
    train(config, backbone=tiny_backbone())
    leave_out(data, BROKEN)
    leave_out(data, "train_00005")
    with pytest.raises(
        ConfigError, match=r"12 images, the data set has 10: 1 removed \(first: train_00005\)"
    ):
        train(config, resume=True, backbone=tiny_backbone())


def test_above_the_share_the_state_is_saved_first(
    scenes: Path, data: Path, tmp_path: Path, tiny_backbone: MakeBackbone
) -> None:
    config = config_for(data, tmp_path / "run", bad_share=0.0)
    with pytest.raises(ImageError, match=rf"{BROKEN}\.jpg: .*1 of 12 images have errors"):
        train(config, backbone=tiny_backbone())
    saved = state(tmp_path / "run")
    assert saved["left_out"] == [BROKEN]
    assert saved["iteration"] < 6  # within the first pass

    # Left out, as the message says; and fetched again, as if nothing had happened.
    shutil.copytree(tmp_path / "run", tmp_path / "fetched")
    shutil.copy(data / "ImageSets" / "Main" / "train.txt", tmp_path / "train.txt")
    leave_out(data, BROKEN)
    assert train(config, resume=True, backbone=tiny_backbone()).finished

    fetched = replace(config, data=scenes, out=tmp_path / "fetched")
    assert train(fetched, resume=True, backbone=tiny_backbone()).finished
    train(config_for(scenes, tmp_path / "never broken", bad_share=0.0), backbone=tiny_backbone())
    assert_equal(tmp_path / "fetched", tmp_path / "never broken")


def test_validation_leaves_out_too(
    data: Path,
    tmp_path: Path,
    tiny_backbone: MakeBackbone,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measured: list[list[str]] = []
    real = loop.evaluate_detections

    def measure(dataset: Any, found: Any, metric: Any) -> Any:
        measured.append([record.image_id for record in dataset.records])
        return real(dataset, found, metric)

    monkeypatch.setattr(loop, "evaluate_detections", measure)
    cut(data, "val_00001")
    config = config_for(
        data, tmp_path / "run", val_split="val", iterations=2, eval_every=1 / 6, bad_share=0.3
    )
    train(config, backbone=tiny_backbone())
    assert measured == [["val_00000", "val_00002", "val_00003"]] * 2
    assert capsys.readouterr().err.count("val_00001.jpg") == 1

    strict = replace(config, out=tmp_path / "strict", bad_share=0.1)  # of 4
    with pytest.raises(ImageError, match=r"val_00001\.jpg: .*1 of 4 images"):
        train(strict, backbone=tiny_backbone())
    assert state(tmp_path / "strict")["evaluation_due"]
    assert state(tmp_path / "strict")["iteration"] == 1


def test_validation_in_tiles_leaves_out_too(
    data: Path, tmp_path: Path, tiny_backbone: MakeBackbone, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results of tiles come image by image: some of a batch are done when one is found broken."""
    cut(data, "val_00001")
    config = config_for(
        data, tmp_path / "run", val_split="val", iterations=1, bad_share=0.3, batch_size=3, tiles="128"
    )
    assert train(config, backbone=tiny_backbone()).best is not None
    assert "val_00001.jpg" in capsys.readouterr().err

"""`--batch-size auto`: what is chosen from measurements, and that a run keeps the number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from fssd.cli.main import main
from fssd.config.config_files import load_config
from fssd.config.settings import with_values
from fssd.config.train_config import AUTO, TrainConfig, to_values
from fssd.data.source import open_data
from fssd.errors import ConfigError
from fssd.training import batch_size
from fssd.training.batch_size import knee, largest, measured_size
from fssd.training.loop import train
from fssd.training.start import complete
from fssd.weights.checkpoint import read_tensors

SPEEDS = {2: 10.0, 4: 14.0, 8: 17.0, 16: 17.5, 32: 30.0}


@pytest.mark.parametrize(("most", "size"), [(64, 8), (8, 8), (7, 4), (3, 2), (1, 1)])
def test_a_cpu_stops_where_it_gains_no_more(most: int, size: int) -> None:
    # From 8 to 16 it gains 3 %; what comes after is not tried.
    assert knee(lambda images: SPEEDS.get(images, 1.0), most) == size


@pytest.mark.parametrize(
    ("holds", "most", "size"),
    [
        (2, 999, 2),
        (3, 999, 3),
        (5, 999, 5),
        (100, 999, 96),
        (111, 999, 96),
        (112, 999, 112),
        (999, 100, 96),
        (999, 64, 64),
    ],
)
def test_the_largest_that_fits(holds: int, most: int, size: int) -> None:
    tried: list[int] = []

    def fits(images: int) -> bool:
        tried.append(images)
        return images <= holds

    assert largest(fits, most) == size
    assert max(tried) <= min(most, 2 * holds)


def test_too_little_memory() -> None:
    with pytest.raises(ConfigError, match="not even 2 images fit into the memory of the GPU"):
        largest(lambda _: False, 64)


def test_the_word_and_the_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("batch_size: auto\n")
    config = load_config(file)
    assert config.batch_size == AUTO == TrainConfig(batch_size="auto").batch_size  # type: ignore[arg-type]
    assert to_values(config)["batch_size"] == "auto"
    assert with_values(config, {"batch_size": 4}).batch_size == 4
    for wrong in (0, -1, "many"):
        with pytest.raises(ConfigError, match="batch_size"):
            complete(with_values(replace(config, data=tmp_path, out=tmp_path), {"batch_size": wrong}))
    with pytest.raises(ConfigError, match="folds are compared and need one --batch-size"):
        with_values(config, {"folds": 5, "batch_size": "auto"})
    assert main(["train", "--data", "nowhere", "--out", str(tmp_path / "o"), "--batch-size", "auto"]) == 2
    assert "nowhere: there is no such file" in capsys.readouterr().err


def test_a_run_keeps_its_number(
    scenes: Path,
    tmp_path: Path,
    tiny_backbone: Callable[[], nn.Module],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = TrainConfig(
        data=scenes, out=tmp_path / "auto", start="nothing", val_split=None, iterations=3, batch_size=AUTO,
        workers=0, amp="off", save_every=1,
    )  # fmt: skip
    monkeypatch.setattr(batch_size, "measured_size", lambda *_: 3)
    train(config, minutes=0, backbone=tiny_backbone())
    assert "batch size auto: 3 (cpu, more is hardly faster)" in capsys.readouterr().err
    assert config.out is not None and load_config(config.out / "config.yaml").batch_size == 3
    monkeypatch.setattr(batch_size, "measured_size", lambda *_: 7)  # as on another machine
    resumed = train(config, resume=True, backbone=tiny_backbone()).model
    plain = train(replace(config, out=tmp_path / "plain", batch_size=3), backbone=tiny_backbone()).model
    assert resumed is not None and plain is not None
    one, other = read_tensors(resumed)[0], read_tensors(plain)[0]
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_measuring_leaves_the_backbone_as_it_was(
    scenes: Path, tiny_backbone: Callable[[], nn.Module]
) -> None:
    backbone = tiny_backbone()
    config = TrainConfig(data=scenes, out=Path("unused"), start="nothing", amp="off")
    config = complete(config)
    found = measured_size(config, open_data(scenes, "train"), torch.device("cpu"), backbone, most=4)
    assert found in (2, 4)
    assert all(torch.equal(t, tiny_backbone().state_dict()[key]) for key, t in backbone.state_dict().items())


@pytest.mark.cuda
def test_on_a_gpu(scenes: Path, tiny_backbone: Callable[[], nn.Module]) -> None:
    config = complete(TrainConfig(data=scenes, out=Path("unused"), start="nothing", amp="bf16"))
    data, device = open_data(scenes, "train"), torch.device("cuda", 0)
    assert measured_size(config, data, device, tiny_backbone(), most=64) == 64

"""PyTorch files that cannot be imported: one sentence each that names file, format and tensor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fssd.errors import CheckpointError, ConfigError
from fssd.importers.pth import import_pth


def heads(anchors: tuple[int, ...] = (4, 6, 6, 6, 4, 4), outputs: int = 21) -> dict[str, Tensor]:
    """Heads whose first dimension alone is right, which is all that is looked at first."""
    tensors = {}
    for level, number in enumerate(anchors):
        tensors[f"loc.{level}.weight"] = torch.zeros(number * 4, 1, 1, 1)
        tensors[f"conf.{level}.weight"] = torch.zeros(number * outputs, 1, 1, 1)
    return tensors


SSD = {"vgg.0.weight": torch.zeros(1), **heads()}
FSSD = {"base.0.weight": torch.zeros(1), "ft_module.0.conv.weight": torch.zeros(1), **heads()}
PORTS_SSD = {"base.0.weight": torch.zeros(1), "L2Norm.weight": torch.zeros(512), **heads()}


@pytest.mark.parametrize(
    ("tensors", "name", "message"),
    [
        (SSD, "ssd300-vgg16", r"names of amdegroot/ssd\.pytorch, but lacks 'vgg\.0\.bias'"),
        (SSD, "fssd300-vgg16", r"holds a ssd300-vgg16 \(amdegroot/ssd\.pytorch\), not a fssd300-vgg16"),
        (SSD, "vgg16", "holds a ssd300-vgg16 .*, not a vgg16"),
        (FSSD, "ssd300-vgg16", r"holds a fssd300-vgg16 \(the FSSD of lzx1413/PytorchSSD"),
        (FSSD, "fssd512-vgg16", "holds a fssd300-vgg16"),
        (FSSD, "fssd300-vgg16", r"PytorchSSD.*lacks 'base\.0\.bias'"),
        (SSD | heads((4,) * 7), "ssd300-vgg16", "holds a ssd512-vgg16"),
        (SSD | heads((4,) * 8), "ssd300-vgg16", "predicts from 8$"),
        ({"vgg.0.weight": torch.zeros(1)}, "ssd300-vgg16", "predicts from 0$"),
        (SSD | heads((5, 6, 6, 6, 4, 4)), "ssd300-vgg16", r"'loc\.0\.weight' gives 20 channels"),
        (SSD | {"conf.2.weight": torch.zeros(127, 1, 1, 1)}, "ssd300-vgg16", r"'conf\.2\.weight' gives 127"),
        (SSD | heads(outputs=1), "ssd300-vgg16", r"'conf\.0\.weight' gives 4 channels"),
        (SSD | {"loc.1.weight": torch.zeros(24)}, "ssd300-vgg16", r"'loc\.1\.weight' has shape \(24,\)"),
        (SSD | {"vgg.0.weight": torch.tensor([torch.inf])}, "ssd300-vgg16", "not finite"),
        (
            {"layer1.0.conv1.weight": torch.zeros(1)},
            "ssd300-vgg16",
            r"no names of a known.*'layer1\.0\.conv1",
        ),
        (PORTS_SSD, "ssd300-vgg16", r"an SSD of lzx1413/PytorchSSD, whose L2Norm works in place"),
        ({"layer1.weight": torch.zeros(1)}, "ssd300-vgg16", "known: .*, the FSSD of lzx1413/PytorchSSD"),
        ({}, "ssd300-vgg16", "no names of a known format"),
    ],
)
def test_other_networks_are_refused(
    tmp_path: Path, tensors: dict[str, Tensor], name: str, message: str
) -> None:
    torch.save(tensors, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=rf"weights\.pth: .*{message}"):
        import_pth(tmp_path / "weights.pth", name)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("vgg.0.weight", "ssd300-vgg16"),
        ("backbone.features.0.weight", "ssd300-vgg16"),
        ("features.0.weight", "vgg16"),
        ("0.weight", "vgg16"),
        ("conv1_1.weight", "vgg16"),
    ],
)
@pytest.mark.parametrize("choice", [True, False])
def test_align_corners_of_a_network_that_resizes_no_maps(
    tmp_path: Path, key: str, name: str, choice: bool
) -> None:
    torch.save({key: torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match="which resizes no maps; leave --align-corners out"):
        import_pth(tmp_path / "weights.pth", name, align_corners=choice)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ssd300-vgg", {}, "did you mean 'ssd300-vgg16'"),
        ("ssd300-lite", {}, "there is no network 'ssd300-lite' to import"),
        ("rssd300-vgg16", {}, "there is no network 'rssd300-vgg16' to import"),
        ("ssd300-vgg16", {"colours": "gbr"}, "colour order 'gbr'"),
        ("ssd300-vgg16", {"priors": "cocoa"}, "did you mean 'coco'"),
    ],
)
def test_unknown_choices(tmp_path: Path, name: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        import_pth(tmp_path / "absent.pth", name, **options)  # before the file is opened


class Evil:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    file, trace = tmp_path / "evil.pth", tmp_path / "it-ran"
    torch.save({**SSD, "x": Evil(trace)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"evil\.pth: holds \S+, would run code and is refused"):
        import_pth(file, "ssd300-vgg16")
    assert not trace.exists()


def test_wrappers_and_prefixes_are_looked_through(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    for content in (
        {"state_dict": SSD, "epoch": 3},
        {"model": {f"module.{key}": value for key, value in SSD.items()}},
    ):
        torch.save(content, file, _use_new_zipfile_serialization=False)
        with pytest.raises(CheckpointError, match=r"lacks 'vgg\.0\.bias'"):  # so far it was recognised
            import_pth(file, "ssd300-vgg16")
    torch.save({"state_dict": [1], "epoch": 3}, file)
    with pytest.raises(CheckpointError, match="holds no dict of tensors"):
        import_pth(file, "ssd300-vgg16")

"""Files in half precision: smaller, read back as float32, checked before they are written, fit to pass on."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fssd.config.train_config import TrainConfig, to_values
from fssd.errors import ConfigError, ExportError
from fssd.export import half
from fssd.export.half import export_half, halved
from fssd.export.images import make_pictures
from fssd.export.write import portable
from fssd.inference.detector import Detector
from fssd.weights.checkpoint import load_model, read_tensors

SECRET = "/home/someone/secret"


@pytest.fixture
def facts() -> dict[str, Any]:
    """As training stores them, in a folder that is nobody's business."""
    folder = Path(SECRET)
    config = TrainConfig(data=folder / "d.yaml", out=folder / "run", weights=folder / "w.pth", epochs=3)
    return {"config": to_values(config), "iteration": 7, "metrics": {"map": 0.5}}


@pytest.fixture
def lite(detectors: dict[str, Detector], facts: dict[str, Any]) -> Detector:
    return Detector(detectors["fssd300-lite"].network, detectors["fssd300-lite"].classes, facts)


@pytest.fixture
def images() -> torch.Tensor:
    return make_pictures(6, (300, 300))


def test_round_trip(lite: Detector, images: torch.Tensor, tmp_path: Path) -> None:
    out = tmp_path / "half.safetensors"
    parity = export_half(lite, out, images)
    assert parity.images >= 33 and parity.detections > 200
    assert list(tmp_path.iterdir()) == [out]

    weights = lite.network.state_dict()
    sums = {
        f"{name}.weight": math.prod(layer.kernel_size) * layer.in_channels // layer.groups
        for name, layer in lite.network.named_modules()
        if isinstance(layer, nn.Conv2d)
    }
    short = {name for name, values in sums.items() if values <= 96}
    assert len(short) > 20
    stored, _ = read_tensors(out)
    loaded = load_model(out).network.state_dict()
    for name, tensor in weights.items():
        is_halved = tensor.ndim > 1 and name not in short
        expected = torch.float16 if is_halved else tensor.dtype
        assert stored[name].dtype == expected, name
        assert loaded[name].dtype == tensor.dtype, "widened"
        # Half precision keeps 11 bits, and below 2^-14 steps of 2^-24.
        assert torch.allclose(loaded[name].double(), tensor.double(), rtol=2**-11, atol=2**-25), name
        if not is_halved:
            assert torch.equal(loaded[name], tensor), name
    numbers = sum(tensor.numel() for tensor in weights.values())
    assert out.stat().st_size < 2.4 * numbers, "bytes; 2 if all were halved, 4 if none"
    again = Detector.load(out, device="cpu")
    picture = np.ascontiguousarray(images[3].permute(1, 2, 0).numpy())
    one, other = lite(picture, score=0.05), again(picture, score=0.05)
    assert len(one) > 3 and abs(len(one) - len(other)) <= 0.1 * len(one) + 1
    assert abs(float(one.scores[0]) - float(other.scores[0])) < 0.01


def test_facts_are_kept_but_places_are_not(lite: Detector, images: torch.Tensor, tmp_path: Path) -> None:
    out = tmp_path / "half.safetensors"
    export_half(lite, out, images)
    loaded = load_model(out)
    assert loaded.classes == lite.classes
    assert (loaded.facts["iteration"], loaded.facts["metrics"]) == (7, {"map": 0.5})
    assert loaded.facts["config"]["epochs"] == 3 and loaded.facts["config"]["seed"] == 0
    assert not {"data", "out", "weights"} & set(loaded.facts["config"])
    content = out.read_bytes()
    assert SECRET.encode() not in content and str(tmp_path).encode() not in content


def test_portable(facts: dict[str, Any]) -> None:
    assert SECRET in str(facts) and SECRET not in str(portable(facts))
    assert set(facts["config"]) - set(portable(facts)["config"]) == {"data", "images", "out", "weights"}
    assert portable({"a": 1}) == {"a": 1}
    assert portable({"config": None}) == {"config": None}


def test_a_file_that_finds_something_else_is_not_written(
    lite: Detector, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coarse(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """With two bits of mantissa and their sign instead of ten."""
        return {n: t.to(torch.float8_e5m2).float() if t.ndim > 1 else t for n, t in tensors.items()}

    out = tmp_path / "half.safetensors"
    out.write_text("older")
    monkeypatch.setattr(half, "halved", coarse)
    with pytest.raises(ExportError, match="differs from the PyTorch model"):
        export_half(lite, out, images)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["older"]


def test_a_weight_that_half_precision_cannot_hold() -> None:
    large = {
        "a": torch.full((1, 97), 65504.0),
        "short": torch.full((1, 96), 1e6),
        "variance": torch.tensor([1e6]),
        "depthwise": torch.full((1, 1, 3, 3), 1e6),
        "count": torch.tensor(3),
    }
    assert halved(large)["a"][0, 0].item() == 65504
    with pytest.raises(ExportError, match=r"'a' has a weight of 7e\+04"):
        halved({"a": torch.full((1, 97), -7e4)})


def test_a_backbone_of_its_own(
    detectors: dict[str, Detector],
    tiny_backbone: Callable[[], nn.Module],
    images: torch.Tensor,
    tmp_path: Path,
) -> None:
    out = tmp_path / "own.safetensors"
    export_half(detectors["tiny"], out, images)
    assert load_model(out, tiny_backbone()).network.spec.own_backbone


def test_another_suffix(lite: Detector, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.safetensors"):
        export_half(lite, tmp_path / "half.pt")

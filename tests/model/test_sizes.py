"""Any input size: networks that are built, run, folded, saved and opened at sizes that nobody published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fssd.errors import ConfigError
from fssd.inference.detector import Detector
from fssd.layers.shapes_alone import ShapesAlone
from fssd.model.build import build_model
from fssd.model.fold import fold
from fssd.weights.checkpoint import save_model

NAMES = [
    f"{neck}300-{width}" for neck in ("fssd", "ssd", "fpn", "rssd", "single") for width in ("lite", "vgg16")
]
NAMES += ["dsod300-small", "dsod300-vgg16"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [128, 321, 416, 513, 1024, [416, 224], [224, 416]], ids=str)
def test_shapes_follow_from_the_size(name: str, size: int | list[int]) -> None:
    width, height = (size, size) if isinstance(size, int) else size
    with torch.device("meta"), torch.no_grad():
        network = build_model(name, 3, size=size).eval()
        levels: list[torch.Tensor] = []
        network.neck.register_forward_hook(lambda _neck, _maps, made: levels.extend(made))
        with ShapesAlone():
            raw = network(torch.zeros(2, 3, height, width))
    assert [tuple(level.shape[-2:]) for level in levels] == list(network.neck.cells)
    # Every level has as many cells as its shape says and its priors stand in the middle of them.
    pairs = zip(levels, network.heads.levels, strict=True)
    count = sum(x.shape[-1] * x.shape[-2] * level.anchors for x, level in pairs)
    assert raw.offsets.shape == (2, count, 4) and raw.logits.shape == (2, count, 4)
    assert network.heads.priors.shape == (count, 4)
    centres = (network.heads.priors[:, :2] + network.heads.priors[:, 2:]) / 2
    assert centres.min() > 0 and centres[:, 0].max() < width + 8 and centres[:, 1].max() < height + 8


def test_a_name_with_another_size_is_the_same_network() -> None:
    with torch.device("meta"):
        named, sized = build_model("fssd512-lite", 3), build_model("fssd300-lite", 3, size=512)
    assert named.image_size == sized.image_size == (512, 512)
    assert torch.equal(named.heads.priors, sized.heads.priors)
    one, other = named.state_dict(), sized.state_dict()
    assert {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in other.items()}


@pytest.mark.parametrize("name", ["fssd512-vgg16", "ssd512-vgg16", "fssd300-vgg16"])
def test_published_sizes_by_option_are_the_published_networks(name: str) -> None:
    other, side = (name.replace("512", "300"), 512) if "512" in name else (name.replace("300", "512"), 300)
    with torch.device("meta"):
        published, sized = build_model(name, 20), build_model(other, 20, size=side)
    assert torch.equal(published.heads.priors, sized.heads.priors)
    assert sum(p.numel() for p in published.parameters()) == sum(p.numel() for p in sized.parameters())


@pytest.mark.parametrize("size", [[320, 256], [256, 320]], ids=str)
@pytest.mark.parametrize("geometry", ["warp", "letterbox"])
def test_a_rectangle_detects_in_pixels_of_the_image(
    tmp_path: Path, tiny_backbone: Callable[[], nn.Module], size: list[int], geometry: str
) -> None:
    torch.manual_seed(0)
    network = build_model("fssd300-lite", 2, backbone=tiny_backbone(), size=size, geometry=geometry)
    file = tmp_path / "model.safetensors"
    save_model(file, network.state_dict(), network, ("a", "b"), {})
    detector = Detector.load(file, backbone=tiny_backbone(), device="cpu")
    assert detector.image_size == tuple(size)
    assert detector.geometry == network.geometry
    image = np.random.default_rng(0).integers(0, 256, (90, 400, 3)).astype(np.uint8)
    found = detector(image, score=0.0, keep=50)
    assert len(found) == 50
    assert found.boxes.min() >= 0
    assert found.boxes[:, 0::2].max() <= 400 and found.boxes[:, 1::2].max() <= 90
    images = detector.warp([image]).float()
    for one, other in zip(detector.network(images), fold(detector.network)(images), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [127, 1025, [300, 64], 0])
def test_sizes_beyond_the_range(size: int | list[int]) -> None:
    with pytest.raises(ConfigError, match="lies between 128 and 1024"):
        build_model("fssd300-lite", 2, size=size)


def test_an_unknown_geometry_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'leterbox'.*'letterbox'"):
        build_model("fssd300-lite", 2, geometry="leterbox")

"""DenseNet against a second writer and forward pass that know only its Table 1 and torchvision's names."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.backbones.backbone import probe_shapes
from fssd.backbones.densenet import DenseNet, DenseNet121, DenseNet169
from fssd.model.build import build_model
from fssd.model.cost import parameters
from fssd.model.fold import fold
from fssd.weights.pretrained import load_backbone

LAYERS = {DenseNet121: (6, 12, 24, 16), DenseNet169: (6, 12, 32, 32)}
MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)  # of images in 0..1
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)


def write(layers: tuple[int, ...], old_names: bool = False) -> dict[str, Tensor]:
    """A state dict of torchvision's with its classifier. old_names: those of the files that it offers."""
    random = torch.Generator().manual_seed(4)
    tensors: dict[str, Tensor] = {}

    def conv(name: str, outputs: int, inputs: int, side: int) -> None:
        spread = (2 / (inputs * side * side)) ** 0.5
        tensors[f"{name}.weight"] = torch.randn(outputs, inputs, side, side, generator=random) * spread

    def norm(name: str, channels: int) -> None:
        for part, low in (("weight", 0.5), ("bias", -0.2), ("running_mean", -0.2), ("running_var", 0.5)):
            tensors[f"{name}.{part}"] = torch.rand(channels, generator=random) + low

    dot = "." if old_names else ""
    conv("features.conv0", 64, 3, 7)
    norm("features.norm0", 64)
    channels = 64
    for block, count in enumerate(layers, start=1):
        for layer in range(1, count + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            norm(f"{name}.norm{dot}1", channels)
            conv(f"{name}.conv{dot}1", 128, channels, 1)
            norm(f"{name}.norm{dot}2", 128)
            conv(f"{name}.conv{dot}2", 32, 128, 3)
            channels += 32
        if block < 4:
            norm(f"features.transition{block}.norm", channels)
            channels //= 2
            conv(f"features.transition{block}.conv", channels, 2 * channels, 1)
    norm("features.norm5", channels)
    tensors["classifier.weight"] = torch.randn(1000, channels, generator=random)
    tensors["classifier.bias"] = torch.randn(1000, generator=random)
    return tensors


def forward(tensors: dict[str, Tensor], layers: tuple[int, ...], x: Tensor) -> dict[str, Tensor]:
    """What torchvision's DenseNet computes, with the maps that a detector reads."""

    def norm_relu(name: str, x: Tensor) -> Tensor:
        mean, var, scale, shift = (
            tensors[f"features.{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)

    def conv(name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, tensors[f"features.{name}.weight"], stride=stride, padding=padding)

    maps: dict[str, Tensor] = {}
    x = norm_relu("norm0", conv("conv0", x, 2, 3))
    x = F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 2).unfold(3, 3, 2).amax((-1, -2))
    for block, count in enumerate(layers, start=1):
        for layer in range(1, count + 1):
            name = f"denseblock{block}.denselayer{layer}"
            narrow = conv(f"{name}.conv1", norm_relu(f"{name}.norm1", x))
            x = torch.cat((x, conv(f"{name}.conv2", norm_relu(f"{name}.norm2", narrow), padding=1)), dim=1)
        x = norm_relu(f"transition{block}.norm" if block < 4 else "norm5", x)
        maps[f"C{block + 1}"] = x
        if block < 4:
            x = conv(f"transition{block}.conv", x)
            rows, columns = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
            x = x[..., :rows, :columns].unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    return {name: x for name, x in maps.items() if name != "C2"}


@pytest.mark.parametrize(
    ("kind", "old_names", "size"),
    [(DenseNet121, True, (150, 128)), (DenseNet169, False, (64, 64))],
    ids=["121", "169"],
)
def test_torchvisions_files_give_its_maps(
    kind: type[DenseNet], old_names: bool, size: tuple[int, int], tmp_path: Path
) -> None:
    name = f"fssd300-{kind.__name__.lower()}"
    network = build_model(name, 1).eval()
    file = tmp_path / "densenet.pth"
    torch.save(write(LAYERS[kind], old_names), file)
    assert load_backbone(network, file) == sum(1 for key in write(LAYERS[kind]) if "classifier" not in key)
    pixels = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        found = network.backbone((pixels - network.mean) / network.std)
        expected = forward(write(LAYERS[kind]), LAYERS[kind], (pixels / 255 - MEAN) / STD)
    assert list(found) == list(expected) == ["C3", "C4", "C5"]
    for key, x in found.items():
        assert x.shape == expected[key].shape and expected[key].std() > 0.1
        torch.testing.assert_close(x, expected[key], rtol=1e-4, atol=1e-4 * float(expected[key].max()))
    assert network.backbone.shapes(size[1], size[0]) == {k: tuple(x.shape[1:]) for k, x in found.items()}


@pytest.mark.parametrize(
    ("kind", "body", "classifier", "last"),
    [(DenseNet121, 6_953_856, 7_978_856, 1024), (DenseNet169, 12_484_480, 14_149_480, 1664)],
)
def test_parameters_are_torchvisions(kind: type[DenseNet], body: int, classifier: int, last: int) -> None:
    with torch.device("meta"):
        backbone = kind()
    assert parameters(backbone) == body == classifier - 1000 * (last + 1)


@pytest.mark.parametrize("kind", LAYERS)
def test_maps_round_down_between_blocks(kind: type[DenseNet]) -> None:
    with torch.device("meta"):
        backbone = kind()
    c4, c5 = {DenseNet121: (1024, 1024), DenseNet169: (1280, 1664)}[kind]
    assert backbone.shapes(300, 300) == {"C3": (512, 37, 37), "C4": (c4, 18, 18), "C5": (c5, 9, 9)}
    assert backbone.shapes(512, 512) == {"C3": (512, 64, 64), "C4": (c4, 32, 32), "C5": (c5, 16, 16)}
    assert backbone.shapes(257, 130) == probe_shapes(backbone, 257, 130)


def test_folding_changes_nothing() -> None:
    network = build_model("fssd300-densenet121", 2, size=128).eval()
    with torch.no_grad():
        network.backbone.load_state_dict(
            {k: v for k, v in write(LAYERS[DenseNet121]).items() if "cl" not in k}, strict=False
        )
        pixels = torch.rand(1, 3, 128, 128) * 255
        folded = fold(network)
        for ours, theirs in zip(network(pixels), folded(pixels), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3 * float(ours.abs().max()))
    norms = [name for name, m in folded.backbone.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not any(name.endswith(("norm2", "norm0")) for name in norms)
    assert folded.std.flatten().tolist() == [1, 1, 1]


def test_stages_hold_every_weight_once() -> None:
    with torch.device("meta"):
        backbone = DenseNet121()
    stages = [[id(p) for m in stage for p in m.parameters()] for stage in backbone.stages()]
    assert len(stages) == 5
    assert sorted(chain.from_iterable(stages)) == sorted(id(p) for p in backbone.parameters())

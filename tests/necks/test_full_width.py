"""FSSD and SSD on the paper's future backbones: counts from layer tables, levels, priors, training."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fssd.backbones.densenet import DenseNet121
from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.model.cost import parameters
from fssd.model.fold import fold
from fssd.model.network import Network
from fssd.training.freeze import training_mode

# Parameters of the body; channels of C3, C4 and C5.
BODIES = {
    "resnet50": (23_508_032, (512, 1024, 2048)),
    "resnet101": (42_500_160, (512, 1024, 2048)),
    "densenet121": (6_953_856, (512, 1024, 1024)),
    "densenet169": (12_484_480, (512, 1280, 1664)),
    "mobilenetv1": (3_206_976, (256, 512, 1024)),
    "mobilenetv2": (1_811_712, (32, 96, 320)),
    "darknet19": (19_817_376, (256, 512, 1024)),
}
SIDES = {300: [38, 19, 10, 5, 3, 1], 512: [64, 32, 16, 8, 4, 2, 1]}
DENSE_SIDES = [37, 18, 9, 5, 3, 1]  # at 300 px: its pools round down
ANCHORS = {300: [4, 6, 6, 6, 4, 4], 512: [4, 6, 6, 6, 6, 4, 4]}


def meta(name: str, classes: int = 20, **options: Any) -> Network:
    with torch.device("meta"):
        return build_model(name, classes, **options)


@pytest.mark.parametrize(
    ("name", "voc", "coco"),
    [
        ("fssd300-resnet50", 35_580_462, 41_111_862),
        ("fssd300-resnet101", 54_572_590, 60_103_990),
        ("fssd300-densenet121", 18_764_142, 24_295_542),
        ("fssd300-densenet169", 24_524_142, 30_055_542),
        ("fssd300-mobilenetv1", 14_820_654, 20_352_054),
        ("fssd300-mobilenetv2", 13_081_326, 18_612_726),
        ("fssd300-darknet19", 31_431_054, 36_962_454),
        ("fssd512-resnet50", 36_975_044, None),
        ("fssd512-resnet101", 55_967_172, None),
        ("fssd512-densenet121", 20_158_724, None),
        ("fssd512-densenet169", 25_918_724, None),
    ],
)
def test_parameters_of_fssd(name: str, voc: int, coco: int | None) -> None:
    network = meta(name)
    assert parameters(network) == voc
    body, widths = BODIES[name.partition("-")[2]]
    assert parameters(network.backbone) == body
    assert [source.channels for source in network.neck.fusion.sources] == list(widths)
    assert coco is None or parameters(meta(name, 80)) == coco


@pytest.mark.parametrize("backbone", BODIES)
@pytest.mark.parametrize("side", SIDES)
def test_levels_and_priors_of_fssd(backbone: str, side: int) -> None:
    network = meta(f"fssd{side}-{backbone}")
    assert network.neck.cells == [(cells, cells) for cells in SIDES[side]]
    with torch.device("meta"):
        raw = network.eval()(torch.zeros(1, 3, side, side))
    assert raw.offsets.shape[1] == len(network.heads.priors) == {300: 8732, 512: 24564}[side]


def extras(inputs: int, side: int) -> int:
    """SSD's layers below C5: 1x1 to 128, 3x3 to 256, each with bias; at 512 px the last is 4x4."""
    areas = {300: [9, 9, 9], 512: [9, 9, 9, 16]}[side]
    widths = [inputs, 256, 256, 256]
    return sum((w + 1) * 128 + (128 * area + 1) * 256 for w, area in zip(widths, areas, strict=False))


@pytest.mark.parametrize("backbone", BODIES)
@pytest.mark.parametrize("side", SIDES)
def test_levels_and_parameters_of_ssd(backbone: str, side: int) -> None:
    network = meta(f"ssd{side}-{backbone}")
    body, widths = BODIES[backbone]
    sides = DENSE_SIDES if side == 300 and "dense" in backbone else SIDES[side]
    channels = [*widths, *[256] * (len(sides) - 3)]
    assert network.neck.cells == [(cells, cells) for cells in sides]
    assert network.neck.channels == channels
    heads = sum((9 * c + 1) * a * 25 for c, a in zip(channels, ANCHORS[side], strict=True))
    assert parameters(network) == body + extras(widths[-1], side) + heads
    count = sum(n * n * a for n, a in zip(sides, ANCHORS[side], strict=True))
    assert (
        len(network.heads.priors)
        == count
        == (8096 if sides is DENSE_SIDES else {300: 8732, 512: 24564}[side])
    )


def test_priors_of_densenet_stand_in_the_middle_of_its_cells() -> None:
    heads = build_model("ssd300-densenet121", 1, size=300).heads
    first, last = heads.priors[0], heads.priors[4 * 37 * 37 - 1]
    for box, middle in ((first, 300 / 37 / 2), (last, 300 - 300 / 37 / 2)):
        assert ((box[:2] + box[2:]) / 2).tolist() == pytest.approx([middle, middle], abs=1e-4)


def test_the_layers_below_are_those_of_ssd300() -> None:
    ours, vgg = meta("ssd300-mobilenetv1").neck.extras, meta("ssd300-vgg16").neck.extras
    assert list(ours) == ["conv7_1", "conv7_2", "conv8_1", "conv8_2", "conv9_1", "conv9_2"]
    for name in list(ours)[1:]:
        assert ours[name][0].weight.shape == vgg[name][0].weight.shape
        assert (ours[name][0].stride, ours[name][0].padding) == (vgg[name][0].stride, vgg[name][0].padding)


def test_fused_maps_of_densenet_are_resized_from_37_18_and_9() -> None:
    torch.manual_seed(0)
    fusion = build_model("fssd300-densenet121", 1).neck.fusion
    sizes: list[tuple[int, ...]] = []
    for source in fusion.sources:
        fusion.transform[source.name].register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[1:]))
    maps = {s.name: torch.rand(1, s.channels, *s.cells) for s in fusion.sources}
    with torch.no_grad():
        assert fusion(maps).shape == (1, 768, 38, 38)
    assert sizes == [(256, n, n) for n in (37, 18, 9)]


@pytest.mark.parametrize("neck", ["ssd", "fssd", "fpn", "rssd"])
def test_sides_that_differ(neck: str) -> None:
    network = meta(f"{neck}300-mobilenetv2", size=[416, 224])
    assert network.neck.cells[:3] == [(28, 52), (14, 26), (7, 13)]
    with torch.device("meta"):
        raw = network.eval()(torch.zeros(1, 3, 224, 416))
    assert raw.offsets.shape[1] == len(network.heads.priors)


def test_the_light_form_is_an_option() -> None:
    light = meta("fssd300-mobilenetv1", light=True)
    # 1x1 to 64 of 512 and 1024 channels in place of 256; the 256 of the finest map go in as they are
    assert parameters(light.neck.fusion) == 64 * (512 + 1024 + 2)
    assert light.neck.channels == [256 + 64 + 64] * 6
    assert light.heads.loc[0][0].groups == 256 + 64 + 64
    narrow = meta("fssd300-mobilenetv1", light=True, variant="narrow")
    assert parameters(narrow.neck.fusion) == 96 * (256 + 512 + 1024 + 3)
    assert narrow.neck.channels == [160] * 6
    full = meta("fssd300-lite", light=False)
    assert full.neck.channels == meta("fssd300-vgg16").neck.channels
    with pytest.raises(ConfigError, match="light is 1; it is true or false"):
        meta("fssd300-lite", light=1)


def test_an_own_backbone_below_stride_8_is_no_ssd() -> None:
    class Coarse(nn.Module):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"a": images[..., ::16, ::16], "b": images[..., ::32, ::32]}

    with pytest.raises(ConfigError, match="SSD needs maps of"):
        build_model("ssd300-resnet50", 1, backbone=Coarse())


@pytest.mark.parametrize("name", ["ssd300-mobilenetv2", "fssd300-densenet121"])
def test_frozen_norms_keep_their_statistics_and_the_loss_falls(name: str) -> None:
    torch.manual_seed(0)
    network = build_model(name, 2, size=128)
    training_mode(network, TrainConfig(freeze_norm=True))
    norms = [m for m in network.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    images = torch.rand(2, 3, 128, 128) * 255
    boxes, labels = np.array([[10, 20, 60, 90]], np.float32), np.array([1])
    target = network.heads.targets(boxes, labels)
    targets = {key: torch.from_numpy(np.stack([value, value])) for key, value in target.items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    losses = []
    for _ in range(4):
        loss = network.heads.loss(network(images), targets)["loss"]
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert all(after < start for start, after in pairwise(losses))
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))


@pytest.mark.parametrize("name", ["ssd300-mobilenetv1", "fssd300-mobilenetv2"])
def test_folding_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    network = build_model(name, 2, size=160)
    images = torch.rand(2, 3, 160, 160) * 255
    with torch.no_grad():
        for _ in range(2):
            network(images)  # running statistics that are not 0 and 1
        folded = fold(network.eval())
        for ours, theirs in zip(network(images), folded(images), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4 * float(ours.abs().max()))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())


def test_it_trains_evaluates_exports_and_opens(
    whole_life: Callable[..., Detector], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With blocks of one layer: torch's exporter takes a second for every seven layers."""
    monkeypatch.setattr(DenseNet121, "layers", (1, 1, 1, 1))
    assert whole_life("fssd300-densenet121", size=128).image_size == (128, 128)

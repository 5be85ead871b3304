"""PyTorch weights of other projects: each format written from random tensors under its own names.

What the imported network says is compared with a forward pass laid out here from those tensors, layer by
layer in the order of the original definition, on the colours and mean of the original.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.heads.multibox.raw import Raw
from fssd.importers.foreign import Imported
from fssd.importers.pth import import_pth
from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.weights.checkpoint import fill

Tensors = dict[str, Tensor]

# The layer list of ssd.pytorch: numbers are 3 x 3 convolutions, "M" pools, "C" a pool that rounds up.
VGG = [64, 64, "M", 128, 128, "M", 256, 256, 256, "C", 512, 512, 512, "M", 512, 512, 512]
EXTRAS = [(1024, 256, 1), (256, 512, 3), (512, 128, 1), (128, 256, 3),
          (256, 128, 1), (128, 256, 3), (256, 128, 1), (128, 256, 3)]  # fmt: skip
BGR_MEAN, RGB_MEAN = (104.0, 117.0, 123.0), (123.0, 117.0, 104.0)
TORCHVISION_MEAN = (0.48235, 0.45882, 0.40784)
# COCO's category ids without a category, from the list of the 80 that were published.
GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


# ---------------------------------------------------------------- writing


class Writer:
    """Random weights that keep signals at about the size of their input."""

    def __init__(self, seed: int) -> None:
        self.tensors: Tensors = {}
        self.random = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random)

    def conv(self, name: str, inputs: int, outputs: int, kernel: int, gain: float = 2.0) -> None:
        scale = (gain / (inputs * kernel * kernel)) ** 0.5
        self.tensors[f"{name}.weight"] = self.normal(outputs, inputs, kernel, kernel) * scale
        self.tensors[f"{name}.bias"] = self.normal(outputs) * 0.1

    def vgg(self, name: Callable[[int], str]) -> None:
        """name: the format's name of the layer at a place of the list, ReLUs and pools counted."""
        inputs, place = 3, 0
        for layer in VGG:
            if isinstance(layer, int):
                self.conv(name(place), inputs, layer, 3, 2.0 if place else 2.0 / 60**2)
                inputs, place = layer, place + 2
            else:
                place += 1
        self.conv(name(place + 1), 512, 1024, 3)  # after pool5
        self.conv(name(place + 3), 1024, 1024, 1)

    def heads(self, loc: str, conf: str, widths: list[int], anchors: list[int], outputs: int) -> None:
        for level, (width, number) in enumerate(zip(widths, anchors, strict=True)):
            self.conv(f"{loc}.{level}", width, number * 4, 3, 1.0)
            self.conv(f"{conf}.{level}", width, number * outputs, 3, 1.0)


def ssd_pytorch(outputs: int = 21) -> Tensors:
    """amdegroot/ssd.pytorch, ssd300."""
    writer = Writer(1)
    writer.vgg(lambda place: f"vgg.{place}")
    writer.tensors["L2Norm.weight"] = writer.normal(512) + 20
    for place, (inputs, width, kernel) in enumerate(EXTRAS):
        writer.conv(f"extras.{place}", inputs, width, kernel)
    writer.heads("loc", "conf", [512, 1024, 512, 256, 256, 256], [4, 6, 6, 6, 4, 4], outputs)
    return writer.tensors


def fssd_port(base: str, conv: str, norm: bool, size: int = 300) -> Tensors:
    """lzx1413/PytorchSSD and dlyldxwl/fssd.pytorch. base, conv: where their names differ."""
    writer = Writer(2)
    writer.vgg(lambda place: f"{base}.{place}")
    for place, (inputs, width, kernel) in enumerate(EXTRAS[:4]):
        writer.conv(f"extras.{place}{conv}", inputs, width, kernel)
    for place, inputs in enumerate([512, 1024, 256]):
        writer.conv(f"ft_module.{place}.conv", inputs, 256, 1)
    if norm:
        writer.tensors["fea_bn.weight"] = writer.normal(768) * 0.1 + 1
        writer.tensors["fea_bn.bias"] = writer.normal(768) * 0.1
        writer.tensors["fea_bn.running_mean"] = writer.normal(768) * 0.3
        writer.tensors["fea_bn.running_var"] = writer.normal(768).abs() + 0.5
    widths = [512, 512, 256, 256, 256, 256] + ([256] if size == 512 else [])
    kernels = [3] * 6 + ([4] if size == 512 else [])
    for level, (inputs, width, kernel) in enumerate(zip([768, *widths], widths, kernels, strict=False)):
        writer.conv(f"pyramid_ext.{level}.conv", inputs, width, kernel)
    anchors = [6] * (5 if size == 512 else 4) + [4, 4]
    writer.heads("loc", "conf", widths, anchors, 21)
    return writer.tensors


def torchvision_place(place: int) -> str:
    """Where torchvision's ssd300_vgg16 keeps a layer of the list: it is cut before pool4 and before pool5."""
    if place < 23:
        return f"backbone.features.{place}"
    return f"backbone.extra.0.{place - 23}" if place < 30 else f"backbone.extra.0.7.{place - 30}"


def torchvision_ssd() -> Tensors:
    writer = Writer(3)
    writer.vgg(torchvision_place)
    writer.tensors["backbone.scale_weight"] = writer.normal(512) + 20
    for place, (inputs, width, kernel) in enumerate(EXTRAS):
        writer.conv(f"backbone.extra.{1 + place // 2}.{2 * (place % 2)}", inputs, width, kernel)
    loc, conf = "head.regression_head.module_list", "head.classification_head.module_list"
    writer.heads(loc, conf, [512, 1024, 512, 256, 256, 256], [4, 6, 6, 6, 4, 4], 91)
    return writer.tensors


# ---------------------------------------------------------------- the originals' forward passes


def conv(t: Tensors, name: str, x: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
    return F.conv2d(x, t[f"{name}.weight"], t[f"{name}.bias"], stride, padding, dilation)


def run_vgg(t: Tensors, name: Callable[[int], str], x: Tensor) -> tuple[Tensor, Tensor]:
    """conv4_3 and fc7, after their ReLUs."""
    place, maps = 0, []
    for layer in VGG:
        if isinstance(layer, int):
            x = F.relu(conv(t, name(place), x, padding=1))
            place += 2
            maps.append(x)
        else:
            x = F.max_pool2d(x, 2, 2, ceil_mode=layer == "C")
            place += 1
    x = F.max_pool2d(x, 3, 1, 1)
    x = F.relu(conv(t, name(place + 1), x, padding=6, dilation=6))
    return maps[9], F.relu(conv(t, name(place + 3), x))


def predict(t: Tensors, loc: str, conf: str, maps: list[Tensor], outputs: int) -> Raw:
    offsets, logits = [], []
    for level, x in enumerate(maps):
        batch = len(x)
        offsets.append(conv(t, f"{loc}.{level}", x, padding=1).permute(0, 2, 3, 1).reshape(batch, -1))
        logits.append(conv(t, f"{conf}.{level}", x, padding=1).permute(0, 2, 3, 1).reshape(batch, -1))
    return Raw(torch.cat(offsets, 1).reshape(batch, -1, 4), torch.cat(logits, 1).reshape(batch, -1, outputs))


def run_extras(t: Tensors, names: list[str], x: Tensor) -> list[Tensor]:
    """The four maps of SSD300 after fc7."""
    maps = []
    for place, (name, stride, padding) in enumerate(
        zip(names, (1, 2, 1, 2, 1, 1, 1, 1), (0, 1, 0, 1, 0, 0, 0, 0), strict=True)
    ):
        x = F.relu(conv(t, name, x, stride, padding))
        if place % 2:
            maps.append(x)
    return maps


def mean_of(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).reshape(1, 3, 1, 1)


def run_ssd_pytorch(t: Tensors, pixels: Tensor, colours: str = "rgb") -> Raw:
    x = pixels - mean_of(RGB_MEAN) if colours == "rgb" else pixels.flip(1) - mean_of(BGR_MEAN)
    conv4_3, fc7 = run_vgg(t, lambda place: f"vgg.{place}", x)
    scaled = conv4_3 / (conv4_3.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)
    scaled = scaled * t["L2Norm.weight"].reshape(1, -1, 1, 1)
    maps = [scaled, fc7, *run_extras(t, [f"extras.{i}" for i in range(8)], fc7)]
    return predict(t, "loc", "conf", maps, 21)


def run_torchvision(t: Tensors, pixels: Tensor) -> Raw:
    x = (pixels / 255 - mean_of(TORCHVISION_MEAN)) / (1 / 255)
    conv4_3, fc7 = run_vgg(t, torchvision_place, x)
    scaled = t["backbone.scale_weight"].reshape(1, -1, 1, 1) * F.normalize(conv4_3)
    names = [f"backbone.extra.{1 + i // 2}.{2 * (i % 2)}" for i in range(8)]
    maps = [scaled, fc7, *run_extras(t, names, fc7)]
    return predict(t, "head.regression_head.module_list", "head.classification_head.module_list", maps, 91)


def run_fssd_port(t: Tensors, base: str, extra: str, aligned: bool, pixels: Tensor) -> Raw:
    conv4_3, fc7 = run_vgg(t, lambda place: f"{base}.{place}", pixels.flip(1) - mean_of(BGR_MEAN))
    x = F.relu(conv(t, f"extras.0{extra}", fc7))
    x = F.relu(conv(t, f"extras.1{extra}", x))  # without padding
    x = F.relu(conv(t, f"extras.2{extra}", x))
    conv7_2 = F.relu(conv(t, f"extras.3{extra}", x, 2, 1))
    assert conv7_2.shape[-1] == 9
    parts = [F.relu(conv(t, f"ft_module.{i}.conv", x)) for i, x in enumerate((conv4_3, fc7, conv7_2))]
    parts[1:] = [F.interpolate(x, size=(38, 38), mode="bilinear", align_corners=aligned) for x in parts[1:]]
    x = torch.cat(parts, 1)
    if "fea_bn.weight" in t:
        mean, var, gamma, beta = (
            t[f"fea_bn.{kind}"].reshape(1, -1, 1, 1)
            for kind in ("running_mean", "running_var", "weight", "bias")
        )
        x = (x - mean) / (var + 1e-5).sqrt() * gamma + beta
    maps = []
    for level, (stride, padding) in enumerate(((1, 1), (2, 1), (2, 1), (2, 1), (1, 0), (1, 0))):
        x = F.relu(conv(t, f"pyramid_ext.{level}.conv", x, stride, padding))
        maps.append(x)
    return predict(t, "loc", "conf", maps, 21)


# ---------------------------------------------------------------- the comparison


def read(folder: Path, content: Any, name: str, **options: Any) -> Imported:
    """Save `content` as a .pth file, import it, and remove the file: it is large."""
    file = folder / "weights.pth"
    torch.save(content, file)
    try:
        return import_pth(file, name, **options)
    finally:
        file.unlink()


def build(name: str, found: Imported) -> Network:
    network = build_model(name, found.num_classes, **found.options)
    fill(network, found.tensors, Path("weights.pth"))
    return network.eval()


def assert_same(found: Raw, wanted: Raw) -> None:
    assert 0.3 < wanted.logits.std() < 30  # of order one, or else the tolerance says nothing
    assert 0.3 < wanted.offsets.std() < 30
    torch.testing.assert_close(found.offsets, wanted.offsets, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found.logits, wanted.logits, atol=1e-4, rtol=1e-5)


@pytest.fixture(scope="module", autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    random = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (1, 3, 300, 300), generator=random).float()


def test_ssd_pytorch_says_what_the_original_says(tmp_path: Path, pixels: Tensor) -> None:
    tensors = ssd_pytorch()
    found = read(tmp_path, tensors, "ssd300-vgg16")
    assert found.num_classes == 20
    assert found.options == {"priors": "voc", "clip": "all"}
    assert found.unused == ()
    network = build("ssd300-vgg16", found)
    assert_same(network(pixels), run_ssd_pytorch(tensors, pixels))
    assert network.heads.priors.shape == (8732, 4)
    # The file that was converted from Caffe reads BGR.
    bgr = read(tmp_path, tensors, "ssd300-vgg16", colours="bgr")
    assert torch.equal(bgr.tensors["backbone.conv1_1.weight"][:, 0], tensors["vgg.0.weight"][:, 2])
    fill(network, bgr.tensors, Path("weights.pth"))
    assert_same(network(pixels), run_ssd_pytorch(tensors, pixels, "bgr"))


def test_pytorchssd_says_what_the_original_says(tmp_path: Path, pixels: Tensor) -> None:
    tensors = fssd_port("base", "", norm=True)
    kept = {f"module.{key}": tensor for key, tensor in tensors.items()}
    kept["module.L2Norm.weight"] = torch.ones(512)  # the released file has it, the network does not
    found = read(tmp_path, {"epoch": 270, "state_dict": kept}, "fssd300-vgg16")
    assert found.num_classes == 20
    assert found.options == {"variant": "pytorchssd", "priors": "voc"}
    assert found.unused == ("L2Norm.weight",)
    network = build("fssd300-vgg16", found)
    assert_same(network(pixels), run_fssd_port(tensors, "base", "", True, pixels))
    assert network.heads.priors.shape == (11620, 4)


def test_fssd_pytorch_says_what_the_original_says(tmp_path: Path, pixels: Tensor) -> None:
    tensors = fssd_port("base", ".conv", norm=False)
    found = read(tmp_path, tensors, "fssd300-vgg16")
    assert found.options == {
        "variant": "pytorchssd", "priors": "voc", "align_corners": False, "norm": "none",
    }  # fmt: skip
    assert found.unused == ()
    network = build("fssd300-vgg16", found)
    assert_same(network(pixels), run_fssd_port(tensors, "base", ".conv", False, pixels))


def test_torchvision_says_what_the_original_says_of_cocos_80(tmp_path: Path, pixels: Tensor) -> None:
    tensors = torchvision_ssd()
    found = read(tmp_path, tensors, "ssd300-vgg16")
    assert found.num_classes == 80
    assert found.options["priors"] == "coco"
    assert found.options["clip"] == "sides"
    assert found.options["mean"] == pytest.approx([255 * value for value in TORCHVISION_MEAN])
    assert found.unused == ()
    wanted = run_torchvision(tensors, pixels)
    kept = [number for number in range(91) if number not in GAPS]
    assert len(kept) == 81
    network = build("ssd300-vgg16", found)
    assert_same(network(pixels), Raw(wanted.offsets, wanted.logits[..., kept]))
    # Its finest priors are 21 px, and no side is longer than the image.
    sides = network.heads.priors[:, 2:] - network.heads.priors[:, :2]
    assert sides[0].tolist() == pytest.approx([21, 21], abs=1e-4)
    assert sides.max().item() == pytest.approx(300, abs=1e-3)


def test_fssd512_with_the_names_of_branch_0_4(tmp_path: Path) -> None:
    tensors = fssd_port("base.layers", "", norm=True, size=512)
    tensors["fea_bn.num_batches_tracked"] = torch.tensor(7)
    found = read(tmp_path, {"model": tensors}, "fssd512-vgg16", priors="coco", align_corners=False)
    assert found.options == {"variant": "pytorchssd", "priors": "coco", "align_corners": False}
    assert found.unused == ()
    network = build("fssd512-vgg16", found)
    assert network.heads.priors.shape == (32756, 4)
    assert sum(p.numel() for p in network.parameters()) == 35_527_542
    assert int(network.neck.fusion.norm.num_batches_tracked) == 7
    # The ports' COCO sizes begin at 20.48 px and are not cut to whole pixels.
    assert network.heads.levels[0].shapes[0] == pytest.approx((20.48, 20.48))
    first = tensors["base.layers.0.weight"]
    assert torch.equal(network.backbone.conv1_1.weight, first.flip(1))
    assert torch.equal(network.neck.pyramid.blocks["ds_64"][0].weight, tensors["pyramid_ext.6.conv.weight"])

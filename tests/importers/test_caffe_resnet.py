"""Imported ResNets, SSD and DSSD compute what Caffe's definition does.

The reference is written from the networks' definition on the raw blobs: BatchNorm divides its sums by their
counter, Scale follows it, the stride of a stage lies on its first 1x1, and the pool is not padded.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.config.train_config import TrainConfig
from fssd.errors import CheckpointError
from fssd.importers import caffe as module
from fssd.importers.caffe import import_caffe
from fssd.importers.foreign import Imported
from fssd.model.build import build_model
from fssd.model.designs import backbone_class
from fssd.model.network import Network
from fssd.training.start import start_weights

pytest.importorskip("google.protobuf", reason="the files are written with protobuf: pip install protobuf")
_spec = importlib.util.spec_from_file_location("caffe_writer", Path(__file__).with_name("caffe_writer.py"))
assert _spec is not None and _spec.loader is not None
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)

Layers = dict[str, list[Tensor]]
Held = Callable[..., Imported]
COUNTER = 999.5  # of batches, as Caffe weighs them
STAGES = {  # names of the blocks of each stage
    50: ("2a 2b 2c", "3a 3b 3c 3d", "4a 4b 4c 4d 4e 4f", "5a 5b 5c"),
    101: (
        "2a 2b 2c",
        "3a 3b1 3b2 3b3",
        " ".join(["4a", *(f"4b{i}" for i in range(1, 23))]),
        "5a 5b 5c",
    ),
}
# Kernel and stride of the appended blocks, and of the deconvolutions by the finer level: the scripts.
EXTRAS = {
    321: {"6": (2, 2), "7": (2, 2), "8": (3, 1), "9": (3, 1)},
    513: {"6": (2, 2), "7": (2, 2), "8": (2, 2), "9": (2, 2), "10": (2, 2)},
}
ENLARGE = {
    321: {"8": (3, 1), "7": (3, 1), "6": (2, 2), "5": (2, 2), "3": (2, 2)},
    513: {"9": (2, 1), "8": (2, 2), "7": (2, 2), "6": (2, 2), "5": (2, 2), "3": (2, 2)},
}
FINE = {"3": "res3b3", "5": "res5c"}  # of the other levels: res and the number
WIDTHS = {"3": 512, "5": 2048}  # likewise, 1024


class Maker:
    """Random layers. Their numbers are windows of one buffer, so that even DSSD takes little memory."""

    def __init__(self) -> None:
        self.random = torch.Generator().manual_seed(3)
        self.numbers = torch.randn(35_000_000, generator=self.random) * 0.03

    def blob(self, *shape: int) -> Tensor:
        size = torch.Size(shape).numel()
        start = int(torch.randint(len(self.numbers) - size, (1,), generator=self.random))
        return self.numbers[start : start + size].view(shape)

    def conv_norm(
        self, names: tuple[str, str, str], outputs: int, inputs: int, kernel: int, gain: float = 1.0
    ) -> Layers:
        """The variance is about that of the outputs for inputs of order 1, so that they stay of order 1."""
        variance = inputs * kernel**2 * 0.03**2 * (0.75 + 5 * self.blob(outputs).abs())
        mean = self.blob(outputs)
        conv, norm, scale = names
        return {
            conv: [self.blob(outputs, inputs, kernel, kernel)],
            norm: [mean * COUNTER, variance * COUNTER, torch.tensor([COUNTER])],
            scale: [gain * (1 + self.blob(outputs)), 3 * self.blob(outputs)],
        }

    def block(
        self, name: str, inputs: int, width: int, outputs: int, kernel: int, skip: bool, middle: int = 3
    ) -> Layers:
        def names(branch: str) -> tuple[str, str, str]:
            return f"res{name}_{branch}", f"bn{name}_{branch}", f"scale{name}_{branch}"

        layers = self.conv_norm(names("branch1"), outputs, inputs, kernel) if skip else {}
        layers |= self.conv_norm(names("branch2a"), width, inputs, kernel)
        layers |= self.conv_norm(names("branch2b"), width, width, middle)
        return layers | self.conv_norm(names("branch2c"), outputs, width, 1, gain=0.3)

    def body(self, depth: int, biased: bool = False) -> Layers:
        layers = self.conv_norm(("conv1", "bn_conv1", "scale_conv1"), 64, 3, 7)
        if biased:
            layers["conv1"].append(10 * self.blob(64))
        mean, variance, _ = layers["bn_conv1"]
        layers["bn_conv1"][:2] = mean * 70, variance * 70**2  # of pixels, not of numbers of order 1
        inputs = 64
        for blocks, width in zip(STAGES[depth], (64, 128, 256, 512), strict=True):
            for name in blocks.split():
                layers |= self.block(name, inputs, width, 4 * width, 1, skip=name.endswith("a"))
                inputs = 4 * width
        return layers

    def detector(
        self,
        size: int,
        classes: int,
        *,
        merge: str = "",
        inter: int = 0,
        widths: tuple[int, ...] = (),
        kernels: tuple[int, ...] = (5, 5),
        skip: bool = True,
        middle: int = 3,
    ) -> Layers:
        """merge: "PROD" or "SUM" for DSSD, "" for SSD. widths: of prediction modules, (0,) for none. skip:
        whether there is a convolution on theirs.
        """
        layers, inputs = self.body(101), 2048
        for number, (kernel, _) in EXTRAS[size].items():
            layers |= self.block(number, inputs, 256, 1024, kernel, skip=True)
            inputs = 1024
        sources = list_of_sources(size, merge)
        if merge:
            for number, (kernel, _) in ENLARGE[size].items():
                fine = FINE.get(number, f"res{number}")
                layers[f"deconv_{number}"] = [self.blob(inputs, 512, kernel, kernel), self.blob(512)]
                for name, width in (
                    (f"deconv_{number}_pre", 512),
                    (f"{fine}_relu_pre1", WIDTHS.get(number, 1024)),
                    (f"{fine}_relu_pre2", 512),
                ):
                    layers |= self.conv_norm((name, f"{name}_bn", f"{name}_scale"), 512, width, 3)
                inputs = 512
        for level, (source, width) in enumerate(sources.items()):
            kernel = kernels[level] if level < len(kernels) else 3
            depth = widths[level] if level < len(widths) else 256
            stem, outputs = source, width
            if widths != (0,):
                if not skip:
                    depth = width // 4
                outputs, stem = 4 * depth, f"res{source}_inter{depth}"
                layers |= self.block(f"{source}_inter{depth}", width, depth, outputs, 1, skip, middle)
            new = "new" if merge else ""
            for kind, number in (("loc", 8 * 4), ("conf", 8 * classes)):
                name = f"{stem}_mbox_{kind}{new}"
                if inter:
                    own = f"{name}_inter"
                    layers |= self.conv_norm((own, f"{own}_bn", f"{own}_scale"), inter, outputs, 3)
                layers[name] = [self.blob(number, inter or outputs, kernel, kernel), self.blob(number)]
        return layers


def list_of_sources(size: int, merge: str) -> dict[str, int]:
    """The blobs that are predicted from, with their widths, finest first."""
    numbers = ["3", "5", *EXTRAS[size]]
    sources = {f"{FINE.get(n, f'res{n}')}_relu": WIDTHS.get(n, 1024) for n in numbers}
    if not merge:
        return sources
    merged = {f"combined_{n}_Eltwise{merge}_relu": 512 for n in numbers[:-1]}
    return merged | {f"res{numbers[-1]}_relu": 1024}


@pytest.fixture(scope="module")
def maker() -> Maker:
    return Maker()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Held:
    """Imports layers as if a file held them: reading is tested on its own."""

    def run(layers: Layers, name: str, **options: str) -> Imported:
        monkeypatch.setattr(module, "read_caffemodel", lambda _: {k: list(v) for k, v in layers.items()})
        return import_caffe(tmp_path / "some.caffemodel", name, **options)

    return run


def filled(network: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """A module of the meta device that holds the tensors themselves, so that nothing is copied."""
    network.load_state_dict(tensors, assign=True)
    if isinstance(network, Network):
        network.mean, network.std = (torch.tensor(v)[:, None, None] for v in ((123.0, 117, 104), (1.0, 1, 1)))
    return network.eval()


# ---- the reference


class Reference:
    def __init__(self, layers: Layers, eps: float) -> None:
        self.layers, self.eps = layers, eps

    def conv_norm(self, names: tuple[str, str, str], x: Tensor, **how: int) -> Tensor:
        conv, norm, scale = names
        x = F.conv2d(x, *self.layers[conv], **how)
        mean, variance, counter = self.layers[norm]
        gamma, beta = self.layers[scale]
        x = (x - (mean / counter)[:, None, None]) / ((variance / counter)[:, None, None] + self.eps).sqrt()
        return x * gamma[:, None, None] + beta[:, None, None]

    def named(self, name: str, x: Tensor) -> Tensor:
        return self.conv_norm((name, f"{name}_bn", f"{name}_scale"), x, padding=1)

    def block(self, name: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        def branch(kind: str, x: Tensor, **how: int) -> Tensor:
            return self.conv_norm((f"res{name}_{kind}", f"bn{name}_{kind}", f"scale{name}_{kind}"), x, **how)

        side = branch("branch1", x, stride=stride) if f"res{name}_branch1" in self.layers else x
        out = branch("branch2a", x, stride=stride).relu()
        middle = self.layers[f"res{name}_branch2b"][0].shape[-1] // 2
        out = branch("branch2b", out, padding=middle * dilation, dilation=dilation).relu()
        return (side + branch("branch2c", out)).relu()

    def body(self, images: Tensor, depth: int, dilated: bool) -> dict[str, Tensor]:
        """BGR images less their mean, to the output of the last block of each stage, by Caffe's names."""
        x = images.flip(1) - torch.tensor([104.0, 117.0, 123.0])[:, None, None]
        x = self.conv_norm(("conv1", "bn_conv1", "scale_conv1"), x, stride=2, padding=3).relu()
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        maps = {}
        for number, blocks in enumerate(STAGES[depth], start=2):
            for name in blocks.split():
                first = name.endswith("a") and number > 2
                hole = dilated and number == 5
                x = self.block(name, x, stride=2 if first and not hole else 1, dilation=2 if hole else 1)
            maps[f"res{name}"] = x
        return maps

    def detect(
        self, maps: dict[str, Tensor], size: int, classes: int, merge: str, depths: tuple[int, ...]
    ) -> list[Tensor]:
        """depths: of the prediction modules, by which they are named; the last goes on."""
        levels = {"res3b3_relu": maps["res3b3"], "res5c_relu": maps["res5c"]}
        x = maps["res5c"]
        for number, (_, stride) in EXTRAS[size].items():
            levels[f"res{number}_relu"] = x = self.block(number, x, stride=stride)
        if merge:
            for number, (_, stride) in ENLARGE[size].items():
                fine = f"{FINE.get(number, f'res{number}')}_relu"
                weight, bias = self.layers[f"deconv_{number}"]
                coarse = self.named(f"deconv_{number}_pre", F.conv_transpose2d(x, weight, bias, stride))
                side = self.named(f"{fine}_pre2", self.named(f"{fine}_pre1", levels[fine]).relu())
                x = (coarse * side if merge == "PROD" else coarse + side).relu()
                levels[f"combined_{number}_Eltwise{merge}_relu"] = x
        found: list[list[Tensor]] = [[], []]
        for index, source in enumerate(list_of_sources(size, merge)):
            module = f"{source}_inter{depths[min(index, len(depths) - 1)]}"
            x, stem = self.block(module, levels[source]), f"res{module}"
            for rows, kind, last in zip(found, ("loc", "conf"), (4, classes), strict=True):
                name = f"{stem}_mbox_{kind}{'new' if merge else ''}"
                y = self.named(f"{name}_inter", x).relu() if f"{name}_inter" in self.layers else x
                weight, bias = self.layers[name]
                y = F.conv2d(y, weight, bias, padding=weight.shape[-1] // 2)
                rows.append(y.permute(0, 2, 3, 1).reshape(1, -1, last))
        return [torch.cat(rows, dim=1) for rows in found]


def assert_close(own: Tensor, theirs: Tensor) -> None:
    assert own.shape == theirs.shape
    assert 0.05 < float(theirs.std()) < 50
    assert float((own - theirs).abs().max()) < 1e-4 * float(theirs.abs().max())


# ---- backbones


@pytest.mark.parametrize(
    ("name", "depth", "dilated", "eps"),
    [
        ("resnet50-caffe", 50, False, 1e-5),
        ("resnet101-caffe", 101, False, 1e-5),
        ("resnet101-dilated", 101, True, 1e-3),
    ],
)
def test_a_backbone_computes_what_caffe_does(
    maker: Maker, held: Held, name: str, depth: int, dilated: bool, eps: float
) -> None:
    layers = maker.body(depth, biased=depth == 50) | {"fc1000": [maker.blob(1000, 2048), maker.blob(1000)]}
    found = held(layers, name)
    assert (found.options, found.num_classes, found.unused) == ({}, 0, ("fc1000",))
    with torch.device("meta"):
        backbone = backbone_class(name)()
    counters = {key: torch.tensor(0) for key in backbone.state_dict() if key.endswith("num_batches_tracked")}
    filled(backbone, {**counters, **found.tensors})
    torch.manual_seed(4)
    images = torch.randint(0, 256, (1, 3, 97, 129)).float()
    with torch.no_grad():
        maps = backbone(images - torch.tensor(backbone.mean)[:, None, None])
        expected = Reference(layers, eps).body(images, depth, dilated)
    for own, theirs in zip(maps.values(), expected.values(), strict=True):
        assert_close(own, theirs)


def test_a_file_is_read_and_a_training_starts_from_it(maker: Maker, tmp_path: Path) -> None:
    """MSRA's ResNet-50, whose conv1 has a bias, as --weights."""
    layers = maker.body(50, biased=True)
    file = tmp_path / "ResNet-50-model.caffemodel"
    file.write_bytes(writer.caffemodel(layers, data="bytes", shapes="legacy-in-shape"))
    network = build_model("fssd128-resnet50-caffe", 1)
    start_weights(network, ("thing",), TrainConfig(model="fssd128-resnet50-caffe", weights=file))
    images = torch.randint(0, 256, (1, 3, 64, 64)).float()
    with torch.no_grad():
        own = network.backbone.eval()(images - torch.tensor([123.0, 117, 104])[:, None, None])["layer4"]
        assert_close(own, Reference(layers, 1e-5).body(images, 50, dilated=False)["res5c"])
    with pytest.raises(
        CheckpointError, match="is of Caffe, whose layout resnet50 does not have; known: vgg16"
    ):
        config = TrainConfig(model="fssd128-resnet50", weights=file)
        start_weights(build_model("fssd128-resnet50", 1), ("thing",), config)


def test_colours(maker: Maker, held: Held) -> None:
    layers = maker.body(50)
    bgr, rgb = (held(layers, "resnet50-caffe", colours=order).tensors for order in ("bgr", "rgb"))
    assert torch.equal(bgr["conv1.weight"], rgb["conv1.weight"].flip(1))
    assert all(torch.equal(bgr[key], rgb[key]) for key in bgr if key != "conv1.weight")


# ---- detectors


@pytest.fixture(scope="module")
def maps() -> dict[str, Tensor]:
    """What the backbone makes of an image of 321 px, at random: it was compared above."""
    generator = torch.Generator().manual_seed(4)
    return {
        "res3b3": torch.rand(1, 512, 40, 40, generator=generator),
        "res5c": torch.rand(1, 2048, 20, 20, generator=generator),
    }


SUM = {"kernels": [], "inter": 16, "merge": "sum"}
IDENTICAL = {"prediction": "b", "prediction_kernel": 1}


@pytest.mark.parametrize(
    ("merge", "classes", "settings", "options", "depths"),
    [
        ("PROD", 5, {}, {}, (256,)),
        ("SUM", 3, {"kernels": (3,), "inter": 16}, SUM, (256,)),
        ("", 3, {"skip": False, "middle": 1}, IDENTICAL, (128, 512, 256)),
    ],
    ids=("DSSD", "sum and inter", "modules (b)"),
)
def test_a_detector_computes_what_caffe_does(
    maker: Maker,
    held: Held,
    maps: dict[str, Tensor],
    merge: str,
    classes: int,
    settings: dict[str, Any],
    options: dict[str, Any],
    depths: tuple[int, ...],
) -> None:
    layers = maker.detector(321, classes, merge=merge, **settings)
    name = f"{'dssd' if merge else 'ssd'}321-resnet101"
    found = held(layers, name)
    assert found.unused == ()
    assert (found.options, found.num_classes) == ({"priors": "voc", **options}, classes - 1)
    with torch.device("meta"):
        network = build_model(name, found.num_classes, **found.options)
    filled(network, found.tensors)
    with torch.no_grad():
        raw = network.heads(network.neck({"layer2": maps["res3b3"], "layer4": maps["res5c"]}))
        expected = Reference(layers, 1e-3).detect(maps, 321, classes, merge, depths)
    for own, theirs in zip(raw, expected, strict=True):
        assert_close(own, theirs)
    assert raw.offsets.shape == (1, 17_080, 4)
    norm = network.neck.extras["res6"].body[0][1]
    assert int(norm.num_batches_tracked) == 7597  # (1 - f^n) / (1 - f) = 999.5 for f = 0.999
    key = "backbone.layer3.22.conv3.weight"
    assert torch.equal(found.tensors[key], layers["res4b22_branch2c"][0])


def test_a_network_without_prediction_modules(maker: Maker, held: Held) -> None:
    found = held(maker.detector(513, 3, widths=(0,)), "ssd513-resnet101")
    assert (found.options, found.num_classes, found.unused) == ({"priors": "voc", "prediction": "a"}, 2, ())


def test_widths_of_prediction_modules_follow_from_shapes(maker: Maker, held: Held) -> None:
    found = held(maker.detector(513, 81, widths=(128, 512)), "ssd513-resnet101")
    assert found.options == {"priors": "coco", "prediction_widths": [128, 512]}
    learned = sum(t.numel() for key, t in found.tensors.items() if "running" not in key and "num_" not in key)
    assert learned == 173_145_304


ODD_HEAD = {"resres9_relu_inter256_mbox_loc": [torch.zeros(24, 1024, 3, 3), torch.zeros(24)]}


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("dssd321-resnet101", {}, "holds a ssd321-resnet101 by its layers, not a dssd321-resnet101; import"),
        ("ssd513-resnet101", {}, "holds a ssd321-resnet101 by its layers, not a ssd513-resnet101"),
        ("ssd321-resnet101", {"scale3b2_branch2b": None}, "has no layer 'scale3b2_branch2b', expected with"),
        ("ssd321-resnet101", {"bn5c_branch2a": [torch.ones(512)] * 2}, "blobs of shape (512,) and (512,)"),
        ("ssd321-resnet101", {"res2a_branch2a": None}, "has no layers of a ResNet that predict boxes"),
        ("ssd321-resnet101", ODD_HEAD, "gives 24 channels, expected 32: four offsets of 8 priors per cell"),
    ],
)
def test_another_network_is_refused(
    maker: Maker, held: Held, name: str, change: dict[str, Any], reason: str
) -> None:
    layers = maker.detector(321, 3) | change
    with pytest.raises(CheckpointError) as caught:
        held({key: blobs for key, blobs in layers.items() if blobs is not None}, name)
    assert reason in str(caught.value)

"""Imported DSODs compute what the authors' script defines, and other files are told apart.

Layers are written, and read by the reference, in the order in which the script builds the network, with
counters of their own for pycaffe's automatic names.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.errors import CheckpointError, ConfigError
from fssd.importers import caffe as module
from fssd.importers.caffe import import_caffe
from fssd.importers.foreign import Imported
from fssd.importers.pth import import_pth
from fssd.model.build import build_model
from fssd.weights.checkpoint import fill

pytest.importorskip("google.protobuf", reason="the files are written with protobuf: pip install protobuf")
_spec = importlib.util.spec_from_file_location("caffe_writer", Path(__file__).with_name("caffe_writer.py"))
assert _spec is not None and _spec.loader is not None
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)

Layers = dict[str, list[Tensor]]
LEVELS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth")
ANCHORS = (4, 6, 6, 6, 4, 4)
FRACTION, COUNTER = 0.999, 700.0


class Script:
    """The network layer by layer: makes `layers` of the right shapes, or computes by those given."""

    def __init__(self, bottleneck: int, growth: int, classes: int, layers: Layers, real: bool = True) -> None:
        self.bottleneck, self.growth, self.classes = bottleneck, growth, classes
        self.layers, self.made = layers, not layers
        self.random = torch.Generator().manual_seed(6) if real else None
        self.conv_numbers, self.norm_numbers = count(1), count(1)

    def tensor(self, *shape: int) -> Tensor:
        if self.random is None:
            return torch.zeros(1).expand(shape)
        return torch.randn(shape, generator=self.random)

    def conv(self, x: Tensor, outputs: int, kernel: int, stride: int = 1, name: str = "") -> Tensor:
        name = name or f"Convolution{next(self.conv_numbers)}"
        inputs = x.shape[1]
        if self.made:
            scale = math.sqrt(2 / (inputs * kernel**2)) / (70 if inputs == 3 else 1)
            self.layers[name] = [self.tensor(outputs, inputs, kernel, kernel) * scale]
            shape = (1, outputs, *(-(-side // stride) for side in x.shape[2:]))
            return torch.zeros(1).expand(shape)
        return F.conv2d(x, *self.layers[name], stride=stride, padding=kernel // 2)

    def norm(self, x: Tensor, eps: float = 1e-5, names: tuple[str, str] = ("", "")) -> Tensor:
        number = "" if names[0] else str(next(self.norm_numbers))
        sums, scale = names if names[0] else (f"BatchNorm{number}", f"Scale{number}")
        channels = x.shape[1]
        if self.made:
            mean, variance = 0.3 * self.tensor(channels), 0.5 + self.tensor(channels).square()
            self.layers[sums] = [mean * COUNTER, variance * COUNTER, torch.tensor([COUNTER])]
            self.layers[scale] = [1 + 0.3 * self.tensor(channels), 0.3 * self.tensor(channels)]
            return x
        mean, variance, counter = self.layers[sums]
        gamma, beta = (part[:, None, None] for part in self.layers[scale])
        mean, variance = ((part / counter)[:, None, None] for part in (mean, variance))
        return (x - mean) / (variance + eps).sqrt() * gamma + beta

    def brc(self, x: Tensor, outputs: int, kernel: int = 1, stride: int = 1, name: str = "") -> Tensor:
        return self.conv(self.norm(x).relu(), outputs, kernel, stride, name)

    def pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2, 2, ceil_mode=True)

    def dense(self, x: Tensor, number: int) -> Tensor:
        for _ in range(number):
            x = torch.cat((x, self.brc(self.brc(x, self.bottleneck), self.growth, 3)), 1)
        return x

    def levels(self, x: Tensor) -> Iterator[Tensor]:
        for width, stride in ((64, 2), (64, 1), (128, 1)):
            x = self.norm(self.conv(x, width, 3, stride)).relu()
        x = self.dense(self.pool(x), 6)
        x = self.dense(self.pool(self.brc(x, x.shape[1])), 8)
        first = self.brc(x, x.shape[1], name="First")
        yield first
        x = self.dense(self.pool(first), 8)
        x = self.dense(self.brc(x, x.shape[1]), 8)
        x = torch.cat((self.brc(x, 256), self.brc(self.pool(first), 256)), 1)
        yield x
        for width in (256, 128, 128, 128):
            pooled = self.brc(self.pool(x), width)
            x = torch.cat((pooled, self.brc(self.brc(x, width), width, 3, 2)), 1)
            yield x

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps: list[Tensor] = []
        for level, x in zip(LEVELS, self.levels(images), strict=True):
            if self.made:
                self.layers[f"{level}_norm"] = [20 + self.tensor(x.shape[1])]
            length = (x.square().sum(1, keepdim=True) + 1e-10).sqrt()
            maps.append(x / length * self.layers[f"{level}_norm"][0][:, None, None])
        found = []
        for kind, each in (("loc", 4), ("conf", self.classes)):
            rows = []
            for level, anchors, x in zip(LEVELS, ANCHORS, maps, strict=True):
                name = f"{level}_norm_mbox_{kind}"
                y = self.conv(x, anchors * each, 3, name=name)
                y = self.norm(y, 1e-3, (f"{name}_bn", f"{name}_scale"))
                rows.append(y.permute(0, 2, 3, 1).reshape(-1, each))
            found.append(torch.cat(rows)[None])
        return found[0], found[1]


def made(bottleneck: int, growth: int, classes: int = 21, real: bool = False) -> Layers:
    layers: Layers = {}
    script = Script(bottleneck, growth, classes, layers, real)
    script.predict(torch.zeros(1).expand(1, 3, 300, 300))
    return layers


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """Imports layers as if a file held them."""

    def run(layers: Layers, name: str, **options: str) -> Imported:
        monkeypatch.setattr(module, "read_caffemodel", lambda _: {k: list(v) for k, v in layers.items()})
        return import_caffe(tmp_path / "some.caffemodel", name, **options)

    return run


def test_outputs_are_those_of_the_definition(tmp_path: Path) -> None:
    layers = made(64, 16, classes=5, real=True)
    file = tmp_path / "some.caffemodel"
    file.write_bytes(writer.caffemodel(layers, data="bytes"))
    found = import_caffe(file, "dsod300-small")
    assert (found.num_classes, found.options, found.unused) == (4, {"priors": "voc"}, ())
    network = build_model("dsod300-small", 4, **found.options).eval()
    fill(network, found.tensors, file)
    torch.manual_seed(4)
    images = torch.randint(0, 256, (1, 3, 300, 300)).float()
    blue_first = images.flip(1) - torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    with torch.no_grad():
        expected = Script(64, 16, 5, layers).predict(blue_first)
        for own, theirs in zip(network(images), expected, strict=True):
            assert own.shape == theirs.shape == (1, 8744, theirs.shape[-1])
            assert 0.1 < float(theirs.std()) < 30
            assert float((own - theirs).abs().max()) < 1e-4 * float(theirs.abs().max())


# Floats of the published files: 59.2, 87.2 and 23.5 MB.
@pytest.mark.parametrize(
    ("bottleneck", "growth", "classes", "name", "floats"),
    [
        (192, 48, 21, "dsod300", 14_795_828),
        (192, 48, 81, "dsod300", 21_784_148),
        (64, 16, 21, "dsod300-small", 5_872_372),
    ],
)
def test_every_number_of_a_file_is_taken(
    held, bottleneck: int, growth: int, classes: int, name: str, floats: int
) -> None:
    layers = made(bottleneck, growth, classes)
    assert sum(blob.numel() for blobs in layers.values() for blob in blobs) == floats
    found = held(layers, name)
    assert sum(tensor.numel() for tensor in found.tensors.values()) == floats
    assert found.options == {"priors": "coco" if classes == 81 else "voc"}
    assert (found.num_classes, found.unused) == (classes - 1, ())
    with torch.device("meta"):
        own = build_model(name, classes - 1, **found.options).state_dict()
    assert {key: t.shape for key, t in found.tensors.items()} == {key: t.shape for key, t in own.items()}


def test_the_named_convolution_is_not_counted() -> None:
    """80 convolutions in the body, of which one is First; 12 in the heads, each with its norm."""
    names = list(made(64, 16))
    assert sum(name.startswith("Convolution") for name in names) == 79
    assert sum(name.startswith("BatchNorm") for name in names) == 80
    assert names.index("Convolution32") < names.index("First") < names.index("Convolution33")
    assert sum(name.endswith("_bn") for name in names) == 12


SMALL = made(64, 16)


@pytest.mark.parametrize(
    ("layers", "name", "message"),
    [
        (SMALL, "dsod300", r"holds a dsod300-small \(DS/64-64-16\), not a dsod300; import"),
        (SMALL, "ssd300-vgg16", "holds a DSOD by its layers, not a ssd300-vgg16"),
        (made(32, 16), "dsod300", "holds a DS/64-32-16-..., which has no name here"),
        ({k: v for k, v in SMALL.items() if k != "Scale40"}, "dsod300-small", "has no layer 'Scale40'"),
        ({k: v for k, v in SMALL.items() if k != "First"}, "dsod300-small", "has no layer 'First'"),
        (SMALL | {"Convolution67": SMALL["Scale1"]}, "dsod300-small", "'Convolution67' has blobs"),
        (writer.Maker(real=False).ssd(writer.Maker(real=False).vgg()), "dsod300", "no layer 'Convolution1'"),
    ],
)  # fmt: skip
def test_another_network_is_refused(held, layers: Layers, name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=r"some\.caffemodel: .*" + message):
        held(layers, name)


def test_a_pytorch_file_is_no_dsod(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no network 'dsod300' to import"):
        import_pth(tmp_path / "some.pth", "dsod300")

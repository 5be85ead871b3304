"""Darknet's .weights: an independent writer and forward pass, exact lengths, and the way back."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.cli.main import main
from fssd.errors import CheckpointError, ConfigError
from fssd.export.darknet_files import darknet_cfg, export_darknet
from fssd.importers.yolov2_weights import import_darknet
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.weights.checkpoint import fill
from fssd.weights.pretrained import load_backbone

# The cfg as rows: (outputs, kernel, batch norm); "M" pools.
BODY: list[Any] = [
    (32, 3), "M", (64, 3), "M", (128, 3), (64, 1), (128, 3), "M", (256, 3), (128, 1), (256, 3), "M",
    (512, 3), (256, 1), (512, 3), (256, 1), (512, 3), "M",
    (1024, 3), (512, 1), (1024, 3), (512, 1), (1024, 3),
]  # fmt: skip
LENGTHS = {(2017, 20): 202_704_260, (2017, 80): 203_934_260, (2016, 20): 268_632_452}


@pytest.fixture(autouse=True)
def no_large_files_left(tmp_path: Path) -> Iterator[None]:
    yield
    for file in tmp_path.rglob("*"):
        if file.is_file():
            file.unlink()


class Writer:
    """Makes random layers and keeps their numbers in the order of the file."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.floats: list[np.ndarray] = []
        self.layers: list[dict[str, Tensor]] = []

    def conv(self, inputs: int, outputs: int, kernel: int, norm: bool = True) -> None:
        bound = (6 / (inputs * kernel * kernel)) ** 0.5
        draw = self.rng.random((outputs, inputs, kernel, kernel), np.float32)
        layer = {"bias": self._vector(outputs, -0.1, 0.1)}
        if norm:
            layer |= {
                "scale": self._vector(outputs, 0.9, 1.4),
                "mean": self._vector(outputs, -0.1, 0.1),
                "var": self._vector(outputs, 0.5, 1.5),
            }
        layer["weight"] = torch.from_numpy((draw - np.float32(0.5)) * np.float32(2 * bound))
        self.layers.append(layer)
        self.floats += [part.numpy().ravel() for part in layer.values()]

    def _vector(self, size: int, low: float, high: float) -> Tensor:
        return torch.from_numpy(self.rng.uniform(low, high, size).astype(np.float32))


def write_yolov2(
    file: Path,
    classes: int,
    generation: int = 2017,
    version: tuple[int, int, int] = (0, 1, 0),
    seen: int = 32,
) -> Writer:
    writer, inputs = Writer(1), 3
    for row in BODY:
        if row != "M":
            writer.conv(inputs, *row)
            inputs = row[0]
    writer.conv(1024, 1024, 3)
    writer.conv(1024, 1024, 3)
    if generation == 2017:
        writer.conv(512, 64, 1)
    writer.conv((256 if generation == 2017 else 2048) + 1024, 1024, 3)
    writer.conv(1024, 5 * (5 + classes), 1, norm=False)
    counter = struct.pack("<Q" if version[0] * 10 + version[1] >= 2 else "<i", seen)
    with file.open("wb") as handle:
        handle.write(struct.pack("<3i", *version) + counter)
        for part in writer.floats:
            part.tofile(handle)
    return writer


def forward(writer: Writer, images: Tensor, generation: int) -> Tensor:
    """RGB in 0..1 through the layers as darknet's cfg has them."""
    layers = iter(writer.layers)

    def conv(x: Tensor) -> Tensor:
        layer = next(layers)
        x = F.conv2d(x, layer["weight"], padding=layer["weight"].shape[-1] // 2)
        if "scale" not in layer:
            return x + layer["bias"][:, None, None]
        x = (x - layer["mean"][:, None, None]) / (layer["var"][:, None, None] + 1e-5).sqrt()
        x = x * layer["scale"][:, None, None] + layer["bias"][:, None, None]
        return torch.where(x > 0, x, 0.1 * x)

    x = source = images
    for row in BODY:
        if row == "M":
            source, x = x, F.max_pool2d(x, 2)  # the last pool reads the source of the passthrough
        else:
            x = conv(x)
    deep = conv(conv(x))
    passed = reorg(conv(source) if generation == 2017 else source)
    return conv(conv(torch.cat((passed, deep), dim=1)))


def reorg(x: Tensor) -> Tensor:
    """By the formula, on flat memory."""
    _, channels, rows, columns = x.shape
    that = x.reshape(channels // 4, 2 * rows, 2 * columns)
    k, j, i = torch.meshgrid(*map(torch.arange, (channels, rows, columns)), indexing="ij")
    offset = k // (channels // 4)
    out = that[k % (channels // 4), 2 * j + offset // 2, 2 * i + offset % 2]
    return out.reshape(1, 4 * channels, rows // 2, columns // 2)


@pytest.mark.parametrize(
    ("generation", "version", "classes"), [(2017, (0, 1, 0), 20), (2016, (0, 2, 0), 3)], ids=str
)
def test_import_computes_what_darknet_does(
    generation: int, version: tuple[int, int, int], classes: int, tmp_path: Path
) -> None:
    file = tmp_path / "yolo.weights"
    writer = write_yolov2(file, classes, generation, version, seen=64_000)
    found = import_darknet(file, "yolov2-128")
    assert found.num_classes == classes and not found.unused
    assert found.options == ({} if generation == 2017 else {"generation": 2016, "geometry": "warp"})
    network = build_model("yolov2-128", classes, **found.options).eval()
    fill(network, found.tensors, file)
    assert int(network.heads.seen) == 64_000
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        (ours,) = network(images * 255)
        theirs = forward(writer, images, generation)
    assert ours.shape == theirs.shape == (1, 5 * (5 + classes), 4, 4)
    assert float(theirs.std()) > 0.05
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def empty_file(file: Path, length: int) -> Path:
    """A file of zeros of a length, which takes no space on disk."""
    with file.open("wb") as handle:
        handle.write(struct.pack("<4i", 0, 1, 0, 7))
        handle.truncate(length)
    return file


@pytest.mark.parametrize(("generation", "classes"), LENGTHS)
def test_published_lengths_tell_generation_and_classes(generation: int, classes: int, tmp_path: Path) -> None:
    file = empty_file(tmp_path / "yolo.weights", LENGTHS[generation, classes])
    found = import_darknet(file, "yolov2-416")
    assert found.num_classes == classes
    assert found.options.get("generation", 2017) == generation
    assert found.options.get("priors", "voc") == ("coco" if classes == 80 else "voc")
    assert int(found.tensors["heads.seen"]) == 7


@pytest.mark.parametrize("length", [202_704_256, 202_704_264, 1000, 202_704_260 - 81 * 1025 * 4])
def test_any_other_length_is_refused(length: int, tmp_path: Path) -> None:
    file = empty_file(tmp_path / "yolo.weights", length)
    with pytest.raises(CheckpointError) as caught:
        import_darknet(file, "yolov2-416")
    message = str(caught.value)
    assert f"has {length:,} bytes" in message
    assert "202,704,260 with 20 classes (2017)" in message and "203,934,260 with 80 classes" in message


def test_wrong_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = empty_file(tmp_path / "yolo.weights", 202_704_260)
    with pytest.raises(ConfigError, match=r"read as yolov2-416 .* not fssd300-vgg16"):
        import_darknet(file, "fssd300-vgg16")
    with pytest.raises(ConfigError, match="no table of anchors 'vok'; did you mean 'voc'"):
        import_darknet(file, "yolov2-416", "vok")
    out = ["--out", str(tmp_path / "out")]
    assert main(["import", str(file), "--model", "yolov2-416", "--colours", "bgr", *out]) == 2
    assert "darknet reads RGB" in capsys.readouterr().err
    assert main(["import", str(file), "--model", "darknet19", "--classes", "voc", *out]) == 2
    assert "darknet19 is a backbone without classes" in capsys.readouterr().err


def test_a_number_that_is_not_finite_is_named(tmp_path: Path) -> None:
    file = empty_file(tmp_path / "yolo.weights", 202_704_260)
    with file.open("r+b") as handle:
        handle.seek(16)
        handle.write(struct.pack("<f", float("nan")))
    with pytest.raises(CheckpointError, match=r"'backbone.conv1.1.bias' has numbers that are not finite"):
        import_darknet(file, "yolov2-416")


def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Import, detect, export to darknet: the floats are the file's again, the header is the current one's."""
    file = tmp_path / "yolo.weights"
    write_yolov2(file, 20, seen=128)
    folder = tmp_path / "model"
    assert main(["import", str(file), "--model", "yolov2-128", "--out", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "50,655,389 parameters" in told and "20, aeroplane ... tvmonitor" in told
    assert "priors: 80, 5 anchors in each of 4 x 4 cells" in told
    detector = Detector.load(folder)
    assert int(detector.network.heads.seen) == 128
    assert len(detector(np.zeros((90, 120, 3), np.uint8), score=0.005)) > 0
    back = tmp_path / "back.weights"
    assert main(["export", str(folder), "--to", "darknet", "--out", str(back)]) == 0
    assert "50,676,061 numbers" in capsys.readouterr().out
    written = back.read_bytes()
    assert struct.unpack("<3iQ", written[:20]) == (0, 2, 0, 128)
    assert written[20:] == file.read_bytes()[16:]
    with torch.device("meta"):
        assert back.with_suffix(".cfg").read_text() == darknet_cfg(build_model("yolov2-128", 20))


def test_the_cfg_describes_the_network() -> None:
    """Its filters, kernels and routes give the counts of the published files."""
    for (generation, classes), length in LENGTHS.items():
        with torch.device("meta"):
            network = build_model("yolov2-416", classes, generation=generation)
        floats, outputs = 0, []
        for section in darknet_cfg(network).split("[")[1:]:
            kind, _, rest = section.partition("]")
            values = dict(line.split("=") for line in rest.split())
            before = outputs[-1] if outputs else 3
            if kind == "convolutional":
                n, k = int(values["filters"]), int(values["size"])
                norm = "batch_normalize" in values
                floats += n * before * k * k + n * (4 if norm else 1)
                outputs.append(n)
                assert values["activation"] == ("leaky" if norm else "linear")
            elif kind == "maxpool":
                outputs.append(before)
            elif kind == "reorg":
                outputs.append(4 * before)
            elif kind == "route":
                outputs.append(sum(outputs[int(layer)] for layer in values["layers"].split(",")))
            elif kind == "net":
                assert (values["width"], values["height"]) == ("416", "416")
            else:
                assert kind == "region" and values["classes"] == str(classes)
                assert before == 5 * (5 + classes) and len(values["anchors"].split(",")) == 10
        assert 16 + 4 * floats == length


def test_other_networks_are_not_written(tmp_path: Path) -> None:
    network = build_model("fssd300-lite", 2)
    with pytest.raises(ConfigError, match="for YOLOv2 on Darknet-19, not for fssd300-lite"):
        export_darknet(Detector(network, ("a", "b")), tmp_path / "x.weights")


@pytest.mark.parametrize(("name", "value"), [("mean", [0, 0, 9]), ("std", [255, 128, 255])])
def test_pixels_that_darknet_would_see_otherwise(tmp_path: Path, name: str, value: list[float]) -> None:
    """It divides by 255 and knows neither a mean nor another std."""
    network = build_model("yolov2-128", 2, width=16, **{name: value})
    with pytest.raises(ConfigError, match=f"has a {name} of .*, and darknet's is always"):
        export_darknet(Detector(network, ("a", "b")), tmp_path / "x.weights")
    assert not list(tmp_path.iterdir())


def test_the_backbone_alone_starts_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "darknet19_448.conv.23"
    writer, inputs = Writer(4), 3
    for row in BODY:
        if row != "M":
            writer.conv(inputs, *row)
            inputs = row[0]
    with file.open("wb") as handle:
        handle.write(struct.pack("<4i", 0, 1, 0, 0))
        for part in writer.floats:
            part.tofile(handle)
    assert file.stat().st_size == 79_327_120
    assert main(["import", str(file), "--model", "darknet19", "--out", str(tmp_path)]) == 0
    assert "fssd train --model yolov2-416 --weights" in capsys.readouterr().out
    network = build_model("yolov2-128", 1, width=16)
    last = network.backbone.get_submodule("conv18")
    for weights in (file, tmp_path / "backbone.safetensors"):
        last[0].weight.data.zero_()
        assert load_backbone(network, weights) == 18 * 5
        assert torch.equal(last[0].weight, writer.layers[17]["weight"])
        assert torch.equal(last[1].running_var, writer.layers[17]["var"])

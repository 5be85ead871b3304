"""MobileNetV1 and V2 against second writers and forward passes that know only the papers' tables."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.backbones.backbone import Backbone, probe_shapes
from fssd.backbones.mobilenet import MobileNetV1, MobileNetV2
from fssd.model.build import build_model
from fssd.model.cost import parameters
from fssd.model.fold import fold
from fssd.weights.pretrained import load_backbone

MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)  # of images in 0..1
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
# V1, Table 1: (stride, outputs) after the first convolution of 32 channels and stride 2.
V1 = [(1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *[(1, 512)] * 5, (2, 1024), (1, 1024)]
V1_MAPS = {5: "C3", 11: "C4", 13: "C5"}  # after so many layers
# V2, Table 2: (expansion, outputs, repeats, stride)
V2 = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]
V2_MAPS = {6: "C3", 13: "C4", 17: "C5"}

Run = Callable[[Tensor], Tensor]


class Writer:
    """Collects random layers under the names of a file, and what each computes."""

    def __init__(self) -> None:
        self.random = torch.Generator().manual_seed(5)
        self.tensors: dict[str, Tensor] = {}

    def layer(
        self,
        conv: str,
        norm: str,
        shape: tuple[int, int, int],
        stride: int = 1,
        groups: int = 1,
        top: float = 0,
    ) -> Run:
        """Convolution, batch norm and, with a `top`, clipping to 0..top. shape: inputs, outputs, side."""
        inputs, outputs, side = shape
        spread = (2 * groups / (inputs * side * side)) ** 0.5
        weight = torch.randn(outputs, inputs // groups, side, side, generator=self.random) * spread
        scale, var = (torch.rand(outputs, generator=self.random) + 0.5 for _ in range(2))
        shift, mean = (torch.rand(outputs, generator=self.random) * 0.2 for _ in range(2))
        self.tensors[f"{conv}.weight"] = weight
        parts = {"weight": scale, "bias": shift, "running_mean": mean, "running_var": var}
        self.tensors |= {f"{norm}.{part}": value for part, value in parts.items()}
        self.tensors[f"{norm}.num_batches_tracked"] = torch.tensor(7)

        def run(x: Tensor) -> Tensor:
            y = F.conv2d(x, weight, stride=stride, padding=side // 2, groups=groups)
            y = (y - mean[:, None, None]) / (var + 1e-5).sqrt()[:, None, None]
            y = y * scale[:, None, None] + shift[:, None, None]
            return y.clamp(0, top) if top else y

        return run


def v1(ours: bool) -> tuple[dict[str, Tensor], Callable[[Tensor], dict[str, Tensor]]]:
    """A file, by this package's names or those of marvis/pytorch-mobilenet, and its forward pass."""
    own = ["2_1", "2_2", "3_1", "3_2", "4_1", "4_2", "5_1", "5_2", "5_3", "5_4", "5_5", "5_6", "6"]
    writer, layers, inputs, top = Writer(), [], 32, torch.inf
    first = ("conv1.0", "conv1.1") if ours else ("model.0.0", "model.0.1")
    stem = writer.layer(*first, (3, 32, 3), 2, top=top)
    for number, (stride, outputs) in enumerate(V1, start=1):
        base = f"conv{own[number - 1]}" if ours else f"model.{number}"
        names = ("dw.0", "dw.1", "sep.0", "sep.1") if ours else ("0", "1", "3", "4")
        dw, dw_norm, sep, sep_norm = (f"{base}.{name}" for name in names)
        layers.append(writer.layer(dw, dw_norm, (inputs, inputs, 3), stride, inputs, top))
        layers.append(writer.layer(sep, sep_norm, (inputs, outputs, 1), top=top))
        inputs = outputs
    writer.tensors["fc.weight"], writer.tensors["fc.bias"] = torch.rand(1000, 1024), torch.rand(1000)

    def forward(x: Tensor) -> dict[str, Tensor]:
        x, maps = stem(x), {}
        for index, layer in enumerate(layers):
            x = layer(x)
            if index % 2 and index // 2 + 1 in V1_MAPS:
                maps[V1_MAPS[index // 2 + 1]] = x
        return maps

    return writer.tensors, forward


def v2() -> tuple[dict[str, Tensor], Callable[[Tensor], dict[str, Tensor]]]:
    """A file of torchvision's, and its forward pass."""
    writer, blocks, inputs, index = Writer(), [], 32, 1
    stem = writer.layer("features.0.0", "features.0.1", (3, 32, 3), 2, top=6)
    for expansion, outputs, repeats, first in V2:
        for repeat in range(repeats):
            stride, hidden, base, n, runs = (
                first if repeat == 0 else 1,
                inputs * expansion,
                f"features.{index}.conv",
                0,
                [],
            )
            if expansion > 1:
                runs.append(writer.layer(f"{base}.0.0", f"{base}.0.1", (inputs, hidden, 1), top=6))
                n = 1
            runs.append(
                writer.layer(f"{base}.{n}.0", f"{base}.{n}.1", (hidden, hidden, 3), stride, hidden, 6)
            )
            runs.append(writer.layer(f"{base}.{n + 1}", f"{base}.{n + 2}", (hidden, outputs, 1)))
            blocks.append((runs, stride == 1 and inputs == outputs))
            inputs, index = outputs, index + 1
    writer.layer("features.18.0", "features.18.1", (320, 1280, 1), top=6)
    writer.tensors["classifier.1.weight"], writer.tensors["classifier.1.bias"] = (
        torch.rand(1000, 1280),
        torch.rand(1000),
    )

    def forward(x: Tensor) -> dict[str, Tensor]:
        x, maps = stem(x), {}
        for number, (runs, added) in enumerate(blocks, start=1):
            y = x
            for run in runs:
                y = run(y)
            x = x + y if added else y
            if number in V2_MAPS:
                maps[V2_MAPS[number]] = x
        return maps

    return writer.tensors, forward


@pytest.mark.parametrize("made", ["v1-ours", "v1-marvis", "v2"])
def test_files_give_the_maps_of_their_network(made: str, tmp_path: Path) -> None:
    tensors, forward = v2() if made == "v2" else v1(made == "v1-ours")
    network = build_model(f"fssd300-mobilenet{made[:2]}", 1).eval()
    file = tmp_path / "mobilenet.pth"
    torch.save(tensors, file)
    ignored = ("fc.", "classifier.", "features.18.")
    taken = [k for k in tensors if not k.startswith(ignored) and not k.endswith("tracked")]
    assert load_backbone(network, file) == len(taken)
    pixels = torch.rand(1, 3, 150, 97, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        found = network.backbone((pixels - network.mean) / network.std)
        expected = forward((pixels / 255 - MEAN) / STD)
        folded = fold(network)
        again = folded.backbone((pixels - folded.mean) / folded.std)
    assert list(found) == list(expected) == ["C3", "C4", "C5"]
    for key, x in found.items():
        assert expected[key].std() > 0.05
        largest = float(expected[key].abs().max())  # what rounding errors of 50 layers grow with
        torch.testing.assert_close(x, expected[key], rtol=1e-4, atol=1e-4 * largest)
        torch.testing.assert_close(again[key], x, rtol=1e-4, atol=1e-4 * largest)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.backbone.modules())
    assert network.backbone.shapes(97, 150) == {k: tuple(x.shape[1:]) for k, x in found.items()}


@pytest.mark.parametrize(
    ("kind", "whole", "classifier"),
    [(MobileNetV1, 4_231_976, 1000 * 1025), (MobileNetV2, 3_504_872, 1000 * 1281 + 1280 * (320 + 2))],
)
def test_parameters_are_the_published_ones(kind: type[Backbone], whole: int, classifier: int) -> None:
    with torch.device("meta"):
        backbone = kind()
    assert parameters(backbone) == whole - classifier
    widths = (256, 512, 1024) if kind is MobileNetV1 else (32, 96, 320)
    cells = zip(("C3", "C4", "C5"), widths, (38, 19, 10), strict=True)
    assert backbone.shapes(300, 300) == {name: (width, side, side) for name, width, side in cells}
    assert backbone.shapes(257, 130) == probe_shapes(backbone, 257, 130)


@pytest.mark.parametrize(("kind", "stages"), [(MobileNetV1, 5), (MobileNetV2, 7)])
def test_stages_hold_every_weight_once(kind: type[Backbone], stages: int) -> None:
    with torch.device("meta"):
        backbone = kind()
    found = [[id(p) for m in stage for p in m.parameters()] for stage in backbone.stages()]
    assert len(found) == stages
    assert sorted(chain.from_iterable(found)) == sorted(id(p) for p in backbone.parameters())


def test_another_networks_file_is_refused(tmp_path: Path) -> None:
    from fssd.errors import CheckpointError

    file = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, file)
    with pytest.raises(
        CheckpointError, match=r"has no 'features\.0\.0\.weight'; these weights are of another"
    ):
        load_backbone(build_model("fssd300-mobilenetv2", 1), file)

"""DSSD's deconvolutions against index arithmetic, its counts and centres, its two stages, a whole life."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.backbones.resnet import ResNet50Caffe
from fssd.errors import ConfigError
from fssd.export.write import export_model
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.model.cost import multiply_adds, parameters
from fssd.model.fold import fold
from fssd.model.network import Network
from fssd.runtimes.choose import RUNTIMES
from fssd.training.optim import make_optimizer
from fssd.weights.checkpoint import save_model
from fssd.weights.pretrained import load_ssd

SIDES = {300: [38, 19, 10, 5, 3, 1], 512: [64, 32, 16, 8, 4, 2, 1]}


def meta(name: str, classes: int = 20, **options: Any) -> Network:
    with torch.device("meta"):
        return build_model(name, classes, **options)


# ---------------------------------------------------------------- the reference


def enlarged(x: Tensor, size: int, weight: Tensor, bias: Tensor, step: int, cut: int) -> Tensor:
    """Each cell (i, j) adds its kernel at (step i, step j); `cut` cells at the top and left are dropped."""
    kernel, side = weight.shape[-1], x.shape[-1]
    whole = torch.zeros(x.shape[0], weight.shape[1], *[(side - 1) * step + kernel] * 2)
    for a in range(kernel):
        for b in range(kernel):
            rows = slice(a, a + (side - 1) * step + 1, step)
            columns = slice(b, b + (side - 1) * step + 1, step)
            whole[:, :, rows, columns] += torch.einsum("io,nihw->nohw", weight[:, :, a, b], x)
    return whole[:, :, cut : cut + size, cut : cut + size] + bias[:, None, None]


def normalised(x: Tensor) -> Tensor:
    """Of a fresh batch norm in training: eps 1e-3."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (var + 1e-3).sqrt()


def merged(neck: Any, sources: list[Tensor], merge: str) -> list[Tensor]:
    tensors = neck.state_dict()
    # From 1 to 3 and 3 to 5 the kernel is 3 and the stride 1; 10 to 19 drops a row, all others double.
    windows = {(1, 3): (1, 0), (3, 5): (1, 0), (10, 19): (2, 1)}
    out = [sources[-1]]
    for i in range(len(sources) - 2, -1, -1):
        name, fine = f"deconvolutions.{i}", sources[i]
        step, cut = windows.get((out[-1].shape[-1], fine.shape[-1]), (2, 0))
        weight, bias = tensors[f"{name}.enlarge.weight"], tensors[f"{name}.enlarge.bias"]
        coarse = enlarged(out[-1], fine.shape[-1], weight, bias, step, cut)
        coarse = normalised(F.conv2d(coarse, tensors[f"{name}.above.0.weight"], padding=1))
        side = normalised(F.conv2d(fine, tensors[f"{name}.side.0.0.weight"], padding=1)).relu()
        side = normalised(F.conv2d(side, tensors[f"{name}.side.1.0.weight"], padding=1))
        out.append((coarse * side if merge == "product" else coarse + side).relu())
    return out[::-1]


@pytest.mark.parametrize(("side", "merge"), [(300, "product"), (512, "sum")])
def test_levels(side: int, merge: str) -> None:
    """From conv7_2 (10 or 16 cells) on, where the maps are small and all kinds of windows but one occur."""
    torch.manual_seed(0)
    with torch.device("meta"):
        neck = build_model(f"dssd{side}-vgg16", 1, merge=merge).neck
    sides, widths = SIDES[side], [512, 1024, 512, 256, 256, 256, 256]
    first = 1 if side == 300 else 2  # the level that is compared as the finest
    neck.deconvolutions = neck.deconvolutions[first:]
    neck = neck.to_empty(device="cpu")
    for key, tensor in neck.deconvolutions.named_parameters():
        tensor.data.normal_(0, 0.02) if "bias" not in key else tensor.data.zero_()
    for norm in (m for m in neck.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_parameters()
    sources = [torch.rand(2, w, s, s) for w, s in zip(widths, sides, strict=False)][first:]
    with torch.no_grad():
        found = [sources[-1]]
        for deconvolution, fine in zip(neck.deconvolutions[::-1], sources[-2::-1], strict=True):
            found.append(deconvolution(found[-1], fine))
        expected = merged(neck, sources, merge)
    assert [x.shape[-1] for x in expected] == sides[first:]
    for ours, theirs in zip(found[::-1], expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_neck_merges_the_levels_of_ssd() -> None:
    torch.manual_seed(0)
    neck = build_model("dssd300-lite", 1).neck.eval()
    features = {
        name: torch.rand(1, c, s, s)
        for name, c, s in (("stride8", 240, 38), ("stride16", 672, 19), ("stride32", 320, 10))
    }
    with torch.no_grad():
        levels = neck(features)
        maps = features | neck.extras(features["stride32"])
        x = maps[neck.taken[-1]]
        assert torch.equal(levels[-1], x)
        for i in range(4, -1, -1):
            x = neck.deconvolutions[i](x, maps[neck.taken[i]])
            assert torch.equal(levels[i], x)
            assert x.shape == (1, 160, SIDES[300][i], SIDES[300][i])
            assert float(x.min()) == 0  # after ReLU


# ---------------------------------------------------------------- counts

THREES = {"kernels": []}
COCO_SSD = {"prediction_widths": [128, 512]}


@pytest.mark.parametrize(
    ("name", "classes", "options", "expected"),
    [
        ("ssd321-resnet101", 20, {}, 116_526_320),
        ("ssd321-resnet101", 80, {}, 158_799_920),
        ("ssd321-resnet101", 20, {"prediction": "a"}, 105_424_112),
        ("ssd321-resnet101", 80, {"prediction": "a"}, 153_841_712),
        ("ssd321-resnet101", 20, {"prediction": "b"}, 114_635_504),
        ("ssd321-resnet101", 20, {"prediction": "d"}, 129_533_168),
        ("ssd321-resnet101", 20, THREES, 109_972_720),
        ("ssd321-resnet101", 80, THREES, 136_517_680),
        ("dssd321-resnet101", 20, {}, 172_380_912),
        ("dssd321-resnet101", 80, {}, 214_654_512),
        ("dssd321-resnet101", 20, THREES, 165_827_312),
        ("dssd321-resnet101", 80, THREES, 192_372_272),
        ("ssd513-resnet101", 20, {}, 113_530_296),
        ("ssd513-resnet101", 80, {}, 160_228_056),
        ("ssd513-resnet101", 20, COCO_SSD, 120_303_544),
        ("ssd513-resnet101", 80, COCO_SSD, 173_145_304),
        ("dssd513-resnet101", 20, {}, 175_286_712),
        ("dssd513-resnet101", 80, {}, 221_984_472),
        ("dssd513-resnet101", 20, {"inter": 512}, 231_633_336),
        ("dssd513-resnet101", 80, {"inter": 512}, 254_983_896),
    ],
    ids=str,
)
def test_parameters(name: str, classes: int, options: dict[str, Any], expected: int) -> None:
    assert parameters(meta(name, classes, **options)) == expected


def test_parameters_of_the_parts() -> None:
    network = meta("dssd321-resnet101")
    deconvolutions = parameters(network.neck.deconvolutions)
    prediction = parameters(network.heads.prediction)
    assert (deconvolutions, prediction) == (59_786_752, 9_730_048)
    assert parameters(network.heads) - prediction == 17_614_000
    assert parameters(network.backbone) + parameters(network.neck) - deconvolutions == 85_250_112


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("ssd321-resnet101", 35.9),
        ("dssd321-resnet101", 53.9),
        ("ssd513-resnet101", 91.8),
        ("dssd513-resnet101", 137.6),
    ],
)
def test_multiply_adds(name: str, giga: float) -> None:
    assert multiply_adds(meta(name)) / 1e9 == pytest.approx(giga, abs=0.05)


def test_parameters_on_vgg16_by_hand() -> None:
    """Each of five modules: a deconvolution with bias, three 3x3 to 512 channels, three norms."""
    sources, kernels = [512, 1024, 512, 256, 256, 256], [2, 3, 2, 3, 3]
    coarse = [512, 512, 512, 512, 256]
    neck = sum(
        coarse[i] * 512 * kernels[i] ** 2 + 512 + 9 * 512 * (sources[i] + 2 * 512) + 6 * 512 for i in range(5)
    )
    anchors = [4, 6, 6, 6, 4, 4]
    heads = sum(9 * 25 * a * ((512 if i < 5 else 256) - sources[i]) for i, a in enumerate(anchors))
    assert parameters(meta("dssd300-vgg16")) == parameters(meta("ssd300-vgg16")) + neck + heads
    assert len(meta("dssd300-vgg16").heads.priors) == 8732
    assert len(meta("dssd512-vgg16").heads.priors) == 24564


# ---------------------------------------------------------------- training and files


class OneBlock(ResNet50Caffe):
    """A bottleneck a stage, so that tests are quick."""

    blocks = (1, 1, 1, 1)


def test_every_layer_of_the_neck_learns() -> None:
    torch.manual_seed(0)
    network = build_model("dssd128-lite", 2)
    raw = network(torch.rand(2, 3, 128, 128) * 255)
    (raw.offsets.square().sum() + raw.logits.square().sum()).backward()
    still = [key for key, p in network.neck.named_parameters() if p.grad is None or not p.grad.any()]
    # A light block starts as its shortcut: the scale of its last norm is 0, so what is before it waits.
    waiting = ("separable.0.weight", "separable.1.weight", "separable.1.bias", "separable.3.weight")
    assert [key for key in still if not key.endswith(waiting)] == []


def test_it_starts_from_an_ssd_and_its_last_prediction_module(tmp_path: Path) -> None:
    options = {"size": 128, "prediction_widths": [8] * 5, "kernels": []}
    torch.manual_seed(0)
    ssd, dssd = (
        build_model(f"{name}321-resnet101", 1, backbone=OneBlock(), **options) for name in ("ssd", "dssd")
    )
    file = tmp_path / "ssd.safetensors"
    save_model(file, ssd.state_dict(), ssd, ("thing",), {})
    load_ssd(dssd, file)
    optimizer = make_optimizer(dssd, momentum=0.9, weight_decay=0.0, bias_lr=1.0, new_layers_lr=2.0)
    rates = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    own = ssd.state_dict()
    last = len(dssd.neck.cells) - 1
    for key, tensor in dssd.named_parameters():
        of_ssd = key.startswith(("backbone", "neck.extras"))
        assert rates[id(tensor)] == (1 if of_ssd else 2), key
        if of_ssd or key.startswith(f"heads.prediction.{last}."):
            assert torch.equal(tensor, own[key]), key
        elif key.endswith("0.weight") and key in own:
            assert not torch.equal(tensor, own[key]), key


def test_folding_changes_nothing() -> None:
    torch.manual_seed(0)
    options = {"prediction": "d", "prediction_widths": [16] * 5, "inter": 16, "size": [128, 160]}
    network = build_model("dssd321-resnet101", 2, backbone=OneBlock(), **options)
    images = torch.rand(4, 3, 160, 128) * 255
    with torch.no_grad():
        for _ in range(2):
            network(images)  # running statistics that are not 0 and 1
        network.eval()
        folded = fold(network)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
        for ours, theirs in zip(network(images), folded(images), strict=True):
            assert float((theirs - ours).abs().max()) < 1e-4 * float(ours.abs().max())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dssd300-vgg16", {"merge": "products"}, "DSSD has no merge 'products'; did you mean 'product'"),
        ("dssd300-vgg16", {"extras": "residua"}, "there are no extras 'residua'; did you mean 'residual'"),
        (
            "ssd300-lite",
            {"extras": "residual"},
            "ssd300-lite is of light width, and extras 'residual' of full",
        ),
        ("dssd300-lite", {"resize": "nearest"}, "has no option 'resize'"),
    ],
    ids=str,
)
def test_wrong_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        meta(name, **options)
    assert message in str(caught.value)


def test_it_trains_evaluates_exports_and_opens(whole_life: Callable[..., Detector]) -> None:
    detector = whole_life("dssd128-lite", size=128, merge="sum")
    assert detector.network.neck.channels == [160] * 5


def test_a_dssd_of_residual_blocks_trains_and_is_exported(
    tmp_path: Path, one_trace: None, few_pictures: None
) -> None:
    """DSSD321 at 128 px on a small ResNet."""
    pytest.importorskip("onnx", reason='needs onnx: pip install "fssd[export]"')
    pytest.importorskip("openvino", reason='needs openvino: pip install "fssd[openvino]"')
    torch.manual_seed(0)
    widths = {"prediction_widths": [16] * 5}
    network = build_model("dssd321-resnet101", 2, size=128, backbone=OneBlock(), **widths)
    images = torch.rand(4, 3, 128, 128) * 255
    boxes = np.array([[20, 20, 80, 90], [10, 60, 50, 110]], np.float32)
    targets = {
        key: value[None].repeat(4, *[1] * value.ndim)
        for key, value in network.heads.targets(boxes, np.array([0, 1])).items()
    }
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    losses = []
    for _ in range(6):
        loss = network.heads.loss(network(images), targets)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    detector = Detector(network.eval(), ("one", "other"), {"iteration": 8})
    for to in ("onnx", "openvino"):
        parity = export_model(detector, tmp_path / f"{to}{RUNTIMES[to].suffix}", to).parity
        assert parity is not None and parity.detections > 0

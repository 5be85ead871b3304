"""Prediction modules of DSSD and other predictors: forward passes written out, counts, wrong options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.errors import ConfigError
from fssd.heads.multibox.priors import prior_sizes, table_scale
from fssd.model.build import build_model
from fssd.model.cost import parameters
from fssd.model.network import Network


def meta(name: str, **options: Any) -> Network:
    with torch.device("meta"):
        return build_model(name, 20, **options)


# ---------------------------------------------------------------- modules


def normalised(tensors: dict[str, Tensor], name: str, x: Tensor, padding: int = 0) -> Tensor:
    x = F.conv2d(x, tensors[f"{name}.0.weight"], padding=padding)
    gamma, beta = (tensors[f"{name}.1.{key}"][:, None, None] for key in ("weight", "bias"))
    return x / (1 + 1e-3) ** 0.5 * gamma + beta


def block(tensors: dict[str, Tensor], name: str, x: Tensor, middle: int) -> Tensor:
    """Statistics are fresh: mean 0 and variance 1."""
    side = normalised(tensors, f"{name}.skip", x) if f"{name}.skip.0.weight" in tensors else x
    out = normalised(tensors, f"{name}.body.0", x).relu()
    out = normalised(tensors, f"{name}.body.1", out, padding=middle // 2).relu()
    return (side + normalised(tensors, f"{name}.body.2", out)).relu()


@pytest.mark.parametrize(
    ("kind", "middle", "blocks"),
    [("b", 3, ("",)), ("b", 1, ("",)), ("c", 3, ("",)), ("c", 1, ("",)), ("d", 3, (".0", ".1"))],
)
def test_modules_are_the_figures(kind: str, middle: int, blocks: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    widths = {} if kind == "b" else {"prediction_widths": [8, 16, 8, 8, 8, 8]}
    heads = build_model("fpn300-vgg16", 1, prediction=kind, prediction_kernel=middle, **widths).heads.eval()
    for key, tensor in heads.named_parameters():
        if key.startswith("prediction"):
            tensor.data.normal_(0.1, 0.2)
    levels = [torch.randn(2, 256, n, n) for n in (38, 19, 10, 5, 3, 1)]
    tensors = heads.state_dict()
    with torch.no_grad():
        raw = heads(levels)
        expected = []
        for index, (level, map_) in enumerate(zip(heads.levels, levels, strict=True)):
            x = map_
            for name in blocks:
                x = block(tensors, f"prediction.{index}{name}", x, middle)
            weight, bias = tensors[f"conf.{index}.weight"], tensors[f"conf.{index}.bias"]
            assert weight.shape == (2 * level.anchors, 256 if kind == "b" else 64 if index == 1 else 32, 3, 3)
            expected.append(F.conv2d(x, weight, bias, padding=1).permute(0, 2, 3, 1).reshape(2, -1, 2))
    torch.testing.assert_close(raw.logits, torch.cat(expected, 1), rtol=1e-3, atol=1e-2)


def test_no_module_leaves_names_and_numbers_as_they_are() -> None:
    plain, none = meta("ssd300-vgg16"), meta("ssd300-vgg16", prediction="a", kernels=[], prior_rule="ssd")
    assert list(plain.state_dict()) == list(none.state_dict())
    assert not any("prediction" in key for key in plain.state_dict())


def test_kernels_and_the_convolution_before_the_predictors() -> None:
    heads = meta("ssd300-vgg16", kernels=[5, 1], inter=32).heads
    assert [head[1].kernel_size for head in heads.loc] == [(5, 5), (1, 1), *[(3, 3)] * 4]
    assert [head[1].padding for head in heads.conf] == [(2, 2), (0, 0), *[(1, 1)] * 4]
    assert [head[0][0].weight.shape for head in heads.loc[:2]] == [(32, 512, 3, 3), (32, 1024, 3, 3)]
    anchors, widths, kernels = (4, 6, 6, 6, 4, 4), (512, 1024, 512, 256, 256, 256), (5, 1, 3, 3, 3, 3)
    rows = zip(anchors, widths, kernels, strict=True)
    count = sum(2 * (9 * w * 32 + 64) + 25 * a * (k * k * 32 + 1) for a, w, k in rows)
    assert parameters(heads) == count
    assert heads.class_layers() == [f"conf.{i}.1" for i in range(6)]


def test_larger_kernels_are_joined_when_folded() -> None:
    torch.manual_seed(0)
    heads = build_model("fpn300-vgg16", 2, kernels=[5, 1]).heads
    levels = [torch.randn(1, 256, n, n) for n in (38, 19, 10, 5, 3, 1)]
    with torch.no_grad():
        before = heads(levels)
        heads.fold()
        assert len(heads.joined) == 6
        for folded, own in zip(heads(levels), before, strict=True):
            torch.testing.assert_close(folded, own, rtol=1e-4, atol=1e-4)


def test_one_classifier_behind_modules_of_one_width() -> None:
    heads = meta("rssd300-vgg16", concatenation="pooling", prediction="c", shared_head=True).heads
    assert len(heads.loc) == 1 and len(heads.prediction) == 6  # levels of other widths become alike
    assert heads.loc[0].in_channels == 1024


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ssd300-vgg16", {"prediction": "e"}, "there is no prediction 'e'"),
        ("ssd300-vgg16", {"prediction_kernel": 1}, "prediction 'a' takes no prediction_kernel; leave one"),
        ("fpn300-vgg16", {"prediction": "b", "prediction_widths": [8]}, "'b' takes no prediction_widths"),
        ("ssd300-vgg16", {"prediction": "c", "prediction_kernel": 5}, "prediction_kernel is 5; it is 3"),
        ("ssd300-vgg16", {"prediction": "c", "prediction_widths": [0]}, "prediction_widths is 0; it must be"),
        ("ssd300-vgg16", {"prediction": "c", "prediction_widths": 64}, "prediction_widths is 64; it is a"),
        ("ssd300-vgg16", {"prediction": "c", "prediction_widths": [8] * 7}, "lists 7 levels, but"),
        ("ssd300-vgg16", {"kernels": [4]}, "kernels has 4; a kernel is 1, 3, 5, 7"),
        ("ssd300-vgg16", {"kernels": 5}, "kernels is 5; it is a list, level by level from the finest"),
        ("ssd300-vgg16", {"inter": 0}, "inter is 0; it must be 1 or more"),
        ("ssd300-vgg16", {"prior_rule": "dsd"}, "there is no prior_rule 'dsd'; did you mean 'dssd'"),
        ("ssd300-lite", {"prediction": "c"}, "is of light width, which has no prediction modules"),
        ("ssd300-lite", {"kernels": [5]}, "ssd300-lite is of light width, which has no kernels"),
        ("fpn300-vgg16", {"shared_head": True, "kernels": [5]}, "shared_head is one 3x3 for all levels"),
        ("fpn300-vgg16", {"shared_head": True, "inter": 8}, "shared_head is one 3x3 for all levels"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        meta(name, **options)
    assert message in str(caught.value)


# ---------------------------------------------------------------- priors


@pytest.mark.parametrize(
    ("size", "table", "percents", "whole"),
    [
        (321, "voc", [10, 20, 38, 56, 74, 92], [32, 64, 121, 179, 237, 295, 353]),
        (513, "coco", [4, 10, 27, 44, 61, 78, 95], [20, 51, 138, 225, 312, 400, 487, 574]),
        # Ours: SSD's first level at 512 px, then evenly to 95.
        (513, "voc", [7, 15, 31, 47, 63, 79, 95], None),
        (321, "coco", [7, 15, 35, 55, 75, 95], None),
    ],
)
def test_sizes_of_dssd(size: int, table: str, percents: list[int], whole: list[int] | None) -> None:
    levels = len(percents)
    borders = prior_sizes(size, levels, table_scale(size, levels, table, "dssd"))
    assert borders[:-1] == pytest.approx([size * p / 100 for p in percents])
    heads = meta(f"ssd{size}-resnet101", priors=table).heads
    assert [level.shapes[0][0] for level in heads.levels] == [int(border) for border in borders[:-1]]
    if whole is not None:
        assert [int(border) for border in borders] == whole
    cut = [int(border) for border in borders]
    for level, small, large in zip(heads.levels, cut, cut[1:], strict=False):
        assert level.shapes[1][0] == pytest.approx((small * large) ** 0.5, rel=1e-6)
        for (wide, low), ratio in zip(level.shapes[2::2], (1.6, 2, 3), strict=True):
            assert (wide, low) == pytest.approx((small * ratio**0.5, small / ratio**0.5), rel=1e-6)


def test_sizes_of_ssd_stay_as_they_were() -> None:
    """Other networks at 321 or 513 px keep the priors that their files were trained with."""
    assert table_scale(321, 6, "voc") == ((9, 19), 19, 17)
    assert table_scale(513, 7, "coco") == ((4, 9), 9, 16)


def test_first_priors_of_dssd321() -> None:
    """Cell (1, 2) of the finest level: centre (2.5 + 16, 2.5 + 8), squares of 32 and sqrt(32 * 64)."""
    network = build_model("ssd321-resnet101", 1, backbone="resnet50-caffe", prediction_widths=[1] * 6)
    boxes = network.heads.priors[8 * (40 + 2) : 8 * (40 + 3)]
    assert boxes[0].tolist() == [2.5, -5.5, 34.5, 26.5]
    side = (32 * 64) ** 0.5
    corners = [18.5 - side / 2, 10.5 - side / 2, 18.5 + side / 2, 10.5 + side / 2]
    assert boxes[1].tolist() == pytest.approx(corners)
    centres = (network.heads.priors[:, :2] + network.heads.priors[:, 2:]) / 2
    assert float(centres.min()) == 2.5 and float(centres.max()) == 314.5

"""R-SSD against index arithmetic, counts by hand, and a whole life of the light network."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.model.cost import multiply_adds, parameters
from fssd.model.fold import fold
from fssd.model.network import Network
from fssd.training.optim import make_optimizer
from fssd.training.start import check_batch
from fssd.weights.checkpoint import save_model
from fssd.weights.pretrained import load_ssd

SIDES = {300: [38, 19, 10, 5, 3, 1], 512: [64, 32, 16, 8, 4, 2, 1]}
WIDTHS = [512, 1024, 512, 256, 256, 256, 256]
ONE = {"shared_head": True}
DEPTHWISE = {"deconvolution": "depthwise"}


def meta(name: str, classes: int = 20, **options: Any) -> Network:
    with torch.device("meta"):
        return build_model(name, classes, **options)


def maps(side: int) -> dict[str, Tensor]:
    """What VGG16 gives the neck, at random."""
    generator = torch.Generator().manual_seed(1)
    fine, middle = SIDES[side][:2]
    return {
        "conv4_3": torch.rand(2, 512, fine, fine, generator=generator),
        "fc7": torch.rand(2, 1024, middle, middle, generator=generator),
    }


# ---------------------------------------------------------------- the reference


def pooled(x: Tensor, size: int, kind: str) -> Tensor:
    """Windows of 2 from 0, 2, 4, ..., the last one of an odd side alone; three cells become one."""
    side = x.shape[-1]
    if (side, size) == (3, 1):
        windows = [range(3)]
    else:
        windows = [range(i, min(i + 2, side)) for i in range(0, side, 2)]
    assert len(windows) == size
    out = torch.empty(*x.shape[:2], size, size)
    for i, rows in enumerate(windows):
        for j, columns in enumerate(windows):
            window = x[:, :, list(rows)][..., list(columns)]
            out[:, :, i, j] = window.amax((2, 3)) if kind == "max" else window.mean((2, 3))
    return out


def deconvolved(x: Tensor, size: int, weight: Tensor, bias: Tensor) -> Tensor:
    """Each cell (i, j) adds its kernel at (2 i - p, 2 j - p); p is 1 where that makes one less than twice."""
    side, kernel = x.shape[-1], weight.shape[-1]
    padding = 1 if size == 2 * side - 1 else 0
    whole = torch.zeros(x.shape[0], bias.numel(), 2 * side + 1, 2 * side + 1)
    for a in range(kernel):
        for b in range(kernel):
            matrix = weight[:, :, a, b]
            mixed = (
                x * matrix[:, :, None] if matrix.shape[1] == 1 else torch.einsum("io,nihw->nohw", matrix, x)
            )
            whole[:, :, a : a + 2 * side : 2, b : b + 2 * side : 2] += mixed
    return whole[:, :, padding : padding + size, padding : padding + size] + bias[:, None, None]


def rainbow(neck: Any, sources: list[Tensor], ways: str, kind: str) -> list[Tensor]:
    """All levels before the normalisation. ways: "both", "down" or "up"."""
    sides = [x.shape[-1] for x in sources]
    tensors = neck.state_dict()
    parts: list[list[Tensor]] = [[] for _ in sources]
    for j, source in enumerate(sources):
        copies = {j: source}
        for i in range(j - 1, -1, -1) if ways != "down" else ():
            key = f"up.{j}.{j - 1 - i}"
            weight, bias = tensors[f"{key}.weight"], tensors[f"{key}.bias"]
            copies[i] = deconvolved(copies[i + 1], sides[i], weight, bias)
        for i in range(j + 1, len(sides)) if ways != "up" else ():
            copies[i] = pooled(copies[i - 1], sides[i], kind)
        for i, copy in copies.items():
            parts[i].append(copy)
    return [torch.cat(row, dim=1) for row in parts]


def normalised(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * weight[:, None, None] + bias[:, None, None]


@pytest.mark.parametrize(
    ("side", "ways", "options"),
    [
        (300, "both", DEPTHWISE),
        (512, "both", DEPTHWISE),
        (300, "down", {"concatenation": "pooling", "pool": "average"}),
        (300, "up", {"concatenation": "deconvolution", "relu": True}),
    ],
    ids=str,
)
def test_levels(side: int, ways: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    neck = build_model(f"rssd{side}-vgg16", 2, **options).neck
    for key, tensor in neck.named_parameters():
        if key.startswith(("up", "norms")):
            tensor.data.normal_(0.5, 0.5)
    with torch.no_grad():
        found = neck(maps(side))
        features = maps(side) | neck.extras(maps(side)["fc7"])
        sources = [features[name] for name in neck.taken]
        expected = rainbow(neck, sources, ways, options.get("pool", "max"))
        assert [x.shape[-1] for x in found] == SIDES[side]
        assert [x.shape[1] for x in found] == neck.channels == [x.shape[1] for x in expected]
        for i, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            norm = neck.norms[i][0]
            levels = normalised(theirs, norm.weight, norm.bias)
            levels = levels.clamp(min=0) if options.get("relu") else levels
            torch.testing.assert_close(ours, levels, rtol=1e-3, atol=2e-3)


def test_a_norm_of_the_concatenation_is_one_of_every_source() -> None:
    """The paper normalises each source before they are concatenated."""
    torch.manual_seed(0)
    neck = build_model("rssd300-vgg16", 1, concatenation="pooling").neck
    with torch.no_grad():
        second = neck(maps(300))[1]
        finest = pooled(maps(300)["conv4_3"], 19, "max")
        one, two = torch.ones(512), torch.zeros(512)
        torch.testing.assert_close(second[:, :512], normalised(finest, one, two), rtol=1e-4, atol=1e-4)


def test_dense_deconvolutions_mix_channels() -> None:
    torch.manual_seed(0)
    layer = build_model("rssd300-vgg16", 1).neck.up[2][0]  # conv6_2, 10 to 19
    x = torch.rand(1, 512, 10, 10)
    with torch.no_grad():
        torch.testing.assert_close(
            layer(x), deconvolved(x, 19, layer.weight, layer.bias), rtol=1e-4, atol=1e-4
        )
    # Caffe's Xavier: a uniform of bound sqrt(3 / (512 outputs * 9))
    assert float(layer.weight.detach().abs().max()) == pytest.approx((3 / (512 * 9)) ** 0.5, rel=1e-4)
    assert not layer.bias.any()


# ---------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("name", "classes", "options", "expected"),
    [
        ("rssd300-vgg16", 20, {}, 54_705_070),
        ("rssd300-vgg16", 80, {}, 100_326_070),
        ("rssd300-vgg16", 20, DEPTHWISE, 42_021_806),
        ("rssd300-vgg16", 80, DEPTHWISE, 87_642_806),
        ("rssd300-vgg16", 20, ONE, 39_498_070),
        ("rssd300-vgg16", 80, ONE, 48_622_270),
        ("rssd300-vgg16", 20, ONE | DEPTHWISE, 26_814_806),
        ("rssd300-vgg16", 20, {"concatenation": "pooling"}, 36_215_726),
        ("rssd300-vgg16", 20, {"concatenation": "deconvolution"}, 44_779_950),
        ("rssd512-vgg16", 20, {}, 59_444_676),
        ("rssd512-vgg16", 80, {}, 119_166_516),
        ("rssd512-vgg16", 20, DEPTHWISE, 48_461_252),
        ("rssd512-vgg16", 80, DEPTHWISE, 108_183_092),
    ],
    ids=str,
)
def test_parameters(name: str, classes: int, options: dict[str, Any], expected: int) -> None:
    assert parameters(meta(name, classes, **options)) == expected


def test_widths_of_the_papers_three_forms() -> None:
    assert meta("rssd300-vgg16").neck.channels == [2816] * 6
    assert meta("rssd512-vgg16").neck.channels == [3072] * 7
    assert meta("rssd300-vgg16", concatenation="pooling").neck.channels == [512, 1536, 2048, 2304, 2560, 2816]
    up = meta("rssd300-vgg16", concatenation="deconvolution")
    assert up.neck.channels == [2816, 2304, 1280, 768, 512, 256]


def test_multiply_adds_by_hand() -> None:
    """Deconvolutions multiply each cell of their input by the whole kernel."""
    sides, kernels = SIDES[300], [2, 3, 2, 3, 3]
    up = sum(
        coarse**2 * WIDTHS[j] ** 2 * kernels[i] ** 2
        for j in range(6)
        for i, (_, coarse) in enumerate(pairwise(sides[: j + 1]))
    )
    anchors = [4, 6, 6, 6, 4, 4]
    heads = sum(s * s * 9 * 25 * a * 2816 for s, a in zip(sides, anchors, strict=True))
    own = sum(s * s * 9 * 25 * a * w for s, a, w in zip(sides, anchors, WIDTHS, strict=False))
    rssd, ssd = multiply_adds(meta("rssd300-vgg16")), multiply_adds(meta("ssd300-vgg16"))
    assert rssd - ssd == up + heads - own
    assert (up / 1e9, heads / 1e9) == (pytest.approx(2.62, abs=0.01), pytest.approx(5.53, abs=0.01))


@pytest.mark.parametrize(
    ("name", "options", "count", "anchors"),
    [
        ("rssd300-vgg16", {}, 8732, [4, 6, 6, 6, 4, 4]),
        ("rssd512-vgg16", {}, 24564, [4, 6, 6, 6, 6, 4, 4]),
        ("rssd300-vgg16", ONE, 11640, [6] * 6),
        ("rssd300-vgg16", ONE | {"ratios": [[2]] * 6}, 7760, [4] * 6),
    ],
    ids=str,
)
def test_priors(name: str, options: dict[str, Any], count: int, anchors: list[int]) -> None:
    heads = meta(name, **options).heads
    assert len(heads.priors) == count
    assert [level.anchors for level in heads.levels] == anchors
    if not options:
        assert torch.equal(heads.priors, meta(name[1:]).heads.priors)


# ---------------------------------------------------------------- one classifier


def test_one_classifier_sees_every_level() -> None:
    torch.manual_seed(0)
    network = build_model("fpn300-vgg16", 2, **ONE)
    heads = network.heads
    assert len(heads.loc) == len(heads.conf) == 1
    levels = [torch.rand(2, 256, side, side) for side in SIDES[300]]
    with torch.no_grad():
        raw = heads(levels)
        start = 0
        for x in levels:
            loc = F.conv2d(x, heads.loc[0].weight, heads.loc[0].bias, padding=1)
            conf = F.conv2d(x, heads.conf[0].weight, heads.conf[0].bias, padding=1)
            end = start + 6 * x.shape[-1] ** 2
            assert torch.equal(raw.offsets[:, start:end], loc.permute(0, 2, 3, 1).reshape(2, -1, 4))
            assert torch.equal(raw.logits[:, start:end], conf.permute(0, 2, 3, 1).reshape(2, -1, 3))
            start = end
        assert start == raw.logits.shape[1] == 11640
        heads.fold()
        for ours, folded in zip(raw, heads(levels), strict=True):
            torch.testing.assert_close(folded, ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "rssd300-vgg16",
            {"concatenation": "rainbows"},
            "no concatenation 'rainbows'; did you mean 'rainbow'",
        ),
        ("rssd300-vgg16", {"pool": "mean"}, "there is no pool 'mean'"),
        ("rssd300-vgg16", {"deconvolution": None}, "there is no deconvolution None"),
        ("rssd300-vgg16", {"relu": 1}, "relu is 1; it is true or false"),
        ("rssd300-vgg16", {"concatenation": "pooling", **DEPTHWISE}, "'pooling' has no deconvolution; leave"),
        ("rssd300-vgg16", {"concatenation": "deconvolution", "pool": "max"}, "'deconvolution' has no pool;"),
        ("rssd300-vgg16", {"merge": "sum"}, "rssd300-vgg16 has no option 'merge'"),
        ("rssd300-vgg16", {"shared_head": 1}, "shared_head is 1; it is true or false"),
        ("rssd300-vgg16", ONE | {"concatenation": "pooling"}, "one width, but they have [512, 1536, 2048"),
        ("rssd300-vgg16", ONE | {"ratios": [[2], *[[2, 3]] * 5]}, "priors a cell, but levels have [4, 6]"),
        ("rssd300-lite", ONE, "heads without batch norm, which fits one level"),
    ],
    ids=str,
)
def test_wrong_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        meta(name, **options)
    assert message in str(caught.value)


# ---------------------------------------------------------------- training and files


@pytest.mark.parametrize(("name", "options"), [("rssd300-vgg16", DEPTHWISE), ("rssd300-lite", {})])
def test_every_layer_of_the_neck_learns(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = build_model(name, 2, **options)
    features = maps(300) if "vgg16" in name else network.backbone(torch.rand(2, 3, 300, 300))
    raw = network.heads(network.neck(features))
    (raw.offsets.square().sum() + raw.logits.square().sum()).backward()
    still = [key for key, p in network.neck.named_parameters() if p.grad is None or not p.grad.any()]
    # A light block starts as its shortcut: the scale of its last norm is 0, so what is before it waits. On
    # the level of a single cell a shift of every image is undone by the norm in the light head.
    waiting = ("separable.0.weight", "separable.1.weight", "separable.1.bias", "separable.3.weight")
    waiting += ("norms.5.0.bias",) if "lite" in name else ()
    assert [key for key in still if not key.endswith(waiting)] == []


def test_a_batch_of_one_is_refused_only_where_it_is_normalised() -> None:
    network = build_model("rssd300-vgg16", 1, **DEPTHWISE)
    with pytest.raises(ConfigError, match=r"batch_size is 1, but neck\.norms\.5\.0 of rssd300-vgg16"):
        check_batch(TrainConfig(batch_size=1, model="rssd300-vgg16"), network, 1)
    one = {name: x[:1] for name, x in maps(300).items()}
    assert [x.shape[0] for x in network.neck.eval()(one)] == [1] * 6


def test_new_layers_are_those_that_an_ssd_lacks(tmp_path: Path) -> None:
    ssd, rssd = build_model("ssd300-lite", 1), build_model("rssd300-lite", 1)
    file = tmp_path / "ssd.safetensors"
    save_model(file, ssd.state_dict(), ssd, ("thing",), {})
    load_ssd(rssd, file)
    optimizer = make_optimizer(rssd, momentum=0.9, weight_decay=0.0, bias_lr=1.0, new_layers_lr=2.0)
    rates = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    for key, tensor in rssd.named_parameters():
        taken = key.startswith(("backbone", "neck.extras"))
        assert rates[id(tensor)] == (1 if taken else 2), key
        assert not taken or torch.equal(tensor, ssd.state_dict()[key]), key


def test_folding_changes_nothing() -> None:
    torch.manual_seed(0)
    network = build_model("rssd300-lite", 2)
    images = torch.rand(2, 3, 300, 300) * 255
    with torch.no_grad():
        for _ in range(3):
            network(images)  # running statistics that are not 0 and 1
        network.eval()
        for ours, folded in zip(network(images), fold(network)(images), strict=True):
            torch.testing.assert_close(folded, ours, rtol=1e-3, atol=1e-3)


def test_it_trains_evaluates_exports_and_opens(whole_life: Callable[..., Detector]) -> None:
    detector = whole_life("rssd300-lite", pool="average")
    assert detector.network.neck.channels == [5 * 96] * 5  # one level less than at 300 px

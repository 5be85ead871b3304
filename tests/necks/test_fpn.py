"""FPN on SSD against index arithmetic, counts by hand, and a whole life of the light network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.errors import ConfigError
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.model.cost import parameters
from fssd.model.network import Network
from fssd.training.optim import make_optimizer
from fssd.weights.checkpoint import save_model
from fssd.weights.pretrained import load_ssd

SIDES = {300: [38, 19, 10, 5, 3, 1], 512: [64, 32, 16, 8, 4, 2, 1]}


def meta(name: str, classes: int = 20, **options: Any) -> Network:
    with torch.device("meta"):
        return build_model(name, classes, **options)


def maps(side: int) -> dict[str, Tensor]:
    """What VGG16 gives the neck, at random."""
    generator = torch.Generator().manual_seed(1)
    sides = SIDES[side]
    return {
        "conv4_3": torch.rand(1, 512, sides[0], sides[0], generator=generator),
        "fc7": torch.rand(1, 1024, sides[1], sides[1], generator=generator),
    }


def nearest(x: Tensor, size: int) -> Tensor:
    """Cell i of `size` is cell floor(i * n / size) of n."""
    index = [i * x.shape[-1] // size for i in range(size)]
    return x[..., index, :][..., index]


def bilinear(x: Tensor, size: int) -> Tensor:
    """Corner cells stay in place; between cells a and a + 1 the share is linear."""
    weights = torch.zeros(size, x.shape[-1])
    for i in range(size):
        at = i * (x.shape[-1] - 1) / (size - 1)
        for cell in range(x.shape[-1]):
            weights[i, cell] = max(0.0, 1 - abs(at - cell))
    return torch.einsum("ia,jb,ncab->ncij", weights, weights, x)


def reference(
    tensors: Mapping[str, Tensor], levels: list[Tensor], enlarge: Callable[[Tensor, int], Tensor]
) -> list[Tensor]:
    """The neck from SSD's levels, without the last ReLU."""

    def conv(kind: str, i: int, x: Tensor, padding: int) -> Tensor:
        key = next(key for key in (f"{kind}.{i}", f"{kind}.{i}.0") if f"{key}.weight" in tensors)
        return F.conv2d(x, tensors[f"{key}.weight"], tensors[f"{key}.bias"], padding=padding)

    above: Tensor | None = None
    out = []
    for i in reversed(range(len(levels))):
        side = conv("lateral", i, levels[i], 0)
        above = side if above is None else side + enlarge(above, side.shape[-1])
        out.append(conv("smooth", i, above, 1))
    return out[::-1]


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("fpn300-vgg16", 20, 28_935_598),
        ("fpn300-vgg16", 80, 33_084_598),
        ("fpn512-vgg16", 20, 30_494_660),
        ("fpn512-vgg16", 80, 35_473_460),
    ],
)
def test_parameters(name: str, classes: int, expected: int) -> None:
    assert parameters(meta(name, classes)) == expected


def test_the_neck_as_an_option_is_the_same_network() -> None:
    named, chosen = meta("fpn300-vgg16"), meta("ssd300-vgg16", neck="fpn")
    assert {k: v.shape for k, v in named.state_dict().items()} == {
        k: v.shape for k, v in chosen.state_dict().items()
    }
    assert torch.equal(named.heads.priors, chosen.heads.priors)
    # 1x1 on SSD's widths and 3x3, each with bias
    top_down = sum(c * 256 + 256 + 256 * 256 * 9 + 256 for c in (512, 1024, 512, 256, 256, 256))
    assert parameters(named.neck) - parameters(meta("ssd300-vgg16").neck) == top_down == 4_262_912


@pytest.mark.parametrize("side", [300, 512])
@pytest.mark.parametrize(
    ("options", "enlarge", "least"),
    [({}, nearest, 0.0), ({"resize": "bilinear"}, bilinear, 0.0), ({"relu": False}, nearest, -torch.inf)],
    ids=["nearest", "bilinear", "without relu"],
)
def test_top_down_path(
    side: int, options: dict[str, Any], enlarge: Callable[[Tensor, int], Tensor], least: float
) -> None:
    torch.manual_seed(0)
    neck = build_model(f"fpn{side}-vgg16", 2, **options).neck
    plain = build_model(f"ssd{side}-vgg16", 2).neck
    tensors = neck.state_dict()
    plain.load_state_dict({key: tensors[key] for key in plain.state_dict()})
    with torch.no_grad():
        for key, tensor in tensors.items():
            if key.startswith(("lateral", "smooth")) and key.endswith("bias"):
                tensor.normal_(0, 0.3)
        found = neck(maps(side))
        expected = reference(tensors, plain(maps(side)), enlarge)
    assert [x.shape[-1] for x in found] == SIDES[side]
    assert neck.channels == [256] * len(found)
    assert (min(float(x.min()) for x in found) >= 0) == (least == 0)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs.clamp(min=least), rtol=1e-4, atol=1e-4)


def test_priors_are_those_of_ssd() -> None:
    for side, count in ((300, 8732), (512, 24564)):
        priors = meta(f"fpn{side}-vgg16").heads.priors
        assert torch.equal(priors, meta(f"ssd{side}-vgg16").heads.priors)
        assert len(priors) == count


@pytest.mark.parametrize("name", ["fpn300-vgg16", "fpn300-lite"])
def test_every_layer_of_the_neck_learns(name: str) -> None:
    network = build_model(name, 2)
    features = maps(300) if "vgg16" in name else network.backbone(torch.rand(2, 3, 300, 300))
    raw = network.heads(network.neck(features))
    (raw.offsets.square().sum() + raw.logits.square().sum()).backward()
    still = [key for key, p in network.neck.named_parameters() if p.grad is None or not p.grad.any()]
    # A light block starts as its shortcut: the scale of its last norm is 0, so what is before it waits.
    waiting = ("separable.0.weight", "separable.1.weight", "separable.1.bias", "separable.3.weight")
    assert [key for key in still if not key.endswith(waiting)] == []


def test_new_layers_are_those_that_an_ssd_lacks(tmp_path: Path) -> None:
    ssd, fpn = build_model("ssd300-vgg16", 1), build_model("fpn300-vgg16", 1)
    for tensor in ssd.parameters():
        tensor.data.normal_()
    file = tmp_path / "ssd.safetensors"
    save_model(file, ssd.state_dict(), ssd, ("thing",), {})
    before = {key: tensor.clone() for key, tensor in fpn.state_dict().items()}
    # VGG16's 15 convolutions and 8 appended ones, each weight and bias, and the scale of conv4_3
    assert load_ssd(fpn, file) == 2 * (15 + 8) + 1
    optimizer = make_optimizer(fpn, momentum=0.9, weight_decay=0.0, bias_lr=1.0, new_layers_lr=2.0)
    rates = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    own = dict(fpn.named_parameters())
    for key, tensor in fpn.state_dict().items():
        taken = not key.startswith(("neck.lateral", "neck.smooth", "heads"))
        assert torch.equal(tensor, ssd.state_dict()[key] if taken else before[key]), key
        assert rates[id(own[key])] == (1 if taken else 2), key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": "nearst"}, "there is no resize 'nearst'; did you mean 'nearest'"),
        ({"resize": None}, "there is no resize None"),
        ({"relu": "no"}, "relu is 'no'; it is true or false"),
        ({"relu": False}, "light blocks of this FPN end in ReLU6; leave out relu"),
        ({"merge": "sum"}, "fpn300-lite has no option 'merge'"),
    ],
    ids=str,
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        meta("fpn300-lite", **options)
    assert message in str(caught.value)


def test_it_trains_evaluates_exports_and_opens(whole_life: Callable[..., Detector]) -> None:
    detector = whole_life("ssd300-lite", neck="fpn", resize="bilinear")
    assert type(detector.network.neck).__name__ == "FPN"
    assert detector.network.neck.resize == "bilinear"
    assert detector.network.neck.channels == [160] * 5  # one level less than at 300 px

"""DSOD against the released network's tables, written out by hand; and it learns from nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.config.train_config import TrainConfig
from fssd.data.scenes import make_scenes
from fssd.errors import ConfigError
from fssd.inference.detector import Detector
from fssd.layers.norms import CaffeBatchNorm
from fssd.model.build import build_model
from fssd.model.cost import multiply_adds, parameters
from fssd.model.fold import fold
from fssd.model.network import Network
from fssd.training.loop import train
from fssd.weights.checkpoint import save_model
from fssd.weights.subset import take_classes
from fssd.weights.transfer import load_detector

SMALL: dict[str, Any] = {"backbone": "small_ds:SmallDS", "size": 128}


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backbone beside this file can be imported by its name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def meta(name: str, classes: int = 20, **options: Any) -> Network:
    with torch.device("meta"):
        return build_model(name, classes, **options)


def floats(network: Network) -> int:
    """Learnable numbers, and mean, variance and counter of every batch norm: what a .caffemodel holds."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    return parameters(network) + sum(2 * norm.num_features + 1 for norm in norms)


def small(**options: Any) -> Network:
    torch.manual_seed(0)
    return build_model("dsod300", 3, **SMALL, **options)


def settled(network: Network, images: Tensor) -> Network:
    """With running statistics that are not 0 and 1."""
    with torch.no_grad():
        for _ in range(3):
            network(images)
    return network.eval()


# ---------------------------------------------------------------- the released numbers


@pytest.mark.parametrize(
    ("name", "classes", "learnable", "stored"),
    [
        ("dsod300", 20, 14_715_804, 14_795_828),  # the published file has 59.2 MB
        ("dsod300", 80, 21_700_524, 21_784_148),  # 87.2 MB
        ("dsod300-small", 20, 5_833_372, 5_872_372),  # 23.5 MB
    ],
)
def test_counts(name: str, classes: int, learnable: int, stored: int) -> None:
    network = meta(name, classes)
    assert (parameters(network), floats(network)) == (learnable, stored)
    assert not any(key.endswith("conv.bias") for key in network.state_dict())
    assert not any(isinstance(m, nn.Conv2d) and m.bias is not None for m in network.modules())


def test_cost_and_levels() -> None:
    network = meta("dsod300").eval()
    assert multiply_adds(network) / 1e9 == pytest.approx(15.1, abs=0.05)
    assert multiply_adds(meta("dsod300", 80)) / 1e9 == pytest.approx(18.4, abs=0.05)
    assert network.neck.channels == [800, 512, 512, 256, 256, 256]
    assert network.neck.cells == [(n, n) for n in (38, 19, 10, 5, 3, 2)]
    levels = network.neck(network.backbone(torch.zeros(2, 3, 300, 300, device="meta")))
    assert [tuple(x.shape[1:]) for x in levels] == [
        (800, 38, 38),
        (512, 19, 19),
        (512, 10, 10),
        (256, 5, 5),
        (256, 3, 3),
        (256, 2, 2),
    ]


def test_priors() -> None:
    """8,744: those of SSD300 and three more cells of four. The last step puts 12 of 16 centres outside."""
    released, ssd = build_model("dsod300", 1).heads.priors, build_model("ssd300-vgg16", 1).heads.priors
    assert len(released) == 8744
    assert torch.equal(released[:8728], ssd[:8728])
    centres = (released[8728:, :2] + released[8728:, 2:]) / 2
    assert sorted({(float(x), float(y)) for x, y in centres}) == [
        (150.0, 150.0),
        (150.0, 450.0),
        (450.0, 150.0),
        (450.0, 450.0),
    ]
    assert int((centres > 300).any(dim=1).sum()) == 12
    inside = build_model("dsod300", 1, last_step=150).heads.priors
    assert torch.equal(inside[:8728], released[:8728])
    halves = ((inside[8728:, :2] + inside[8728:, 2:]) / 2).flatten()
    assert {round(float(x), 3) for x in halves} == {75.0, 225.0}
    assert [level.anchors for level in meta("dsod300").heads.levels] == [4, 6, 6, 6, 4, 4]


def test_it_starts_as_the_authors_script() -> None:
    torch.manual_seed(0)
    network = build_model("dsod300-small", 20)
    conv = network.heads.conf[1][0]
    assert float(conv.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    xavier = network.backbone.blocks[2][0][2].weight  # U(+-sqrt(3 / fan_in)) has variance 1 / fan_in
    assert float(xavier.detach().std()) == pytest.approx(xavier[0].numel() ** -0.5, rel=0.05)
    norms = [m for m in network.modules() if isinstance(m, CaffeBatchNorm)]
    assert len(norms) == 80 + 12
    assert {norm.fraction for norm in norms} == {0.999} and all(norm.affine for norm in norms)
    assert {norm.eps for norm in network.heads.modules() if isinstance(norm, CaffeBatchNorm)} == {1e-3}
    assert {norm.eps for norm in network.backbone.modules() if isinstance(norm, CaffeBatchNorm)} == {1e-5}
    assert all(bool((scale.weight == 20).all()) for scale in network.neck.scales)


# ---------------------------------------------------------------- the prediction structure


def brc(x: Tensor, layers: Iterator[nn.Module], stride: int = 1) -> Tensor:
    """Batch norm, ReLU and convolution written out on the next layers."""
    norm, _, conv = (next(layers) for _ in range(3))
    assert isinstance(norm, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d)
    assert norm.running_mean is not None and norm.running_var is not None
    mean, variance = norm.running_mean[:, None, None], norm.running_var[:, None, None]
    x = (x - mean) / (variance + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    return F.conv2d(x.relu(), conv.weight, stride=stride, padding=conv.weight.shape[-1] // 2)


def test_each_level_is_half_learned_and_half_pooled() -> None:
    images = torch.rand(2, 3, 128, 128) * 255
    network = settled(small(), images)
    neck = network.neck
    with torch.no_grad():
        maps = network.backbone(images - network.mean)
        x = maps["stride8"]
        raw = [x]
        x = torch.cat(
            (
                brc(maps["stride16"], iter(neck.learned[0])),
                brc(F.max_pool2d(x, 2, ceil_mode=True), iter(neck.reused[0][1:])),
            ),
            1,
        )
        raw.append(x)
        for index in range(1, len(neck.learned)):
            pooled = brc(F.max_pool2d(x, 2, ceil_mode=True), iter(neck.reused[index][1:]))
            layers = iter(neck.learned[index])
            x = torch.cat((pooled, brc(brc(x, layers), layers, stride=2)), 1)
            raw.append(x)
        expected = [20 * x / (x.square().sum(1, keepdim=True) + 1e-10).sqrt() for x in raw]
        for own, theirs in zip(neck(maps), expected, strict=True):
            torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-4)
    assert [tuple(x.shape[1:]) for x in raw] == [(80, 16, 16), (512, 8, 8), (512, 4, 4), (256, 2, 2)]


def test_plain_structure_has_no_pooled_half() -> None:
    network = meta("dsod300", front_end="plain")
    assert network.neck.channels == [800, 1568, 512, 256, 256, 256]
    assert len(network.neck.reused) == 0
    assert round(parameters(network) / 1e6, 1) == 19.0  # of two readings this one, see the documentation


def test_it_stands_on_other_backbones() -> None:
    """The paper's ablation has the structure on VGG16 too; the maps are conv4_3 and fc7."""
    network = meta("dsod300-vgg16")
    assert network.neck.sources == ("conv4_3", "fc7")
    assert network.neck.channels == [512, 512, 512, 256, 256, 256]
    assert len(network.heads.priors) == 8744


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dsod300", {"front_end": "dens"}, "no front_end 'dens'; did you mean 'dense'"),
        ("dsod300", {"last_step": 200}, "last_step is 200; it is 300, as released, or 150"),
        ("dsod300", {"last_step": 150, "size": 512}, "last_step is for 300 px"),
        ("dsod300", {"head_norm": 1}, "head_norm is 1; it is true or false"),
        ("dsod300", {"shared_head": True}, "without batch norm"),
        ("dsod300", {"norm_fraction": 1}, "norm_fraction is 1; it is a number above 0 and below 1"),
        ("ssd300-vgg16", {"norm_fraction": 0.9}, "has no batch norm of Caffe's kind"),
        ("fssd300-lite", {"head_norm": True}, "separable heads have batch norm already"),
        ("dsod300-lite", {}, "DSOD's neck has no light form"),
    ],
)
def test_wrong_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        meta(name, **options)
    assert message in str(caught.value)


def test_fraction_of_the_statistics_can_be_set() -> None:
    network = meta("dsod300-small", norm_fraction=0.97)
    assert {m.fraction for m in network.modules() if isinstance(m, CaffeBatchNorm)} == {0.97}
    assert network.spec.options == {"norm_fraction": 0.97}


# ---------------------------------------------------------------- training and files


def test_every_layer_learns() -> None:
    network = small()
    raw = network(torch.rand(2, 3, 128, 128) * 255)
    (raw.offsets.square().sum() + raw.logits.square().sum()).backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_folding_changes_nothing() -> None:
    images = torch.rand(2, 3, 128, 128) * 255
    network = settled(small(), images)
    folded = fold(network)
    before, after = (sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) for net in (network, folded))
    assert after < before / 2  # those after a concatenation stay
    assert folded.heads.joined is not None
    with torch.no_grad():
        for ours, theirs in zip(network(images), folded(images), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)


def test_classes_are_taken_and_kept_with_their_norms(tmp_path: Path) -> None:
    """Of three classes the third and first; then a start from that file with another set of classes."""
    images = torch.rand(2, 3, 128, 128) * 255
    network = settled(small(), images)
    names = ("a", "b", "c")
    fewer = build_model("dsod300", 2, **SMALL).eval()
    fewer.load_state_dict(take_classes(network, [2, 0]))
    with torch.no_grad():
        logits = network(images).logits
        torch.testing.assert_close(fewer(images).logits, logits[..., [0, 3, 1]])
        file = tmp_path / "model.safetensors"
        save_model(file, network.state_dict(), network, names, {})
        other = build_model("dsod300", 2, **SMALL)
        assert load_detector(other, ("d", "b"), file).classes == ("b",)
        torch.testing.assert_close(other.eval()(images).logits[..., [0, 2]], logits[..., [0, 2]])


def test_it_trains_evaluates_exports_and_opens(whole_life: Callable[..., Detector]) -> None:
    detector = whole_life("dsod300", **SMALL)
    assert detector.network.neck.channels == [80, 512, 512, 256]


def test_eight_scenes_are_learned_by_heart_from_nothing(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason='the scenes need scikit-learn: pip install "fssd[demo]"')
    pytest.importorskip("skimage", reason='the scenes need scikit-image: pip install "fssd[demo]"')
    config = TrainConfig(
        data=make_scenes(tmp_path / "scenes", train=8, val=1),
        out=tmp_path / "run",
        model="dsod300",
        priors="coco",
        options={**SMALL, "norm_fraction": 0.9},
        start="nothing",
        val_split="train",
        seen_images=True,
        iterations=50,
        batch_size=8,
        lr=5e-2,
        schedule="cosine",
        warmup=5,
        clip_norm=10.0,
        augment="none",
        eval_every=1000,
        workers=0,
        amp="off",
    )
    best = train(config).best
    assert best is not None and best >= 0.95


def test_it_resumes_to_the_same_bytes(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"  # which the files name
    config = TrainConfig(
        data=scenes, out=out, model="dsod300", options=SMALL, start="nothing", iterations=3, batch_size=2,
        accumulate=2, workers=0, save_every=1, eval_every=1000, norm_decay=1.0, amp="off",
    )  # fmt: skip
    train(config)
    out.rename(tmp_path / "whole")
    train(config, minutes=0.0)
    assert not (out / "final.safetensors").exists()
    train(config, resume=True)
    files = (folder / "final.safetensors" for folder in (out, tmp_path / "whole"))
    assert len({file.read_bytes() for file in files}) == 1

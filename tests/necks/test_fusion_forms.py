"""ParseNet's, HyperNet's and ION's fusion by hand: norms, the global source, sizes, counts, folding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fssd.backbones.backbone import probe_shapes
from fssd.backbones.vgg import VGG16Reduced
from fssd.errors import ConfigError
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.model.cost import parameters
from fssd.model.fold import fold
from fssd.model.network import Network
from fssd.model.resize import resized
from fssd.necks.fusion import Fusion, Source

VGG, PLAIN = 20_483_904, 33_835_182  # parameters of VGG16-reduced, and of FSSD300 for VOC
CONV7_2, FSSD_FUSION = 1_803_392, 393_728  # of its appended layers and its fusion


def meta(name: str = "fssd300-vgg16", classes: int = 20, **options: Any) -> Network:
    with torch.device("meta"):
        return build_model(name, classes, **options)


def conv(inputs: int, outputs: int, side: int) -> int:
    return (inputs * side * side + 1) * outputs


# ---------------------------------------------------------------- norms of each source


def test_l2_by_hand() -> None:
    """Channels 3, 4 have length 5; 0, 2 have length 2. Times the learned scale of each channel."""
    x = torch.tensor([[[[3.0, 0.0]], [[4.0, 2.0]]]])  # (1, 2, 1, 2)
    fusion = Fusion((Source("a", 2, False),), 2, (1, 2), norm="none", source_norm="l2", source_scale=10.0)
    assert fusion({"a": x}).flatten().tolist() == pytest.approx([6, 0, 8, 10])
    with torch.no_grad():
        fusion.source_norms["a"].weight.copy_(torch.tensor([1.0, 100.0]))
    assert fusion({"a": x}).flatten().tolist() == pytest.approx([0.6, 0, 80, 100])


def test_lrn_by_hand() -> None:
    """x / (1 + 1e-4 / 5 * sum of the squares of five channels) ** 0.75, fewer at the ends."""
    values = [100.0, 200.0, 0.0, 50.0, 300.0, 10.0]
    x = torch.tensor(values).reshape(1, 6, 1, 1)
    fusion = Fusion((Source("a", 6, False),), 6, (1, 1), norm="none", source_norm="lrn")
    expected = [
        value / (1 + 2e-5 * sum(v * v for v in values[max(0, i - 2) : i + 3])) ** 0.75
        for i, value in enumerate(values)
    ]
    assert fusion({"a": x}).flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_every_source_has_a_scale_of_its_own_and_is_normalised_at_the_fused_size() -> None:
    torch.manual_seed(0)
    sources = (Source("fine", 3, False, (4, 4)), Source("coarse", 5, False, (2, 2)))
    fusion = Fusion(sources, 9, (4, 4), norm="none", source_norm="l2", source_scale=7.0)
    assert {key: tuple(t.shape) for key, t in fusion.state_dict().items()} == {
        "source_norms.fine.weight": (3,),
        "source_norms.coarse.weight": (5,),
    }
    out = fusion({"fine": torch.randn(2, 3, 4, 4), "coarse": torch.randn(2, 5, 2, 2)})
    for part in (out[:, :3], out[:, 3:]):
        torch.testing.assert_close(part.square().sum(dim=1).sqrt(), torch.full((2, 4, 4), 7.0))


# ---------------------------------------------------------------- the global source and sizes


def test_the_global_source_is_the_mean_of_the_last_map_in_every_cell() -> None:
    torch.manual_seed(0)
    fine, last = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 2)
    sources = (Source("fine", 3, False), Source("global", 5, True, (2, 2), averaged="last"))
    fusion = Fusion(sources, 4, (4, 4), norm="none")
    with torch.no_grad():
        out = fusion({"fine": fine, "last": last})
        weight, bias = fusion.transform["global"][0].weight, fusion.transform["global"][0].bias
        tile = (last.mean((2, 3)) @ weight[:, :, 0, 0].T + bias).clamp(min=0)
    assert torch.equal(out[:, :3], fine)
    torch.testing.assert_close(out[:, 3:], tile[:, :, None, None].expand(2, 4, 4, 4))


def test_a_map_of_eight_times_the_size_is_pooled_three_times() -> None:
    x = torch.arange(15.0 * 16).reshape(1, 1, 15, 16)  # 15 x 16, 8 x 8, 4 x 4, 2 x 2
    out = Fusion((Source("a", 1, False),), 1, (2, 2), norm="none")({"a": x})
    assert out.flatten().tolist() == [7 * 16 + 7, 7 * 16 + 15, 14 * 16 + 7, 14 * 16 + 15]


@pytest.mark.parametrize(
    ("cells", "target"), [(19, 75), (10, 38), (19, 38), (37, 38), (18, 38), (9, 38), (5, 38), (16, 64)]
)
def test_deconvolutions_reach_every_size(cells: int, target: int) -> None:
    source = Source("a", 2, False, (cells, cells))
    fusion = Fusion((source,), 2, (target, target), norm="none", upsample="deconvolution")
    layer = fusion.up["a"]
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.bias.fill_(0)
        out = fusion({"a": torch.ones(1, 2, cells, cells)})
    assert out.shape == (1, 2, target, target)
    assert (out > 0).all(), "a cell that no kernel reaches"
    assert layer.groups == 2


def test_a_deconvolution_by_hand() -> None:
    """2 cells to 3, stride 2: kernel 3, each cell adds its kernel at 2 i - 1."""
    source = Source("a", 1, False, (1, 2))
    fusion = Fusion((source,), 1, (1, 3), norm="none", upsample="deconvolution")
    layer = fusion.up["a"]
    assert (layer.kernel_size, layer.stride, layer.padding) == ((1, 3), (1, 2), (0, 1))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 10.0, 100.0]).reshape(1, 1, 1, 3))
        layer.bias.fill_(0.5)
        out = fusion({"a": torch.tensor([[[[2.0, 3.0]]]])})
    # cell 0 at -1: 2, 20, 200; cell 1 at 1: 3, 30, 300
    assert out.flatten().tolist() == [20.5, 203.5, 30.5]


def test_a_5x5_works_at_the_fused_size() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 8, 8)
    fusion = Fusion((Source("a", 2, True, (8, 8)),), 3, (4, 4), norm="none", kernel=5)
    layer = fusion.transform["a"][0]
    with torch.no_grad():
        pooled = F.pad(x.reshape(1, 2, 4, 2, 4, 2).amax((3, 5)), (2, 2, 2, 2))
        expected = torch.einsum("ocij,bcyxij->boyx", layer.weight, pooled.unfold(2, 5, 1).unfold(3, 5, 1))
        expected = (expected + layer.bias[:, None, None]).clamp(min=0)
        torch.testing.assert_close(fusion({"a": x}), expected, rtol=1e-4, atol=1e-5)


def test_a_1x1_after_the_merge() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 4, 4)
    fusion = Fusion((Source("a", 3, False),), 3, (4, 4), norm="none", project=2)
    weight, bias = fusion.project[0].weight[:, :, 0, 0], fusion.project[0].bias
    expected = (torch.einsum("oc,bcyx->boyx", weight, x) + bias[:, None, None]).clamp(min=0)
    torch.testing.assert_close(fusion({"a": x}), expected)
    assert fusion.channels == 2


# ---------------------------------------------------------------- the variants

HEAD_OF_768 = PLAIN - VGG - CONV7_2 - FSSD_FUSION - conv(768, 512, 3)  # pyramid below ds_1, and heads


@pytest.mark.parametrize(
    ("variant", "size", "channels", "fusion"),
    [
        # the scales alone: conv4_3 512, fc7 1024 and its mean 1024
        ("parsenet", (38, 38), 2560, 2560),
        # 5x5 to 42 on 64, 256 and 512 channels; conv5_3's deconvolution of 5 x 5 (19 to 75), depthwise
        ("hypernet", (75, 75), 126, conv(64, 42, 5) + conv(256, 42, 5) + conv(512, 42, 5) + 512 * 26),
        # scales of 256 + 512 + 512 channels, 1x1 to 512: 655,872
        ("ion", (38, 38), 512, 1280 + 655_872),
    ],
)
def test_variants(variant: str, size: tuple[int, int], channels: int, fusion: int) -> None:
    network = meta(variant=variant)
    assert (network.neck.fusion.size, network.neck.fusion.channels) == (size, channels)
    assert parameters(network.neck.fusion) == fusion
    assert parameters(network) == VGG + fusion + conv(channels, 512, 3) + HEAD_OF_768
    assert len(network.heads.priors) == 8732
    with torch.device("meta"):
        raw = network.eval()(torch.zeros(1, 3, 300, 300))
    assert raw.offsets.shape == (1, 8732, 4)
    assert torch.device("meta") == network.device


def test_what_the_variants_stand_for() -> None:
    parsenet, ion = meta(variant="parsenet").neck.fusion, meta(variant="ion").neck.fusion
    assert parsenet.names == ["conv4_3", "fc7", "fc7_mean"]
    assert ion.names == ["conv3_3", "conv4_3", "conv5_3"]
    scales = [build_model("fssd300-vgg16", 1, size=128, variant=v).neck.fusion for v in ("parsenet", "ion")]
    for found, value in zip(scales, (10, 1000), strict=True):
        assert {float(t.detach().mean()) for t in found.source_norms.parameters()} == {value}
        assert isinstance(found.norm, nn.Identity)
    hypernet = meta(variant="hypernet").neck
    assert hypernet.fusion.names == ["conv1_2", "conv3_3", "conv5_3"]
    assert hypernet.pyramid.blocks["ds_1"][0].stride == (2, 2)
    assert all(isinstance(m, nn.LocalResponseNorm) for m in hypernet.fusion.source_norms.values())


def test_an_option_overrides_that_of_a_variant_and_what_goes_with_it() -> None:
    fusion = meta(variant="ion", source_norm="lrn", project=128).neck.fusion
    assert fusion.channels == 128
    assert isinstance(fusion.source_norms["conv5_3"], nn.LocalResponseNorm)
    narrow = meta(variant="parsenet", transform="1x1", norm="batch").neck.fusion
    assert narrow.channels == 768
    wide = meta(variant="hypernet", transform="none").neck.fusion
    assert wide.channels == 64 + 256 + 512


@pytest.mark.parametrize("variant", ["parsenet", "hypernet", "ion"])
@pytest.mark.parametrize("size", [160, [192, 136]])
def test_other_sizes(variant: str, size: Any) -> None:
    network = meta(variant=variant, size=size)
    width, height = network.image_size
    with torch.device("meta"):
        raw = network.eval()(torch.zeros(1, 3, height, width))
    assert raw.offsets.shape[1] == len(network.heads.priors)


# ---------------------------------------------------------------- taps of VGG16


def test_taps_leave_the_other_maps_and_names_as_they_are() -> None:
    torch.manual_seed(0)
    backbone = VGG16Reduced().eval()
    images = torch.rand(1, 3, 70, 97) * 255
    with torch.no_grad():
        before = backbone(images)
        backbone.tap(["conv5_3", "conv1_2", "global"])
        after = backbone(images)
        assert list(before) == ["conv3_3", "conv4_3", "fc7"]
        assert list(after) == ["conv1_2", "conv3_3", "conv4_3", "conv5_3", "fc7"]
        assert all(torch.equal(after[name], x) for name, x in before.items())
        assert backbone.shapes(97, 70) == probe_shapes(backbone, 97, 70)
        assert {name: tuple(x.shape[1:]) for name, x in after.items()} == backbone.shapes(97, 70)
        # conv5_3 is what is pooled and dilated to fc7
        x = F.max_pool2d(after["conv5_3"], 3, 1, 1)
        x = F.relu(backbone.fc7(F.relu(backbone.fc6(x))))
        assert torch.equal(x, after["fc7"])
        x = F.relu(backbone.conv1_2(F.relu(backbone.conv1_1(images))))
        assert torch.equal(x, after["conv1_2"])


def test_maps_that_are_not_asked_for_are_not_kept() -> None:
    assert meta().backbone.tapped == ()
    assert meta(variant="ion").backbone.tapped == ("conv5_3",)
    assert meta(sources=["conv2_2", "fc7"]).backbone.tapped == ("conv2_2",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "parsnet"}, "no variant 'parsnet'; did you mean 'parsenet'"),
        ({"source_norm": "l3"}, "there is no source_norm 'l3'; did you mean 'l2'"),
        ({"transform": "7x7"}, "there is no transform '7x7'"),
        ({"upsample": "nearest"}, "there is no upsample 'nearest'"),
        ({"sources": ["conv5_4"]}, "no feature map 'conv5_4' to fuse; did you mean 'conv5_3'"),
        ({"sources": 3}, "sources is 3; it is a list such as"),
        ({"width": 0}, "width is 0; it is a number of channels"),
        ({"project": True}, "project is True; it is a number of channels"),
        ({"fused_stride": 16}, "fused_stride is 16; it is 8 or 4"),
        ({"source_norm": "l2", "source_scale": 0}, "source_scale is 0; it is a number above 0"),
        ({"source_scale": 5.0}, "source_scale is of source_norm 'l2'"),
        ({"transform": "none", "width": 64}, "takes every source as it is; leave out width"),
        ({"transform": "none", "reduce_all": True}, "takes every source as it is; leave out reduce_all"),
        ({"upsample": "deconvolution", "align_corners": False}, "resizes nothing; leave out align_corners"),
        ({"fused_stride": 4, "pyramid": "with-fused"}, "which has stride 8; leave out fused_stride"),
        ({"sources": ["conv4_3"], "upsample": "deconvolution"}, "no source is smaller than the fused map"),
    ],
    ids=str,
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        meta(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize("variant", ["parsenet", "hypernet", "ion"])
def test_variants_are_of_vgg16(variant: str) -> None:
    with pytest.raises(ConfigError, match="is one of VGG16's own layers"):
        meta("fssd300-lite", variant=variant)


# ---------------------------------------------------------------- folding, training, files


@pytest.mark.parametrize(
    ("options", "folded_norms"),
    [
        ({"project": 24}, 0),
        ({"project": 24, "source_norm": "l2"}, 0),
        ({"sources": ["fine", "coarse", "global"]}, 0),
        ({"transform": "3x3"}, 0),
        ({"transform": "none", "norm": "batch-affine"}, 1),
        ({"source_norm": "l2", "source_scale": 3.0}, 1),
        ({"upsample": "deconvolution"}, 1),
        ({"fused_stride": 4}, 0),
        ({"as_is": ["fine"]}, 0),
        ({"as_is": ["coarse"], "transform": "3x3"}, 0),
        ({"as_is": ["fine"], "merge": "sum", "width": 8}, 0),
        ({"transform": "none"}, 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("model", ["fssd300-lite", "fssd300-vgg16"])
def test_folding_changes_nothing(
    tiny_backbone: Callable[[], nn.Module], model: str, options: dict[str, Any], folded_norms: int
) -> None:
    torch.manual_seed(0)
    network = build_model(model, 2, backbone=tiny_backbone(), **options)
    norm = network.neck.fusion.norm
    norm.running_mean.uniform_(-0.3, 0.3)
    norm.running_var.uniform_(0.3, 2)
    if norm.affine:
        with torch.no_grad():
            norm.weight.uniform_(-1, 1)  # of both signs
            norm.bias.uniform_(-1, 1)
    images = torch.rand(1, 3, 300, 300) * 255
    with torch.no_grad():
        folded = fold(network.eval())
        for ours, theirs in zip(network(images), folded(images), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=2e-5 * max(1, float(ours.std())))
    left = [m for m in folded.neck.fusion.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(left) == folded_norms


def test_it_trains_evaluates_exports_and_opens(whole_life: Callable[..., Detector]) -> None:
    """With what no exporter had to write before: both norms, the mean, a deconvolution, the 1x1."""
    sources = ["stride8", "stride32", "global"]
    whole_life(
        "fssd300-lite", size=128, sources=sources, source_norm="lrn", upsample="deconvolution", project=64
    )


def test_a_fused_map_of_stride_4_at_another_size() -> None:
    other = resized(build_model("fssd300-lite", 1, size=128, fused_stride=4), (160, 136))
    with torch.no_grad():
        raw = other(torch.zeros(1, 3, 136, 160))
    assert other.neck.fusion.size == (34, 40)
    assert raw.offsets.shape == (1, *other.heads.priors.shape)


def test_every_layer_of_the_fusion_learns(tiny_backbone: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    options = {"sources": ["fine", "coarse", "global"], "source_norm": "l2", "upsample": "deconvolution"}
    network = build_model("fssd300-vgg16", 2, backbone=tiny_backbone(), project=32, **options)
    raw = network(torch.rand(2, 3, 300, 300) * 255)
    (raw.offsets.square().sum() + raw.logits.square().sum()).backward()
    still = [key for key, p in network.neck.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []

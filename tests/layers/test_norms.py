"""Norms against loops, formulas and Caffe's own way of counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fssd.layers.norms import CaffeBatchNorm, L2Norm, ResponseNorm


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

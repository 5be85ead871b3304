"""Depthwise convolution and its gradients against sums written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.backbones.efficientnet_lite import SameConv2d
from fssd.layers import depthwise as layer
from fssd.layers.depthwise import DepthwiseConv2d, depthwise
from fssd.layers.folding import fold_sequences

Gradients = tuple[Tensor, Tensor, Tensor]

CASES = [  # kernel, stride, padding, and height and width of the map
    (3, 1, 1, (9, 7)),
    (3, 2, 0, (11, 8)),
    (3, 2, 1, (10, 9)),
    (5, 1, 2, (9, 7)),
    (5, 2, 2, (9, 10)),
    (5, 2, 0, (8, 11)),
    (7, 1, 3, (5, 6)),
    (3, 1, 3, (4, 5)),  # more padding than kernel
]


def plain_gradients(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Gradients:
    """Of input, weight and bias, tap by tap in float64."""
    gradient, x, weight = gradient.double(), x.double(), weight.double()
    rows, columns = gradient.shape[-2:]
    padded = F.pad(x, (padding,) * 4)
    of_padded, of_weight = torch.zeros_like(padded), torch.zeros_like(weight)
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            seen = (..., slice(i, i + rows * stride, stride), slice(j, j + columns * stride, stride))
            fits = (..., slice(rows), slice(columns))
            window = padded[seen][fits]
            of_weight[:, 0, i, j] = (window * gradient).sum(dim=(0, 2, 3))
            of_padded[seen][fits].add_(gradient * weight[:, 0, i, j, None, None])
    height, width = x.shape[-2:]
    of_x = of_padded[..., padding : padding + height, padding : padding + width]
    return of_x, of_weight, gradient.sum(dim=(0, 2, 3))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), CASES)
def test_the_gradients_are_those_of_the_written_out_sums(
    kernel: int, stride: int, padding: int, size: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(kernel)
    x = torch.randn(2, 16, *size, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(16, 1, kernel, kernel, generator=generator).to(dtype)
    bias = torch.randn(16, generator=generator).to(dtype)
    for tensor in (x, weight, bias):
        tensor.requires_grad_()
    y = depthwise(x, weight, bias, (stride, stride), (padding, padding))
    gradient = torch.randn(y.shape, generator=generator).to(dtype)
    y.backward(gradient)
    assert torch.equal(y, F.conv2d(x, weight, bias, stride, padding, 1, 16))
    wanted = plain_gradients(gradient, x.detach(), weight.detach(), stride, padding)
    for tensor, expected in zip((x, weight, bias), wanted, strict=True):
        assert tensor.grad is not None and tensor.grad.dtype == dtype
        distance = (tensor.grad.double() - expected).norm() / expected.norm()
        assert float(distance) <= tolerance


@pytest.mark.parametrize("size", [9, 10])
def test_same_padding_goes_through_it_on_even_and_odd_maps(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    conv = SameConv2d(4, 4, 5, 2, groups=4)
    used = _counted(monkeypatch)
    x = torch.randn(1, 4, size, size, requires_grad=True)
    conv(x).sum().backward()
    assert used == [(4, 1, 5, 5)]
    before = 1 if size == 10 else 2  # 10 to 5 cells: (5 - 1) * 2 + 5 - 10 = 3 cells, 1 before and 2 after
    padded = F.pad(x.detach(), (before, 2, before, 2))
    _, wanted, _ = plain_gradients(torch.ones(1, 4, 5, 5), padded, conv.weight.detach(), 2, 0)
    assert conv.weight.grad is not None
    assert torch.allclose(conv.weight.grad.double(), wanted, atol=1e-5)


def test_autocast_and_frozen_parts_are_as_with_torchs_own() -> None:
    own = DepthwiseConv2d(8, 5, padding=2)
    x = torch.randn(1, 8, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        y = own(x)
        assert torch.equal(y, F.conv2d(x, own.weight, None, 1, 2, 1, 8))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert own.weight.grad is not None and own.weight.grad.dtype == torch.float32
    own.weight.requires_grad_(False)
    own.weight.grad = None
    x.requires_grad_()
    own(x).sum().backward()
    assert own.weight.grad is None and x.grad is not None
    assert set(own.state_dict()) == {"weight"}


def test_without_gradients_it_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    used = _counted(monkeypatch)
    own = DepthwiseConv2d(8, 3, padding=1)
    with torch.no_grad():
        own(torch.randn(1, 8, 6, 6))
    own.requires_grad_(False)
    own(torch.randn(1, 8, 6, 6))
    assert used == []


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the weights that the operator with its own gradients gets."""
    used: list[tuple[int, ...]] = []
    apply: Callable[..., Tensor] = layer._Depthwise.apply

    def counted(x: Tensor, weight: Tensor, *rest: object) -> Tensor:
        used.append(tuple(weight.shape))
        return apply(x, weight, *rest)

    monkeypatch.setattr(layer._Depthwise, "apply", counted)
    return used


def test_a_norm_folds_into_it() -> None:
    norm = nn.BatchNorm2d(8)
    nn.init.uniform_(norm.bias, 1, 2)
    block = nn.Sequential(DepthwiseConv2d(8, 3, padding=1), norm).eval()
    x = torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        wanted = block(x)
        fold_sequences(block)
        assert torch.allclose(block(x), wanted, atol=1e-5)

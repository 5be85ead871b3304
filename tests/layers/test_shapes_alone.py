"""Passes that compute shapes alone: the same shapes as those of real tensors, and the same refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.layers.shapes_alone import ShapesAlone, without_memory
from fssd.model.build import build_model

Step = Callable[[Tensor], Tensor]

STEPS: dict[str, Step] = {
    "activations": lambda x: F.relu6(F.relu(F.hardtanh(x)), inplace=True),
    "a number": lambda x: (x * 2 + 1 - 3) / 4,
    "a wider map": lambda x: x[:, :1] + x,
    "another type": lambda x: x * torch.ones(1, dtype=torch.float64, device=x.device).expand(6, 1, 1),
    "more axes": lambda x: x[0] * torch.ones(2, 1, 1, 1, device=x.device),
    "a result whose shape is changed": lambda x: (F.relu(x).unsqueeze_(0), x)[1],
    "whole numbers": lambda x: F.relu(x.int()),
    "a part, viewed": lambda x: F.relu(x[:, :2]).view(-1),
    "norm": lambda x: F.batch_norm(x, *_rows(x, 6, 6)),
    "norm without scale": lambda x: F.batch_norm(x, *_rows(x, 6)),
    "enlarged": lambda x: F.interpolate(x, size=(9, 5), mode="bilinear", align_corners=True),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
}
REFUSED: dict[str, Step] = {
    "maps that do not fit": lambda x: x + x[..., 1:],
    "norm of other channels": lambda x: F.batch_norm(x, *_rows(x, 5)),
    "norm of one value": lambda x: F.batch_norm(x[:, :, :1, :1], *_rows(x, 6), training=True),
    "no cells": lambda x: F.interpolate(x, size=(0, 5), mode="bilinear"),
}


def _rows(x: Tensor, *channels: int) -> list[Tensor]:
    """Mean and variance, or those with scale and shift."""
    return [torch.ones(number, device=x.device) for number in channels for _ in range(2)]


def run(step: Step, device: str) -> Tensor:
    with torch.no_grad(), ShapesAlone():
        return step(torch.ones(1, 6, 4, 3, device=device))


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_shapes_are_those_of_real_tensors(step: Step) -> None:
    made, real = run(step, "meta"), run(step, "cpu")
    assert made.is_meta and (made.shape, made.dtype) == (real.shape, real.dtype)
    assert torch.equal(real, step(torch.ones(1, 6, 4, 3))), "tensors with values are left to torch"


@pytest.mark.parametrize("step", REFUSED.values(), ids=REFUSED)
def test_what_torch_refuses_is_refused(step: Step) -> None:
    for device in ("cpu", "meta"):
        with pytest.raises((RuntimeError, ValueError, ZeroDivisionError)):
            run(step, device)


def test_gradients_still_flow() -> None:
    x = torch.ones(2, 3, device="meta", requires_grad=True)
    with ShapesAlone():
        made = F.relu(x)
    assert made is not x and made.requires_grad


def test_a_copy_without_memory_computes_shapes() -> None:
    network = build_model("fssd300-vgg16", 1)
    copied = without_memory(network)
    assert all(p.is_meta for p in copied.parameters()) and not any(p.is_meta for p in network.parameters())
    assert copied.training and copied.neck.fusion.norm.num_batches_tracked.device.type == "cpu"
    raw = copied(torch.zeros(2, 3, 300, 300, device="meta"))
    assert raw.logits.shape == (2, 8732, 2)
    assert network.neck.fusion.norm.num_batches_tracked == 0

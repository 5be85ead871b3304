"""Resizing against Caffe's layer in plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fssd.layers.enlarge import resize_bilinear


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

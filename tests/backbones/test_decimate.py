"""The decimation of VGG16's fully connected layers, against indices written out."""

from __future__ import annotations

import pytest
import torch

from fssd.backbones.decimate import decimate_fc6, decimate_fc7
from fssd.errors import CheckpointError


@pytest.fixture(scope="module")
def fc6() -> torch.Tensor:
    # Every weight tells its place in Caffe's flat order: output * 25088 + channel * 49 + row * 7 + column.
    return torch.arange(4096 * 25088, dtype=torch.int32).reshape(4096, 25088)


def test_fc6_keeps_every_fourth_output_and_every_third_cell(fc6: torch.Tensor) -> None:
    weight, bias = decimate_fc6(fc6, torch.arange(4096))
    assert weight.shape == (1024, 512, 3, 3)
    for output, channel, row, column in [(0, 0, 0, 0), (1, 2, 1, 2), (1023, 511, 2, 1)]:
        expected = 4 * output * 25088 + channel * 49 + 3 * row * 7 + 3 * column
        assert int(weight[output, channel, row, column]) == expected
    assert bias.tolist() == list(range(0, 4096, 4))
    as_cells, _ = decimate_fc6(fc6.reshape(4096, 512, 7, 7), torch.arange(4096))
    assert torch.equal(as_cells, weight)


@pytest.mark.parametrize("shape", [(4096, 4096), (4096, 4096, 1, 1)])
def test_fc7_keeps_every_fourth_output_and_input(shape: tuple[int, ...]) -> None:
    weight, bias = decimate_fc7(torch.arange(4096**2).reshape(shape), torch.arange(4096))
    assert weight.shape == (1024, 1024, 1, 1)
    for output, row in [(0, 1), (3, 1023), (1023, 2)]:
        assert int(weight[output, row]) == 4 * output * 4096 + 4 * row
    assert bias.tolist() == list(range(0, 4096, 4))


@pytest.mark.parametrize("shape", [(1024, 512, 3, 3), (4096, 512 * 36), (4096,)])
def test_other_layers_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(CheckpointError, match=r"layer 'fc6' has weights of shape .*\(4096, 25088\)"):
        decimate_fc6(torch.zeros(1).expand(shape), torch.zeros(4096))
    with pytest.raises(CheckpointError, match=r"layer 'fc7' has .*biases \(9,\)"):
        decimate_fc7(torch.zeros(1).expand(4096, 4096), torch.zeros(9))

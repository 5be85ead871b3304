"""VGG16's fully connected layers as the small convolutions of VGG16-reduced.

DeepLab's decimation, which made VGG_ILSVRC_16_layers_fc_reduced (Liu et al. 2016, 3): it keeps every third
row and column of fc6's 7 x 7 cells (so fc6 is dilated), and every fourth of both layers' 4096 outputs.
"""

from __future__ import annotations

from torch import Tensor

from fssd.errors import CheckpointError

EVERY_OUTPUT = 4
EVERY_CELL = 3


def decimate_fc6(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """(4096, 25088) or (4096, 512, 7, 7) and (4096,) to (1024, 512, 3, 3) and (1024,).

    Raises CheckpointError for other shapes.
    """
    _check("fc6", weight, bias, ((4096, 25088), (4096, 512, 7, 7)))
    cells = weight.reshape(4096, 512, 7, 7)
    kept = cells[::EVERY_OUTPUT, :, ::EVERY_CELL, ::EVERY_CELL]  # (1024, 512, 3, 3)
    return kept.contiguous(), bias[::EVERY_OUTPUT].contiguous()


def decimate_fc7(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """(4096, 4096), or that with 1 x 1 cells, and (4096,) to (1024, 1024, 1, 1) and (1024,).

    Raises CheckpointError for other shapes.
    """
    _check("fc7", weight, bias, ((4096, 4096), (4096, 4096, 1, 1)))
    kept = weight.reshape(4096, 4096)[::EVERY_OUTPUT, ::EVERY_OUTPUT]  # (1024, 1024)
    return kept[:, :, None, None].contiguous(), bias[::EVERY_OUTPUT].contiguous()


def _check(layer: str, weight: Tensor, bias: Tensor, shapes: tuple[tuple[int, ...], ...]) -> None:
    if tuple(weight.shape) not in shapes or tuple(bias.shape) != (4096,):
        raise CheckpointError(
            f"layer {layer!r} has weights of shape {tuple(weight.shape)} and biases {tuple(bias.shape)};"
            f" VGG16's are {' or '.join(str(shape) for shape in shapes)} and (4096,)"
        )

"""The convolutions that SSD appends; FSSD keeps the first four of VGG16's, conv6_2 at stride 1."""

from __future__ import annotations

from typing import NamedTuple

from fssd.backbones.backbone import MapShape
from fssd.layers.blocks import Chain, ConvReLU
from fssd.necks.neck import Cells
from fssd.necks.windows import HALVE, SAME, VALID, Window, windows_below

FC7_CHANNELS = 1024
ONE = Window(1, 1, 0)


class Extra(NamedTuple):
    """One appended layer: convolution + ReLU."""

    name: str
    inputs: int
    outputs: int
    window: Window


def fssd_extras(padded: bool = True) -> tuple[Extra, ...]:
    """conv6_1 to conv7_2, conv6_2 at stride 1, so that conv7_2 has half the cells of fc7 (paper 3.1).

    padded: the authors' PyTorch port leaves conv6_2 without padding, so that conv7_2 is 9 x 9, not 10 x 10.
    """
    return _rows(FC7_CHANNELS, [SAME if padded else VALID, HALVE])


def ssd_extras(fc7: Cells) -> tuple[Extra, ...]:
    """conv6_1, conv6_2, ... down to a map of one cell; the levels are those named _2."""
    return _rows(FC7_CHANNELS, windows_below(fc7))


def extras_below(last: MapShape) -> tuple[Extra, ...]:
    """SSD's layers below a backbone's map of stride 32: conv7_1 reads it in place of VGG16's conv6_2."""
    return _rows(last.channels, windows_below(last.cells), first=7)


def _rows(inputs: int, windows: list[Window], first: int = 6) -> tuple[Extra, ...]:
    rows: list[Extra] = []
    for number, window in enumerate(windows, start=first):
        outputs = 512 if number == 6 else 256
        rows.append(Extra(f"conv{number}_1", inputs, outputs // 2, ONE))
        rows.append(Extra(f"conv{number}_2", outputs // 2, outputs, window))
        inputs = outputs
    return tuple(rows)


def make_extras(rows: tuple[Extra, ...]) -> Chain:
    """The appended layers as a chain that gives every layer's output by name."""
    return Chain({row.name: ConvReLU(row.inputs, row.outputs, *row.window) for row in rows})

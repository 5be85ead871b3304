"""The convolutions that SSD appends to its backbone; FSSD keeps the first four, conv6_2 at stride 1."""

from __future__ import annotations

from typing import NamedTuple

from fssd.layers.blocks import Chain, ConvReLU


class Extra(NamedTuple):
    """One appended layer: convolution + ReLU."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int


FSSD_EXTRAS = (
    Extra("conv6_1", 1024, 256, 1, 1, 0),
    Extra("conv6_2", 256, 512, 3, 1, 1),  # stride 1, so that conv7_2 is 10 x 10 (paper 3.1)
    Extra("conv7_1", 512, 128, 1, 1, 0),
    Extra("conv7_2", 128, 256, 3, 2, 1),
)

# The authors' PyTorch port leaves conv6_2 without padding: 19 -> 17, so that conv7_2 is 9 x 9.
PORT_EXTRAS = tuple(row._replace(padding=0) if row.name == "conv6_2" else row for row in FSSD_EXTRAS)

_SSD_SHARED = (
    Extra("conv6_1", 1024, 256, 1, 1, 0),
    Extra("conv6_2", 256, 512, 3, 2, 1),
    Extra("conv7_1", 512, 128, 1, 1, 0),
    Extra("conv7_2", 128, 256, 3, 2, 1),
    Extra("conv8_1", 256, 128, 1, 1, 0),
)

SSD_EXTRAS = {
    300: (
        *_SSD_SHARED,
        Extra("conv8_2", 128, 256, 3, 1, 0),
        Extra("conv9_1", 256, 128, 1, 1, 0),
        Extra("conv9_2", 128, 256, 3, 1, 0),
    ),
    512: (
        *_SSD_SHARED,
        Extra("conv8_2", 128, 256, 3, 2, 1),
        Extra("conv9_1", 256, 128, 1, 1, 0),
        Extra("conv9_2", 128, 256, 3, 2, 1),
        Extra("conv10_1", 256, 128, 1, 1, 0),
        Extra("conv10_2", 128, 256, 4, 1, 1),
    ),
}


def make_extras(rows: tuple[Extra, ...]) -> Chain:
    """The appended layers as a chain that gives every layer's output by name."""
    return Chain(
        {row.name: ConvReLU(row.inputs, row.outputs, row.kernel, row.stride, row.padding) for row in rows}
    )

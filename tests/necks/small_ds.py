"""A DS with few layers, so that a whole DSOD trains and exports in seconds."""

from __future__ import annotations

from fssd.backbones.ds import DS


class SmallDS(DS):
    first = 16
    bottleneck = 32
    growth = 16
    layers = (1, 2, 2, 1)

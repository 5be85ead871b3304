"""What the multibox head predicts."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Raw(NamedTuple):
    """What a network says of each prior, before any decoding; the same in training and evaluation.

    offsets: (B, P, 4) centre-size offsets, to be read by `fssd.boxes.decode`.
    logits: (B, P, C + 1) class scores before softmax, background first; or (B, P, C) before the sigmoid.
    """

    offsets: Tensor
    logits: Tensor

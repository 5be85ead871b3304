"""What the loader hands to a training step: images, and what a head wants to know of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fssd.data.sample import Boxes, Labels

Targets = dict[str, Tensor]  # of one image; each tensor has the same shape for every image
MakeTargets = Callable[[Boxes, Labels], Targets]  # pure and fast on a CPU: it runs in the loader's processes


class Example(NamedTuple):
    """One image: (3, H, W) uint8 RGB, its targets, and its file, for messages."""

    image: Tensor
    targets: Targets
    name: str


class Batch(NamedTuple):
    """images: (B, 3, H, W) uint8 RGB. targets: those of the images, stacked. names: the image files."""

    images: Tensor
    targets: Targets
    names: list[str]


def collate(examples: Sequence[Example]) -> Batch:
    images = torch.stack([example.image.permute(1, 2, 0) for example in examples]).permute(0, 3, 1, 2)
    targets = {key: torch.stack([e.targets[key] for e in examples]) for key in examples[0].targets}
    return Batch(images, targets, [example.name for example in examples])

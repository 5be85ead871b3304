"""What the loader hands to a training step: images, and the targets that the head made from their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fssd.data.sample import Boxes, Labels
from fssd.errors import DataError

Targets = dict[str, Tensor]  # of one image; each tensor has the same shape for every image
MakeTargets = Callable[[Boxes, Labels], Targets]  # pure and fast on a CPU: it runs in the loader's processes


class Example(NamedTuple):
    """One image: (3, H, W) uint8 RGB, its targets, and its file, for messages.

    broken: errors by image id of images that could not be read, which this one stands in for.
    """

    image: Tensor
    targets: Targets
    name: str
    broken: dict[str, DataError]


class Batch(NamedTuple):
    """images: (B, 3, H, W) uint8 RGB. targets: those of the images, stacked. names: the image files.

    broken: see `Example`.
    """

    images: Tensor
    targets: Targets
    names: list[str]
    broken: dict[str, DataError] = {}  # noqa: RUF012 (the default of a field, never changed)


def collate(examples: Sequence[Example]) -> Batch:
    images = torch.stack([example.image.permute(1, 2, 0) for example in examples]).permute(0, 3, 1, 2)
    targets = {key: torch.stack([e.targets[key] for e in examples]) for key in examples[0].targets}
    broken = {key: error for example in examples for key, error in example.broken.items()}
    return Batch(images, targets, [example.name for example in examples], broken)

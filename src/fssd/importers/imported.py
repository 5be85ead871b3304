"""What an importer finds in a foreign file: the contract that all of them share."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

ASPECTS = {4: (2.0,), 6: (2.0, 3.0)}
"""Aspect ratios by the number of priors a cell: what every known SSD and FSSD has."""


class Imported(NamedTuple):
    """Weights under this package's names, and what has to be built to hold them.

    options: of `build_model`, JSON values. num_classes: without background; 0 for a bare backbone.
    tensors: by the names of the network's state dict (of VGG16Reduced's for a bare backbone), float32
    but for the count of batches that a normalisation has seen.
    unused: names of the file's layers or keys that were not taken, in the file's order.
    """

    options: dict[str, Any]
    num_classes: int
    tensors: dict[str, Tensor]
    unused: tuple[str, ...]


def prior_table(classes: int, wanted: str | None) -> str:
    """Table of prior sizes for so many classes without background: COCO's 80 have their own."""
    return wanted or ("coco" if classes == 80 else "voc")

"""Images as the quantisers of the runtimes take them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from fssd.runtimes.session import Images


def rows(images: Tensor) -> Iterator[Images]:
    """(N, 3, H, W) uint8 RGB, one by one as (1, H, W, 3)."""
    for image in images:
        yield np.ascontiguousarray(image.permute(1, 2, 0)[None].numpy())

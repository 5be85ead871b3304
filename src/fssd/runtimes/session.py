"""What every runtime makes of an exported file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fssd.runtimes.header import Header

Images = npt.NDArray[np.uint8]  # (B, H, W, 3) RGB
Session = Callable[[Images], Sequence[npt.NDArray[Any]]]
"""Images to the outputs of the file, in order: the head's predictions, or boxes, scores, labels and count."""


class Opened(NamedTuple):
    """A file in its runtime, and what it says of itself."""

    session: Session
    header: Header

"""Whether losses and gradients are finite, without waiting for the device at every step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fssd.data.batch import Batch

LOOK_EVERY = 8  # updates between two checks on a GPU; the batches in between stay in memory


class Watched(NamedTuple):
    """Something that has to be finite. what: "loss" or "gradient". batch, terms: that it came from."""

    what: str
    iteration: int
    batch: Batch
    terms: dict[str, Tensor]


class FiniteWatch:
    """Keeps a flag on the device for each loss and gradient, and looks at all of them at once.

    A look waits for the device. On a CPU that costs nothing, so one is due before every update, and a bad
    step is never taken. On a GPU one is due every `LOOK_EVERY` updates and before weights are evaluated or
    written: bad updates may reach the weights in memory, but the run ends there and no file ever holds them.
    """

    def __init__(self, device: torch.device) -> None:
        self.every = 1 if device.type == "cpu" else LOOK_EVERY
        self._flags: list[Tensor] = []
        self._seen: list[Watched] = []

    def add(self, value: Tensor, seen: Watched) -> None:
        """Remember whether a scalar is finite. Does not wait."""
        self._flags.append(torch.isfinite(value.detach()))
        self._seen.append(seen)

    def is_due(self, iteration: int) -> bool:
        """Whether to look before the update of this iteration."""
        return (iteration + 1) % self.every == 0

    def look(self) -> Watched | None:
        """The first that was not finite since the last look, if any. Waits for the device."""
        if not self._flags:
            return None
        flags = torch.stack(self._flags)
        bad = None if bool(flags.all()) else self._seen[int(flags.int().argmin())]
        self._flags, self._seen = [], []
        return bad

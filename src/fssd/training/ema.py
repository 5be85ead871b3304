"""An exponential moving average of a network's weights and statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def lent(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Let `module` have these weights and statistics for the length of a with block."""
    own = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    module.load_state_dict(tensors)
    try:
        yield
    finally:
        module.load_state_dict(own)


class Average:
    """Keeps average = decay * average + (1 - decay) * weights; early on it follows faster.

    After t updates the decay is min(decay, (1 + t) / (10 + t)), so a short run does not carry its
    random start along. Integer buffers are copied. All tensors are updated by a few calls for lists: on a
    GPU one kernel takes many of them, on a CPU each is updated as by `lerp_`, with the same bytes.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.tensors = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        pairs = [(self.tensors[name], tensor) for name, tensor in module.state_dict().items()]
        moving = [pair for pair in pairs if pair[0].is_floating_point()]
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        torch._foreach_lerp_([own for own, _ in moving], [new for _, new in moving], 1 - decay)
        if counts:
            torch._foreach_copy_([own for own, _ in counts], [new for _, new in counts])

    def restore(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Take up a saved average."""
        self.updates = updates
        for name, average in self.tensors.items():
            average.copy_(tensors[name])

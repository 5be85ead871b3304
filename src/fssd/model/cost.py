"""What a network costs: learnable parameters and multiply-adds."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fssd.layers.shapes_alone import NEEDS_VALUES, ShapesAlone, without_memory
from fssd.model.network import Network


def parameters(module: nn.Module) -> int:
    """Number of learnable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def multiply_adds(network: Network) -> int:
    """Multiply-adds of the convolutions for one image of the network's size.

    Counted on the meta device, which computes shapes alone, or where the network cannot do that, on its own.
    """
    try:
        return _counted(without_memory(network), torch.device("meta"))
    except NEEDS_VALUES:
        return _counted(network, network.device)


def _counted(network: Network, device: torch.device) -> int:
    was_training = network.training
    width, height = network.image_size
    image = torch.zeros(1, 3, height, width, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), ShapesAlone():
        network.eval()(image)
    network.train(was_training)
    return int(counter.get_total_flops()) // 2

"""What can be found out about a network by running it on the meta device, which computes shapes alone."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fssd.layers.shapes_alone import NEEDS_VALUES, without_memory
from fssd.model.network import Network


def lone_norms(network: Network) -> list[str]:
    """Names of the batch norms in training mode that see one value per channel of each image.

    With a batch of one image their output would be their shift, whatever the image shows.
    """
    try:
        return _lone_norms(without_memory(network), "meta")
    except NEEDS_VALUES:
        return _lone_norms(deepcopy(network), network.device)


def _lone_norms(copied: Network, device: str | torch.device) -> list[str]:
    found: list[str] = []

    def watch(name: str) -> Any:
        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0][:, 0].numel() == inputs[0].shape[0]:
                found.append(name)

        return note

    for name, module in copied.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            module.register_forward_pre_hook(watch(name))
    width, height = copied.image_size
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # two images, as one is what fails
        copied(torch.zeros(2, 3, height, width, device=device))
    return found

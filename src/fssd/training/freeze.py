"""Parts of the backbone that keep the weights they were loaded with: faster, and safer on little data."""

from __future__ import annotations

from torch import nn

from fssd.backbones.backbone import backbone_stages
from fssd.errors import ConfigError
from fssd.model.network import Network


def freeze_stages(network: Network, stages: int) -> None:
    """Stop the first `stages` stages of the backbone from learning. Raises ConfigError if it has fewer."""
    for module in _frozen(network, stages):
        module.requires_grad_(False)


def training_mode(network: Network, stages: int, norms: bool) -> None:
    """Training mode, but for the batch normalisation of frozen stages or, with `norms`, of the backbone.

    Those keep the statistics they were loaded with, as detectors fine-tuned in small batches usually do.
    """
    network.train()
    for module in [network.backbone] if norms else _frozen(network, stages):
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.eval()


def _frozen(network: Network, stages: int) -> list[nn.Module]:
    if not stages:
        return []
    known = backbone_stages(network.backbone)
    if not known:
        raise ConfigError("this backbone does not list its stages; give it a method stages() or freeze none")
    if stages > len(known):
        raise ConfigError(f"freeze is {stages}; the backbone has {len(known)} stages")
    return [module for stage in known[:stages] for module in stage]

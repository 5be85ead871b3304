"""Parts of a network that keep the weights they were loaded with: faster, and safer on little data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from fssd.backbones.backbone import backbone_stages
from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError
from fssd.model.network import Network


def freeze(network: Network, config: TrainConfig) -> None:
    """Stop what a configuration freezes from learning. Raises ConfigError for what the network lacks."""
    freeze_stages(network, config.freeze)
    if config.train_only == "new":
        new = {id(p) for module in _new_modules(network) for p in module.parameters()}
        for parameter in network.parameters():
            parameter.requires_grad_(id(parameter) in new)
    if config.freeze_all_norms:
        norms = list(_norms([network]))
        if not norms:
            raise ConfigError(f"{network.spec.name} has no batch norm; leave --freeze-all-norms out")
        for norm in norms:
            norm.requires_grad_(False)


@contextmanager
def given_back(module: nn.Module | None) -> Iterator[None]:
    """After the block the parameters of a user's module learn, or do not, as they did before it."""
    before = [] if module is None else [(one, one.requires_grad) for one in module.parameters()]
    try:
        yield
    finally:
        for parameter, learns in before:
            parameter.requires_grad_(learns)


def freeze_stages(network: Network, stages: int) -> None:
    """Stop the first `stages` stages of the backbone from learning. Raises ConfigError if it has fewer."""
    for module in _frozen(network, stages):
        module.requires_grad_(False)


def training_mode(network: Network, config: TrainConfig) -> None:
    """Training mode, but for batch norms that keep their statistics: of what is frozen, or as configured.

    `freeze_norm` fixes those of the backbone, as detectors fine-tuned in small batches usually do.
    """
    network.train()
    fixed: list[nn.Module] = _frozen(network, config.freeze)
    if config.freeze_norm:
        fixed = [network.backbone]
    if config.freeze_all_norms or config.train_only == "new":
        fixed = [network]
    for norm in _norms(fixed):
        norm.eval()
    if config.train_only == "new":
        for norm in _norms(_new_modules(network)):
            norm.train()


def _norms(modules: Iterable[nn.Module]) -> Iterable[nn.BatchNorm2d]:
    return (norm for module in modules for norm in module.modules() if isinstance(norm, nn.BatchNorm2d))


def _new_modules(network: Network) -> list[nn.Module]:
    """What a trained SSD does not have; its heads are for other levels."""
    return [network.heads, *network.neck.fresh()]


def _frozen(network: Network, stages: int) -> list[nn.Module]:
    if not stages:
        return []
    known = backbone_stages(network.backbone)
    if not known:
        raise ConfigError("this backbone does not list its stages; give it a method stages() or freeze none")
    if stages > len(known):
        raise ConfigError(f"freeze is {stages}; the backbone has {len(known)} stages")
    return [module for stage in known[:stages] for module in stage]

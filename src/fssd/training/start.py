"""How a run begins: fresh weights from the seed, then those it starts from."""

from __future__ import annotations

import torch

from fssd.config import TrainConfig
from fssd.errors import ConfigError
from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.weights.pretrained import load_backbone, load_ssd
from fssd.weights.transfer import load_detector


def fresh_network(config: TrainConfig, num_classes: int, backbone: torch.nn.Module | None) -> Network:
    """New weights from the seed, without touching the caller's random state."""
    options = dict(config.options)
    if "backbone" in options:
        raise ConfigError("a backbone is a module, which no setting can name; use fssd.train(backbone=...)")
    if backbone is not None:
        options["backbone"] = backbone
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        try:
            return build_model(config.model, num_classes, **options)
        except (TypeError, ValueError) as error:
            if not config.options:
                raise
            raise ConfigError(f"the model options {dict(config.options)} do not fit ({error})") from error


def check_batch(config: TrainConfig, network: Network) -> None:
    """Batch normalisation of a single cell needs another image. Raises ConfigError."""
    if config.batch_size == 1 and any(isinstance(m, torch.nn.BatchNorm2d) for m in network.heads.modules()):
        raise ConfigError(
            f"batch_size is 1; {config.model} normalises its last level, a single cell, over the batch and"
            " needs 2 or more"
        )


def start_weights(network: Network, classes: tuple[str, ...], config: TrainConfig) -> None:
    """Fill `network` as `config.start` says. Raises ConfigError or CheckpointError."""
    if config.start == "nothing":
        return
    if config.start == "model":
        assert config.weights is not None
        shared = load_detector(network, classes, config.weights)
        print(f"starts from {config.weights} with {len(shared)} of {len(classes)} classes known to it")
        return
    if config.start == "ssd":
        assert config.weights is not None
        load_ssd(network, config.weights)
        return
    if network.spec.own_backbone and config.weights is None:
        return  # the user's module came with the weights it is to start from
    load_backbone(network, config.weights)

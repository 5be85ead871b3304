"""SGD or Adam over Caffe SSD's parameter groups, and the learning rate of each iteration."""

from __future__ import annotations

import math

import torch
from torch import nn

from fssd.model.network import Network

ADAM_BETA_2 = 0.999
NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


def make_optimizer(
    network: Network,
    *,
    momentum: float,
    weight_decay: float,
    bias_lr: float = 2.0,
    norm_bias_lr: float | None = None,
    new_layers_lr: float = 1.0,
    backbone_lr: float = 1.0,
    norm_decay: float = 0.0,
    fused: bool = False,
    kind: str = "sgd",
) -> torch.optim.Optimizer:
    """An optimizer over groups that each have an `lr_scale` and a decay; `set_lr` sets the rates.

    Weights decay; biases learn `bias_lr` times as fast without decay, the shifts of normalisation
    `norm_bias_lr` times if that is given; scales and shifts of normalisation
    do not decay, but for `norm_decay` times the penalty outside the heads. The heads, and what the neck calls
    fresh (see `Neck.fresh`), learn `new_layers_lr` times as fast, the backbone `backbone_lr` times. fused:
    one kernel for all parameters, on a GPU. kind: "sgd", or "adam", whose first beta is `momentum` and whose
    decay is part of the gradient.
    """
    faster = {
        id(p): new_layers_lr for module in (network.heads, *network.neck.fresh()) for p in module.parameters()
    }
    faster |= {id(p): backbone_lr for p in network.backbone.parameters()}
    of_norms = dict.fromkeys(_norm_parameters(network), 0.0)
    for body in (network.backbone, network.neck):
        of_norms |= dict.fromkeys(_norm_parameters(body), norm_decay * weight_decay)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        is_bias = name.endswith("bias")
        of_bias = norm_bias_lr if id(parameter) in of_norms and norm_bias_lr is not None else bias_lr
        scale = (of_bias if is_bias else 1.0) * faster.get(id(parameter), 1.0)
        decay = of_norms.get(id(parameter), 0.0 if is_bias else weight_decay)
        groups.setdefault((scale, decay), []).append(parameter)
    rows = [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    if kind == "adam":
        return torch.optim.Adam(rows, lr=0.0, betas=(momentum, ADAM_BETA_2), fused=fused)
    return torch.optim.SGD(rows, lr=0.0, momentum=momentum, fused=fused)


def _norm_parameters(module: nn.Module) -> list[int]:
    """The identities of the scales and shifts of normalisation."""
    return [id(p) for m in module.modules() if isinstance(m, NORMS) for p in m.parameters(recurse=False)]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the base rate; each group multiplies it by its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def learning_rate(
    iteration: int,
    *,
    base: float,
    total: int,
    schedule: str,
    steps: tuple[int, ...] = (),
    warmup: int = 0,
    warmup_power: float | None = None,
) -> float:
    """The base learning rate of iteration 0, 1, ..., total - 1.

    schedule: "multistep" divides by ten at each of `steps` (given () at 2/3 and 5/6 of the run, the
    proportions of SSD's 80k and 100k of 120k), "cosine" falls to zero, "constant" stays. During the
    first `warmup` iterations the rate rises linearly from base / 100, or as a power of their number, as in
    darknet, whose power is 4.
    """
    if iteration < warmup and warmup_power is not None:
        return float(base * ((iteration + 1) / warmup) ** warmup_power)
    if iteration < warmup:
        return base * (0.01 + 0.99 * iteration / warmup)
    if schedule == "constant":
        return base
    if schedule == "cosine":
        return base * 0.5 * (1 + math.cos(math.pi * (iteration - warmup) / max(1, total - warmup)))
    steps = steps or (round(total * 2 / 3), round(total * 5 / 6))
    return float(base * 0.1 ** sum(iteration >= step for step in steps))

"""Batch norms whose statistics are those of the batches of all processes together.

As torch's SyncBatchNorm, which runs on GPUs alone and would drop the moving sums of `CaffeBatchNorm`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fssd.errors import ConfigError
from fssd.layers.norms import CaffeBatchNorm


def join_norms(module: nn.Module) -> None:
    """Make every batch norm in `module` a joint one, in place; weights, statistics and names stay.

    Raises ConfigError where there is none, and for a kind of batch norm that is not known here.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        raise ConfigError("the network has no batch norm; leave --sync-norm out")
    for norm in norms:
        if type(norm) is CaffeBatchNorm:
            norm.__class__ = JointCaffeBatchNorm
        elif type(norm) is nn.BatchNorm2d:
            norm.__class__ = JointBatchNorm
        else:
            kind = type(norm).__name__
            raise ConfigError(f"--sync-norm knows torch's BatchNorm2d, not {kind}; leave --sync-norm out")


class JointBatchNorm(nn.BatchNorm2d):
    """In training it normalises (B, C, H, W) by the batches of all processes, which must all be here."""

    def forward(self, x: Tensor) -> Tensor:
        return joint_batch_norm(self, x) if self.training else super().forward(x)


class JointCaffeBatchNorm(CaffeBatchNorm):
    """The same with Caffe's moving sums."""

    def normalise(self, x: Tensor) -> Tensor:
        return joint_batch_norm(self, x) if self.training else super().normalise(x)


def joint_batch_norm(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """(B, C, H, W) normalised by joint statistics; the running ones move as those of `nn.BatchNorm2d` do."""
    normalised: tuple[Tensor, ...] = _Normalise.apply(x, norm.eps)  # type: ignore[no-untyped-call]
    y, mean, variance, count = normalised
    with torch.no_grad():
        assert norm.running_mean is not None and norm.running_var is not None
        assert norm.num_batches_tracked is not None and norm.momentum is not None
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
    if norm.affine:
        y = y * _spread(norm.weight) + _spread(norm.bias)
    return y.to(x.dtype)


class _Normalise(torch.autograd.Function):
    """x to (x - mean) / sqrt(variance + eps), float32 or more; mean, variance, number of values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        own = torch.var_mean(exact, dim=(0, 2, 3), correction=0)
        number = torch.full((1,), x.numel() // x.shape[1], dtype=exact.dtype, device=x.device)
        rows = _of_each(torch.cat((*own, number)))  # (processes, 2 C + 1)
        variances, means = rows[:, :-1].chunk(2, dim=1)
        counts = rows[:, -1:]
        count = counts.sum()
        mean = (means * counts).sum(dim=0) / count
        variance = ((variances + (means - mean).square()) * counts).sum(dim=0) / count
        scale = torch.rsqrt(variance + eps)
        y = (exact - _spread(mean)) * _spread(scale)
        ctx.save_for_backward(y, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        ctx.kind = x.dtype
        return y, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient, (y, scale, count) = gradients[0], ctx.saved_tensors
        sums = torch.stack((gradient.sum(dim=(0, 2, 3)), (gradient * y).sum(dim=(0, 2, 3))))
        dist.all_reduce(sums)
        mean, along = (_spread(value / count) for value in sums)
        return ((gradient - mean - y * along) * _spread(scale)).to(ctx.kind), None


def _of_each(row: Tensor) -> Tensor:
    """The (N,) tensors of all processes, (processes, N), by a sum, which every backend has."""
    rows = row.new_zeros(dist.get_world_size(), len(row))
    rows[dist.get_rank()] = row
    dist.all_reduce(rows)
    return rows


def _spread(value: Tensor) -> Tensor:
    return value[:, None, None]

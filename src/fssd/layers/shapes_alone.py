"""Passes of a network that compute shapes alone, on the meta device, which holds no values."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Module = TypeVar("Module", bound=nn.Module)

NEEDS_VALUES = (RuntimeError, TypeError, ValueError)
"""What a module raises on the meta device that looks at values, or makes tensors of its own."""

_OF_ONE = frozenset((F.relu, F.relu6, F.hardtanh, torch.relu, torch.relu_, torch.rsqrt, torch.sqrt))
_OF_TWO = frozenset((Tensor.add, Tensor.sub, Tensor.mul, Tensor.div))


def without_memory(module: Module) -> Module:
    """A copy in the same mode whose floating-point tensors lie on the meta device.

    Counters stay numbers: `CaffeBatchNorm` reads its own.
    """
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    for buffer in module.buffers():
        if buffer.is_floating_point():
            memo[id(buffer)] = buffer.to("meta")
    return deepcopy(module, memo)


class ShapesAlone(TorchFunctionMode):
    """Within it, what keeps the shape of a tensor on the meta device gives that tensor back.

    For such a tensor torch works out activations, norms, sums and resizing in Python, which takes most of a
    pass. Anything unusual is left to torch, as are its errors.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What `func` returns, or its input where that has the same shape."""
        kwargs = kwargs or {}
        answer = _ANSWERS.get(func)
        if answer is None or not args or not _plain(args[0]) or torch.is_grad_enabled():
            return func(*args, **kwargs)
        shaped = answer(*args, **kwargs)
        # A tensor of its own: a module may change the shape of a result in place, and not that of its input.
        return func(*args, **kwargs) if shaped is None else shaped.detach()


def _plain(x: Any) -> bool:
    """Whether it holds numbers, but no values, and is laid out as a new tensor would be."""
    return type(x) in (Tensor, nn.Parameter) and x.is_meta and x.is_floating_point() and x.is_contiguous()


# Each of these takes what the function of torch takes, and returns a tensor of its result's shape, or None.


def _of_one(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def _of_two(x: Tensor, other: Any, **more: Any) -> Tensor | None:
    if more:
        return None
    if isinstance(other, (int, float)):
        return x
    if not _plain(other) or other.dtype != x.dtype or other.ndim > x.ndim:
        return None
    sides = zip(reversed(x.shape), reversed(other.shape), strict=False)
    return x if all(its in (1, own) for own, its in sides) else None


def _batch_norm(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    *_: Any,
    **__: Any,
) -> Tensor | None:
    if training or mean is None or variance is None or x.ndim < 2:
        return None
    rows = (row for row in (mean, variance, weight, bias) if row is not None)
    fit = all(row.is_meta and row.dtype == x.dtype and row.shape == x.shape[1:2] for row in rows)
    return x if fit else None


def _interpolate(x: Tensor, size: Any = None, *_: Any, mode: str = "nearest", **__: Any) -> Tensor | None:
    sides = (*x.shape[2:], *size) if isinstance(size, tuple) else ()
    if mode != "bilinear" or len(sides) != 4 or not all(type(side) is int and side > 0 for side in sides):
        return None
    return x.new_empty((*x.shape[:2], *sides[2:]))


_ANSWERS: dict[Any, Callable[..., Tensor | None]] = {
    **dict.fromkeys(_OF_ONE, _of_one),
    **dict.fromkeys(_OF_TWO, _of_two),
    F.batch_norm: _batch_norm,
    F.interpolate: _interpolate,
}

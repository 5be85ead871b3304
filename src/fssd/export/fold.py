"""A network with fewer steps and the same answer: what is fixed after training goes into the convolutions.

Every step is exact algebra, also at the border of a map:

- A batch norm after a convolution is a scale and a shift of its weights and bias.
- The norm of the fused map stands before a zero-padded convolution, so its shift cannot go forwards: it would
  move the zeros of the padding too. It goes backwards. With scale s > 0 and shift t of a channel,
  s * relu(y) + t = max(s * y + t, t), so s and t go into the 1x1 of the source and its ReLU becomes a maximum
  with t. The pooling and the resizing in between let them pass: s is positive, bilinear weights add up to 1.
- The first convolution of the lite backbone divides by the standard deviation. The mean stays outside:
  padding is 0 after it was subtracted, not before.
- The 3x3 convolutions for offsets and for class scores of a level are one. The separable heads of the lite
  models stay two: joined, their 1x1 would multiply as many zeros as numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.backbones.efficientnet_lite import EfficientNetLite0, InvertedResidual, SameConv2d
from fssd.heads.multibox.head import Heads
from fssd.model.network import FusionNeck, Network
from fssd.necks.fusion import Fusion


def fold(network: Network) -> Network:
    """A copy of `network` on the CPU, in evaluation mode, that computes the same in fewer steps.

    The user's own backbone is copied as it is.
    """
    network = deepcopy(network).to("cpu").eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.contiguous()  # not channels last, which exporters write as transposes
    for activation in network.modules():
        if isinstance(activation, (nn.ReLU, nn.ReLU6)):
            activation.inplace = False  # see FoldedResidual
    if isinstance(network.backbone, EfficientNetLite0) and not network.spec.own_backbone:
        _fold_lite(network, network.backbone)
    _fold_sequences(network.neck)
    _fold_sequences(network.heads)
    if isinstance(network.neck, FusionNeck):
        _fold_fusion(network.neck.fusion)
    if all(isinstance(head, nn.Conv2d) for head in (*network.heads.loc, *network.heads.conf)):
        network.heads = cast("Heads", JoinedHeads(network.heads))
    return network


class FoldedConv(nn.Module):
    """A SAME-padded convolution with its batch norm in weight and bias."""

    def __init__(self, conv: SameConv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = conv
        weight, bias = _normalised(conv, norm)
        conv.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv.convolve(x, self.conv.weight, self.bias)

    def normalised(self, x: Tensor, _: nn.Module) -> Tensor:
        """The same, as the backbone calls its first convolution; the norm is part of it."""
        return self.conv.convolve(x, self.conv.weight, self.bias)


class FoldedResidual(nn.Module):
    """`InvertedResidual` with its norms in its convolutions.

    Its ReLU6 makes a new tensor: torch's exporter takes most of a second over each one that works in place.
    """

    def __init__(self, block: InvertedResidual) -> None:
        super().__init__()
        self.widen = FoldedConv(block._expand_conv, block._bn0) if block.has_expand else None
        self.depthwise = FoldedConv(block._depthwise_conv, block._bn1)
        self.project = FoldedConv(block._project_conv, block._bn2)
        self.has_shortcut = block.has_shortcut

    def expand(self, x: Tensor) -> Tensor:
        """The expanded map, as `InvertedResidual.expand`."""
        return x if self.widen is None else F.relu6(self.widen(x))

    def shrink(self, expanded: Tensor, x: Tensor) -> Tensor:
        """The block's output, as `InvertedResidual.shrink`."""
        out: Tensor = self.project(F.relu6(self.depthwise(expanded)))
        return out + x if self.has_shortcut else out


class Floor(nn.Module):
    """No value of a channel below that channel's own floor, (C,)."""

    floor: Tensor

    def __init__(self, floor: Tensor) -> None:
        super().__init__()
        self.register_buffer("floor", floor[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, self.floor)


class Affine(nn.Module):
    """x * scale + shift, both (C,)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class JoinedHeads(nn.Module):
    """`Heads` of plain convolutions with one convolution a level, offsets first."""

    def __init__(self, heads: Heads) -> None:
        super().__init__()
        self.classes = heads.classes
        pairs = [
            (cast("nn.Conv2d", loc), cast("nn.Conv2d", conf))
            for loc, conf in zip(heads.loc, heads.conf, strict=True)
        ]
        self.levels = nn.ModuleList(_join(loc, conf) for loc, conf in pairs)
        self.widths = [(loc.out_channels, conf.out_channels) for loc, conf in pairs]

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Level maps to offsets (B, P, 4) and logits (B, P, classes), in the order of the priors."""
        offsets, logits = [], []
        for head, widths, x in zip(self.levels, self.widths, levels, strict=True):
            loc, conf = (
                head(x).permute(0, 2, 3, 1).split(widths, dim=-1)
            )  # (B, H, W, A * 4), (B, H, W, A * C)
            offsets.append(loc.reshape(x.shape[0], -1, 4))
            logits.append(conf.reshape(x.shape[0], -1, self.classes))
        return torch.cat(offsets, dim=1), torch.cat(logits, dim=1)


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a batch norm with fixed statistics multiplies channels by and adds to them, (C,) float64 each."""
    assert norm.running_mean is not None and norm.running_var is not None  # every norm here keeps them
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.affine:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    return scale, shift + norm.bias.double() if norm.affine else shift


def _normalised(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals `norm` of `conv`."""
    scale, shift = scale_and_shift(norm)
    return _rescaled(conv, scale, shift)


def _rescaled(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    weight = conv.weight.double() * scale[:, None, None, None]
    bias = shift if conv.bias is None else shift + conv.bias.double() * scale
    return weight.float(), bias.float()


def _put(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = nn.Parameter(bias, requires_grad=False)


def _fold_sequences(module: nn.Module) -> None:
    """Fold each batch norm that follows a convolution directly in an `nn.Sequential`."""
    for sequence in [m for m in module.modules() if isinstance(m, nn.Sequential)]:
        for place in range(len(sequence) - 1):
            conv, norm = sequence[place], sequence[place + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                _put(conv, *_normalised(conv, norm))
                sequence[place + 1] = nn.Identity()


def _fold_lite(network: Network, backbone: EfficientNetLite0) -> None:
    """Fold the norms of the lite backbone, and the standard deviation."""
    stem = FoldedConv(backbone._conv_stem, backbone._bn0)
    stem.conv.weight.div_(network.std)
    network.std = torch.ones_like(network.std)
    backbone.add_module("_conv_stem", stem)
    blocks = cast("Iterable[InvertedResidual]", backbone._blocks)
    backbone._blocks = nn.ModuleList(FoldedResidual(block) for block in blocks)


def _fold_fusion(fusion: Fusion) -> None:
    """Move the norm of the fused map into its sources, if every scale is positive."""
    if not isinstance(fusion.norm, nn.BatchNorm2d):
        return
    scale, shift = scale_and_shift(fusion.norm)
    count = len(fusion.names)
    width = fusion.channels // count if fusion.merge == "concat" else fusion.channels
    reduced = [
        cast("nn.Conv2d", block[0]) for block in cast("Iterable[nn.Sequential]", fusion.transform.values())
    ]
    alike = fusion.merge == "sum" or width * count == fusion.channels
    if not bool((scale > 0).all()) or not alike or any(conv.out_channels != width for conv in reduced):
        return
    for place, name in enumerate(fusion.names):
        if fusion.merge == "concat":
            part = slice(place * width, (place + 1) * width)
            _move_norm(fusion, name, scale[part], shift[part])
        else:  # the shift of a sum is added once
            _move_norm(fusion, name, scale, shift if place == 0 else torch.zeros_like(shift))
    fusion.norm = nn.Identity()


def _move_norm(fusion: Fusion, name: str, scale: Tensor, shift: Tensor) -> None:
    if name not in fusion.transform:
        fusion.transform[name] = Affine(scale.float(), shift.float())
        return
    conv = cast("nn.Conv2d", cast("nn.Sequential", fusion.transform[name])[0])
    _put(conv, *_rescaled(conv, scale, shift))
    fusion.transform[name] = nn.Sequential(conv, Floor(shift.float()))


def _join(loc: nn.Conv2d, conf: nn.Conv2d) -> nn.Conv2d:
    joined = nn.Conv2d(
        loc.in_channels,
        loc.out_channels + conf.out_channels,
        cast("tuple[int, int]", loc.kernel_size),
        padding=cast("tuple[int, int]", loc.padding),
    )
    assert loc.bias is not None and conf.bias is not None  # predictors have one
    _put(joined, torch.cat((loc.weight, conf.weight)), torch.cat((loc.bias, conf.bias)))
    return joined

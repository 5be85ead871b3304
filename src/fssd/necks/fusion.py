"""The feature fusion module of FSSD: paper 3.1, equation 1, X_f = phi_f{T_i(X_i)}.

Every choice of the paper's Table 2 is an argument here: which sources, how they are merged, and
whether and how the merged map is normalised. So are those in which ParseNet, HyperNet and ION differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.errors import ConfigError, nearest
from fssd.layers.blocks import ConvReLU
from fssd.layers.enlarge import enlarging_window, resize_bilinear
from fssd.layers.folding import Affine, Floor, rescaled, scale_and_shift, set_fixed
from fssd.layers.norms import CaffeBatchNorm, L2Norm, ResponseNorm
from fssd.necks.neck import Cells

Merge = Literal["concat", "sum"]
Norm = Literal["batch", "batch-affine", "none"]
SourceNorm = Literal["none", "l2", "lrn"]
Upsample = Literal["bilinear", "deconvolution"]
CHOICES: dict[str, tuple[str, ...]] = {
    "merge": ("concat", "sum"),
    "norm": ("batch", "batch-affine", "none"),
    "source_norm": ("none", "l2", "lrn"),
    "upsample": ("bilinear", "deconvolution"),
}
SOURCE_SCALE = 10.0  # ParseNet's initial scale of an L2-normalised source
LRN_CHANNELS = 5  # that a local response norm sums over; with AlexNet's other constants


class Source(NamedTuple):
    """A feature map to fuse.

    name: its key. channels: its width. reduce: whether T_i begins with a convolution and ReLU; a map that
    already has the fused width may go in as it is. cells: its rows and columns, for deconvolutions.
    averaged: the key of the map whose mean over all cells this is, to be repeated in every cell; None for a
    map itself.
    """

    name: str
    channels: int
    reduce: bool
    cells: Cells = (1, 1)
    averaged: str | None = None


class Fusion(nn.Module):
    """Bring the sources to one size, merge them, normalise once.

    sources: the maps, in the order of concatenation. width: channels after each T_i. size: rows and columns
    of the fused map (conv4_3's). merge: "concat" or "sum" (all sources need one width then). norm: of the
    merged map, "batch" as released, without scale and shift; "batch-affine"; or "none". fraction: how much of
    its running statistics the normalisation keeps each step. align_corners: whether resizing keeps the corner
    pixels in place, as Caffe does and PyTorch does not by default.

    kernel: side of the convolutions T_i. source_norm: of each source before the merge, at the fused size:
    "l2", every cell's channels to unit length times a learned scale a channel that starts at `source_scale`;
    "lrn", local response normalisation over five channels; or "none". project: channels of a 1x1 and ReLU
    after merge and norm; 0 for none. upsample: of smaller maps, "bilinear", or a depthwise "deconvolution".

    Larger maps are max-pooled 2x2 (rounding up) until they are no larger, smaller ones enlarged. A 1x1 comes
    before that, a larger kernel after it, as in HyperNet. Raises ConfigError if a choice is unknown or the
    widths do not allow a sum.
    """

    def __init__(
        self,
        sources: tuple[Source, ...],
        width: int,
        size: Cells,
        merge: Merge = "concat",
        norm: Norm = "batch",
        fraction: float = 0.999,
        align_corners: bool = True,
        *,
        kernel: int = 1,
        source_norm: SourceNorm = "none",
        source_scale: float = SOURCE_SCALE,
        project: int = 0,
        upsample: Upsample = "bilinear",
    ) -> None:
        super().__init__()
        chosen = {"merge": merge, "norm": norm, "source_norm": source_norm, "upsample": upsample}
        for key, value in chosen.items():
            if value not in CHOICES[key]:
                raise ConfigError(f"there is no {key} {value!r}{nearest(str(value), CHOICES[key])}")
        widths = [width if source.reduce else source.channels for source in sources]
        if merge == "sum" and len(set(widths)) > 1:
            raise ConfigError(
                f"a sum needs sources of one width but they have {widths} channels; reduce them all"
            )
        self.sources = sources
        self.names = [source.name for source in sources]
        self.size = size
        self.align_corners = align_corners
        self.merge = merge
        self.resized_first = kernel > 1
        self.transform = nn.ModuleDict(
            {
                source.name: ConvReLU(source.channels, width, kernel, 1, kernel // 2)
                for source in sources
                if source.reduce
            }
        )
        before = [source.channels for source in sources] if self.resized_first else widths
        self.up = nn.ModuleDict(_ups(sources, before, size) if upsample == "deconvolution" else {})
        self.source_norms = nn.ModuleDict(
            {s.name: _source_norm(source_norm, w, source_scale) for s, w in zip(sources, widths, strict=True)}
            if source_norm != "none"
            else {}
        )
        merged = sum(widths) if merge == "concat" else widths[0]
        self.norm = _norm(norm, merged, fraction)
        self.project = ConvReLU(merged, project, 1) if project else None
        self.channels = project or merged

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Named maps (B, C_i, H_i, W_i) to the fused map (B, channels, *size)."""
        maps = [self._bring(source, features) for source in self.sources]
        fused = torch.cat(maps, dim=1) if self.merge == "concat" else reduce(torch.add, maps)
        normalised: Tensor = self.norm(fused)  # (B, 768, 38, 38) for FSSD300
        return normalised if self.project is None else self.project(normalised)

    def _bring(self, source: Source, features: dict[str, Tensor]) -> Tensor:
        name = source.name
        x = features[source.averaged or name]
        if source.averaged:
            x = x.mean(dim=(2, 3), keepdim=True)
        if name in self.transform and not self.resized_first:
            x = self.transform[name](x)
        x = x.expand(-1, -1, *self.size) if source.averaged else self._resize(name, x)
        if name in self.transform and self.resized_first:
            x = self.transform[name](x)
        return self.source_norms[name](x) if name in self.source_norms else x

    def _resize(self, name: str, x: Tensor) -> Tensor:
        while x.shape[-2] > self.size[0] and x.shape[-1] > self.size[1]:
            x = F.max_pool2d(x, 2, stride=2, ceil_mode=True)
        if (x.shape[-2], x.shape[-1]) == self.size:
            return x
        if name in self.up:
            enlarged: Tensor = self.up[name](x)
            return enlarged
        return resize_bilinear(x, self.size, self.align_corners)

    def fold(self) -> None:
        """Move the norm of the fused map into its neighbours where that is exact, in place.

        Forwards into a 1x1 that follows, which has no padding. The pyramid's first convolution pads with
        zeros, which a shift would move too, so without a 1x1 the norm goes backwards. With scale s > 0 and
        shift t of a channel, s * relu(y) + t = max(s * y + t, t), so s and t go into the convolution of the
        source and its ReLU becomes a maximum with t. Pooling and resizing in between let them pass: s is
        positive, and bilinear weights add up to 1. Where that does not hold, for a scale that is not
        positive, a norm of each source or a deconvolution, the norm stays.
        """
        if not isinstance(self.norm, nn.BatchNorm2d):
            return
        scale, shift = scale_and_shift(self.norm)
        if self.project is not None:
            after = cast("nn.Conv2d", self.project[0])
            self.norm = nn.Identity()
            set_fixed(after, *_fed_by(after, scale, shift))
            return
        if self.source_norms or self.up:
            return
        blocks = cast("Iterable[nn.Sequential]", self.transform.values())
        reduced = {
            name: cast("nn.Conv2d", block[0]) for name, block in zip(self.transform, blocks, strict=True)
        }
        widths = [reduced[s.name].out_channels if s.name in reduced else s.channels for s in self.sources]
        if not bool((scale > 0).all()):
            return
        if self.merge == "concat":
            parts = zip(self.names, torch.split(scale, widths), torch.split(shift, widths), strict=True)
        else:  # the shift of a sum is added once
            shifts = [shift, *[torch.zeros_like(shift)] * (len(self.names) - 1)]
            parts = zip(self.names, [scale] * len(self.names), shifts, strict=True)
        for name, own_scale, own_shift in parts:
            self._move_norm(name, own_scale, own_shift)
        self.norm = nn.Identity()

    def _move_norm(self, name: str, scale: Tensor, shift: Tensor) -> None:
        if name not in self.transform:
            self.transform[name] = Affine(scale.float(), shift.float())
            return
        conv = cast("nn.Conv2d", cast("nn.Sequential", self.transform[name])[0])
        set_fixed(conv, *rescaled(conv, scale, shift))
        self.transform[name] = nn.Sequential(conv, Floor(shift.float()))


def _norm(norm: str, channels: int, fraction: float) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    return CaffeBatchNorm(channels, fraction, affine=norm == "batch-affine")


def _source_norm(norm: str, channels: int, scale: float) -> nn.Module:
    if norm == "l2":
        return L2Norm(channels, scale)
    return ResponseNorm(LRN_CHANNELS)


def _ups(sources: tuple[Source, ...], channels: list[int], size: Cells) -> dict[str, nn.Module]:
    """A depthwise deconvolution to the fused size for every map that is smaller once it was pooled."""
    layers: dict[str, nn.Module] = {}
    for source, width in zip(sources, channels, strict=True):
        rows, columns = source.cells
        while rows > size[0] and columns > size[1]:
            rows, columns = -(-rows // 2), -(-columns // 2)
        if source.averaged is None and (rows, columns) != size:
            sides = (enlarging_window(rows, size[0]), enlarging_window(columns, size[1]))
            kernel, stride, padding = zip(*sides, strict=True)
            layers[source.name] = nn.ConvTranspose2d(width, width, kernel, stride, padding, groups=width)
    return layers


def _fed_by(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of the 1x1 that reads x where `conv` reads x * scale + shift."""
    assert conv.bias is not None
    weight = conv.weight.double()
    bias = conv.bias.double() + (weight[:, :, 0, 0] * shift).sum(dim=1)
    return (weight * scale[:, None, None]).float(), bias.float()

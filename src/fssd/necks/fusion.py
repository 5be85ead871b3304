"""The feature fusion module of FSSD: paper 3.1, equation 1, X_f = phi_f{T_i(X_i)}.

Every choice of the paper's Table 2 is an argument here: which sources, how they are merged, and
whether and how the merged map is normalised.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.errors import ConfigError, nearest
from fssd.layers.blocks import CaffeBatchNorm, ConvReLU, resize_bilinear
from fssd.layers.fold import Affine, Floor, rescaled, scale_and_shift, set_fixed
from fssd.necks.neck import Cells

Merge = Literal["concat", "sum"]
Norm = Literal["batch", "batch-affine", "none"]


class Source(NamedTuple):
    """A feature map to fuse.

    name: its key. channels: its width. reduce: whether T_i begins with a 1x1 convolution and ReLU;
    a map that already has the fused width may go in as it is.
    """

    name: str
    channels: int
    reduce: bool


class Fusion(nn.Module):
    """Bring the sources to one size, merge them, normalise once.

    sources: the maps, in the order of concatenation. width: channels after each 1x1. size: rows and columns
    of the fused map (conv4_3's). merge: "concat" or "sum" (all sources need `width` channels
    then). norm: "batch" as released, without scale and shift; "batch-affine"; or "none".
    fraction: how much of its running statistics the normalisation keeps each step. align_corners: whether
    resizing keeps the corner pixels in place, as Caffe does and PyTorch does not by default.

    Larger maps are max-pooled 2x2 (rounding up), smaller ones resized bilinearly after their 1x1.
    Raises ConfigError if a choice is unknown or the widths do not allow a sum.
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
    ) -> None:
        super().__init__()
        if merge not in ("concat", "sum"):
            raise ConfigError(f"there is no merge {merge!r}{nearest(str(merge), ('concat', 'sum'))}")
        widths = [width if source.reduce else source.channels for source in sources]
        if merge == "sum" and len(set(widths)) > 1:
            raise ConfigError(
                f"a sum needs sources of one width but they have {widths} channels; reduce them all"
            )
        self.names = [source.name for source in sources]
        self.size = size
        self.align_corners = align_corners
        self.merge = merge
        self.transform = nn.ModuleDict(
            {source.name: ConvReLU(source.channels, width, 1) for source in sources if source.reduce}
        )
        self.channels = sum(widths) if merge == "concat" else widths[0]
        self.norm = _norm(norm, self.channels, fraction)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Named maps (B, C_i, H_i, W_i) to the fused map (B, channels, *size)."""
        maps = [self._bring(name, features[name]) for name in self.names]
        fused = torch.cat(maps, dim=1) if self.merge == "concat" else torch.stack(maps).sum(dim=0)
        normalised: Tensor = self.norm(fused)  # (B, 768, 38, 38) for FSSD300
        return normalised

    def _bring(self, name: str, x: Tensor) -> Tensor:
        if name in self.transform:
            x = self.transform[name](x)
        if x.shape[-2] > self.size[0] and x.shape[-1] > self.size[1]:
            x = F.max_pool2d(x, 2, stride=2, ceil_mode=True)
        if (x.shape[-2], x.shape[-1]) == self.size:
            return x
        return resize_bilinear(x, self.size, self.align_corners)

    def fold(self) -> None:
        """Move the norm of the fused map into its sources, if every scale is positive, in place.

        The norm stands before a zero-padded convolution, so its shift cannot go forwards: it would move the
        zeros of the padding too. It goes backwards. With scale s > 0 and shift t of a channel,
        s * relu(y) + t = max(s * y + t, t), so s and t go into the 1x1 of the source and its ReLU becomes a
        maximum with t. Pooling and resizing in between let them pass: s is positive, and bilinear weights add
        up to 1.
        """
        if not isinstance(self.norm, nn.BatchNorm2d):
            return
        scale, shift = scale_and_shift(self.norm)
        count = len(self.names)
        width = self.channels // count if self.merge == "concat" else self.channels
        blocks = cast("Iterable[nn.Sequential]", self.transform.values())
        reduced = [cast("nn.Conv2d", block[0]) for block in blocks]
        one_width = self.merge == "sum" or width * count == self.channels
        if not bool((scale > 0).all()) or not one_width or any(c.out_channels != width for c in reduced):
            return
        for index, name in enumerate(self.names):
            if self.merge == "concat":
                part = slice(index * width, (index + 1) * width)
                self._move_norm(name, scale[part], shift[part])
            else:  # the shift of a sum is added once
                self._move_norm(name, scale, shift if index == 0 else torch.zeros_like(shift))
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
    if norm not in ("batch", "batch-affine"):
        raise ConfigError(f"there is no norm {norm!r}{nearest(str(norm), ('batch', 'batch-affine', 'none'))}")
    return CaffeBatchNorm(channels, fraction, affine=norm == "batch-affine")

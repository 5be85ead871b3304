"""The feature fusion module of FSSD: paper 3.1, equation 1, X_f = phi_f{T_i(X_i)}.

Every choice of the paper's Table 2 is an argument here: which sources, how they are merged, and
whether and how the merged map is normalised.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.errors import ConfigError, nearest
from fssd.layers.blocks import CaffeBatchNorm, ConvReLU, resize_bilinear

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

    sources: the maps, in the order of concatenation. width: channels after each 1x1. size: cells a
    side of the fused map (conv4_3's). merge: "concat" or "sum" (all sources need `width` channels
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
        size: int,
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
        """Named maps (B, C_i, H_i, W_i) to the fused map (B, channels, size, size)."""
        maps = [self._bring(name, features[name]) for name in self.names]
        fused = torch.cat(maps, dim=1) if self.merge == "concat" else torch.stack(maps).sum(dim=0)
        normalised: Tensor = self.norm(fused)  # (B, 768, 38, 38) for FSSD300
        return normalised

    def _bring(self, name: str, x: Tensor) -> Tensor:
        if name in self.transform:
            x = self.transform[name](x)
        if x.shape[-1] > self.size:
            x = F.max_pool2d(x, 2, stride=2, ceil_mode=True)
        if x.shape[-1] == self.size:
            return x
        return resize_bilinear(x, self.size, self.align_corners)


def _norm(norm: str, channels: int, fraction: float) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    if norm not in ("batch", "batch-affine"):
        raise ConfigError(f"there is no norm {norm!r}{nearest(str(norm), ('batch', 'batch-affine', 'none'))}")
    return CaffeBatchNorm(channels, fraction, affine=norm == "batch-affine")

"""One map at one scale: every prior size on the same cells (FSSD paper, Fig. 1 b).

The paper gives no such single-shot network; the choices here are ours, see docs/paper-to-code.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from fssd.errors import ConfigError, nearest
from fssd.layers.norms import L2Norm
from fssd.necks.neck import Blueprint, Neck, even_steps
from fssd.necks.windows import levels_from

STRIDE = 16  # of the default map, as in Faster R-CNN and R-FCN, which Fig. 1 (b) stands for


class Single(Neck):
    """A map of the backbone is the only level; it has the prior sizes of all levels of an SSD.

    source: the name of the map. scale: L2Norm of conv4_3, as in SSD.
    """

    known_options = frozenset({"source"})
    source: str
    scale: nn.Module

    @classmethod
    def build(cls, blueprint: Blueprint) -> Single:
        """Option source: the map to predict from; by default the backbone's last with a cell for every 16 px.

        A backbone that rounds its maps down has fewer cells at stride 16; then it is the map before.
        """
        shapes = blueprint.shapes
        width, height = blueprint.image_size
        fine = [
            name for name, x in shapes.items() if x.rows * STRIDE >= height and x.columns * STRIDE >= width
        ]
        source = blueprint.options.get("source", fine[-1] if fine else list(shapes)[-1])
        if not isinstance(source, str) or source not in shapes:
            raise ConfigError(
                f"there is no feature map {source!r} to predict from{nearest(str(source), shapes)}"
            )
        shape = shapes[source]
        neck = cls([shape.channels], [shape.cells], even_steps(blueprint.image_size, [shape.cells]))
        neck.prior_scales = [len(levels_from(blueprint.finest))]
        neck.source = source
        neck.scale = L2Norm(shape.channels) if source == "conv4_3" else nn.Identity()
        return neck

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """See `Neck`."""
        return [self.scale(features[self.source])]

    def level_sources(self) -> list[tuple[str, ...]]:
        """See `Neck`."""
        return [(self.source,)]

    def fresh(self) -> Iterable[nn.Module]:
        """See `Neck`: nothing that an SSD lacks."""
        return ()

"""YOLOv2's neck: three convolutions on the last map, the passthrough from the map before it (YOLO9000, 2).

There are two generations: that of the paper's time (2016-11, yolo-voc.2.0.cfg) takes the finer map as it is,
that of 2017-03 on (yolov2-voc.cfg) first reduces it to 64 channels by a 1x1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from fssd.errors import ConfigError, nearest
from fssd.layers.blocks import ConvNormLeaky
from fssd.layers.first_weights import he
from fssd.necks.neck import Blueprint, Neck, even_steps

GENERATIONS = (2016, 2017)
WIDTH = 1024  # channels of the 3x3 convolutions
PASSTHROUGH = 64  # channels of the finer map in 2017


class YOLOv2(Neck):
    """fine, last -> 3x3, 3x3 on last; concatenation of the reorganised fine map and that; 3x3: one level.

    source, last: names of the two maps. passthrough: 1x1 before the reorganisation; identity in 2016.
    """

    known_options = frozenset({"generation", "width"})
    source: str
    last: str
    deep: nn.Sequential
    passthrough: nn.Module
    merged: ConvNormLeaky

    @classmethod
    def build(cls, blueprint: Blueprint) -> YOLOv2:
        """For any backbone whose last two maps differ by a factor of two.

        Options: generation: 2017, or 2016, see above. width: channels of the 3x3 convolutions (1,024; fewer
        are ours, for a lighter detector). Raises ConfigError.
        """
        if blueprint.light:
            raise ConfigError(f"{blueprint.model} has no light form; give fewer channels with width instead")
        generation, width = generation_of(blueprint.options), _width(blueprint.options.get("width", WIDTH))
        names = list(blueprint.shapes)[-2:]
        fine, last = (blueprint.shapes[names[0]], blueprint.shapes[names[-1]])
        if len(names) < 2 or fine.cells != (2 * last.rows, 2 * last.columns):
            found = {name: blueprint.shapes[name].cells for name in names}
            raise ConfigError(
                f"{blueprint.model}: the passthrough needs a map of exactly twice the rows and columns of the"
                f" last one, not {found}; choose sides that are multiples of 32"
            )
        neck = cls([width], [last.cells], even_steps(blueprint.image_size, [last.cells]))
        neck.source, neck.last = names
        neck.deep = nn.Sequential(ConvNormLeaky(last.channels, width, 3), ConvNormLeaky(width, width, 3))
        reduced = generation > 2016
        neck.passthrough = ConvNormLeaky(fine.channels, PASSTHROUGH, 1) if reduced else nn.Identity()
        passed = 4 * (PASSTHROUGH if reduced else fine.channels)
        if passed % 16:
            raise ConfigError(f"the passthrough needs channels in fours, but {names[0]} has {fine.channels}")
        neck.merged = ConvNormLeaky(passed + width, width, 3)
        return neck

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """See `Neck`."""
        deep = self.deep(features[self.last])
        passed = reorganise(self.passthrough(features[self.source]))
        return [self.merged(torch.cat((passed, deep), dim=1))]

    def level_sources(self) -> list[tuple[str, ...]]:
        """See `Neck`: the reorganised map and the last."""
        return [(self.source, self.last)]

    def initialise(self) -> None:
        """See `Neck`: by darknet's rule."""
        he(self)

    def layers(self) -> list[str]:
        """The convolutions in the order of darknet's cfg."""
        passthrough = [] if isinstance(self.passthrough, nn.Identity) else ["passthrough"]
        return ["deep.0", "deep.1", *passthrough, "merged"]


def generation_of(options: Mapping[str, Any]) -> int:
    """The option `generation`, 2017 by default. Raises ConfigError for another than 2016 and 2017."""
    generation = options.get("generation", GENERATIONS[-1])
    if isinstance(generation, bool) or generation not in GENERATIONS:
        known = [str(year) for year in GENERATIONS]
        raise ConfigError(f"there is no generation {generation!r} of YOLOv2{nearest(str(generation), known)}")
    return cast("int", generation)


def _width(width: Any) -> int:
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise ConfigError(f"width is {width!r}; it is a number of channels, 1 or more")
    return width


def reorganise(x: Tensor) -> Tensor:
    """Darknet's reorg: (B, C, H, W) to (B, 4 C, H / 2, W / 2), H and W even, C in fours.

    It is not the space-to-depth that was meant: the map is taken for one of C / 4 channels and twice the
    sides, each 2 x 2 cells of that become four channels, and the result is taken for one of 4 C channels and
    half the sides. Trained weights depend on it.
    """
    batch, channels, rows, columns = x.shape
    blocks = x.reshape(batch, channels // 4, rows, 2, columns, 2)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(batch, 4 * channels, rows // 2, columns // 2)

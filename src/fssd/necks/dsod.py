"""DSOD: each level is half learned, half a pooled copy of the level before (Shen et al. 2017, section 3.1).

Source of what the paper leaves open: szq0214/DSOD, model_libs.py. See docs/paper-to-code.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fssd.backbones.backbone import MapShape
from fssd.errors import ConfigError, nearest
from fssd.layers.norms import L2Norm
from fssd.layers.pre_activation import pre_activation
from fssd.necks.neck import Blueprint, Cells, Neck, even_steps
from fssd.necks.windows import nominal_steps

HALVES = (256, 256, 128)  # channels of each half of the levels from the second on; all further have the last
PLAIN = ((256, 512), (128, 256))  # 1x1 and 3x3 of the plain structure's levels from the third on, as SSD's
FRONT_ENDS = ("dense", "plain")
LAST_STEPS = (300, 150)  # as released, and even


class DSOD(Neck):
    """The dense prediction structure on a backbone's maps at stride 8 and 16, down to two cells a side.

    sources: names of the two maps. learned: from each level to the next, the first from the backbone's second
    map. reused: pooled copies of each level for the next; empty in the plain structure. scales: L2Norm of
    each level.
    """

    known_options = frozenset({"front_end", "last_step"})
    sources: tuple[str, str]
    learned: nn.ModuleList
    reused: nn.ModuleList
    scales: nn.ModuleList

    @classmethod
    def resolve(cls, blueprint: Blueprint) -> Mapping[str, Any]:
        """See `Neck`: its heads have batch norm."""
        return {"head_norm": True, **blueprint.options}

    @classmethod
    def build(cls, blueprint: Blueprint) -> DSOD:
        """Options: front_end: "dense", or "plain", bottlenecks between the levels as SSD's (ours).

        last_step: pixels between the centres of the last level at 300 px: 300 as released, which puts all but
        the first beyond the image, or 150.
        """
        front_end = blueprint.options.get("front_end", FRONT_ENDS[0])
        if front_end not in FRONT_ENDS:
            raise ConfigError(f"there is no front_end {front_end!r}{nearest(str(front_end), FRONT_ENDS)}")
        names = _sources(blueprint)
        first, second = (blueprint.shapes[name] for name in names)
        cells = [first.cells, *_halved(second.cells)]
        dense = front_end == "dense"
        learned = list(_dense(second, len(cells)) if dense else _plain(second, len(cells)))
        widths = [_last_conv(layers).out_channels for layers in learned]
        channels = [first.channels, *(2 * width if dense else width for width in widths)]
        neck = cls(channels, cells, _steps(blueprint, cells))
        neck.sources, neck.learned = names, nn.ModuleList(learned)
        neck.reused = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2, 2, ceil_mode=True), *pre_activation(inputs, outputs // 2))
            for inputs, outputs in (pairwise(channels) if dense else ())
        )
        neck.scales = nn.ModuleList(L2Norm(width) for width in channels)
        return neck

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """See `Neck`."""
        levels = [features[self.sources[0]]]
        x = features[self.sources[1]]
        for index, learn in enumerate(self.learned):
            x = learn(x)
            if self.reused:
                halves = (self.reused[index](levels[-1]), x)
                # As released: the second level has its learned half first, all others the pooled one.
                x = torch.cat(halves if index else halves[::-1], dim=1)
            levels.append(x)
        return [scale(level) for scale, level in zip(self.scales, levels, strict=True)]

    def level_sources(self) -> list[tuple[str, ...]]:
        """See `Neck`: from the second level on, the dense structure reuses the first."""
        below = self.sources if self.reused else self.sources[1:]
        return [self.sources[:1], *(below for _ in self.learned)]


def _sources(blueprint: Blueprint) -> tuple[str, str]:
    """The last maps at stride 8 and 16. Raises ConfigError."""
    if blueprint.light:
        raise ConfigError(
            f"{blueprint.model}: DSOD's neck has no light form; choose a backbone of full width, such as ds"
        )
    finest = blueprint.finest
    by_cells = {shape.cells: name for name, shape in blueprint.shapes.items()}
    found = tuple(by_cells.get(cells, "") for cells in (finest, (-(-finest[0] // 2), -(-finest[1] // 2))))
    if not all(found):
        raise ConfigError(
            f"DSOD needs maps at stride 8 and 16; the backbone has"
            f" { ({name: shape.cells for name, shape in blueprint.shapes.items()}) }"
        )
    return found[0], found[1]


def _halved(cells: Cells) -> Iterator[Cells]:
    """A map and those below it, halved and rounded up, down to two cells on the longer side."""
    yield cells
    while max(cells) > 2:
        cells = (-(-cells[0] // 2), -(-cells[1] // 2))
        yield cells


def _dense(second: MapShape, levels: int) -> Iterator[nn.Sequential]:
    """The learned half of each level from the second on."""
    yield nn.Sequential(*pre_activation(second.channels, HALVES[0]))
    for index in range(1, levels - 1):
        above, width = (HALVES[min(i, len(HALVES) - 1)] for i in (index - 1, index))
        yield nn.Sequential(*pre_activation(2 * above, width), *pre_activation(width, width, 3, 2))


def _plain(second: MapShape, levels: int) -> Iterator[nn.Sequential]:
    """Each whole level from the second on; neither code nor widths are published."""
    inputs = second.channels
    yield nn.Sequential(*pre_activation(inputs, inputs))
    for index in range(levels - 2):
        narrow, width = PLAIN[min(index, len(PLAIN) - 1)]
        yield nn.Sequential(*pre_activation(inputs, narrow), *pre_activation(narrow, width, 3, 2))
        inputs = width


def _last_conv(layers: nn.Sequential) -> nn.Conv2d:
    conv = layers[-1]
    assert isinstance(conv, nn.Conv2d)  # see `pre_activation`
    return conv


def _steps(blueprint: Blueprint, cells: list[Cells]) -> list[tuple[float, float]]:
    released = blueprint.image_size == (300, 300)
    steps = (nominal_steps if released else even_steps)(blueprint.image_size, cells)
    if "last_step" not in blueprint.options:
        return steps
    last = blueprint.options["last_step"]
    if isinstance(last, bool) or last not in LAST_STEPS:
        raise ConfigError(f"last_step is {last!r}; it is 300, as released, or 150")
    if not released:
        raise ConfigError("last_step is for 300 px; at other sizes all steps are even, so leave it out")
    return [*steps[:-1], (float(last), float(last))]

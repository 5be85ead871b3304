"""Which losses a multibox head is trained with, and their options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fssd.config.bounds import Positive, check_number
from fssd.errors import ConfigError, nearest

LOC_LOSSES = ("smooth_l1", "giou", "ciou")
CONF_LOSSES = ("softmax", "focal", "quality_focal")
MININGS = ("image", "batch")
OBJECTIVE_OPTIONS = frozenset({"loc_loss", "loc_weight", "conf_loss", "mining"})


class Objective(NamedTuple):
    """The defaults are those of SSD.

    localisation: the loss on boxes. localisation_weight: its multiple. confidence: the loss on class scores.
    mining: where hard negatives of the softmax are taken from, each "image" or the "batch".
    """

    localisation: str = LOC_LOSSES[0]
    localisation_weight: float = 1.0
    confidence: str = CONF_LOSSES[0]
    mining: str = MININGS[0]

    @property
    def sigmoid(self) -> bool:
        """Whether each class has a score of its own, and background none."""
        return self.confidence != "softmax"

    @property
    def by_overlap(self) -> bool:
        """Whether predicted boxes are compared with true ones, not offsets alone."""
        return self.localisation != "smooth_l1" or self.confidence == "quality_focal"


SSD_OBJECTIVE = Objective()


def read_objective(options: Mapping[str, Any]) -> Objective:
    """The losses that options name. Raises ConfigError for an unknown one, or one without effect."""
    weight = options.get("loc_weight", 1.0)
    check_number("loc_weight", weight, Positive)
    found = Objective(
        one_of("loc_loss", options, LOC_LOSSES),
        float(weight),
        one_of("conf_loss", options, CONF_LOSSES),
        one_of("mining", options, MININGS),
    )
    if found.sigmoid and "mining" in options:
        raise ConfigError(f"conf_loss {found.confidence} mines no negatives; leave out mining")
    return found


def one_of(key: str, options: Mapping[str, Any], known: tuple[str, ...]) -> str:
    """The option `key`, by default the first known value. Raises ConfigError for any other."""
    value = options.get(key, known[0])
    if value not in known:
        raise ConfigError(f"there is no {key} {value!r}{nearest(str(value), known)}")
    return str(value)

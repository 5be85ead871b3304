"""How much the objects of each class count in the loss of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fssd.errors import ConfigError, nearest

INVERSE, EFFECTIVE = "inverse", "effective"
BETA = 0.999  # of the effective number; its limit is 1 / (1 - BETA) objects
MOST = 100.0  # a weight above this lets a few objects rule the loss

Floats = npt.NDArray[np.float64]


def read_class_weights(given: Sequence[str]) -> dict[str, float] | str:
    """The rule of `--class-weights`, or the weight of each class that it names. Raises ConfigError."""
    if list(given) in ([INVERSE], [EFFECTIVE]):
        return given[0]
    weights: dict[str, float] = {}
    for pair in given:
        name, equals, value = pair.rpartition("=")
        if not equals:
            raise ConfigError(
                f"class_weights has {pair!r}; it takes {INVERSE}, {EFFECTIVE}, or CLASS=WEIGHT for each class"
                " that is not to weigh 1"
            )
        weights[name] = _weight(pair, value)
        if [other.rpartition("=")[0] for other in given].count(name) > 1:
            raise ConfigError(f"class_weights names {name!r} twice; give each class one weight")
    return weights


def _weight(pair: str, value: str) -> float:
    try:
        weight = float(value)
    except ValueError:
        weight = float("nan")
    if not 0 < weight <= MOST:
        raise ConfigError(f"class_weights has {pair!r}; a weight is a number above 0, at most {MOST:g}")
    return weight


def class_weights(given: Sequence[str], objects: Mapping[str, int]) -> Floats:
    """(C,) the weight of each class. objects: of each class in the training split.

    "inverse": in proportion to 1 / n, for n objects of the class. "effective": to 1 / ((1 - b^n) / (1 - b)),
    the effective number of objects (Cui et al. 2019), b = 0.999. Both are scaled so that the mean over all
    objects is 1, and classes keep their balance with boxes and background. Raises ConfigError.
    """
    rule = read_class_weights(given)
    names = list(objects)
    if not isinstance(rule, str):
        for name in rule:
            if name not in objects:
                raise ConfigError(
                    f"class_weights names {name!r}, which is no class here{nearest(name, names)}"
                )
        return np.array([rule.get(name, 1.0) for name in names])
    counts = np.array(list(objects.values()), np.float64)
    number = np.maximum(counts, 1)
    if rule == EFFECTIVE:
        number = (1 - BETA**number) / (1 - BETA)
    weights = np.where(counts > 0, 1 / number, 0.0)
    weights *= counts.sum() / (weights * counts).sum()
    weights[counts == 0] = 1.0
    if weights.max() > MOST:
        row = int(weights.argmax())
        raise ConfigError(
            f"class_weights {rule} gives {names[row]} the weight {weights[row]:.0f}, above {MOST:g}, which"
            f" lets its {int(counts[row])} objects rule the loss; name the weights, or use --oversample"
        )
    return weights

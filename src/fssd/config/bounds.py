"""The range of a number as a part of its type: `Count` is 1 or more, `Share` between 0 and 1."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from fssd.errors import ConfigError

LEAST, LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # of float32, the least one of full precision


class Bound(NamedTuple):
    """The range of a number, as a part of its type: `needs` in words, and `holds` as a test."""

    needs: str
    holds: Callable[[float], bool]


Count = Annotated[int, Bound("1 or more", lambda value: value >= 1)]
Natural = Annotated[int, Bound("0 or more", lambda value: value >= 0)]
Folds = Annotated[int, Bound("0, or 2 to 100", lambda value: value == 0 or 2 <= value <= 100)]
NotNegative = Annotated[float, Bound("0 or more", lambda value: value >= 0)]
Positive = Annotated[float, Bound("above 0 and finite", lambda value: 0 < value < math.inf)]
Share = Annotated[float, Bound("between 0 and 1", lambda value: 0 <= value <= 1)]
Portion = Annotated[float, Bound("above 0 and at most 1", lambda value: 0 < value <= 1)]
BelowOne = Annotated[float, Bound("0 or more and below 1", lambda value: 0 <= value < 1)]
Opset = Annotated[int, Bound("17 to 21", lambda value: 17 <= value <= 21)]
Seed = Annotated[int, Bound("0 or more and below 2 to the power of 63", lambda value: 0 <= value < 2**63)]


def check_bounds(settings: Any) -> None:
    """Raise ConfigError for the first number in a dataclass (or a nested one) that is out of its bounds."""
    for key, kind in _kinds(type(settings)).items():  # type: ignore[arg-type]  # mypy: unhashable type
        value = getattr(settings, key)
        if dataclasses.is_dataclass(value):
            check_bounds(value)
        check_number(key, value, kind)


def finite_numbers(values: Any) -> tuple[float, ...]:
    """The numbers in a list, as floats. Raises TypeError or ValueError for anything else.

    Among it what float32, in which networks count, makes infinite, or 0 of a number that is not.
    """
    if isinstance(values, (str, bytes, Mapping)) or any(isinstance(value, (bool, str)) for value in values):
        raise TypeError("not a list of numbers")
    numbers = tuple(float(value) for value in values)
    if not all(value == 0 or LEAST <= abs(value) <= LARGEST for value in numbers):
        raise ValueError("a number is not finite in 32 bits")
    return numbers


def check_number(key: str, value: Any, kind: Any) -> None:
    """Raise ConfigError if `value` does not fit a type such as `Annotated[int, Bound(...)] | None`."""
    for number, bound in _bounds(kind):
        is_number = isinstance(value, number) and not isinstance(value, bool)
        if (is_number and bound.holds(value)) or (value is None and type(None) in get_args(kind)):
            continue
        needs = "" if is_number else f"a {'whole ' if number is Integral else ''}number, "
        raise ConfigError(f"{key} is {value!r}; it must be {needs}{bound.needs}")


@cache
def _kinds(settings: Any) -> dict[str, Any]:
    return get_type_hints(settings, include_extras=True)


@cache
def _bounds(kind: Any) -> tuple[tuple[type, Bound], ...]:
    """The bounds in a type, each with the kind of number that it is for."""
    parts = get_args(kind)
    if get_origin(kind) is not Annotated:
        return tuple(bound for part in parts for bound in _bounds(part))
    return tuple((Integral if parts[0] is int else Real, part) for part in parts if isinstance(part, Bound))

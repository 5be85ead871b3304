"""For each type of setting, the values that it is read from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from fssd.config.bounds import finite_numbers
from fssd.errors import ConfigError


def _whole(value: Any) -> int:
    """`value` as an int if that loses nothing, else ValueError or TypeError."""
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError
    return int(value)


def _whole_ones(values: Any) -> tuple[int, ...]:
    return tuple(map(_whole, [values] if isinstance(values, int) else values))


def _numbers(values: Any) -> tuple[float, ...]:
    return finite_numbers([values] if isinstance(values, (int, float)) else values)


def _words(values: Any) -> tuple[str, ...]:
    if isinstance(values, Mapping):
        return tuple(f"{key}={value}" for key, value in values.items())
    return (values,) if isinstance(values, str) else tuple(map(_word, values))


def words_of(key: str, values: Any) -> tuple[str, ...]:
    """The words of the setting `key`: one, several, or a mapping as KEY=VALUE. Raises ConfigError."""
    try:
        return _words(values)
    except TypeError:
        raise ConfigError(f"{key} is {values!r}; it takes words, or a mapping") from None


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


READERS: dict[Any, tuple[str, tuple[Any, ...], Callable[[Any], Any]]] = {
    Path: ("a path", (str, Path), Path),
    float: ("a number", (int, float, str), float),
    int: ("a whole number", (int, float, str), _whole),
    tuple: ("whole numbers", (list, tuple, int), _whole_ones),
    tuple[float, ...]: ("numbers", (list, tuple, int, float), _numbers),
    tuple[str, ...]: ("words, or a mapping", (list, tuple, str, Mapping), _words),
    Mapping: ("a mapping", (Mapping,), dict),
    bool: ("true or false", (bool,), bool),
    str: ("text", (str,), str),
    Literal: ("text", (str,), str),
}
"""For each type of setting: what it takes in words, the types it is read from, and the function for it."""

"""Figures of a comparison as lines of text and as a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fssd.atomic import atomic_write
from fssd.bench.machine import describe_machine
from fssd.bench.timing import Spread


def line(name: str, figure: Spread, unit: str, digits: int = 2) -> str:
    """A figure with its spread, such as `ours   1.20 ms  (1.10 to 1.50)`."""
    low, high = f"{figure.low:.{digits}f}", f"{figure.high:.{digits}f}"
    return f"{name:52} {figure.median:10.{digits}f} {unit:9} ({low} to {high})"


def milliseconds(figure: Spread) -> Spread:
    """A figure in seconds converted to milliseconds."""
    return Spread(1e3 * figure.median, 1e3 * figure.low, 1e3 * figure.high, figure.number)


def plain(value: Any) -> Any:
    """`value` as JSON values: spreads as objects, keys as text."""
    if isinstance(value, Spread):
        return value._asdict()
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    return value


def write_figures(path: Path | None, figures: Mapping[str, Any], threads: int) -> None:
    """Write figures with a description of the machine, if a path is given."""
    if path is None:
        return
    machine = describe_machine(torch.device("cpu"), threads)
    document = {"format": 1, "machine": machine, **plain(figures)}
    atomic_write(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")

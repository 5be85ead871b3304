"""The costs that `benchmarks/parts.py` works out, by hand."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest


def test_the_cost_of_an_image_and_what_is_left(script: Callable[[str], ModuleType]) -> None:
    """10 and 30 images in 3, 5 s: 0.1 s each, 2 s once; in 4, 10 s: 0.3, 1; in 3, 7 s: 0.2, 1."""
    figures = script("parts")._figures([(3.0, 5.0), (4.0, 10.0), (3.0, 7.0)], 10, 30)
    assert figures == {"milliseconds": pytest.approx(200), "fixed": pytest.approx(1)}

"""The parts of pages: values without a number, and names that run from right to left."""

from __future__ import annotations

import pytest

from fssd.report.layout import isolated, share

HEBREW = "\u05d7\u05ea\u05d5\u05dc"


@pytest.mark.parametrize(("value", "text"), [(0.123, "12.3 %"), (float("nan"), "\u2013")])
def test_share(value: float, text: str) -> None:
    assert share(value) == text


@pytest.mark.parametrize(
    ("name", "text"), [("cat 2", "cat 2"), ("\u732b", "\u732b"), (HEBREW, f"\u2068{HEBREW}\u2069")]
)
def test_isolated(name: str, text: str) -> None:
    assert isolated(name) == text

"""A number and what it counts, as users read it."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 image`, `1,200 images`, `2 boxes`, `3 classes`."""
    plural = f"{noun}es" if noun.endswith(("x", "s")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"

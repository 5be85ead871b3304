"""The names that data sets give their splits for training and for validation."""

from __future__ import annotations

from collections.abc import Sequence

_TRAINING = ("train", "training")
_VALIDATION = ("val", "valid", "validation", "dev")


def training_split(known: Sequence[str]) -> str | None:
    """The split to train on: train (also train2017), else trainval, else the only one for no other use."""
    others = [split for split in known if not split.startswith(("val", "test", "dev"))]
    only = others[0] if len(others) == 1 else None
    return _named(known, _TRAINING) or ("trainval" if "trainval" in known else only)


def validation_split(known: Sequence[str]) -> str | None:
    """The split to validate on: val, valid, validation or dev (also val2017)."""
    return _named(known, _VALIDATION)


def _named(known: Sequence[str], names: Sequence[str]) -> str | None:
    """The split that has one of the names, or the only one that begins with the first."""
    exact = next((name for name in names if name in known), None)
    begun = [split for split in known if split.startswith(names[0]) and not split.startswith("trainval")]
    return exact or (begun[0] if len(begun) == 1 else None)

"""The names that data sets give their splits for training and for validation."""

from __future__ import annotations

from collections.abc import Sequence

from fssd.data.formats.lookup import split_word

_TRAINING = ("train", "training")
_VALIDATION = ("val", "valid", "validation", "dev")
_TEST = ("test", "testing")


def training_split(known: Sequence[str]) -> str | None:
    """The split to train on: train (also train2017), else trainval, else the one that holds such a word, such
    as custom_train, else the only one for no other use."""
    others = [split for split in known if not split.startswith(("val", "test", "dev"))]
    others = [split for split in others if split_word(split) not in (*_VALIDATION, *_TEST)]
    only = others[0] if len(others) == 1 else None
    trainval = "trainval" if "trainval" in known else None
    return _named(known, _TRAINING) or trainval or _holding(known, _TRAINING) or only


def validation_split(known: Sequence[str]) -> str | None:
    """The split to validate on: val, valid, validation or dev (also val2017 and custom_val)."""
    return _named(known, _VALIDATION) or _holding(known, _VALIDATION)


def _named(known: Sequence[str], names: Sequence[str]) -> str | None:
    """The split that has one of the names, or the only one that begins with the first."""
    exact = next((name for name in names if name in known), None)
    begun = [split for split in known if split.startswith(names[0]) and not split.startswith("trainval")]
    return exact or (begun[0] if len(begun) == 1 else None)


def _holding(known: Sequence[str], names: Sequence[str]) -> str | None:
    """The only split that holds one of the names as a word."""
    held = [split for split in known if split_word(split) in names]
    return held[0] if len(held) == 1 else None

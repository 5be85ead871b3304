"""Images that break during a run: left out by name, as long as there are few of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from fssd.data.sample import DataSet
from fssd.errors import DataError


def count_unusable(dataset: DataSet) -> int:
    """How many images the reader has left out because of an error."""
    errors = sum(problem.severity == "error" for problem in dataset.problems)
    return int(dataset.facts.get("images", len(dataset) + errors)) - len(dataset)


class LeftOut:
    """The images of one split that were found broken.

    dataset: as it was opened. bad_share: the part of its images (0..1) that may be left out, with those that
    the reader has left out. ids: of all images that the run has left out, earlier parts of it too, which have
    named them. errors: those of this part.
    """

    def __init__(self, dataset: DataSet, bad_share: float) -> None:
        self.unusable = count_unusable(dataset)
        self.total = len(dataset) + self.unusable
        self.bad_share = bad_share
        self.ids: set[str] = set()
        self.errors: dict[str, DataError] = {}

    def add(self, errors: Mapping[str, DataError], loud: bool = True) -> None:
        """Leave images out. errors: by image id; each is printed once."""
        for key, error in errors.items():
            if loud and key not in self.ids and key not in self.errors:
                print(f"left out: {error}", file=sys.stderr)
            self.ids.add(key)
            self.errors.setdefault(key, error)

    def require_few(self) -> None:
        """Raise the last error if there are more than `bad_share` allows."""
        bad = len(self.errors) + self.unusable
        if self.errors and bad > self.bad_share * self.total:
            error = list(self.errors.values())[-1]
            share = f" ({bad} of {self.total} images have errors; --bad-share allows {self.bad_share:.1%})"
            raise type(error)(error.reason + share, file=error.file, place=error.place)

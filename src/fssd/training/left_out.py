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

    @property
    def bad(self) -> int:
        """How many images have errors, with those that the reader has left out."""
        return len(self.errors) + self.unusable

    @property
    def are_too_many(self) -> bool:
        return bool(self.errors) and self.bad > self.bad_share * self.total

    def would_be_too_many(self, errors: Mapping[str, DataError]) -> bool:
        """Whether these errors, by image id, would be more than `bad_share` allows."""
        new = [key for key in errors if key not in self.errors]
        return bool(errors) and self.bad + len(new) > self.bad_share * self.total

    def add(self, errors: Mapping[str, DataError], loud: bool = True) -> None:
        """Leave images out. errors: by image id; each is printed once, unless it is one too many."""
        new = [error for key, error in errors.items() if key not in self.ids]
        self.ids |= errors.keys()
        self.errors = {**errors, **self.errors}
        for error in new if loud and not self.are_too_many else ():
            print(f"left out: {error}", file=sys.stderr)

    def require_few(self) -> None:
        """Raise an error if there are more than `bad_share` allows."""
        if self.are_too_many:
            error = next(iter(self.errors.values()))
            share = f"--bad-share allows {self.bad_share:.1%}"
            reason = f"{error.reason} ({self.bad} of {self.total} images have errors; {share})"
            raise type(error)(reason, file=error.file, place=error.place)

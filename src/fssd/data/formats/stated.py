"""What a label file says about its images, before the pictures are looked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fssd.data.formats.labels import Corners, LabelledObject
from fssd.data.sample import Problem
from fssd.errors import DataError, LabelError


@dataclass(slots=True)
class StatedImage:
    """One image as a label file states it.

    names: what the file calls the picture, best first, "" if it does not say. key: its id in the file, "" if
    its path is its id. shares: boxes are shares of the image (0 to 1) instead of pixels. taken: counts of the
    shapes that became boxes, by kind.
    """

    names: tuple[str, ...]
    source: Path
    place: str
    size: tuple[int, int] | None = None
    split: str = ""
    key: str = ""
    shares: bool = False
    objects: list[LabelledObject] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    taken: Counter[str] = field(default_factory=Counter)

    def add(self, name: object, box: Corners, place: str, kind: str = "", **flags: bool) -> None:
        """An object; `kind` names a shape that is not a plain box. Raises LabelError."""
        if not (isinstance(name, str) and name.strip()):
            raise LabelError(f"has the class {name!r}; give it the name of a class or remove it")
        self.objects.append(LabelledObject(name.strip(), box, self.within(place), **flags))
        if kind:
            self.taken[kind] += 1

    def leave_out(self, place: str, reason: str) -> None:
        self.problems.append(Problem("warning", self.source, self.within(place), reason))

    @contextmanager
    def reading(self, place: str) -> Iterator[None]:
        """Turns a LabelError into a problem of this image."""
        try:
            yield
        except LabelError as error:
            self.problems.append(Problem("error", self.source, self.within(place), error.reason))

    @property
    def where(self) -> str:
        """Its place in the file."""
        return self.place or (f"image id {self.key}" if self.key else "")

    def within(self, place: str) -> str:
        return ", ".join(filter(None, (self.place, place)))


@dataclass(frozen=True)
class LabelFile:
    """A parsed file. classes: in the order that it states, () if it states none. notes: of the whole file.

    rank: of several files that label the same pictures, the one with the lowest rank is read.
    class_ids: the id of each class in the file, where it has some.
    """

    file: Path
    images: tuple[StatedImage, ...]
    classes: tuple[str, ...] = ()
    notes: tuple[Problem, ...] = ()
    rank: int = 0
    class_ids: Mapping[str, int | str] = field(default_factory=dict)


def require_pixels(content: LabelFile, for_shares: str) -> None:
    """Raise DataError if all boxes end within the first pixel: a file of shares, which no box would fit."""
    images = [image for image in content.images if image.objects and not image.shares]
    if not images or any(max(item.box) > 1 for image in images for item in image.objects):
        return
    reason = "all its boxes end at 1 or less, so they are shares of the image and no pixels"
    also = f", or {for_shares}" if for_shares else ""
    raise DataError(f"{reason}; multiply them by its width and height{also}", file=content.file)

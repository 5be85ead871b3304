"""Finds the picture of every stated image, and the label files that repeat others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fssd.data.formats.doubles import are_equal
from fssd.data.formats.labels import Corners
from fssd.data.formats.lookup import PictureFinder, path_parts
from fssd.data.formats.stated import LabelFile, StatedImage
from fssd.data.sample import Problem

MISSING = "missing"
_SAME = (1.0, 0.01)  # how far corners of one object may differ in two files: pixels, shares of the image


@dataclass(frozen=True)
class LocatedImage:
    """A stated image with its picture. exact: it is where the label file says. fault: why it has none."""

    image: StatedImage
    path: Path
    exact: bool
    fault: str = ""


@dataclass(frozen=True)
class Located:
    """The images of all label files that are used. copies: of the others. problems: why they are not used."""

    images: tuple[LocatedImage, ...]
    copies: tuple[LocatedImage, ...]
    problems: tuple[Problem, ...]


def locate(files: Sequence[LabelFile], finder: PictureFinder) -> Located:
    """Every image with its picture; a file that only repeats what files before it say is not used."""
    used: list[LocatedImage] = []
    copies: list[LocatedImage] = []
    problems: list[Problem] = []
    owners: dict[tuple[Path, str], LocatedImage] = {}
    ranks = {file.file: file.rank for file in files}
    same_name: dict[str, list[tuple[Path, list[LocatedImage]]]] = {}
    for file in files:
        found = _guess_missing([_locate(image, finder) for image in file.images])
        twin = _repeated(found, owners, ranks)
        before = same_name.setdefault(file.file.name, [])
        twin = twin or next(
            (other for other, images in before if _is_copy(file.file, found, other, images)), None
        )
        if twin is not None:
            reason = f"labels only images that {twin} labels too; that file is used and this one is left out"
            problems.append(Problem("warning", file.file, "", reason))
            copies += found
            continue
        before.append((file.file, found))
        owners.update({(item.path, item.image.split): item for item in found})
        owners.update({(item.path, ""): item for item in found})
        used += found
    return Located(tuple(_without_rivals(used)), tuple(copies), tuple(problems))


def _locate(image: StatedImage, finder: PictureFinder) -> LocatedImage:
    paths, exact = finder.find(image.names, image.source, image.split)
    if len(paths) == 1:
        return LocatedImage(image, paths[0], exact)
    several = " and ".join(str(path) for path in paths[:2])
    fault = f"{image.names[0]} may be {several}; give the folder of the image" if paths else MISSING
    return LocatedImage(image, (finder.images or image.source.parent) / _stated(image), False, fault)


def _guess_missing(images: list[LocatedImage]) -> list[LocatedImage]:
    """Missing pictures belong where the first of the file that is just where it is stated lies."""
    for item in images:
        stated = _stated(item.image)
        if item.exact and item.path.parts[-len(stated.parts) :] == stated.parts:
            base = item.path.parents[len(stated.parts) - 1]
            missing = (other.fault == MISSING for other in images)
            return [
                replace(other, path=base / _stated(other.image)) if is_missing else other
                for other, is_missing in zip(images, missing, strict=True)
            ]
    return images


def _repeated(
    images: Sequence[LocatedImage], owners: Mapping[tuple[Path, str], LocatedImage], ranks: Mapping[Path, int]
) -> Path | None:
    """The file before, if all pictures are in such files and have no other objects there.

    ranks: of the label files; one of a lower rank is a fuller form of the same export, and need not agree.
    """
    source = None
    for item in images:
        owner = owners.get((item.path, item.image.split))
        if owner is None:
            return None
        is_fuller = ranks[owner.image.source] < ranks[item.image.source]
        if not (is_fuller or _adds_nothing(item.image, owner.image)):
            return None
        source = source or owner.image.source
    return source


def _adds_nothing(image: StatedImage, known: StatedImage) -> bool:
    """Whether each object of an image is one of another statement of the same image."""
    tolerance = _SAME[image.shares] if image.shares == known.shares else math.inf
    return all(
        any(one.name == other.name and _distance(one.box, other.box) <= tolerance for other in known.objects)
        for one in image.objects
    )


def _distance(box: Corners, other: Corners) -> float:
    return max(abs(a - b) for a, b in zip(box, other, strict=True))


def _is_copy(file: Path, images: Sequence[LocatedImage], other: Path, others: Sequence[LocatedImage]) -> bool:
    """Whether two label files and their pictures are equal byte by byte, in one split."""
    pairs = list(zip(images, others, strict=False))
    if not images or len(images) != len(others) or any(a.image.split != b.image.split for a, b in pairs):
        return False
    return are_equal(file, other) and all(are_equal(a.path, b.path) for a, b in pairs)


def _without_rivals(images: Sequence[LocatedImage]) -> Iterator[LocatedImage]:
    """An image found by its bare name is missing if several want that picture or it surely is another's."""
    sure = {item.path for item in images if item.exact}
    wanted = Counter(item.path for item in images if not item.exact and not item.fault)
    for item in images:
        is_doubtful = not item.exact and not item.fault and (item.path in sure or wanted[item.path] > 1)
        yield _without_picture(item) if is_doubtful else item


def _without_picture(item: LocatedImage) -> LocatedImage:
    return replace(item, path=item.image.source.parent / _stated(item.image), fault=MISSING)


def _stated(image: StatedImage) -> Path:
    return Path(*path_parts(image.names[0]))


def each_once(images: Sequence[LocatedImage]) -> Iterator[LocatedImage]:
    """The images; one whose picture has labels already gets a fault.

    One of another split that repeats what is known of the picture is passed over.
    """
    first: dict[Path, LocatedImage] = {}
    for item in images:
        known = None if item.fault else first.setdefault(item.path, item)
        if known is None or known is item:
            yield item
            continue
        where = " ".join(filter(None, (str(known.image.source), known.image.where)))
        if known.image.split == item.image.split:
            yield replace(item, fault=f"{item.path.name} has labels in {where} already; keep one of them")
        elif not _adds_nothing(item.image, known.image):
            fault = f"{item.path.name} has other objects in {where}; put the objects of both into one file"
            yield replace(item, fault=fault)


def moved(images: Sequence[LocatedImage]) -> list[Problem]:
    """A note for each folder of labels that state other paths than those where the pictures are."""
    found: dict[Path, list[LocatedImage]] = {}
    for item in images:
        if _is_moved(item):
            found.setdefault(item.image.source.parent, []).append(item)
    return [Problem("warning", items[0].image.source, "", _moved(items)) for items in found.values()]


def _is_moved(item: LocatedImage) -> bool:
    stated = item.image.names[0].replace("\\", "/")
    is_plain = "/" not in stated and stated in (item.path.name, item.path.stem)
    return not (item.exact or item.fault or is_plain)


def _moved(items: Sequence[LocatedImage]) -> str:
    stated, path = items[0].image.names[0], items[0].path
    reason = f"pictures that were found by name, elsewhere than stated: {len(items)}"
    return f"{reason}, the first is {path} for {stated}"

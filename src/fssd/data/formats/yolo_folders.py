"""The pictures of a YOLO data set without a data.yaml: of its lists, or of its folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fssd.data.formats.doubles import are_equal
from fssd.data.formats.lookup import PictureFinder, folder_split, without_hash
from fssd.data.formats.yolo_lists import PictureLists
from fssd.data.formats.yolo_lookup import LabelFinder, text_files
from fssd.data.formats.yolo_rows import is_label_file, looks_like_labels
from fssd.data.sample import Problem


@dataclass(frozen=True)
class LabelledPicture:
    """A picture and its label file, None for a background; and its split, "" if none is stated."""

    picture: Path
    label: Path | None
    split: str = ""


def holds_labels(root: Path) -> bool:
    return any(map(is_label_file, text_files(root)))


def pairs_of_folder(
    root: Path, finder: PictureFinder, notes: list[Problem] | None = None
) -> list[LabelledPicture]:
    """The pictures that lists name, else those of all folders in which any has labels.

    notes: takes what is told of the lists. Raises DataError.
    """
    lists = PictureLists(root, finder)
    if notes is not None:
        notes += lists.notes
    if lists.rows:
        labels = LabelFinder(root).find([picture for picture, _ in lists.rows])
        return [LabelledPicture(picture, labels.get(picture), split) for picture, split in lists.rows]
    labels = LabelFinder(root).find(finder.files)
    found = [LabelledPicture(path, labels.get(path), _split(path, root)) for path in finder.files]
    labelled = {pair.picture.parent for pair in found if pair.label is not None}
    return [pair for pair in found if pair.picture.parent in labelled]


def pairs_of_labels(root: Path, finder: PictureFinder) -> list[LabelledPicture]:
    """The label files of a folder, with their pictures in another; one that is missing is where it may be.

    So is one that several label files could mean, for all but the one whose whole path it has.
    """
    found = []
    for file in text_files(root):
        if _is_of_picture(file, finder):
            split = _split(file, root)
            parts = [
                part for part in file.relative_to(root).with_suffix("").parts if part.lower() != "labels"
            ]
            pair = LabelledPicture(_picture_of(parts, file, split, finder), file, split)
            found.append((pair, "/".join(parts)))
    rivals: dict[Path, list[tuple[LabelledPicture, str]]] = {}
    for pair, stem in found:
        rivals.setdefault(pair.picture, []).append((pair, stem))
    return [_or_missing(pair, stem, rivals[pair.picture], finder) for pair, stem in found]


def _or_missing(
    pair: LabelledPicture, stem: str, rivals: Sequence[tuple[LabelledPicture, str]], finder: PictureFinder
) -> LabelledPicture:
    """The pair, without its picture if that is rather another's, or as well. Copies for two splits stay."""
    if len(rivals) == 1 or _are_copies([other for other, _ in rivals]):
        return pair
    own = pair.picture.relative_to(finder.root).with_suffix("").as_posix()
    whole = [other for other, name in rivals if own in (name, without_hash(name))]
    return pair if whole == [pair] else replace(pair, picture=finder.root / f"{stem}.jpg")


def _are_copies(pairs: Sequence[LabelledPicture]) -> bool:
    """Whether label files of different splits are equal."""
    labels = [pair.label for pair in pairs if pair.label is not None]
    is_apart = len({pair.split for pair in pairs}) == len(pairs)
    return is_apart and all(are_equal(labels[0], label) for label in labels[1:])


def _is_of_picture(file: Path, finder: PictureFinder) -> bool:
    """Whether a text is one of labels; of one with a faulty first row its name tells, or its numbers."""
    names = (file.stem, without_hash(file.stem))
    return is_label_file(file) is not False or looks_like_labels(file) or any(map(finder.has_picture, names))


def _picture_of(parts: Sequence[str], file: Path, split: str, finder: PictureFinder) -> Path:
    stem = "/".join(parts)
    paths, _ = finder.find((stem, without_hash(stem)), file, split)
    return paths[0] if len(paths) == 1 else finder.root / f"{stem}.jpg"


def _split(file: Path, root: Path) -> str:
    """Of its folders; Darknet calls them obj_train_data."""
    parts = file.relative_to(root).parts[:-1]
    return folder_split([re.sub(r"^obj_(.+)_data$", r"\1", part.lower()) for part in parts])

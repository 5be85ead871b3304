"""Finds the YOLO label file of a picture."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fssd.data.formats.lookup import (
    NOWHERE,
    VANISHED,
    composed,
    entries_in,
    may_be_folder,
    suffix_of,
    visible_files,
    without_hash,
)  # fmt: skip
from fssd.data.formats.yolo_rows import is_label_file

_PICTURES = {"images", "image", "jpegimages", "imgs", "img"}
_LABELS = ("labels", "label", "annotations", "labelstxt")
NAME_FILES = (
    "classes.txt",
    "obj.names",
    "_darknet.labels",
    "predefined_classes.txt",
    "labels.txt",
    "notes.json",
)
"""What lists of class names are called, the best first."""
_Places = Callable[[Path], Iterator[Path | None]]  # where the labels of a folder of pictures may lie


@dataclass(frozen=True)
class LabelFinder:
    """The label files of pictures below a folder, in any of the usual layouts, in capitals or not.

    labels/x.txt for images/x.jpg, else x.txt beside it, else in a folder of labels near it.
    """

    root: Path
    _folders: dict[tuple[Path, str], list[dict[str, Path]]] = field(
        default_factory=dict, compare=False, repr=False
    )
    _subfolders: dict[Path, dict[str, Path]] = field(default_factory=dict, compare=False, repr=False)
    _listed: dict[Path, dict[str, Path]] = field(default_factory=dict, compare=False, repr=False)

    def find(self, pictures: Sequence[Path]) -> dict[Path, Path]:
        """The label file of each picture that has one.

        First those where YOLO itself looks. A file that has exactly a picture's name is not lent to another:
        20240101-x.txt of 20240101-x.jpg could be that of x.jpg, with Label Studio's hash in front. Raises
        DataError for a folder of labels that cannot be listed: its pictures would be backgrounds.
        """
        own: dict[Path, Path] = {}
        for name_of in (lambda picture: picture.stem, lambda picture: picture.name):
            for places in (self._usual, self._near):
                others = [picture for picture in pictures if picture not in own]
                own |= self._exact(others, name_of, places, set(own.values()))
        taken = set(own.values())
        found = ((picture, self._nearest(picture, own.get(picture), taken)) for picture in pictures)
        return {picture: label for picture, label in found if label is not None}

    def _exact(
        self,
        pictures: Sequence[Path],
        name_of: Callable[[Path], str],
        places: _Places,
        taken: Collection[Path],
    ) -> dict[Path, Path]:
        """The label files of exactly these names."""
        own: dict[Path, Path] = {}
        for picture in pictures:
            name = name_of(picture)
            found = (labels.get(name) for labels in self._labels_of(picture.parent, places))
            exact = (file for file in found if file is not None and file.stem == name and file not in taken)
            if (file := next(exact, None)) is not None:
                own[picture] = file
        return own

    def _nearest(self, picture: Path, own: Path | None, taken: Collection[Path]) -> Path | None:
        """The file of a picture in the first folder that has one: its own, or one that is no other's."""
        for labels in self._labels_of(picture.parent, self._near):
            for name in (picture.stem, picture.name):
                for key in (name, composed(name), composed(name).lower()):
                    found = labels.get(key)
                    if found is not None and (found == own or found not in taken):
                        return found
        return None

    def _labels_of(self, folder: Path, places: _Places) -> list[dict[str, Path]]:
        """The label files in the folders for those of pictures, the nearest first."""
        key = (folder, places.__name__)
        labels = self._folders.get(key)
        if labels is None:
            existing = dict.fromkeys(path for path in places(folder) if path is not None)
            labels = self._folders[key] = [  # that of the picture may be stated in a list and not there
                self._labels_in(path, NOWHERE if path == folder else VANISHED) for path in existing
            ]
        return labels

    def _near(self, folder: Path) -> Iterator[Path | None]:
        yield from self._usual(folder)
        for path in self._above(folder):
            if path.name.lower() not in _PICTURES:
                yield from self._mirrored(path, folder.relative_to(path).parts)
                yield from self._mirrored(path, ())

    def _usual(self, folder: Path) -> Iterator[Path | None]:
        """The folder of labels for that of images, then the folder of the pictures itself."""
        for path in self._above(folder):
            if path.name.lower() in _PICTURES:
                yield from self._mirrored(path.parent, folder.relative_to(path).parts)
        yield folder

    def _above(self, folder: Path) -> list[Path]:
        above = [folder, *folder.parents]
        return above[: above.index(self.root) + 1] if self.root in above else above

    def _mirrored(self, top: Path, parts: tuple[str, ...]) -> Iterator[Path | None]:
        """The same folders in a folder of labels; without those that are called images."""
        for name in _LABELS:
            labels = self._below(top, (name,), NOWHERE)  # also in folders above the data set
            if labels is not None:
                yield self._below(labels, parts)
                yield self._below(labels, tuple(part for part in parts if part.lower() not in _PICTURES))

    def _below(
        self, folder: Path, parts: tuple[str, ...], passed_over: Collection[int] = VANISHED
    ) -> Path | None:
        """The folder of these parts, in capitals or not. Raises DataError."""
        for part in parts:
            if folder not in self._subfolders:
                entries = filter(may_be_folder, entries_in(folder, passed_over))
                names = sorted(entry.name for entry in entries if entry.name[0] != ".")
                inside = {composed(name).lower(): folder / name for name in reversed(names)}
                self._subfolders[folder] = inside | {name: folder / name for name in names}
            inside = self._subfolders[folder]
            found = inside.get(part) or inside.get(composed(part).lower())
            if found is None:
                return None
            folder = found
        return folder

    def _labels_in(self, folder: Path, passed_over: Collection[int]) -> dict[str, Path]:
        """The .txt of a folder by stem: as it is, composed, in lower case, without Label Studio's hash."""
        if folder not in self._listed:
            entries = (entry for entry in entries_in(folder, passed_over) if suffix_of(entry.name) == ".txt")
            names = sorted(
                entry.name for entry in entries if entry.name[0] != "." and not is_name_list(entry)
            )
            files = {name[:-4]: folder / name for name in names}  # of x.TXT and x.txt the second
            claims = Counter(map(without_hash, files))
            for change in (composed, str.lower, without_hash):
                for name in sorted(files):
                    if change is not without_hash or claims[without_hash(name)] == 1:
                        files.setdefault(change(name), files[name])
            self._listed[folder] = files
        return self._listed[folder]


def is_name_list(file: os.DirEntry[str] | Path) -> bool:
    """Whether a file is called like a list of class names, and holds no boxes, of a picture called so."""
    is_called = file.name.lower() in NAME_FILES or suffix_of(file.name) == ".names"
    return is_called and not is_label_file(Path(file))


def text_files(root: Path) -> Iterator[Path]:
    """The .txt below a folder that may be label files, and are no lists of class names."""
    return (file for file in visible_files(root, {".txt"}) if not is_name_list(file))

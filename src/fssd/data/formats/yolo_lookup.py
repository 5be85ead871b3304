"""Finds the YOLO label file of a picture, and the class names of a label file."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from fssd.data.formats.json_values import is_number, is_text, read_json
from fssd.data.formats.labels import read_lines
from fssd.data.formats.lookup import (
    HASH,
    NOWHERE,
    VANISHED,
    entries_in,
    may_be_folder,
    suffix_of,
    visible_entries,
)  # fmt: skip
from fssd.data.formats.yolo_rows import NameList
from fssd.errors import DataError

_PICTURES = {"images", "image", "jpegimages", "imgs", "img"}
_LABELS = ("labels", "label", "annotations", "labelstxt")
_NAME_FILES = (
    "classes.txt",
    "obj.names",
    "_darknet.labels",
    "predefined_classes.txt",
    "labels.txt",
    "notes.json",
)


@dataclass(frozen=True)
class LabelFinder:
    """The label files of pictures below a folder, in any of the usual layouts, in capitals or not."""

    root: Path
    _folders: dict[Path, list[dict[str, Path]]] = field(default_factory=dict, compare=False, repr=False)
    _subfolders: dict[Path, dict[str, Path]] = field(default_factory=dict, compare=False, repr=False)
    _listed: dict[Path, dict[str, Path]] = field(default_factory=dict, compare=False, repr=False)

    def find(self, picture: Path) -> Path | None:
        """labels/x.txt for images/x.jpg, else x.txt beside it, else in a folder of labels near it.

        Raises DataError for a folder of labels that cannot be listed: its pictures would be backgrounds.
        """
        folders = self._folders.get(picture.parent)
        if folders is None:
            existing = dict.fromkeys(path for path in self._near(picture.parent) if path is not None)
            own = picture.parent  # it may be one that a list states and that is not there
            folders = self._folders[own] = [
                self._labels_in(folder, NOWHERE if folder == own else VANISHED) for folder in existing
            ]
        for labels in folders:
            for name in (f"{picture.stem}.txt", f"{picture.name}.txt"):
                found = labels.get(name) or labels.get(name.lower())
                if found is not None:
                    return found
        return None

    def _near(self, folder: Path) -> Iterator[Path | None]:
        above = [folder, *folder.parents]
        if self.root in above:
            above = above[: above.index(self.root) + 1]
        called = [path for path in above if path.name.lower() in _PICTURES]
        for path in called:
            yield from self._mirrored(path.parent, folder.relative_to(path).parts)
        yield folder
        for path in above:
            if path not in called:
                yield from self._mirrored(path, folder.relative_to(path).parts)
                yield from self._mirrored(path, ())

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
                inside = {name.lower(): folder / name for name in reversed(names)}
                self._subfolders[folder] = inside | {name: folder / name for name in names}
            inside = self._subfolders[folder]
            if part not in inside and part.lower() not in inside:
                return None
            folder = inside.get(part) or inside[part.lower()]
        return folder

    def _labels_in(self, folder: Path, passed_over: Collection[int]) -> dict[str, Path]:
        """The .txt of a folder by their names, by these in lower case, and without Label Studio's hash."""
        if folder not in self._listed:
            entries = entries_in(folder, passed_over)
            names = sorted(entry.name for entry in entries if suffix_of(entry.name) == ".txt")
            files = {name: folder / name for name in names if name[0] != "." and not is_name_file(name)}
            for change in (str.lower, lambda name: HASH.sub("", name, count=1)):
                for name in list(files):
                    files.setdefault(change(name), files[name])
            self._listed[folder] = files
        return self._listed[folder]


def is_name_file(name: str) -> bool:
    return name.lower() in _NAME_FILES or suffix_of(name) == ".names"


@dataclass(frozen=True)
class NameFinder:
    """The lists of class names below a folder."""

    root: Path

    @cached_property
    def lists(self) -> dict[Path, NameList]:
        """By folder. Raises DataError."""
        found: dict[Path, NameList] = {}
        entries = [entry for entry in visible_entries(self.root) if is_name_file(entry.name)]
        order = {name: rank for rank, name in enumerate(_NAME_FILES)}
        for entry in sorted(entries, key=lambda entry: order.get(entry.name.lower(), 1)):
            file = Path(entry)
            names = _from_notes(file) if file.suffix.lower() == ".json" else _from_lines(file)
            if names and file.parent not in found:
                found[file.parent] = NameList(file, names)
        return found

    def find(self, label: Path) -> NameList:
        """The list nearest above a label file, else the only one. Raises DataError."""
        above = next((self.lists[folder] for folder in label.parents if folder in self.lists), None)
        if above is not None:
            return above
        first, *others = self.lists.values()
        for other in others:
            if other.names != first.names:
                reason = f"has other class names than {first.file}; put the right ones beside the labels"
                raise DataError(reason, file=other.file)
        return first


def _from_lines(file: Path) -> dict[int, str]:
    names = {number: line.strip() for number, line in enumerate(read_lines(file)) if line.strip()}
    repeated = next((name for name in names.values() if list(names.values()).count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"has the class name {repeated!r} twice; give each class once", file=file)
    return names


def _from_notes(file: Path) -> dict[int, str]:
    """Of Label Studio: {"categories": [{"id": 0, "name": "dog"}]}."""
    content = read_json(file)
    rows = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        return {}
    pairs = [(row.get("id"), row.get("name")) for row in rows if isinstance(row, dict)]
    return {int(key): str(name).strip() for key, name in pairs if is_number(key) and is_text(name)}

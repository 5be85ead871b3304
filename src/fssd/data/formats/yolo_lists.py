"""Lists of the pictures of a YOLO data set without a data.yaml, such as train.txt, and what a line means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from fssd.data.decode import IMAGE_EXTENSIONS
from fssd.data.formats.darknet_data import StatedPath, nearest_stated, stated_paths
from fssd.data.formats.labels import read_lines
from fssd.data.formats.leftovers import first_named
from fssd.data.formats.lookup import (
    UNREADABLE,
    PictureFinder,
    common_end,
    composed,
    file_split,
    folder_split,
    is_of_split,
    path_parts,
    suffix_of,
)  # fmt: skip
from fssd.data.formats.yolo_lookup import text_files
from fssd.data.formats.yolo_rows import is_label_file, looks_like_labels
from fssd.data.sample import Problem
from fssd.errors import DataError

_PICTURES = IMAGE_EXTENSIONS | UNREADABLE


@dataclass(frozen=True)
class _Line:
    """A line of a list with the picture that it seems to mean. is_sure: it can be no other's.

    is_moved: the picture lies elsewhere than the line states.
    """

    file: Path
    split: str
    text: str
    picture: Path | None
    is_sure: bool = False
    is_moved: bool = False


@dataclass(frozen=True)
class PictureLists:
    """The lists below a folder: those of each obj.data, else those called like splits."""

    root: Path
    finder: PictureFinder
    _has_folder: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def rows(self) -> list[tuple[Path, str]]:
        """Picture and split of every line, each once. A picture that is missing is where it should be."""
        rows = [(line.picture or _stated_place(line), line.split) for line in self._lines]
        return list(dict.fromkeys(rows))

    @property
    def notes(self) -> list[Problem]:
        """Raises DataError."""
        moved = [line.picture for line in self._lines if line.picture and line.is_moved]
        reason = f"{len(moved)} pictures of its lists were found elsewhere than stated"
        return [*first_named(self.root, moved, reason), *unused_lists(self.root, self._without_pictures)]

    @cached_property
    def _called(self) -> list[Path]:
        """The texts that are called like a list or named by an obj.data, and are no labels of a picture."""
        names = {stated.parts[-1] for stated in self._stated}
        return called_lists(self.root, names)

    @cached_property
    def _with_pictures(self) -> list[Path]:
        return [file for file in self._called if self._names_pictures(file)]

    @property
    def _without_pictures(self) -> list[Path]:
        """Those that name no pictures, and are no faulty labels of a picture of their name either."""
        taken = set(self._with_pictures)
        return [file for file in self._called if file not in taken and not self.finder.has_picture(file.stem)]

    @cached_property
    def _stated(self) -> list[StatedPath]:
        return [stated for stated in stated_paths(self.root) if folder_split([stated.key])]

    @property
    def _lists(self) -> list[tuple[str, Path]]:
        """With their splits."""
        lists = self._with_pictures
        found = ((stated.file, stated.key, nearest_stated(stated, lists)) for stated in self._stated)
        named = [(data, key, file) for data, key, file in found if file is not None]
        told = {folder for data, _, file in named for folder in (data.parent, file.parent)}
        others = [file for file in lists if _is_called_list(file) and told.isdisjoint(file.parents)]
        return [(key, file) for _, key, file in named] + [(file_split(file.stem), file) for file in others]

    def _names_pictures(self, file: Path) -> bool:
        """Whether the first line is a path of a picture, or most lines are names without an ending."""
        try:
            lines = _filled(file)
        except DataError:  # no text, which is told
            return False
        if suffix_of(next(lines, "")) in IMAGE_EXTENSIONS:
            return True
        known = [bool(self._find(line, file, "")[0]) for line in _filled(file)]
        return sum(known) > len(known) / 2

    @cached_property
    def _lines(self) -> list[_Line]:
        """Without a picture where another line has more right to it, or several the same."""
        every = [self._line(file, split, text) for split, file in self._lists for text in _filled(file)]
        sure = {line.picture for line in every if line.is_sure}
        doubtful = {(line.picture, line.file.parent, line.text) for line in every if not line.is_sure}
        wanted = Counter(picture for picture, _, _ in doubtful)
        return [
            line
            if line.is_sure or (line.picture not in sure and wanted[line.picture] == 1)
            else replace(line, picture=None)
            for line in every
        ]

    def _line(self, file: Path, split: str, text: str) -> _Line:
        folders = path_parts(text)[:-1]
        found, is_exact = self._find(text, file, "")
        if not is_exact:
            found, is_exact = self._of_split(file, split, text)
        picture = found[0] if len(found) == 1 else None
        if picture is None or is_exact:
            return _Line(file, split, text, picture, is_exact)
        below = picture.relative_to(self.finder.root).parts[:-1]
        last = composed(folders[-1]) if folders else ""
        if last in self._folder_names and last not in map(composed, below):
            return _Line(file, split, text, None)  # its own folder is there, without it
        if not folders:
            return _Line(file, split, text, picture, self._home(file) in picture.parents)
        bases = [base for base in (self.finder.root, file.parent) if base in picture.parents]
        inside = [len(picture.relative_to(base).parts) - 1 for base in bases]
        is_whole = any(0 < count <= common_end(picture, path_parts(text)) for count in inside)
        return _Line(file, split, text, picture, is_whole, not is_whole)

    def _of_split(self, file: Path, split: str, text: str) -> tuple[tuple[Path, ...], bool]:
        """In the folder of the split that the line states, else of its list, else in one for all splits."""
        stated = folder_split(path_parts(text)[:-1])
        found, is_exact = self._find(text, file, stated or split)
        if found or stated or self._has_folder_of(split):
            return found, is_exact
        return self._find(text, file, "")

    def _find(self, text: str, file: Path, split: str) -> tuple[tuple[Path, ...], bool]:
        """Other files than pictures that are where a line says, such as labels, are none."""
        found, is_exact = self.finder.find((text,), file, split)
        return tuple(path for path in found if suffix_of(path.name) in _PICTURES), is_exact

    def _has_folder_of(self, split: str) -> bool:
        if split not in self._has_folder:
            names = (name.lower() for name in self._folder_names)
            self._has_folder[split] = any(is_of_split(name, split) for name in names)
        return self._has_folder[split]

    @cached_property
    def _folders(self) -> frozenset[Path]:
        """Those with pictures in them or below them."""
        return frozenset(folder for path in self.finder.files for folder in path.parents)

    @cached_property
    def _folder_names(self) -> frozenset[str]:
        inside = (path.relative_to(self.finder.root).parts[:-1] for path in self.finder.files)
        return frozenset(composed(name) for names in inside for name in names)

    def _home(self, file: Path) -> Path:
        """The nearest folder above a list that holds pictures."""
        return next((folder for folder in file.parents if folder in self._folders), self.root)


def called_lists(root: Path, names: Collection[str] = ()) -> list[Path]:
    """The texts below a folder that are called like a split, or so, and hold no boxes."""
    called = (file for file in text_files(root) if _is_called_list(file) or file.name in names)
    return [file for file in called if is_label_file(file) is False and not looks_like_labels(file)]


def _is_called_list(file: Path) -> bool:
    return bool(file_split(file.stem))


def unused_lists(root: Path, files: Sequence[Path]) -> list[Problem]:
    reason = f"{len(files)} texts are called like lists of a split, name no pictures here and are not used"
    return first_named(root, files, reason)


def _filled(file: Path) -> Iterator[str]:
    """The lines that are not empty. Raises DataError."""
    return filter(None, map(str.strip, read_lines(file)))


def _stated_place(line: _Line) -> Path:
    path = line.file.parent.joinpath(*path_parts(line.text))
    return path if suffix_of(path.name) in IMAGE_EXTENSIONS else Path(f"{path}.jpg")

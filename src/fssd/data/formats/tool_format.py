"""The part that readers of annotation tools share: label files that state images become a DataSet.

A format tells which files are its own and parses one of them. How files, pictures, splits and sizes are
found, and how copies of labels and unusual shapes are reported, is the same for all of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from fssd.data.decode import IMAGE_EXTENSIONS, image_size
from fssd.data.formats.labels import LabelledObject, build_record, missing_image
from fssd.data.formats.located import LocatedImage, each_once, locate, moved, unlisted
from fssd.data.formats.lookup import PictureFinder, file_split, folder_split, match_split, visible_files
from fssd.data.formats.reader import Reader
from fssd.data.formats.stated import LabelFile, StatedImage
from fssd.data.join import join_classes
from fssd.data.sample import DataSet, Problem, Record
from fssd.errors import DataError, ImageError

UNNAMED = "unnamed"  # the split of images without one, where others have one


@dataclass(frozen=True)
class Format:
    """One annotation tool's format.

    is_label_file: by a quick look at the file. parse: raises DataError if the whole file is not usable.
    image_each: every file labels one image, so that a broken file is the fault of that image alone.
    tables: a pattern of the files beside the labels that a parser reads as well.
    """

    name: str
    looked_for: str
    suffixes: tuple[str, ...]
    is_label_file: Callable[[Path], bool]
    parse: Callable[[Path], LabelFile]
    image_each: bool = False
    tables: str = ""

    def reader(self) -> Reader:
        return Reader(
            name=self.name,
            looked_for=self.looked_for,
            recognise=self._recognise,
            splits=lambda root: _splits(self._load(root)),
            classes=lambda root: _classes(self._load(root)),
            read=self._read,
        )

    def _recognise(self, path: Path) -> Path | None:
        files = visible_files(path, self.suffixes) if path.is_dir() else [path]
        return path if any(self._is_own(file) for file in files) else None

    def _is_own(self, file: Path) -> bool:
        try:
            return file.suffix.lower() in self.suffixes and file.is_file() and self.is_label_file(file)
        except OSError:
            return False

    def _load(self, root: Path) -> tuple[LabelFile, ...]:
        """The parsed files; parsed again only if one of them has changed."""
        wanted = {*self.suffixes, *(IMAGE_EXTENSIONS if self.image_each else ())}
        every = list(visible_files(root, wanted)) if root.is_dir() else [root]
        files = [file for file in every if self._is_own(file)]
        files += _broken_labels(every, files) if self.image_each else []
        folders = (
            {near for file in files for near in (file.parent, file.parent.parent)} if self.tables else ()
        )
        tables = sorted({table for folder in folders for table in folder.glob(self.tables)})
        stamps = [(file, file.stat().st_mtime_ns, file.stat().st_size) for file in (*files, *tables)]
        return _parse_all(self, root, tuple(files), tuple(stamps))

    def _read(self, root: Path, split: str | None, classes: Sequence[str] | None) -> DataSet:
        files = self._load(root)
        names = tuple(classes) if classes is not None else _classes(files)
        chosen = _choose(split, _splits(files), root)
        own = tuple(file.file for file in files) if self.image_each else ()
        finder = PictureFinder(root if root.is_dir() else root.parent, own)
        located = locate(files, finder)
        kept = [item for item in located.images if chosen is None or (item.image.split or UNNAMED) in chosen]
        if not kept:
            raise DataError(f"lists no image{f' in split {split!r}' if split else ''}", file=root)
        once = list(each_once(kept))
        index = {name: label for label, name in enumerate(names)}
        records: list[Record] = []
        problems = list(located.problems)
        for item in once:
            record, found = _record(item, index, finder.root)
            problems += found
            records += [record] if record is not None else []
        problems += _by_file([item.image for item in kept], root if self.image_each else None)
        problems += [*moved(kept), *(unlisted(root, finder, located) if root.is_dir() else [])]
        problems += [note for file in files for note in file.notes]
        return DataSet(names, tuple(records), tuple(problems), {"format": self.name, "images": len(once)})


def _broken_labels(files: Sequence[Path], known: Sequence[Path]) -> list[Path]:
    """Empty and cut files that lie beside a picture of the same name: their labels are lost, not absent."""
    own, folders = set(known), {file.parent for file in known}
    left = [file for file in files if file not in own]
    labels = [file for file in left if file.suffix.lower() not in IMAGE_EXTENSIONS and file.parent in folders]
    stems = (
        {file.with_suffix("") for file in left if file.suffix.lower() in IMAGE_EXTENSIONS} if labels else ()
    )
    return [file for file in labels if file.with_suffix("") in stems]


@lru_cache(maxsize=4)
def _parse_all(
    form: Format, root: Path, files: tuple[Path, ...], _stamps: tuple[tuple[Path, int, int], ...]
) -> tuple[LabelFile, ...]:
    """The parsed files. They are parsed again when a stamp (file, time of change, size) differs."""
    parsed = []
    for file in files:
        try:
            content = form.parse(file)
        except DataError as error:
            if not (form.image_each and root.is_dir()):
                raise
            image = StatedImage((file.with_suffix("").name,), file, "")
            image.problems.append(Problem("error", file, error.place, error.reason))
            content = LabelFile(file, (image,))
        _set_splits(content, root, form.image_each)
        parsed.append(content)
    # Files of a named split first: another file that holds all of their images is a copy of them.
    return tuple(sorted(parsed, key=lambda item: (item.rank, not _own_split(item, root), item.file)))


def _own_split(content: LabelFile, root: Path) -> str:
    base = root if root.is_dir() else root.parent
    return file_split(content.file.stem) or folder_split(content.file.relative_to(base).parts[:-1])


def _set_splits(content: LabelFile, root: Path, image_each: bool) -> None:
    """The split that the format states, else that of the label file's name or folder, else the picture's."""
    base = root if root.is_dir() else root.parent
    folder = folder_split(content.file.relative_to(base).parts[:-1])
    own = folder if image_each else folder or file_split(content.file.stem)
    for image in content.images:
        stated = "" if image.split.lower() == "default" else image.split.lower()
        parts = image.names[0].replace("\\", "/").split("/")[:-1]
        image.split = stated or own or folder_split(parts)


def _splits(files: Sequence[LabelFile]) -> tuple[str, ...]:
    names = {image.split for file in files for image in file.images}
    order = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "trainval": 2, "test": 3}
    known = sorted(names - {""}, key=lambda name: (order.get(name, 4), name))
    return (*known, *([UNNAMED] if known and "" in names else []))


def _classes(files: Sequence[LabelFile]) -> tuple[str, ...]:
    """The names that the files state, in their order, then those that only occur, sorted."""
    stated = join_classes([file.classes for file in files], {})
    found = {item.name for file in files for image in file.images for item in image.objects}
    return (*stated, *sorted(found - set(stated)))


def _choose(split: str | None, known: Sequence[str], root: Path) -> set[str] | None:
    if split is None:
        return None
    if not known:
        reason = f"there is no split {split!r}: its labels and folders name none; leave the split out"
        raise DataError(reason, file=root)
    return {match_split(part.strip(), known, root) for part in split.split("+")}


def _record(entry: LocatedImage, index: Mapping[str, int], root: Path) -> tuple[Record | None, list[Problem]]:
    image, path = entry.image, entry.path
    if entry.fault == "missing":
        missing = [missing_image(path)] if image.names[0] else []
        return None, [*image.problems, *missing]
    if entry.fault and any(problem.severity == "error" for problem in image.problems):
        return None, image.problems
    if entry.fault:
        return None, [*image.problems, Problem("error", image.source, image.place, entry.fault)]
    size = image.size
    try:
        size = size or image_size(path)
    except ImageError as error:
        return None, [*image.problems, Problem("error", path, error.place, error.reason)]
    objects = [_in_pixels(item, size) for item in image.objects] if image.shares else image.objects
    name = os.path.relpath(path, root).replace(os.sep, "/")
    record, found = build_record(name, path, image.source, size, objects=objects, index=index)
    problems = [*image.problems, *found]
    return (None if any(item.severity == "error" for item in problems) else record), problems


def _in_pixels(item: LabelledObject, size: tuple[int, int]) -> LabelledObject:
    x1, y1, x2, y2 = item.box
    return replace(item, box=(x1 * size[0], y1 * size[1], x2 * size[0], y2 * size[1]))


def _by_file(images: Sequence[StatedImage], folder: Path | None) -> list[Problem]:
    """A note for each file, or one for the folder, that counts the shapes that became boxes."""
    counts: dict[Path, Counter[str]] = {}
    for image in images:
        counts.setdefault(folder or image.source, Counter()).update(image.taken)
    return [
        Problem("warning", file, "", f"{_in_words(count)} taken as their bounding boxes")
        for file, count in counts.items()
        if count
    ]


def _in_words(count: Counter[str]) -> str:
    """Such as `1 rotated box, 2 polygons were`."""
    plural = {kind: f"{kind}{'es' if kind.endswith('x') else 's'}" for kind in count}
    words = [f"{number} {kind if number == 1 else plural[kind]}" for kind, number in sorted(count.items())]
    return f"{', '.join(words)} {'was' if count.total() == 1 else 'were'}"

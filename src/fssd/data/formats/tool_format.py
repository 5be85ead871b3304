"""The part that readers of annotation tools share: label files that state images become a DataSet.

A format tells which files are its own and parses one of them. How files, pictures, splits and sizes are
found, and how copies of labels and unusual shapes are reported, is the same for all of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fssd.data.decode import IMAGE_EXTENSIONS, image_size
from fssd.data.formats.doubles import same_pictures
from fssd.data.formats.labels import LabelledObject, build_record, missing_image
from fssd.data.formats.leftovers import first_named, shapes_taken, unlisted
from fssd.data.formats.located import MISSING, Located, LocatedImage, each_once, locate, moved
from fssd.data.formats.lookup import (
    UNNAMED,
    PictureFinder,
    choose_splits,
    file_split,
    folder_split,
    in_order,
    is_of_split,
    known_splits,
    path_parts,
    visible_files,
    visible_glob,
)  # fmt: skip
from fssd.data.formats.reader import Reader
from fssd.data.formats.stated import LabelFile, StatedImage, require_pixels
from fssd.data.join import join_classes
from fssd.data.sample import DataSet, Problem, Record
from fssd.errors import DataError, ImageError

_KEPT = 1 << 26  # bytes of label files whose content is kept between calls


@dataclass(frozen=True)
class Format:
    """One annotation tool's format.

    is_label_file: by a quick look at the file. parse: raises DataError if the whole file is not usable.
    image_each: every file labels one image, so that a broken file is the fault of that image alone.
    tables: a pattern of the files beside the labels that a parser reads as well.
    split_files: the label files of a root with the split of each, "" where its images state it. If all are
    known, the files of other splits are not parsed; the others look for file names in them with `mentions`.
    for_shares: how a file may say that its boxes are shares of the image.
    """

    name: str
    looked_for: str
    suffixes: tuple[str, ...]
    is_label_file: Callable[[Path], bool]
    parse: Callable[[Path], LabelFile]
    image_each: bool = False
    tables: str = ""
    split_files: Callable[[Path], dict[Path, str]] | None = None
    mentions: Callable[[Path], set[str]] | None = None
    for_shares: str = ""

    def reader(self) -> Reader:
        return Reader(
            name=self.name,
            looked_for=self.looked_for,
            recognise=self._recognise,
            splits=self._splits,
            classes=lambda root: _classes(self._load(root)),
            read=self._read,
        )

    def _recognise(self, path: Path) -> Path | None:
        if self.split_files:
            return path if self.split_files(path) else None
        files = visible_files(path, self.suffixes) if path.is_dir() else [path]
        return path if any(self._is_own(file) for file in files) else None

    def _is_own(self, file: Path) -> bool:
        try:
            return file.suffix.lower() in self.suffixes and file.is_file() and self.is_label_file(file)
        except OSError:
            return False

    def _load(self, root: Path) -> tuple[LabelFile, ...]:
        """The parsed files; parsed again only if one of them has changed."""
        if self.split_files:
            return self._parse_split(root, self.split_files(root))
        wanted = {*self.suffixes, *(IMAGE_EXTENSIONS if self.image_each else ())}
        every = list(visible_files(root, wanted)) if root.is_dir() else [root]
        files = [file for file in every if self._is_own(file)]
        files += _broken_labels(every, files) if self.image_each else []
        folders = (
            {near for file in files for near in (file.parent, file.parent.parent)} if self.tables else ()
        )
        tables = sorted({table for folder in folders for table in visible_glob(folder, self.tables)})
        return _parse_all(self, root, tuple((file, "") for file in files), _stamps((*files, *tables)))

    def _parse_split(self, root: Path, files: Mapping[Path, str]) -> tuple[LabelFile, ...]:
        """Large files are parsed each time, for what they hold would stay in memory."""
        stamps = _stamps(tuple(files))
        parse = _parse_all if sum(size for *_, size in stamps) < _KEPT else _parse_all.__wrapped__
        return parse(self, root, tuple(files.items()), stamps)

    def _splits(self, root: Path) -> tuple[str, ...]:
        files = self.split_files(root) if self.split_files else {}
        return in_order(set(files.values())) if files and all(files.values()) else _splits(self._load(root))

    def _read(
        self, root: Path, split: str | None, classes: Sequence[str] | None, images: Path | None = None
    ) -> DataSet:
        paths = self.split_files(root) if self.split_files else {}
        is_known = bool(paths) and all(paths.values())
        chosen = choose_splits(split, in_order(set(paths.values())), root) if is_known else None
        own = {file: name for file, name in paths.items() if chosen is None or name in chosen}
        files = self._parse_split(root, own) if paths else self._load(root)
        names = tuple(classes) if classes is not None else _classes(files)
        chosen = chosen or choose_splits(split, _splits(files), root)
        labels = tuple(file.file for file in files) if self.image_each else ()
        base = root if root.is_dir() else root.parent
        finder = PictureFinder(base, labels, images)
        located = locate(files, finder)
        kept = [item for item in located.images if chosen is None or (item.image.split or UNNAMED) in chosen]
        if not kept:
            raise DataError(f"lists no image{f' in split {split!r}' if split else ''}", file=root)
        once = list(each_once(kept))
        records, problems = _records(once, names, finder)
        problems += _by_file([item.image for item in kept], root if self.image_each else None)
        problems += [*located.problems, *moved(kept)]
        if root.is_dir() or images:
            others = [file for file in paths if file not in own]
            listed = self._listed(located, finder, others)
            problems += unlisted(finder.root, [finder], listed, by_name=self.image_each)
            problems += self._not_read(root, paths)
        problems += [note for file in files for note in file.notes]
        problems += same_pictures(records, root)
        return DataSet(names, records, tuple(problems), _facts(self.name, files, names, len(once)))

    def _not_read(self, root: Path, taken: Mapping[Path, str]) -> list[Problem]:
        every = visible_files(root, self.suffixes) if taken and root.is_dir() else ()
        left = [file for file in every if file not in taken and self._is_own(file)]
        return first_named(root, left, f"{len(left)} label files of the same form are not read")

    def _listed(self, located: Located, finder: PictureFinder, others: Sequence[Path]) -> set[str]:
        """The pictures that the files list, also those of the splits that are not read."""
        items = (*located.images, *located.copies)
        listed = {os.path.normpath(item.path) for item in items}
        if others and self.mentions:
            own = {item.image.split for item in items}
            left = [path for path in finder.entries if os.path.normpath(path) not in listed]
            apart = {path for path in left if _is_of_another_split(path, finder.root, own)}
            names = (
                {name for file in others for name in self.mentions(file)} if len(apart) < len(left) else ()
            )
            listed |= {os.path.normpath(path) for path in left if path in apart or path.name in names}
        return listed


def _is_of_another_split(path: Path, root: Path, splits: Collection[str]) -> bool:
    folder = folder_split(path.relative_to(root).parts[:-1])
    return bool(folder) and not any(is_of_split(folder, split) for split in splits)


def _stamps(files: Sequence[Path]) -> tuple[tuple[Path, int, int], ...]:
    try:
        return tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=error.filename) from error


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
    form: Format, root: Path, files: tuple[tuple[Path, str], ...], _stamps: tuple[tuple[Path, int, int], ...]
) -> tuple[LabelFile, ...]:
    """The parsed files with their splits. They are parsed again when a stamp (file, time, size) differs."""
    parsed = []
    for file, split in files:
        try:
            content = form.parse(file)
            if not form.image_each:  # where one small object would look so
                require_pixels(content, form.for_shares)
        except DataError as error:
            if not (form.image_each and root.is_dir()):
                raise
            image = StatedImage((file.with_suffix("").name,), file, "")
            image.problems.append(Problem("error", file, error.place, error.reason))
            content = LabelFile(file, (image,))
        _set_splits(content, root, split, form.image_each)
        parsed.append(content)
    # Files of a named split first: another file that holds all of their images is a copy of them.
    return tuple(sorted(parsed, key=lambda item: (item.rank, not _own_split(item, root), item.file)))


def _own_split(content: LabelFile, root: Path) -> str:
    base = root if root.is_dir() else root.parent
    return file_split(content.file.stem) or folder_split(content.file.relative_to(base).parts[:-1])


def _set_splits(content: LabelFile, root: Path, known: str, image_each: bool) -> None:
    """The split that the format states, else that of the label file's name or folder, else the picture's."""
    base = root if root.is_dir() else root.parent
    folder = folder_split(content.file.relative_to(base).parts[:-1])
    own = known or (folder if image_each else folder or file_split(content.file.stem))
    for image in content.images:
        stated = "" if image.split.lower() == "default" else image.split.lower()
        image.split = stated or own or folder_split(path_parts(image.names[0])[:-1])


def _splits(files: Sequence[LabelFile]) -> tuple[str, ...]:
    return known_splits({image.split for file in files for image in file.images})


def _classes(files: Sequence[LabelFile]) -> tuple[str, ...]:
    """The names that the files state, in their order, then those that only occur, sorted."""
    stated = join_classes([file.classes for file in files], {})
    found = {item.name for file in files for image in file.images for item in image.objects}
    return (*stated, *sorted(found - set(stated)))


def _records(
    items: Sequence[LocatedImage], names: Sequence[str], finder: PictureFinder
) -> tuple[tuple[Record, ...], list[Problem]]:
    """The records and all problems. An id that two label files state gets the number of its file in front."""
    index = {name: label for label, name in enumerate(names)}
    counts = Counter(item.image.key for item in items)
    numbers = {file: number for number, file in enumerate(dict.fromkeys(i.image.source for i in items), 1)}
    records: list[Record] = []
    problems: list[Problem] = []
    for item in items:
        key = item.image.key or os.path.relpath(item.path, finder.root).replace(os.sep, "/")
        prefix = f"{numbers[item.image.source]}:" if item.image.key and counts[item.image.key] > 1 else ""
        record, found = _record(item, index, prefix + key)
        problems += found
        records += [record] if record is not None else []
    return tuple(records), problems


def _record(entry: LocatedImage, index: Mapping[str, int], key: str) -> tuple[Record | None, list[Problem]]:
    image, path = entry.image, entry.path
    told = any(problem.severity == "error" for problem in image.problems)
    if entry.fault:
        fault = Problem("error", image.source, image.where, entry.fault)
        first = missing_image(path) if entry.fault == MISSING else fault
        return None, [*image.problems, *([] if told else [first])]
    size = image.size
    try:
        size = size or image_size(path)
    except ImageError as error:
        return None, [*image.problems, *([] if told else [Problem("error", path, error.place, error.reason)])]
    objects = [_in_pixels(item, size) for item in image.objects] if image.shares else image.objects
    record, found = build_record(key, path, image.source, size, objects=objects, index=index)
    problems = [*image.problems, *found]
    return (None if any(item.severity == "error" for item in problems) else record), problems


def _facts(name: str, files: Sequence[LabelFile], names: Sequence[str], images: int) -> dict[str, Any]:
    """COCO's ids of the classes are facts if all files agree on them."""
    facts: dict[str, Any] = {"format": name, "images": images}
    ids = {tuple(file.class_ids.get(name) for name in names) for file in files if file.class_ids}
    if len(ids) == 1:
        facts["category_ids"] = ids.pop()
        facts |= {"annotation_file": files[0].file} if len(files) == 1 else {}
    return facts


def _in_pixels(item: LabelledObject, size: tuple[int, int]) -> LabelledObject:
    x1, y1, x2, y2 = item.box
    return item._replace(box=(x1 * size[0], y1 * size[1], x2 * size[0], y2 * size[1]))


def _by_file(images: Sequence[StatedImage], folder: Path | None) -> list[Problem]:
    """A note for each file, or one for the folder, that counts the shapes that became boxes."""
    counts: dict[Path, Counter[str]] = {}
    for image in images:
        counts.setdefault(folder or image.source, Counter()).update(image.taken)
    return [note for file, count in counts.items() for note in shapes_taken(file, count)]

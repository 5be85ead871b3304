"""Pascal VOC: Annotations/*.xml beside JPEGImages and ImageSets/Main, also under other names.

VOC's coordinates are 1-based and inclusive; they are used as written, as in Caffe SSD.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fssd.data.formats.doubles import are_equal, same_pictures
from fssd.data.formats.labels import build_record, missing_image
from fssd.data.formats.leftovers import first_named, unlisted
from fssd.data.formats.lookup import UNNAMED, choose_splits, in_order, known_splits
from fssd.data.formats.reader import Reader
from fssd.data.formats.voc_folder import VocFolder, find_folders
from fssd.data.formats.voc_xml import Annotation
from fssd.data.sample import DataSet, Problem, Record
from fssd.errors import DataError, LabelError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_YEAR = re.compile(r"VOC\d{4}")


@dataclass(frozen=True)
class _Entry:
    folder: VocFolder
    image_id: str
    listed_in: Path
    place: str

    @property
    def file(self) -> Path:
        return self.folder.annotations.get(self.image_id, self.folder.labels / f"{self.image_id}.xml")


def read_voc(
    root: Path, split: str | None, classes: Sequence[str] | None = None, images: Path | None = None
) -> DataSet:
    """The images of one split with their boxes; no image is opened. See `Reader`.

    root: a folder with Annotations and JPEGImages, a VOCdevkit with VOC2007, VOC2012 in it, or folders called
    like splits. split: one of those, or the name of a file in ImageSets/Main, taken from every folder that
    has it; `2007_trainval` takes it from VOC2007 only.
    """
    folders, notes = _without_copies([replace(folder, given=images) for folder in find_folders(root)], root)
    if not folders:
        reason = "is no VOC folder: it needs Annotations and JPEGImages, or VOC2007 or VOC2012 inside"
        raise DataError(reason, file=root)
    names = tuple(classes) if classes is not None else _classes(folders)
    index = {name: label for label, name in enumerate(names)}
    entries, problems = _entries(folders, split)
    problems += notes
    records: list[Record] = []
    for image_id, entry in zip(_unique_ids(entries), entries, strict=True):
        record, found = _record(image_id, entry, index)
        problems += found
        if record is not None:
            records.append(record)
    problems += [*_unused(root, folders, entries, records), *same_pictures(records, root)]
    return DataSet(names, tuple(records), tuple(problems), {"format": "voc", "images": len(entries)})


def _without_copies(folders: Sequence[VocFolder], root: Path) -> tuple[list[VocFolder], list[Problem]]:
    """The folders without those whose xml files and pictures another has too, and notes on them."""
    kept: dict[tuple[str, frozenset[str]], list[VocFolder]] = {}
    notes: list[Problem] = []
    for folder in sorted(folders, key=lambda folder: not folder.images):  # those with pictures are kept
        if _YEAR.fullmatch(folder.root.name):
            continue  # the years of VOC share no image, and are meant to be read together
        before = kept.setdefault((folder.split, frozenset(folder.annotations)), [])
        first = next((other for other in before if _is_copy(folder, other)), None)
        if first is None:
            before.append(folder)
            continue
        reason = f"holds the same xml files as {first.root}; those are used and these are left out"
        notes.append(Problem("warning", folder.root, "", reason))
    copies = {note.file for note in notes}
    left = [folder for folder in folders if folder.root not in copies]
    unnamed = [folder for folder in left if not any(folder.splits.values())]
    apart = [folder.root for folder in unnamed if not _YEAR.fullmatch(folder.root.name)]
    if len(apart) > 1:
        names = ", ".join(str(folder.relative_to(root)) for folder in apart)
        reason = f"labels of {len(apart)} folders are read together ({names}); or give one of them"
        notes.append(Problem("warning", root, "", reason))
    return left, notes


def _is_copy(folder: VocFolder, other: VocFolder) -> bool:
    """Whether xml files and pictures are equal byte by byte; a copy may lack the pictures."""
    if not all(are_equal(file, other.annotations[key]) for key, file in folder.annotations.items()):
        return False
    pictures = ((folder.picture(key), other.picture(key)) for key in folder.annotations)
    return all(mine == theirs or not mine.is_file() or are_equal(mine, theirs) for mine, theirs in pictures)


def _unused(
    root: Path, folders: Sequence[VocFolder], entries: Sequence[_Entry], records: Sequence[Record]
) -> list[Problem]:
    """Pictures without xml, and xml that no image set lists, of the folders that are read."""
    asked = {entry.folder.root for entry in entries}
    read = [folder for folder in folders if folder.root in asked]
    used = {record.path for record in records}
    used |= {folder.picture(image_id) for folder in read for image_id in folder.annotations}
    finders = list(dict.fromkeys(folder.finder for folder in read))
    lists = [file for folder in read for file in folder.other_lists]
    reason = f"{len(lists)} lists that name none of the xml files beside them are not used"
    notes = [*unlisted(root, finders, used), *first_named(root, lists, reason)]
    if _are_by_folder(folders):
        return notes
    listed = {(entry.folder.root, entry.image_id) for entry in entries}
    sets = [(folder, file) for name in _splits(folders) for folder, file in _sets(folders, name)]
    listed |= {(folder.root, entry.image_id) for folder, file in sets for entry in _listed(folder, file)}
    every = {(folder.root, key): file for folder in read for key, file in folder.annotations.items()}
    left = [file for key, file in every.items() if key not in listed]
    reason = f"{len(left)} of {len(every)} xml files are in no image set and are left out"
    return [*notes, *first_named(root, left, reason)]


def _are_by_folder(folders: Sequence[VocFolder]) -> bool:
    """Whether folders tell the splits, not image sets."""
    return any(split for folder in folders for split in folder.splits.values())


def _splits(folders: Sequence[VocFolder]) -> tuple[str, ...]:
    """Names of the split folders, or of the image sets without those of a class, such as `dog_train`."""
    if _are_by_folder(folders):
        stated = {split for folder in folders for split in folder.splits.values()}
        return known_splits(stated | {"" for folder in folders if folder.sets})
    names = {name for folder in folders for name, file in folder.sets.items() if not _has_flags(folder, file)}
    return in_order(names)


def _classes(folders: Sequence[VocFolder]) -> tuple[str, ...]:
    """VOC's 20 classes for its own folders (VOC2007, ...), even if few occur; else the sorted names found."""
    annotations = [folder.annotation(file) for folder in folders for file in folder.annotations.values()]
    parsed = (annotation for annotation in annotations if isinstance(annotation, Annotation))
    found = {item.name for annotation in parsed for item in annotation.objects}
    is_original = all(re.fullmatch(r"VOC\d{4}", folder.root.name) for folder in folders)
    return VOC_CLASSES if is_original and found <= set(VOC_CLASSES) else tuple(sorted(found))


def _entries(folders: Sequence[VocFolder], split: str | None) -> tuple[list[_Entry], list[Problem]]:
    if split is None or _are_by_folder(folders):
        chosen = choose_splits(split, _splits(folders), folders[0].root.parent)
        every = [
            _Entry(folder, image_id, file, "")
            for folder in folders
            for image_id, file in folder.annotations.items()
            if chosen is None or (folder.splits.get(image_id) or UNNAMED) in chosen
        ]
        if not every:
            raise DataError("holds no annotation", file=folders[0].labels)
        return every, []
    entries: dict[tuple[Path, str], _Entry] = {}
    problems: list[Problem] = []
    for folder, file in [pair for part in split.split("+") for pair in _set_files(folders, part.strip())]:
        listed = _listed(folder, file)
        before = len(entries)
        entries.update({(folder.root, entry.image_id): entry for entry in listed})
        again = before + len(listed) - len(entries)
        if again:
            reason = f"{again} of its images are listed more than once in {split!r}; each is used once"
            problems.append(Problem("warning", file, "", reason))
    if not entries:
        first = _set_files(folders, split.split("+")[0].strip())[0][1]
        raise DataError(f"split {split!r} lists no image", file=first)
    return list(entries.values()), problems


def _set_files(folders: Sequence[VocFolder], part: str) -> list[tuple[VocFolder, Path]]:
    found = _sets(folders, part)
    year = re.fullmatch(r"(\d{4})_(.+)", part)
    if not found and year:
        found = _sets([folder for folder in folders if folder.root.name == f"VOC{year[1]}"], year[2])
    if found:
        return found
    splits = _splits(folders)
    known = f"splits here: {', '.join(splits)}" if splits else "there is no image set at all"
    raise DataError(f"no such file, so there is no split {part!r}; {known}", file=folders[0].set_file(part))


def _sets(folders: Sequence[VocFolder], split: str) -> list[tuple[VocFolder, Path]]:
    return [(folder, folder.sets[split]) for folder in folders if split in folder.sets]


def _listed(folder: VocFolder, file: Path) -> list[_Entry]:
    """One entry a line, without those of the flag -1."""
    return [
        _Entry(folder, image_id, file, f"line {number} ({image_id})")
        for number, image_id, flag in folder.lines(file)
        if flag != "-1"
    ]


def _has_flags(folder: VocFolder, file: Path) -> bool:
    return any(flag for _, _, flag in folder.lines(file))


def _unique_ids(entries: Sequence[_Entry]) -> list[str]:
    """The stems, with the number of their folder as a prefix where two folders share one."""
    owners: dict[str, set[Path]] = {}
    for entry in entries:
        owners.setdefault(entry.image_id, set()).add(entry.folder.root)
    numbers = {root: number for number, root in enumerate(dict.fromkeys(e.folder.root for e in entries), 1)}
    return [
        e.image_id if len(owners[e.image_id]) == 1 else f"{numbers[e.folder.root]}:{e.image_id}"
        for e in entries
    ]


def _record(image_id: str, entry: _Entry, index: dict[str, int]) -> tuple[Record | None, list[Problem]]:
    if entry.image_id not in entry.folder.annotations:
        reason = f"its annotation {entry.file} is missing; restore it or remove the line"
        return None, [Problem("error", entry.listed_in, entry.place, reason)]
    annotation = entry.folder.annotation(entry.file)
    if isinstance(annotation, LabelError):
        return None, [Problem("error", entry.file, annotation.place, annotation.reason)]
    path = entry.folder.picture(entry.image_id)
    objects, size = annotation.objects, annotation.size
    record, problems = build_record(image_id, path, entry.file, size, objects=objects, index=index)
    if not path.is_file():
        return None, [missing_image(path)]
    return record, problems


VOC = Reader(
    name="voc",
    looked_for="Annotations and JPEGImages, or xml and pictures side by side (VOC)",
    recognise=lambda path: path if find_folders(path) else None,
    splits=lambda root: _splits(find_folders(root)),
    classes=lambda root: _classes(find_folders(root)),
    read=read_voc,
)

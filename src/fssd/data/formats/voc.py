"""Pascal VOC: Annotations/*.xml beside JPEGImages and ImageSets/Main, also under other names.

VOC's coordinates are 1-based and inclusive; they are used as written, as in Caffe SSD.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from fssd.data.decode import image_size
from fssd.data.formats.doubles import are_equal, same_pictures
from fssd.data.formats.labels import build_record, missing_image
from fssd.data.formats.leftovers import first_named, unlisted
from fssd.data.formats.lookup import UNNAMED, folder_split, known_splits, match_split
from fssd.data.formats.reader import Reader
from fssd.data.formats.voc_folder import YEAR, VocFolder, all_folders, find_folders
from fssd.data.formats.voc_pictures import exists
from fssd.data.formats.voc_xml import Annotation
from fssd.data.sample import DataSet, Problem, Record
from fssd.errors import DataError, ImageError, LabelError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


@dataclass(frozen=True)
class _Entry:
    folder: VocFolder
    image_id: str
    listed_in: Path
    place: str

    @property
    def file(self) -> Path:
        return self.folder.annotations.get(self.image_id, self.folder.labels / f"{self.image_id}.xml")

    @property
    def is_there(self) -> bool:
        return self.image_id in self.folder.annotations


def read_voc(
    root: Path, split: str | None, classes: Sequence[str] | None = None, images: Path | None = None
) -> DataSet:
    """The images of one split with their boxes; no image is opened. See `Reader`.

    root: a folder with Annotations and JPEGImages, a VOCdevkit with VOC2007, VOC2012 in it, or folders called
    like splits. split: one of those, or the name of a file in ImageSets/Main, taken from every folder that
    has it; `2007_trainval` takes it from VOC2007 only.
    """
    found_here, not_read = all_folders(root)
    folders, notes = _without_copies([replace(folder, given=images) for folder in found_here], root)
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
    problems += [*_measured(root, entries), *_apart(root, entries), *_untold_splits(images, entries)]
    problems += [*_unused(root, folders, entries, records), *same_pictures(records, root)]
    problems += _not_read(root, not_read)
    return DataSet(names, tuple(records), tuple(problems), {"format": "voc", "images": len(entries)})


def _without_copies(folders: Sequence[VocFolder], root: Path) -> tuple[list[VocFolder], list[Problem]]:
    """The folders without those whose xml files and pictures another has too, and notes on them."""
    kept: dict[tuple[str, frozenset[str], bytes], list[VocFolder]] = {}
    several = Counter(frozenset(folder.annotations) for folder in folders)
    notes: list[Problem] = []
    for folder in sorted(folders, key=lambda folder: not folder.finder.files):  # those with pictures are kept
        ids = frozenset(folder.annotations)
        before = kept.setdefault((folder.split, ids, _digest(folder) if several[ids] > 1 else b""), [])
        if YEAR.fullmatch(folder.root.name):  # they share no image, and are meant to be read together
            before.append(folder)
            continue
        first = next((other for other in before if _is_copy(folder, other)), None)
        if first is None:
            before.append(folder)
            continue
        reason = f"holds the same xml files as {first.root}; those are used and these are left out"
        notes.append(Problem("warning", folder.root, "", reason))
    copies = {note.file for note in notes}
    left = [folder for folder in folders if folder.root not in copies]
    unnamed = [folder for folder in left if not any(folder.splits.values())]
    apart = [folder for folder in unnamed if not YEAR.fullmatch(folder.root.name)]
    if apart and len(left) > 1:
        names = ", ".join(str(folder.root.relative_to(root)) for folder in left)
        reason = f"labels of {len(left)} folders are read together ({names}); or give one of them"
        notes.append(Problem("warning", root, "", reason))
    return left, notes


def _digest(folder: VocFolder) -> bytes:
    """Of the content of all xml files, so that not each folder is compared with all others."""
    digest = blake2b()
    for file in folder.annotations.values():
        with suppress(OSError):  # which `are_equal` takes for other content
            digest.update(blake2b(file.read_bytes()).digest())
    return digest.digest()


def _is_copy(folder: VocFolder, other: VocFolder) -> bool:
    """Whether xml files and pictures are equal byte by byte; a copy may lack the pictures."""
    if not all(are_equal(file, other.annotations[key]) for key, file in folder.annotations.items()):
        return False
    pictures = ((folder.found(key), other.picture(key)) for key in folder.annotations)
    return all(mine is None or mine == theirs or are_equal(mine, theirs) for mine, theirs in pictures)


def _unused(
    root: Path, folders: Sequence[VocFolder], entries: Sequence[_Entry], records: Sequence[Record]
) -> list[Problem]:
    """Pictures without xml, and xml that no image set lists, of the folders that are read."""
    asked = {entry.folder.root for entry in entries}
    read = [folder for folder in folders if folder.root in asked]
    used = {record.path for record in records}
    found = (folder.found(image_id) for folder in read for image_id in folder.annotations)
    used |= set(filter(None, found))
    finders = list(dict.fromkeys(folder.finder for folder in read))
    lists = [file for folder in read for file in folder.other_lists]
    reason = f"{len(lists)} lists that name none of the xml files beside them are not used"
    notes = [*unlisted(root, finders, used), *first_named(root, lists, reason)]
    listed = {(entry.folder.root, entry.image_id) for entry in entries}
    sets = [(folder, file) for name in _splits(folders) for folder, file in _sets(folders, name)]
    listed |= {(folder.root, entry.image_id) for folder, file in sets for entry in _listed(folder, file)}
    with_sets = [folder for folder in read if folder.sets]
    every = {(folder.root, key): file for folder in with_sets for key, file in folder.annotations.items()}
    left = [file for key, file in every.items() if key not in listed]
    reason = f"{len(left)} of {len(every)} xml files are in no image set and are left out"
    return [*notes, *first_named(root, left, reason)]


def _not_read(root: Path, folders: Sequence[VocFolder]) -> list[Problem]:
    reason = (
        f"xml files in {len(folders)} folders lie among the pictures of others or have none, and are not read"
    )
    return first_named(root, [folder.labels for folder in folders], reason)


def _measured(root: Path, entries: Sequence[_Entry]) -> list[Problem]:
    parsed = ((entry, entry.folder.annotation(entry.file)) for entry in entries if entry.is_there)
    files = [entry.file for entry, found in parsed if isinstance(found, Annotation) and found.size is None]
    reason = f"{len(files)} xml files state no size of their image, or 0 x 0; it is read from the image"
    return first_named(root, files, reason)


def _apart(root: Path, entries: Sequence[_Entry]) -> list[Problem]:
    """A note on pictures that are found by name alone, which may be those of other labels."""
    read = {(entry.folder.root, entry.image_id) for entry in entries}
    folders = {entry.folder.root: entry.folder for entry in entries}.values()
    paths = [path for folder in folders for key, path in folder.apart.items() if (folder.root, key) in read]
    reason = (
        f"{len(paths)} pictures were found by name, in folders called otherwise than those of the xml files"
    )
    return first_named(root, paths, reason)


def _untold_splits(images: Path | None, entries: Sequence[_Entry]) -> list[Problem]:
    """A note if given pictures lie in folders of several splits, of which the labels know nothing."""
    if images is None:
        return []
    untold = [entry for entry in entries if entry.is_there and not entry.folder.sets]
    untold = [entry for entry in untold if not entry.folder.splits[entry.image_id]]
    paths = filter(None, (entry.folder.found(entry.image_id) for entry in untold))
    told = known_splits({folder_split(path.relative_to(images).parts[:-1]) for path in paths} - {""})
    if len(told) < 2:
        return []
    reason = (
        f"its pictures lie in folders called like splits ({', '.join(told)}), which say nothing where the "
        "labels lie elsewhere, so they are read as one; put the xml files into such folders, or list them in "
        "ImageSets"
    )
    return [Problem("warning", images, "", reason)]


def _splits(folders: Sequence[VocFolder]) -> tuple[str, ...]:
    """Names of the split folders, and of the image sets without those of a class, such as `dog_train`."""
    told = {split for folder in folders for split in folder.splits.values()}
    sets = {name for folder in folders for name, file in folder.sets.items() if not folder.has_flags(file)}
    return known_splits(told | sets)


def _classes(folders: Sequence[VocFolder]) -> tuple[str, ...]:
    """VOC's 20 classes for its own folders (VOC2007, ...), even if few occur; else the sorted names found."""
    annotations = [folder.annotation(file) for folder in folders for file in folder.annotations.values()]
    parsed = (annotation for annotation in annotations if isinstance(annotation, Annotation))
    found = {item.name for annotation in parsed for item in annotation.objects}
    is_original = any(YEAR.fullmatch(folder.root.name) for folder in folders)
    return VOC_CLASSES if is_original and found <= set(VOC_CLASSES) else tuple(sorted(found))


def _entries(folders: Sequence[VocFolder], split: str | None) -> tuple[list[_Entry], list[Problem]]:
    if split is None:
        every = [entry for folder in folders for entry in _of_folder(folder)]
        if not every:
            raise DataError("holds no annotation", file=folders[0].labels)
        return every, []
    meant = [_meant(folders, part.strip()) for part in split.split("+")]
    sets = [pair for _, files in meant for pair in files]
    entries: dict[tuple[Path, str], _Entry] = {}
    problems: list[Problem] = []
    for folder, file in sets:
        listed = _listed(folder, file)
        before = len(entries)
        entries.update({(folder.root, entry.image_id): entry for entry in listed})
        again = before + len(listed) - len(entries)
        if again:
            reason = f"{again} of its images are listed more than once in {split!r}; each is used once"
            problems.append(Problem("warning", file, "", reason))
    names = {name for name, _ in meant}
    by_folder = [entry for folder in folders for entry in _of_folder(folder, names)]
    if not (entries or by_folder):
        raise DataError(f"split {split!r} lists no image", file=sets[0][1] if sets else folders[0].labels)
    return [*entries.values(), *by_folder], problems


def _of_folder(folder: VocFolder, names: Collection[str] | None = None) -> list[_Entry]:
    """The entries of all its xml files, or of those in folders that are called like splits."""
    if names is None:
        own = list(folder.annotations)
    else:
        own = [image_id for image_id, split in folder.splits.items() if (split or UNNAMED) in names]
    return [_Entry(folder, image_id, folder.annotations[image_id], "") for image_id in own]


def _meant(folders: Sequence[VocFolder], part: str) -> tuple[str, list[tuple[VocFolder, Path]]]:
    """The split that a name stands for, and the image sets of it. Raises DataError."""
    found = _sets(folders, part)
    year = re.fullmatch(r"(\d{4})_(.+)", part)
    if not found and year:
        found = _sets([folder for folder in folders if folder.root.name == f"VOC{year[1]}"], year[2])
    if found:
        return part, found
    splits = _splits(folders)
    if splits and any(folder.splits for folder in folders):
        name = match_split(part, splits, folders[0].root.parent)
        return name, _sets(folders, name)
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
    if not entry.is_there:
        reason = f"its annotation {entry.file} is missing; restore it or remove the line"
        return None, [Problem("error", entry.listed_in, entry.place, reason)]
    annotation = entry.folder.annotation(entry.file)
    if isinstance(annotation, LabelError):
        return None, [Problem("error", entry.file, annotation.place, annotation.reason)]
    path = entry.folder.found(entry.image_id)
    if path is None:
        return None, [_without_picture(entry)]
    try:
        size = annotation.size or image_size(path)
    except ImageError as error:
        return None, [Problem("error", path, error.place, error.reason)]
    return build_record(image_id, path, entry.file, size, objects=annotation.objects, index=index)


def _without_picture(entry: _Entry) -> Problem:
    path = entry.folder.picture(entry.image_id)
    if not exists(path):
        return missing_image(path)
    reason = f"has no picture of its own, {path} is that of another xml file, or of several; keep one of them"
    return Problem("error", entry.file, "", reason)


VOC = Reader(
    name="voc",
    looked_for="Annotations and JPEGImages, or xml and pictures side by side (VOC)",
    recognise=lambda path: path if find_folders(path) else None,
    splits=lambda root: _splits(find_folders(root)),
    classes=lambda root: _classes(find_folders(root)),
    read=read_voc,
)

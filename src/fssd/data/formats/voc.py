"""Pascal VOC: Annotations/*.xml beside JPEGImages and ImageSets/Main, also under other names.

VOC's coordinates are 1-based and inclusive; they are used as written, as in Caffe SSD.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from fssd.data.decode import IMAGE_EXTENSIONS
from fssd.data.formats.doubles import are_equal, same_pictures
from fssd.data.formats.labels import build_record, missing_image, read_lines
from fssd.data.formats.leftovers import first_named, unlisted
from fssd.data.formats.lookup import (
    UNNAMED,
    PictureFinder,
    composed,
    folder_split,
    in_order,
    match_split,
    path_parts,
    suffix_of,
    visible_entries,
    visible_files,
)  # fmt: skip
from fssd.data.formats.reader import Reader
from fssd.data.formats.voc_xml import Annotation, is_annotation, parse_annotation
from fssd.data.sample import DataSet, Problem, Record
from fssd.errors import DataError, LabelError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_LABELS = ("annotations", "annots", "annotation", "xmls", "xml")
_PICTURES = ("jpegimages", "images", "image", "imgs", "img")

_YEAR = re.compile(r"VOC\d{4}")


@dataclass(frozen=True)
class VocFolder:
    """One folder that holds Annotations and JPEGImages, or xml files and pictures itself.

    split: its own, for a folder such as train/ without image sets. given: where the pictures are instead.
    """

    root: Path
    split: str = ""
    given: Path | None = None
    _parsed: dict[Path, Annotation | LabelError] = field(default_factory=dict, compare=False, repr=False)

    def set_file(self, split: str) -> Path:
        return self.root / "ImageSets" / "Main" / f"{split}.txt"

    def annotation(self, file: Path) -> Annotation | LabelError:
        """The parsed file, or what is wrong with it; each file is parsed once."""
        if file not in self._parsed:
            self._parsed[file] = parse_annotation(file)
        return self._parsed[file]

    @cached_property
    def labels(self) -> Path:
        """The folder of the xml files."""
        return _subfolder(self.root, _LABELS) or self.root

    @cached_property
    def pictures(self) -> Path:
        return self.given or _subfolder(self.root, _PICTURES) or self.root

    @property
    def is_voc(self) -> bool:
        if not self.root.is_dir():
            return False
        if (self.labels.name, self.pictures.name) == ("Annotations", "JPEGImages"):
            return True
        return any(map(is_annotation, self.labels.glob("[!.]*.xml")))

    @cached_property
    def annotation_files(self) -> tuple[Path, ...]:
        files = visible_files(self.labels, {".xml"})
        mixed = self.labels == self.root  # other xml may lie there, but none with the name of a picture
        own = (
            file for file in files if not mixed or is_annotation(file) or self.image_id(file) in self.images
        )
        return tuple(sorted(own))

    def image_id(self, annotation: Path) -> str:
        """The path below Annotations without .xml: its stem, or folder/stem."""
        return annotation.relative_to(self.labels).with_suffix("").as_posix()

    @cached_property
    def annotated(self) -> frozenset[str]:
        """The ids that have an annotation."""
        return frozenset(map(self.image_id, self.annotation_files))

    @cached_property
    def _by_form(self) -> dict[str, str]:
        return {composed(image_id): image_id for image_id in self.annotated}

    def listed_id(self, text: str) -> str:
        """The id of an annotation that an image set means, in any form of Unicode."""
        return text if text in self.annotated else self._by_form.get(composed(text), text)

    @cached_property
    def finder(self) -> PictureFinder:
        return PictureFinder(self.pictures)

    @cached_property
    def images(self) -> dict[str, Path]:
        """Image files by id; where an id has several, .jpg wins."""
        found = sorted(self.finder.files, key=lambda path: (path.suffix == ".jpg", path.name))
        return {path.relative_to(self.pictures).with_suffix("").as_posix(): path for path in found}

    @cached_property
    def _by_stem(self) -> dict[str, Path | None]:
        """Image files by composed stem; None where several share one."""
        found: dict[str, Path | None] = {}
        for path in self.images.values():
            stem = composed(path.stem)
            found[stem] = None if stem in found else path
        return found

    def image(self, image_id: str, filename: str) -> Path:
        """The image of an id, whatever its extension; else the file that the XML names; else by its name."""
        name = "/".join(path_parts(filename))
        keys = (image_id, Path(name).with_suffix("").as_posix() if name else "", Path(name).stem)
        found = next((self.images[key] for key in keys if key in self.images), None)
        stems = (composed(Path(image_id).name), composed(Path(name).stem))
        found = found or self._by_stem.get(stems[0]) or self._by_stem.get(stems[1])
        return found or self.pictures / (Path(name).name or f"{image_id}.jpg")


@dataclass(frozen=True)
class _Entry:
    folder: VocFolder
    image_id: str
    listed_in: Path
    place: str

    @property
    def file(self) -> Path:
        return self.folder.labels / f"{self.image_id}.xml"


def read_voc(
    root: Path, split: str | None, classes: Sequence[str] | None = None, images: Path | None = None
) -> DataSet:
    """The images of one split with their boxes; no image is opened. See `Reader`.

    root: a folder with Annotations and JPEGImages, a VOCdevkit with VOC2007, VOC2012 in it, or folders called
    like splits. split: one of those, or the name of a file in ImageSets/Main, taken from every folder that
    has it; `2007_trainval` takes it from VOC2007 only.
    """
    folders, notes = _without_copies([replace(folder, given=images) for folder in _folders(root)], root)
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
    """The folders without those whose xml files are equal to those of one before, and notes on them."""
    kept: dict[frozenset[str], VocFolder] = {}
    notes: list[Problem] = []
    for folder in folders:
        if _YEAR.fullmatch(folder.root.name):
            continue  # the years of VOC share no image, and are meant to be read together
        first = kept.setdefault(folder.annotated, folder)
        if first is not folder and all(map(are_equal, first.annotation_files, folder.annotation_files)):
            reason = f"holds the same xml files as {first.root}; those are used and these are left out"
            notes.append(Problem("warning", folder.root, "", reason))
    copies = {note.file for note in notes}
    left = [folder for folder in folders if folder.root not in copies]
    apart = [folder.root for folder in left if not (folder.split or _YEAR.fullmatch(folder.root.name))]
    if len(apart) > 1:
        names = ", ".join(str(folder.relative_to(root)) for folder in apart)
        reason = f"labels of {len(apart)} folders are read together ({names}); or give one of them"
        notes.append(Problem("warning", root, "", reason))
    return left, notes


def _unused(
    root: Path, folders: Sequence[VocFolder], entries: Sequence[_Entry], records: Sequence[Record]
) -> list[Problem]:
    """Pictures without xml, and xml that no image set lists, of the folders that are read."""
    asked = {entry.folder.root for entry in entries}
    read = [folder for folder in folders if folder.root in asked]
    used = {record.path for record in records} | {path for folder in read for path in _labelled(folder)}
    listed = {(entry.folder.root, entry.image_id) for entry in entries}
    sets = [(folder, file) for name in _splits(folders) for folder, file in _sets(folders, name)]
    listed |= {(folder.root, entry.image_id) for folder, file in sets for entry in _listed(folder, file)}
    every = [(folder, file) for folder in read for file in folder.annotation_files]
    left = [file for folder, file in every if (folder.root, folder.image_id(file)) not in listed]
    reason = f"{len(left)} of {len(every)} xml files are in no image set and are left out"
    finders = list(dict.fromkeys(folder.finder for folder in read))
    return [*unlisted(root, finders, used), *first_named(root, left, reason)]


def _labelled(folder: VocFolder) -> Iterator[Path]:
    """The pictures of all xml files; only of those without one of the same name the xml is parsed."""
    for file in folder.annotation_files:
        image_id = folder.image_id(file)
        parsed = None if image_id in folder.images else folder.annotation(file)
        yield folder.image(image_id, parsed.filename if isinstance(parsed, Annotation) else "")


def _folders(path: Path) -> list[VocFolder]:
    """The VOC folders of a path: itself, its VOC<year> folders, those in its VOCdevkit, or its splits."""
    candidates = [[path], sorted(path.glob("VOC[0-9]*")), sorted(path.glob("VOCdevkit/VOC[0-9]*"))]
    for group in candidates:
        found = [folder for folder in map(VocFolder, group) if folder.is_voc]
        if found:
            return found
    return _nested(path) if path.is_dir() else []


def _nested(path: Path) -> list[VocFolder]:
    """Those at any depth. Folders such as train/ without image sets are splits."""
    seen: dict[str, Path] = {}
    for entry in visible_entries(path):
        folder = os.path.split(entry.path)[0]
        if suffix_of(entry.name) == ".xml" and folder not in seen and is_annotation(Path(entry)):
            seen[folder] = _root_of(Path(folder), path)
    folders = []
    for root in dict.fromkeys(seen.values()):
        has_sets = any((root / "ImageSets" / "Main").glob("[!.]*.txt"))
        folders.append(VocFolder(root, "" if has_sets else folder_split(root.relative_to(path).parts)))
    if any(folder.split for folder in folders):
        return [folder if folder.split else replace(folder, split=UNNAMED) for folder in folders]
    return folders


def _root_of(labels: Path, top: Path) -> Path:
    """The folder above Annotations, or the folder of the xml files itself."""
    below = reversed([labels, *labels.parents][: len(labels.relative_to(top).parts)])
    return next((folder.parent for folder in below if folder.name.lower() in _LABELS), labels)


def _subfolder(root: Path, names: Sequence[str]) -> Path | None:
    """The folder with the first of these names, in capitals or not."""
    with os.scandir(root) as entries:
        folders = {entry.name.lower(): Path(entry) for entry in entries if entry.is_dir()}
    return next((folders[name] for name in names if name in folders), None)


def _splits(folders: Sequence[VocFolder]) -> tuple[str, ...]:
    """Names of the split folders, or of the image sets without those of a class, such as `dog_train`."""
    names = {folder.split for folder in folders if folder.split} or {
        file.stem
        for folder in folders
        for file in (folder.root / "ImageSets" / "Main").glob("[!.]*.txt")
        if not _has_flags(folder, file)
    }
    return in_order(names)


def _classes(folders: Sequence[VocFolder]) -> tuple[str, ...]:
    """VOC's 20 classes for its own folders (VOC2007, ...), even if few occur; else the sorted names found."""
    annotations = [folder.annotation(file) for folder in folders for file in folder.annotation_files]
    parsed = (annotation for annotation in annotations if isinstance(annotation, Annotation))
    found = {item.name for annotation in parsed for item in annotation.objects}
    is_original = all(re.fullmatch(r"VOC\d{4}", folder.root.name) for folder in folders)
    return VOC_CLASSES if is_original and found <= set(VOC_CLASSES) else tuple(sorted(found))


def _entries(folders: Sequence[VocFolder], split: str | None) -> tuple[list[_Entry], list[Problem]]:
    if split is None or folders[0].split:
        asked = folders if split is None else _split_folders(folders, split)
        files = [(folder, file) for folder in asked for file in folder.annotation_files]
        every = [_Entry(folder, folder.image_id(file), file, "") for folder, file in files]
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


def _split_folders(folders: Sequence[VocFolder], split: str) -> list[VocFolder]:
    known, root = _splits(folders), folders[0].root.parent
    names = {match_split(part.strip(), known, root) for part in split.split("+")}
    return [folder for folder in folders if folder.split in names]


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
    return [(folder, folder.set_file(split)) for folder in folders if folder.set_file(split).is_file()]


def _listed(folder: VocFolder, file: Path) -> list[_Entry]:
    """One entry a line, without those of the flag -1."""
    rows = ((number, _id_and_flag(line, folder)) for number, line in enumerate(read_lines(file), 1))
    return [
        _Entry(folder, _known_id(image_id, folder), file, f"line {number} ({image_id})")
        for number, (image_id, flag) in rows
        if image_id and flag != "-1"
    ]


def _known_id(text: str, folder: VocFolder) -> str:
    """The id of a line, which may also be a path of its picture."""
    parts = path_parts(text)
    if text in folder.annotated or suffix_of(text) not in IMAGE_EXTENSIONS:
        return folder.listed_id("/".join(parts))
    every = ("/".join(parts[start:]).rpartition(".")[0] for start in range(len(parts)))
    ends = map(folder.listed_id, every)
    return next((end for end in ends if end in folder.annotated), "/".join(parts))


def _id_and_flag(line: str, folder: VocFolder) -> tuple[str, str]:
    """The id, which may hold spaces, and the class flag behind it: -1 (not in this image), 0, 1 or ""."""
    whole = line.strip()
    image_id, _, last = whole.replace("\t", " ").rpartition(" ")
    if not image_id or last not in {"-1", "0", "1"} or whole in folder.annotated:
        return whole, ""
    return image_id.rstrip(), last


def _has_flags(folder: VocFolder, file: Path) -> bool:
    return any(_id_and_flag(line, folder)[1] for line in read_lines(file))


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
    if entry.image_id not in entry.folder.annotated:
        reason = f"its annotation {entry.file} is missing; restore it or remove the line"
        return None, [Problem("error", entry.listed_in, entry.place, reason)]
    annotation = entry.folder.annotation(entry.file)
    if isinstance(annotation, LabelError):
        return None, [Problem("error", entry.file, annotation.place, annotation.reason)]
    path = entry.folder.image(entry.image_id, annotation.filename)
    objects, size = annotation.objects, annotation.size
    record, problems = build_record(image_id, path, entry.file, size, objects=objects, index=index)
    if not path.is_file():
        return None, [missing_image(path)]
    return record, problems


VOC = Reader(
    name="voc",
    looked_for="Annotations and JPEGImages, or xml and pictures side by side (VOC)",
    recognise=lambda path: path if _folders(path) else None,
    splits=lambda root: _splits(_folders(root)),
    classes=lambda root: _classes(_folders(root)),
    read=read_voc,
)

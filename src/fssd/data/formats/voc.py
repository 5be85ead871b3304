"""Pascal VOC: Annotations/*.xml beside JPEGImages and ImageSets/Main, also under other names.

VOC's coordinates are 1-based and inclusive; they are used as written, as in Caffe SSD.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

from fssd.data.decode import IMAGE_EXTENSIONS
from fssd.data.formats.labels import LabelledObject, build_record, missing_image, read_lines, yes_or_no
from fssd.data.formats.lookup import folder_split, match_split, visible_files
from fssd.data.formats.reader import Reader
from fssd.data.sample import DataSet, Problem, Record
from fssd.errors import DataError, LabelError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


_LABELS = ("annotations", "annots", "annotation", "xmls", "xml")
_PICTURES = ("jpegimages", "images", "image", "imgs", "img")
_ANNOTATION = re.compile(rb"<annotation[\s>]")  # CVAT's root is <annotations>
_LOOKS_AT = 4096  # bytes


@dataclass(frozen=True)
class VocFolder:
    """One folder that holds Annotations and JPEGImages, or xml files and pictures itself.

    split: its own, for a folder such as train/ without image sets.
    """

    root: Path
    split: str = ""
    _parsed: dict[Path, Annotation | LabelError] = field(default_factory=dict, compare=False, repr=False)

    def set_file(self, split: str) -> Path:
        return self.root / "ImageSets" / "Main" / f"{split}.txt"

    def annotation(self, file: Path) -> Annotation | LabelError:
        """The parsed file, or what is wrong with it; each file is parsed once."""
        if file not in self._parsed:
            self._parsed[file] = _parse(file)
        return self._parsed[file]

    @cached_property
    def labels(self) -> Path:
        """The folder of the xml files."""
        return _subfolder(self.root, _LABELS) or self.root

    @cached_property
    def pictures(self) -> Path:
        return _subfolder(self.root, _PICTURES) or self.root

    @property
    def is_voc(self) -> bool:
        if not self.root.is_dir():
            return False
        if (self.labels.name, self.pictures.name) == ("Annotations", "JPEGImages"):
            return True
        return any(map(_is_annotation, self.labels.glob("[!.]*.xml")))

    @cached_property
    def annotation_files(self) -> tuple[Path, ...]:
        files = visible_files(self.labels, {".xml"})
        mixed = self.labels == self.root  # other xml may lie there
        return tuple(sorted(file for file in files if not mixed or _is_annotation(file)))

    def image_id(self, annotation: Path) -> str:
        """The path below Annotations without .xml: its stem, or folder/stem."""
        return annotation.relative_to(self.labels).with_suffix("").as_posix()

    @cached_property
    def annotated(self) -> frozenset[str]:
        """The ids that have an annotation."""
        return frozenset(map(self.image_id, self.annotation_files))

    @cached_property
    def images(self) -> dict[str, Path]:
        """Image files by id; where an id has several, .jpg wins."""
        found = list(visible_files(self.pictures, IMAGE_EXTENSIONS))
        found.sort(key=lambda path: (path.suffix == ".jpg", path.name))
        return {path.relative_to(self.pictures).with_suffix("").as_posix(): path for path in found}

    def image(self, image_id: str, filename: str) -> Path:
        """The image of an id, whatever its extension; else the file that the XML names."""
        found = self.images.get(image_id) or self.images.get(Path(filename).stem)
        return found or self.pictures / (filename or f"{image_id}.jpg")


@dataclass(frozen=True)
class Annotation:
    """One XML file: image size in pixels, objects, and the image's name as the file states it."""

    filename: str
    size: tuple[int, int]
    objects: tuple[LabelledObject, ...]


@dataclass(frozen=True)
class _Entry:
    folder: VocFolder
    image_id: str
    listed_in: Path
    place: str

    @property
    def file(self) -> Path:
        return self.folder.labels / f"{self.image_id}.xml"


def read_voc(root: Path, split: str | None, classes: Sequence[str] | None = None) -> DataSet:
    """The images of one split with their boxes; no image is opened. See `Reader`.

    root: a folder with Annotations and JPEGImages, a VOCdevkit with VOC2007, VOC2012 in it, or folders called
    like splits. split: one of those, or the name of a file in ImageSets/Main, taken from every folder that
    has it; `2007_trainval` takes it from VOC2007 only.
    """
    folders = _folders(root)
    if not folders:
        reason = "is no VOC folder: it needs Annotations and JPEGImages, or VOC2007 or VOC2012 inside"
        raise DataError(reason, file=root)
    names = tuple(classes) if classes is not None else _classes(folders)
    index = {name: label for label, name in enumerate(names)}
    entries, problems = _entries(folders, split)
    records: list[Record] = []
    for image_id, entry in zip(_unique_ids(entries), entries, strict=True):
        record, found = _record(image_id, entry, index)
        problems += found
        if record is not None:
            records.append(record)
    return DataSet(names, tuple(records), tuple(problems), {"format": "voc", "images": len(entries)})


def _folders(path: Path) -> list[VocFolder]:
    """The VOC folders of a path: itself, its VOC<year> folders, those in its VOCdevkit, or its splits."""
    candidates = [[path], sorted(path.glob("VOC[0-9]*")), sorted(path.glob("VOCdevkit/VOC[0-9]*"))]
    for group in candidates:
        found = [folder for folder in map(VocFolder, group) if folder.is_voc]
        if found:
            return found
    own = ((root, folder_split([root.name])) for root in sorted(path.glob("[!.]*/")))
    return [folder for folder in (VocFolder(root, split) for root, split in own if split) if folder.is_voc]


def _subfolder(root: Path, names: Sequence[str]) -> Path | None:
    """The folder with the first of these names, in capitals or not."""
    with os.scandir(root) as entries:
        folders = {entry.name.lower(): Path(entry) for entry in entries if entry.is_dir()}
    return next((folders[name] for name in names if name in folders), None)


def _is_annotation(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return bool(_ANNOTATION.search(stream.read(_LOOKS_AT)))
    except OSError:  # for the parser to name
        return True


def _splits(folders: Sequence[VocFolder]) -> tuple[str, ...]:
    """Names of the split folders, or of the image sets without those of a class, such as `dog_train`."""
    names = {folder.split for folder in folders if folder.split} or {
        file.stem
        for folder in folders
        for file in (folder.root / "ImageSets" / "Main").glob("[!.]*.txt")
        if not _has_flags(folder, file)
    }
    order = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "trainval": 2, "test": 3}
    return tuple(sorted(names, key=lambda name: (order.get(name, 4), name)))


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
    found = [(folder, folder.set_file(part)) for folder in folders if folder.set_file(part).is_file()]
    year = re.fullmatch(r"(\d{4})_(.+)", part)
    if not found and year:
        years = [folder for folder in folders if folder.root.name == f"VOC{year[1]}"]
        found = [(folder, folder.set_file(year[2])) for folder in years if folder.set_file(year[2]).is_file()]
    if found:
        return found
    splits = _splits(folders)
    known = f"splits here: {', '.join(splits)}" if splits else "there is no image set at all"
    raise DataError(f"no such file, so there is no split {part!r}; {known}", file=folders[0].set_file(part))


def _listed(folder: VocFolder, file: Path) -> list[_Entry]:
    """One entry a line, without those of the flag -1."""
    rows = ((number, _id_and_flag(line, folder)) for number, line in enumerate(read_lines(file), 1))
    return [
        _Entry(folder, image_id, file, f"line {number} ({image_id})")
        for number, (image_id, flag) in rows
        if image_id and flag != "-1"
    ]


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
    if not entry.file.is_file():
        reason = f"its annotation {entry.file} is missing; restore it or remove the line"
        return None, [Problem("error", entry.listed_in, entry.place, reason)]
    annotation = entry.folder.annotation(entry.file)
    if isinstance(annotation, LabelError):
        return None, [Problem("error", entry.file, annotation.place, annotation.reason)]
    path = entry.folder.image(entry.image_id, annotation.filename)
    objects, size = annotation.objects, annotation.size
    record, problems = build_record(image_id, path, entry.file, size, objects=objects, index=index)
    if not path.is_file():
        return None, [missing_image(path), *problems]
    return record, problems


def _parse(file: Path) -> Annotation | LabelError:
    try:
        root = ElementTree.parse(file).getroot()
        objects = tuple(_object(item, number, file) for number, item in enumerate(root.findall("object"), 1))
        return Annotation(_word(root, "filename"), _size(root, file), objects)
    except LabelError as error:
        return error
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:  # LookupError: encoding
        return LabelError(f"is not well-formed XML ({error}); correct or remove it", file=file)


def _size(root: ElementTree.Element, file: Path) -> tuple[int, int]:
    size = root.find("size")
    if size is None:
        raise LabelError("has no <size>; add the width and height of the image", file=file)
    width, height = (round(_number(size, tag, "size", file)) for tag in ("width", "height"))
    if width <= 0 or height <= 0:
        raise LabelError(f"has a <size> of {width} x {height}; correct it", file=file, place="size")
    return width, height


def _object(item: ElementTree.Element, number: int, file: Path) -> LabelledObject:
    name = _word(item, "name")
    place = f"object {number} ({name})" if name else f"object {number}"
    if not name:
        raise LabelError("has no <name>; give it a class or remove it", file=file, place=place)
    box = item.find("bndbox")
    if box is None:
        raise LabelError("has no <bndbox>; add one or remove the object", file=file, place=place)
    x1, y1, x2, y2 = (_number(box, side, place, file) for side in ("xmin", "ymin", "xmax", "ymax"))
    try:
        difficult = yes_or_no(item.findtext("difficult"), "<difficult>")
    except LabelError as error:
        raise LabelError(error.reason, file=file, place=place) from error
    return LabelledObject(name, (x1, y1, x2, y2), place, difficult)


def _number(parent: ElementTree.Element, tag: str, place: str, file: Path) -> float:
    word = _word(parent, tag)
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise LabelError(f"<{tag}> is {word!r}, not a finite number; correct it", file=file, place=place)
    return value


def _word(parent: ElementTree.Element, tag: str) -> str:
    return (parent.findtext(tag) or "").strip()


VOC = Reader(
    name="voc",
    looked_for="Annotations and JPEGImages, or xml and pictures side by side (VOC)",
    recognise=lambda path: path if _folders(path) else None,
    splits=lambda root: _splits(_folders(root)),
    classes=lambda root: _classes(_folders(root)),
    read=read_voc,
)

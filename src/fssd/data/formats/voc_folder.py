"""Finds the VOC folders of a path, and the xml files and pictures of one."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from fssd.data.decode import IMAGE_EXTENSIONS
from fssd.data.formats.labels import read_lines
from fssd.data.formats.lookup import (
    VANISHED,
    PictureFinder,
    composed,
    entries_in,
    folder_split,
    may_be_folder,
    path_parts,
    suffix_of,
    visible_entries,
    visible_files,
    visible_glob,
)  # fmt: skip
from fssd.data.formats.voc_pictures import VocPictures, exists, innermost, named, stated_name
from fssd.data.formats.voc_xml import Annotation, is_annotation, parse_annotation
from fssd.errors import DataError, LabelError

_LABELS = ("annotations", "annots", "annotation", "xmls", "xml")
_PICTURES = ("jpegimages", "images", "image", "imgs", "img")
_ALSO_LABELS, _ALSO_PICTURES = "labels", "data"  # of FiftyOne's exports; in others they hold something else

YEAR = re.compile(r"VOC\d{4}")
"""What VOC's own folders are called."""
_PATHS = IMAGE_EXTENSIONS | {".xml"}  # what the paths in lists end with
_PAIR = re.compile(rf".+({'|'.join(map(re.escape, sorted(IMAGE_EXTENSIONS)))})\s+(.+\.xml)", re.IGNORECASE)

_FLAGS = tuple(space + flag for space in (" ", "\t") for flag in ("-1", "0", "1"))


@dataclass(frozen=True)
class VocFolder:
    """One folder that holds Annotations and JPEGImages, or xml files and pictures itself.

    split: that of the folders above it, such as train/. given: where the pictures are instead.
    """

    root: Path
    split: str = ""
    given: Path | None = None
    _parsed: dict[Path, Annotation | LabelError] = field(default_factory=dict, compare=False, repr=False)

    def set_file(self, split: str) -> Path:
        """The image set of that name, or where it should be."""
        return self.sets.get(split, self.root / "ImageSets" / "Main" / f"{split}.txt")

    def annotation(self, file: Path) -> Annotation | LabelError:
        """The parsed file, or what is wrong with it; each file is parsed once."""
        if file not in self._parsed:
            self._parsed[file] = parse_annotation(file)
        return self._parsed[file]

    @cached_property
    def labels(self) -> Path:
        """The folder of the xml files."""
        return _subfolder(self.root, _LABELS) or _labels_beside_pictures(self.root) or self.root

    @cached_property
    def pictures(self) -> Path:
        names = _PICTURES if self.labels.name.lower() != _ALSO_LABELS else (*_PICTURES, _ALSO_PICTURES)
        return self.given or _subfolder(self.root, names) or self.root

    @property
    def is_voc(self) -> bool:
        if not self.root.is_dir():
            return False
        if (self.labels.name, self.pictures.name) == ("Annotations", "JPEGImages"):
            return any(map(self._is_label, visible_files(self.labels, {".xml"}))) or bool(self.sets)
        entries = (entry for entry in entries_in(self.labels, VANISHED) if entry.name[0] != ".")
        return any(is_annotation(Path(entry)) for entry in entries if suffix_of(entry.name) == ".xml")

    def _is_label(self, file: Path) -> bool:
        """Also a broken one, if it has the name of a picture; other formats lie in Annotations too."""
        image_id = file.relative_to(self.labels).with_suffix("").as_posix()
        return is_annotation(file) or image_id in self.known.by_id

    @cached_property
    def annotations(self) -> dict[str, Path]:
        """The xml files by id, which is the path below Annotations without .xml: a stem, or folder/stem.

        The second of a.xml and a.XML has its whole name as its id.
        """
        mixed = self.labels == self.root  # other xml may lie there, but none with the name of a picture
        found: dict[str, Path] = {}
        for file in sorted(visible_files(self.labels, {".xml"}), reverse=True):
            path = file.relative_to(self.labels)
            image_id = path.with_suffix("").as_posix()
            if not mixed or self._is_label(file):
                found[path.as_posix() if image_id in found else image_id] = file
        return dict(reversed(found.items()))

    @cached_property
    def sets(self) -> dict[str, Path]:
        """The image sets by name: those of ImageSets/Main, else of ImageSets, else the lists beside it.

        The folders and the ending may be in capitals or not, as on disks that do not tell them apart.
        """
        above = _subfolder(self.root, ("imagesets",))
        main = above and _subfolder(above, ("main",))
        files = (_texts(main) if main else []) or (_texts(above) if above else [])
        return _by_name(files or [file for file in self._lists if self._names_any(file)])

    @property
    def other_lists(self) -> list[Path]:
        """The lists that name no xml file of this folder, where there is no ImageSets."""
        has_others = any(file not in self._lists for file in self.sets.values())
        return [] if has_others else [file for file in self._lists if file.stem not in self.sets]

    @cached_property
    def _lists(self) -> tuple[Path, ...]:
        """Files such as train.txt and val_list.txt, as PaddleDetection and PaddleX have them."""
        files = [] if self.split else _texts(self.root)
        return tuple(file for file in files if folder_split([file.stem.removesuffix("_list")]))

    def _names_any(self, file: Path) -> bool:
        with suppress(DataError):  # it may be no text at all
            return any(image_id in self.annotations for _, image_id, _ in self.lines(file))
        return False

    def lines(self, file: Path) -> Iterator[tuple[int, str, str]]:
        """Number, id and flag of every line of an image set that is not empty. Raises DataError.

        The flag is that of a class: -1 (not in this image), 0, 1, or "".
        """
        lines = [line.strip() for line in read_lines(file)]
        has_flags = self._are_flagged(lines)
        for number, line in enumerate(lines, 1):
            text, flag = _text_and_flag(line) if has_flags else (line, "")
            if text:
                yield number, self._known_id(text), flag

    def has_flags(self, file: Path) -> bool:
        """Whether an image set is that of a class. Raises DataError."""
        return self._are_flagged([line.strip() for line in read_lines(file)])

    def _are_flagged(self, lines: Sequence[str]) -> bool:
        """Whether all lines end with a flag; `photo 1` may also be an id, that of a missing xml file too."""
        texts = list(filter(None, lines))
        if not all(text.endswith(_FLAGS) for text in texts) or any(
            text in self.annotations for text in texts
        ):
            return False
        is_sure = any(text.endswith("-1") for text in texts)
        return is_sure or any(self._known_id(_text_and_flag(text)[0]) in self.annotations for text in texts)

    def _known_id(self, text: str) -> str:
        """The id of a line, which may also be a path of its picture, of its xml file, or of both."""
        if text in self.annotations:
            return text
        pair = _PAIR.fullmatch(text)
        parts = path_parts(pair[2] if pair else text)
        if not parts or suffix_of(parts[-1]) not in _PATHS:
            return self._in_any_form("/".join(parts))
        every = ("/".join(parts[start:]).rpartition(".")[0] for start in range(len(parts)))
        ends = map(self._in_any_form, every)
        return next((end for end in ends if end in self.annotations), "/".join(parts))

    def _in_any_form(self, text: str) -> str:
        """The id of an annotation that an image set means, in any form of Unicode."""
        return text if text in self.annotations else self._by_form.get(composed(text), text)

    @cached_property
    def _by_form(self) -> dict[str, str]:
        return {composed(image_id): image_id for image_id in self.annotations}

    @cached_property
    def splits(self) -> dict[str, str]:
        """The splits that folders tell, by id, "" for none; empty if there are image sets."""
        if self.sets:
            return {}
        own = self if self.given is None else replace(self, given=None)  # with its splits in either case
        return {image_id: own._split_of(image_id) for image_id in self.annotations}

    def _split_of(self, image_id: str) -> str:
        """That of the innermost folder of the xml file, else of its picture, else of this folder."""
        picture = self._found[image_id]
        above = picture.relative_to(self.pictures).parts[:-1] if picture else ()
        return folder_split(Path(image_id).parts[:-1]) or folder_split(above) or self.split

    @property
    def finder(self) -> PictureFinder:
        return self.known.finder

    @cached_property
    def known(self) -> VocPictures:
        return VocPictures(self.pictures, PictureFinder(self.pictures))

    @cached_property
    def _own(self) -> dict[str, Path]:
        """The pictures that have the names of xml files, by id."""
        found: dict[str, Path] = {}
        for image_id, file in self.annotations.items():
            # The second of a.xml and a.XML, whose id is its whole name, is of the same picture.
            key = file.relative_to(self.labels).with_suffix("").as_posix()
            if paths := self.known.own(key, self.annotations):
                found[image_id] = paths[0] if len(paths) == 1 else named(paths, self._stated(image_id))
        return found

    @cached_property
    def _found(self) -> dict[str, Path | None]:
        """The pictures of all xml files; one that has an xml file, or is wanted by two, is lent to none."""
        others = innermost(self.annotations)
        lent = {
            image_id: self._lent(image_id, others)
            for image_id in self.annotations
            if image_id not in self._own
        }
        wanted = Counter((*set(self._own.values()), *filter(None, lent.values())))
        return self._own | {key: path if path and wanted[path] == 1 else None for key, path in lent.items()}

    def _lent(self, image_id: str, others: Collection[str]) -> Path | None:
        """A picture that has not the path of the xml file, but fits; also one that cannot be decoded."""
        stated = self._stated(image_id)
        paths = self.known.stated(stated)
        if paths and len(path_parts(stated)) > 1:
            return named(paths, stated)
        if paths := paths or self.known.alike(image_id, stated):
            path = named(paths, stated)
            return None if self.known.is_foreign(image_id, path, self.split, others) else path
        path = self._expected(image_id)
        return path if exists(path) else None

    @property
    def apart(self) -> dict[str, Path]:
        """The pictures that were found in folders of other names than those of their xml files, by id."""
        lent = {key: path for key, path in self._found.items() if path and key not in self._own}
        apart = {key: path for key, path in lent.items() if self.known.is_apart(key, path)}
        return {key: path for key, path in apart.items() if path not in self.known.stated(self._stated(key))}

    def _stated(self, image_id: str) -> str:
        parsed = self.annotation(self.annotations[image_id])
        return parsed.filename if isinstance(parsed, Annotation) else ""

    def _expected(self, image_id: str) -> Path:
        """Where the picture should be."""
        name = stated_name(self._stated(image_id))
        folder = self.pictures / Path(image_id).parent
        missing = name.name if name else f"{Path(image_id).name}.jpg"
        return (folder if folder.is_dir() else self.pictures) / missing

    def found(self, image_id: str) -> Path | None:
        """The picture of an id that has an xml file; that is parsed only if none or several have its name.

        It is the one with its name, whatever its extension; else the one that it states; else the one with
        its name in another folder.
        """
        return self._own.get(image_id) or self._found[image_id]

    def picture(self, image_id: str) -> Path:
        """The picture of an id, or where it should be."""
        if image_id in self.annotations:
            return self.found(image_id) or self._expected(image_id)
        return next(iter(self.known.by_id.get(image_id, ())), self.pictures / f"{image_id}.jpg")


def find_folders(path: Path) -> list[VocFolder]:
    """The VOC folders of a path; see `all_folders`."""
    return all_folders(path)[0]


def all_folders(path: Path) -> tuple[list[VocFolder], list[VocFolder]]:
    """The VOC folders of a path: itself or its VOC<year> folders (also in a VOCdevkit), then those below.

    And those beside the first that are none: their xml files lie among others' pictures, or have no picture.
    """
    if not path.is_dir():
        return [], []
    groups = [[path], sorted(path.glob("VOC[0-9]*")), sorted(path.glob("VOCdevkit/VOC[0-9]*"))]
    voc = ([folder for folder in map(VocFolder, group) if folder.is_voc] for group in groups)
    found = next(filter(None, voc), [])
    if not found:
        return _nested(path), []
    below = [folder for folder in _nested(path) if not any(_holds(other, folder) for other in found)]
    others = [folder for folder in below if _has_own_pictures(folder, found)]
    return [*found, *others], [folder for folder in below if folder not in others]


def _holds(folder: VocFolder, other: VocFolder) -> bool:
    """Whether the xml files of the other are read with those of a folder."""
    return other.root == folder.root or folder.labels in (other.root, *other.root.parents)


def _has_own_pictures(folder: VocFolder, others: Sequence[VocFolder]) -> bool:
    above = (folder.root, *folder.root.parents)
    apart = (other.pictures for other in others if other.pictures != other.root)
    return bool(folder.finder.files) and not any(pictures in above for pictures in apart)


def _nested(path: Path) -> list[VocFolder]:
    """Those at any depth, with the split that the folders above them are called like."""
    seen: dict[str, Path] = {}
    beside: dict[Path, bool] = {}
    for entry in visible_entries(path):
        folder = os.path.split(entry.path)[0]
        if suffix_of(entry.name) == ".xml" and folder not in seen and is_annotation(Path(entry)):
            seen[folder] = _root_of(Path(folder), path, beside)
    roots = dict.fromkeys(seen.values())
    found = [VocFolder(root, folder_split(root.relative_to(path).parts)) for root in roots]
    plain = {folder.root for folder in found if folder.labels == folder.root}
    # Of xml beside their pictures the folder above takes those of all folders below.
    return [folder for folder in found if folder.root not in plain or plain.isdisjoint(folder.root.parents)]


def _root_of(labels: Path, top: Path, beside: dict[Path, bool]) -> Path:
    """The folder above Annotations, or the folder of the xml files itself.

    beside: whether the folders called `labels` lie beside pictures, as far as it is known.
    """
    below = [labels, *labels.parents][: len(labels.relative_to(top).parts)]
    for folder in reversed(below):
        if folder.name.lower() in _LABELS:
            return folder.parent
    for folder in reversed(below):
        if folder.name.lower() == _ALSO_LABELS:
            if folder not in beside:
                beside[folder] = _labels_beside_pictures(folder.parent) == folder
            if beside[folder]:
                return folder.parent
    return labels


def _labels_beside_pictures(root: Path) -> Path | None:
    """The folder `labels` if it holds xml files and no pictures, which another folder beside it holds."""
    labels = _subfolder(root, (_ALSO_LABELS,))
    if labels is None or _subfolder(root, (*_PICTURES, _ALSO_PICTURES)) is None:
        return None
    files = list(visible_files(labels, _PATHS))
    is_xml = all(suffix_of(file.name) == ".xml" for file in files)
    return labels if is_xml and any(map(is_annotation, files)) else None


def _text_and_flag(line: str) -> tuple[str, str]:
    """The id, which may hold spaces, and the flag behind it."""
    image_id, _, flag = line.replace("\t", " ").rpartition(" ")
    return image_id.rstrip(), flag


def _texts(folder: Path) -> list[Path]:
    return [file for file in visible_glob(folder, "*") if suffix_of(file.name) == ".txt"]


def _by_name(files: Sequence[Path]) -> dict[str, Path]:
    """The files by stem; of train.TXT and train.txt the first has its whole name."""
    found: dict[str, Path] = {}
    for file in sorted(files, reverse=True):
        found[file.name if file.stem in found else file.stem] = file
    return dict(reversed(found.items()))


def _subfolder(root: Path, names: Sequence[str]) -> Path | None:
    """The folder with the first of these names, in capitals or not."""
    with os.scandir(root) as entries:
        folders = {entry.name.lower(): Path(entry) for entry in entries if may_be_folder(entry)}
    return next((folders[name] for name in names if name in folders), None)

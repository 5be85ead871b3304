"""YOLO text labels: with a data.yaml, or in the layouts that Darknet and annotation tools write."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fssd.data.decode import image_size
from fssd.data.formats.doubles import same_pictures
from fssd.data.formats.labels import LabelledObject, build_record, missing_image, read_lines
from fssd.data.formats.leftovers import first_named, shapes_taken, unlisted
from fssd.data.formats.lookup import (
    UNNAMED,
    PictureFinder,
    choose_splits,
    folder_split,
    is_of_split,
    known_splits,
    path_parts,
)  # fmt: skip
from fssd.data.formats.reader import Reader
from fssd.data.formats.yolo_folders import (
    LabelledPicture,
    holds_labels,
    pairs_of_folder,
    pairs_of_labels,
)
from fssd.data.formats.yolo_lists import called_lists, unused_lists
from fssd.data.formats.yolo_lookup import LabelFinder, text_files
from fssd.data.formats.yolo_names import NameFinder
from fssd.data.formats.yolo_rows import NameList, is_label_file, looks_like_labels, read_row
from fssd.data.formats.yolo_yaml import (
    asked_splits,
    base_folder,
    find_nested_yaml,
    find_yaml,
    nested_yamls,
    read_yaml,
    split_pictures,
    yaml_names,
    yaml_splits,
)  # fmt: skip
from fssd.data.join import join_classes, one_numbering
from fssd.data.sample import DataSet, Problem, Record
from fssd.errors import DataError, ImageError, LabelError

_DIGITS = 4  # of a class number where no file names the classes; more are a fault


@dataclass(frozen=True)
class _Layout:
    """What a data set holds.

    base: what lies below it and is not used is named. named_from: the folder that whole image ids start at.
    others: pairs of the splits that are not read. names: those of a label file. lists: all that say what
    class numbers mean.
    """

    root: Path
    base: Path
    named_from: Path
    finder: PictureFinder
    pairs: Sequence[LabelledPicture]
    others: Sequence[LabelledPicture]
    names: Callable[[Path], NameList]
    lists: Sequence[NameList]
    notes: Sequence[Problem]


def read_yolo(
    root: Path, split: str | None, classes: Sequence[str] | None = None, images: Path | None = None
) -> DataSet:
    """The images of one split with their boxes in pixels; image headers are read for their size.

    An image without a label file has no object. The image id is its path under images/. See `Reader`.
    """
    layout = _of_yaml(root, split, images) if root.is_file() else _of_folder(root, split, images)
    names = tuple(classes) if classes is not None else _all_classes(layout.lists)
    index = {name: label for label, name in enumerate(names)}
    records: list[Record] = []
    problems: list[Problem] = []
    without: list[Path] = []
    taken: Counter[str] = Counter()
    for image_id, pair in zip(_unique_ids(layout), layout.pairs, strict=True):
        record, found = _record(image_id, pair, layout.names, index, taken)
        problems += found
        records += [record] if record is not None else []
        without += [pair.picture] if record is not None and pair.label is None else []
    problems = [*layout.notes, *_backgrounds(layout, without), *problems]
    problems += [*shapes_taken(root, taken), *_unused(layout)]
    problems += same_pictures(records, root)
    numbers = one_numbering([{str(key): name for key, name in one.names.items()} for one in layout.lists])
    facts = {"format": "yolo", "images": len(layout.pairs), "class_numbers": numbers}
    return DataSet(names, tuple(records), tuple(problems), facts)


def _backgrounds(layout: _Layout, without: Sequence[Path]) -> list[Problem]:
    """A note of the pictures without a label file; where a YAML has nothing else, it is told already."""
    if layout.root.is_file() and not any(pair.label for pair in layout.pairs):
        return []
    reason = f"{len(without)} of {len(layout.pairs)} pictures have no label file and are backgrounds"
    return first_named(layout.root, without, reason)


def _all_classes(lists: Sequence[NameList]) -> tuple[str, ...]:
    return join_classes([list(stated.names.values()) for stated in lists], {})


def _of_yaml(file: Path, split: str | None, images: Path | None) -> _Layout:
    content = read_yaml(file)
    names = yaml_names(content, file)
    asked = asked_splits(content, split, file)
    base = base_folder(content, file)
    notes: list[Problem] = []
    if images is not None:
        pairs = _of_given_pictures(content, file, PictureFinder(base, (), images), asked)
    else:
        pairs, notes = _of_stated_pictures(content, file, base, asked)
    chosen = {pair.picture: pair for name in asked for pair in pairs[name]}
    others = [pair for name in pairs if name not in asked for pair in pairs[name]]
    own = tuple(chosen.values())
    elsewhere = [p.label for p in own if p.label and not images and p.label != _usual_label(p.picture)]
    notes += first_named(
        file, elsewhere, f"{len(elsewhere)} label files are used that YOLO itself would not find"
    )
    notes += _without_labels(file, own)
    named_from = images or base
    if base.resolve() in {Path(base.anchor), Path.home()}:  # not all of a disk is looked through
        base = own[0].picture.parent
    finder = PictureFinder(base, (), images)
    return _Layout(file, base, named_from, finder, own, others, lambda _: names, [names], notes)


def _of_stated_pictures(
    content: Mapping[str, Any], file: Path, base: Path, asked: Collection[str]
) -> tuple[dict[str, list[LabelledPicture]], list[Problem]]:
    """The pairs of each split, and notes on those that are asked for. Raises DataError."""
    notes: list[Problem] = []
    pictures: dict[str, list[Path]] = {name: [] for name in yaml_splits(content)}
    for name in pictures:
        try:
            pictures[name], told = split_pictures(content, name, file)
        except DataError:
            if name in asked:
                raise
            continue
        notes += told if name in asked else ()
    every = [path for paths in pictures.values() for path in paths]
    labels = LabelFinder(Path(os.path.normpath(base))).find(every)
    pairs = {
        name: [LabelledPicture(path, labels.get(path), name) for path in paths]
        for name, paths in pictures.items()
    }
    return pairs, notes


def _of_given_pictures(
    content: Mapping[str, Any], file: Path, finder: PictureFinder, asked: Collection[str]
) -> dict[str, list[LabelledPicture]]:
    """The pairs of each split, by the folders of their label files.

    Raises DataError for a split that is asked for and has none.
    """
    found = pairs_of_labels(finder.labels_root, finder)
    pairs: dict[str, list[LabelledPicture]] = {}
    for name in yaml_splits(content):
        paths = content[name] if isinstance(content[name], list) else [content[name]]
        stated = {folder_split(path_parts(str(path))) for path in paths} - {""}
        pairs[name] = _called(found, stated, name)
        if name in asked and not pairs[name]:
            reason = f"no label file lies in a folder called {name}; rename that of the labels of this split"
            raise DataError(reason, file=file, place=name)
    return pairs


def _called(pairs: Sequence[LabelledPicture], stated: Collection[str], name: str) -> list[LabelledPicture]:
    """The pairs in the folders that the split's paths state, else in that of its name, else in one alike."""
    for called in (stated, (name,)):
        if own := [pair for pair in pairs if pair.split in called]:
            return own
    return [pair for pair in pairs if any(is_of_split(pair.split, word) for word in (*stated, name))]


def _without_labels(file: Path, pairs: Sequence[LabelledPicture]) -> list[Problem]:
    if any(pair.label for pair in pairs):
        return []
    reason = f"none of the {len(pairs)} images has a label file, so all are backgrounds; expected is"
    return [Problem("warning", file, "", f"{reason} {_usual_label(pairs[0].picture)}")]


def _of_folder(root: Path, split: str | None, images: Path | None) -> _Layout:
    finder = PictureFinder(root, (), images)
    told: list[Problem] = []
    found = pairs_of_labels(root, finder) if images else pairs_of_folder(root, finder, told)
    if not found:
        reason = "none of its label files has a picture of the same name here"
        raise DataError(f"{reason}; give the folder of the images, `images`", file=root)
    names, lists, notes = _names_of_folder(root)
    yamls = nested_yamls(root)
    notes += told if images is None else unused_lists(root, called_lists(root))
    notes += [*first_named(root, yamls, _not_used(yamls)), *_splits_of_pictures(root, finder, found)]
    chosen = choose_splits(split, _splits_of(found), root)
    pairs = [pair for pair in found if chosen is None or (pair.split or UNNAMED) in chosen]
    others = [pair for pair in found if chosen is not None and (pair.split or UNNAMED) not in chosen]
    pairs, again = _each_once(pairs)
    notes += first_named(root, again, f"{len(again)} pictures are in several of its lists and are used once")
    return _Layout(root, root, finder.root, finder, pairs, others, names, lists, notes)


def _not_used(yamls: Sequence[Path]) -> str:
    return f"{len(yamls)} YAML files of data sets lie here and are not used; give one instead of the folder"


def _splits_of_pictures(root: Path, finder: PictureFinder, pairs: Sequence[LabelledPicture]) -> list[Problem]:
    """A warning if the pictures that the user gave lie in folders of splits, and their labels do not."""
    if finder.images is None or any(pair.split for pair in pairs):
        return []
    below = [pair.picture for pair in pairs if pair.picture.is_relative_to(finder.root)]
    splits = known_splits({folder_split(path.relative_to(finder.root).parts[:-1]) for path in below})
    reason = f"the pictures lie in folders of the splits {', '.join(splits)}, their labels in none of these"
    advice = "all are read as one; lay the labels in folders of the same names"
    return [Problem("warning", root, "", f"{reason}: {advice}")] if len(splits) > 1 else []


def _each_once(pairs: Sequence[LabelledPicture]) -> tuple[list[LabelledPicture], list[Path]]:
    """The pairs without those of another list that names the picture too, and the pictures of these."""
    once: dict[tuple[Path, Path | None], LabelledPicture] = {}
    for pair in pairs:
        once.setdefault((pair.picture, pair.label), pair)
    again = Counter(pair.picture for pair in pairs) - Counter(picture for picture, _ in once)
    return list(once.values()), list(again)


def _names_of_folder(root: Path) -> tuple[Callable[[Path], NameList], list[NameList], list[Problem]]:
    """The names of a label file, all lists of names, and a note if there are none."""
    lists = NameFinder(root)
    if lists.lists:
        return lists.find, list(lists.lists.values()), lists.notes
    files = [file for file in text_files(root) if is_label_file(file)]
    words = {line.split()[0] for file in files for line in read_lines(file) if line.strip()}
    count = 1 + max(map(_class_number, words), default=0)
    numbers = NameList(root, {number: str(number) for number in range(count)})
    reason = f"no file names the classes (classes.txt, obj.names): the {count} classes are called 0, 1, ..."
    return lambda _: numbers, [numbers], [Problem("warning", root, "classes", reason)]


def _class_number(word: str) -> int:
    """Also of `2.000000`, as NumPy writes it; 0 of what is none, which is told where it is read."""
    with suppress(ValueError, OverflowError):
        number = float(word)
        return int(number) if number.is_integer() and 0 <= number < 10**_DIGITS else 0
    return 0


def _splits_of(pairs: Iterable[LabelledPicture]) -> tuple[str, ...]:
    return known_splits({pair.split for pair in pairs})


def _unused(layout: _Layout) -> list[Problem]:
    every = (*layout.pairs, *layout.others)
    used = {os.path.normpath(pair.label) for pair in every if pair.label}
    folders = {os.path.split(path)[0] for path in used}
    left = [
        file
        for file in text_files(layout.base)
        if os.path.normpath(file) not in used and _is_left_out(file, folders)
    ]
    listed = [pair.picture for pair in every]
    apart = _labelled_apart(layout, listed, left)
    taken = set(apart.values())
    left = [file for file in left if os.path.normpath(file) not in taken]
    counts = Counter(pair.label for pair in layout.pairs if pair.label)
    shared = [label for label, count in counts.items() if count > 1]
    reason = f"{len(apart)} pictures have labels but are in no split or list, and are left out"
    return [
        *unlisted(layout.root, [layout.finder], [*listed, *apart]),
        *first_named(layout.root, list(apart), reason),
        *first_named(layout.root, left, f"{len(left)} label files belong to no image and are left out"),
        *first_named(layout.root, shared, f"{len(shared)} label files are of several pictures at once"),
    ]


def _is_left_out(file: Path, folders: Collection[str]) -> bool:
    """Whether a text that is not used is one of labels; among others also one that is empty or faulty."""
    found = is_label_file(file)
    is_among = os.path.normpath(file.parent) in folders
    return bool(found) or (is_among and (found is None or looks_like_labels(file)))


def _labelled_apart(layout: _Layout, listed: Sequence[Path], left: Sequence[Path]) -> dict[Path, str]:
    """The pictures that no split or list names, with their files among those that are left."""
    if layout.finder.images is not None or not left:
        return {}
    known = {os.path.normpath(path) for path in listed}
    pictures = [path for path in layout.finder.files if os.path.normpath(path) not in known]
    found = LabelFinder(Path(os.path.normpath(layout.base))).find(pictures)
    files = {os.path.normpath(file) for file in left}
    labels = {picture: os.path.normpath(label) for picture, label in found.items()}
    return {picture: label for picture, label in labels.items() if label in files}


def _images_folder(image: Path) -> Path | None:
    """The last folder called `images` above an image."""
    return next((folder for folder in image.parents if folder.name == "images"), None)


def _usual_label(image: Path) -> Path:
    """The path with its last folder `images` changed to `labels`; beside the image if there is none."""
    folder = _images_folder(image)
    moved = image if folder is None else folder.with_name("labels") / image.relative_to(folder)
    return moved.with_suffix(".txt")


def _unique_ids(layout: _Layout) -> list[str]:
    """Of a data.yaml the path below the last `images` folder, or that below the data set where two images
    would share it; else the path below the folder. None says where the data set lies."""
    images = [pair.picture for pair in layout.pairs]
    if layout.root.is_dir():
        return [_relative(image, layout.named_from) for image in images]
    ids = [image.relative_to(_images_folder(image) or image.parent).as_posix() for image in images]
    below = partial(_below, folder=layout.named_from)
    for longer in (below, below, Path.as_posix):  # a longer one may be the short one of another image
        counts = Counter(ids)
        ids = [name if counts[name] == 1 else longer(path) for name, path in zip(ids, images, strict=True)]
    return ids


def _below(path: Path, folder: Path) -> str:
    """The path below a folder as it is spelled, so that a file that is listed in two ways has two names."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else _relative(path, folder)


def _relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path, folder).replace(os.sep, "/")


def _record(
    image_id: str,
    pair: LabelledPicture,
    names: Callable[[Path], NameList],
    index: Mapping[str, int],
    taken: Counter[str],
) -> tuple[Record | None, list[Problem]]:
    path, source = pair.picture, pair.label or _usual_label(pair.picture)
    try:
        size = image_size(path)
        lines = read_lines(source) if pair.label else []
    except ImageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None, [missing_image(path)]
        return None, [Problem("error", path, error.place, error.reason)]
    except DataError as error:
        return None, [Problem("error", source, "", error.reason)]
    objects: list[LabelledObject] = []
    problems: list[Problem] = []
    known = names(source) if lines else None
    for number, line in enumerate(lines, 1):
        try:
            if line.strip() and known:
                item, kind = read_row(line, f"line {number}", size, known)
                objects.append(item)
                taken.update([kind] if kind else [])
        except LabelError as error:
            problems.append(Problem("error", source, error.place, error.reason))
    record, found = build_record(image_id, path, source, size, objects=objects, index=index)
    return (None if problems else record), problems + found


def _recognise(path: Path) -> Path | None:
    file = find_yaml(path)
    if file is not None or not path.is_dir():
        return file
    return find_nested_yaml(path) or (path if holds_labels(path) else None)


def _splits(root: Path) -> tuple[str, ...]:
    if root.is_file():
        return yaml_splits(read_yaml(root))
    pairs = pairs_of_folder(root, PictureFinder(root))
    return _splits_of(pairs or pairs_of_labels(root, PictureFinder(root)))


def _classes(root: Path) -> tuple[str, ...]:
    if root.is_file():
        return tuple(yaml_names(read_yaml(root), root).names.values())
    return _all_classes(_names_of_folder(root)[1])


YOLO = Reader(
    name="yolo",
    looked_for="data.yaml, or txt labels of pictures (YOLO, Darknet)",
    recognise=_recognise,
    splits=_splits,
    classes=_classes,
    read=read_yolo,
)

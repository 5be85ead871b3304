"""YOLO's data.yaml: class names, and the pictures of each split as folders or lists."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from fssd.config.yaml_files import load_yaml
from fssd.data.decode import IMAGE_EXTENSIONS
from fssd.data.formats.labels import read_lines
from fssd.data.formats.leftovers import first_named
from fssd.data.formats.lookup import path_parts, suffix_of, visible_files, visible_glob
from fssd.data.formats.yolo_lookup import text_files
from fssd.data.formats.yolo_rows import NameList, is_label_file
from fssd.data.sample import Problem
from fssd.errors import DataError, nearest

SPLITS = ("train", "val", "test")
_ALSO = ("train", "val", "valid", "validation", "test")
_SUFFIXES = frozenset({".yaml", ".yml"})
_DEPTH = 4  # folders below the yaml in which the folder of another machine is looked for
_MOST_CLASSES = 10_000
_KEY = re.compile(rb"^(names|nc|train|val|test|sources)\s*:", re.MULTILINE)


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises DataError if the file is missing, broken or no mapping."""
    try:
        content = load_yaml(file.read_bytes())
    except FileNotFoundError as error:
        raise DataError("the file is missing", file=file) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}" if mark else ""
        raise DataError(f"is not valid YAML ({error.problem})", file=file, place=place) from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"cannot be read as YAML ({error})", file=file) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise DataError("must hold `key: value` lines", file=file)
    return content


def find_yaml(path: Path) -> Path | None:
    """The path itself if it is a YAML file, or that of a folder: data.yaml, else the one of data.

    Raises DataError if several describe data sets.
    """
    if path.is_file():
        return path if suffix_of(path.name) in _SUFFIXES else None
    found = visible_glob(path, "*.[yY]*[mM][lL]")
    files = [file for file in found if suffix_of(file.name) in _SUFFIXES and file.is_file()]
    called = sorted(filter(_is_called_data, files), key=_rank)
    others = [] if called else list(filter(_describes_data, files))
    whole = _whole_data(others)
    if len(whole) > 1:
        raise _several(whole, path)
    return next(iter(called or whole or filter(_may_be_data, others)), None)


def _several(files: Sequence[Path], root: Path) -> DataError:
    reason = f"holds several data sets, {files[0]} and {files[1]}; give one of them"
    return DataError(reason, file=root)


def _whole_data(files: Sequence[Path]) -> list[Path]:
    """The files with pictures and classes, or sources, each content once; others are of models or runs."""
    found: list[tuple[dict[str, Any], Path]] = []
    for file in files:
        with suppress(DataError):
            content = read_yaml(file)
            stated = any(isinstance(content.get(key), str | list) for key in _ALSO)
            is_whole = "sources" in content or (stated and ("names" in content or "nc" in content))
            if is_whole and all(content != other for other, _ in found):
                found.append((content, file))
    return [file for _, file in found]


def _may_be_data(file: Path) -> bool:
    """Whether a file names pictures, or cannot be read: it is told what is wrong with it.

    One of names alone is of a model, one whose `train` are settings of a training.
    """
    try:
        content = read_yaml(file)
    except DataError:
        return True
    return any(isinstance(content.get(key), str | list) for key in _ALSO)


def _is_called_data(file: Path) -> bool:
    return file.stem.lower() == "data"


def _rank(file: Path) -> int:
    """Of the names for data.yaml, which some people write in capitals."""
    return {"data.yaml": 0, "data.yml": 1}.get(file.name, 2)


def _describes_data(file: Path) -> bool:
    """Has a key of a data set at its top, unlike environment.yml and other files of a project."""
    return bool(_KEY.search(file.read_bytes()))


def find_nested_yaml(root: Path) -> Path | None:
    """The data.yaml of a data set somewhere below a folder. Raises DataError if there are several.

    Those below the folder of another are parts of that data set. Without any it is the only other YAML of
    a data set that is there, if no labels lie elsewhere.
    """
    every = list(visible_files(root, _SUFFIXES))
    called = sorted(filter(_is_called_data, every), key=_rank)
    files = {file.parent: file for file in reversed(called) if _describes_data(file)}
    if not files:
        others = _of_present_data(every)
        return others[0] if len(others) == 1 and not has_labels_outside(root, others[0]) else None
    highest = sorted(files.values(), key=lambda file: (len(file.parts), file))
    apart = [file for file in highest if highest[0].parent not in file.parents]
    if apart:
        raise _several([highest[0], *apart], root)
    return highest[0] if highest else None


def nested_yamls(root: Path) -> list[Path]:
    """The YAMLs below a folder, whatever they are called, of data sets whose pictures are there."""
    return _of_present_data(visible_files(root, _SUFFIXES))


def _of_present_data(files: Iterable[Path]) -> list[Path]:
    return list(filter(_is_there, _whole_data(list(filter(_describes_data, files)))))


def _is_there(file: Path) -> bool:
    content = read_yaml(file)
    return "sources" not in content and any(_is(place.exists) for place in _places(content, file))


def _places(content: Mapping[str, Any], file: Path) -> list[Path]:
    """The folders and lists that a YAML names."""
    bases = [base_folder(content, file), file.parent]
    stated = [content[name] for name in yaml_splits(content)]
    entries = [entry for value in stated for entry in (value if isinstance(value, list) else [value])]
    return [_find(str(entry), bases)[0] for entry in entries]


def has_labels_outside(root: Path, file: Path) -> bool:
    """Whether labels lie below a folder that are of no picture which its YAML names. Raises DataError."""
    content = read_yaml(file)
    base, top = _real(base_folder(content, file)), _real(root)
    if base in (top, *top.parents):
        return False
    own = {base}
    for path in map(_real, _places(content, file)):
        above = next((folder for folder in (path, *path.parents) if folder.name == "images"), None)
        own |= {path} if above is None else {path, above.with_name("labels") / path.relative_to(above)}
    is_own: dict[Path, bool] = {}
    for text in text_files(root):
        folder = text.parent
        if folder not in is_own:
            real = _real(folder)
            is_own[folder] = not own.isdisjoint((real, *real.parents))
        if not is_own[folder] and is_label_file(text):
            return True
    return False


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def yaml_splits(content: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(split for split in _ALSO if content.get(split))


def asked_splits(content: Mapping[str, Any], split: str | None, file: Path) -> tuple[str, ...]:
    """The splits of the file that are meant. Raises DataError."""
    splits = yaml_splits(content)
    asked = splits if split is None else tuple(part.strip() for part in split.split("+"))
    if not asked:
        raise DataError("gives none of train, val and test", file=file)
    for part in asked:
        if part not in splits:
            known = nearest(part, splits) if splits else "; it gives none of train, val and test"
            raise DataError(f"there is no split {part!r}{known}", file=file)
    return asked


def yaml_names(content: Mapping[str, Any], file: Path) -> NameList:
    """The class names in the order of their numbers. Raises DataError."""
    names, count = content.get("names"), content.get("nc")
    if names is None and isinstance(count, int) and 0 < count <= _MOST_CLASSES:
        return NameList(file, {number: str(number) for number in range(count)}, _keypoints(content))
    pairs = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(pairs, dict) or not pairs:
        raise DataError("needs `names`, the class names, or `nc`, their number", file=file, place="names")
    if not all(isinstance(key, int) and key >= 0 for key in pairs):
        raise DataError("class numbers must be whole numbers from 0", file=file, place="names")
    for name in pairs.values():  # YAML reads no, off and yes as booleans
        if isinstance(name, bool) or not isinstance(name, (str, int, float)):
            raise DataError(f"{name!r} is no class name; put names in quotes", file=file, place="names")
    known = {key: str(pairs[key]).strip() for key in sorted(pairs)}
    if len(set(known.values())) < len(known):
        raise DataError("two classes have the same name", file=file, place="names")
    if count is not None and count != len(known):
        raise DataError(f"nc is {count} but there are {len(known)} names", file=file, place="nc")
    return NameList(file, known, _keypoints(content))


def _keypoints(content: Mapping[str, Any]) -> int:
    """How many numbers stand behind each box: `kpt_shape: [17, 3]` are 17 points of three."""
    shape = content.get("kpt_shape")
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(side) is int for side in shape)):
        return 0
    points: int = shape[0] * shape[1]
    return points


def split_pictures(content: Mapping[str, Any], split: str, file: Path) -> tuple[list[Path], list[Problem]]:
    """The pictures of a split, and notes of paths that are of another machine. Raises DataError."""
    value = content[split]
    pictures: list[Path] = []
    base = base_folder(content, file)
    stated = content.get("path")
    notes: list[Problem] = []
    if stated and base not in (file.parent, file.parent / str(stated)):
        notes.append(Problem("warning", file, "path", f"{stated} is not there; {base} is used"))
    for entry in value if isinstance(value, list) else [value]:
        place, is_moved = _find(str(entry), [base, file.parent])
        if is_moved:
            reason = f"{entry} is not there; {place} is used"
            notes.append(Problem("warning", file, split, reason))
        if _is(place.is_dir):
            pictures += sorted(visible_files(place, IMAGE_EXTENSIONS))
        elif place.suffix == ".txt" and _is(place.is_file):
            listed, found = _listed(place, base)
            pictures += listed
            notes += found
        else:
            reason = (
                f"{place} is neither a folder of images nor a .txt list of them; correct or remove the line"
            )
            raise DataError(reason, file=file, place=split)
    if not pictures:
        raise DataError(f"split {split!r} holds no image", file=file)
    once = list(dict.fromkeys(pictures))
    if len(once) < len(pictures):
        reason = f"{len(pictures) - len(once)} of its images are listed more than once; each is used once"
        notes.append(Problem("warning", file, split, reason))
    return once, notes


def base_folder(content: Mapping[str, Any], file: Path) -> Path:
    """The folder that the paths are relative to; for one of another machine its namesake below the file."""
    stated = str(content.get("path") or ".")
    base = file.parent / stated
    if _is(base.is_dir):
        return base
    name = (path_parts(stated) or [".."])[-1]
    if name in {"/", ".."}:  # no folder is called so
        return file.parent
    patterns = ("*/" * depth + glob.escape(name) for depth in range(_DEPTH))
    try:
        found = [folder for pattern in patterns for folder in file.parent.glob(pattern)]
    except OSError:  # a name that is too long
        return file.parent
    return next(filter(Path.is_dir, sorted(found, key=lambda folder: len(folder.parts))), file.parent)


def _find(stated: str, bases: Sequence[Path]) -> tuple[Path, bool]:
    """The path below the first base; else its longest end that is there. And whether it is another."""
    forms = _forms(stated)
    for path in (bases[0] / form for form in forms):
        if _is(path.exists):
            return path, False
    every = [path_parts(form) for form in forms]
    starts = [start for start, part in enumerate(every[0]) if part not in {"/", ".."}]
    ends = ["/".join(parts[start:]) for start in starts for parts in every]
    found = (base / end for end in ends for base in bases if _is((base / end).exists))
    place = next(found, None)
    return (bases[0] / stated, False) if place is None else (place, True)


def _forms(name: str) -> tuple[str, ...]:
    """The name as it is, then in the forms of Unicode that label files and archives of macOS have."""
    if name.isascii():
        return (name,)
    composed, decomposed = unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)
    return tuple(dict.fromkeys((name, composed, decomposed)))


def _is(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError:  # a name that is too long
        return False


def _listed(listing: Path, base: Path) -> tuple[list[Path], list[Problem]]:
    """The images of the lines: relative to the list if they start with ./, else to `base`; both are tried."""
    pictures: list[Path] = []
    moved: list[Path] = []
    for line in filter(None, map(str.strip, read_lines(listing))):
        bases = [listing.parent, base] if line.startswith("./") else [base, listing.parent]
        path, is_moved = _find(line, bases)
        pictures.append(path)
        if is_moved and path not in (bases[1] / line,):
            moved.append(path)
    reason = f"{len(moved)} of its pictures were found elsewhere than stated"
    return pictures, first_named(listing, moved, reason)

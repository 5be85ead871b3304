"""YOLO data sets without a data.yaml: Darknet's lists, or what folders and file names tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fssd.data.decode import IMAGE_EXTENSIONS
from fssd.data.formats.labels import read_lines
from fssd.data.formats.lookup import (
    PictureFinder,
    common_end,
    file_split,
    folder_split,
    nearness,
    path_parts,
    suffix_of,
    visible_entries,
    visible_files,
    without_hash,
)  # fmt: skip
from fssd.data.formats.yolo_lookup import LabelFinder, is_name_list
from fssd.data.formats.yolo_rows import is_label_file

_LISTS = re.compile(r"(autosplit_)?(train|val|valid|validation|test)\.txt")


@dataclass(frozen=True)
class LabelledPicture:
    """A picture and its label file, None for a background; and its split, "" if none is stated."""

    picture: Path
    label: Path | None
    split: str = ""


def text_files(root: Path) -> Iterator[Path]:
    """The .txt below a folder that may be label files, and are no lists of class names."""
    return (file for file in visible_files(root, {".txt"}) if not is_name_list(file))


def holds_labels(root: Path) -> bool:
    return any(map(is_label_file, text_files(root)))


def pairs_of_folder(root: Path, finder: PictureFinder) -> list[LabelledPicture]:
    """The pictures that lists name, else those of all folders in which any has labels."""
    listed = [(picture, split) for split, file in _lists(root) for picture in _listed(file, finder)]
    if listed:
        labels = LabelFinder(root).find([picture for picture, _ in listed])
        return [
            LabelledPicture(picture, labels.get(picture), split) for picture, split in dict.fromkeys(listed)
        ]
    labels = LabelFinder(root).find(finder.files)
    found = [LabelledPicture(path, labels.get(path), _split(path, root)) for path in finder.files]
    labelled = {pair.picture.parent for pair in found if pair.label is not None}
    return [pair for pair in found if pair.picture.parent in labelled]


def pairs_of_labels(root: Path, finder: PictureFinder) -> list[LabelledPicture]:
    """The label files of a folder, with their pictures in another; one that is missing is where it may be."""
    pairs = []
    for file in text_files(root):
        if is_label_file(file) is not False:
            split = _split(file, root)
            parts = [
                part for part in file.relative_to(root).with_suffix("").parts if part.lower() != "labels"
            ]
            pairs.append(LabelledPicture(_picture_of(parts, file, split, finder), file, split))
    return pairs


def _picture_of(parts: Sequence[str], file: Path, split: str, finder: PictureFinder) -> Path:
    stem = "/".join(parts)
    paths, _ = finder.find((stem, without_hash(stem)), file, split)
    return paths[0] if len(paths) == 1 else finder.root / f"{stem}.jpg"


def _split(file: Path, root: Path) -> str:
    """Of its folders; Darknet calls them obj_train_data."""
    parts = file.relative_to(root).parts[:-1]
    return folder_split([re.sub(r"^obj_(.+)_data$", r"\1", part.lower()) for part in parts])


def _lists(root: Path) -> list[tuple[str, Path]]:
    """The lists of pictures with their splits: those of each obj.data, else those called like splits."""
    stated = [(file, *row) for file in _ending(root, ".data") for row in _stated_lists(file)]
    names = {parts[-1] for _, _, parts in stated}
    own = [file for file in text_files(root) if _is_called_list(file) or file.name in names]
    lists = [file for file in own if _is_list(file)]
    found = ((data, key, _nearest(parts, data, lists)) for data, key, parts in stated)
    named = [(data, key, file) for data, key, file in found if file is not None]
    told = {folder for data, _, file in named for folder in (data.parent, file.parent)}
    others = [file for file in lists if _is_called_list(file) and told.isdisjoint(file.parents)]
    return [(key, file) for _, key, file in named] + [(file_split(file.name), file) for file in others]


def _ending(root: Path, suffix: str) -> list[Path]:
    return [Path(entry) for entry in visible_entries(root) if suffix_of(entry.name) == suffix]


def _stated_lists(file: Path) -> list[tuple[str, list[str]]]:
    """The splits of an obj.data and the parts of their paths, which Darknet takes from where it runs."""
    rows = [line.partition("=") for line in read_lines(file)]
    pairs = [(key.strip(), path_parts(value.strip())) for key, _, value in rows]
    return [(key, parts) for key, parts in pairs if parts and folder_split([key])]


def _nearest(parts: Sequence[str], source: Path, files: Sequence[Path]) -> Path | None:
    """The list of that name nearest to its obj.data, and of those the one in most of the stated folders."""
    alike = [file for file in files if file.name == parts[-1]]
    return max(alike, key=lambda file: (nearness(file, source), common_end(file, parts)), default=None)


def _is_called_list(file: Path) -> bool:
    return bool(_LISTS.fullmatch(file.name.lower()))


def _is_list(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8-sig") as stream:
            line = next((line for line in stream if line.strip()), "")
    except (OSError, UnicodeDecodeError):
        return False
    return suffix_of(line.strip()) in IMAGE_EXTENSIONS


def _listed(file: Path, finder: PictureFinder) -> Iterator[Path]:
    for line in filter(None, map(str.strip, read_lines(file))):
        paths, _ = finder.find((line,), file, "")
        yield paths[0] if len(paths) == 1 else file.parent / "/".join(path_parts(line))

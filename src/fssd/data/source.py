"""One way in: a path, whatever the format, becomes a DataSet.

A path is a VOC folder or VOCdevkit, a COCO folder or json file, a YOLO folder or its data.yaml, or a YAML
that joins several of these, selects and orders classes, and renames them. Its paths are relative to the YAML,
or else to the working directory; "voc0712" is the name of a packaged one:

    classes: [dog, cat, person]
    map: {puppy: dog, kitten: cat}
    sources:
      - {data: VOCdevkit, split: {train: 2007_trainval+2012_trainval, val: 2007_test}}
      - {data: coco}
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fssd.config import packaged
from fssd.data.decode import IMAGE_EXTENSIONS
from fssd.data.formats import coco, voc, yolo
from fssd.data.join import join_classes, join_sets, match_classes
from fssd.data.sample import DataSet, Problem
from fssd.errors import ConfigError, DataError, ImageError, LabelError, nearest

Format = Literal["voc", "coco", "coco-json", "yolo", "joined"]


@dataclass(frozen=True)
class _Part:
    """One entry of `sources`; splits is None where the split asked for is passed on as it is."""

    path: Path
    splits: dict[str, str | None] | None


@dataclass(frozen=True)
class _Joined:
    """The content of a YAML that joins sources."""

    file: Path
    classes: tuple[str, ...] | None
    renames: dict[str, str]
    parts: tuple[_Part, ...]


def open_data(path: Path | str, split: str | None = None, classes: Sequence[str] | None = None) -> DataSet:
    """Records and problems of one split of any known source; images are not decoded.

    split: as the source names it, `+` joins several, None takes every image there is.
    classes: names in order, such as those of a trained model: labels are matched by name, and an image with
    an object of another class is an error. By default the source's own names.
    Raises DataError when the source, the split or a class name is not there or the split is empty, and
    ConfigError for an unknown key in a YAML. Faults of single images are in `problems`: see require_usable.
    """
    path = Path(path)
    kind, place = recognise(path)
    if kind == "joined":
        data = _open_joined(_read_joined(place), split)
        return data if classes is None else match_classes(data, classes)
    if kind == "voc":
        return voc.read_voc(place, split, classes)
    if kind == "yolo":
        return yolo.read_yolo(place, split, classes)
    return _open_coco(_coco_files(place, split), classes)


def list_splits(path: Path | str) -> tuple[str, ...]:
    """The splits of a source, e.g. ("train", "val"); empty for a VOC folder without image sets."""
    kind, place = recognise(Path(path))
    if kind == "voc":
        return voc.voc_splits(voc.voc_folders(place))
    if kind == "coco":
        return tuple(coco.coco_files(place))
    if kind == "coco-json":
        return (coco.split_name(place),)
    if kind == "yolo":
        return yolo.yolo_splits(yolo.read_yaml(place))
    parts = _read_joined(place).parts
    named = [tuple(part.splits) for part in parts if part.splits is not None]
    # Names that the YAML gives stand for all sources; a source's own would list the same images again.
    groups = named or [list_splits(part.path) for part in parts]
    return tuple(dict.fromkeys(name for group in groups for name in group))


def recognise(path: Path) -> tuple[Format, Path]:
    """The format of a path, and the file or folder to read it from. Raises DataError."""
    if path.is_file():
        return _recognise_file(path)
    if not path.is_dir():
        if file := packaged("data").get(str(path)):
            return _recognise_file(file)
        raise DataError("there is no such file or folder", file=path)
    if voc.find_voc(path):
        return "voc", path
    if coco.coco_files(path):
        return "coco", path
    for file in [path / "data.yaml", path / "data.yml", *sorted(path.glob("*.y*ml"))]:
        if file.is_file():
            return _recognise_file(file)
    reason = (
        "holds no known data set: looked for Annotations and JPEGImages (VOC), VOC2007 or VOC2012 in it "
        "(VOCdevkit), annotations/*.json (COCO) and data.yaml (YOLO)"
    )
    raise DataError(reason, file=path)


def require_usable(data: DataSet, bad_share: float = 0.0) -> None:
    """Raise the first error of a data set when more than `bad_share` (0 to 1) of its images have one.

    Raises ImageError, LabelError or DataError with file, place and reason; DataError when nothing is left.
    """
    errors = [problem for problem in data.problems if problem.severity == "error"]
    total = int(data.facts.get("images", len(data) + len(errors)))
    bad = total - len(data)
    if errors and (not data.records or bad > bad_share * total):
        share = f" ({bad} of {total} images have errors, {bad_share:.1%} are allowed)"
        raise problem_error(errors[0], share)
    if not data.records:
        raise DataError("the data set holds no image")


def print_left_out(data: DataSet) -> None:
    """Name on stderr every image that is left out because of an error."""
    for problem in data.problems:
        if problem.severity == "error":
            print(f"left out: {problem_error(problem)}", file=sys.stderr)


def problem_error(problem: Problem, note: str = "") -> DataError:
    """The typed error of a problem: ImageError for an image, LabelError for a place in a label file."""
    kind: type[DataError] = DataError
    if problem.file.suffix.lower() in IMAGE_EXTENSIONS:
        kind = ImageError
    elif problem.place or problem.file.suffix.lower() in {".xml", ".txt"}:
        kind = LabelError
    return kind(problem.reason + note, file=problem.file, place=problem.place)


def _recognise_file(path: Path) -> tuple[Format, Path]:
    if path.suffix == ".json":
        return "coco-json", path
    if path.suffix not in {".yaml", ".yml"}:
        raise DataError("is no data set: give a folder, a COCO .json or a .yaml", file=path)
    content = yolo.read_yaml(path)
    return ("joined" if "sources" in content else "yolo"), path


def _coco_files(place: Path, split: str | None) -> list[Path]:
    files = {coco.split_name(place): place} if place.is_file() else coco.coco_files(place)
    if split is None:
        return list(files.values())
    names = [coco.match_split(part.strip(), list(files), place) for part in split.split("+")]
    return [files[name] for name in dict.fromkeys(names)]


def _open_coco(files: Sequence[Path], classes: Sequence[str] | None) -> DataSet:
    parts = [coco.read_coco(file, None, classes) for file in files]
    if len(parts) == 1:
        return parts[0]
    joined = join_sets(parts, join_classes([part.classes for part in parts], {}), {})
    if len({(part.classes, part.facts["category_ids"]) for part in parts}) == 1:
        joined.facts["category_ids"] = parts[0].facts["category_ids"]
    return joined


def _read_joined(file: Path) -> _Joined:
    content = yolo.read_yaml(file)
    _refuse_unknown(content, ("classes", "map", "sources"), file, "")
    classes, renames, sources = (content.get(key) for key in ("classes", "map", "sources"))
    if classes is not None and not (_all_text(classes, list) and len(set(classes)) == len(classes) > 0):
        raise DataError("must be a list of class names, each once", file=file, place="classes")
    if renames is not None and not (_all_text(renames, dict) and _all_text(list(renames.values()), list)):
        raise DataError("must give a new class name for each old one", file=file, place="map")
    if not isinstance(sources, list) or not sources:
        raise DataError("must be a list of `data:` entries", file=file, place="sources")
    parts = tuple(_read_part(entry, f"sources[{number}]", file) for number, entry in enumerate(sources))
    return _Joined(file, None if classes is None else tuple(classes), dict(renames or {}), parts)


def _read_part(entry: Any, place: str, file: Path) -> _Part:
    if not isinstance(entry, dict) or not isinstance(entry.get("data"), str):
        raise DataError("needs `data:`, the path of a data set", file=file, place=place)
    _refuse_unknown(entry, ("data", "split"), file, place)
    paths = [folder / entry["data"] for folder in (file.parent, Path())]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        reason = f"there is no {entry['data']}, neither beside this file nor in the working directory"
        raise DataError(reason, file=file, place=place)
    if recognise(path)[0] == "joined":
        raise DataError(f"{path} joins sources itself; list those here instead", file=file, place=place)
    splits = entry.get("split")
    if splits is None:
        return _Part(path, None)
    if not isinstance(splits, dict) or not all(
        value is None or isinstance(value, str) for value in splits.values()
    ):
        reason = "must map each split to one of the source, such as {train: trainval, val: test}"
        raise DataError(reason, file=file, place=f"{place}.split")
    return _Part(path, {str(name): value for name, value in splits.items()})


def _open_joined(joined: _Joined, split: str | None) -> DataSet:
    groups: list[tuple[str, ...]] = []
    sets: list[DataSet] = []
    for part in joined.parts:
        asked = _asked(part, split)
        opened = [open_data(part.path, name) for name in asked]
        sets += opened
        # The classes of a source that has no part in this split count too: they are the same in all splits.
        groups += [data.classes for data in opened] or [_classes(part.path)]
    known = join_classes(groups, {})
    for name in joined.renames:
        _require_class(name, known, joined.file, "map")
    renamed = join_classes(groups, joined.renames)
    for name in joined.classes or ():
        _require_class(name, renamed, joined.file, "classes")
    if not sets:
        splits = nearest(split or "", list_splits(joined.file))
        raise DataError(f"no source has a split {split!r}{splits}", file=joined.file, place="sources")
    return join_sets(sets, joined.classes or renamed, joined.renames)


def _asked(part: _Part, split: str | None) -> tuple[str | None, ...]:
    """The one split to ask of a part, in its own names; none where it has nothing for this split."""
    if part.splits is None:
        return (split,)
    names = list(part.splits) if split is None else [name.strip() for name in split.split("+")]
    own = [part.splits[name] for name in names if name in part.splits]
    texts = [name for name in own if name is not None]
    if not own:
        return ()
    return (None,) if len(texts) < len(own) else ("+".join(dict.fromkeys(texts)),)


def _classes(path: Path) -> tuple[str, ...]:
    kind, place = recognise(path)
    if kind == "voc":
        return voc.voc_classes(voc.voc_folders(place))
    if kind == "yolo":
        return yolo.yolo_classes(place)
    return join_classes([coco.coco_classes(file) for file in _coco_files(place, None)], {})


def _require_class(name: str, known: Sequence[str], file: Path, place: str) -> None:
    if name not in known:
        raise DataError(f"no source has a class {name!r}{nearest(name, known)}", file=file, place=place)


def _refuse_unknown(entry: Mapping[Any, Any], known: Sequence[str], file: Path, place: str) -> None:
    for key in entry:
        if key not in known:
            where = f"{file} ({place})" if place else str(file)
            raise ConfigError(f"{where}: unknown key {key!r}{nearest(str(key), known)}")


def _all_text(value: Any, kind: type[Any]) -> bool:
    return isinstance(value, kind) and all(isinstance(item, str) and item for item in value)

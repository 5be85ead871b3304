"""A data set of any known format becomes one of another: `fssd convert`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fssd.data.decode import ImageHeader
from fssd.data.headers import with_headers
from fssd.data.join import category_ids, join_classes, left_out_of_splits, match_classes, open_splits
from fssd.data.progress import Track, as_given
from fssd.data.sample import DataSet
from fssd.data.source import find_reader, list_splits, open_data, problem_error
from fssd.data.writers import WRITERS
from fssd.data.writers.dropped import dropped
from fssd.data.writers.new_folder import new_folder, place_picture, require_new
from fssd.data.writers.picture_names import PictureNames
from fssd.data.writers.writer import Writer, WrittenImage, WrittenSet
from fssd.errors import ConfigError, nearest

_SHOWN = 5  # warnings
_UNWRITABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]"
)  # XML and lists of names have no place for


@dataclass(frozen=True)
class Conversion:
    """What was written. notes: what was left out or changed on the way, a line each."""

    content: WrittenSet
    notes: tuple[str, ...]


def find_writer(name: str) -> Writer:
    """The format of a name. Raises ConfigError."""
    if name not in WRITERS:
        raise ConfigError(f"there is no format {name!r} to write{nearest(name, WRITERS)}")
    return WRITERS[name]


def convert_data(
    path: Path | str,
    to: str,
    out: Path | str,
    *,
    splits: Sequence[str] = (),
    images: Path | str | None = None,
    link: bool = False,
    upright: bool = False,
    bad_share: float = 0.0,
    track: Track = as_given,
) -> Conversion:
    """Write the images and labels of a data set as another format has them; no pixel is decoded.

    to: a name in `WRITERS`. out: a folder that does not exist or is empty. splits: by default all, without
    trainval beside train and val where splits are folders; ("none",) takes every image without a split.
    images: a folder to look for the pictures in, instead of beside the labels.
    link: link pictures instead of copying them. upright: see `place_picture`.
    bad_share: the share of each split's images (0..1) that may have errors and are left out, printed by name.
    Raises ConfigError, DataError; then nothing is written.
    """
    path, out, writer = Path(path), Path(out), find_writer(to)
    require_new(out)
    _, root = find_reader(path)
    if root.is_dir() and out.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"{out}: lies inside the data set {path}; choose an --out outside")
    sets, notes = _open(path, writer, splits, partial(open_data, path, images=images))
    measured = [with_headers(data, track(data.records, "reading"), bad_share) for data in sets.values()]
    headers = {record.path: header for pairs in measured for record, header in pairs}
    if link and any(record.stored is not None for pairs in measured for record, _ in pairs):
        raise ConfigError(f"{path}: holds its pictures in shards, which cannot be linked; leave out --link")
    notes += [*_warnings(path, sets.values()), *exif_notes(headers, upright)]
    names = PictureNames(writer, root if root.is_dir() else None).name(
        {split: [record for record, _ in pairs] for split, pairs in zip(sets, measured, strict=True)}
    )
    written = {
        split: tuple(
            WrittenImage(record, file, (header.width, header.height))
            for (record, header), file in zip(pairs, names[split], strict=True)
        )
        for split, pairs in zip(sets, measured, strict=True)
    }
    classes = next(iter(sets.values())).classes
    content = WrittenSet(_writable(classes), written, _category_ids(classes, sets.values()))
    write_set(content, writer, out, link=link, upright=upright, track=track)
    return Conversion(content, (*notes, *dropped(content, writer)))


def write_set(
    content: WrittenSet, writer: Writer, out: Path, *, link: bool, upright: bool, track: Track
) -> None:
    """Write pictures and labels into a new folder, whole or not at all. Raises ConfigError, ImageError."""
    with new_folder(out) as root:
        for image in track(list(content.images), "writing"):
            if not (root / image.file).exists():  # of another split
                place_picture(image.record.picture, root / image.file, link, upright)
        writer.write(root, content)


def _open(
    path: Path, writer: Writer, splits: Sequence[str], opened_as: Callable[..., DataSet]
) -> tuple[dict[str, DataSet], list[str]]:
    """The splits by the names that they are written under, with labels into the same classes."""
    known = list_splits(path)
    chosen = tuple(splits) or known
    notes = []
    is_shared = writer.folder("train") == writer.folder("val")
    if not splits and not is_shared and {"train", "val", "trainval"} <= set(known):
        chosen = tuple(name for name in known if name != "trainval")
        notes.append("split trainval is left out beside train and val; --splits takes it")
    if not chosen or chosen == ("none",):
        return {writer.split(""): opened_as()}, notes
    names = [writer.split(_folder_name(name)) for name in chosen]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{len(chosen)} splits would be called {twice!r}; choose with --splits")
    opened = open_splits(chosen, opened_as).values()
    classes = join_classes([data.classes for data in opened], {})
    if not splits:
        notes += left_out_of_splits(opened_as(), opened)
    return {name: match_classes(data, classes) for name, data in zip(names, opened, strict=True)}, notes


def _folder_name(split: str) -> str:
    if not re.fullmatch(r"[^./\\:\s][^/\\:\r\n\t]*", split):
        raise ConfigError(f"the split {split!r} cannot be the name of a folder; rename it")
    return split


def _warnings(path: Path, sets: Iterable[DataSet]) -> list[str]:
    problems = dict.fromkeys(problem for data in sets for problem in data.problems)
    texts = [str(problem_error(problem)) for problem in problems if problem.severity == "warning"]
    more = [f"and {len(texts) - _SHOWN} more warnings about the labels: fssd check {path}"]
    return texts[:_SHOWN] + (more if len(texts) > _SHOWN else [])


def exif_notes(headers: Mapping[Path, ImageHeader], upright: bool) -> list[str]:
    """What becomes of pictures that EXIF turns or mirrors, if there are any."""
    turned = sum(header.orientation != 1 for header in headers.values())
    if not turned:
        return []
    if upright:
        return [f"{turned} pictures that EXIF turns are written upright, compressed again"]
    fact = f"{turned} pictures are turned by EXIF, and sizes and boxes are those of the turned picture"
    return [f"{fact}; for software that ignores EXIF use --upright"]


def _writable(classes: Sequence[str]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in classes)
    for name in names:
        if _UNWRITABLE.search(name):
            raise ConfigError(f"the class {name!r} holds a character that label files cannot; rename it")
    if len(set(names)) < len(names):
        raise ConfigError("two classes differ in spaces around their names alone; rename one")
    return names


def _category_ids(classes: Sequence[str], sets: Iterable[DataSet]) -> tuple[int, ...]:
    """COCO's ids of the classes where the source has them, the same in all splits; else numbers from 1."""
    ids = category_ids(sets, classes) or ()
    if len(set(ids)) == len(classes) and all(isinstance(key, int) for key in ids):
        return ids
    return tuple(range(1, len(classes) + 1))

"""Names for the pictures of a data set that is written: folders stay, and no name is given twice."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, count
from pathlib import Path, PurePosixPath

from fssd.data.decode import IMAGE_EXTENSIONS, SUFFIXES, read_header
from fssd.data.formats.lookup import PASSED_OVER, composed, folder_split
from fssd.data.picture_identity import inside_shard, named_by_id
from fssd.data.sample import Record
from fssd.data.writers.writer import Writer

# Folders that say where pictures lie, and those that readers of data sets pass over.
_LAYOUT = {"images", "labels", "jpegimages", "annotations", "vocdevkit", "data"} | PASSED_OVER
# Control characters and those that end a line: names stand in lists, one a line.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\\\ud800-\udfff\ufffe\uffff]")


class PictureNames:
    """Gives each picture of a data set a file in the layout of a format. root: where the data set lies."""

    def __init__(self, writer: Writer, root: Path | None = None) -> None:
        self.writer, self.root = writer, root
        self._taken: dict[str, Record] = {}
        self._files: dict[Path, PurePosixPath] = {}

    def name(self, splits: Mapping[str, Sequence[Record]]) -> dict[str, list[PurePosixPath]]:
        """The file of each record below the root of the data set written, by split."""
        folders = {str(record.path.parent.absolute()) for records in splits.values() for record in records}
        base = self._base(Path(os.path.commonpath(list(folders))), splits) if folders else Path()
        names = {}
        for split, records in splits.items():
            own: set[str] = set()
            names[split] = [
                self._free(split, record, self._wanted(record, base, split), own) for record in records
            ]
        return names

    def _base(self, shared: Path, splits: Collection[str]) -> Path:
        """The innermost folder above all pictures that names a split or a layout, else the innermost one."""
        if self.root is None:
            return shared
        inside = [path for path in (shared, *shared.parents) if self.root.absolute() in path.parents]
        return next((path for path in inside if _is_layout(path.name, splits)), shared)

    def _wanted(self, record: Record, base: Path, split: str) -> PurePosixPath:
        """The path below the folder of all pictures, without folders that name the split or a layout."""
        below = named_by_id(record) or _below(record, base)
        *folders, name = (_safe(part) for part in below.parts)
        if PurePosixPath(name).suffix.lower() not in IMAGE_EXTENSIONS:
            name += SUFFIXES[read_header(record.picture).format][0]
        folders = [part for part in folders if not _is_layout(part, [split])]
        if "folders" in self.writer.holds:
            return PurePosixPath(*folders, name)
        return PurePosixPath("_".join([*folders, name]))

    def _free(self, split: str, record: Record, wanted: PurePosixPath, own: set[str]) -> PurePosixPath:
        """The name wanted, in a folder of its split or with a number if another picture has it.

        A picture that another split lists with the same labels keeps its file if it may lie there.
        """
        folder = PurePosixPath(self.writer.folder(split))
        same = self._files.get(record.path)
        key = "" if same is None else self._key(same)
        is_free = same is not None and same.is_relative_to(folder) and key not in own
        if same is not None and is_free and _are_equal(self._taken[key], record):
            own.add(key)
            return same
        inner = [folder / wanted, *([folder / split / wanted] if split not in folder.parts else [])]
        numbered = (inner[0].with_stem(f"{wanted.stem}-{number}") for number in count(2))
        for file in chain(inner, numbered):
            key = self._key(file)
            if key not in self._taken:
                self._taken[key], self._files[record.path] = record, file
                own.add(key)
                return file
        raise AssertionError("there is always a free number")

    def _key(self, file: PurePosixPath) -> str:
        """Equal for names that some file system, or the names of label files, do not tell apart."""
        name = file.with_suffix("") if self.writer.file_each else file
        return composed(name.as_posix()).casefold()


def _safe(part: str) -> str:
    """A name without what readers of lists strip, at the end of its stem too: lists hold names without the
    suffix."""
    plain = re.sub(r"^[\s.]+", "", _UNSAFE.sub("_", part).strip())
    stem, dot, suffix = plain.rpartition(".")
    return f"{stem.rstrip()}{dot}{suffix}" or "_"


def _is_layout(folder: str, splits: Collection[str]) -> bool:
    return folder.lower() in _LAYOUT or folder in splits or bool(folder_split([folder]))


def _below(record: Record, base: Path) -> Path:
    """The path below the folder of all pictures; of a picture in a shard the one inside of that."""
    return inside_shard(record) or record.path.absolute().relative_to(base)


def _are_equal(one: Record, other: Record) -> bool:
    """Whether two splits list the same picture with the same objects."""
    return one.path == other.path and _objects(one) == _objects(other)


def _objects(record: Record) -> tuple[bytes, ...]:
    return tuple(values.tobytes() for values in (record.labels, record.boxes, record.difficult, record.crowd))

"""Names for the pictures of a data set that is written: folders stay, and no name is given twice."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path, PurePosixPath

from fssd.data.decode import IMAGE_EXTENSIONS, SUFFIXES, read_header
from fssd.data.formats.lookup import folder_split
from fssd.data.sample import Record
from fssd.data.writers.writer import Writer

# Folders that say where pictures lie, and those that readers of data sets pass over.
_LAYOUT = frozenset({
    "images", "labels", "jpegimages", "annotations", "vocdevkit", "data", "__macosx", "runs", "node_modules",
    "venv", "site-packages", "checkpoints", "wandb",
})  # fmt: skip
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff\ufffe\uffff]")


class PictureNames:
    """Gives each picture of a data set a file in the layout of a format."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._taken: dict[str, Record] = {}

    def name(self, splits: Mapping[str, Sequence[Record]]) -> dict[str, list[PurePosixPath]]:
        """The file of each record below the root of the data set written, by split."""
        return {split: self._name_split(split, records) for split, records in splits.items()}

    def _name_split(self, split: str, records: Sequence[Record]) -> list[PurePosixPath]:
        folders = {str(record.path.parent) for record in records}
        base = Path(os.path.commonpath(list(folders))) if folders else Path()
        own: set[str] = set()
        return [self._free(split, record, self._wanted(record, base), own) for record in records]

    def _wanted(self, record: Record, base: Path) -> PurePosixPath:
        below = named_by_id(record) or PurePosixPath(record.path.relative_to(base).as_posix())
        *folders, name = (_UNSAFE.sub("_", part).strip().lstrip(".") or "_" for part in below.parts)
        if PurePosixPath(name).suffix.lower() not in IMAGE_EXTENSIONS:
            name += SUFFIXES[read_header(record.path).format][0]
        folders = [part for part in folders if part.lower() not in _LAYOUT and not folder_split([part])]
        if "folders" in self.writer.holds:
            return PurePosixPath(*folders, name)
        return PurePosixPath("_".join([*folders, name]))

    def _free(self, split: str, record: Record, wanted: PurePosixPath, own: set[str]) -> PurePosixPath:
        """The name wanted, in a folder of its split or with a number if another picture has it."""
        folder = PurePosixPath(self.writer.folder(split))
        inner = [folder / wanted, *([folder / split / wanted] if split not in folder.parts else [])]
        numbered = (inner[0].with_stem(f"{wanted.stem}-{number}") for number in count(2))
        for file in chain(inner, numbered):
            key = self._key(file)
            other = self._taken.setdefault(key, record)
            if key not in own and (other is record or _are_equal(other, record)):
                own.add(key)
                return file
        raise AssertionError("there is always a free number")

    def _key(self, file: PurePosixPath) -> str:
        """Equal for names that some file system, or the names of label files, do not tell apart."""
        name = file.with_suffix("") if self.writer.file_each else file
        return unicodedata.normalize("NFC", name.as_posix()).casefold()


def named_by_id(record: Record) -> PurePosixPath | None:
    """The end of the picture's path that its id is, with or without the suffix; None for ids like COCO's."""
    ends = (record.image_id, f"{record.image_id}{record.path.suffix}")
    path = record.path.as_posix()
    return next((PurePosixPath(end) for end in ends if path.endswith(f"/{end}")), None)


def _are_equal(one: Record, other: Record) -> bool:
    """Whether two splits list the same picture with the same labels."""
    same = one.path == other.path and one.labels.tobytes() == other.labels.tobytes()
    return same and one.boxes.tobytes() == other.boxes.tobytes()

"""Finds label files below a folder, and the picture that a label file means."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from fssd.data.decode import IMAGE_EXTENSIONS
from fssd.errors import DataError

_NO_DATA = frozenset({"__macosx", "runs", "node_modules", "venv", "site-packages", "checkpoints", "wandb"})
_SPLIT = re.compile(r"(train|training|val|valid|validation|trainval|test|testing|dev)(20\d\d)?")
# Where pictures lie, seen from their label file; {} is the split.
_FOLDERS = ("", "images", "../images", "..", "../{}", "{}", "images/{}", "../images/{}")


def is_hidden(path: Path, root: Path) -> bool:
    """The file, or a folder between it and `root`, is hidden or of macOS: no part of a data set."""
    return any(part[0] == "." or part == "__MACOSX" for part in path.relative_to(root).parts)


def visible_files(root: Path, suffixes: Collection[str] = ()) -> Iterator[Path]:
    """The files below a folder that end so (suffixes in lower case; by default all), sorted.

    Hidden files are left out, and folders that hold no data, such as runs/.
    """
    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        facts = Path(folder).stat()
        if (facts.st_dev, facts.st_ino) in seen:  # a link to a folder above itself
            folders.clear()
            continue
        seen.add((facts.st_dev, facts.st_ino))
        folders[:] = sorted(name for name in folders if name[0] != "." and name.lower() not in _NO_DATA)
        shown = (name for name in names if name[0] != ".")
        own = (name for name in shown if not suffixes or f".{name.rpartition('.')[2]}".lower() in suffixes)
        base = Path(folder)
        yield from (base / name for name in sorted(own))


def folder_split(parts: Sequence[str]) -> str:
    """The innermost folder that is called like a split, in lower case, or ""."""
    words = [part.lower() for part in parts]
    return next((word for word in reversed(words) if _SPLIT.fullmatch(word)), "")


def file_split(stem: str) -> str:
    """The split that a file name holds as a word, such as `train_labels`, or ""."""
    words = re.split(r"[^a-z0-9]+", stem.lower())
    return next((word for word in words if _SPLIT.fullmatch(word)), "")


def match_split(split: str, known: Sequence[str], file: Path) -> str:
    """The split of that name, or the only one that begins with it, such as train2017. Raises DataError."""
    if split in known:
        return split
    begun = [name for name in known if name.startswith(split)]
    if len(begun) == 1:
        return begun[0]
    fault = f"several splits begin with {split!r}" if begun else f"there is no split {split!r}"
    raise DataError(f"{fault}; splits here: {', '.join(known) or 'none'}", file=file)


@dataclass(frozen=True)
class PictureFinder:
    """The pictures below a folder, and which of them a name in a label file means.

    label_files: those of a format with one for each image; the picture beside one belongs to it.
    """

    root: Path
    label_files: tuple[Path, ...] = ()

    @cached_property
    def files(self) -> tuple[Path, ...]:
        return tuple(visible_files(self.root, IMAGE_EXTENSIONS))

    @cached_property
    def _index(self) -> dict[str, list[Path]]:
        """By name, and by stem after a `/`, which no name holds."""
        found: dict[str, list[Path]] = {}
        for path in self.files:
            for key in (path.name, f"/{path.stem}"):
                found.setdefault(key, []).append(path)
        return found

    @cached_property
    def _owned(self) -> frozenset[Path]:
        return frozenset(file.with_suffix("") for file in self.label_files)

    def _is_of_another(self, path: Path, source: Path) -> bool:
        stem = path.with_suffix("")
        return stem in self._owned and stem != source.with_suffix("")

    def find(self, names: Sequence[str], source: Path, split: str) -> tuple[tuple[Path, ...], bool]:
        """The picture (several if they fit equally well, () if none does), and whether it is just there.

        names: what the label file calls it, best first: paths of any system, or stems.
        """
        every = [
            [part for part in PurePosixPath(name.replace("\\", "/")).parts if part != "."] for name in names
        ]
        for parts in every:
            found = _beside(parts, source, split)
            if found is not None and not self._is_of_another(found, source):
                return (found,), True
        for parts in every:
            if alike := self._alike(parts, source, split):
                return alike, False
        return (), False

    def _alike(self, parts: Sequence[str], source: Path, split: str) -> tuple[Path, ...]:
        """Those below the root whose last folders are the name's for longest, then nearest to `source`."""
        if not parts:
            return ()
        is_name = Path(parts[-1]).suffix.lower() in IMAGE_EXTENSIONS
        ranked = []
        for path in self._index.get(parts[-1] if is_name else f"/{parts[-1]}", ()):
            of = folder_split(path.relative_to(self.root).parts[:-1])
            is_other = bool(split and of and of != split) or self._is_of_another(path, source)
            if not is_other:
                ranked.append(((_common_end(path, parts), _nearness(path, source)), path))
        best = max((rank for rank, _ in ranked), default=None)
        return tuple(path for rank, path in ranked if rank == best)


def _beside(parts: Sequence[str], source: Path, split: str) -> Path | None:
    """The picture in the usual folders for a label file: its own, images/ there or beside it."""
    if not parts or "." not in parts[-1]:
        return None
    base = source.parent
    for folder in _FOLDERS if split else _FOLDERS[:4]:
        path = Path(os.path.normpath(base.joinpath(folder.format(split), *parts)))
        if path.is_file():
            return path
    return None


def _common_end(path: Path, parts: Sequence[str]) -> int:
    count = 0
    for mine, theirs in zip(reversed(path.parts[:-1]), reversed(parts[:-1]), strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def _nearness(path: Path, source: Path) -> int:
    return len(os.path.commonpath([path.absolute(), source.absolute()]))

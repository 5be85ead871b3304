"""Finds label files below a folder, and the picture that a label file means."""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from fssd.data.decode import IMAGE_EXTENSIONS
from fssd.errors import DataError

_NO_DATA = frozenset({"__macosx", "runs", "node_modules", "venv", "site-packages", "checkpoints", "wandb"})
_OF_DISKS = frozenset({"lost+found", "$recycle.bin", "system volume information"})  # closed to most users
PASSED_OVER = _NO_DATA | _OF_DISKS
"""The folders, in lower case, in which no data are looked for."""
VANISHED = frozenset({errno.ENOENT})
NOWHERE = VANISHED | {errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM}
"""The faults of a path that may be of another machine, or is only guessed, and is no part of a data set."""
# Eight digits that are a date, as cameras name their pictures, are no hash: one of 60,000 hashes looks so.
_DATE = r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])-"
_HASH = re.compile(rf"(?:^|(?<=/))(?!{_DATE})[0-9a-f]{{8}}-(?=[^/]+$)")
_SPLIT = re.compile(r"(train|training|val|valid|validation|trainval|test|testing|dev)(20\d\d)?")
UNNAMED = "unnamed"  # the split of images without one, where others have one
UNREADABLE = frozenset(
    [
        ".heic",
        ".heif",
        ".avif",
        ".jp2",
        ".j2k",
        ".jxl",
        ".svg",
        ".psd",
        ".tga",
        ".exr",
        ".hdr",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".raw",
        ".ico",
        ".dcm",
    ]
)
"""Endings of pictures that cannot be decoded here."""


@contextmanager
def _listing(folder: Path | str, passed_over: Collection[int]) -> Iterator[None]:
    """Turns an OSError of a listing into a DataError, but passes over those of some numbers."""
    try:
        yield
    except OSError as error:
        if error.errno not in passed_over:
            reason = f"cannot be listed ({error.strerror}); make it readable, or move it out of the data set"
            raise DataError(reason, file=folder) from error


def entries_in(folder: Path | str, passed_over: Collection[int]) -> list[os.DirEntry[str]]:
    """The entries of a folder; none if listing it has one of these faults. Raises DataError for others."""
    with _listing(folder, passed_over), suppress(ValueError), os.scandir(folder) as found:  # of a zero byte
        return list(found)
    return []


def may_be_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link that cannot be followed: listing it will tell why."""
    try:
        return entry.is_dir()
    except OSError as error:
        return error.errno != errno.ELOOP  # a link in a circle leads to nothing


def visible_entries(root: Path, again: list[Path] | None = None) -> Iterator[os.DirEntry[str]]:
    """The files below a folder, and links to nothing, sorted within each folder.

    Hidden files are left out, and folders that hold no data, such as runs/. Raises DataError for a folder
    that cannot be listed: what lies in it would be missing, and nobody would know.
    again: takes the folders that were seen before under another name, and are passed over.
    """
    seen: set[tuple[int, int]] = set()
    left = [str(root)]
    while left:
        folder = left.pop()
        with _listing(folder, VANISHED), os.scandir(folder) as found:
            facts = Path(folder).stat()
            if (facts.st_dev, facts.st_ino) in seen:  # by a link, such as to a folder above itself
                if again is not None:
                    again.append(Path(folder))
                continue
            seen.add((facts.st_dev, facts.st_ino))
            entries = sorted((entry for entry in found if entry.name[0] != "."), key=lambda item: item.name)
            is_folder = list(map(may_be_folder, entries))
            yield from (entry for entry, own in zip(entries, is_folder, strict=True) if not own)
            folders = [entry for entry, own in zip(entries, is_folder, strict=True) if own]
            left += [entry.path for entry in reversed(folders) if entry.name.lower() not in PASSED_OVER]


def visible_files(root: Path, suffixes: Collection[str] = ()) -> Iterator[Path]:
    """The files of `visible_entries` that end so (suffixes in lower case; by default all)."""
    entries = (entry for entry in visible_entries(root) if not suffixes or suffix_of(entry.name) in suffixes)
    return (Path(entry) for entry in entries if not is_broken(entry))


def visible_glob(folder: Path, pattern: str) -> list[Path]:
    """The paths of a folder that fit a pattern, which may begin with `*`, without hidden ones."""
    return sorted(path for path in folder.glob(pattern) if path.name[0] != ".")


def suffix_of(name: str) -> str:
    """The ending in lower case with its dot; of `.x` and `x.` none that a file of data has."""
    return f".{name.rpartition('.')[2]}".lower()


def composed(name: str) -> str:
    """A name in the form NFC of Unicode: archives of macOS hold é as e and an accent, label files as é."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _is_file(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # of a link in a circle, or to where nobody may look
        return entry.is_file()
    return False


def is_broken(entry: os.DirEntry[str]) -> bool:
    """A link to nothing."""
    return entry.is_symlink() and not Path(entry).exists()


def folder_split(parts: Sequence[str]) -> str:
    """The innermost folder that is called like a split, in lower case, or ""."""
    words = [part.lower() for part in parts]
    return next((word for word in reversed(words) if _SPLIT.fullmatch(word)), "")


def file_split(stem: str) -> str:
    """The split that a file name holds as a word, such as `train_labels`, or ""."""
    words = re.split(r"[^a-z0-9]+", stem.lower())
    return next((word for word in words if _SPLIT.fullmatch(word)), "")


def split_word(name: str) -> str:
    """The word of a name that tells a split, without a year: train of `lvis_v1_train2017`, or ""."""
    return file_split(name).rstrip("0123456789")


def match_split(split: str, known: Sequence[str], file: Path) -> str:
    """The split of that name, or the only one that begins with it, else that holds it as a word.

    Such as train2017 and custom_train. Raises DataError.
    """
    if split in known:
        return split
    begun = [name for name in known if name.startswith(split)]
    held = begun or [name for name in known if split_word(name) == split]
    if len(held) == 1:
        return held[0]
    several = f"several splits {'begin with' if begun else 'hold the word'} {split!r}"
    fault = several if held else f"there is no split {split!r}"
    raise DataError(f"{fault}; splits here: {', '.join(known) or 'none'}", file=file)


def is_of_split(folder: str, split: str) -> bool:
    """Whether a folder is called like a split: val2017 for val, or val for validation or custom_val."""
    names = {split, file_split(split) or split}
    is_called = bool(folder_split([folder]))
    return any(folder.startswith(name) or (is_called and name.startswith(folder)) for name in names)


def in_order(splits: Collection[str]) -> tuple[str, ...]:
    """Training first, then validation and test."""
    order = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "trainval": 2, "test": 3}
    return tuple(sorted(splits, key=lambda name: (order.get(name.rstrip("0123456789"), 4), name)))


def known_splits(stated: Collection[str]) -> tuple[str, ...]:
    """The splits that images state, in order; those that state none are one too, beside others."""
    names = set(stated) - {""}
    return (*in_order(names), *([UNNAMED] if names and "" in stated else []))


def choose_splits(split: str | None, known: Sequence[str], root: Path) -> set[str] | None:
    """The splits that are meant, None for all. CVAT calls the images without one `default`."""
    if split is None or (split == "default" and not known):
        return None
    if not known:
        reason = f"there is no split {split!r}: its labels and folders name none; leave the split out"
        raise DataError(reason, file=root)
    return {match_split(part.strip(), known, root) for part in split.split("+")}


@dataclass(frozen=True)
class PictureFinder:
    """The pictures below a folder, and which of them a name in a label file means.

    label_files: those of a format with one for each image; the picture beside one belongs to it.
    images: the folder that the user gave for the pictures; they are looked for nowhere else.
    """

    labels_root: Path
    label_files: tuple[Path, ...] = ()
    images: Path | None = None
    _folders: dict[tuple[Path, str], tuple[str, ...]] = field(default_factory=dict, compare=False, repr=False)
    _names: dict[str, Mapping[str, str]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def root(self) -> Path:
        return self.images or self.labels_root

    @cached_property
    def _below(self) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        again: list[Path] = []
        entries = tuple(Path(entry) for entry in visible_entries(self.root, again) if _is_picture(entry))
        return entries, tuple(again)

    @property
    def entries(self) -> tuple[Path, ...]:
        """Every picture, also of endings that cannot be read and links to nothing."""
        return self._below[0]

    @cached_property
    def again(self) -> tuple[Path, ...]:
        """The folders of pictures that are passed over: a link shows them under another name too."""
        return tuple(folder for folder in self._below[1] if any(map(_is_picture, visible_entries(folder))))

    @cached_property
    def files(self) -> tuple[Path, ...]:
        readable = (path for path in self.entries if suffix_of(path.name) in IMAGE_EXTENSIONS)
        return tuple(path for path in readable if path.name in self._names_in(os.path.split(path)[0]))

    @cached_property
    def _index(self) -> dict[str, list[Path]]:
        """By composed name in lower case, and by composed stem after a `/`, which no name holds."""
        found: dict[str, list[Path]] = {}
        for path in self.files:
            for key in (composed(path.name).lower(), f"/{composed(path.stem)}"):
                found.setdefault(key, []).append(path)
        return found

    @cached_property
    def _index_in(self) -> dict[tuple[str, str], list[Path]]:
        """The same by the composed name of the folder too: many folders may hold pictures of one name."""
        found: dict[tuple[str, str], list[Path]] = {}
        for key, paths in self._index.items():
            for path in paths:
                found.setdefault((key, composed(path.parent.name)), []).append(path)
        return found

    @cached_property
    def _owned(self) -> frozenset[Path]:
        return frozenset(file.with_suffix("") for file in self.label_files)

    def _is_of_another(self, path: Path, source: Path) -> bool:
        if not self.label_files:
            return False
        stem = path.with_suffix("")
        return stem in self._owned and stem != source.with_suffix("")

    def has_picture(self, name: str) -> bool:
        """Whether any picture has this name, with its ending or without."""
        return f"/{composed(name)}" in self._index or composed(name).lower() in self._index

    def find(self, names: Sequence[str], source: Path, split: str) -> tuple[tuple[Path, ...], bool]:
        """The picture (several if they fit equally well, () if none does), and whether it is just there.

        names: what the label file calls it, best first: paths of any system, or stems.
        """
        every = [path_parts(name) for name in names]
        for parts in every:
            found = self._beside(parts, source, split)
            if found is not None and not self._is_of_another(found, source):
                return (found,), True
        for parts in every:
            if alike := self._alike(parts, source, split):
                return alike, False
        return (), False

    def _beside(self, parts: Sequence[str], source: Path, split: str) -> Path | None:
        """The picture in the usual folders for a label file."""
        if not parts or "." not in parts[-1]:
            return None
        stated = "/".join(parts).replace("//", "/")
        for folder in self._usual_folders(source.parent, split):
            above, name = folder, stated
            if len(parts) > 1:
                path = os.path.normpath(stated if stated[0] == "/" else f"{folder}/{stated}")
                above, name = os.path.split(path)
            inside = self._names_in(above)
            if (found := inside.get(name) or inside.get(composed(name))) is not None:
                return Path(above, found)
        return None

    def _usual_folders(self, base: Path, split: str) -> tuple[str, ...]:
        """Where pictures lie, seen from the folder of their labels."""
        known = self._folders.get((base, split))
        if known is None:
            above = Path(os.path.normpath(base / ".."))
            tops = [self.root] if self.images else [base, above]
            known = tuple(os.path.normpath(path) for top in tops for path in _pictures_in(top, split))
            self._folders[base, split] = known
        return known

    def _names_in(self, folder: str) -> Mapping[str, str]:
        """The names of the files in a folder, by themselves and composed; it is listed once."""
        names = self._names.get(folder)
        if names is None:
            own = [entry.name for entry in entries_in(folder or ".", NOWHERE) if _is_file(entry)]
            names = {composed(name): name for name in own} | {name: name for name in own}
            self._names[folder] = names
        return names

    def _alike(self, parts: Sequence[str], source: Path, split: str) -> tuple[Path, ...]:
        """Those below the root whose last folders are the name's for longest, then nearest to `source`."""
        if not parts:
            return ()
        is_name = suffix_of(parts[-1]) in IMAGE_EXTENSIONS
        last = composed(parts[-1])
        key = last.lower() if is_name else f"/{last}"
        every = self._index.get(key, [])
        if len(parts) > 1 and len(every) > 1:
            inside = self._index_in.get((key, composed(parts[-2])), [])
            ranked = self._ranked(inside, parts, source, split)
            best = max((rank for rank, _ in ranked), default=None)
            if best is not None and best[0] == 2:  # no other folder has one that is called more alike
                return tuple(path for rank, path in ranked if rank == best)
        ranked = self._ranked(every, parts, source, split)
        best = max((rank for rank, _ in ranked), default=None)
        return tuple(path for rank, path in ranked if rank == best)

    def _ranked(
        self, paths: Sequence[Path], parts: Sequence[str], source: Path, split: str
    ) -> list[tuple[tuple[int, int, int], Path]]:
        """Those that may be meant: how alike the name is, how many folders are, how near it lies."""
        is_name = suffix_of(parts[-1]) in IMAGE_EXTENSIONS
        ranked = []
        last = composed(parts[-1])
        for path in paths:
            of = folder_split(path.relative_to(self.root).parts[:-1])
            is_other = bool(split and of and not is_of_split(of, split)) or self._is_of_another(path, source)
            if not is_other:
                own = path.name if is_name else path.stem
                sameness = (own == parts[-1]) + (composed(own) == last)
                ranked.append(((sameness, common_end(path, parts), nearness(path, source)), path))
        return ranked


def _is_picture(entry: os.DirEntry[str]) -> bool:
    """Also of an ending that cannot be read."""
    ending = suffix_of(entry.name)
    return ending in IMAGE_EXTENSIONS or ending in UNREADABLE


def path_parts(name: str) -> list[str]:
    """The folders and the name of a path of any system."""
    plain = name.replace("\\", "/")
    parts = [part for part in plain.split("/") if part not in {"", "."}]
    return ["/", *parts] if plain.startswith("/") else parts


def without_hash(name: str) -> str:
    """A path without the hash that Label Studio puts in front of the name of a picture."""
    return _HASH.sub("", name)


def picture_names(url: str) -> tuple[str, ...]:
    """The paths that a URL may mean: as it is, and without the hash that Label Studio puts in front."""
    parts = urlsplit(url.replace("\\", "/")) if "?" in url or "://" in url else None
    path = url.replace("\\", "/") if parts is None else parts.path
    if parts is not None and (local := parse_qs(parts.query).get("d")):
        path = local[0]  # /data/local-files/?d=folder/name.jpg
    path = re.sub(r"^/?data/upload/(\d+/)?", "", path).lstrip("/")
    plain = unquote(path)
    names = [path, plain]
    names += [without_hash(name) for name in (path, plain)]
    return tuple(dict.fromkeys(name for name in names if name))


def _pictures_in(top: Path, split: str) -> Iterator[Path]:
    tops = [path for path in (top, top / "images") if path.is_dir()]
    if split:
        for path in tops:
            folders = filter(may_be_folder, entries_in(path, NOWHERE))
            alike = sorted(item.name for item in folders if is_of_split(item.name.lower(), split))
            yield from (path / name for name in sorted(alike, key=lambda name: name.lower() != split))
    yield from tops


def common_end(path: Path, parts: Sequence[str]) -> int:
    """How many of the last folders of a path are those of a stated one."""
    count = 0
    for mine, theirs in zip(reversed(path.parts[:-1]), reversed(parts[:-1]), strict=False):
        if composed(mine) != composed(theirs):
            break
        count += 1
    return count


def nearness(path: Path, source: Path) -> int:
    """Greater for a path that has more of its folders in common with `source`."""
    return len(os.path.commonpath([path.absolute(), source.absolute()]))

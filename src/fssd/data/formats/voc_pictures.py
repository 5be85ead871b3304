"""Which picture an xml file of Pascal VOC means."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from fssd.data.formats.lookup import PictureFinder, composed, folder_split, is_of_split, path_parts


@dataclass(frozen=True)
class VocPictures:
    """The pictures below a folder by id, which is the path below it without ending."""

    root: Path
    finder: PictureFinder

    @cached_property
    def by_id(self) -> dict[str, tuple[Path, ...]]:
        """Where an id has several pictures, .jpg comes first."""
        found: dict[str, tuple[Path, ...]] = {}
        files = self.finder.files
        for path in sorted(files, key=lambda path: (path.suffix.lower() == ".jpg", path.name), reverse=True):
            key = path.relative_to(self.root).with_suffix("").as_posix()
            found[key] = (*found.get(key, ()), path)
        return found

    @cached_property
    def _ids_by_stem(self) -> dict[str, str]:
        """Ids by composed stem, "" where several share one."""
        found: dict[str, str] = {}
        for key in self.by_id:
            stem = composed(PurePosixPath(key).name)
            found[stem] = "" if stem in found else key
        return found

    @cached_property
    def _folders(self) -> frozenset[str]:
        return innermost(self.by_id)

    def own(self, image_id: str, labels: Collection[str]) -> tuple[Path, ...]:
        """The pictures with the path of an xml file, without those that another is called after in full.

        labels: the ids of all xml files; that of `a.jpg.xml` is `a.jpg`.
        """
        found = [path for path in self.by_id.get(image_id, ()) if self._name(path) not in labels]
        whole = self.by_id.get(image_id.rpartition(".")[0], ())
        return tuple(found) or tuple(path for path in whole if self._name(path) == image_id)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def stated(self, filename: str) -> tuple[Path, ...]:
        """The pictures at the path that an xml file states, in whatever format."""
        name = stated_name(filename)
        return self.by_id.get(name.with_suffix("").as_posix(), ()) if name else ()

    def alike(self, image_id: str, filename: str) -> tuple[Path, ...]:
        """The pictures of the stated name or the id's name, if they lie in one folder alone."""
        name = stated_name(filename)
        stated = name.stem if name else ""
        stems = map(composed, (PurePosixPath(image_id).name, stated))
        keys = (stated, *(self._ids_by_stem.get(stem, "") for stem in stems))
        return next((self.by_id[key] for key in keys if key in self.by_id), ())

    def is_apart(self, image_id: str, path: Path) -> bool:
        """Whether xml file and picture lie in folders of other names, besides those called like splits."""
        labels, pictures = (set(_plain(parts)) for parts in self._above(image_id, path))
        return bool(labels and pictures) and not (labels <= pictures or pictures <= labels)

    def is_foreign(self, image_id: str, path: Path, split: str, others: Collection[str]) -> bool:
        """Whether a picture is of another split than the xml file, or of the folder of other xml files.

        split: that of the xml file if its folders tell none. others: `innermost` of all xml files.
        """
        labels, pictures = self._above(image_id, path)
        one, other = folder_split(labels) or split, folder_split(pictures)
        if one and other and not is_of_split(other, one):
            return True
        ends = (_plain(labels)[-1:], _plain(pictures)[-1:])
        return self.is_apart(image_id, path) and not (
            self._folders.isdisjoint(ends[0]) and set(others).isdisjoint(ends[1])
        )

    def _above(self, image_id: str, path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return PurePosixPath(image_id).parts[:-1], path.relative_to(self.root).parts[:-1]


def stated_name(filename: str) -> PurePosixPath | None:
    """The path that an xml file states; None if that has no name, such as `/`."""
    path = PurePosixPath("/".join(path_parts(filename)))
    return path if path.name not in {"", ".."} else None


def innermost(ids: Iterable[str]) -> frozenset[str]:
    """The last folder of each id, besides those called like splits, in lower case."""
    above = {PurePosixPath(image_id).parent.parts for image_id in ids}
    return frozenset(name for parts in above for name in _plain(parts)[-1:])


def _plain(parts: Sequence[str]) -> list[str]:
    return [part.lower() for part in parts if not folder_split([part])]


def named(paths: Sequence[Path], filename: str) -> Path:
    """The picture that an xml file states, in capitals or not; else the first."""
    name = stated_name(filename)
    own = composed(name.name) if name else ""
    exact = (path for path in paths if composed(path.name) == own)
    alike = (path for path in paths if composed(path.name).lower() == own.lower())
    return next(exact, None) or next(alike, None) or paths[0]


def exists(path: Path) -> bool:
    """Whether a file is there; an xml file may state a name that none can have, such as a long one."""
    with suppress(OSError, ValueError):
        return path.is_file()
    return False

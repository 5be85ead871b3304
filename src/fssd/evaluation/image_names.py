"""Which images of a data set the names in a result file mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fssd.data.decode import IMAGE_EXTENSIONS
from fssd.data.formats.lookup import path_parts
from fssd.data.sample import Record
from fssd.errors import DataError


@dataclass
class MatchedImages:
    """indices: of the record of each name. unknown: names of no image here. as_numbers: how many names were
    matched only as numbers, such as 5 with 000005."""

    indices: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    as_numbers: int = 0


def match_images(names: Iterable[str], records: Sequence[Record], file: Path) -> MatchedImages:
    """A name is an image id, a path, a file name, a stem, or a number with or without zeros in front.

    The first of these that fits counts. Raises DataError if a name fits several images equally well, if two
    names mean one image, or if none of the names means an image of the data set.
    """
    index = _Index(records)
    found = MatchedImages()
    owner: dict[int, str] = {}
    for name in names:
        fitting, by_number = index.find(name)
        if len(fitting) > 1:
            two = " and ".join(str(records[i].path) for i in fitting[:2])
            raise DataError(f"{name!r} fits several images ({two}); write their folders too", file=file)
        if not fitting:
            found.unknown.append(name)
            continue
        (record,) = fitting
        if record in owner:
            what = f"{owner[record]!r} and {name!r} mean the same image, {records[record].path}"
            raise DataError(f"{what}; use one name for it", file=file)
        owner[record] = name
        found.indices[name] = record
        found.as_numbers += by_number
    if found.unknown and not found.indices:
        own = f"{records[0].image_id!r}, {records[0].path}" if records else "none"
        reason = (
            f"none of its {len(found.unknown)} images is in the data set: the first is {found.unknown[0]!r}"
        )
        raise DataError(f"{reason}, the first there is {own}; check --data and --split", file=file)
    return found


class _Index:
    """Records by their id, file name, stem, and number."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.ids = {record.image_id: i for i, record in enumerate(records)}
        self.parts = [path_parts(str(record.path)) for record in records]
        self.id_parts = [_without_suffix(path_parts(record.image_id)) for record in records]
        self.names: dict[str, list[int]] = {}
        self.stems: dict[str, list[int]] = {}
        self.numbers: dict[int, list[int]] = {}
        for i, record in enumerate(records):
            stems = {record.path.stem, *self.id_parts[i][-1:]}
            self.names.setdefault(record.path.name, []).append(i)
            for stem in stems:
                self.stems.setdefault(stem, []).append(i)
            for value in {int(stem) for stem in stems if _is_number(stem)}:
                self.numbers.setdefault(value, []).append(i)

    def find(self, name: str) -> tuple[list[int], bool]:
        """The records that a name fits best, and whether only its number does."""
        if name in self.ids:
            return [self.ids[name]], False
        parts = path_parts(name)
        if not parts:
            return [], False
        if PurePosixPath(parts[-1]).suffix.lower() in IMAGE_EXTENSIONS:
            fitting = self._nearest(self.names.get(parts[-1], []), parts, self.parts)
            if fitting:
                return fitting, False
            parts = _without_suffix(parts)
        fitting = self.stems.get(parts[-1], [])
        if len(fitting) > 1:
            fitting = self._nearest(fitting, parts, [_without_suffix(own) for own in self.parts])
        if fitting or not _is_number(parts[-1]):
            return fitting, False
        return self.numbers.get(int(parts[-1]), []), True

    @staticmethod
    def _nearest(candidates: list[int], parts: list[str], own: Sequence[Sequence[str]]) -> list[int]:
        """Of the candidates those that share most of the last folders with a name."""
        if len(candidates) < 2:
            return candidates
        shared = [_common_end(parts, own[i]) for i in candidates]
        return [i for i, count in zip(candidates, shared, strict=True) if count == max(shared)]


def _common_end(a: Sequence[str], b: Sequence[str]) -> int:
    count = 0
    for mine, theirs in zip(reversed(a), reversed(b), strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def _without_suffix(parts: list[str]) -> list[str]:
    last = PurePosixPath(parts[-1]) if parts else PurePosixPath()
    return [*parts[:-1], last.stem] if last.suffix.lower() in IMAGE_EXTENSIONS else parts


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()

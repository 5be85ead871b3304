"""Finds the class names of a YOLO label file where no data.yaml gives them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fssd.data.formats.darknet_data import StatedPath, nearest_stated, stated_paths
from fssd.data.formats.json_values import is_number, is_text, read_json
from fssd.data.formats.labels import read_lines
from fssd.data.formats.lookup import is_broken, visible_entries
from fssd.data.formats.yolo_lookup import NAME_FILES, is_name_list
from fssd.data.formats.yolo_rows import NameList
from fssd.data.sample import Problem
from fssd.errors import DataError

_PROPOSED = "predefined_classes.txt"  # what labelImg offers; classes.txt has what was chosen


@dataclass(frozen=True)
class NameFinder:
    """The lists of class names below a folder."""

    root: Path

    @cached_property
    def lists(self) -> dict[Path, NameList]:
        """By folder: the one that an obj.data states, else the best one. Raises DataError."""
        own = [Path(entry) for entry in visible_entries(self.root) if is_name_list(entry)]
        stated = [file for file in self._stated.values() if file is not None]
        order = {name: rank for rank, name in enumerate(NAME_FILES)}
        found: dict[Path, NameList] = {}
        for file in [*stated, *sorted(own, key=lambda file: order.get(file.name.lower(), len(order)))]:
            known = found.get(file.parent)
            if known is not None and (known.file in stated and file not in stated):
                continue
            names = _from_notes(file) if file.suffix.lower() == ".json" else _from_lines(file)
            if names and known is not None:
                _require_agreement(NameList(file, names), known)
            elif names:
                found[file.parent] = NameList(file, names)
        return found

    @cached_property
    def _stated(self) -> dict[StatedPath, Path | None]:
        """What each obj.data says of names, with the file if it is here."""
        rows = [stated for stated in stated_paths(self.root) if stated.key == "names"]
        wanted = {stated.parts[-1] for stated in rows}
        entries = (entry for entry in visible_entries(self.root) if entry.name in wanted)
        files = [Path(entry) for entry in entries if not is_broken(entry)]
        return {stated: nearest_stated(stated, files) for stated in rows}

    @property
    def notes(self) -> list[Problem]:
        """Of names that an obj.data states and that are not here, where others are used."""
        used = next(iter(self.lists.values()), None)
        return [
            Problem("warning", stated.file, "names", _elsewhere(stated, used))
            for stated, file in self._stated.items()
            if file is None and used is not None
        ]

    def find(self, label: Path) -> NameList:
        """The list nearest above a label file, else the only one. Raises DataError."""
        above = next((self.lists[folder] for folder in label.parents if folder in self.lists), None)
        if above is not None:
            return above
        first, *others = self.lists.values()
        for other in others:
            if other.names != first.names:
                reason = f"has other class names than {first.file}; put the right ones beside the labels"
                raise DataError(reason, file=other.file)
        return first


def _elsewhere(stated: StatedPath, used: NameList) -> str:
    return (
        f"{'/'.join(stated.parts).replace('//', '/')} is not there; the class names of {used.file} are used"
    )


def _require_agreement(names: NameList, known: NameList) -> None:
    """Of two lists in one folder: one may go on where the other ends. Raises DataError."""
    common = names.names.keys() & known.names.keys()
    if names.file.name.lower() == _PROPOSED or all(names.names[key] == known.names[key] for key in common):
        return
    reason = f"has other class names than {known.file}; remove the one that is not of these labels"
    raise DataError(reason, file=names.file)


def _from_lines(file: Path) -> dict[int, str]:
    names = {number: line.strip() for number, line in enumerate(read_lines(file)) if line.strip()}
    repeated = next((name for name in names.values() if list(names.values()).count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"has the class name {repeated!r} twice; give each class once", file=file)
    return names


def _from_notes(file: Path) -> dict[int, str]:
    """Of Label Studio: {"categories": [{"id": 0, "name": "dog"}]}."""
    content = read_json(file)
    rows = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        return {}
    pairs = [(row.get("id"), row.get("name")) for row in rows if isinstance(row, dict)]
    return {int(key): str(name).strip() for key, name in pairs if is_number(key) and is_text(name)}

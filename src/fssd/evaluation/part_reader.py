"""The parts of `fssd detect --engine` as detections to be measured."""

from __future__ import annotations

from pathlib import Path

from fssd.counted import counted
from fssd.errors import DataError
from fssd.evaluation.result_rows import ResultRows, checked
from fssd.parts.part_plan import SETTINGS, read_plan_of
from fssd.parts.part_rows import SUCCESS, part_name, part_schema
from fssd.parts.ranged_file import read_columns
from fssd.storage.open_folder import open_folder


def holds_parts(folder: Path) -> bool:
    """Whether a folder is one that `fssd detect --engine` has written into."""
    return (folder / SETTINGS).is_file() and (folder / "parts").is_dir()


def read_parts(folder: Path, classes: tuple[str, ...]) -> ResultRows:
    """The rows of all parts. classes: those of the data set, which come first.

    Images that could not be read have no row, as in detections.json; `notes` says how many. Raises DataError
    for a detection that is not finished, and for frames of films, which no data set has.
    """
    place = open_folder(folder)
    plan = read_plan_of(place)
    if plan is None or not place.exists(SUCCESS):
        raise DataError("is not finished; run `fssd detect` again with the same flags", file=folder)
    rows, errors = ResultRows(folder, "the parts of `fssd detect`", classes), 0
    for index in range(plan.parts):
        table = read_columns(place, part_name(index), part_schema().names)
        for row in table.to_pylist():
            image = row["image"]
            if row["error"] is not None:
                errors += 1
                continue
            rows.images[image], rows.sizes[image] = [], (row["width"], row["height"])
            for number, item in enumerate(row["objects"], start=1):
                if item["frame"] is not None:
                    raise DataError("holds films; only images can be measured", file=folder, place=image)
                where = f"{image}, object {number}"
                score, box = checked(item["score"], item["box"], folder / part_name(index), where)
                rows.add(image, item["class"], score, box)
    if errors:
        rows.notes.append(
            f"left out: {counted(errors, 'image')} that could not be read, see the column `error`"
        )
    named = {row.name for found in rows.images.values() for row in found}
    rows.classes += tuple(sorted(named - set(classes)))
    return rows

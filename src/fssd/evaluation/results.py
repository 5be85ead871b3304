"""Result files: our own JSON, Pascal VOC's text files, COCO's result list. Each appears whole or not at all.

Only files are rounded, never what metrics are computed from.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fssd.atomic import atomic_path, names_file
from fssd.data.sample import DataSet
from fssd.errors import ConfigError, DataError
from fssd.evaluation.coco_ap import labels_by_name, xywh
from fssd.inference.detections import Detections

BOX_DECIMALS = 2  # the 0.01 px of COCO's own files
SCORE_DECIMALS = 5


class DetectionsFile:
    """Detections of one image after another: lines of JSON as they come, a JSON list at the end.

    go_on: keep the images of an earlier file that was not finished, or those among `known`; `done` has their
    names, and one whose `picture` is null is left out if `drawn`, for it could not be written.

    A context manager. Until it ends, the images are in `path` with the suffix .jsonl, one a line, where they
    stay if the program is killed. Then, also after an exception, `path` is made of them, and that file is
    removed. Each image is `{"image", "width", "height", "objects": [{"name", "score", "box": [x1, y1, x2,
    y2]}], "picture"}`; boxes are in pixels, rounded to 0.01, scores to 5 decimals. Raises OSError with the
    name of the file, e.g. for a full disk, and ConfigError if `path` is a folder.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        go_on: bool = False,
        drawn: bool = False,
        known: Collection[str] | None = None,
    ) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise ConfigError(f"{self.path}: is a folder; move it or choose another")
        self.lines = self.path.with_suffix(".jsonl")
        self.done: set[str] = set()
        if go_on:
            self._keep(drawn, known)
        self._file = self.lines.open("r+b" if go_on else "wb", buffering=0)
        self._size = self.lines.stat().st_size  # bytes of whole lines
        self._is_drawn = True

    def add(self, image: str, size: tuple[int, int], found: Detections, picture: str | None) -> None:
        """Write an image down. image: its name. size: (width, height). picture: name of the drawn file."""
        width, height = size
        row = {"image": image, "width": width, "height": height, "objects": object_rows(found)}
        line = _json_line({**row, "picture": picture}) + b"\n"
        with names_file(self.lines):
            self._file.seek(self._size)
            written = 0
            while written < len(line):  # a disk that fills up takes a part
                written += self._file.write(line[written:])
        self._size += len(line)

    def without_pictures(self) -> None:
        """Let no image name its `picture` in the end: what they were all drawn into could not be written."""
        self._is_drawn = False

    def _keep(self, drawn: bool, known: Collection[str] | None) -> None:
        """Write the lines that stay to `lines`, from that file after a kill, else from the list."""
        source = self.lines if self.lines.is_file() else self.path
        with atomic_path(self.lines) as temporary, temporary.open("wb") as kept:
            if not source.is_file():
                return
            with source.open("rb") as file:
                for line in file:
                    row = _whole_row(line)
                    if row is None or (drawn and row["picture"] is None) or row["image"] in self.done:
                        continue
                    if known is None or row["image"] in known:
                        self.done.add(row["image"])
                        kept.write(line.rstrip(b",\n") + b"\n")

    def __enter__(self) -> DetectionsFile:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._file.truncate(self._size)
        with self.lines.open("rb") as lines:
            _write_json_list(self.path, (self._row(line.rstrip(b"\n")) for line in lines))
        self.lines.unlink()

    def _row(self, line: bytes) -> bytes:
        return line if self._is_drawn else _json_line({**json.loads(line), "picture": None})


def _whole_row(line: bytes) -> dict[str, Any] | None:
    """The image of a line, None for one that was cut short and for the brackets of a list."""
    try:
        row = json.loads(line.rstrip(b",\n"))
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"image", "picture"} <= row.keys() else None


def object_rows(found: Detections) -> list[dict[str, Any]]:
    """The objects of an image for JSON, `{"name", "score", "box"}`, rounded; "track" of tracked ones."""
    rows = [
        {"name": name, "score": score, "box": box}
        for name, score, box in zip(found.names, _scores(found), _rounded(found.boxes), strict=True)
    ]
    if found.tracks is None:
        return rows
    return [{**row, "track": number} for row, number in zip(rows, found.tracks.tolist(), strict=True)]


def voc_files(
    folder: Path | str,
    image_ids: Sequence[str],
    classes: Sequence[str],
    *,
    challenge: str = "comp4",
    split: str = "test",
) -> list[Path]:
    """The files that `write_voc_results` writes. Raises its errors, for use before anything is detected."""
    for image_id in image_ids:
        if not image_id or any(character.isspace() for character in image_id):
            raise DataError(
                f"image id {image_id!r} is empty or has a space, which VOC's result files cannot hold;"
                " rename the image or leave these files out"
            )
    return [Path(folder) / f"{challenge}_det_{split}_{_file_part(name)}.txt" for name in classes]


def write_voc_results(
    folder: Path | str,
    image_ids: Sequence[str],
    detections: Iterable[Detections],
    classes: Sequence[str],
    *,
    challenge: str = "comp4",
    split: str = "test",
) -> list[Path]:
    """Write `comp4_det_test_CLASS.txt` for each class, even without detections: the server wants all files.

    A line is `id score x1 y1 x2 y2`; the kit reads it as textread('%s %f %f %f %f %f'). Scores have 6
    decimals, boxes 1, in the coordinates of the data set's own files (no shift by one). Within a class the
    images are in the order given, best score first in each. comp4 is the competition open to any training
    data. Returns the files. Raises DataError for an id with a space, ConfigError for a class name that no
    file name can hold.
    """
    files = voc_files(folder, image_ids, classes, challenge=challenge, split=split)
    lines = _voc_lines(image_ids, detections, classes)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for file, rows in zip(files, lines, strict=True):
        with atomic_path(file) as temporary:
            temporary.write_bytes("".join(rows).encode("utf-8", "surrogateescape"))
    return files


def write_coco_results(path: Path | str, dataset: DataSet, detections: Iterable[Detections]) -> None:
    """Write the list that COCO's tools and server read, for one Detections per record.

    Each line is `{"image_id", "category_id", "bbox": [x, y, width, height], "score"}`; boxes are rounded to
    0.01 px, scores to 5 decimals. image_id is a number if the id is one, else the text as it is. Category ids
    come from `dataset.facts["category_ids"]` (one per class), else 1, 2, ... in the order of the classes.
    Detections of classes that the data set does not have, or has no id for (None), are left out.
    """
    categories = _category_ids(dataset)
    rows = (
        _json_line({"image_id": _number(record.image_id), **row})
        for record, found in zip(dataset.records, detections, strict=True)
        for row in _coco_rows(found, dataset.classes, categories)
    )
    _write_json_list(path, rows)


def _coco_rows(
    found: Detections, classes: Sequence[str], categories: Sequence[int | str | None]
) -> Iterator[dict[str, Any]]:
    labels = labels_by_name(found, classes).tolist()
    for label, score, box in zip(labels, _scores(found), _rounded(xywh(found.boxes)), strict=True):
        category = categories[label] if label >= 0 else None
        if category is not None:
            yield {"category_id": category, "bbox": box, "score": score}


def _scores(found: Detections) -> list[float]:
    return [round(score, SCORE_DECIMALS) for score in found.scores.tolist()]


def _rounded(boxes: Any) -> list[list[float]]:
    return [[round(value, BOX_DECIMALS) for value in box] for box in boxes.tolist()]


def _write_json_list(path: Path | str, lines: Iterable[bytes]) -> None:
    """One row per line, so that a large file can be read with a pager."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        separator = b"[\n"
        for line in lines:
            file.write(separator + line)
            separator = b",\n"
        file.write(b"\n]\n" if separator == b",\n" else b"[]\n")


def _json_line(row: dict[str, Any]) -> bytes:
    # Bytes of a file name that are not UTF-8 are lone surrogates in Python, and \udcdf is JSON's escape too.
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def _voc_lines(
    image_ids: Sequence[str], detections: Iterable[Detections], classes: Sequence[str]
) -> list[list[str]]:
    lines: list[list[str]] = [[] for _ in classes]
    for image_id, found in zip(image_ids, detections, strict=True):
        labels = labels_by_name(found, classes).tolist()
        for label, score, box in zip(labels, found.scores.tolist(), found.boxes.tolist(), strict=True):
            if label >= 0:
                lines[label].append(f"{image_id} {score:.6f} {' '.join(f'{value:.1f}' for value in box)}\n")
    return lines


def _file_part(name: str) -> str:
    """The class name, if it can be part of a file name on every system. Raises ConfigError."""
    if not name or any(character in '/\\:*?"<>|' or ord(character) < 32 for character in name):
        raise ConfigError(f"class name {name!r} cannot be part of a file name; rename the class")
    return name


def _category_ids(dataset: DataSet) -> list[int | str | None]:
    known = dataset.facts.get("category_ids")
    if known is None:
        return list(range(1, len(dataset.classes) + 1))
    ids = [_number(one) if isinstance(one, str) else one for one in known]
    if len(ids) != len(dataset.classes):
        raise ValueError(f"{len(ids)} category ids for {len(dataset.classes)} classes")
    return ids


def _number(image_id: str) -> int | str:
    """A number as in COCO's own files; '007' stays text, because 7 would not match it."""
    canonical = image_id.isascii() and image_id.isdigit() and str(int(image_id)) == image_id
    return int(image_id) if canonical else image_id

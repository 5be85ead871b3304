"""Detections: what a detector found in one image."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from fssd.atomic import atomic_write
from fssd.data.sample import Boxes, Image, Labels
from fssd.errors import ConfigError, nearest
from fssd.inference.draw import class_colour, draw_boxes, encode_image, write_jpeg
from fssd.inference.html_table import detections_html
from fssd.runtimes.packages import require

Names = Sequence[str] | Mapping[int, str] | npt.NDArray[Any]
"""Class names in the order of their numbers, or by number."""
JPEG_SUFFIXES = (".jpg", ".jpeg")
OTHER_SUFFIXES = (".png", ".webp", ".bmp", ".tif", ".tiff")


class Detection(NamedTuple):
    """One object. name: of its class. score: 0..1. box: xyxy, pixels of the image. label: 0-based class."""

    name: str
    score: float
    box: tuple[float, float, float, float]
    label: int


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """Objects found in one image, highest score first.

    A sequence of `Detection`: `found[0]` is one, `found[:3]`, `found[found.scores > 0.8]` and
    `found[[2, 0]]` are `Detections` again. Equal if boxes, scores, labels and classes are.

    boxes: (N, 4) float32 xyxy, pixels of the image as given. scores: (N,) float32 in 0..1.
    labels: (N,) int64, 0-based index into `classes`. classes: every class name the detector knows.
    image: (H, W, 3) uint8 RGB, for `draw`, or None. source: the file it came from, "clip.mp4#12" for a frame
    of a film, or None. tracks: (N,) int64, the numbers of tracked objects, from 1; None without tracking.
    """

    boxes: Boxes
    scores: npt.NDArray[np.float32]
    labels: Labels
    classes: tuple[str, ...]
    image: Image | None = None
    source: str | None = None
    tracks: Labels | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        rows = zip(self.names, self.scores.tolist(), self.boxes.tolist(), self.labels.tolist(), strict=True)
        return (Detection(name, score, tuple(box), label) for name, score, box, label in rows)

    @overload
    def __getitem__(self, rows: int | np.integer[Any]) -> Detection: ...

    @overload
    def __getitem__(self, rows: slice | Sequence[int] | Sequence[bool] | npt.NDArray[Any]) -> Detections: ...

    def __getitem__(self, rows: Any) -> Detection | Detections:
        """One detection by its rank, or several by a slice, a mask (N,) of bool, or a list of ranks."""
        if isinstance(rows, slice):
            return self._rows(rows)
        chosen = np.asarray(rows)
        if isinstance(rows, (list, tuple)) and not rows:
            chosen = chosen.astype(np.intp)
        if (
            chosen.ndim > 1
            or chosen.dtype.kind not in "biu"
            or (not chosen.ndim and chosen.dtype.kind == "b")
        ):
            reason = "detections are chosen by a number, a slice, a mask or a list of numbers"
            raise TypeError(f"{reason}, not {type(rows).__name__} {rows!r:.60}")
        if chosen.dtype.kind == "b" and len(chosen) != len(self):
            raise IndexError(f"a mask of {len(chosen)} does not fit {len(self)} detections")
        if chosen.ndim:
            return self._rows(chosen)
        rank = int(chosen)
        if not -len(self) <= rank < len(self):
            raise IndexError(f"there is no detection {rank}; {len(self)} were found")
        return next(iter(self._rows(slice(rank, rank + 1 or None))))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        parts = ("boxes", "scores", "labels", "tracks")
        same = (np.array_equal(getattr(self, part), getattr(other, part)) for part in parts)
        return self.classes == other.classes and all(same)

    __hash__ = None  # type: ignore[assignment]  # arrays can change

    def __repr__(self) -> str:
        """Such as `Detections(3 objects: 2 dog, 1 cat; image 640 x 480)`."""
        counts = ", ".join(f"{count} {name}" for name, count in sorted(Counter(self.names).items()))
        objects = f"{len(self)} object{'s' * (len(self) != 1)}{': ' * bool(counts)}{counts}"
        shape = "" if self.image is None else f"; image {self.image.shape[1]} x {self.image.shape[0]}"
        return f"Detections({objects}{shape})"

    def _repr_html_(self) -> str:
        """The drawn image and a table, for notebooks."""
        picture = None if self.image is None else self.draw()
        rows = [(one.name, f"{one.score:.1%}", *(f"{side:.0f}" for side in one.box)) for one in self]
        return detections_html(repr(self), picture, rows)

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.classes[label] for label in self.labels]

    def above(self, score: float) -> Detections:
        """The detections whose score is at least `score`."""
        return self._rows(self.scores >= score)

    def of(self, *names: str) -> Detections:
        """The detections of these classes. Raises ConfigError for a name that is none of `classes`."""
        return self._rows(np.isin(self.labels, class_labels(names, self.classes)))

    def _rows(self, rows: slice | npt.NDArray[Any]) -> Detections:
        tracks = None if self.tracks is None else self.tracks[rows]
        boxes, scores, labels = self.boxes[rows], self.scores[rows], self.labels[rows]
        return replace(self, boxes=boxes, scores=scores, labels=labels, tracks=tracks)

    def without_image(self) -> Detections:
        """The same detections without the image, to free its memory."""
        return replace(self, image=None)

    def draw(self) -> Image:
        """A copy of the image with boxes, names and scores on it, (H, W, 3) uint8 RGB."""
        if self.image is None:
            raise ValueError("these detections carry no image to draw on; detect with keep_image=True")
        return draw_detections(self.image, self)

    def save(self, path: str | Path) -> Path:
        """Write the drawn image, or for a name that ends in .json the objects (see `to_json`).

        Returns the path. Raises ConfigError for another ending, ValueError without an image, ImageError for
        an image that the format cannot hold, OSError.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".json":
            atomic_write(path, self.to_json() + "\n")
        elif suffix in JPEG_SUFFIXES:
            write_jpeg(path, self.draw())
        elif suffix in OTHER_SUFFIXES:
            atomic_write(path, encode_image(suffix, self.draw()))
        else:
            known = ", ".join((".json", *JPEG_SUFFIXES, *OTHER_SUFFIXES))
            raise ConfigError(f"{path}: detections cannot be saved in this format; choose one of {known}")
        return path

    def to_dicts(self) -> list[dict[str, Any]]:
        """One `{"name", "score", "box": [x1, y1, x2, y2], "label"}` for each object, not rounded.

        Tracked objects have their number too, "track".
        """
        rows = [{**one._asdict(), "box": list(one.box)} for one in self]
        numbers = [] if self.tracks is None else self.tracks.tolist()
        for row, number in zip(rows, numbers, strict=False):
            row["track"] = number
        return rows

    def to_json(self) -> str:
        """`to_dicts` as JSON with scores of 5 decimals and boxes of 0.01 pixel, one object a line."""
        rows = []
        for one in self.to_dicts():
            box = [round(side, 2) for side in one["box"]]
            rows.append(json.dumps({**one, "score": round(one["score"], 5), "box": box}, ensure_ascii=False))
        return "[\n" + ",\n".join(rows) + "\n]" if rows else "[]"

    def to_pandas(self) -> Any:
        """A DataFrame with the columns name, score, x1, y1, x2, y2, label, and track of tracked objects.

        Raises ConfigError without pandas.
        """
        pandas = require("pandas", "pandas")
        names = pandas.Series(self.names, dtype=str)  # else the column of no names is one of numbers
        sides = {side: self.boxes[:, index] for index, side in enumerate(("x1", "y1", "x2", "y2"))}
        tracks = {} if self.tracks is None else {"track": self.tracks}
        columns = {"name": names, "score": self.scores, **sides, "label": self.labels, **tracks}
        return pandas.DataFrame(columns)

    def to_supervision(self) -> Any:
        """As `supervision.Detections`, with the names in `data["class_name"]`, tracks as `tracker_id`.

        Raises ConfigError without supervision.
        """
        return require("supervision", "supervision").Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.labels.copy(),
            tracker_id=None if self.tracks is None else self.tracks.copy(),
            data={"class_name": np.array(self.names, dtype=str)},
            metadata={"classes": list(self.classes)},
        )

    @classmethod
    def from_supervision(
        cls, found: Any, classes: Names | None = None, image: Image | None = None
    ) -> Detections:
        """The boxes of a `supervision.Detections`, best first; without confidence each scores 1.

        classes: the names by class_id: a sequence, or a mapping as of ultralytics, whose numbers become
        labels from 0 in their order; None takes those that `to_supervision` noted, else the names in
        `data["class_name"]`, in alphabetical order. Raises ConfigError if there are neither, or a class_id
        has no name.
        """
        boxes, count = np.asarray(found.xyxy, np.float32).reshape(-1, 4), len(found)
        scores = np.ones(count) if found.confidence is None else found.confidence
        known, labels = _named_labels(found, classes)
        order = np.argsort(-np.asarray(scores, np.float32), kind="stable")
        numbers = getattr(found, "tracker_id", None)
        tracks = None if numbers is None else np.asarray(numbers, np.int64)[order]
        scores = np.asarray(scores, np.float32)[order]
        return cls(boxes[order], scores, labels[order], known, image, tracks=tracks)


def class_labels(names: Iterable[str], classes: Sequence[str]) -> list[int]:
    """The 0-based label of each name. Raises ConfigError for one that is not there."""
    if isinstance(names, str):
        raise ConfigError(f"classes is the text {names!r}; give a list of names, such as [{names!r}]")
    if not isinstance(names, Iterable):
        raise ConfigError(f"classes is {names!r}; give a list of names, such as [{classes[0]!r}]")
    names = list(names)  # an iterator gives them once
    for name in names:
        if name not in classes:
            raise ConfigError(f"there is no class {name!r} in this model{nearest(str(name), classes)}")
    return [list(classes).index(name) for name in names]


def _named_labels(found: Any, given: Names | None) -> tuple[tuple[str, ...], Labels]:
    """The class names and the label of each box, (N,), see `Detections.from_supervision`."""
    if isinstance(given, str) or not isinstance(given, (Sequence, Mapping, np.ndarray, type(None))):
        raise ConfigError(f"classes is {given!r:.60}; give a list of all names, or a mapping by number")
    if given is None or not len(given):
        given = getattr(found, "metadata", {}).get("classes")
    names = found.data.get("class_name")
    if given is None and names is not None:
        unique, labels = np.unique(np.asarray(names, dtype=str), return_inverse=True)
        return tuple(unique.tolist()), labels.astype(np.int64)
    if given is None or (found.class_id is None and len(found)):
        raise ConfigError("these detections have no class names or no class_id; give classes= and class_id")
    by_number = dict(sorted(given.items()) if isinstance(given, Mapping) else enumerate(given))
    ranks = {number: rank for rank, number in enumerate(by_number)}
    labels = np.zeros(0, np.int64) if found.class_id is None else np.asarray(found.class_id, np.int64)
    unknown = [number for number in labels.tolist() if number not in ranks]
    if unknown:
        worst = min(unknown) if min(unknown) < 0 else max(unknown)
        raise ConfigError(f"class_id {worst} has no name among {len(ranks)} classes; give all names")
    return tuple(map(str, by_number.values())), np.array(
        [ranks[label] for label in labels.tolist()], np.int64
    )


def draw_detections(image: Image, detections: Detections) -> Image:
    """A copy of (H, W, 3) uint8 RGB with a box, a name and a score in percent for each detection.

    One colour per class, or of tracked objects, which have their number too, per object; the highest scores
    are drawn on top.
    """
    order = np.argsort(detections.scores, kind="stable")
    names, scores, labels = detections.names, detections.scores, detections.labels
    tracks = detections.tracks
    kinds = labels if tracks is None else tracks
    marks = (
        [f"{name} " for name in names]
        if tracks is None
        else [f"{name} #{number} " for name, number in zip(names, tracks.tolist(), strict=True)]
    )
    texts = [f"{marks[i]}{100 * scores[i]:.0f}%" for i in order]
    return draw_boxes(image, detections.boxes[order], texts, [class_colour(int(kinds[i])) for i in order])

"""ByteTrack: every detection takes part, the confident ones first (Zhang et al., ECCV 2022, algorithm 1).

tracker = ByteTrack()
for found in detector.stream("clip.mp4", score=LOW):
    print(tracker.update(found).tracks)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fssd.config.bounds import Natural, Share, check_number
from fssd.errors import ConfigError
from fssd.inference.detections import Detections
from fssd.tracking.association import associate, solver
from fssd.tracking.box_motion import BoxMotion

LOW = 0.1  # score from which a detection may go on with a track
_FIRST, _SECOND = 0.2, 0.5  # least IoU with a confident and with a doubtful detection


@dataclass
class _Track:
    """number: of the object. seen: the frame that it was last seen in. is_lost: whether a frame missed it."""

    number: int
    label: int
    motion: BoxMotion
    seen: int
    is_lost: bool = False


class ByteTrack:
    """Gives the objects of a film, or of any frames in their order, numbers that stay.

    high: score from which a detection starts a track (the paper's is 0.6). low: score from which it can go on
    with one. buffer: frames for which an object that is out of sight is remembered. class_scores: `high` of
    the classes that have their own. An object keeps its class: detections of others do not go on with it.
    Raises ConfigError for numbers out of range, or without SciPy.
    """

    def __init__(
        self,
        high: float = 0.5,
        low: float = LOW,
        buffer: int = 30,
        class_scores: Mapping[str, float] | None = None,
    ) -> None:
        check_number("low", low, Share)
        check_number("buffer", buffer, Natural)
        own = {f"score of {name!r}": score for name, score in (class_scores or {}).items()}
        for name, score in {"high": high, **own}.items():
            check_number(name, score, Share)
            if low > score:
                raise ConfigError(f"{name} is {score} and low is {low}; {name} must not be below low")
        solver()  # rather than at the first frame with two objects
        self._high, self._low, self._buffer = high, low, buffer
        self._class_scores = dict(class_scores or {})
        self._tracks: list[_Track] = []
        self._frame = 0
        self._numbers = 0

    @property
    def total(self) -> int:
        """How many objects there have been."""
        return self._numbers

    def update(self, found: Detections, frames: int = 1) -> Detections:
        """The detections of the next frame that belong to an object, with `tracks`, the objects' numbers.

        found: all detections from the score `low`; the doubtful ones that go on with no track are left out.
        frames: how many frames after the last one this is, more than 1 where some could not be decoded.
        """
        self._frame += frames
        for track in self._tracks:
            for _ in range(min(frames, self._buffer + 1)):
                track.motion.predict(moving=not track.is_lost)
        high = np.array([self._class_scores.get(name, self._high) for name in found.classes])[found.labels]
        sure = np.flatnonzero(found.scores >= high)
        doubtful = np.flatnonzero((found.scores >= self._low) & (found.scores < high))
        numbers = np.zeros(len(found), np.int64)
        left = self._go_on(self._tracks, found, sure, _FIRST, numbers)
        # What has been lost for a while is not found again by a doubtful detection.
        self._go_on([track for track in left if not track.is_lost], found, doubtful, _SECOND, numbers)
        for track in self._tracks:
            track.is_lost = track.seen < self._frame
        self._tracks = [one for one in self._tracks if self._frame - one.seen <= self._buffer]
        for index in sure[numbers[sure] == 0].tolist():
            numbers[index] = self._start(found, index)
        kept = np.flatnonzero(numbers)
        return replace(found[kept], tracks=numbers[kept])

    def _go_on(
        self, tracks: list[_Track], found: Detections, rows: np.ndarray, least: float, numbers: np.ndarray
    ) -> list[_Track]:
        """Associate the tracks with rows of the detections; returns those that none belongs to."""
        boxes = np.array([track.motion.box for track in tracks]).reshape(-1, 4)
        labels = np.array([track.label for track in tracks], np.int64)
        pairs = associate(boxes, found.boxes[rows], labels, found.labels[rows], least)
        for row, column in pairs:
            track, index = tracks[row], int(rows[column])
            track.motion.update(found.boxes[index])
            track.seen, numbers[index] = self._frame, track.number
        matched = {row for row, _ in pairs}
        return [track for row, track in enumerate(tracks) if row not in matched]

    def _start(self, found: Detections, index: int) -> int:
        self._numbers += 1
        motion = BoxMotion(found.boxes[index])
        self._tracks.append(_Track(self._numbers, int(found.labels[index]), motion, self._frame))
        return self._numbers

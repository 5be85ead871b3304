"""The tracks of one film and their counts, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from fssd.data.sample import Image
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.tracking.byte_track import LOW, ByteTrack
from fssd.tracking.counting import LineCount, ZoneCount

HIGH = 0.5  # score from which a detection starts a track, where none is given
Points = Sequence[Sequence[float]]
INK = (255, 220, 0)  # RGB


class FilmTracks:
    """A tracker with the lines and zones that it counts at.

    score: from which a detection starts a track, None for 0.5. class_scores: the same of single classes.
    lines: x1, y1, x2, y2 each. zones: the corners of each, x, y, x, y, ... All in pixels of the frames.
    """

    def __init__(
        self,
        score: float | None,
        lines: Points,
        zones: Points,
        class_scores: Mapping[str, float] | None = None,
    ) -> None:
        high = HIGH if score is None else score
        self._lowest = min([high, *(class_scores or {}).values()])
        self._tracker = ByteTrack(high, min(LOW, self._lowest), class_scores=class_scores)
        self.lines, self.zones = [LineCount(line) for line in lines], [ZoneCount(zone) for zone in zones]
        self._counters: list[LineCount | ZoneCount] = [*self.lines, *self.zones]
        self._last = -1

    def settings(self, detector: Detector) -> dict[str, Any]:
        """Settings of a detector for tracking: the score is that from which detections go on with a track.

        A file with NMS inside has no detections below its own threshold.
        """
        return {"score": min(self._lowest, max(LOW, detector.least_score)), "class_scores": {}}

    def update(self, found: Detections, number: int) -> Detections:
        """The tracked objects of a frame; number: the frame's, which rises."""
        tracked = self._tracker.update(found, number - self._last)
        self._last = number
        for counter in self._counters:
            counter.update(tracked)
        return tracked

    def draw(self, found: Detections) -> Image:
        """The frame with boxes, numbers, lines, zones and their counts, (H, W, 3) uint8 RGB."""
        image = np.ascontiguousarray(found.draw())
        for line in self.lines:
            start, end = (tuple(round(side) for side in point) for point in (line.start, line.end))
            cv2.line(image, start, end, INK, 2, cv2.LINE_AA)
            _write(image, f"right {line.right} left {line.left}", start)
        for zone in self.zones:
            corners = np.array(zone.corners).round().astype(np.int32)
            cv2.polylines(image, [corners], True, INK, 2, cv2.LINE_AA)
            _write(image, f"{zone.now} now, {zone.total} in all", tuple(corners[0].tolist()))
        return image

    def to_json(self) -> dict[str, Any]:
        """The number of objects, and the counts of each line and zone."""
        return {"tracks": self._tracker.total, "counts": [counter.to_json() for counter in self._counters]}

    def __str__(self) -> str:
        total = self._tracker.total
        parts = [f"{total} track{'s' * (total != 1)}"]
        parts += [f"line {line.right} right, {line.left} left" for line in self.lines]
        parts += [f"zone {zone.total}" for zone in self.zones]
        return "; ".join(parts)


def _write(image: Image, text: str, place: tuple[int, ...]) -> None:
    """The text beside a point, moved into the image."""
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    x = int(np.clip(place[0] + 4, 0, max(0, image.shape[1] - width)))
    y = int(np.clip(place[1] - 4, height, max(height, image.shape[0] - 4)))
    cv2.rectangle(image, (x - 2, y - height - 2), (x + width + 2, y + 4), (0, 0, 0), cv2.FILLED)
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)

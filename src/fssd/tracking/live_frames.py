"""The detections in the frames of a live source."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fssd.data.sample import Image
from fssd.evaluation.results import object_rows
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.inference.live import Frames
from fssd.tracking.film_tracks import FilmTracks


class LiveFrame(NamedTuple):
    """A frame and what was found in it. number: frames that were left out make a gap. tracks: if any."""

    number: int
    found: Detections
    tracks: FilmTracks | None

    def row(self) -> str:
        """`{"frame", "width", "height", "objects"}` as JSON."""
        assert self.found.image is not None
        height, width = self.found.image.shape[:2]
        objects = object_rows(self.found)
        return json.dumps({"frame": self.number, "width": width, "height": height, "objects": objects})

    def drawn(self) -> Image:
        """(H, W, 3) uint8 RGB, with boxes, and lines and zones if there are any."""
        return self.found.draw() if self.tracks is None else self.tracks.draw(self.found)


def live_frames(
    detector: Detector, frames: Frames, settings: Mapping[str, Any], every: int, tracks: FilmTracks | None
) -> Iterator[LiveFrame]:
    """Every `every`-th frame with its detections, one at a time, as they come.

    settings: of `Detector.stream`. tracks: what follows the objects, with scores of its own.
    """
    numbers: deque[int] = deque()
    if tracks is not None:
        settings = {**settings, **tracks.settings(detector)}
    for found in detector.stream(_chosen(frames, every, numbers), **settings, batch_size=1):
        number = numbers.popleft()
        shown = found if tracks is None else tracks.update(found, number)
        yield LiveFrame(number, shown, tracks)


def _chosen(frames: Frames, every: int, numbers: deque[int]) -> Iterator[Image]:
    """The images of frames that are at least `every` apart; their numbers go to `numbers`."""
    following = 0
    for number, image in frames:
        if number >= following:
            following = number + every
            numbers.append(number)
            yield image

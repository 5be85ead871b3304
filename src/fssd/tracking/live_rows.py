"""The detections of a live source as lines of JSON."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from fssd.data.sample import Image
from fssd.evaluation.results import object_rows
from fssd.inference.detector import Detector
from fssd.inference.live import Frames
from fssd.tracking.byte_track import LOW
from fssd.tracking.film_tracks import FilmTracks


def live_rows(
    detector: Detector, frames: Frames, settings: Mapping[str, Any], every: int, tracks: FilmTracks | None
) -> Iterator[str]:
    """`{"frame", "width", "height", "objects"}` for every `every`-th frame, one at a time, as they come.

    settings: of `Detector.stream`. tracks: what follows the objects; then the score is that from which
    detections go on with a track. Frames that were left out make a gap in the numbers.
    """
    numbers: deque[int] = deque()
    if tracks is not None:
        settings = {**settings, "score": min(LOW, settings.get("score", LOW))}
    for found in detector.stream(_chosen(frames, every, numbers), **settings, batch_size=1):
        number = numbers.popleft()
        assert found.image is not None
        height, width = found.image.shape[:2]
        shown = found if tracks is None else tracks.update(found, number)
        row = {"frame": number, "width": width, "height": height, "objects": object_rows(shown)}
        yield json.dumps(row)


def _chosen(frames: Frames, every: int, numbers: deque[int]) -> Iterator[Image]:
    """The images of frames that are at least `every` apart; their numbers go to `numbers`."""
    following = 0
    for number, image in frames:
        if number >= following:
            following = number + every
            numbers.append(number)
            yield image

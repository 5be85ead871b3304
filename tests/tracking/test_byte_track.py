"""ByteTrack against a plain one, on made tracks: crossings, occlusion, doubtful scores.

The plain one knows no matrices: DeepSORT's noise is independent in the four coordinates, so that its filter
is four filters of a position and a velocity; and it tries every assignment there is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fssd.errors import ConfigError
from fssd.inference.detections import Detections
from fssd.tracking.byte_track import ByteTrack

pytest.importorskip("scipy", reason='needs SciPy: pip install "fssd[track]"')

Row = tuple[int, float, tuple[float, ...]]  # label, score, box


def found(rows: list[Row]) -> Detections:
    boxes = np.array([box for *_, box in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in rows], np.float32)
    return Detections(boxes, scores, np.array([label for label, *_ in rows], np.int64), ("cat", "dog"))


class Plain:
    """One coordinate: position p, velocity v, and the covariance (a, b; b, c)."""

    def __init__(self, p: float, place: float, speed: float) -> None:
        self.p, self.v, self.a, self.b, self.c = p, 0.0, place**2, 0.0, speed**2

    def predict(self, place: float, speed: float) -> None:
        self.p += self.v
        self.a, self.b = self.a + 2 * self.b + self.c + place**2, self.b + self.c
        self.c += speed**2

    def update(self, seen: float, noise: float) -> None:
        whole = self.a + noise**2
        first, second = self.a / whole, self.b / whole
        self.p, self.v = self.p + first * (seen - self.p), self.v + second * (seen - self.p)
        self.c -= second * self.b
        self.a, self.b = (1 - first) * self.a, (1 - first) * self.b


def shape(box: Any) -> list[float]:
    x1, y1, x2, y2 = map(float, box)
    return [(x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / (y2 - y1), y2 - y1]


def plain_iou(a: Any, b: Any) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


class PlainTracker:
    def __init__(self, high: float = 0.5, low: float = 0.1, buffer: int = 30) -> None:
        self.high, self.low, self.buffer = high, low, buffer
        self.tracks: list[dict[str, Any]] = []
        self.frame = self.count = 0

    def box(self, track: dict[str, Any]) -> list[float]:
        x, y, aspect, height = (one.p for one in track["filters"])
        return [x - aspect * height / 2, y - height / 2, x + aspect * height / 2, y + height / 2]

    def pair(self, tracks: list[Any], rows: list[tuple[int, Row]], least: float) -> dict[int, int]:
        """From index of track to index in the frame: most pairs, and of those the best sum of IoU."""
        allowed = [
            {
                index: shared
                for index, (label, _, box) in rows
                if label == track["label"] and (shared := plain_iou(self.box(track), box)) >= least
            }
            for track in tracks
        ]

        def best(number: int, taken: frozenset[int]) -> tuple[int, float, dict[int, int]]:
            if number == len(tracks):
                return 0, 0.0, {}
            options = [best(number + 1, taken)]
            for index in allowed[number].keys() - taken:
                count, total, pairs = best(number + 1, taken | {index})
                options.append((count + 1, total + allowed[number][index], {number: index, **pairs}))
            return max(options, key=lambda one: one[:2])

        return best(0, frozenset())[2]

    def update(self, rows: list[Row]) -> list[tuple[int, int]]:
        """(index of the detection, number) of the tracked objects of a frame."""
        self.frame += 1
        for track in self.tracks:
            x, y, aspect, height = track["filters"]
            if track["lost"]:
                height.v = 0.0
            place, speed = height.p / 20, height.p / 160
            aspect.predict(1e-2, 1e-5)
            for one in (x, y, height):
                one.predict(place, speed)
        given: dict[int, int] = {}
        sure = [(n, row) for n, row in enumerate(rows) if row[1] >= self.high]
        doubtful = [(n, row) for n, row in enumerate(rows) if self.low <= row[1] < self.high]
        pairs = self.pair(self.tracks, sure, 0.2)
        rest = [t for n, t in enumerate(self.tracks) if n not in pairs and not t["lost"]]
        joined = [(self.tracks[n], index) for n, index in pairs.items()]
        joined += [(rest[n], index) for n, index in self.pair(rest, doubtful, 0.5).items()]
        for track, index in joined:
            noise = track["filters"][3].p / 20
            for one, seen, own in zip(
                track["filters"], shape(rows[index][2]), (noise, noise, 0.1, noise), strict=True
            ):
                one.update(seen, own)
            track["seen"], given[index] = self.frame, track["number"]
        for track in self.tracks:
            track["lost"] = track["seen"] < self.frame
        self.tracks = [track for track in self.tracks if self.frame - track["seen"] <= self.buffer]
        for index, (label, _, box) in sure:
            if index not in given:
                self.count += 1
                x, y, aspect, height = shape(box)
                large, fast = height / 10, height / 16
                filters = [Plain(x, large, fast), Plain(y, large, fast)]
                filters += [Plain(aspect, 1e-2, 1e-5), Plain(height, large, fast)]
                track = {"filters": filters, "label": label, "number": self.count, "seen": self.frame}
                self.tracks.append({**track, "lost": False})
                given[index] = self.count
        return sorted(given.items())


def scene(seed: int) -> list[list[Row]]:
    """Sixty frames of four objects that move, cross, hide and are doubted, with false detections."""
    random = np.random.default_rng(seed)
    places, speeds = random.uniform(50, 400, (4, 2)), random.normal(0, 6, (4, 2))
    sizes, labels = random.uniform(30, 90, (4, 2)), random.integers(0, 2, 4)
    hidden = [(start, start + length) for start, length in random.integers(5, 45, (4, 2))]
    frames = []
    for number in range(60):
        rows: list[Row] = []
        for index in random.permutation(4).tolist():
            if hidden[index][0] <= number < hidden[index][1] and random.random() < 0.9:
                continue
            centre = places[index] + speeds[index] * number + random.normal(0, 1.5, 2)
            size = sizes[index] * random.normal(1, 0.03, 2)
            box = tuple(np.float32([*(centre - size / 2), *(centre + size / 2)]).tolist())
            rows.append((int(labels[index]), float(np.float32(random.uniform(0.02, 1))), box))
        if random.random() < 0.2:
            x, y = random.uniform(0, 400, 2).tolist()
            rows.append((0, 0.9, tuple(np.float32([x, y, x + 40, y + 40]).tolist())))
        frames.append(rows)
    return frames


@pytest.mark.parametrize("seed", range(12))
def test_made_tracks_get_the_numbers_of_the_plain_tracker(seed: int) -> None:
    tracker, plain = ByteTrack(0.5, 0.1, 12), PlainTracker(0.5, 0.1, 12)
    for rows in scene(seed):
        expected = plain.update(rows)
        tracked = tracker.update(found(rows))
        assert tracked.tracks is not None
        assert tracked.tracks.tolist() == [number for _, number in expected]
        wanted = np.array([rows[index][2] for index, _ in expected], np.float32).reshape(-1, 4)
        assert np.array_equal(tracked.boxes, wanted)
    assert tracker.total == plain.count > 4


def moving(start: float, step: float, frames: int) -> list[tuple[float, ...]]:
    return [(start + step * n, 100.0, start + step * n + 40, 140.0) for n in range(frames)]


def test_objects_that_cross_keep_their_numbers() -> None:
    tracker = ByteTrack()
    there, back = moving(0, 10, 31), moving(307, -10, 31)
    for left, right in zip(there, back, strict=True):
        tracked = tracker.update(found([(0, 0.9, left), (0, 0.8, right)]))
        assert tracked.tracks is not None and tracked.tracks.tolist() == [1, 2]


@pytest.mark.parametrize(("gap", "numbers"), [(31, {1}), (32, {1, 2})])
def test_an_object_is_remembered_for_as_long_as_the_buffer(gap: int, numbers: set[int]) -> None:
    """It stands still, and is out of sight in 30 or in 31 frames."""
    tracker, seen = ByteTrack(buffer=30), set()
    box = (10.0, 10.0, 60.0, 60.0)
    for number in range(6 + gap):
        rows: list[Row] = [] if 5 < number < 5 + gap else [(0, 0.9, box)]
        tracks = tracker.update(found(rows)).tracks
        assert tracks is not None
        seen |= set(tracks.tolist())
    assert seen == numbers


def test_a_doubtful_detection_goes_on_with_a_track_and_starts_none() -> None:
    tracker = ByteTrack(0.5, 0.1)
    numbers = []
    for score in (0.3, 0.9, 0.3, 0.05, 0.3, 0.9):
        tracks = tracker.update(found([(0, score, (10, 10, 60, 60))])).tracks
        assert tracks is not None
        numbers.append(tracks.tolist())
    assert numbers == [[], [1], [1], [], [], [1]], "lost in the fourth frame, only a sure one finds it again"


def test_a_class_has_its_own_score_for_a_start() -> None:
    tracker = ByteTrack(0.5, 0.1, class_scores={"dog": 0.8})
    rows: list[Row] = [(0, 0.6, (10, 10, 60, 60)), (1, 0.6, (110, 10, 160, 60))]
    assert tracker.update(found(rows)).labels.tolist() == [0]
    rows[1] = (1, 0.8, (110, 10, 160, 60))
    assert tracker.update(found(rows)).labels.tolist() == [0, 1]
    assert tracker.update(found([(1, 0.2, (110, 10, 160, 60))])).labels.tolist() == [1], "a doubtful one"


def test_an_object_keeps_its_class() -> None:
    tracker = ByteTrack()
    tracker.update(found([(0, 0.9, (10, 10, 60, 60))]))
    tracks = tracker.update(found([(1, 0.9, (10, 10, 60, 60))])).tracks
    assert tracks is not None and tracks.tolist() == [2]


def test_frames_that_were_lost_count() -> None:
    """At 10 pixels a frame, an object of 40 is five frames later beyond where it was."""
    tracker = ByteTrack()
    boxes = moving(0, 10, 30)
    for box in boxes[:20]:
        tracker.update(found([(0, 0.9, box)]))
    tracks = tracker.update(found([(0, 0.9, boxes[25])]), frames=6).tracks
    assert tracks is not None and tracks.tolist() == [1]


def test_wrong_settings_and_a_missing_package(refuse: Callable[[str], None]) -> None:
    low = {"class_scores": {"cat": 0.05}}, {"class_scores": {"cat": 2}}
    for settings in ({"high": 2}, {"low": -1}, {"buffer": -1}, {"high": 0.1, "low": 0.2}, *low):
        with pytest.raises(ConfigError):
            ByteTrack(**settings)
    refuse("scipy.optimize")
    with pytest.raises(ConfigError, match=r"fssd\[track\]"):
        ByteTrack()

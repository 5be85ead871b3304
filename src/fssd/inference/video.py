"""Reading and writing of film files, with OpenCV's FFmpeg, or PyAV's for AV1."""

from __future__ import annotations

import os
import sys
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from fssd.atomic import atomic_path
from fssd.data.sample import Image
from fssd.errors import ImageError
from fssd.inference.containers import empty_frames, is_cut_short, is_damaged, may_have_sound
from fssd.inference.edit_list import shown_frames
from fssd.inference.frame_size import sized, writable_size
from fssd.inference.mp4_boxes import fragment_frames, mirrored_axis
from fssd.inference.pyav_capture import PyAvCapture

# FFmpeg's own lines about damage name no file. `Film.require_whole` says the same of a file's frames.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

UNKNOWN_RATE = 25.0
COUNTING = frozenset({".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".avi"})  # containers that count their frames
MOST_FAILURES = 100_000  # undecodable frames in a row, after which a film is taken to end there
AV1 = frozenset(cv2.VideoWriter.fourcc(*name) for name in ("AV01", "av01"))
MOST_TICKS = 65535  # a second, of MPEG-4's time base

Capture = cv2.VideoCapture | PyAvCapture


class Film:
    """A film file, to be read once from start to end.

    rate: frames per second, 25 if the file states none that is possible. declared: how many frames the file
    says it has, 0 if it does not. decoded: the numbers, from 0, of the frames that `frames` has given so far.
    times: when each of them is shown, in seconds from the start, also where the rate varies. lost: ranges of
    the numbers of those that could not be decoded. pixel_shape: the width by height of a pixel. The frames
    are turned upright and mirrored as the film says. Raises ImageError if it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_cut = is_cut_short(path)
        self.decoded: list[int] = []
        self.times: list[float] = []
        self.lost: list[range] = []
        self._last = -1
        self._mirrored = mirrored_axis(path)
        with _opened(path) as capture:
            rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
            self.pixel_shape = _pixel_shape(capture)
        self.rate = rate if 0.01 <= rate <= 1000 else UNKNOWN_RATE
        self.declared = int(count) if count > 0 else 0
        if counted := fragment_frames(path):
            self.declared = counted  # instead of an estimate by the length, which may be that of the sound
        elif shown := shown_frames(path):  # FFmpeg gives none of those before and after
            self.declared = min(self.declared, shown)

    def frames(self, start: int = 0) -> Iterator[Image]:
        """The frames, (H, W, 3) uint8 RGB, one at a time, also those behind frames that cannot be decoded.

        start: the number of the first one to give; those before are decoded too, to count them.
        """
        last, failures, seconds = -1, 0, 0.0  # seconds: at the start of the last frame
        with _opened(self.path) as capture:
            while failures <= MOST_FAILURES and (last + failures + 1 < self.declared or not failures):
                if not capture.grab():
                    failures += 1
                    continue
                before, seconds = seconds, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                failures += self._skipped(seconds - before) if last >= 0 else 0
                self._lose(last + 1, last + 1 + failures)
                last, failures = last + 1 + failures, 0
                self._last = last
                if last < start:
                    continue
                good, frame = capture.retrieve()
                if not good:
                    self._lose(last, last + 1)
                    continue
                self.decoded.append(last)
                self.times.append(self._time(last, seconds))
                if self._mirrored is not None:
                    frame = cv2.flip(frame, self._mirrored)
                yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
        if self._ends_early(last, seconds):
            self._lose(last + 1, self.declared)

    def require_whole(self, start: int = 0, stop: int | None = None) -> None:
        """Raise ImageError with the numbers of frames that could not be decoded. For use after `frames`.

        start, stop: the frames that it is about, from `start` to before `stop`.
        """
        end = sys.maxsize if stop is None else stop
        first, behind = bisect_left(self.decoded, start), bisect_left(self.decoded, end)
        if not self.decoded and not start:
            reason = "holds no frame that can be decoded; convert it, for example to H.264 in mp4"
            raise ImageError(reason, file=self.path)
        cut = (range(max(one.start, start), min(one.stop, end)) for one in self.lost)
        lost = [one for one in cut if one]
        if not lost:
            if self._is_cut and stop is None:
                reason = f"is cut short after frame {self._last}; fetch the film again"
                raise ImageError(reason, file=self.path)
            return
        count = sum(map(len, lost))
        names = [f"{one[0]} to {one[-1]}" if len(one) > 1 else f"{one[0]}" for one in lost]
        shown = ", ".join(names[:5] + ["..."] * (len(names) > 5))
        total = count + behind - first
        reason = f"{count} of {total} frames cannot be decoded ({shown}); fetch the film again or convert it"
        raise ImageError(reason, file=self.path)

    def _skipped(self, step: float) -> int:
        """Frames that a damaged container has lost without a word. step: seconds since the last frame.

        A gap in time by itself is none: films of variable rate have them.
        """
        missing = round(step * self.rate) - 1
        return missing if missing > 0 and self._is_damaged else 0

    @cached_property
    def _is_damaged(self) -> bool:
        return is_damaged(self.path)

    def _lose(self, start: int, end: int) -> None:
        if start < end:
            self.lost.append(range(start, end))

    def _ends_early(self, last: int, seconds: float) -> bool:
        """Whether frames are missing at the end. last: the number of the last one, seconds: its time.

        Containers that hold no number of frames are judged leniently unless the file itself is cut short:
        theirs is estimated from the length, which is that of the sound where it goes on for longer.
        """
        if last < 0:
            return True
        done = last + 1.0
        if self.path.suffix.lower() in COUNTING:
            if done < self.declared:
                self.declared -= empty_frames(self.path)
            return done < self.declared
        missing = self.declared - max(done, seconds * self.rate + 1)
        if self._is_cut:
            return missing >= 1
        allowed = max(self.rate, 0.05 * self.declared) if may_have_sound(self.path) else 2
        return missing > allowed

    def _time(self, number: int, seconds: float) -> float:
        """The time of a frame; where the container's stands still, one frame after the last."""
        if not self.times:
            return seconds if seconds > 0 else number / self.rate
        return seconds if seconds > self.times[-1] else self.times[-1] + 1 / self.rate


class FilmWriter:
    """Writes frames to an .mp4 file, which appears under its name when the block ends, also by an exception.

    rate: frames per second, rounded to what MPEG-4 can hold. The first frame gives the size: an odd one loses
    a row or column, and what MPEG-4 cannot hold is scaled. Without a frame there will be no file. Raises
    ImageError if the film cannot be written, or not whole.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path = path
        self.rate = _writable_rate(rate)
        self._files = ExitStack()
        self._writer: cv2.VideoWriter | None = None
        self._count = 0

    def write(self, image: Image, times: int = 1) -> None:
        """Add (H, W, 3) uint8 RGB, that many times."""
        if self._writer is None:
            self._size = writable_size(image.shape[1], image.shape[0])
            with ExitStack() as files:
                self._file = files.enter_context(atomic_path(self.path))
                self._writer = self._open()
                self._files = files.pop_all()
        frame = cv2.cvtColor(sized(image, self._size), cv2.COLOR_RGB2BGR)
        for _ in range(times):
            self._writer.write(frame)
        self._count += times

    def __enter__(self) -> FilmWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with self._files:
            if self._writer is not None:
                self._writer.release()
                # OpenCV's `write` does not say whether it wrote.
                if not self._file.is_file() or _frame_count(self._file) < self._count:
                    raise ImageError(
                        "could not be written whole; check that the disk has room", file=self.path
                    )

    def _open(self) -> cv2.VideoWriter:
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        with _plain_path(self._file) as path:
            writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, codec, self.rate, self._size)
        if not writer.isOpened():
            width, height = self._size
            reason = f"OpenCV cannot write {width} x {height} MPEG-4 at {self.rate:g} frames a second here"
            raise ImageError(f"{reason}; leave the film out with --no-pictures", file=self.path)
        return writer


def _frame_count(path: Path) -> int:
    with _opened(path) as capture:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT))


def _writable_rate(rate: float) -> float:
    """The rate with as many digits as MPEG-4's time base can hold."""
    fractions = (Fraction(round(rate * scale), scale) for scale in (1000, 100, 10, 1))
    return float(next(one for one in fractions if 0 < one.numerator <= MOST_TICKS))


def _pixel_shape(capture: Capture) -> Fraction:
    """Width by height of a pixel of the upright frames; 1 where the film does not say. May take a frame."""
    width, height = int(capture.get(cv2.CAP_PROP_SAR_NUM)), int(capture.get(cv2.CAP_PROP_SAR_DEN))
    if width <= 0 or height <= 0 or width == height:
        return Fraction(1)
    is_turned = capture.grab() and capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180 != 0
    return Fraction(height, width) if is_turned else Fraction(width, height)


@contextmanager
def _opened(path: Path) -> Iterator[Capture]:
    with _plain_path(path) as text:
        capture = _capture(text, path)
    try:
        yield capture
    finally:
        capture.release()


def _capture(text: str, path: Path) -> Capture:
    """The film at its first frame. text: its path for OpenCV."""
    capture = cv2.VideoCapture(text, cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise ImageError("cannot be opened as a video; check that it plays elsewhere", file=path)
    if int(capture.get(cv2.CAP_PROP_FOURCC)) not in AV1:
        return capture
    can_decode = capture.grab()
    capture.release()
    if can_decode:
        return cv2.VideoCapture(text, cv2.CAP_FFMPEG)
    return PyAvCapture(text, path)


@contextmanager
def _plain_path(path: Path) -> Iterator[str]:
    """A path that OpenCV can open.

    An absolute one, because FFmpeg takes `http:a.mp4` for a URL. A name that is not UTF-8 ends the process in
    OpenCV, so a link stands for it.
    """
    absolute = path.absolute()
    if absolute == Path(str(absolute).encode("utf-8", "replace").decode()):
        yield str(absolute)
        return
    with TemporaryDirectory() as folder:
        link = Path(folder, f"film{path.suffix}")
        link.symlink_to(absolute)
        yield str(link)

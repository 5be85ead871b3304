"""Live sources: cameras, addresses of streams, and pictures on stdin."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, BinaryIO

import cv2
import numpy as np

from fssd.data.sample import Image
from fssd.errors import ImageError
from fssd.inference.jpeg_stream import Report, pictures_of

PATIENCE = 10_000  # milliseconds for an address to answer, and for each picture of it
PAUSE = 1.0  # seconds before an attempt to connect again
FAREWELL = 2.0  # seconds that the reading thread has to end
READER = "reader of a live source"  # the name of that thread
_STREAM = re.compile(r"(rtsps?|rtmp|https?|udp|tcp)://", re.IGNORECASE)
_DEVICE = re.compile(r"/dev/video(\d+)")

Frames = Iterator[tuple[int, Image]]
OpenFrames = Generator[tuple[int, Image], None, None]
"""Frames of a source that is read until they are closed."""
Capture = Any
"""What OpenCV's VideoCapture is: `isOpened()`, `read()` gives (good, BGR frame), `release()`."""


def is_live(argument: str) -> bool:
    """Whether a source is `-`, the number or device of a camera, or the address of a stream."""
    if argument == "-" or _STREAM.match(argument) or _DEVICE.fullmatch(argument):
        return True
    return argument.isdecimal() and not Path(argument).exists()


def public_name(source: str) -> str:
    """The source without the user and password that an address may hold, which may hold @ themselves."""
    return re.sub(r"://[^/]*@", "://", source)


def is_reading() -> bool:
    """Whether a thread still waits for a picture, of a source that was closed too."""
    return any(thread.name == READER for thread in threading.enumerate())


def open_live(source: str, stdin: BinaryIO, reconnect: int, report: Report) -> OpenFrames:
    """The numbers, from 0, and pixels (H, W, 3) uint8 RGB of frames.

    Of a camera or stream the newest frame, however many have come since the last one; after a failure it is
    connected again, at most `reconnect` times in a row. Of stdin every picture: who writes there waits; one
    of several that is damaged goes to `report`. Raises ImageError, at once if the source cannot be opened.
    """
    if source == "-":
        return pictures_of(stdin, report)
    return NewestFrames(lambda: open_capture(source), public_name(source), reconnect).frames()


def open_capture(source: str) -> Capture:
    """OpenCV's capture of a camera or an address."""
    device = _DEVICE.fullmatch(source)
    if device or source.isdecimal():
        return cv2.VideoCapture(int(device[1] if device else source))
    waiting = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, PATIENCE, cv2.CAP_PROP_READ_TIMEOUT_MSEC, PATIENCE]
    return cv2.VideoCapture(source, cv2.CAP_FFMPEG, waiting)


class NewestFrames:
    """Reads a source in a thread of its own and keeps its newest frame alone.

    connect: opens the source. name: for messages. reconnect: attempts in a row. pause: seconds before each.
    """

    def __init__(
        self, connect: Callable[[], Capture], name: str, reconnect: int, pause: float = PAUSE
    ) -> None:
        self._connect, self._name, self._reconnect, self._pause = connect, name, reconnect, pause
        self._lock, self._news, self._stop = Lock(), Event(), Event()
        self._newest: tuple[int, Image] | None = None
        self._error: ImageError | None = None

    def frames(self) -> OpenFrames:
        """Frames until the source is lost for good. Raises ImageError."""
        capture = self._connect()
        if not capture.isOpened():
            capture.release()
            raise ImageError(f"{self._name}: cannot be opened; check the name, and that nothing else uses it")
        reader = Thread(target=self._read, args=(capture,), name=READER, daemon=True)
        reader.start()
        try:
            while True:
                self._news.wait()
                with self._lock:
                    frame, self._newest = self._newest, None
                    self._news.clear()
                    error = self._error
                    if error is not None:
                        self._news.set()  # for the call that follows the last frame
                if frame is not None:
                    yield frame[0], np.asarray(cv2.cvtColor(frame[1], cv2.COLOR_BGR2RGB), np.uint8)
                elif error is not None:
                    raise error
        finally:
            self._stop.set()
            # A thread that comes out of OpenCV while Python ends makes it abort; `main` ends without it.
            reader.join(FAREWELL)

    def _read(self, capture: Capture) -> None:
        """Run in the thread. Whatever goes wrong reaches the one who waits for a frame."""
        try:
            self._read_all(capture)
        except Exception as error:
            self._tell(None, ImageError(f"{self._name}: cannot be read ({error}); check it, and start again"))

    def _read_all(self, capture: Capture) -> None:
        number = failures = 0
        while not self._stop.is_set():
            good, frame = capture.read()
            if good:
                self._tell((number, frame), None)
                number, failures = number + 1, 0
                continue
            capture.release()
            if failures == self._reconnect:
                reason = f"gives no more pictures, after {failures} attempts to connect again"
                self._tell(None, ImageError(f"{self._name}: {reason}; check it, or raise --reconnect"))
                return
            failures += 1
            if self._stop.wait(self._pause):
                return
            capture = self._connect()
        capture.release()

    def _tell(self, frame: tuple[int, Image] | None, error: ImageError | None) -> None:
        with self._lock:
            self._newest = frame or self._newest
            self._error = error
            self._news.set()

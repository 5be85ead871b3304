"""Live sources: cameras, addresses of streams, and pictures on stdin."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, BinaryIO

import cv2
import numpy as np

from fssd.data.decode import decode_image
from fssd.data.sample import Image
from fssd.errors import ImageError

PATIENCE = 10_000  # milliseconds for an address to answer, and for each picture of it
PAUSE = 1.0  # seconds before an attempt to connect again
FAREWELL = 2.0  # seconds that the reading thread has to end
_STREAM = re.compile(r"(rtsps?|rtmp|https?|udp|tcp)://", re.IGNORECASE)
_DEVICE = re.compile(r"/dev/video(\d+)")
_BLOCK = 1 << 16
_START, _END = b"\xff\xd8", 0xD9  # of a JPEG

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
    """The source without the user and password that an address may hold."""
    return re.sub(r"://[^/@]*@", "://", source)


def open_live(source: str, stdin: BinaryIO, reconnect: int) -> OpenFrames:
    """The numbers, from 0, and pixels (H, W, 3) uint8 RGB of frames.

    Of a camera or stream the newest frame, however many have come since the last one; after a failure it is
    connected again, at most `reconnect` times in a row. Of stdin every picture: who writes there waits.
    Raises ImageError, at once if the source cannot be opened.
    """
    if source == "-":
        return pictures_of(stdin)
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
        reader = Thread(target=self._read, args=(capture,), daemon=True)
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
            # A thread that comes out of OpenCV while Python ends makes it abort.
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
            time.sleep(self._pause)
            capture = self._connect()
        capture.release()

    def _tell(self, frame: tuple[int, Image] | None, error: ImageError | None) -> None:
        with self._lock:
            self._newest = frame or self._newest
            self._error = error
            self._news.set()


def pictures_of(stream: BinaryIO) -> OpenFrames:
    """JPEG pictures one after another (Motion JPEG, also with headers between them), or one of any format.

    Raises ImageError for one that cannot be decoded or is cut short, and if there is none.
    """
    data, number = bytearray(stream.read(2)), 0
    is_motion = bytes(data) in (_START, b"--", b"\r\n")  # as it is, or in parts as HTTP sends it
    if not is_motion:
        yield 0, decode_image(bytes(data) + stream.read(), "stdin")
        return
    while block := _read_some(stream):
        data += block
        while (span := _next_jpeg(data)) is not None:
            yield number, decode_image(bytes(data[span[0] : span[1]]), f"stdin#{number}")
            del data[: span[1]]
            number += 1
    if _START in data:
        raise ImageError(f"stdin#{number}: is cut short; check what writes it")
    if not number:
        raise ImageError("stdin: holds no picture; pipe a picture or Motion JPEG to it")


def _read_some(stream: BinaryIO) -> bytes:
    """What is there by now, so that a picture is seen as soon as it has come."""
    read = getattr(stream, "read1", stream.read)
    return bytes(read(_BLOCK))


def _next_jpeg(data: bytearray) -> tuple[int, int] | None:
    """Where the first JPEG begins and ends, None if it is not there whole.

    Segments are skipped by their lengths, for a picture within (a thumbnail) has an end too.
    """
    start = data.find(_START)
    at = start + 2
    while start >= 0 and at + 2 <= len(data):
        kind = data[at + 1]
        if data[at] != 0xFF or kind == 0 or 0xD0 <= kind <= 0xD7:  # coded data, up to the next marker
            at = data.find(0xFF, at + 1)
            if at < 0:
                return None
        elif kind == _END:
            return start, at + 2
        elif kind == 0xFF:  # a fill byte
            at += 1
        elif at + 4 > len(data):
            return None
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None

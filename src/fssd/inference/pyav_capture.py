"""Films in a codec that OpenCV's wheels do not decode, AV1, read by PyAV (the extra `video`)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fssd.errors import ImageError

MICROSECONDS = 1_000_000  # a second of a container's length


class PyAvCapture:
    """The methods of cv2.VideoCapture that reading a film takes, with the same meaning.

    text: `path` as FFmpeg can open it. Raises ImageError without PyAV, and for a file that cannot be opened.
    """

    def __init__(self, text: str, path: Path) -> None:
        try:
            import av
        except ImportError:
            reason = "is in AV1, which this OpenCV does not decode"
            advice = 'pip install "fssd[video]", or convert it to H.264'
            raise ImageError(f"{reason}; {advice}", file=path) from None
        self._errors = av.FFmpegError
        try:
            self._film = av.open(text)
        except av.FFmpegError as error:
            raise ImageError(f"cannot be opened as a video ({error.strerror})", file=path) from error
        self._stream: Any = self._film.streams.video[0]
        self._stream.thread_type = "AUTO"
        self._frames = self._decoded()
        self._frame: Any = None

    def get(self, what: int) -> float:
        """The rate, the number of frames, a pixel's width or height by the other one; of the frame that was
        taken, the degrees that it is turned by, or the milliseconds from the start to it.
        """
        if what == cv2.CAP_PROP_FPS:
            return float(self._stream.average_rate or 0)
        if what == cv2.CAP_PROP_FRAME_COUNT:
            return float(self._stream.frames or self._estimated_frames())
        if what in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN):
            shape = self._stream.sample_aspect_ratio or Fraction(1)
            return float(shape.numerator if what == cv2.CAP_PROP_SAR_NUM else shape.denominator)
        if what == cv2.CAP_PROP_ORIENTATION_META:
            return float(self._frame.rotation % 360)
        assert what == cv2.CAP_PROP_POS_MSEC
        if self._frame.pts is None:
            return 0.0
        return 1000 * float((self._frame.pts - (self._stream.start_time or 0)) * self._stream.time_base)

    def grab(self) -> bool:
        """Go to the next frame. False for a packet that cannot be decoded, and at the end."""
        self._frame = next(self._frames, None)
        return self._frame is not None

    def retrieve(self) -> tuple[bool, Any]:
        """The frame, (H, W, 3) uint8 BGR, upright as the film says."""
        try:
            image = self._frame.to_ndarray(format="bgr24")
        except self._errors:
            return False, None
        return True, np.ascontiguousarray(np.rot90(image, self._frame.rotation // 90))

    def release(self) -> None:
        self._film.close()

    def _decoded(self) -> Iterator[Any]:
        """The frames, and None for each packet that gives none because it is damaged."""
        for packet in self._packets():
            try:
                yield from self._stream.codec_context.decode(packet)
            except self._errors:
                yield None

    def _packets(self) -> Iterator[Any]:
        """The packets, and at the end, also of a file that breaks off, what empties the decoder."""
        try:
            yield from self._film.demux(self._stream)
        except self._errors:
            yield None

    def _estimated_frames(self) -> int:
        seconds = (self._film.duration or 0) / MICROSECONDS
        return round(seconds * self.get(cv2.CAP_PROP_FPS))

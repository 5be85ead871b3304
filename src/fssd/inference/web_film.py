"""Films that browsers play: VP9 with Opus sound in an MP4 file, by PyAV (the extra `video`)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fssd.atomic import atomic_path
from fssd.data.sample import Image
from fssd.errors import ImageError
from fssd.inference.frame_size import sized, writable_size

TICKS = Fraction(1, 90_000)  # seconds; the clock of MPEG, in which all common rates are whole numbers
SOUND_RATE = 48_000  # samples a second, of Opus
_VP9 = {"crf": "31", "b": "0", "deadline": "realtime", "cpu-used": "7", "row-mt": "1", "g": "120"}
_FULL = (errno.ENOSPC, errno.EDQUOT)


class WebFilmWriter:
    """Writes frames at given times to an .mp4 file, which appears under its name when the block ends.

    rate: frames per second, a hint for the encoder: times decide. sound: a film whose first sound track is
    kept, as Opus, up to the last frame. The first frame gives the size; an odd one loses a row or column.
    Without a frame there will be no file. Raises ImageError if the film cannot be written, OSError for a full
    disk.
    """

    def __init__(self, path: Path, rate: float, sound: Path | None = None) -> None:
        self.path = path
        self._rate = Fraction(rate).limit_denominator(1001)
        self._sound_of = sound
        self._files = ExitStack()
        self._film: Any = None
        self._last = -1  # ticks
        self._sound: Iterator[tuple[float, Any]] = iter(())
        self._waiting: tuple[float, Any] | None = None  # a sound packet and its time

    def write(self, image: Image, seconds: float) -> None:
        """Add (H, W, 3) uint8 RGB, shown from `seconds` after the film's start. Times have to rise."""
        import av

        try:
            if self._film is None:
                self._open(image)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(sized(image, self._size)), format="rgb24")
            self._last = max(self._last + 1, round(seconds / TICKS))
            frame.pts, frame.time_base = self._last, TICKS
            self._add_sound(seconds)
            self._film.mux(self._stream.encode(frame))
        except av.error.FFmpegError as error:
            raise self._failure(error) from error

    def __enter__(self) -> WebFilmWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with self._files:
            if self._film is not None:
                self._close()

    def _open(self, image: Image) -> None:
        import av

        self._size = width, height = writable_size(image.shape[1], image.shape[0])
        with ExitStack() as files:
            file = files.enter_context(atomic_path(self.path))
            film = files.enter_context(av.open(str(file), "w", options={"movflags": "faststart"}))
            self._stream = film.add_stream("libvpx-vp9", rate=self._rate, options=_VP9)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
            self._stream.codec_context.time_base = TICKS
            if self._sound_of is not None:
                self._sound = _sound_packets(files, self._sound_of, film)
            self._waiting = next(self._sound, None)
            self._film, self._files = film, files.pop_all()

    def _close(self) -> None:
        import av

        try:
            self._film.mux(self._stream.encode())
            self._add_sound(self._last * float(TICKS) + 1 / float(self._rate))
            self._film.close()
        except av.error.FFmpegError as error:
            raise self._failure(error) from error

    def _add_sound(self, until: float) -> None:
        while self._waiting is not None and self._waiting[0] < until:
            self._film.mux(self._waiting[1])
            self._waiting = next(self._sound, None)

    def _failure(self, error: Any) -> Exception:
        if error.errno in _FULL:
            return OSError(error.errno, error.strerror, str(self.path))
        reason = f"cannot be written as VP9 ({error.strerror}); leave the film out with --no-pictures"
        return ImageError(reason, file=self.path)


def _sound_packets(files: ExitStack, source_file: Path, film: Any) -> Iterator[tuple[float, Any]]:
    """The sound of `source_file` for `film`, as (seconds, Opus packet); empty if it has none to decode."""
    import av

    source = files.enter_context(av.open(str(source_file.absolute())))
    tracks = source.streams.audio
    if not tracks or tracks[0].codec_context is None:
        return iter(())
    layout = "mono" if tracks[0].channels == 1 else "stereo"
    target = film.add_stream("libopus", rate=SOUND_RATE, layout=layout)
    resampler = av.AudioResampler(format="s16", layout=layout, rate=SOUND_RATE)
    start = _start(source)

    def packets() -> Iterator[tuple[float, Any]]:
        for decoded in _decoded(source, tracks[0]):
            for frame in _resampled(resampler, decoded, start):
                yield from _timed(target.encode(frame))
        yield from _timed(target.encode())

    return packets()


def _start(source: Any) -> float:
    """Seconds at which the pictures start: times of frames count from there."""
    pictures = source.streams.video
    if not pictures or pictures[0].start_time is None:
        return 0.0
    return float(pictures[0].start_time * pictures[0].time_base)


def _decoded(source: Any, track: Any) -> Iterator[Any]:
    """The sound's frames; what cannot be decoded is silence, as the pictures tell of damage."""
    import av

    with suppress(av.error.FFmpegError):
        for packet in source.demux(track):
            with suppress(av.error.FFmpegError):
                yield from packet.decode()


def _resampled(resampler: Any, frame: Any, start: float) -> Iterator[Any]:
    if frame.pts is not None:
        frame.pts = round(frame.pts - start / frame.time_base)
    yield from resampler.resample(frame)


def _timed(packets: Any) -> Iterator[tuple[float, Any]]:
    for packet in packets:
        if packet.pts is not None:
            yield float(packet.pts * packet.time_base), packet


def can_write() -> bool:
    """Whether PyAV is here and can encode VP9 and Opus."""
    try:
        import av
    except ImportError:
        return False
    return {"libvpx-vp9", "libopus"} <= av.codecs_available

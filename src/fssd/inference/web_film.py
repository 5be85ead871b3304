"""Films that browsers play: VP9 with Opus sound in an MP4 file, by PyAV (the extra `video`)."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from itertools import chain, groupby
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from fssd.atomic import atomic_path
from fssd.data.sample import Image
from fssd.errors import ImageError
from fssd.inference.frame_size import sized, writable_size

TICKS = Fraction(1, 90_000)  # seconds; the clock of MPEG, in which all common rates are whole numbers
SQUARE = Fraction(1)
SOUND_RATE = 48_000  # samples a second, of Opus
JUMP = 1.0  # seconds back in a sound track that are more than an overlap
_VP9 = {"crf": "31", "b": "0", "deadline": "realtime", "cpu-used": "7", "row-mt": "1", "g": "120"}
_FULL = (errno.ENOSPC, errno.EDQUOT)


class WebFilmWriter:
    """Writes frames at given times to an .mp4 file, which appears under its name when the block ends.

    rate: frames per second, a hint for the encoder: times decide. sound: a film whose first sound track is
    kept, as Opus, up to the last frame. pixel_shape: the width by height of a pixel. The first frame gives
    the size; an odd one loses a row or column. Without a frame there will be no file. Raises ImageError if
    the film cannot be written, OSError for a full disk.
    """

    def __init__(
        self, path: Path, rate: float, sound: Path | None = None, pixel_shape: Fraction = SQUARE
    ) -> None:
        self.path = path
        self._pixel_shape = pixel_shape
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
        except (av.error.FFmpegError, ValueError) as error:
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
            self._stream.codec_context.sample_aspect_ratio = self._pixel_shape
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
        except (av.error.FFmpegError, ValueError) as error:
            raise self._failure(error) from error

    def _add_sound(self, until: float) -> None:
        while self._waiting is not None and self._waiting[0] < until:
            packet = self._waiting[1]
            self._waiting = next(self._sound, None)
            self._film.mux(packet)

    def _failure(self, error: Any) -> Exception:
        number = getattr(error, "errno", None)  # PyAV's own ValueErrors have none
        told = str(error) if number is None else error.strerror
        if number in _FULL:
            return OSError(number, told, str(self.path))
        reason = f"cannot be written as VP9 ({told}); leave the film out with --no-pictures"
        return ImageError(reason, file=self.path)


def _sound_packets(files: ExitStack, source_file: Path, film: Any) -> Iterator[tuple[float, Any]]:
    """The sound of `source_file` for `film`, as (seconds, Opus packet) at rising times; empty without any.

    What of it cannot be used is silence: the film's pictures tell of damage.
    """
    import av

    try:
        source = files.enter_context(av.open(str(source_file.absolute())))
    except av.error.FFmpegError:
        return iter(())
    tracks = source.streams.audio
    if not tracks or tracks[0].codec_context is None:
        return iter(())
    layout = "mono" if tracks[0].channels == 1 else "stereo"
    target = film.add_stream("libopus", rate=SOUND_RATE, layout=layout)
    frames = _on_one_clock(_decoded(source, tracks[0]), _start(source))
    return _encoded(target, _resampled(frames, layout))


def _start(source: Any) -> float:
    """Seconds at which the pictures start: times of frames count from there."""
    pictures = source.streams.video
    if not pictures or pictures[0].start_time is None:
        return 0.0
    return float(pictures[0].start_time * pictures[0].time_base)


def _decoded(source: Any, track: Any) -> Iterator[Any]:
    import av

    with suppress(av.error.FFmpegError):
        for packet in source.demux(track):
            with suppress(av.error.FFmpegError):
                yield from packet.decode()


def _on_one_clock(frames: Iterable[Any], start: float) -> Iterator[Any]:
    """The frames, whose times count from `start` (seconds).

    A clock that begins anew, as where recordings were joined, goes on behind what was there, as the times of
    Film do.
    """
    shift, end = -start, -inf
    for frame in frames:
        if frame.pts is not None:
            time = float(frame.pts * frame.time_base)
            if time + shift < end - JUMP:
                shift = end - time
            frame.pts = round(frame.pts + shift / frame.time_base)
            end = time + shift + frame.samples / frame.sample_rate
        yield frame


def _resampled(frames: Iterable[Any], layout: str) -> Iterator[Any]:
    """The frames as Opus takes them, also where their format changes, as broadcasts do."""
    import av

    for _, alike in groupby(frames, lambda frame: (frame.format.name, frame.layout.name, frame.sample_rate)):
        resampler = av.AudioResampler(format="s16", layout=layout, rate=SOUND_RATE)
        for frame in chain(alike, [None]):
            parts: list[Any] = []
            with suppress(av.error.FFmpegError, ValueError):
                parts = resampler.resample(frame)
            for part in parts:
                if part is None or part.pts is None:
                    continue
                part.pts = round(part.pts * part.time_base * SOUND_RATE)
                part.time_base = Fraction(1, SOUND_RATE)
                yield part


def _encoded(target: Any, frames: Iterable[Any]) -> Iterator[tuple[float, Any]]:
    """(seconds, packet); one that does not come after the last, as where recordings overlap, is left out."""
    import av

    last = -inf
    for frame in chain(frames, [None]):
        packets: list[Any] = []
        with suppress(av.error.FFmpegError, ValueError):
            packets = target.encode(frame)
        for packet in packets:
            if packet.pts is not None and packet.pts > last:
                last = packet.pts
                yield float(packet.pts * packet.time_base), packet


def can_write() -> bool:
    """Whether PyAV is here and can encode VP9 and Opus."""
    try:
        import av
    except ImportError:
        return False
    return {"libvpx-vp9", "libopus"} <= av.codecs_available

"""Films in `fssd detect`, and what follows the objects through them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fssd.atomic import atomic_write
from fssd.counted import counted
from fssd.errors import ConfigError

if TYPE_CHECKING:
    from fssd.cli.detect_flags import Detect
    from fssd.cli.detect_work import DetectWork
    from fssd.data.sample import Image
    from fssd.evaluation.results import DetectionsFile
    from fssd.inference.detector import Detector
    from fssd.inference.film_output import FilmOutput
    from fssd.inference.video import Film
    from fssd.tracking.film_tracks import FilmTracks


@dataclass
class FilmDone:
    """What a film's results hold."""

    objects: int = 0
    frames: int = 0


def check_tracking(command: Detect) -> None:
    """Raise ConfigError for settings that tracking does not know, and for lines and zones that are wrong.

    Without --track there must be neither.
    """
    flags = command.tracking
    if not flags.track:
        if flags.count_line or flags.count_zone:
            raise ConfigError("--count-line and --count-zone count tracked objects; add --track")
        return
    tracks_of(command)


def tracks_of(command: Detect, detector: Detector | None = None) -> FilmTracks | None:
    """What follows the objects of a film, None without --track. Raises ConfigError.

    detector: its kept scores hold where the command gives none.
    """
    if not command.tracking.track:
        return None
    from fssd.inference.detections import class_labels
    from fssd.tracking.film_tracks import FilmTracks

    score, own = command.thresholds.score, command.rules.given().get("class_scores", {})
    if detector is not None:
        class_labels(list(own), detector.classes)  # an error for names that it does not know
        if score is None and not own:
            own = detector.class_scores
    return FilmTracks(score, *command.tracking.points(), class_scores=own)


def note_fallback() -> None:
    from fssd.inference.film_output import FALLBACK
    from fssd.inference.web_film import can_write

    if not can_write():
        print(FALLBACK, file=sys.stderr)


def detect_film(work: DetectWork, file: Path, name: str) -> None:
    """Write a drawn film and its detections frame by frame, those that are done also after an exception."""
    if name in work.unfinished.films:
        work.done += 1
        return
    film = work.attempt(file, partial(_open_film, file))
    if film is None:
        return
    _note_tracks(file)
    _note_stale(work.command, name)
    done = FilmDone()
    tracks = tracks_of(work.command, work.detector)
    work.attempt(file, partial(_detect_frames, work, film, name, done, tracks))
    if tracks is not None:
        write = partial(
            atomic_write, work.command.folder / f"{name}.tracks.json", json.dumps(tracks.to_json())
        )
        work.attempt(file, write)
    if file not in work.faulty:
        work.unfinished.film_is_done(name)
    more = "" if tracks is None else f"; {tracks}"
    work.finish(file, f"{counted(done.objects, 'object')} in {counted(done.frames, 'frame')}{more}")


def _open_film(file: Path) -> Film:
    from fssd.inference.inputs import require_target
    from fssd.inference.video import Film

    require_target(file)
    return Film(file)


def _note_tracks(file: Path) -> None:
    from fssd.inference.mp4_boxes import picture_tracks

    if (tracks := picture_tracks(file)) > 1:
        print(f"{file}: the first of {tracks} tracks of pictures is read", file=sys.stderr)


def _note_stale(command: Detect, name: str) -> None:
    """Name what an earlier call with other flags has left beside the results that are written over."""
    drawn, tracks = command.folder / name, command.folder / f"{name}.tracks.json"
    stale = [drawn] * (not command.pictures) + [tracks] * (not command.tracking.track)
    with suppress(OSError):  # a name that is too long, which will be the error of this film
        if (command.folder / f"{name}.json").is_file():
            for path in filter(Path.is_file, stale):
                told = "is not of this detection; remove it if it is of an earlier one"
                print(f"{path}: {told}", file=sys.stderr)


def _detect_frames(
    work: DetectWork, film: Film, name: str, done: FilmDone, tracks: FilmTracks | None
) -> None:
    from fssd.evaluation.results import DetectionsFile

    command, out = work.command, work.command.folder
    picture = name if command.pictures else None
    settings = {} if tracks is None else tracks.settings(work.detector)
    with DetectionsFile(out / f"{name}.json") as results, _drawing(out / name, film, results) as writer:
        for index, found in enumerate(work.stream(film.frames(), **settings)):
            assert found.image is not None
            height, width = found.image.shape[:2]
            if tracks is not None:
                found = tracks.update(found, film.decoded[index])  # noqa: PLW2901
            if picture:
                draw = found.draw if tracks is None else partial(tracks.draw, found)
                picture = work.attempt(film.path, partial(_add_frame, writer, name, draw, index))
            results.add(f"{film.path}#{film.decoded[index]}", (width, height), found, picture)
            done.objects += len(found)
            done.frames += 1
    film.require_whole()


@contextmanager
def _drawing(file: Path, film: Film, results: DetectionsFile) -> Iterator[FilmOutput]:
    """What writes the drawn film; without one in the end, the results name none."""
    from fssd.inference.film_output import FilmOutput

    writer = FilmOutput(file, film)
    try:
        with writer:
            yield writer
    finally:
        if not writer.is_written:
            results.without_pictures()


def _add_frame(writer: FilmOutput, name: str, draw: Callable[[], Image], index: int) -> str:
    writer.add(draw(), index)
    return name

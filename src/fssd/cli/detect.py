"""fssd detect MODEL IMAGES... [--out DIR]; exit code 1 if one could not be read or written whole."""

from __future__ import annotations

import errno
import json
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

from fssd.atomic import atomic_write
from fssd.cli.options import (
    FLAT,
    BatchSize,
    Device,
    Flag,
    LiveFlags,
    Model,
    RuleFlags,
    Scales,
    ThresholdFlags,
    TileFlags,
    TrackFlags,
    parse,
    spare_inputs,
    write_each,
)
from fssd.cli.result import add_result, wants_json
from fssd.cli.signals import Ended, ending_signals
from fssd.config import Count
from fssd.errors import ConfigError, DataError, FssdError, Stopped

if TYPE_CHECKING:
    from fssd.data.sample import Image
    from fssd.evaluation.exact_rows import ExactRows
    from fssd.inference.detections import Detections
    from fssd.inference.detector import Detector
    from fssd.inference.film_output import FilmOutput
    from fssd.inference.video import Film
    from fssd.parts.unfinished import Unfinished
    from fssd.tracking.film_tracks import FilmTracks

Result = TypeVar("Result")
Engine = Literal["local", "ray"]
FULL = {errno.ENOSPC, errno.EDQUOT}
EXACT = "unfinished.jsonl"  # what VOC's and COCO's files are made of


@dataclass(frozen=True)
class Detect:
    """Find objects in images, folders, patterns and videos; write pictures and JSON."""

    model: Model
    images: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Image and video files, folders, or patterns such as "shots/**/*.jpg"; or one live source, whose
    detections are lines of JSON on stdout: the number of a camera, an rtsp or http address, - for stdin."""
    out: str = "found"
    """Folder for the results; with --engine also one in S3, s3://BUCKET/FOLDER."""
    thresholds: Annotated[ThresholdFlags, FLAT] = ThresholdFlags()
    """The score is 0.5 by default, or what `fssd eval --keep-thresholds` wrote into the model."""
    rules: Annotated[RuleFlags, FLAT] = RuleFlags()
    tiling: Annotated[TileFlags, FLAT] = TileFlags()
    voc: Flag = False
    """Write VOC result files too, with the image's stem as id (numbered where two share it)."""
    coco: Flag = False
    """Write a COCO result json too; image ids are the stems, category ids count from 1."""
    pictures: bool = True
    """Write the drawn pictures."""
    tracking: Annotated[TrackFlags, FLAT] = TrackFlags()
    live: Annotated[LiveFlags, FLAT] = LiveFlags()
    scales: Scales = ()
    batch_size: BatchSize = 8
    device: Device = "auto"
    engine: Engine | None = None
    """For very many images: write parquet parts that any kill leaves whole, here or on a Ray cluster."""
    part: Count | None = None
    """Images in a part, with --engine (1,000): the most that is computed twice."""
    actors: Count | None = None
    """Processes that detect, with --engine ray; as many as the cluster has CPUs."""

    def given(self) -> dict[str, Any]:
        """The settings of a detector that were given."""
        return {**self.thresholds.given(), **self.rules.given(), **self.tiling.given()}

    @property
    def folder(self) -> Path:
        """`out` as a path on a disk."""
        return Path(self.out)


def run(arguments: list[str]) -> int:
    """Detect in every input; one that cannot be read, drawn or written is reported, and the others go on."""
    command = parse(Detect, arguments)
    _check_engine(command)
    if command.engine is not None:
        return _detect_parts(command, command.engine)
    if _is_live(command):
        return _detect_live(command)
    from fssd.inference.detector import Detector
    from fssd.inference.inputs import find_inputs, is_video, output_names

    files = find_inputs(command.images)
    if not files:
        raise DataError("there are no inputs; name images, folders or videos")
    stills = [file for file in files if not is_video(file)]
    films = [file for file in files if is_video(file)]
    _check_kinds(command, stills, films)
    pictures, drawn_films = output_names(stills, ".jpg"), output_names(films, ".mp4")
    detector = Detector.load(command.model, device=command.device)
    work = _Work(command, detector, len(files), _state(command))
    drawn = [*pictures, *drawn_films, *(f"{name}.json" for name in drawn_films)]
    work.detector.sized(command.scales or None)  # refuses sizes before the first image
    if tiles := detector.tiling(command.given()):
        print(f"looking at {tiles}", file=sys.stderr)
    _check_outputs(work, files, drawn, output_names(stills, ""))
    if stills and not work.unfinished.goes_on:
        # Before the state says that there is something to go on with, nothing of an earlier call may be left.
        (command.folder / "detections.jsonl").write_bytes(b"")
    work.unfinished.begin()
    if films and command.pictures:
        _note_fallback()
    try:
        with ending_signals():
            if stills:
                _detect_stills(work, stills, pictures)
            for file, name in zip(films, drawn_films, strict=True):
                _detect_film(work, file, name)
            work.unfinished.end()
            (command.folder / EXACT).unlink(missing_ok=True)
    except Ended as ended:
        raise Stopped(ended.number, "stopped", work.summary()) from None
    except BaseException:
        with suppress(OSError):
            print(f"stopped; {work.summary()}", file=sys.stderr)
        raise
    print(work.summary())
    results = command.folder / "detections.json" if stills else None
    add_result(inputs=len(files), done=work.done, out=command.out, detections=results)
    return 1 if work.done < len(files) else 0


def _check_kinds(command: Detect, stills: list[Path], films: list[Path]) -> None:
    """Raise ConfigError for flags that have no effect on such inputs, or not together."""
    if not stills and (command.voc or command.coco):
        raise ConfigError("--voc and --coco are for images, and there are videos alone; leave them out")
    flags = command.tracking
    if not flags.track:
        if flags.count_line or flags.count_zone:
            raise ConfigError("--count-line and --count-zone count tracked objects; add --track")
        return
    if not films:
        raise ConfigError("--track follows objects through films, and there are images alone; leave it out")
    _check_tracking(command)


def _check_tracking(command: Detect) -> None:
    """Raise ConfigError for settings that tracking does not know, and for lines and zones that are wrong."""
    if command.rules.class_scores:
        raise ConfigError("--track has one score for all classes; leave out --class-scores")
    _tracks(command)


def _tracks(command: Detect) -> FilmTracks | None:
    """What follows the objects of a film, None without --track. Raises ConfigError."""
    if not command.tracking.track:
        return None
    from fssd.tracking.film_tracks import FilmTracks

    score = command.thresholds.score
    return FilmTracks(0.5 if score is None else score, *command.tracking.points())


def _is_live(command: Detect) -> bool:
    """Whether there is a live source. Raises ConfigError for flags that do not go with it, or without one."""
    from fssd.inference.live import is_live, public_name

    sources = [source for source in command.images if is_live(source)]
    if not sources:
        if given := command.live.given():
            raise ConfigError(f"{given[0]} is for live sources, and there are files alone; leave it out")
        return False
    name = public_name(sources[0])
    if len(command.images) > 1:
        raise ConfigError(f"{name} is live, which is one source by itself; leave the others out")
    if command.tracking.track:
        _check_tracking(command)
    elif command.tracking.count_line or command.tracking.count_zone:
        raise ConfigError("--count-line and --count-zone count tracked objects; add --track")
    batch_size, out = Detect.batch_size, Detect.out
    useless = {"--voc": command.voc, "--coco": command.coco, "--no-pictures": not command.pictures}
    useless |= {"--out": command.out != out, "--batch-size": command.batch_size != batch_size}
    for flag in (flag for flag, given in {**useless, "--json": wants_json()}.items() if given):
        raise ConfigError(f"{name} is live: its detections are lines of JSON on stdout; leave out {flag}")
    return True


def _detect_live(command: Detect) -> int:
    """Print a line of JSON for each frame, until the source ends or a signal comes."""
    from fssd.inference.detector import Detector
    from fssd.inference.live import open_live
    from fssd.tracking.live_rows import live_rows

    detector, every, reconnect = Detector.load(command.model, device=command.device), 1, 5
    flags, tracks = command.live, _tracks(command)
    settings = {**command.given(), "scales": command.scales or None}
    count = 0
    try:
        with ending_signals():
            retries = reconnect if flags.reconnect is None else flags.reconnect
            frames = open_live(command.images[0], sys.stdin.buffer, retries)
            for row in live_rows(detector, frames, settings, flags.every or every, tracks):
                print(row, flush=True)
                count += 1
    except Ended as ended:
        raise Stopped(ended.number, "stopped", f"{count} frames done") from None
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if tracks is not None:
            print(tracks, file=sys.stderr)
    return 0


def _note_fallback() -> None:
    from fssd.inference.film_output import FALLBACK
    from fssd.inference.web_film import can_write

    if not can_write():
        print(FALLBACK, file=sys.stderr)


def _state(command: Detect) -> Unfinished:
    """What an earlier call has left; prints what becomes of it."""
    from fssd.parts.unfinished import Unfinished

    flags = {name: getattr(command, name) for name in ("voc", "coco", "pictures")}
    settings = {**command.given(), "scales": list(command.scales), **flags}
    if command.tracking.track:
        settings["tracking"] = [list(command.tracking.count_line), list(command.tracking.count_zone)]
    state = Unfinished(command.folder, command.model, command.images, settings)
    if state.goes_on:
        print(f"going on with what is in {command.out}", file=sys.stderr)
    if state.others:
        before = f"an unfinished detection with {'; '.join(state.others)}"
        print(f"{command.out}: {before} is written over", file=sys.stderr)
    return state


def _check_engine(command: Detect) -> None:
    """Raise ConfigError for flags that have no effect together."""
    from fssd.storage.folders import is_remote

    if command.engine is None:
        needy = [name for name in ("part", "actors") if getattr(command, name) is not None]
        if needy:
            raise ConfigError(f"--{needy[0]} is for --engine local or ray; add that, or leave it out")
        if is_remote(command.out):
            raise ConfigError(f"--out {command.out}: only --engine local or ray writes there; add that")
        return
    if given := command.live.given():
        raise ConfigError(f"{given[0]} is for live sources, which --engine does not read; leave it out")
    if command.tracking.track:
        raise ConfigError(
            "--track needs the frames of a film in their order, which --engine divides; leave one of them out"
        )
    if command.voc or command.coco:
        raise ConfigError(
            "--voc and --coco are not written with --engine; leave them out, `fssd eval` reads parts"
        )
    if command.engine != "ray" and command.actors is not None:
        raise ConfigError("--actors is for --engine ray; leave it out, or choose that engine")


def _detect_parts(command: Detect, engine: Engine) -> int:
    from fssd.parts.run_parts import detect_parts

    settings = {**command.given(), "scales": command.scales or None}
    try:
        with ending_signals():
            counts = detect_parts(
                command.model,
                command.images,
                command.out,
                engine,
                settings=settings,
                part=command.part or 1000,
                actors=command.actors,
                batch_size=command.batch_size,
                device=command.device,
            )
    except Ended as ended:
        raise Stopped(ended.number, "stopped", "the same command goes on") from None
    errors = f", {counts.errors:,} with an error (column `error`)" if counts.errors else ""
    print(f"{counts.rows:,} rows{errors}, results in {command.out}")
    add_result(rows=counts.rows, errors=counts.errors, out=command.out)
    return 1 if counts.errors else 0


def _check_outputs(work: _Work, inputs: list[Path], drawn: list[str], stems: list[str]) -> None:
    """Raise what would keep all results from being written, before the time is spent."""
    from fssd.atomic import require_writable
    from fssd.evaluation.results import voc_files
    from fssd.weights.checkpoint import model_file

    command, out = work.command, work.command.folder
    files = [out / "detections.json"] + [out / "coco.json"] * command.coco
    if command.voc:
        files += voc_files(out, stems, work.detector.classes)
    spare_inputs([*inputs, model_file(command.model)], [*files, *(out / name for name in drawn)])
    require_writable(*files)


@dataclass
class _Work:
    """What to do, and how far it is. done: inputs without a fault. faulty: those that had one."""

    command: Detect
    detector: Detector
    total: int
    unfinished: Unfinished
    done: int = 0
    faulty: set[Path] = field(default_factory=set)

    def summary(self) -> str:
        return f"{self.done} of {self.total} inputs done, results in {self.command.out}"

    def stream(self, images: Iterable[Image], **others: Any) -> Iterator[Detections]:
        """others: settings that take the place of those on the command line."""
        thresholds = {**self.command.given(), **others}
        batch_size, scales = self.command.batch_size, self.command.scales or None
        return self.detector.stream(images, **thresholds, batch_size=batch_size, scales=scales)

    def attempt(self, file: Path, step: Callable[[], Result]) -> Result | None:
        """What a step of an input returns, or None after printing its error; raises that of a full disk."""
        try:
            return step()
        except FssdError as error:
            nameless = isinstance(error, DataError) and error.file is None
            text = f"{file}: {error}" if nameless else str(error)
        except OSError as error:
            if error.errno in FULL:
                raise
            text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        self.faulty.add(file)
        print(f"error: {text}", file=sys.stderr)
        return None

    def finish(self, file: Path, found: str) -> None:
        self.done += file not in self.faulty
        print(f"{file}: {found}")


def _detect_stills(work: _Work, files: list[Path], names: list[str]) -> None:
    """Write the pictures and result files of the images, those that are done also after an exception."""
    from fssd.evaluation.exact_rows import ExactRows
    from fssd.evaluation.results import DetectionsFile

    out, drawing = work.command.folder, work.command.pictures
    is_kept = work.command.voc or work.command.coco
    results = DetectionsFile(out / "detections.json", go_on=work.unfinished.goes_on, drawn=drawing)
    exact = ExactRows(out / EXACT, results.done) if is_kept else None
    if exact is not None:
        results.done.intersection_update(exact.images())  # a kill may have come between the two
    waiting: deque[tuple[Path, str, tuple[int, int]]] = deque()
    try:
        with results:
            for found in work.stream(_unread(work, files, names, results.done, waiting)):
                file, name, size = waiting.popleft()
                picture = work.attempt(file, partial(_draw, out, name, found)) if drawing else None
                if exact is not None:
                    exact.add(str(file), found)
                results.add(str(file), size, found, picture)
                work.finish(file, _summary(found))
    finally:
        if exact is not None:
            _write_results(work, exact)


def _unread(
    work: _Work,
    files: list[Path],
    names: list[str],
    done: set[str],
    waiting: deque[tuple[Path, str, tuple[int, int]]],
) -> Iterator[Image]:
    """The images that are not done and can be read; for each, file, name and size are added to `waiting`."""
    from fssd.inference.inputs import read_images

    windows = work.detector.windows(work.command.given())
    for file, name in zip(files, names, strict=True):
        if str(file) in done:
            work.done += 1
            continue
        sizes: list[tuple[int, int]] = []
        for image in read_images([file], [], sizes):
            if work.attempt(file, partial(windows, sizes[0])) is None:  # too many tiles
                continue
            waiting.append((file, name, sizes[0]))
            yield image


def _draw(folder: Path, name: str, found: Detections) -> str:
    from fssd.inference.draw import write_jpeg

    write_jpeg(folder / name, found.draw())
    return name


def _write_results(work: _Work, exact: ExactRows) -> None:
    from fssd.data.sample import DataSet, background_record
    from fssd.evaluation.results import write_coco_results, write_voc_results
    from fssd.inference.inputs import output_names

    files, out, classes = [Path(name) for name in exact.images()], work.command.folder, work.detector.classes
    ids = output_names(files, "")
    steps: list[Callable[[], object]] = []
    if work.command.voc:
        steps.append(partial(write_voc_results, out, ids, exact.read(classes), classes))
    if work.command.coco:
        records = tuple(background_record(stem, file) for stem, file in zip(ids, files, strict=True))
        facts = {"category_ids": tuple(range(1, len(classes) + 1))}
        dataset = DataSet(classes, records, facts=facts)
        steps.append(partial(write_coco_results, out / "coco.json", dataset, exact.read(classes)))
    write_each(*steps)


def _detect_film(work: _Work, file: Path, name: str) -> None:
    """Write a drawn film and its detections frame by frame, those that are done also after an exception."""
    if name in work.unfinished.films:
        work.done += 1
        return
    film = work.attempt(file, partial(_open_film, file))
    if film is None:
        return
    found: Counter[str] = Counter()
    tracks = _tracks(work.command)
    work.attempt(file, partial(_detect_frames, work, film, name, found, tracks))
    if tracks is not None:
        write = partial(
            atomic_write, work.command.folder / f"{name}.tracks.json", json.dumps(tracks.to_json())
        )
        work.attempt(file, write)
    if file not in work.faulty:
        work.unfinished.film_is_done(name)
    more = "" if tracks is None else f"; {tracks}"
    work.finish(file, f"{found.total()} objects in {len(film.decoded)} frames{more}")


def _open_film(file: Path) -> Film:
    from fssd.inference.inputs import require_target
    from fssd.inference.video import Film

    require_target(file)
    return Film(file)


def _detect_frames(
    work: _Work, film: Film, name: str, counts: Counter[str], tracks: FilmTracks | None
) -> None:
    from fssd.evaluation.results import DetectionsFile
    from fssd.inference.film_output import FilmOutput
    from fssd.tracking.byte_track import LOW

    out, picture = work.command.folder, name if work.command.pictures else None
    doubtful = {} if tracks is None else {"score": min(LOW, work.command.thresholds.score or LOW)}
    with DetectionsFile(out / f"{name}.json") as results, FilmOutput(out / name, film) as writer:
        for index, found in enumerate(work.stream(film.frames(), **doubtful)):
            assert found.image is not None
            height, width = found.image.shape[:2]
            if tracks is not None:
                found = tracks.update(found, film.decoded[index])  # noqa: PLW2901
            if picture:
                draw = found.draw if tracks is None else partial(tracks.draw, found)
                picture = work.attempt(film.path, partial(_add_frame, writer, name, draw, index))
            results.add(f"{film.path}#{film.decoded[index]}", (width, height), found, picture)
            counts.update(found.names)
    film.require_whole()


def _add_frame(writer: FilmOutput, name: str, draw: Callable[[], Image], index: int) -> str:
    writer.add(draw(), index)
    return name


def _summary(found: Detections) -> str:
    counts = sorted(Counter(found.names).items())
    return ", ".join(f"{count} {name}" for name, count in counts) or "nothing"

"""fssd detect MODEL IMAGES... [--out DIR]; exit code 1 if one could not be read or written whole."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fssd.cli.detect_film import check_tracking, detect_film, note_fallback
from fssd.cli.detect_flags import Detect
from fssd.cli.detect_live import detect_live, has_live_source
from fssd.cli.detect_work import EXACT, DetectWork, detect_stills
from fssd.cli.options import parse, spare_inputs
from fssd.cli.result import add_result
from fssd.cli.signals import Ended, ending_signals
from fssd.counted import counted
from fssd.engines import Engine
from fssd.errors import ConfigError, DataError, Stopped

if TYPE_CHECKING:
    from fssd.parts.unfinished import Unfinished


def run(arguments: list[str]) -> int:
    """Detect in every input; one that cannot be read, drawn or written is reported, and the others go on."""
    command = parse(Detect, arguments)
    _check_engine(command)
    if command.engine is not None:
        return _detect_parts(command, command.engine)
    if has_live_source(command):
        return detect_live(command)
    from fssd.inference.detector import Detector
    from fssd.inference.inputs import find_inputs, is_video, output_names

    files = find_inputs(command.images, command.folder)
    if not files:
        raise DataError("there are no inputs; name images, folders or videos")
    stills = [file for file in files if not is_video(file)]
    films = [file for file in files if is_video(file)]
    _check_kinds(command, stills, films)
    detector = Detector.load(command.model, device=command.device)
    work = DetectWork(command, detector, len(files), state := _state(command))
    pictures, drawn_films = state.output_names(stills, ".jpg"), state.output_names(films, ".mp4")
    endings = [".json"] + [".tracks.json"] * command.tracking.track + [""] * command.pictures
    written = pictures * command.pictures + [f"{name}{end}" for name in drawn_films for end in endings]
    detector.require_settings(**command.given(), scales=command.scales or None)
    if tiles := detector.tiling(command.given()):
        print(f"looking at {tiles}", file=sys.stderr)
    _check_outputs(work, files, written, output_names(stills, ""))
    if stills and not work.unfinished.goes_on:
        # Before the state says that there is something to go on with, nothing of an earlier call may be left.
        (command.folder / "detections.jsonl").write_bytes(b"")
    work.unfinished.begin(is_pruned=not stills)
    if films and command.pictures:
        note_fallback()
    try:
        with ending_signals():
            if stills:
                detect_stills(work, stills, pictures)
            for file, name in zip(films, drawn_films, strict=True):
                detect_film(work, file, name)
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
    if command.tracking.track and not films:
        raise ConfigError("--track follows objects through films, and there are images alone; leave it out")
    check_tracking(command)


def _state(command: Detect) -> Unfinished:
    """What an earlier call has left; prints what becomes of it."""
    from fssd.parts.unfinished import Unfinished

    flags = {name: getattr(command, name) for name in ("voc", "coco", "pictures")}
    settings = {**command.given(), "scales": list(command.scales), **flags}
    if command.tracking.track:
        tracking = command.tracking
        lines, zones = list(tracking.count_line), list(tracking.count_zone)
        settings |= {"track": True, "count_line": lines, "count_zone": zones}
    state = Unfinished(command.folder, command.model, command.images, settings)
    if state.goes_on:
        others = f"; {counted(state.changed, 'input')} changed or gone since" if state.changed else ""
        print(f"going on with what is in {command.out}{others}", file=sys.stderr)
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
    from fssd.inference.live import is_live, public_name

    if given := command.live.given():
        raise ConfigError(f"{given[0]} is for live sources, which --engine does not read; leave it out")
    if live := [source for source in command.images if is_live(source)]:
        raise ConfigError(f"{public_name(live[0])} is live, which --engine does not read; leave out --engine")
    if command.tracking.track:
        raise ConfigError(
            "--track needs the frames of a film in their order, which --engine divides; leave one of them out"
        )
    check_tracking(command)
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


def _check_outputs(work: DetectWork, inputs: list[Path], written: list[str], stems: list[str]) -> None:
    """Raise what would keep all results from being written, before the time is spent."""
    from fssd.atomic import require_writable
    from fssd.evaluation.results import voc_files
    from fssd.weights.checkpoint import model_file

    command, out = work.command, work.command.folder
    files = [out / "detections.json"] + [out / "coco.json"] * command.coco
    if command.voc:
        files += voc_files(out, stems, work.detector.classes)
    spare_inputs([*inputs, model_file(command.model)], [*files, *(out / name for name in written)])
    require_writable(*files)

"""fssd detect MODEL IMAGES... [--out DIR]; exit code 1 if an input could not be read."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fssd.cli.options import (
    FLAT,
    BatchSize,
    Device,
    Flag,
    Model,
    ThresholdFlags,
    parse,
    spare_inputs,
    write_each,
)
from fssd.errors import DataError

if TYPE_CHECKING:
    from fssd.inference.detections import Detections
    from fssd.inference.detector import Detector


@dataclass(frozen=True)
class Detect:
    """Find objects in images, folders, patterns and videos; write pictures and JSON."""

    model: Model
    images: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Image and video files, folders, or patterns such as "shots/**/*.jpg"."""
    out: Path = Path("found")
    """Folder for the results."""
    thresholds: Annotated[ThresholdFlags, FLAT] = ThresholdFlags(score=0.5)
    voc: Flag = False
    """Write VOC result files too, with the image's stem as id (numbered where two share it)."""
    coco: Flag = False
    """Write a COCO result json too; image ids are the stems, category ids count from 1."""
    pictures: bool = True
    """Write the drawn pictures."""
    batch_size: BatchSize = 8
    device: Device = "auto"


def run(arguments: list[str]) -> int:
    """Detect in every input; one that cannot be read is reported and skipped."""
    command = parse(Detect, arguments)
    from fssd.inference.detector import Detector
    from fssd.inference.inputs import find_inputs, is_video, output_names

    files = find_inputs(command.images)
    if not files:
        raise DataError("there are no inputs; name images, folders or videos")
    stills = [file for file in files if not is_video(file)]
    videos = [file for file in files if is_video(file)]
    pictures, films = output_names(stills, ".jpg"), output_names(videos, ".mp4")
    detector = Detector.load(command.model, device=command.device)
    _check_outputs(command, files, stills, [*pictures, *films], detector.classes)
    bad = 0
    if stills:
        bad += _detect_stills(command, detector, stills, pictures)
    for file, name in zip(videos, films, strict=True):
        bad += _detect_video(command, detector, file, command.out / name)
    print(f"{len(files) - bad} of {len(files)} inputs done, results in {command.out}")
    return 1 if bad else 0


def _check_outputs(
    command: Detect, inputs: list[Path], stills: list[Path], drawn: list[str], classes: tuple[str, ...]
) -> None:
    """Raise what would keep a result from being written, before the time is spent."""
    from fssd.atomic import require_writable
    from fssd.evaluation.results import voc_files
    from fssd.inference.inputs import output_names
    from fssd.weights.checkpoint import model_file

    names = [*drawn, *(f"{film}.json" for film in drawn[len(stills) :])]
    names += ["detections.json"] * bool(stills) + ["coco.json"] * command.coco
    files = [command.out / name for name in names]
    if command.voc:
        files += voc_files(command.out, output_names(stills, ""), classes)
    spare_inputs([*inputs, model_file(command.model)], files)
    require_writable(*files)


def _detect_stills(command: Detect, detector: Detector, files: list[Path], names: list[str]) -> int:
    """Write the pictures and result files of the images; return how many could not be read."""
    from fssd.evaluation.results import write_detections_json
    from fssd.inference.draw import write_jpeg
    from fssd.inference.inputs import read_images

    readable: list[int] = []
    sizes: list[tuple[int, int]] = []
    kept: list[Detections] = []
    images = read_images(files, readable, sizes)
    stream = detector.stream(images, **asdict(command.thresholds), batch_size=command.batch_size)
    for number, found in enumerate(stream):
        index = readable[number]
        print(f"{files[index]}: {_summary(found)}")
        if command.pictures:
            write_jpeg(command.out / names[index], found.draw())
        kept.append(found.without_image())
    good = [files[index] for index in readable]
    names = [str(file) for file in good]
    write_each(
        partial(write_detections_json, command.out / "detections.json", names, sizes, kept),
        partial(_write_results, command, good, kept, detector.classes),
    )
    return len(files) - len(good)


def _write_results(
    command: Detect, files: list[Path], found: list[Detections], classes: tuple[str, ...]
) -> None:
    from fssd.data.sample import DataSet, background_record
    from fssd.evaluation.results import write_coco_results, write_voc_results
    from fssd.inference.inputs import output_names

    ids = output_names(files, "")
    steps: list[Callable[[], object]] = []
    if command.voc:
        steps.append(partial(write_voc_results, command.out, ids, found, classes))
    if command.coco:
        records = tuple(background_record(stem, file) for stem, file in zip(ids, files, strict=True))
        facts = {"category_ids": tuple(range(1, len(classes) + 1))}
        dataset = DataSet(classes, records, facts=facts)
        steps.append(partial(write_coco_results, command.out / "coco.json", dataset, found))
    write_each(*steps)


def _detect_video(command: Detect, detector: Detector, file: Path, target: Path) -> int:
    """Write a drawn video and its detections frame by frame; return 1 if it could not be read."""
    import cv2

    from fssd.evaluation.results import write_detections_json
    from fssd.inference.video import read_frames, video_info, video_writer

    kept: list[Detections] = []
    try:
        info = video_info(file)
        settings = {**asdict(command.thresholds), "batch_size": command.batch_size}
        stream = detector.stream(read_frames(file), **settings)
        with video_writer(target, info) if command.pictures else nullcontext() as writer:
            for found in stream:
                if writer is not None:
                    writer.write(cv2.cvtColor(found.draw(), cv2.COLOR_RGB2BGR))
                kept.append(found.without_image())
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    names = [f"{file}#{number}" for number in range(len(kept))]
    sizes = [(info.width, info.height)] * len(kept)
    write_detections_json(target.with_name(f"{target.name}.json"), names, sizes, kept)
    print(f"{file}: {sum(map(len, kept))} objects in {len(kept)} frames")
    return 0


def _summary(found: Detections) -> str:
    counts = sorted(Counter(found.names).items())
    return ", ".join(f"{count} {name}" for name, count in counts) or "nothing"

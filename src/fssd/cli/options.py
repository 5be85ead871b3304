"""What several verbs share: flags with their defaults and bounds, opening a data set and detecting on it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

from fssd.cli.result import TO_FILE
from fssd.config.bounds import BelowOne, Count, Natural, Share, check_bounds
from fssd.config.train_config import Metric
from fssd.errors import ConfigError, FssdError

if TYPE_CHECKING:
    from rich.console import Console

    from fssd.data.sample import DataSet, Record
    from fssd.evaluation.detection_files import FileDetections
    from fssd.inference.detections import Detections
    from fssd.inference.detector import Detector

Command = TypeVar("Command")
Item = TypeVar("Item")

FLAT = tyro.conf.arg(name="")
"""Marks a group of flags whose name is not a prefix of its flags."""

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
Model = Annotated[
    Path,
    tyro.conf.Positional,
    tyro.conf.arg(
        help="Model file, the folder of a run, or a name: animals, a fetched ssd300-coco, hf://user/name."
    ),
]
Measured = Annotated[
    Path,
    tyro.conf.Positional,
    tyro.conf.arg(
        help="Model file, the folder of a run, a packaged model, or detections of any detector: comp4 files,"
        " COCO's result json, YOLO txt with scores, the json of `fssd detect`."
    ),
]
Device = Annotated[str, tyro.conf.arg(help="cpu, cuda, or auto.")]
BatchSize = Annotated[Count, tyro.conf.arg(help="Images per batch.")]
Score = Annotated[
    Share, tyro.conf.arg(help="Keep detections that score more than this (SSD evaluates at 0.01).")
]
_SCALES = (
    "Input sizes in pixels (of the longer side) instead of the model's own; the results are merged by NMS."
)
Scales = Annotated[tuple[int, ...], tyro.conf.arg(help=_SCALES)]
Iou = Annotated[Share, tyro.conf.arg(help="Least IoU of a correct detection, for the VOC metrics.")]
_IMAGES = "Folder of the pictures, where they do not lie beside their labels."
_BAD_SHARE = "Share of images with errors (0..1) that may be left out with a warning; above it, nothing runs."
BadShare = Annotated[BelowOne, tyro.conf.arg(help=_BAD_SHARE)]


@dataclass(frozen=True)
class Selection:
    """Which detections are kept; None takes what the network's authors evaluate with."""

    score: Share | None = None
    """Keep detections that score more than this. None is what SSD evaluates with (0.01) in `eval` and
    `submit`, and 0.5, or what `fssd eval --keep-thresholds` wrote into the model, in `detect` and `why`."""
    nms: Share | None = None
    """IoU above which the less confident of two detections of one class is dropped (SSD: 0.45)."""

    def given(self) -> dict[str, Any]:
        """The thresholds that are not None."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class CountFlags:
    """How many detections are kept; None takes what the network's authors evaluate with."""

    top_k: Count | None = None
    """Candidates in each class before NMS (SSD: 400)."""
    keep: Count | None = None
    """Detections in an image after NMS (SSD: 200)."""


@dataclass(frozen=True)
class ThresholdFlags(CountFlags, Selection):
    """Which detections are kept, and how many."""


@dataclass(frozen=True)
class RuleFlags:
    """Which detections are kept, by class and over classes."""

    classes: tuple[str, ...] = ()
    """Names of the classes to keep; the others are left out."""
    class_scores: tuple[str, ...] = ()
    """NAME=SCORE of classes that have a threshold of their own, such as cat=0.3 dog=0.6."""
    agnostic: Flag = False
    """NMS over all classes together: of two boxes on one object only the better stays."""
    soft: Literal["linear", "gaussian"] | None = None
    """Soft-NMS: lower the scores of overlapping boxes instead of dropping them."""
    flip: Flag = False
    """Look at the mirror image too, and merge; takes twice the time."""

    def given(self) -> dict[str, Any]:
        """The flags that were given, as settings of a detector. Raises ConfigError."""
        settings: dict[str, Any] = {name: value for name, value in vars(self).items() if value}
        if self.class_scores:
            settings["class_scores"] = dict(map(_class_score, self.class_scores))
        return {name: list(value) if name == "classes" else value for name, value in settings.items()}


@dataclass(frozen=True)
class TileFlags:
    """How large images are cut, so that small objects have enough pixels."""

    tiles: str | None = None
    """Look at tiles of so many pixels: a number, "auto" (what is written in the model, else as many as make
    objects as large as in training), or "none". None is what is written in the model."""
    overlap: float | None = None
    """Share of a tile that its neighbour repeats (0.2): about the largest of the small objects."""
    whole_image: bool | None = None
    """Whether to look at the whole image too (True), for objects larger than a tile."""
    most_tiles: Count | None = None
    """Tiles in an image above which it is an error (400)."""

    def given(self) -> dict[str, Any]:
        """The flags that were given, as settings of a detector."""
        settings = {name: value for name, value in vars(self).items() if value is not None}
        if self.tiles is not None and self.tiles.isdecimal():
            settings["tiles"] = int(self.tiles)
        return settings


def reachable_score(model: Path | str, wanted: float, least: float) -> float:
    """The score wanted, or the least that the model reports, with a note."""
    if wanted < least:
        print(f"note: {model} has NMS inside, for scores above {least:g}", file=sys.stderr)
    return max(wanted, least)


def _class_score(text: str) -> tuple[str, float]:
    name, _, score = text.rpartition("=")
    try:
        return name, float(score)
    except ValueError:
        raise ConfigError(f"--class-scores {text}: is not NAME=SCORE, such as cat=0.3") from None


@dataclass(frozen=True)
class TrackFlags:
    """Objects followed through films."""

    track: Flag = False
    """Give the objects of films numbers that stay (ByteTrack); needs fssd[track]."""
    count_line: tuple[str, ...] = ()
    """x1,y1,x2,y2 in pixels: count the tracked objects that cross this line, each way."""
    count_zone: tuple[str, ...] = ()
    """x1,y1,x2,y2,x3,y3,... in pixels: count the tracked objects that have been in this polygon."""

    def points(self) -> tuple[list[list[float]], list[list[float]]]:
        """The lines and the zones. Raises ConfigError."""
        from fssd.tracking.counting import read_points

        lines = [read_points("--count-line", text, 2, 2) for text in self.count_line]
        return lines, [read_points("--count-zone", text, 3) for text in self.count_zone]


@dataclass(frozen=True)
class LiveFlags:
    """How a live source is read."""

    every: Count | None = None
    """Detect in every Nth frame of a live source (1)."""
    reconnect: Natural | None = None
    """Attempts in a row to connect a live source again before it is given up (5)."""
    show: Flag = False
    """Show the frames of a live source in a window; q, Esc or closing it ends."""

    def given(self) -> list[str]:
        """The flags that were given."""
        return [f"--{name}" for name, value in vars(self).items() if value not in (None, False)]


@dataclass(frozen=True)
class Loading:
    """How images are loaded."""

    batch_size: BatchSize = 16
    workers: Natural = 1
    """Processes that load images."""


@dataclass(frozen=True)
class Measuring:
    """What is measured, and on which images."""

    split: str | None = "auto"
    """Split to measure on; "auto" is val, or where there is none the images that the run kept for
    evaluation; "none" is every image."""
    images: Annotated[Path | None, tyro.conf.arg(help=_IMAGES)] = None
    seen_images: Flag = False
    """Measure also on images that the model was trained on."""
    metric: Metric = "voc12"
    """11-point AP, integral AP, or COCO's twelve numbers."""
    bad_share: BadShare = 0.02
    names: str | None = None
    """Class names of a detection file that holds numbers: voc, coco, or a text file with one name a line."""

    def open(
        self, data: Path, models: Sequence[Path], detectors: Sequence[Detector], iou: float = 0.5
    ) -> DataSet:
        """The images to measure `detectors` on, whose files are `models`; facts["split"] names their split.

        Detection files belong to neither: they were not trained. Prints what was found and what is left out.
        Raises ConfigError, DataError.
        """
        from fssd.data.source import describe, other_formats, print_left_out
        from fssd.evaluation.evaluate import check_measurable
        from fssd.evaluation.measured import measured_images
        from fssd.weights.checkpoint import model_file

        split = None if self.split == "none" else self.split
        files = [model_file(model) for model in models]
        dataset, name = measured_images(
            data, split, files, self.bad_share, seen_images=self.seen_images, images=self.images
        )
        dataset.facts["split"] = name
        print(describe(dataset, data, name, other_formats(data)), file=sys.stderr)
        print_left_out(dataset)
        for detector in detectors:
            check_measurable(dataset, detector.classes, self.metric, iou)
        return dataset

    def read(self, file: Path, dataset: DataSet, iou: float = 0.5) -> FileDetections:
        """The detections of a file, after its notes are printed. Raises ConfigError, DataError."""
        from fssd.data.class_names import read_names
        from fssd.evaluation.detection_files import read_detections
        from fssd.evaluation.evaluate import check_measurable

        names = None if self.names is None else read_names(self.names)
        found = read_detections(file, dataset, names)
        for note in found.notes:
            print(note, file=sys.stderr)
        check_measurable(dataset, found.classes, self.metric, iou)
        return found


def open_models(
    paths: Sequence[Path], device: str, flags: Mapping[Any, Any], scales: Sequence[int] = ()
) -> list[Detector | None]:
    """The detector of each model; None for a file of detections.

    flags: groups of flags that only a model can follow, each with its default. They, the device and scales
    are refused if no path is a model.
    """
    from fssd.evaluation.detection_files import is_detection_file
    from fssd.inference.detector import Detector

    if all(is_detection_file(path) for path in paths):
        given = [name for group, default in flags.items() for name in changed(group, default)]
        given += ["device"] * (device != "auto") + ["scales"] * bool(scales)
        if given:
            flag = given[0].replace("_", "-")
            raise ConfigError(f"--{flag} is for models; {paths[0]} holds detections that are made already")
    detectors = [None if is_detection_file(path) else Detector.load(path, device=device) for path in paths]
    for path, detector in zip(paths, detectors, strict=True):
        if detector is not None and (note := _inside_note(detector)):
            print(f"note: {path} {note}", file=sys.stderr)
    return detectors


def _inside_note(detector: Detector) -> str:
    """What a file with NMS inside leaves out of an evaluation, "" for any other model."""
    from fssd.heads.head import Thresholds
    from fssd.runtimes.runner import FileRunner

    runner = detector.runner
    inside = runner.thresholds if isinstance(runner, FileRunner) else None
    usual = Thresholds()
    if inside is None or (inside.score <= usual.score and inside.keep >= usual.keep):
        return ""
    return (
        f"has NMS inside, which finds nothing below a score of {inside.score:g} and at most {inside.keep}"
        " objects an image: its AP is lower than that of the network"
    )


def refuse_names(measuring: Measuring, detectors: Sequence[Detector | None]) -> None:
    """Raise ConfigError for --names where every detector is a model, which knows its classes."""
    if measuring.names is not None and None not in detectors:
        raise ConfigError("--names is for detection files with class numbers; a model knows its classes")


def changed(group: Any, default: Any) -> list[str]:
    """The flags of a group whose values differ from another group."""
    names = [field.name for field in fields(group)]
    return [name for name in names if getattr(group, name) != getattr(default, name)]


def open_usable(data: Path, split: str | None, bad_share: float) -> DataSet:
    """A split of a data set; prints the images that are left out. Raises DataError if there are too many."""
    from fssd.data.source import open_data, print_left_out, require_usable

    dataset = open_data(data, split)
    require_usable(dataset, bad_share)
    print_left_out(dataset)
    return dataset


def spare_inputs(inputs: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Raise ConfigError if a result would overwrite an input or another result."""
    own = {file.resolve() for file in inputs}
    written: set[Path] = set()
    for output in outputs:
        if output.resolve() in own:
            raise ConfigError(f"{output}: is an input and would be overwritten; choose another name")
        if output.resolve() in written:
            raise ConfigError(f"{output}: is named for two results; choose another name for one of them")
        written.add(output.resolve())


def spare_folder(data: Path, outputs: Sequence[Path]) -> None:
    """Raise ConfigError if a result would overwrite anything in the folder of a data set."""
    folder = data.resolve()
    for output in outputs:
        if folder in output.resolve().parents and output.exists():
            reason = f"exists already in the data set {data}; choose another name, or remove it first"
            raise ConfigError(f"{output}: {reason}")


def spare_records(records: Iterable[Record], outputs: Sequence[Path]) -> None:
    """Raise ConfigError if a result would overwrite a label file or an image, wherever they lie."""
    from fssd.data.same_files import true_paths

    there = {str(output.resolve()): output for output in outputs if output.exists()}
    if not there:
        return
    read = (path for record in records for path in (record.source, record.path))
    for file in there.keys() & set(true_paths(read)):
        raise ConfigError(f"{there[file]}: is an input and would be overwritten; choose another name")


def write_each(*steps: Callable[[], object]) -> None:
    """Run every step that writes results; raise the first error after the others have run."""
    errors: list[FssdError | OSError] = []
    for step in steps:
        try:
            step()
        except (FssdError, OSError) as error:
            errors.append(error)
    for other in errors[1:]:
        print(f"error: {other}", file=sys.stderr)
    if errors:
        raise errors[0]


def show_progress(items: Sequence[Item], title: str) -> Iterable[Item]:
    """Passes items on, with a progress bar on terminals."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, title, console=console, disable=not console.is_terminal)


def note_without_tiles(detector: Detector, who: str) -> None:
    """Say that something does without the tiles of a model, where it has any."""
    if (tiles := detector.tiles) is not None:
        what = f"looks at the whole image at once, without the model's tiles of {tiles.side} px"
        print(f"note: {who} {what}", file=sys.stderr)


def detect_all(detector: Detector, dataset: DataSet, console: Console, **settings: Any) -> list[Detections]:
    """The detections in each image, with a progress bar on terminals. settings: of `Detector.evaluate_on`."""
    from rich.progress import track

    stream = detector.evaluate_on(dataset, **settings)
    hidden = not console.is_terminal
    return list(track(stream, "detecting", total=len(dataset), console=console, disable=hidden))


def with_json_flag(flags: type[Command]) -> type[Command]:
    """The flags of a verb and `--json`, for help and completion."""
    text = "Print the result as JSON, and everything else to stderr."
    flag = ("json", Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help=text)], False)
    made = make_dataclass(flags.__name__, [flag], bases=(flags,), frozen=True)
    made.__doc__ = flags.__doc__
    return made


def parse(command: type[Command], arguments: list[str], **settings: Any) -> Command:
    """The flags of a verb. settings: of `tyro.cli`. Raises ConfigError for a number that is out of bounds."""
    verb = command.__name__.lower()
    if {"--help", "-h"} & set(arguments) and verb not in TO_FILE:
        command = with_json_flag(command)  # in everything but help, `main` has taken it away
        if "default" in settings:
            settings["default"] = command(**vars(settings["default"]))
    parsed: Command = tyro.cli(command, prog=f"fssd {verb}", args=arguments, **settings)
    check_bounds(parsed)
    return parsed

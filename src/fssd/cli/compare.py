"""fssd compare MODEL_A MODEL_B IMAGES... [--out compare.png], or MODEL_A MODEL_B --data DATA --report DIR"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fssd.cli.options import FLAT, Device, Iou, Loading, Measuring, Selection, parse, spare_inputs
from fssd.config import Bound, Count
from fssd.errors import ConfigError, DataError


@dataclass(frozen=True)
class Compare:
    """Draw what two models find in the same images, one row each, as the paper's Fig. 6.

    With --data and --report, write a page instead: what B gained and lost against A on a labelled data set.
    """

    model_a: Annotated[Path, tyro.conf.Positional]
    """Model file, the folder of a run, or a packaged model, of the upper row."""
    model_b: Annotated[Path, tyro.conf.Positional]
    """The same for the lower row; it may know other classes."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Image files, folders, or patterns such as "shots/**/*.jpg"."""
    out: Path = Path("compare.png")
    """Picture, .png or .jpg."""
    selection: Annotated[Selection, FLAT] = Selection(score=0.5)
    columns: Count = 4
    """Images side by side; more of them make further pairs of rows."""
    cell: Annotated[int, Bound("32 or more", lambda value: value >= 32)] = 320
    """Width of an image in the picture, pixels."""
    device: Device = "auto"
    report: Path | None = None
    """Write a page into this folder, instead of a picture; needs --data and the extra plot."""
    data: Path | None = None
    """Data set for the page, in any form that `fssd train` takes."""
    measuring: Annotated[Measuring, FLAT] = Measuring()
    iou: Iou = 0.5
    draws: Count = 1000
    """Bootstrap samples of the images for the interval on the difference in mAP."""
    loading: Annotated[Loading, FLAT] = Loading()


def run(arguments: list[str]) -> int:
    command = parse(Compare, arguments)
    if (command.data is None) != (command.report is None):
        raise ConfigError("a page needs both: give --data DATA and --report DIR")
    from fssd.weights.checkpoint import model_file

    models = [model_file(model).resolve() for model in (command.model_a, command.model_b)]
    if models[0] == models[1]:
        raise ConfigError(f"{command.model_a}: is named twice; name two different models")
    return _picture(command, models) if command.report is None else _page(command, models)


def _picture(command: Compare, models: list[Path]) -> int:
    from fssd.atomic import require_writable
    from fssd.figures.side_by_side import PICTURE_SUFFIXES, check_room, compose, fit, write_picture
    from fssd.inference.detector import Detector
    from fssd.inference.inputs import find_inputs, is_video
    from fssd.plots import check_suffix, model_names

    check_suffix(command.out, PICTURE_SUFFIXES)
    files = find_inputs(command.images)
    if not files:
        raise DataError("there are no images; name images or folders")
    for file in filter(is_video, files):
        raise DataError("is a video; compare takes images", file=file)
    spare_inputs([*files, *models], [command.out])
    require_writable(command.out)
    check_room(len(files), len(models), command.columns, command.cell)
    rows = []
    for model, name in zip(models, model_names(models), strict=True):
        detector = Detector.load(model, device=command.device)
        stream = detector.stream(files, **asdict(command.selection))
        # Scaled down at once, because photographs of full size would fill the memory.
        rows.append([fit(found, command.cell) for found in stream])
        print(f"{name}: {sum(map(len, rows[-1]))} objects in {len(files)} images")
    write_picture(command.out, compose(rows, model_names(models), command.columns, command.cell))
    print(f"picture in {command.out}")
    return 0


def _page(command: Compare, models: list[Path]) -> int:
    assert command.data is not None and command.report is not None
    if command.images:
        raise ConfigError("--data names the images of the page; leave out the others")
    from fssd.atomic import require_writable
    from fssd.evaluation.known_classes import known_to_both
    from fssd.inference.detector import Detector
    from fssd.plots import model_names, require_matplotlib
    from fssd.report.compare_page import verdict, write_compare_page
    from fssd.report.eval_page import ReportSubject
    from fssd.report.html import PAGE_FILE

    require_matplotlib()
    require_writable(command.report / PAGE_FILE)
    detectors = [Detector.load(model, device=command.device) for model in models]
    dataset = command.measuring.open(command.data, models, detectors, command.iou)
    _, note = known_to_both(dataset, *(detector.classes for detector in detectors))
    settings = {**asdict(command.loading), "nms": command.selection.nms}
    first, second = (list(detector.evaluate_on(dataset, **settings)) for detector in detectors)
    a, b = model_names(models)
    measuring = command.measuring
    subject = ReportSubject(models[1], command.data, dataset.facts["split"])
    found = (first, second)
    page, difference = write_compare_page(
        command.report, subject, (a, b), dataset, found, measuring.metric, command.iou, command.draws
    )
    low, value, high = (100 * number for number in (difference.low, difference.value, difference.high))
    print(f"A: {a}\nB: {b}")
    if note:
        print(note)
    interval = f"95 % interval {low:+.1f} to {high:+.1f}"
    print(f"B minus A: {value:+.1f} points of mAP, {interval}; {verdict(difference)}")
    print(f"report in {page}")
    return 0

"""fssd submit MODEL --data DATA --to voc2007|voc2012|coco --out FILE [--split test]"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from fssd.cli.options import FLAT, Device, Loading, Model, ThresholdFlags, detect_all, parse, spare_inputs
from fssd.cli.result import add_result
from fssd.counted import counted
from fssd.errors import ConfigError


@dataclass(frozen=True)
class Submit:
    """Detect on a test split, labelled or not, and pack the results for an evaluation server."""

    model: Model
    data: Path
    """VOCdevkit or VOC folder, COCO folder or image_info json."""
    to: Literal["voc2007", "voc2012", "coco"]
    """The server."""
    out: Path
    """Archive to write, .tar.gz for VOC and .zip for COCO; or a folder for one of the usual name."""
    split: str | None = None
    """Split to detect on; by default test for VOC, test-dev2017 for COCO."""
    competition: Literal["comp3", "comp4"] = "comp4"
    """VOC: comp3 if trained on VOC images only, else comp4."""
    name: str = "fssd"
    """COCO: name of the method, a part of the file's name."""
    thresholds: Annotated[ThresholdFlags, FLAT] = ThresholdFlags()
    loading: Annotated[Loading, FLAT] = Loading()
    device: Device = "auto"


def _refuse_idle_flags(command: Submit) -> None:
    """Raise ConfigError for flags of the other server."""
    if command.to == "coco" and command.competition != "comp4":
        raise ConfigError("--competition is for VOC's servers; leave it out")
    if command.to != "coco" and command.name != "fssd":
        raise ConfigError("--name is for COCO's server; leave it out")


def run(arguments: list[str]) -> int:
    command = parse(Submit, arguments)
    _refuse_idle_flags(command)
    from rich.console import Console

    from fssd.atomic import require_writable
    from fssd.evaluation import submit
    from fssd.inference.detector import Detector
    from fssd.weights.checkpoint import model_file

    split = submit.open_split(command.data, command.to, command.split)
    file = submit.archive_path(command.out, split, command.name)
    detector = Detector.load(command.model, device=command.device)
    submit.require_classes(detector.classes, split.dataset.classes, command.to)
    spare_inputs([model_file(command.model), command.data], [file])
    require_writable(file)
    settings = {**asdict(command.loading), **command.thresholds.given()}
    found = detect_all(detector, split.dataset, Console(stderr=True), **settings)
    if command.to == "coco":
        submit.write_coco_archive(file, split, found, command.name)
        usual = submit.archive_path(file.parent, split, command.name).name
        if file.name != usual:
            print(f"note: COCO's server wants the archive to be called {usual}", file=sys.stderr)
    else:
        submit.write_voc_archive(file, split, found, command.competition)
    detections = counted(sum(map(len, found)), "detection")
    print(f"{counted(len(found), 'image')} of {split.name}, {detections}: {file}")
    add_result(split=split.name, images=len(found), detections=sum(map(len, found)), file=file)
    return 0

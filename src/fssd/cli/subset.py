"""fssd subset MODEL --classes voc|coco|NAMES... [--out DIR]"""

import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import tyro

from fssd.cli.options import parse
from fssd.cli.result import add_result
from fssd.config.run_files import MODEL_FILES


@dataclass(frozen=True)
class Subset:
    """Take some classes out of a trained model, for example VOC's 20 out of COCO's 80."""

    model: Annotated[Path, tyro.conf.Positional]
    """Model file, the folder of a run, or a packaged model: animals."""
    classes: tuple[str, ...]
    """Names in the order wanted, or voc or coco for all of theirs; "aeroplane" finds "airplane" and so on."""
    out: Path | None = None
    """Folder to write final.safetensors into; by default RUN-subset beside the run's folder, RUN-FILE-subset
    for another file than best or final, or NAME-subset in the current folder for a model by name."""


def run(arguments: list[str]) -> int:
    command = parse(Subset, arguments)
    from fssd.data.class_names import COCO, VOC
    from fssd.weights.subset import write_subset

    tables: dict[tuple[str, ...], tuple[str, ...]] = {("voc",): VOC, ("coco",): COCO}
    wanted = tables.get(command.classes, command.classes)
    folder = command.out or _default_folder(command.model)
    made = write_subset(command.model, wanted, folder, replace=command.out is not None)
    for name, before in zip(wanted, made.before, strict=True):
        print(name if name == before else f"{name} (was {before})")
    print(f"written: {made.file}")
    if made.had_scores:
        again = "choose them for these classes with fssd eval --keep-thresholds"
        print(f"note: the thresholds of {command.model} are left out; {again}", file=sys.stderr)
    add_result(file=made.file, classes=dict(zip(wanted, made.before, strict=True)))
    return 0


def _default_folder(model: Path) -> Path:
    from fssd.weights.checkpoint import model_file
    from fssd.zoo.hub import is_hub_address, read_address
    from fssd.zoo.models import FOLDER
    from fssd.zoo.published import weights_folder

    file = model_file(model)
    own = [] if file.name in MODEL_FILES else [file.stem]
    if is_hub_address(model):
        return Path("-".join([PurePosixPath(read_address(model).repository).name, *own, "subset"]))
    run = file.parent.resolve()
    if run in (FOLDER.resolve(), weights_folder().resolve()):
        return Path(f"{file.stem}-subset")  # not among the models by name
    return run.with_name("-".join([run.name, *own, "subset"]))

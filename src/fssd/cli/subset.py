"""fssd subset MODEL --classes voc|coco|NAMES... [--out DIR]"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fssd.cli.options import parse
from fssd.cli.result import add_result


@dataclass(frozen=True)
class Subset:
    """Take some classes out of a trained model, for example VOC's 20 out of COCO's 80."""

    model: Annotated[Path, tyro.conf.Positional]
    """Model file, the folder of a run, or a packaged model: animals."""
    classes: tuple[str, ...]
    """Names in the order wanted, or voc or coco for all of theirs; "aeroplane" finds "airplane" and so on."""
    out: Path | None = None
    """Folder to write final.safetensors into; by default NAME-subset, beside the run's folder or, for a
    packaged model, in the current one."""


def run(arguments: list[str]) -> int:
    command = parse(Subset, arguments)
    from fssd.data.class_names import COCO, VOC
    from fssd.weights.subset import write_subset

    tables: dict[tuple[str, ...], tuple[str, ...]] = {("voc",): VOC, ("coco",): COCO}
    wanted = tables.get(command.classes, command.classes)
    folder = command.out or _default_folder(command.model)
    target, old = write_subset(command.model, wanted, folder)
    for name, before in zip(wanted, old, strict=True):
        print(name if name == before else f"{name} (was {before})")
    print(f"written: {target}")
    add_result(file=target, classes=dict(zip(wanted, old, strict=True)))
    return 0


def _default_folder(model: Path) -> Path:
    from fssd.weights.checkpoint import model_file
    from fssd.zoo.models import FOLDER

    file = model_file(model)
    if file.parent == FOLDER:
        return Path(f"{file.stem}-subset")  # not in the package's folder
    run = file.parent.resolve()
    return run.with_name(f"{run.name}-subset")

"""fssd subset MODEL --classes voc|coco|NAMES... [--out DIR]"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Subset:
    """Take some classes out of a trained model, for example VOC's 20 out of COCO's 80."""

    model: Annotated[Path, tyro.conf.Positional]
    """Model file, or the folder of a run."""
    classes: tuple[str, ...]
    """Names in the order wanted, or voc or coco for all of theirs; "aeroplane" finds "airplane" and so on."""
    out: Path | None = None
    """Folder to write final.safetensors into; by default beside the run's, with -subset after its name."""


def run(arguments: list[str]) -> int:
    """Write the smaller model and say which class came from which."""
    command = tyro.cli(Subset, prog="fssd subset", args=arguments)
    from fssd.checkpoint import model_file
    from fssd.class_names import COCO, VOC
    from fssd.importers.subset import write_subset

    tables: dict[tuple[str, ...], tuple[str, ...]] = {("voc",): VOC, ("coco",): COCO}
    wanted = tables.get(command.classes, command.classes)
    run_folder = model_file(command.model).parent.resolve()
    folder = command.out or run_folder.with_name(f"{run_folder.name}-subset")
    target, old = write_subset(command.model, wanted, folder)
    for name, before in zip(wanted, old, strict=True):
        print(name if name == before else f"{name} (was {before})")
    print(f"written: {target}")
    return 0

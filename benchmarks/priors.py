"""How many boxes of a data set have a prior at IoU 0.5: the published tables against fitted priors.

python benchmarks/priors.py DATA... [--size 300] [--model fssd300-lite]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import tyro

from fssd.data.input_boxes import input_boxes
from fssd.data.source import open_data
from fssd.heads.multibox.match import MATCHED
from fssd.model.build import build_model
from fssd.model.network import Network


@dataclass(frozen=True)
class Priors:
    """Print the share of boxes with a prior, in percent, train / val."""

    data: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Data sets; their splits train and val."""
    size: tuple[int, ...] = (300,)
    """Input in pixels."""
    model: str = "fssd300-lite"
    """Network."""


def main(command: Priors) -> None:
    print(f"| data, {' x '.join(map(str, command.size))} px | voc | coco | fitted |\n|---|---|---|---|")
    for data in command.data:
        network = build(command, "voc")
        train, val = (input_boxes(open_data(data, split), network.geometry) for split in ("train", "val"))
        columns = [network, build(command, "coco"), build(command, network.heads.fitted(train)["priors"])]
        cells = [f"{share(one, train):.1f} / {share(one, val):.1f}" for one in columns]
        print(f"| {data.name} | {' | '.join(cells)} |", flush=True)


def build(command: Priors, priors: Any) -> Network:
    with torch.device("meta"):  # no weights are needed
        return build_model(command.model, 1, size=list(command.size), priors=priors)


def share(network: Network, boxes: npt.NDArray[np.float32]) -> float:
    overlaps = network.heads.best_overlaps(boxes)
    assert overlaps is not None
    return 100 * float((overlaps >= MATCHED).mean())


if __name__ == "__main__":
    main(tyro.cli(Priors))

"""fssd curves RUN... [--out curves.png] [--metric-name map]"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fssd.cli.options import parse
from fssd.cli.result import add_result
from fssd.counted import counted
from fssd.errors import ConfigError


@dataclass(frozen=True)
class Curves:
    """Plot accuracy on the validation split against iterations, as the paper's Fig. 4."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs; NAME/seed-0, NAME/seed-1, ... become one line, their mean, and a band, their range."""
    out: Path = Path("curves.png")
    """Picture, .png, .svg or .pdf; the numbers go beside it as .csv."""
    metric_name: str = "map"
    """Number to plot: map, small, medium, large (mAP by object size), COCO's AP50, ..., or a class."""


def run(arguments: list[str]) -> int:
    command = parse(Curves, arguments)
    from fssd.atomic import require_writable
    from fssd.figures.curves import COLUMNS, draw_curves, read_curves, write_csv
    from fssd.plots import check_suffix, require_matplotlib, require_own_table, save_plot

    check_suffix(command.out)
    if all(run.is_file() for run in command.runs):
        raise ConfigError("there is nothing to plot; name the folders of runs")
    require_matplotlib()
    table = command.out.with_suffix(".csv")
    require_own_table(table, COLUMNS)
    require_writable(command.out, table)
    # `runs/table2/*` also matches the tables beside the runs.
    curves = read_curves([run for run in command.runs if not run.is_file()], command.metric_name)
    axes = draw_curves(curves)
    for line in curves.lines:
        if line.left_out:
            what = f"iterations at which not all of its {line.runs} runs were evaluated"
            print(f"note: {line.name}: left out {line.left_out} {what}", file=sys.stderr)
    write_csv(table, curves)
    save_plot(command.out, axes)
    print(f"{counted(len(curves.lines), 'line')} in {command.out}, numbers in {table}")
    add_result(lines=[line.name for line in curves.lines], picture=command.out, table=table)
    return 0

"""The table of an ablation: mean and standard deviation over the seeds, and the cost of each row."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from fssd.ablation.plan import AblationRow
from fssd.bench.timing import take_turns
from fssd.config import TrainConfig
from fssd.model.build import build_model
from fssd.model.cost import multiply_adds, parameters
from fssd.model.network import Network, channels_last
from fssd.training.start import network_options

MEASURES = ("mAP", "small", "medium", "large")


@dataclass(frozen=True)
class Cost:
    """parameters: learnable ones. multiply_adds: for one image. milliseconds: the same, network alone."""

    parameters: int
    multiply_adds: int
    milliseconds: float


@dataclass(frozen=True)
class Line:
    """One row of the table.

    updates: of each run, and images per update. values: for each measure, the AP in percent of each seed, in
    the order of the seeds; nan if there is no object of that size. gain: for each seed, the mAP minus that of
    the first row with the same seed.
    """

    row: AblationRow
    seeds: tuple[int, ...]
    updates: tuple[int, int]
    values: Mapping[str, tuple[float, ...]]
    gain: tuple[float, ...]
    cost: Cost


def measure_costs(configs: Mapping[str, TrainConfig], classes: int, repeats: int = 7) -> dict[str, Cost]:
    """Cost of each row's network. The rows are timed in turn, so that a busy moment affects all equally."""
    networks = {name: _network(config, classes) for name, config in configs.items()}
    steps = {name: partial(_forward, network) for name, network in networks.items()}
    times = take_turns(steps, repeats, warm_up=1)  # one is enough: VGG16 is slow on a CPU
    return {
        name: Cost(parameters(network), multiply_adds(network), 1000 * statistics.median(times[name]))
        for name, network in networks.items()
    }


def _network(config: TrainConfig, classes: int) -> Network:
    return channels_last(build_model(config.model, classes, **network_options(config))).eval()


@torch.inference_mode()
def _forward(network: Network) -> None:
    width, height = network.image_size
    network(torch.zeros(1, 3, height, width))


def make_lines(
    rows: Sequence[AblationRow],
    results: Mapping[str, Mapping[int, Mapping[str, Any]]],
    updates: Mapping[str, tuple[int, int]],
    costs: Mapping[str, Cost],
) -> list[Line]:
    """The lines of the rows that have results.

    results: by row name and seed, the last evaluation as `Report.to_json` wrote it. updates: by row name, the
    number of updates and the images per update.
    """
    first = results.get(rows[0].name, {})
    lines = []
    for row in rows:
        own = results.get(row.name, {})
        if not own:
            continue
        seeds = tuple(sorted(own))
        values = {measure: tuple(_percent(own[seed], measure) for seed in seeds) for measure in MEASURES}
        paired = [seed for seed in seeds if seed in first]
        gain = tuple(_percent(own[seed], "mAP") - _percent(first[seed], "mAP") for seed in paired)
        lines.append(Line(row, seeds, updates[row.name], values, gain, costs[row.name]))
    return lines


def _percent(evaluation: Mapping[str, Any], measure: str) -> float:
    value = evaluation["map"] if measure == "mAP" else evaluation["sizes"].get(measure)
    return math.nan if value is None else 100 * float(value)


def markdown(title: str, notes: Sequence[str], lines: Sequence[Line]) -> str:
    """The table as Markdown: mean ± standard deviation over the seeds, percent."""
    head = ["row", "seeds", "updates", *MEASURES, "over the first row"]
    head += ["parameters", "multiply-adds", "ms", "paper"]
    text = [f"# {title}", "", *notes, "", _cells(head), _cells(["---", *["---:"] * (len(head) - 1)])]
    for line in lines:
        cost = line.cost
        updates = "{:,} x {}".format(*line.updates)
        cells = [line.row.name, str(len(line.seeds)), updates]
        cells += [mean_spread(line.values[measure]) for measure in MEASURES]
        cells.append("" if line is lines[0] else mean_spread(line.gain, signed=True))
        cells += [f"{cost.parameters:,}", f"{cost.multiply_adds / 1e9:.2f} G", f"{cost.milliseconds:.1f}"]
        cells.append("" if line.row.paper is None else f"{line.row.paper:.1f}")
        text.append(_cells(cells))
    return "\n".join(text) + "\n"


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def mean_spread(values: Sequence[float], signed: bool = False) -> str:
    """`61.2 ± 0.8`: mean and sample standard deviation; only the mean for one value, - for none."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    mean = f"{statistics.fmean(known):{'+' if signed else ''}.1f}"
    return mean if len(known) == 1 else f"{mean} ± {statistics.stdev(known):.1f}"


def csv_rows(lines: Sequence[Line]) -> tuple[list[str], list[list[object]]]:
    """Column names, and one row for each run, not averaged."""
    columns = ["row", "seed", "updates", "images_per_update", *MEASURES]
    columns += ["parameters", "multiply_adds", "milliseconds", "paper"]
    rows: list[list[object]] = []
    for line in lines:
        for index, seed in enumerate(line.seeds):
            measured = [_plain(line.values[measure][index]) for measure in MEASURES]
            cost = [line.cost.parameters, line.cost.multiply_adds, round(line.cost.milliseconds, 2)]
            paper = "" if line.row.paper is None else line.row.paper
            rows.append([line.row.name, seed, *line.updates, *measured, *cost, paper])
    return columns, rows


def _plain(value: float) -> object:
    return "" if math.isnan(value) else round(value, 3)

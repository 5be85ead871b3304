"""The results of an ablation (table.md, table.csv, table.png): mean and deviation over the seeds, costs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fssd.ablation.plan import TABLES, AblationPlan, AblationRow, PublishedRow
from fssd.ablation.run import Run
from fssd.atomic import atomic_write
from fssd.bench.timing import take_turns
from fssd.config.run_files import FINAL_FILE
from fssd.errors import ConfigError
from fssd.figures.scatter import machine
from fssd.model.cost import multiply_adds, parameters
from fssd.model.network import Network, channels_last
from fssd.plots import INK, QUIET, TEXT, colour, new_panels, save_plot, save_table, shortened
from fssd.training.data_facts import validation_name
from fssd.training.log import LastEvaluation, last_evaluation
from fssd.weights.checkpoint import read_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURES = ("mAP", "small", "medium", "large")
_COLUMNS = (
    "Updates x images in each; ms: network alone, one image, fp32, median ({}). The last column is the"
    " paper's value."
)


@dataclass(frozen=True)
class Cost:
    """parameters: learnable ones. multiply_adds: for one image. milliseconds: the same, network alone."""

    parameters: int
    multiply_adds: int
    milliseconds: float


@dataclass(frozen=True)
class Line:
    """One row of the table.

    updates: by seed. batch: images per update. values: for each measure, the AP in percent by seed; nan if
    there is no object of that size. gain: by seed, the mAP minus that of the first row with the same seed.
    """

    row: AblationRow
    seeds: tuple[int, ...]
    updates: tuple[int, ...]
    batch: int
    values: Mapping[str, tuple[float, ...]]
    gain: tuple[float, ...]
    cost: Cost


def measure_costs(networks: Mapping[str, Network], repeats: int = 7) -> dict[str, Cost]:
    """Cost of each row's network. The rows are timed in turn, so that a busy moment affects all equally."""
    networks = {name: channels_last(network).eval() for name, network in networks.items()}
    steps = {name: partial(_forward, network) for name, network in networks.items()}
    times = take_turns(steps, repeats, warm_up=1)  # one is enough: VGG16 is slow on a CPU
    return {
        name: Cost(parameters(network), multiply_adds(network), 1000 * statistics.median(times[name]))
        for name, network in networks.items()
    }


@torch.inference_mode()
def _forward(network: Network) -> None:
    width, height = network.image_size
    network(torch.zeros(1, 3, height, width))


def make_lines(
    rows: Sequence[AblationRow],
    results: Mapping[str, Mapping[int, Mapping[str, Any]]],
    updates: Mapping[str, Mapping[int, int]],
    batches: Mapping[str, int],
    costs: Mapping[str, Cost],
) -> list[Line]:
    """The lines of the rows that have results.

    results: by row name and seed, the last evaluation as `Report.to_json` wrote it. updates: the number of
    updates until then. batches: by row name, the images per update.
    """
    first = results.get(rows[0].name, {})
    lines = []
    for row in rows:
        own = results.get(row.name)
        if own is None:
            continue
        seeds = tuple(sorted(own))
        values = {measure: tuple(_percent(own[seed], measure) for seed in seeds) for measure in MEASURES}
        paired = [seed for seed in seeds if seed in first]
        gain = tuple(_percent(own[seed], "mAP") - _percent(first[seed], "mAP") for seed in paired)
        made = tuple(updates[row.name][seed] for seed in seeds)
        lines.append(Line(row, seeds, made, batches[row.name], values, gain, costs[row.name]))
    return lines


def _percent(evaluation: Mapping[str, Any], measure: str) -> float:
    value = evaluation["map"] if measure == "mAP" else evaluation["sizes"].get(measure)
    return math.nan if value is None else 100 * float(value)


def in_order(
    lines: Sequence[Line], published: Sequence[PublishedRow], order: Sequence[str]
) -> list[Line | PublishedRow]:
    """Measured lines and published rows as the file of the ablation lists them. order: the names of all."""
    by_name: dict[str, Line | PublishedRow] = {line.row.name: line for line in lines}
    by_name |= {row.name: row for row in published}
    return [by_name[name] for name in order if name in by_name]


def markdown(title: str, notes: Sequence[str], lines: Sequence[Line | PublishedRow]) -> str:
    """The table as Markdown: mean ± standard deviation over the seeds, percent.

    A published row has its value in the last column alone; sources and notes are numbered below the table.
    """
    head = ["row", "seeds", "updates", *MEASURES, "over the first row"]
    head += ["parameters", "multiply-adds", "ms", "paper"]
    text = [f"# {title}", "", *notes, "", cells(head), cells(["---", *["---:"] * (len(head) - 1)])]
    remarks: list[str] = []
    first = next((line for line in lines if isinstance(line, Line)), None)
    for line in lines:
        note = remark(line if isinstance(line, PublishedRow) else line.row)
        remarks += [note] * bool(note)
        mark = f" ({len(remarks)})" if note else ""
        if isinstance(line, PublishedRow):
            text.append(cells([line.name, "published", *[""] * (len(head) - 3), f"{line.value:.1f}{mark}"]))
            continue
        cost = line.cost
        texts = [line.row.name, str(len(line.seeds)), f"{_span(line.updates)} x {line.batch}"]
        texts += [mean_spread(line.values[measure]) for measure in MEASURES]
        texts.append("" if line is first else mean_spread(line.gain, signed=True))
        texts += [f"{cost.parameters:,}", f"{cost.multiply_adds / 1e9:.2f} G", f"{cost.milliseconds:.1f}"]
        texts.append("" if line.row.paper is None else f"{line.row.paper:.1f}{mark}")
        text.append(cells(texts))
    numbered = [f"{number}. {note}" for number, note in enumerate(remarks, start=1)]
    return "\n".join([*text, *([""] if numbered else []), *numbered]) + "\n"


def _span(updates: Sequence[int]) -> str:
    """`600`, or `450 to 600` where runs ended early."""
    least, most = min(updates), max(updates)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def remark(row: AblationRow | PublishedRow) -> str:
    """The sentence below the table about a row's printed value; "" for none."""
    if isinstance(row, PublishedRow):
        note = f". {row.note}" if row.note else ""
        return f"{row.name}: published, not measured here. {row.source}{note}"
    return f"{row.name}: {row.note}" if row.note else ""


def cells(texts: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(texts) + " |"


def mean_spread(values: Sequence[float], signed: bool = False) -> str:
    """`61.2 ± 0.8`: mean and sample standard deviation; only the mean for one value, - for none."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    mean = f"{statistics.fmean(known):{'+' if signed else ''}.1f}"
    return mean if len(known) == 1 else f"{mean} ± {statistics.stdev(known):.1f}"


def csv_rows(lines: Sequence[Line | PublishedRow]) -> tuple[list[str], list[list[object]]]:
    """Column names, and one row for each run, not averaged, and for each published row, with its source."""
    columns = ["row", "seed", "updates", "images_per_update", *MEASURES]
    columns += ["parameters", "multiply_adds", "milliseconds", "paper", "remark"]
    rows: list[list[object]] = []
    for line in lines:
        note = remark(line if isinstance(line, PublishedRow) else line.row)
        if isinstance(line, PublishedRow):
            rows.append([line.name, "published", *[""] * (len(columns) - 4), line.value, note])
            continue
        for index, seed in enumerate(line.seeds):
            values = [line.values[measure][index] for measure in MEASURES]
            measured = ["" if math.isnan(value) else round(value, 3) for value in values]
            cost = [line.cost.parameters, line.cost.multiply_adds, round(line.cost.milliseconds, 2)]
            paper = "" if line.row.paper is None else line.row.paper
            length = [line.updates[index], line.batch]
            rows.append([line.row.name, seed, *length, *measured, *cost, paper, note])
    return columns, rows


def require_own(out: Path, plan: AblationPlan) -> None:
    """Raise ConfigError if `out` has a table of something else: no row of this plan has a folder there."""
    if any((out / row.name).is_dir() for row in plan.rows):
        return
    for name in TABLES:
        if (out / name).exists():
            raise ConfigError(
                f"{out}: holds a {name}, but no run of this ablation; give another folder as --out"
            )


def write_report(out: Path, plan: AblationPlan, finished: Sequence[Run], costs: dict[str, Cost]) -> None:
    """Write the table of the finished runs, if any was evaluated."""
    results: dict[str, dict[int, dict[str, Any]]] = {}
    updates: dict[str, dict[int, int]] = {}
    for run in finished:
        last = last_evaluation(run.folder) or _unmeasured(run)
        if last is not None:
            results.setdefault(run.row.name, {})[run.seed] = last.report
            updates.setdefault(run.row.name, {})[run.seed] = last.iteration
    batches = {run.row.name: run.config.images_per_update(1) for run in finished}
    measured = make_lines(plan.rows, results, updates, batches, costs)
    if not measured:
        return
    report = next(iter(results[measured[0].row.name].values()))
    lines = in_order(measured, plan.published, plan.order)
    notes = _notes(report, finished[0]) if plan.server is None else _server_notes(plan.server, finished[0])
    text, values, picture = (out / name for name in TABLES)
    atomic_write(text, markdown(plan.title, notes, lines))
    save_table(values, *csv_rows(lines))
    draw_table(picture, lines)


def _unmeasured(run: Run) -> LastEvaluation | None:
    """What stands for the evaluation of a finished run whose images have no public labels."""
    if run.config.val_split is not None:
        return None
    facts = read_model(run.folder / FINAL_FILE)[1]
    return LastEvaluation(facts["iteration"], {"map": None, "sizes": {}})


def _notes(report: dict[str, Any], run: Run) -> list[str]:
    iou = "0.50:0.95" if report.get("iou") is None else f"{report['iou']:.2f}"
    name = validation_name(run.config)
    where = f"({name})" if run.config.val_split == "auto" else f"of split {name}"
    return [
        f"AP in percent ({report.get('metric')}, IoU {iou}) on {report.get('images')} images"
        f" {where} after the last update; mean ± standard deviation over the seeds.",
        _COLUMNS.format(machine(torch.device("cpu"))),
    ]


def _server_notes(server: str, run: Run) -> list[str]:
    return [
        f"The labels of {server} are not public, so nothing is measured here; for the server:"
        f" `fssd submit {run.folder} --data DATA --to {server} --out results`.",
        _COLUMNS.format(machine(torch.device("cpu"))),
    ]


def draw_table(path: Path, lines: Sequence[Line | PublishedRow]) -> None:
    """A panel for each measure: a dot for each seed, a bar for the mean, a cross for the paper's value."""
    measured = {index: line for index, line in enumerate(lines) if isinstance(line, Line)}
    values = {m: [v for line in measured.values() for v in line.values[m]] for m in MEASURES}
    shown = [m for m in MEASURES if not all(map(math.isnan, values[m]))] or ["mAP"]
    paper = {
        index: line.value if isinstance(line, PublishedRow) else line.row.paper
        for index, line in enumerate(lines)
    }
    panels = new_panels(1350, 190 + 60 * len(lines), len(shown))
    for panel, measure in zip(panels, shown, strict=True):
        for index, line in measured.items():
            _draw_values(panel, index, [v for v in line.values[measure] if not math.isnan(v)])
        for index, value in paper.items():
            if measure == "mAP" and value is not None:
                panel.plot([value], [index], "x", color=QUIET, markersize=6)
        panel.set_xlabel("mAP %" if measure == "mAP" else f"AP %, {measure}")
        panel.set_ylim(len(lines) - 0.5, -0.7)
        names = [line.name if isinstance(line, PublishedRow) else line.row.name for line in lines]
        panel.set_yticks(
            range(len(lines)), map(shortened, names), parse_math=False
        )  # a row may be called a$b$
        _widen(panel)
    if any(value is not None for value in paper.values()):
        panels[0].set_xlabel("mAP %  (\u00d7 the paper's)")
    save_plot(path, panels[0])


def _draw_values(panel: Axes, index: int, values: Sequence[float]) -> None:
    if not values:
        return
    mean = statistics.fmean(values)
    panel.plot(values, [index] * len(values), "o", color=colour(index), alpha=0.45, markersize=5)
    panel.plot([mean], [index], "|", color=colour(index), markersize=20, markeredgewidth=2.5)
    text = f"{mean:.1f}"
    panel.annotate(
        text, (mean, index), xytext=(0, 11), textcoords="offset points", ha="center", fontsize=TEXT, color=INK
    )


def _widen(panel: Axes) -> None:
    """Widen the axis to at least one point of AP, so that noise does not fill the panel; few tick labels."""
    low, high = panel.get_xlim()
    middle, room = (low + high) / 2, max(1.0, (high - low) * 1.3) / 2
    panel.set_xlim(middle - room, middle + room)
    panel.locator_params(axis="x", nbins=4)

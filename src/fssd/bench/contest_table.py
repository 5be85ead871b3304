"""The result of a contest of models: as a table for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from fssd.bench.contest import Contest, Timing
from fssd.bench.timing import Spread, milliseconds, plain, rates, ratio, spread


def latency(timing: Timing, batch: int) -> Spread:
    """Milliseconds of the network alone, for one image."""
    return milliseconds(spread([seconds / batch for seconds in timing.seconds["network"]]))


def throughput(timing: Timing, batch: int) -> Spread:
    """Images a second, from decoded images to detections."""
    return rates(timing.seconds["arrays"], batch)


def slower(timing: Timing, first: Timing) -> Spread:
    """The time of a network divided by that of the first one, turn by turn."""
    return ratio(timing.seconds["network"], first.seconds["network"])


def head(contest: Contest) -> list[str]:
    """What was measured, and on which machine."""
    machine, setup = contest.machine, contest.setup
    load = "" if machine["load"] is None else f", load {machine['load']} before"
    processor = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    turns = len(contest.timings[0].seconds["network"])
    held = "" if setup["held"] else ", one model in memory at a time"
    random = all(timing.facts["weights"] == "random" for timing in contest.timings)
    weights = "; random weights: the time of NMS is not realistic" * random
    return [
        f"{processor}, threads {machine['threads']}{load}; {packages}",
        f"{setup['images']}, batch {setup['batch']}, {turns} turns, models in turn{held}; medians, with the"
        f" 10th and 90th percentile{weights}",
    ]


COLUMNS = (
    *("model", "runtime", "input", "parameters", "multiply-adds", "network, ms", "10 % to 90 %"),
    *("over the first", "images/s", "10 % to 90 %"),
)


def cells(contest: Contest) -> list[list[str]]:
    """A row for each model, in the order given, with `COLUMNS`, and the accuracy if it was given."""
    batch, first = contest.setup["batch"], contest.timings[0]
    rows = []
    for timing in contest.timings:
        ms, fps, over = latency(timing, batch), throughput(timing, batch), slower(timing, first)
        facts = timing.facts
        size = facts["image_size"]
        width, height = size if isinstance(size, list) else (size, size)
        precision = "" if facts["precision"] == "fp32" else f" {facts['precision']}"
        work = "?" if timing.multiply_adds is None else f"{timing.multiply_adds / 1e9:.2f} G"
        row = [facts["name"], f"{facts['runtime']}{precision}", f"{width} x {height}"]
        row += ["?" if timing.parameters is None else f"{timing.parameters:,}", work]
        row += [f"{ms.median:.2f}", f"{ms.low:.2f} to {ms.high:.2f}", f"{over.median:.2f}"]
        row += [f"{fps.median:.1f}", f"{fps.low:.1f} to {fps.high:.1f}"]
        rows.append(row + ([] if timing.accuracy is None else [f"{timing.accuracy:.1f}"]))
    return rows


def columns(contest: Contest) -> tuple[str, ...]:
    return COLUMNS if contest.timings[0].accuracy is None else (*COLUMNS, "mAP %, as given")


def table(contest: Contest) -> Table:
    """For the terminal; the spread of images/s is in the files alone."""
    names = columns(contest)
    shown = [index for index, name in enumerate(names) if index not in (1, len(COLUMNS) - 1)]
    result = Table()
    for index in shown:
        result.add_column(names[index], justify="left" if index < 3 else "right", no_wrap=True)
    for name, runtime, *rest in cells(contest):
        row = [f"{name} ({runtime})", runtime, *rest]
        result.add_row(*(row[index] for index in shown))
    return result


def markdown(contest: Contest) -> str:
    """The same as Markdown, with what was measured above it."""
    names = columns(contest)
    lines = [*head(contest), "", _line(names), _line(["---"] * 3 + ["---:"] * (len(names) - 3))]
    return "\n".join([*lines, *map(_line, cells(contest))]) + "\n"


def to_json(contest: Contest) -> str:
    """All figures, and the seconds of each turn."""
    batch, first = contest.setup["batch"], contest.timings[0]
    models: list[dict[str, Any]] = [
        {
            **asdict(timing),
            "milliseconds": latency(timing, batch),
            "images_per_second": throughput(timing, batch),
            "over_the_first": slower(timing, first),
        }
        for timing in contest.timings
    ]
    document = {"format": 1, "machine": contest.machine, "setup": contest.setup}
    document["models"] = [plain(model) for model in models]
    return json.dumps(plain(document), indent=2, ensure_ascii=False) + "\n"


def _line(row: Sequence[str]) -> str:
    return "| " + " | ".join(row) + " |"

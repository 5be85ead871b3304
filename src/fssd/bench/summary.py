"""What a measurement found, as text and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fssd.bench.comparison import plain
from fssd.bench.peak import Peak
from fssd.bench.stages import WHOLES, Timed
from fssd.bench.timing import Spread, rates, ratio, spread

if TYPE_CHECKING:
    from rich.table import Table

FORMAT = 1

TITLES = {
    "decode": "decode the file's bytes",
    "preprocess": "warp to the network's size",
    "network": "network",
    "postprocess": "decode boxes, NMS, names",
    "arrays": "image array in, detections out",
    "files": "file in, detections out",
}


@dataclass(frozen=True)
class BenchReport:
    """A measurement of one model at one batch size.

    model, machine: facts as JSON values; model has name, runtime, precision, weights, image_size, classes.
    setup: batch, mode, score, warm_up and images. multiply_adds: of one image; None if not known.
    batches: images a second of the network at each batch size that was tried, if several were.
    """

    model: Mapping[str, Any]
    machine: Mapping[str, Any]
    setup: Mapping[str, Any]
    multiply_adds: int | None
    timed: Timed
    peak: Peak
    batches: Mapping[int, float]

    @property
    def milliseconds(self) -> dict[str, Spread]:
        """Of one image, by step."""
        batch = self.setup["batch"]
        return {
            name: spread([1000 * seconds / batch for seconds in times])
            for name, times in self.timed.seconds.items()
        }

    @property
    def frames_per_second(self) -> dict[str, Spread]:
        """Of the network, and of the whole from arrays and from files."""
        return {name: rates(self.timed.seconds[name], self.setup["batch"]) for name in ("network", *WHOLES)}

    @property
    def overhead(self) -> Spread:
        """Time of preprocessing and post-processing over that of the network, of the same batches."""
        around = zip(self.timed.seconds["preprocess"], self.timed.seconds["postprocess"], strict=True)
        return ratio([before + after for before, after in around], self.timed.seconds["network"])

    @property
    def gflops(self) -> float | None:
        """10^9 operations a second of the network, two for a multiply-add."""
        if self.multiply_adds is None:
            return None
        return 2e-9 * self.multiply_adds * self.frames_per_second["network"].median

    @property
    def share(self) -> float | None:
        """`gflops` over the machine's peak; the peak's precision may be another than the network's."""
        return None if self.gflops is None else self.gflops / self.peak.gflops

    def to_json(self) -> str:
        """All figures, each with its spread."""
        document = {
            "format": FORMAT,
            "model": {**self.model, "multiply_adds": self.multiply_adds},
            "machine": self.machine,
            "setup": self.setup,
            "milliseconds": plain(self.milliseconds),
            "frames_per_second": plain(self.frames_per_second),
            "overhead": plain(self.overhead),
            "detections": plain(spread(self.timed.detections)),
            "gflops": self.gflops,
            "peak": {
                "precision": self.peak.precision,
                "gflops": self.peak.gflops,
                "way": self.peak.best,
                "ways": plain(self.peak.ways),
            },
            "share_of_peak": self.share,
            "batches": plain(self.batches),
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    def table(self) -> Table:
        """Stages and wholes, one a row, as `rich` prints them."""
        from rich.table import Table

        table = Table()
        table.add_column("stage")
        for column in ("ms an image", "10 % to 90 %", "images/s"):
            table.add_column(column, justify="right")
        for name, figure in self.milliseconds.items():
            if name == WHOLES[0]:
                table.add_section()
            table.add_row(
                TITLES[name],
                f"{figure.median:.2f}",
                f"{figure.low:.2f} to {figure.high:.2f}",
                f"{1000 / figure.median:.1f}",
            )
        return table

    def head(self) -> list[str]:
        """What was measured, and on what."""
        model, machine, setup = self.model, self.machine, self.setup
        size = model["image_size"]
        load = "" if machine["load"] is None else f", load {machine['load']} before"
        place = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"
        return [
            f"{model['name']}: {model['runtime']}, {model['precision']}, {size} x {size},"
            f" {model['classes']} classes, {model['weights']} weights",
            f"{place}, threads {machine['threads']}{load}",
            f"{setup['images']}, batch {setup['batch']}, {len(self.timed.seconds['network'])} turns;"
            f" detections over {setup['score']} in an image: {statistics.median(self.timed.detections):g}",
        ]

    def foot(self) -> list[str]:
        """How near the peak, and what to bear in mind."""
        lines = [f"preprocessing and post-processing: {self.overhead.median:.1%} of the network's time"]
        if self.multiply_adds is not None:
            own, peak = self.model["precision"], self.peak.precision
            beyond = f", which {own} may go beyond" if own in ("int8", "bf16") and own != peak else ""
            lines.append(
                f"{self.multiply_adds / 1e9:.2f} G multiply-adds an image: {self.gflops:.0f} GFLOP/s,"
                f" {self.share:.0%} of the {self.peak.gflops:.0f} GFLOP/s that {self.peak.best} reaches in"
                f" {peak}{beyond}"
            )
        if len(self.batches) > 1:
            tried = ", ".join(f"{batch}: {rate:.1f}" for batch, rate in self.batches.items())
            lines.append(f"images/s of the network by batch size: {tried}")
        if self.model["weights"] == "random":
            lines.append(
                "random weights: the network's speed is real; what it finds, and so post-processing, is not"
            )
        return lines

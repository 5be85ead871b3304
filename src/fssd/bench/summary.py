"""The results of a measurement, as text and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from fssd.bench.peak import Peak
from fssd.bench.stages import WHOLES, Timed
from fssd.bench.timing import Spread, plain, rates, ratio, spread

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

    model: name, runtime, precision, weights, image_size, classes. machine: from `describe_machine`. setup:
    batch, mode, score, warm_up, images. multiply_adds: for one image; None if unknown. batches: images per
    second of the network at each batch size that was tried, if there were several.
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
        """Per image, for each step."""
        batch = self.setup["batch"]
        seconds = self.timed.seconds
        return {name: spread([1000 * one / batch for one in times]) for name, times in seconds.items()}

    @property
    def frames_per_second(self) -> dict[str, Spread]:
        """Of the network alone, and of the whole from arrays and from files."""
        return {name: rates(self.timed.seconds[name], self.setup["batch"]) for name in ("network", *WHOLES)}

    @property
    def overhead(self) -> Spread:
        """Time of preprocessing and post-processing divided by that of the network, for the same batches."""
        seconds = self.timed.seconds
        around = np.add(seconds["preprocess"], seconds["postprocess"])
        return ratio(around.tolist(), seconds["network"])

    @property
    def gflops(self) -> float | None:
        """10^9 operations per second of the network, two for a multiply-add."""
        if self.multiply_adds is None:
            return None
        return 2e-9 * self.multiply_adds * self.frames_per_second["network"].median

    @property
    def share(self) -> float | None:
        """`gflops` divided by the machine's peak, whose precision may differ from the network's."""
        return None if self.gflops is None else self.gflops / self.peak.gflops

    def to_json(self) -> str:
        """All figures with their spreads."""
        document = {
            "format": 1,
            "model": {**self.model, "multiply_adds": self.multiply_adds},
            "machine": self.machine,
            "setup": self.setup,
            "milliseconds": self.milliseconds,
            "frames_per_second": self.frames_per_second,
            "overhead": self.overhead,
            "detections": spread(self.timed.detections),
            "gflops": self.gflops,
            "peak": {
                "precision": self.peak.precision,
                "gflops": self.peak.gflops,
                "way": self.peak.best,
                "ways": self.peak.ways,
            },
            "share_of_peak": self.share,
            "batches": self.batches,
        }
        return json.dumps(plain(document), indent=2, ensure_ascii=False) + "\n"

    def table(self) -> Table:
        """Stages and wholes, one per row."""
        table = Table("stage")
        for column in ("ms an image", "10 % to 90 %", "images/s"):
            table.add_column(column, justify="right")
        for name, figure in self.milliseconds.items():
            if name == WHOLES[0]:
                table.add_section()
            spread_text = f"{figure.low:.2f} to {figure.high:.2f}"
            table.add_row(TITLES[name], f"{figure.median:.2f}", spread_text, f"{1000 / figure.median:.1f}")
        return table

    def head(self) -> list[str]:
        """What was measured, and on which machine."""
        model, machine, setup = self.model, self.machine, self.setup
        size = model["image_size"]
        width, height = size if isinstance(size, list) else (size, size)
        load = "" if machine["load"] is None else f", load {machine['load']} before"
        processor = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"
        return [
            f"{model['name']}: {model['runtime']}, {model['precision']}, {width} x {height},"
            f" {model['classes']} classes, {model['weights']} weights",
            f"{processor}, threads {machine['threads']}{load}",
            f"{setup['images']}, batch {setup['batch']}, {len(self.timed.seconds['network'])} turns;"
            f" detections over {setup['score']} in an image: {statistics.median(self.timed.detections):g}",
        ]

    def foot(self) -> list[str]:
        """The comparison with the peak, and remarks."""
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
                "random weights: only the speed of the network is realistic, not that of post-processing"
            )
        return lines

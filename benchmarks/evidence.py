"""What fusion gains, over several data sets and seeds: the rows of finished ablations against the first one.

    fssd ablate fusion-light --data circuit --out runs/circuit --seeds 3
    python benchmarks/evidence.py runs/circuit runs/deeppcb --first ssd --markdown evidence.md

Every run's final model is measured on the split that it was validated on. A result varies with the images it
is measured on and with the seed it was trained with. The images are resampled with replacement, together for
both sides (the paired bootstrap, see `fssd.evaluation.bootstrap`); three seeds are too few to resample, which
would leave out a third of their variance, so theirs is estimated, and the interval is that of Welch's t test:
the 95 % quantile of Student's t for as many degrees of freedom as the seeds leave (Welch 1947).

Measured runs are kept in OUT/ROW/seed-N/evidence.json, so that the command can be repeated. Another model,
split, metric or evaluation is measured again; changed labels are not noticed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import fssd.evaluation
from fssd.ablation.output import cells, mean_spread
from fssd.atomic import atomic_write
from fssd.config.config_files import load_config
from fssd.config.run_files import CONFIG_FILE, FINAL_FILE
from fssd.data.source import open_data
from fssd.evaluation.bootstrap import rank
from fssd.evaluation.evaluate import evaluate_detections
from fssd.inference.detector import Detector
from fssd.storage.cache_folder import code_digest

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Runs = dict[str, list[dict[str, Any]]]  # by row, what was measured of each seed
MEASURES = ("mAP", "AP75", "small", "medium", "large")


class Gain(NamedTuple):
    """The mean over the seeds of one row minus that of another, as shares of 1.

    images: its variance over resampled images. seeds: the variance of each of the two means over their seeds,
    with its degrees of freedom; none of a row with one seed.
    """

    value: float
    images: float
    seeds: tuple[tuple[float, int], ...]


def main() -> None:
    args = _arguments()
    sets = {folder.name: measured_runs(folder, args.resamples) for folder in args.folders}
    lines = [cells(["data", "row", "seeds", *MEASURES, f"over {args.first}", "95 % interval"])]
    lines.append(cells(["---", "---", *["---:"] * (len(MEASURES) + 3)]))
    gains: dict[str, list[Gain]] = {}
    for name, runs in sets.items():
        for row, own in runs.items():
            texts = [name, row, str(len(own)), *(mean_spread(percent(own, key)) for key in MEASURES)]
            if row != args.first and args.first in runs:
                sides = (runs[args.first], own)
                found = gain_over(*([np.array(run["resampled"]) for run in side] for side in sides))
                gains.setdefault(row, []).append(found)
                texts += gain_cells(found)
            lines.append(cells([*texts, *[""] * (len(MEASURES) + 5 - len(texts))]))
    for row, found_in in gains.items():
        small = [difference(runs, args.first, row, "small") for runs in sets.values() if row in runs]
        known = [value for value in small if not math.isnan(value)]
        texts = [
            f"mean of {len(found_in)}",
            row,
            "",
            "",
            "",
            f"{statistics.fmean(known):+.1f}" if known else "-",
        ]
        lines.append(cells([*texts, "", "", *gain_cells(mean_gain(found_in))]))
    table = "\n".join(lines) + "\n"
    print(table, end="")
    if args.markdown is not None:
        atomic_write(args.markdown, table)


def percent(runs: Sequence[dict[str, Any]], measure: str) -> list[float]:
    """A measure of each seed; nan where there is no object of that size."""
    return [float("nan") if run[measure] is None else 100 * run[measure] for run in runs]


def difference(runs: Runs, first: str, row: str, measure: str) -> float:
    """Of the means over the seeds, in points."""
    return statistics.fmean(percent(runs[row], measure)) - statistics.fmean(percent(runs[first], measure))


def gain_cells(gain: Gain) -> list[str]:
    """The gain in points of mAP, and its interval."""
    low, high = interval(gain)
    return [f"{100 * gain.value:+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}"]


def image_weights(images: int, resamples: int) -> Ints:
    """(1 + R, I) how often each image counts: once in the first row, then resampled."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(images, np.full(images, 1 / images), resamples)
    return np.concatenate([np.ones((1, images), np.int64), drawn])


def gain_over(first: Sequence[Floats], other: Sequence[Floats]) -> Gain:
    """What `other` gains over `first`: for each seed (1 + R,) mAP with the weights of `image_weights`."""
    tables = [np.stack(side) for side in (first, other)]  # (S, 1 + R)
    gains = tables[1].mean(axis=0) - tables[0].mean(axis=0)
    seeds = [(table[:, 0].var(ddof=1) / len(table), len(table) - 1) for table in tables if len(table) > 1]
    return Gain(float(gains[0]), float(gains[1:].var(ddof=1)), tuple(seeds))


def mean_gain(gains: Sequence[Gain]) -> Gain:
    """The mean of gains on data sets that have neither images nor trainings in common."""
    square = len(gains) ** 2
    seeds = tuple((variance / square, freedom) for gain in gains for variance, freedom in gain.seeds)
    images = sum(gain.images for gain in gains) / square
    return Gain(statistics.fmean(gain.value for gain in gains), images, seeds)


def interval(gain: Gain) -> tuple[float, float]:
    """The 95 % confidence interval; with one seed on each side it leaves out how much seeds differ."""
    variance = gain.images + sum(one for one, _ in gain.seeds)
    spread = sum(one**2 / freedom for one, freedom in gain.seeds)
    from scipy.stats import t as student  # not on every machine that measures runs

    half = student.ppf(0.975, variance**2 / spread if spread else math.inf) * math.sqrt(variance)
    return gain.value - half, gain.value + half


def measured_runs(folder: Path, resamples: int) -> Runs:
    """The finished runs of an ablation's folder, by row, seeds in ascending order."""
    runs: Runs = {}
    for final in sorted(folder.glob(f"*/seed-*/{FINAL_FILE}")):
        runs.setdefault(final.parent.parent.name, []).append(measured_run(final, resamples))
    return runs


def measured_run(final: Path, resamples: int) -> dict[str, Any]:
    """Measures of a run's final model, AP in 0..1 or None, and its mAP for each resample of the images."""
    kept, asked = final.parent / "evidence.json", what_is_measured(final, resamples)
    if kept.is_file():
        known: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if known.get("asked") == asked:
            return known
    config = load_config(final.parent / CONFIG_FILE)
    assert config.data is not None
    detector = Detector.load(final)
    dataset = open_data(config.data, config.val_split)
    detections = list(detector.evaluate_on(dataset))
    report = evaluate_detections(dataset, detections, config.metric)
    strict = evaluate_detections(dataset, detections, config.metric, 0.75)
    aps = rank(dataset, detections, config.metric).ap(image_weights(len(dataset), resamples))
    measures = {"mAP": report.map, "AP75": strict.map, **report.sizes}
    found = {
        **{name: None if math.isnan(value) else value for name, value in measures.items()},
        "resampled": np.nanmean(aps, axis=1).tolist(),
        "asked": asked,
    }
    atomic_write(kept, json.dumps(found, allow_nan=False) + "\n")
    print(f"{final.parent}: mAP {100 * report.map:.1f}", flush=True)
    return found


def what_is_measured(final: Path, resamples: int) -> dict[str, Any]:
    """What the measures of a run depend on, but for the images and their labels."""
    config = load_config(final.parent / CONFIG_FILE)
    return {
        "model": hashlib.sha256(final.read_bytes()).hexdigest(),
        "split": config.val_split,
        "metric": config.metric,
        "resamples": resamples,
        "code": code_digest(sorted(Path(fssd.evaluation.__file__).parent.glob("*.py"))),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", nargs="+", type=Path, help="of `fssd ablate --out`, one for each data set")
    parser.add_argument("--first", default="ssd", help="row that the others are compared with")
    parser.add_argument("--resamples", type=int, default=1000, help="of the images")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

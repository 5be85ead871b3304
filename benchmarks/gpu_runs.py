"""The runs of an ablation on several data sets, side by side on one GPU, for a machine lent for minutes.

    # the packs are folders of gpu_pack.py's files, PACKS/NAME for each data set
    python benchmarks/gpu_runs.py fusion-light --packs PACKS --data circuit deeppcb --out runs --minutes 7

A light network keeps a GPU busy for a small part of the time, so --jobs runs share it. Those of seed 0 come
first, on every set, then those of seed 1: what is finished when the time is over makes a fair table. Stopped
runs go on with the same command. The folders are those of `fssd ablate --out OUT/NAME`, each finished run
measured as `benchmarks/evidence.py` does, whose table is printed at the end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path

from evidence import measured_run
from gpu import unpack

from fssd.ablation.plan import AblationPlan, parse_budget, read_plan
from fssd.ablation.run import Run, is_finished, plan_runs
from fssd.cli.train import parse_options
from fssd.config.config_files import find_config
from fssd.config.run_files import FINAL_FILE
from fssd.training.loop import train

RESAMPLES = 1000
LEAST = 20  # seconds under which no run is begun: its start alone takes as long


def main() -> int:
    args = _arguments()
    end = time.monotonic() + 60 * args.minutes
    plan = read_plan(find_config(args.ablation, ["ablations"]))
    runs = [run for name in args.data for run in planned(plan, args, name)]
    runs.sort(key=lambda run: run.seed)  # stable: within a seed set by set, row by row
    args.out.mkdir(parents=True, exist_ok=True)
    states: Counter[str] = Counter()
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    logs = args.out / "logs"
    logs.mkdir(exist_ok=True)
    with ProcessPoolExecutor(args.jobs, context, initializer=_to_log, initargs=(logs,)) as pool:
        waiting: dict[Future[str], Run] = {pool.submit(take, run, end): run for run in runs}
        for done in as_completed(waiting):
            state = _outcome(done)
            states[state.partition(":")[0]] += 1
            print(f"{time.monotonic() - end:7.1f} s  {waiting[done].folder}: {state}", flush=True)
    print(dict(states), flush=True)
    _table([args.out / name for name in args.data], args.out / "evidence.md")
    return 0


def planned(plan: AblationPlan, args: argparse.Namespace, name: str) -> list[Run]:
    """The runs on one data set, whose packs are laid out first."""
    data = unpack([folder for pack in args.packs if (folder := pack / name).is_dir()], args.work / name)[0]
    budget = None if args.budget is None else parse_budget(args.budget)
    changes = parse_options(tuple(args.set))
    return plan_runs(plan, args.out / name, seeds=args.seeds, data=data, budget=budget, changes=changes)


def take(run: Run, end: float) -> str:
    """Train and measure a run; what became of it. end: as `time.monotonic` counts."""
    if end - time.monotonic() < LEAST:
        return "not begun"
    if not is_finished(run):
        start = time.monotonic()
        result = train(run.config, resume=True, minutes=(end - start) / 60)
        if not result.finished:
            return "stopped"
    found = measured_run(run.folder / FINAL_FILE, RESAMPLES)
    return f"finished: mAP {100 * found['mAP']:.1f}"


def _outcome(done: Future[str]) -> str:
    try:
        return done.result()
    except Exception as error:  # of one run; the others go on
        return f"failed: {type(error).__name__}: {error}"


def _to_log(folder: Path) -> None:
    """Let this process write what it prints to a file of its own."""
    log = os.open(folder / f"{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)


def _table(folders: list[Path], to: Path) -> None:
    evidence = Path(__file__).with_name("evidence.py")
    command = [sys.executable, evidence, *folders, "--resamples", str(RESAMPLES), "--markdown", to]
    subprocess.run(command, check=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ablation", type=Path, help="file of rows, or the name of a packaged one")
    parser.add_argument("--packs", type=Path, nargs="+", required=True, help="folders of the sets' packs")
    parser.add_argument("--data", nargs="+", required=True, help="names of the sets, folders in --packs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--work", type=Path, default=Path("/tmp/fssd-gpu"), help="folder for the data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", help="length of each run, such as 1200it")
    parser.add_argument("--jobs", type=int, default=8, help="runs at a time")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything")
    parser.add_argument("--set", nargs="*", default=[], help="settings of every row, KEY=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

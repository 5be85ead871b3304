"""fssd ablate FILE --data DATA [--seeds N] [--budget 20ep|5000it] [--minutes N] [--engine ray]"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fssd.cli.options import parse
from fssd.cli.result import add_result
from fssd.config.bounds import Bound, Count, Positive
from fssd.config.config_files import find_config
from fssd.engines import Engine
from fssd.errors import ConfigError

if TYPE_CHECKING:
    from fssd.ablation.plan import AblationPlan
    from fssd.ablation.run import Run
    from fssd.model.network import Network


@dataclass(frozen=True)
class Ablate:
    """Train the rows of a table, measure them, and write the table as Markdown, CSV and plot."""

    file: Annotated[Path, tyro.conf.Positional]
    """YAML file of rows, or the name of a packaged one, such as table2."""
    data: Path | None = None
    """Data set for every row, instead of those that the rows name."""
    out: Path | None = None
    """Folder for runs and table; runs/FILE without its suffix if not given. Its finished runs are kept."""
    seeds: Annotated[int, Bound("1 to 1000", lambda value: 1 <= value <= 1000)] = 1
    """Seeds for each row: 0, 1, ...; the table gives their mean and spread."""
    budget: str | None = None
    """Length of each run, such as 20ep or 5000it, instead of its own; learning-rate steps are scaled."""
    minutes: Positive | None = None
    """Save and stop after this many minutes; the same command resumes."""
    set: tuple[str, ...] = ()
    """Training settings of every row as KEY=VALUE, for example: --set batch_size=16 amp=bf16."""
    engine: Engine = "local"
    """"local" trains one run after the other; "ray" side by side, as many as the cluster at RAY_ADDRESS has
    CPUs or GPUs for, or this machine if none is named."""
    cpus: Count | None = None
    """CPUs of each run, with --engine ray (1); its threads, unless a setting says otherwise."""
    show: bool = False
    """Print the rows with the costs of their networks and what is published of them, and train nothing."""


def run(arguments: list[str]) -> int:
    """Train what is missing and write the table; 0 if it is complete, 1 if time ran out or a run failed."""
    command = parse(Ablate, arguments)
    from fssd.ablation.output import require_own
    from fssd.ablation.plan import parse_budget, read_plan
    from fssd.ablation.preview import preview
    from fssd.ablation.run import plan_runs
    from fssd.cli.train import parse_options
    from fssd.engines.ray_session import require_ray
    from fssd.plots import require_matplotlib
    from fssd.training.splits import open_splits
    from fssd.training.start import fresh_network, require_objects

    _check(command)
    plan = read_plan(find_config(command.file, ["ablations"]))
    if command.show:
        text = preview(plan)
        print(text, end="")
        add_result(preview=text)
        return 0
    require_matplotlib()
    if command.engine == "ray":
        require_ray()
    out = command.out or Path("runs") / command.file.stem
    require_own(out, plan)
    budget = None if command.budget is None else parse_budget(command.budget)
    changes = parse_options(command.set)
    runs = plan_runs(plan, out, seeds=command.seeds, data=command.data, budget=budget, changes=changes)
    configs = {run.row.name: run.config for run in runs}
    networks = {}
    for name, config in configs.items():
        images = open_splits(config, quiet=True).train
        require_objects(config, images)
        networks[name] = fresh_network(config, images, None, quiet=True)
    train = _train_on_ray if command.engine == "ray" else _train_here
    finished = train(command, plan, runs, networks, out)
    if finished:
        print((out / "table.md").read_text(encoding="utf-8"))
        print(f"table: {out / 'table.md'}, {out / 'table.csv'}, {out / 'table.png'}")
    table = out / "table.csv" if finished else None
    add_result(out=out, runs=len(runs), finished=len(finished), table=table)
    if len(finished) == len(runs):
        return 0
    print(f"{len(finished)} of {len(runs)} runs are finished; the same command continues with the others")
    return 1


def _check(command: Ablate) -> None:
    """Raise ConfigError for what cannot be started so."""
    from fssd.training.distributed import this_process

    if (world := this_process().world) > 1:
        raise ConfigError(
            f"fssd ablate was started as {world} processes, but trains one run after another in one; start it"
            " without torchrun, or train its rows one by one with fssd train"
        )
    if command.cpus is not None and command.engine != "ray":
        raise ConfigError("--cpus is for --engine ray; leave it out, or choose that engine")


def _train_here(
    command: Ablate, plan: "AblationPlan", runs: "list[Run]", networks: "dict[str, Network]", out: Path
) -> "list[Run]":
    """Train one run after the other, with the table written after each; the finished ones."""
    from fssd.ablation.output import measure_costs, write_report
    from fssd.ablation.run import train_runs

    costs = measure_costs(networks)
    networks.clear()
    finished = []
    for one in train_runs(runs, command.minutes):
        finished.append(one)
        write_report(out, plan, finished, costs)
    return finished


def _train_on_ray(
    command: Ablate, plan: "AblationPlan", runs: "list[Run]", networks: "dict[str, Network]", out: Path
) -> "list[Run]":
    """Train side by side, then write the table; the finished ones.

    Costs are measured after the runs: those on this machine would slow down some networks more than others.
    """
    from fssd.ablation.output import measure_costs, write_report
    from fssd.ablation.ray_runs import train_runs_on_ray

    done = {one.folder for one in train_runs_on_ray(runs, command.minutes, command.cpus)}
    finished = [one for one in runs if one.folder in done]
    if finished:
        write_report(out, plan, finished, measure_costs(networks))
    return finished

"""`fssd tune`: worse trials are stopped early, a killed search goes on, and a real training reports."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ray_cluster import RayCluster

from fssd.cli.main import main
from fssd.config.config_files import load_config
from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError, DataError, FssdError, TrainingError
from fssd.training import loop
from fssd.tuning.ray_tune import have_ended, run_trial
from fssd.tuning.search import read_search
from fssd.tuning.trials import read_trials, trial_folder, write_results

HANG = 300  # seconds after which a test that hangs fails

FILE = """
settings: {model: ssd300-lite, size: 128, epochs: 1, start: nothing, augment: none, batch_size: 2, workers: 0,
  ema: 0, amp: "off", threads: 1}
search:
  lr: {from: 1e-4, to: 0.01, log: true}
"""

# The driver, with trials that train nothing. The mAP of the one that begins first is 0.08, of the second
# 0.04, of the third 0.02, from the first evaluation on, in whichever order they get a processor. Each notes
# every evaluation; at 50 percent it waits until PLACE/open exists.
DRIVER = """
import os, sys
from fssd.engines.ray_session import own_signals, require_ray
ray = require_ray()
place, *words = sys.argv[1:]
def hook():
    import json, os, time
    from pathlib import Path
    from types import SimpleNamespace
    import fssd.training.loop as loop
    def train(config, *, resume, report):
        folder = config.out
        folder.mkdir(parents=True, exist_ok=True)
        order = Path(place, "order")
        with order.open("a") as file:
            file.write(f"{folder.name} ")
        value = 0.08 / 2 ** list(dict.fromkeys(order.read_text().split())).index(folder.name)
        for done in range(10, 101, 10):
            line = {"iteration": done, "evaluation": {"map": value, "sizes": {}}}
            with (folder / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\\n")
            with open(os.path.join(place, "noted"), "a") as file:
                file.write(f"{folder.name} {done}\\n")
            while done == 50 and not os.path.exists(os.path.join(place, "open")):
                time.sleep(0.05)
            report(done, 100, SimpleNamespace(map=value))
        (folder / "final.safetensors").touch()
    loop.train = train
with own_signals():
    ray.init(
        address=os.environ["RAY_ADDRESS"],
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"worker_process_setup_hook": hook},
    )
from fssd.cli.main import main
sys.exit(main(words))
"""


def seed_where(file: Path, data: Path, holds: Callable[[dict[str, Any], dict[str, Any]], bool]) -> int:
    """A seed with which `holds` is true of the values of the first two trials."""
    search = read_search(file, data)
    return next(seed for seed in range(99) if holds(search.values(0, seed), search.values(1, seed)))


def another_merge(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return bool(first["options.merge"] != second["options.merge"])


def table(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.long
def test_a_killed_search_goes_on_and_worse_trials_are_stopped(
    ray_cluster: RayCluster,
    tmp_path: Path,
    scenes: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ray_cluster.require(1)
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "search.yaml").write_text(FILE)
    words = ["tune", "search.yaml", "--data", str(scenes), "--out", "tuned", "--trials", "3", "--first", "10"]
    command = [sys.executable, "-c", DRIVER, str(place), *words]
    out = tmp_path / "tuned"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as killed:
        end = time.monotonic() + HANG
        while not (place / "noted").exists() or " 50\n" not in (place / "noted").read_text():
            assert killed.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        killed.kill()
    (place / "open").touch()
    done = subprocess.run(command, cwd=tmp_path, timeout=HANG, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = table(out)
    assert sorted(int(row["trial"]) for row in rows) == list(range(3))
    values = [float(row["mAP"]) for row in rows]
    assert values == sorted(values, reverse=True)
    order = list(dict.fromkeys(int(folder) for folder in (place / "order").read_text().split()))
    assert [int(row["trial"]) for row in rows] == order
    states = [row["state"] for row in rows]
    assert (
        states[0] == "finished" and "stopped early" in states and set(states) == {"finished", "stopped early"}
    )
    best = load_config(out / "best.yaml")
    assert best.lr == float(rows[0]["lr"]) and best.data == scenes
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--factor", "4"]) == 2
    assert "was begun with another search, see" in capsys.readouterr().err


def test_trials_train_and_their_best_settings_train_again(
    ray_cluster: RayCluster, tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ray_cluster.require(1)
    entry = yaml.safe_load(FILE)
    entry["settings"] |= {"iterations": 2}
    del entry["settings"]["epochs"]
    entry["search"] = {"options.merge": ["sum", "nothing"], "lr": [0.001, 0.002]}
    entry["settings"]["model"] = "fssd300-lite"
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(entry))
    out = tmp_path / "tuned"
    # Each of the two trials draws another merge; there is no merge "nothing", so one of them fails.
    words = ["tune", str(tmp_path / "search.yaml"), "--data", str(scenes), "--out", str(out), "--trials", "2"]
    seed = seed_where(tmp_path / "search.yaml", scenes, another_merge)
    assert main([*words, "--seed", str(seed)]) == 0
    assert sorted(row["state"] for row in table(out)) == ["failed", "finished"]
    failed = next(row for row in table(out) if row["state"] == "failed")
    assert (
        "there is no merge 'nothing'"
        in (out / "trials" / f"{int(failed['trial']):04}" / "failed.txt").read_text()
    )
    assert "the best settings: fssd train --config" in capsys.readouterr().out
    assert load_config(out / "best.yaml").options == {"merge": "sum"}


def test_a_trial_fails_by_its_own_settings_alone_and_no_longer_once_it_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune = pytest.importorskip("ray.tune", reason='needs Ray: pip install "fssd[ray]"')
    monkeypatch.setattr(tune, "report", lambda _: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search.yaml").write_text(FILE)
    search, folder = read_search(tmp_path / "search.yaml", tmp_path), trial_folder(tmp_path, 0)
    fault: FssdError | None = None

    def train(config: TrainConfig, **_: Any) -> None:
        if fault is not None:
            raise fault
        assert config.out is not None
        (config.out / "final.safetensors").touch()

    def state() -> str:
        run_trial({"number": 0, "configs": [TrainConfig(out=folder)], "folder": str(tmp_path)})
        return read_trials(tmp_path, search, 1, 0, over=True)[0].state

    monkeypatch.setattr(loop, "train", train)
    for fault in (ConfigError("there is no such thing"), TrainingError("the loss is not finite")):
        assert state() == "failed" and (folder / "failed.txt").read_text() == f"{fault}\n"
    fault = DataError("the disk is away", file=tmp_path)
    with pytest.raises(DataError):
        state()
    assert not (folder / "failed.txt").exists()
    fault = None
    assert state() == "finished"
    (folder / "failed.txt").touch()
    assert read_trials(tmp_path, search, 1, 0, over=True)[0].state == "finished"


def test_settings_of_a_trial_that_failed_are_not_the_best(tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text(FILE)
    search = read_search(tmp_path / "search.yaml", tmp_path)

    def end(number: int, value: float, file: str) -> None:
        folder = trial_folder(tmp_path, number)
        folder.mkdir(parents=True, exist_ok=True)
        line = {"iteration": 10, "evaluation": {"map": value}}
        (folder / "log.jsonl").write_text(json.dumps(line) + "\n")
        (folder / file).touch()

    end(0, 0.4, "failed.txt")
    end(1, 0.5, "failed.txt")  # its loss was not finite after this evaluation
    trials = read_trials(tmp_path, search, 2, 0, over=True)
    assert write_results(tmp_path, search, trials, 0) is None
    end(0, 0.4, "final.safetensors")
    trials = read_trials(tmp_path, search, 2, 0, over=True)
    assert [trial.number for trial in trials] == [0, 1]
    best = write_results(tmp_path, search, trials, 0)
    assert best is not None and load_config(best).lr == search.values(0, 0)["lr"]


def test_results_are_those_of_their_trials_in_any_order(tmp_path: Path) -> None:
    """Ray lists restored trials by when they last reported."""
    configs = [TrainConfig(out=trial_folder(tmp_path, number)) for number in range(2)]
    assert configs[0].out is not None
    configs[0].out.mkdir(parents=True)
    (configs[0].out / "final.safetensors").touch()
    ended = SimpleNamespace(path="ray/0000", error=None, metrics={"done": True})
    lost = SimpleNamespace(path="ray/0001", error=OSError("the disk is away"), metrics={})
    stopped = SimpleNamespace(path="ray/0001", error=None, metrics={"done": True})
    for results in ([ended, lost], [lost, ended]):
        said: list[str] = []
        assert not have_ended(configs, results, said.append)
        assert said == ["trial 0001: the disk is away"]
    assert have_ended(configs, [stopped, ended], said.append)
    assert not have_ended(configs, [ended], said.append)

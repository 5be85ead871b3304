"""`fssd ablate --engine ray`: a machine is killed in the middle of its run; the table is the serial one."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray_cluster import RayCluster

from fssd.cli.main import main

pytest.importorskip("matplotlib", reason='plots need matplotlib: pip install "fssd[plot]"')
HANG = 300  # seconds after which a test that hangs fails

PLAN = """
title: Two rows
settings: {size: 128, iterations: 4, batch_size: 2, augment: none, lr: 0.001, save_every: 1, threads: 1,
  workers: 0, amp: "off"}
rows:
  - {name: plain, set: {model: ssd300-lite, start: nothing}}
  - {name: fused, after: plain, set: {model: fssd300-lite, start: ssd}}
"""

# The driver, with a hook in each process that trains: at update 2 of a run it notes its own process and waits
# until PLACE/open exists. It also notes that it was asked to stop.
DRIVER = """
import os, sys
from fssd.engines.ray_session import own_signals, require_ray
ray = require_ray()
place, *words = sys.argv[1:]
def hook():
    import os, time
    import fssd.training.folder as folder
    import fssd.training.stop as stop
    ask = stop.StopRequest.ask
    def asked(self, number):
        ask(self, number)
        open(os.path.join(place, f"asked-{os.getpid()}"), "w").close()
    stop.StopRequest.ask = asked
    save = folder.RunFolder.save_state
    def noted(self, updater, progress, *rest):
        save(self, updater, progress, *rest)
        with open(os.path.join(place, "saved"), "a") as file:
            file.write(f"{self.path.parent.name} {self.path.name} {progress.iteration} {os.getpid()}\\n")
        while progress.iteration == 2 and not os.path.exists(os.path.join(place, "open")):
            time.sleep(0.05)
    folder.RunFolder.save_state = noted
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


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    (tmp_path / "two.yaml").write_text(PLAN)
    return folder


@pytest.fixture
def driver(tmp_path: Path, place: Path, scenes: Path) -> Iterator[subprocess.Popen[str]]:
    """`fssd ablate --engine ray` with two seeds, in a process of its own."""
    words = ["ablate", "two.yaml", "--data", str(scenes), "--out", "ray", "--seeds", "2", "--engine", "ray"]
    command = [sys.executable, "-c", DRIVER, str(place), *words]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()


def saved(place: Path) -> list[tuple[str, str, int, int]]:
    """Row, seed, update and process of every state that was saved."""
    if not (place / "saved").exists():
        return []
    rows = [line.split() for line in (place / "saved").read_text().splitlines()]
    return [(row, seed, int(update), int(pid)) for row, seed, update, pid in rows]


def wait_for_gate(place: Path, driver: subprocess.Popen[str], runs: int) -> None:
    wait_for(lambda: sum(update == 2 for _, _, update, _ in saved(place)) >= runs, driver)


def wait_for(done: Callable[[], bool], driver: subprocess.Popen[str]) -> None:
    end = time.monotonic() + HANG
    while not done():
        assert driver.poll() is None, driver.stdout.read() if driver.stdout else ""
        assert time.monotonic() < end
        time.sleep(0.1)


def table(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open() as file:
        return [
            {key: value for key, value in row.items() if key != "milliseconds"}
            for row in csv.DictReader(file)
        ]


@pytest.mark.long
def test_the_runs_of_a_lost_machine_go_on_elsewhere_and_the_table_is_the_serial_one(
    ray_cluster: RayCluster, driver: subprocess.Popen[str], place: Path, tmp_path: Path, scenes: Path
) -> None:
    ray_cluster.require(2)
    wait_for_gate(place, driver, 2)  # the first row, with both seeds, each on a machine of its own
    ray_cluster.kill_node()
    (place / "open").touch()
    output, _ = driver.communicate(timeout=HANG)
    assert driver.returncode == 0, output
    states = saved(place)
    per_run = {
        (row, seed): [update for *key, update, _ in states if key == [row, seed]] for row, seed, *_ in states
    }
    assert set(per_run) == {(row, f"seed-{seed}") for row in ("plain", "fused") for seed in (0, 1)}
    # The lost run goes on from update 2, nothing is done twice.
    assert all(updates in ([1, 2, 3, 4, 4], [1, 2, 3, 4]) for updates in per_run.values()), per_run
    processes = {key: {pid for *one, _, pid in states if tuple(one) == key} for key in per_run}
    assert Counter(len(pids) for pids in processes.values()) == {1: 3, 2: 1}
    serial = ["ablate", str(tmp_path / "two.yaml"), "--data", str(scenes), "--out", str(tmp_path / "serial")]
    assert main([*serial, "--seeds", "2"]) == 0
    assert table(tmp_path / "ray") == table(tmp_path / "serial")
    assert len(table(tmp_path / "ray")) == 4


def test_a_stopped_driver_has_the_runs_save_and_the_same_command_goes_on(
    ray_cluster: RayCluster, driver: subprocess.Popen[str], place: Path, tmp_path: Path
) -> None:
    ray_cluster.require(2)
    wait_for_gate(place, driver, 2)
    driver.send_signal(signal.SIGTERM)
    wait_for(lambda: len(list(place.glob("asked-*"))) == 2, driver)
    (place / "open").touch()
    output, _ = driver.communicate(timeout=HANG)
    assert driver.returncode == 128 + signal.SIGTERM, output
    assert "the same command continues" in output
    for seed in (0, 1):
        run = tmp_path / "ray" / "plain" / f"seed-{seed}"
        assert (run / "last.safetensors").exists() and not (run / "final.safetensors").exists()


def test_flags_without_effect_and_too_many_cpus(
    ray_cluster: RayCluster, place: Path, tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ablate", str(tmp_path / "two.yaml"), "--data", str(scenes), "--out", str(tmp_path / "out")]
    assert main([*command, "--cpus", "2"]) == 2
    assert "--cpus is for --engine ray; leave it out, or choose that engine" in capsys.readouterr().err
    ray_cluster.require(1)
    assert main([*command, "--engine", "ray", "--cpus", "2"]) == 2
    assert "no machine of the cluster has 2 CPUs; give --cpus 1 or less" in capsys.readouterr().err

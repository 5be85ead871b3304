"""`fssd train --engine ray`: a machine is killed in the middle of a run, whose bytes stay the same."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray_cluster import RayCluster

from fssd.cli.main import main
from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError, TrainingError
from fssd.training.loop import Result
from fssd.weights.checkpoint import read_tensors

HANG = 400  # seconds after which a test that hangs fails
SETTINGS: dict[str, Any] = {
    "model": "ssd300-lite",
    "size": [128],
    "start": "nothing",
    "iterations": 5,
    "batch_size": 2,
    "warmup": 0,
    "augment": "mirror",
    "workers": 0,
    "threads": 1,
    "save_every": 2,
    "log_every": 1,
    "eval_every": 0.5,
    "amp": "off",
}

# The driver, with a hook in each process that trains: after update 3 it notes its node and waits until
# PLACE/open exists.
DRIVER = """
import os, sys
from fssd.engines.ray_session import own_signals, require_ray
ray = require_ray()
place, *words = sys.argv[1:]
def hook():
    import os, time
    from fssd.training.step import Updater
    step = Updater.step
    def noted(self, rate):
        step(self, rate)
        self.done = getattr(self, "done", 0) + 1
        if self.done == 3 and not os.path.exists(os.path.join(place, "open")):
            node = __import__("ray").get_runtime_context().get_node_id()
            with open(os.path.join(place, f"rank-{self.process.rank}"), "w") as file:
                file.write(node)
            while not os.path.exists(os.path.join(place, "open")):
                time.sleep(0.05)
    Updater.step = noted
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


def flags(settings: dict[str, Any]) -> list[str]:
    words = []
    for key, value in settings.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{key.replace('_', '-')}", *map(str, values)]
    return words


@pytest.mark.long
def test_a_lost_machine_changes_no_byte(
    scenes: Path, tmp_path: Path, ray_cluster: RayCluster, train_together: Any
) -> None:
    settings = {**SETTINGS, "data": str(scenes)}
    place, out, reference = (tmp_path / name for name in ("place", "run", "reference"))
    place.mkdir()
    ray_cluster.require(3)
    command = [sys.executable, "-c", DRIVER, str(place), "train", "--engine", "ray", "--processes", "2"]
    command += flags({**settings, "out": str(out)})
    with (tmp_path / "driver").open("w+", encoding="utf-8") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + HANG
            notes = [place / f"rank-{rank}" for rank in (0, 1)]
            while not all(note.exists() and note.read_text(encoding="utf-8") for note in notes):
                assert driver.poll() is None and time.monotonic() < end, Path(log.name).read_text(
                    encoding="utf-8"
                )
                time.sleep(0.1)
            lost = notes[1].read_text(encoding="utf-8")
            (index,) = [i for i, node in enumerate(ray_cluster.nodes) if node.node_id == lost]
            ray_cluster.kill_node(index)
            (place / "open").touch()
            driver.wait(HANG)
        finally:
            driver.kill()
            driver.wait()
        told = Path(log.name).read_text(encoding="utf-8")
    assert driver.returncode == 0, told
    assert "best mAP" in told
    undisturbed = train_together([{**settings, "out": str(reference)}] * 2, tiny=False)
    assert [one.code for one in undisturbed] == [0, 0], undisturbed
    for name in ("last.safetensors", "best.safetensors", "final.safetensors"):
        tensors, document = read_tensors(out / name)
        expected, facts = read_tensors(reference / name)
        for key, value in expected.items():
            assert torch.equal(tensors[key], value), (name, key)
        facts["config"]["out"] = document["config"]["out"]
        assert document == facts
    assert not (out / "ray").exists()


@pytest.mark.long
def test_an_error_of_the_package_is_raised_once(
    scenes: Path, tmp_path: Path, ray_cluster: RayCluster, capfd: pytest.CaptureFixture[str]
) -> None:
    """The group is not started again for what would fail again."""
    ray_cluster.require(2)
    handler = signal.getsignal(signal.SIGINT)
    settings = {**SETTINGS, "data": str(scenes), "out": str(tmp_path / "run"), "train_split": "nothing"}
    assert main(["train", "--engine", "ray", "--processes", "2", *flags(settings)]) == 2
    assert "nothing" in capfd.readouterr().err
    assert main(["train", "--engine", "ray", "--processes", "9", *flags(settings)]) == 2
    assert "the cluster has 2 CPUs, too few for 9 processes" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is handler, "Ray trains with one of its own"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--processes", "2"], "--processes is for --engine ray"),
        (["--engine", "ray"], "needs to know how many --processes"),
        (["--engine", "ray", "--processes", "2", "--folds", "3"], "a run validates on one of them"),
    ],
)
def test_flags_that_do_not_fit(
    scenes: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", str(scenes), "--out", str(tmp_path / "run"), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_package_is_named(scenes: Path, tmp_path: Path, refuse: Any) -> None:
    from fssd.training.ray_train import train_on_ray

    refuse("ray")
    with pytest.raises(ConfigError, match=r'pip install "fssd\[ray\]"'):
        train_on_ray(TrainConfig(data=scenes, out=tmp_path / "run"), 2)


@pytest.mark.parametrize("fails", [False, True])
def test_files_that_lie_where_ray_makes_its_notes_stay(
    scenes: Path, tmp_path: Path, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fssd.training import ray_train

    out = tmp_path / "run"
    storages: list[Path] = []

    def fit(job: ray_train.Job, processes: int, storage: Path, *_: object) -> Result:
        (storage / "train").mkdir(parents=True)
        storages.append(storage)
        if fails:
            raise TrainingError("over")
        return Result(out, None, None, finished=True)

    ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 2})
    monkeypatch.setattr(ray_train, "connect", lambda _: nullcontext(ray))
    monkeypatch.setattr(ray_train, "_fit", fit)
    config = TrainConfig(data=scenes, out=out, start="nothing", device="cpu")
    for kept in ([], ["ray", "ray/thesis.txt"]):
        if kept:
            (out / "ray").mkdir(parents=True)
            (out / "ray" / "thesis.txt").touch()
        with pytest.raises(TrainingError) if fails else nullcontext():
            ray_train.train_on_ray(config, 2)
        assert [str(path.relative_to(out)) for path in sorted(out.rglob("*"))] == kept
    assert storages[0] != storages[1]


@pytest.mark.parametrize(
    ("text", "reason"), [("The actor died.\n  pid: 7", "The actor died."), ("", "ActorDiedError")]
)
def test_a_controller_that_dies(
    tmp_path: Path, text: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fssd.training import ray_train

    class ActorDiedError(Exception):
        pass

    class Trainer:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def fit(self) -> None:
            raise ActorDiedError(text)

    anything = dict.fromkeys(("ScalingConfig", "RunConfig", "FailureConfig", "LoggingConfig"), dict)
    modules = {
        "ray.train": SimpleNamespace(TrainingFailedError=KeyError, **anything),
        "ray.train.torch": SimpleNamespace(TorchTrainer=Trainer, TorchConfig=dict),
        "ray.exceptions": SimpleNamespace(RayError=ActorDiedError),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    job = ray_train.Job(TrainConfig(out=tmp_path), str(tmp_path), 0)
    message = f"Ray lost what leads the processes ({reason}); go on with --resume"
    with pytest.raises(TrainingError, match=re.escape(message)):
        ray_train._fit(job, 2, tmp_path, False, 60)

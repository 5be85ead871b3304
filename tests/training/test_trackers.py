"""Experiment trackers: the real packages without a network, names that are none, and a tracker that fails."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from torch import nn

from fssd.cli.main import main
from fssd.config.train_config import TrainConfig
from fssd.data.augment_hook import find_augmenter
from fssd.errors import ConfigError
from fssd.training import trackers
from fssd.training.folder import read_saved
from fssd.training.loop import train
from fssd.training.trackers import Trackers, check_trackers

LINE = {"iteration": 3, "loss": 1.5, "lr": 0.01}
REPORT = {"map": 0.5, "metric": "voc12", "classes": {"a:b": 0.25, "owl": None}, "sizes": {"small": 0.125}}
WANTED = {"loss": (3, 1.5), "lr": (3, 0.01), "mAP": (4, 0.5), "AP of small objects": (4, 0.125)}


def write(config: TrainConfig) -> None:
    assert config.out is not None
    config.out.mkdir(exist_ok=True)
    opened = Trackers(config)
    opened.log(LINE)
    opened.log({"iteration": 4, "evaluation": REPORT})
    opened.close()


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason='needs pip install "fssd[mlflow]"')
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    config = TrainConfig(out=tmp_path / "run", log_to=("mlflow",), class_weights=("inverse",))
    write(config)
    id = json.loads((tmp_path / "run" / "trackers.json").read_text())["mlflow"]
    client = mlflow.MlflowClient()
    run = client.get_run(id)
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert client.get_experiment(run.info.experiment_id).name == "fssd"
    assert run.data.params["class_weights"] == "('inverse',)" and run.data.params["batch_size"] == "32"
    found = {key: [(m.step, m.value) for m in client.get_metric_history(id, key)] for key in run.data.metrics}
    assert found == {key: [value] for key, value in {**WANTED, "AP/a_b": (4, 0.25)}.items()}
    again = Trackers(config)  # as after --resume
    assert client.get_run(id).info.status == "RUNNING"
    again.log({**LINE, "iteration": 9})
    again.close("failed")
    assert client.get_run(id).info.status == "FAILED"
    assert [m.step for m in client.get_metric_history(id, "loss")] == [3, 9]


def records_of(content: bytes) -> Iterator[bytes]:
    """The records of a .wandb file, LevelDB's log format: blocks of 32 KiB after a header of 7 bytes."""
    position, parts = 7, b""
    while position + 7 <= len(content):
        room = 32768 - position % 32768
        if room < 7:
            position += room
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason='needs pip install "fssd[wandb]"')
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    write(TrainConfig(out=tmp_path / "run", log_to=("wandb",)))
    id = json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]
    (file,) = (tmp_path / "run" / "wandb").glob(f"offline-run-*/run-{id}.wandb")
    end = time.monotonic() + 120  # a process of its own writes the file, which may go on after the run's end
    while len(found := history(file)) < len(WANTED) + 1 and time.monotonic() < end:
        time.sleep(0.2)
    assert found == {**WANTED, "AP/a:b": (4, 0.25)}


@pytest.mark.parametrize(("own", "where"), [(None, "run"), ("there", "there")])
def test_the_folder_of_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None, where: str
) -> None:
    """WANDB_DIR names another than that of the run."""
    if own is None:
        monkeypatch.delenv("WANDB_DIR", raising=False)
    else:
        monkeypatch.setenv("WANDB_DIR", str(tmp_path / own))
    asked: dict[str, Any] = {}

    def init(**settings: Any) -> SimpleNamespace:
        asked.update(settings)
        return SimpleNamespace(id="a")

    wandb = SimpleNamespace(init=init, Settings=lambda **_: None)
    monkeypatch.setattr(trackers, "import_module", lambda _: wandb)
    trackers.WandbRun(tmp_path / "run", {}, None)
    assert asked["dir"] == str(tmp_path / where)


def history(file: Path) -> dict[str, tuple[int, float]]:
    """The values of a .wandb file with their updates; checks the settings of the run on the way."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, tuple[int, float]] = {}
    for data in records_of(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        if record.HasField("run"):
            assert (record.run.project, record.run.display_name) == ("fssd", "run")
            values = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            assert values["batch_size"] == 32
        items = record.history.item
        row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
        found |= {key: (row["_step"], value) for key, value in row.items() if not key.startswith("_")}
    return found


def test_names(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no log_to 'wand'; did you mean 'wandb'"):
        check_trackers(["wand"])
    with pytest.raises(ConfigError, match="names a tracker twice"):
        check_trackers(["mlflow", "mlflow"])
    arguments = ["train", "--data", "nowhere", "--out", str(tmp_path / "run"), "--log-to", "clearml"]
    assert main(arguments) == 2
    assert "there is no log_to 'clearml'; known: wandb, mlflow" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_without_the_package(name: str, refuse: Any, scenes: Path, tmp_path: Path) -> None:
    refuse(name)
    with pytest.raises(
        ConfigError, match=rf'log_to {name} needs the package {name}; pip install "fssd\[{name}'
    ):
        train(TrainConfig(data=scenes, out=tmp_path / "run", log_to=(name,)))


@pytest.mark.parametrize("content", ["", "{", "[1]", "3"])
def test_a_damaged_file_of_ids_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "trackers.json").write_text(content)
    with pytest.raises(ConfigError, match=r"trackers\.json: is damaged .*; remove it"):
        Trackers(TrainConfig(out=tmp_path))


class Fragile:
    """A tracker that fails at its second line."""

    seen: list[tuple[int, Mapping[str, float]]] = []  # noqa: RUF012

    def __init__(self, _: Path, settings: Mapping[str, Any], id: str | None) -> None:
        if settings["seed"] == 13:
            raise OSError("no route to host\nmore")
        self.id = id or "first"

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        if self.seen:
            raise OSError("the line is dead")
        self.seen.append((iteration, values))

    def close(self, _: str) -> None:
        raise AssertionError("it is given up")


def test_a_run_goes_on_when_its_tracker_fails(
    scenes: Path,
    tmp_path: Path,
    tiny_backbone: Callable[[], nn.Module],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Fragile)
    monkeypatch.setattr(trackers, "import_module", str)
    config = TrainConfig(
        data=scenes, out=tmp_path / "run", start="nothing", val_split=None, iterations=3, batch_size=2,
        workers=0, amp="off", log_to=("wandb",), log_every=1,
    )  # fmt: skip
    assert train(config, backbone=tiny_backbone()).finished
    assert [iteration for iteration, _ in Fragile.seen] == [1]
    assert {"loss", "lr", "epoch", "images_per_second"} <= set(Fragile.seen[0][1])
    assert "note: wandb gets nothing more, training goes on: the line is dead" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "trackers.json").read_text()) == {"wandb": "first"}
    told = "log_to wandb: cannot start .no route to host.; log in with `wandb login`, or set"
    with pytest.raises(ConfigError, match=told):
        train(replace(config, out=tmp_path / "other", seed=13), backbone=tiny_backbone())


@pytest.mark.parametrize("end", ["finished", "stopped", "failed"])
def test_trackers_hear_how_a_run_ended(
    scenes: Path,
    tmp_path: Path,
    tiny_backbone: Callable[[], nn.Module],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    end: str,
) -> None:
    """A fault of the user's augmentation in mid-run saves what has been learned before it."""
    told: list[str] = []
    updates: list[int] = []

    class Attentive(Fragile):
        def log(self, iteration: int, _: Any) -> None:
            updates.append(iteration)

        def close(self, end: str) -> None:
            told.append(end)

    def augment(image: Any, boxes: Any, labels: Any, _: Any) -> Any:
        if end == "failed" and updates == [1, 2]:
            raise ValueError("of the user's own")
        return image, boxes, labels

    own = ModuleType("own_augment")
    own.augment = augment  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_augment", own)
    find_augmenter.cache_clear()
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Attentive)
    monkeypatch.setattr(trackers, "import_module", str)
    config = TrainConfig(
        data=scenes, out=tmp_path / "run", start="nothing", val_split=None, iterations=3, batch_size=2,
        workers=0, amp="off", log_to=("wandb",), augment_with="own_augment:augment",
        log_every=1,
    )  # fmt: skip
    minutes = 1e-9 if end == "stopped" else None
    with pytest.raises(ConfigError, match="failed on") if end == "failed" else nullcontext():
        train(config, backbone=tiny_backbone(), minutes=minutes)
    assert told == [end]
    saved = {"finished": 3, "stopped": 1, "failed": 2}[end]
    state = read_saved(tmp_path / "run")
    assert state is not None and state.document["iteration"] == saved
    assert (f"saved at update {saved}, to go on" in capsys.readouterr().err) == (end == "failed")

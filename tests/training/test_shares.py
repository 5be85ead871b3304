"""The number of processes changes neither what a run learns from nor what is measured."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError
from fssd.training.distributed import Process
from fssd.training.shares import share_of
from fssd.weights.checkpoint import read_tensors

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")

SETTINGS: dict[str, Any] = {
    "model": "ssd300-vgg16",  # no batch norm: its statistics are of each process
    "size": [128],
    "start": "nothing",
    "iterations": 4,
    "batch_size": 2,
    "global_batch": 6,
    "lr": 1e-3,
    "warmup": 0,
    "schedule": "constant",
    "augment": "ssd",
    "workers": 0,
    "threads": 1,
    "save_every": 1,
    "log_every": 1,
    "val_split": "none",
}

# Each process notes the images of its batches, and stops after the update STOP.
NOTE = """
import signal
from pathlib import Path
from fssd.training.step import Updater

notes = Path(given["settings"]["out"]).parent / "notes"
notes.mkdir(exist_ok=True)
backward, step = Updater.backward, Updater.step

def noted(self, batch, iteration, **named):
    with (notes / f"{iteration}-{self.process.rank}").open("a") as file:
        file.writelines(f"{Path(name).stem}\\n" for name in batch.names)
    return backward(self, batch, iteration, **named)

def stopping(self, rate):
    step(self, rate)
    stopping.done += 1
    if stopping.done == STOP:
        os.kill(os.getpid(), signal.SIGTERM)

stopping.done = 0
Updater.backward, Updater.step = noted, stopping
"""

# A validation image breaks, and what is detected is kept.
MEASURE = """
import numpy as np
from pathlib import Path
from fssd.data import loader
from fssd.errors import ImageError
from fssd.training import loop, validate

out = Path(given["settings"]["out"])
read, detect, measure = loader.read_image, validate._detect_own, loop.evaluate_detections

def broken(path):
    if Path(path).stem == BROKEN:
        raise ImageError("is broken", file=path)
    return read(path)

def detected(*arguments):
    own = detect(*arguments)
    (out / f"own-{os.environ['RANK']}").write_text(" ".join(map(str, sorted(own.found))))
    return own

def measured(dataset, found, metric):
    (out / "images").write_text(" ".join(record.image_id for record in dataset.records))
    keys = "boxes", "scores", "labels"
    parts = {f"{i}-{key}": getattr(one, key) for i, one in enumerate(found) for key in keys}
    np.savez(out / "found.npz", **parts)
    return measure(dataset, found, metric)

loader.read_image, validate._detect_own, loop.evaluate_detections = broken, detected, measured
"""


def share(global_batch: int | None, rank: int, world: int, **settings: int) -> Any:
    return share_of(TrainConfig(global_batch=global_batch, **settings), Process(rank, world, rank))


@pytest.mark.parametrize("world", [1, 2, 3, 5, 8])
def test_every_image_is_computed_once_and_in_order(world: int) -> None:
    shares = [share(24, rank, world, batch_size=3) for rank in range(world)]
    assert len({one.passes for one in shares}) == 1, "processes exchange after every batch"
    parts = [list(one.positions(2, 4)) for one in shares]
    assert max(len(batch) for batch in chain(*parts)) <= 3
    passes = shares[0].passes
    for update in (2, 3):
        mine = [part[(update - 2) * passes : (update - 1) * passes] for part in parts]
        assert list(chain.from_iterable(chain.from_iterable(mine))) == list(
            range(update * 24, (update + 1) * 24)
        )
    least = min(len(batch) for batch in chain(*parts))
    assert {one.least for one in shares} == {least}
    assert sum(one.own for one in shares) == 24


def test_without_a_global_batch_every_process_has_batches_of_its_own() -> None:
    shares = [share(None, rank, 2, batch_size=2, accumulate=2) for rank in range(2)]
    assert shares[0].images == 8
    assert list(shares[0].positions(1, 2)) == [[8, 9], [12, 13]]
    assert list(shares[1].positions(1, 2)) == [[10, 11], [14, 15]]
    assert str(shares[0]) == "an update has 8 images (2 processes, 2 batches each)"


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ConfigError, match="global_batch is 2, too few images for 3 processes"):
        share(2, 0, 3)


def names(folder: Path, update: int) -> list[str]:
    files = sorted((folder / "notes").glob(f"{update}-*"))
    return [name for file in files for name in file.read_text(encoding="utf-8").split()]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return read_tensors(out / "final.safetensors")[0]


def test_any_number_of_processes_learns_the_same(scenes: Path, tmp_path: Path, train_together: Any) -> None:
    """One, two and three processes, and a run that goes on with one process and then with two again."""
    plans = {"one": [(1, 0)], "two": [(2, 0)], "three": [(3, 0)], "elastic": [(2, 1), (1, 2), (2, 0)]}
    for name, parts in plans.items():
        out = tmp_path / name / "run"
        out.parent.mkdir()
        settings = {**SETTINGS, "data": str(scenes), "out": str(out)}
        for world, stop in parts:
            script = NOTE.replace("STOP", str(stop))
            ended = train_together([settings] * world, script=script, resume=True)
            assert [one.code for one in ended] == [2 if stop else 0] * world, ended
            told = f"an update has 6 images ({'1 process' if world == 1 else f'{world} processes'}"
            assert told in ended[0].log
            assert "the learning rate 0.001 is not scaled with it" in ended[0].log
    order = [names(tmp_path / "one", update) for update in range(4)]
    assert [len(batch) for batch in order] == [6, 6, 6, 6]
    start = torch.zeros(1)
    reference = weights(tmp_path / "one" / "run")
    assert not torch.allclose(reference["backbone.fine.bias"], start), "it has learnt"
    logs = {}
    for name in plans:
        assert [names(tmp_path / name, update) for update in range(4)] == order, name
        found = weights(tmp_path / name / "run")
        assert found.keys() == reference.keys()
        for key, value in reference.items():
            torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-5, msg=f"{name}: {key}")
        lines = (tmp_path / name / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
        logs[name] = [json.loads(line) for line in lines]
        assert [line["iteration"] for line in logs[name]] == [1, 2, 3, 4]


def test_one_process_with_a_global_batch_has_the_loss_of_a_plain_batch(
    scenes: Path, tmp_path: Path, train_together: Any
) -> None:
    plain = {**SETTINGS, "data": str(scenes), "iterations": 2, "batch_size": 6, "global_batch": None}
    shared = {**plain, "batch_size": 2, "global_batch": 6}
    lines = []
    for name, settings in (("plain", plain), ("shared", shared)):
        (ended,) = train_together([{**settings, "out": str(tmp_path / name)}])
        assert ended.code == 0, ended.log
        log = (tmp_path / name / "log.jsonl").read_text(encoding="utf-8").splitlines()
        lines.append([json.loads(line) for line in log])
    for one, other in zip(*lines, strict=True):
        for key in ("loss", "loss_loc", "loss_conf"):
            assert one[key] == pytest.approx(other[key], rel=1e-5)
    for key, value in weights(tmp_path / "plain").items():
        torch.testing.assert_close(weights(tmp_path / "shared")[key], value, rtol=1e-5, atol=1e-5)


def test_a_fixed_number_of_processes_stays(scenes: Path, tmp_path: Path, train_together: Any) -> None:
    settings = {**SETTINGS, "data": str(scenes), "out": str(tmp_path / "run"), "global_batch": None}
    (ended,) = train_together([settings], script=NOTE.replace("STOP", "1"))
    assert ended.code == 2, ended.log
    for one in train_together([settings] * 2, resume=True):
        assert one.code == 2
        assert "was made by 1 processes, not 2" in one.log
        assert "--global-batch" in one.log


@pytest.mark.parametrize("broken", ["", "broken"])
def test_any_number_of_processes_measures_the_same(
    scenes: Path, tmp_path: Path, train_together: Any, broken: str
) -> None:
    """Each image is detected on once; with a broken one, too. The rate is so low that no weight changes."""
    images = (scenes / "ImageSets" / "Main" / "val.txt").read_text(encoding="utf-8").split()
    settings = {
        **SETTINGS,
        "data": str(scenes),
        "iterations": 1,
        "lr": 1e-30,
        "val_split": "val",
        "bad_share": 0.3,
    }
    script = MEASURE.replace("BROKEN", repr(images[1] if broken else ""))
    reports, found, shared = [], [], []
    for world in (1, 2, 3):
        out = tmp_path / str(world)
        out.mkdir()
        ended = train_together([{**settings, "out": str(out)}] * world, script=script)
        assert [one.code for one in ended] == [0] * world, ended
        assert sum("is broken" in one.log for one in ended) == (1 if broken else 0)
        shared.append([(out / f"own-{rank}").read_text(encoding="utf-8").split() for rank in range(world)])
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        reports.append([line["evaluation"] for line in lines if "evaluation" in line])
        found.append(dict(np.load(out / "found.npz")))
        measured = (out / "images").read_text(encoding="utf-8").split()
        assert measured == [name for name in images if not broken or name != images[1]]
    assert len(reports[0]) == 1 and reports[0] == reports[1] == reports[2]
    for other in found[1:]:
        assert other.keys() == found[0].keys() and len(other) == 3 * (3 if broken else 4)
        for key, value in found[0].items():
            np.testing.assert_array_equal(other[key], value, err_msg=key)
    assert sum(len(value) for key, value in found[0].items() if key.endswith("scores")) > 20
    first, rest = (["0"], ["2", "3"]) if broken else (["0", "1"], ["2", "3"])
    assert shared == [[[*first, *rest]], [first, rest], [first, rest, []]]

"""Training runs of several processes."""

from __future__ import annotations

import json
import runpy
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from forks import LIMIT, forkserver

CONFTEST = Path(__file__).parents[1] / "conftest.py"

SCRIPT = """
import importlib.util, os, sys, weakref

if "log" in given:
    log = os.open(given["log"], os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
os.environ.update(given["variables"])
sys.path.extend(part for part in given["path"] if part not in sys.path)

import torch.distributed as dist
import fssd
from fssd.config.settings import with_values
from fssd.config.train_config import TrainConfig

# A group that ends with a reducer can hang, see `Updater.close`.
reducers, make, end = [], dist.Reducer, dist.destroy_process_group

def made(*arguments, **named):
    reducer = make(*arguments, **named)
    reducers.append(weakref.ref(reducer))
    return reducer

def ended(*arguments):
    assert not any(reducer() for reducer in reducers), "a reducer outlives the group of processes"
    end(*arguments)

dist.Reducer, dist.destroy_process_group = made, ended
spec = importlib.util.spec_from_file_location("shared", given["conftest"])
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)
exec(given["script"])
try:
    config = with_values(TrainConfig(amp="off"), given["settings"])
    backbone = shared.TinyBackbone() if given["tiny"] else None
    fssd.train(config, backbone=backbone, **given["options"])
except (fssd.errors.FssdError, fssd.errors.Stopped) as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    sys.exit(2)
"""


class Ended(NamedTuple):
    """A process that has ended. log: what it printed."""

    code: int | None
    log: str


TrainTogether = Callable[..., list[Ended]]


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Gives a port of this machine that is free now."""
    return _free_port


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _given(
    settings: Mapping[str, Any],
    script: str,
    options: Mapping[str, Any],
    variables: Mapping[str, str],
    tiny: bool = True,
) -> dict[str, Any]:
    plain = json.loads(json.dumps(settings, default=str))
    named = {"conftest": str(CONFTEST), "script": script, "settings": plain, "path": sys.path, "tiny": tiny}
    return {**named, "options": dict(options), "variables": dict(variables)}


@pytest.fixture
def make_program(tmp_path: Path) -> Callable[..., Path]:
    """Writes a program that trains as `train_together` does, for others to start."""

    def make(settings: Mapping[str, Any], *, script: str = "", **options: Any) -> Path:
        file = tmp_path / "program.py"
        given = _given(settings, script, options, {})
        file.write_text(f"given = {given!r}\n{SCRIPT}", encoding="utf-8")
        return file

    return make


@pytest.fixture
def train_together(tmp_path: Path) -> TrainTogether:
    """Trains with the tiny backbone in as many processes as there are settings, and waits for all.

    train_together([settings, ...], script=..., resume=True): script is more code, run before the training.
    tiny: False for the backbone that the settings name.
    The processes are forks of one that has imported the package and done nothing else.
    """
    context = forkserver()
    file = tmp_path / "train.py"
    file.write_text(SCRIPT, encoding="utf-8")
    logs: list[str] = []

    def run(
        settings: Sequence[Mapping[str, Any]], *, script: str = "", tiny: bool = True, **options: Any
    ) -> list[Ended]:
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        started = []
        for rank, one in enumerate(settings):
            ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": len(settings)}
            variables = {**{name: str(value) for name, value in ranks.items()}, **where}
            given = _given(one, script, options, variables, tiny) | {
                "log": str(tmp_path / f"log-{len(logs)}")
            }
            process = context.Process(target=runpy.run_path, args=(str(file), {"given": given}))
            process.start()
            started.append((process, Path(given["log"])))
            logs.append(given["log"])
        ended = []
        for process, log in started:
            process.join(LIMIT)
            process.kill()
            process.join()
            ended.append(Ended(process.exitcode, log.read_text(encoding="utf-8")))
        return ended

    return run

"""Killed workers and agents of torchrun: the run goes on by itself and ends in the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from fssd.weights.checkpoint import read_tensors

pytestmark = [
    pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed"),
    pytest.mark.long,
]
CONFTEST = Path(__file__).parents[1] / "conftest.py"
LIMIT = 300  # seconds; only ends what hangs
MODELS = ("last.safetensors", "final.safetensors")

SETTINGS: dict[str, Any] = {
    "model": "ssd300-vgg16",
    "size": [128],
    "start": "nothing",
    "iterations": 6,
    "batch_size": 1,
    "lr": 1e-3,
    "warmup": 0,
    "schedule": "constant",
    "workers": 0,
    "threads": 1,
    "save_every": 2,
    "log_every": 1,
    "val_split": "none",
}

# After update 3 the worker on node 1 kills itself, and before that its agent if it is told to: once.
KILL = """
import signal
from pathlib import Path
from fssd.training.step import Updater

step, marker = Updater.step, Path(given["settings"]["out"]).with_suffix(".killed")

def killing(self, rate):
    step(self, rate)
    killing.done += 1
    if killing.done == 3 and os.environ.get("NODE") == "1" and not marker.exists():
        marker.touch()
        if os.environ["KILL"] == "agent":
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

killing.done = 0
Updater.step = killing
"""


def assert_same_run(out: Path, reference: Path) -> None:
    """All but the name of the folder is the same."""
    for name in MODELS:
        tensors, document = read_tensors(out / name)
        expected, facts = read_tensors(reference / name)
        assert tensors.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(tensors[key], value), (name, key)
        facts["config"]["out"] = document["config"]["out"]
        assert document == facts


class Agents:
    """torchrun's agents on this machine, as if each were on a machine of its own."""

    def __init__(self, folder: Path, program: Path, port: int, kill: str) -> None:
        self.folder, self.program, self.port, self.kill = folder, program, port, kill

    @contextmanager
    def start(self, node: int) -> Iterator[subprocess.Popen[bytes]]:
        """An agent with one worker; node 0 hosts the rendezvous."""
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
        command += ["--max-restarts", "5", "--rdzv-backend", "c10d", "--rdzv-id", "run"]
        command += ["--rdzv-endpoint", f"127.0.0.1:{self.port}", "--rdzv-conf", f"is_host={1 - node}"]
        command += ["--local-addr", "127.0.0.1", "--monitor-interval", "0.5", str(self.program)]
        own = {"NODE": str(node), "KILL": self.kill, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        with (self.folder / f"agent-{node}").open("ab") as log:
            process = subprocess.Popen(command, env={**os.environ, **own}, stdout=log, stderr=log)
            try:
                yield process
            finally:
                process.terminate()  # an agent ends its workers
                try:
                    process.wait(40)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@pytest.mark.parametrize("kill", ["worker", "agent"])
def test_a_killed_run_goes_on_by_itself(
    scenes: Path, tmp_path: Path, train_together: Any, make_program: Any, free_port: Any, kill: str
) -> None:
    settings = {**SETTINGS, "data": str(scenes)}
    out, reference = tmp_path / "run", tmp_path / "reference"
    undisturbed = train_together([{**settings, "out": str(reference)}] * 2)
    assert [one.code for one in undisturbed] == [0, 0], undisturbed
    program = make_program({**settings, "out": str(out)}, script=KILL, resume=True)
    agents = Agents(tmp_path, program, free_port(), kill)
    with ExitStack() as stack:
        started = [stack.enter_context(agents.start(node)) for node in (0, 1)]
        if kill == "agent":
            started[1].wait(LIMIT)
            assert started[1].returncode == -9, (tmp_path / "agent-1").read_text(encoding="utf-8")
            started[1] = stack.enter_context(agents.start(1))
        end = time.monotonic() + LIMIT
        for agent in started:
            agent.wait(max(end - time.monotonic(), 1))
            assert agent.returncode == 0, (tmp_path / "agent-0").read_text(encoding="utf-8")
    assert out.with_suffix(".killed").exists()
    assert_same_run(out, reference)

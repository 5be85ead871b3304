"""Two hosts, as network namespaces, between which the cable is pulled."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
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
TIMEOUT = 20  # seconds that a process waits for the other
LIMIT = 300  # seconds; only ends what hangs

SETTINGS: dict[str, Any] = {
    "model": "ssd300-vgg16",
    "size": [128],
    "start": "nothing",
    "iterations": 5,
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

# After update 3 each process says so and waits until the cable is pulled.
WAIT = """
import time
from pathlib import Path
from fssd.training.step import Updater

step, out = Updater.step, Path(given["settings"]["out"])

def waiting(self, rate):
    step(self, rate)
    waiting.done += 1
    if waiting.done == 3:
        out.with_suffix(f".{self.process.rank}").touch()
        while not out.with_suffix(".down").exists():
            time.sleep(0.05)

waiting.done = 0
Updater.step = waiting
"""


class Hosts:
    """Two network namespaces with a cable between them."""

    def __init__(self) -> None:
        self.names = [f"fssd{os.getpid()}-{number}" for number in (0, 1)]
        self.ends = [f"v{os.getpid() % 100_000}x{number}" for number in (0, 1)]

    def make(self) -> None:
        for name in self.names:
            self.call("netns", "add", name)
        self.call("link", "add", self.ends[0], "type", "veth", "peer", "name", self.ends[1])
        for number, (name, end) in enumerate(zip(self.names, self.ends, strict=True)):
            self.call("link", "set", end, "netns", name)
            self.call("-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", end)
            for device in ("lo", end):
                self.call("-n", name, "link", "set", device, "up")

    def pull(self) -> None:
        self.call("-n", self.names[1], "link", "set", self.ends[1], "down")

    def plug(self) -> None:
        self.call("-n", self.names[1], "link", "set", self.ends[1], "up")

    def close(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def start(self, program: Path, port: int, log: Any) -> list[subprocess.Popen[bytes]]:
        """The program as process 0 on one host and 1 on the other."""
        started = []
        for rank, name in enumerate(self.names):
            own = {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "10.77.0.1"}
            own |= {"MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": self.ends[rank]}
            command = ["ip", "netns", "exec", name, sys.executable, str(program)]
            started.append(
                subprocess.Popen(command, env={**os.environ, **own}, stdout=log, stderr=subprocess.STDOUT)
            )
        return started

    @staticmethod
    def call(*words: str) -> None:
        subprocess.run(["ip", *words], capture_output=True, check=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    try:
        made.make()
    except (OSError, subprocess.CalledProcessError) as error:
        made.close()
        pytest.skip(f"network namespaces are not permitted here ({error})")
    yield made
    made.close()


def test_a_pulled_cable_ends_both_and_the_run_goes_on(
    hosts: Hosts, scenes: Path, tmp_path: Path, train_together: Any, make_program: Any
) -> None:
    settings = {**SETTINGS, "data": str(scenes)}
    out, reference = tmp_path / "run", tmp_path / "reference"
    undisturbed = train_together([{**settings, "out": str(reference)}] * 2)
    assert [one.code for one in undisturbed] == [0, 0], undisturbed
    program = make_program({**settings, "out": str(out)}, script=WAIT, resume=True, timeout=TIMEOUT / 60)
    with (tmp_path / "log").open("w+") as log:
        started = hosts.start(program, 29500, log)
        try:
            end = time.monotonic() + LIMIT
            while not all(out.with_suffix(f".{rank}").exists() for rank in (0, 1)):
                assert time.monotonic() < end, Path(log.name).read_text(encoding="utf-8")
                time.sleep(0.1)
            hosts.pull()
            out.with_suffix(".down").touch()
            codes = [process.wait(LIMIT) for process in started]
            assert all(codes), "both notice that the other does not answer"
            hosts.plug()
            started = hosts.start(program, 29501, log)
            codes = [process.wait(LIMIT) for process in started]
        finally:
            for process in started:
                process.kill()
                process.wait()
        assert codes == [0, 0], Path(log.name).read_text(encoding="utf-8")
    found, expected = (read_tensors(folder / "final.safetensors")[0] for folder in (out, reference))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key

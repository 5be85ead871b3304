"""Real server processes, a model that finds something, images of every kind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import nn

from fssd.data.scenes import CLASSES
from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.weights.checkpoint import save_model

for _package in ("fastapi", "uvicorn", "python_multipart", "httpx"):
    pytest.importorskip(_package, reason=f'the server needs {_package}: pip install "fssd[serve]" httpx')

START_SECONDS = 300  # importing torch is slow on a busy machine
STOP_SECONDS = 120


@dataclass
class Running:
    """A server process and what it printed."""

    process: subprocess.Popen[str]
    address: str
    lines: list[str]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def memory(self) -> int:
        """Bytes of memory it holds (RSS)."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> int:
        """Stop it and wait; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


Start = Callable[..., Running]


@pytest.fixture(scope="session")
def start_server() -> Iterator[Start]:
    """Starts `fssd serve MODEL OPTIONS` on a free port and waits until it listens."""
    begun: list[Running] = []

    def start(model: Path | str, *options: object) -> Running:
        command = [sys.executable, "-m", "fssd", "serve", model, "--port", 0, "--threads", 1, *options]
        process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        running = Running(process, "", [])
        begun.append(running)
        giving_up = threading.Timer(START_SECONDS, process.kill)
        giving_up.start()
        for line in process.stdout:
            running.lines.append(line)
            if line.startswith("listening on "):
                running.address = line.removeprefix("listening on ").strip()
                break
        giving_up.cancel()
        assert running.address, "".join(running.lines)
        threading.Thread(target=lambda: running.lines.extend(process.stdout or ()), daemon=True).start()
        return running

    yield start
    for running in begun:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


def outspoken(network: Network) -> Network:
    """The network with class scores that differ from prior to prior, as after training."""
    generator = torch.Generator().manual_seed(7)
    for head in network.heads.conf:
        last = head[-1] if isinstance(head, nn.Sequential) else head
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        last.weight.data.mul_(4)
        last.bias.data.normal_(0, 1, generator=generator)
        last.bias.data[:: len(CLASSES) + 1] += 4  # mostly background
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.running_mean is not None
        norm.running_mean.uniform_(-0.2, 0.2, generator=generator)
    return network.eval()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that finds a few dozen objects in any image, always at the same positions."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = outspoken(build_model("fssd300-lite", len(CLASSES), variant="narrow"))
    path = tmp_path_factory.mktemp("model") / "outspoken.safetensors"
    facts = {"iteration": 0, "data": "/home/somebody/secret"}
    save_model(path, network.state_dict(), network, CLASSES, facts)
    return path


@pytest.fixture(scope="session")
def server(model: Path, start_server: Start) -> Running:
    """A server with default limits except the time, so that a busy machine does not cause a 504."""
    return start_server(model, "--seconds", 600)


def picture(seed: int = 0, width: int = 160, height: int = 120) -> Pillow.Image:
    """A colourful picture without sharp edges."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Pillow.fromarray(coarse).resize((width, height), Pillow.Resampling.BICUBIC)


def encode(image: Pillow.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    return encode(picture(), "JPEG", quality=92)


@pytest.fixture(scope="session")
def kinds() -> dict[str, bytes]:
    """The same picture in each format that the server accepts."""
    return {
        "JPEG": encode(picture(), "JPEG", quality=92),
        "PNG": encode(picture(), "PNG"),
        "WebP": encode(picture(), "WEBP", lossless=True),
        "BMP": encode(picture(), "BMP"),
    }


@pytest.fixture(scope="session")
def encoder() -> Callable[..., bytes]:
    """Makes image files: encoder(seed, kind, width=, height=, **options of pillow)."""

    def make(
        seed: int = 0, kind: str = "JPEG", width: int = 160, height: int = 120, **options: object
    ) -> bytes:
        return encode(picture(seed, width, height), kind, **options)

    return make

"""The runtimes of exported files. To add one, write its file and a row here."""

from __future__ import annotations

from pathlib import Path

from fssd.errors import ConfigError, nearest
from fssd.runtimes.onnx import OnnxRuntime
from fssd.runtimes.openvino import OpenVino
from fssd.runtimes.runner import FileRunner
from fssd.runtimes.runtime import Runtime
from fssd.runtimes.session import Opened

RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in (OnnxRuntime(), OpenVino())}


def runtime_of(file: Path) -> Runtime | None:
    """The runtime that a file is for, by its suffix; None for a file of PyTorch."""
    return next((runtime for runtime in RUNTIMES.values() if runtime.suffix == file.suffix), None)


def find_runtime(name: str) -> Runtime:
    """The runtime of a name. Raises ConfigError."""
    if name not in RUNTIMES:
        raise ConfigError(f"there is no runtime {name!r} for exported files{nearest(name, RUNTIMES)}")
    return RUNTIMES[name]


def open_file(path: Path, device: str, threads: int | None) -> Opened:
    """Open an exported model. Raises CheckpointError, ConfigError; see `Runtime.open`."""
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is {threads}; it must be 1 or more")
    runtime = runtime_of(path)
    if runtime is None:
        known = ", ".join(f"{one.suffix} ({one.name})" for one in RUNTIMES.values())
        raise ConfigError(f"{path}: no runtime opens files of this name; known: {known}")
    return runtime.open(path, device, threads)


def open_runner(path: Path, device: str, threads: int | None) -> tuple[FileRunner, Opened]:
    """`open_file`, ready to be asked for detections."""
    opened = open_file(path, device, threads)
    return FileRunner(*opened), opened

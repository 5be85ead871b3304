"""The runtimes of exported files. To add one, write its file and add it here."""

from __future__ import annotations

from pathlib import Path

from fssd.errors import ConfigError, nearest
from fssd.runtimes.ncnn import Ncnn
from fssd.runtimes.onnx import OnnxRuntime
from fssd.runtimes.openvino import OpenVino
from fssd.runtimes.runtime import Runtime
from fssd.runtimes.tensorrt import TensorRt

KNOWN = (OnnxRuntime(), OpenVino(), Ncnn(), TensorRt())
RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in KNOWN}


def runtime_of(file: Path) -> Runtime | None:
    """The runtime of an exported file, by its suffix; None for a model of PyTorch."""
    return next((runtime for runtime in RUNTIMES.values() if runtime.suffix == file.suffix.lower()), None)


def find_runtime(name: str) -> Runtime:
    """The runtime called `name`. Raises ConfigError for an unknown name."""
    if name not in RUNTIMES:
        raise ConfigError(f"there is no runtime {name!r} for exported files{nearest(name, RUNTIMES)}")
    return RUNTIMES[name]

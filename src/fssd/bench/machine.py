"""The machine on which figures were measured."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fssd.atomic import atomic_write
from fssd.bench.timing import plain
from fssd.runtimes.cores import usable_cores

PACKAGES = ("torch", "numpy", "opencv-python-headless", "onnxruntime", "openvino", "nncf")


def describe_machine(device: torch.device, threads: int) -> dict[str, Any]:
    """The machine as JSON values.

    threads: of the network. load: average number of running or waiting processes in the last minute,
    including this one, or None if unknown. More than 1 before a measurement means a busy machine.
    """
    versions = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": usable_cores(),
        "threads": threads,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
    }


def processor(info: Path = Path("/proc/cpuinfo")) -> str:
    """The name of the processor. info: Linux's description of it."""
    text = info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""
    rows = [line.partition(":") for line in text.splitlines()]
    found = {key.strip(): value.strip() for key, _, value in reversed(rows)}  # of the first core
    if "model name" not in found:
        return platform.processor() or platform.machine()
    kind = [f"{key} {found[key]}" for key in ("cpu family", "model") if key in found]
    return f"{found['model name']} ({', '.join(kind)})" if kind else found["model name"]


def write_figures(path: Path | None, figures: Mapping[str, Any], threads: int) -> None:
    """Write figures with a description of the machine, if a path is given."""
    if path is None:
        return
    machine = describe_machine(torch.device("cpu"), threads)
    document = {"format": 1, "machine": machine, **plain(figures)}
    atomic_write(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")

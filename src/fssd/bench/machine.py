"""What a figure was taken on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fssd.runtimes.cores import usable_cores

PACKAGES = ("torch", "numpy", "opencv-python-headless", "onnxruntime", "openvino", "nncf")


def describe_machine(device: torch.device, threads: int) -> dict[str, Any]:
    """The machine as JSON values.

    threads: of the network. load: processes that were running or waiting over the last minute, this one among
    them; None where the system does not tell. More than one before a measurement means a busy machine.
    """
    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": usable_cores(),
        "threads": threads,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": _versions(),
    }


def processor(info: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name. info: where Linux tells it."""
    try:
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    rows = [line.partition(":") for line in lines]
    found = {key.strip(): value.strip() for key, _, value in reversed(rows)}
    if "model name" not in found:
        return platform.processor() or platform.machine()
    kind = [f"{key} {found[key]}" for key in ("cpu family", "model") if key in found]
    return f"{found['model name']} ({', '.join(kind)})" if kind else found["model name"]


def _versions() -> dict[str, str]:
    """Of the packages that are installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions

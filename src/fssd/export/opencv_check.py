"""Whether OpenCV's DNN module reads an exported ONNX file and agrees."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fssd.errors import ExportError
from fssd.export import opencv_worker
from fssd.runtimes.runner import Images

LIMIT = 1800.0  # seconds after which a run that hangs is ended


class OpenCvSession:
    """Runs a file in a process of its own, because OpenCV can end the process over a graph it cannot run."""

    def __init__(self, file: Path, outputs: Sequence[str]) -> None:
        self.file, self.outputs = file, list(outputs)

    def __call__(self, images: Images) -> list[npt.NDArray[Any]]:
        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder) / "images.npy", Path(folder) / "outputs.npz"
            np.save(given, images)
            command = [sys.executable, opencv_worker.__file__, str(self.file), str(given), str(made)]
            done = subprocess.run(
                [*command, *self.outputs], capture_output=True, text=True, timeout=LIMIT, check=False
            )
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
                reason = lines[-1].strip() if lines else f"it ended with status {done.returncode}"
                raise ExportError(
                    f"OpenCV {cv2.__version__} cannot run this file ({reason}), so nothing was written;"
                    " OpenCV 5 or newer may, or leave out --check opencv"
                )
            with np.load(made) as arrays:
                return [arrays[name] for name in arrays.files]

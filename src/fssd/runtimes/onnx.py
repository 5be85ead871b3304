"""ONNX files in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from fssd.errors import CheckpointError, ConfigError
from fssd.runtimes.cores import usable_cores
from fssd.runtimes.header import KEY, Header, read_header
from fssd.runtimes.packages import require
from fssd.runtimes.runner import Images, Session

PROVIDERS = {"auto": "CPUExecutionProvider", "cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_onnx(file: Path, device: str, threads: int | None) -> tuple[Session, Header]:
    """A session and the header of a file. Raises CheckpointError, ConfigError; see `open_file`."""
    runtime = require("onnxruntime", "export")
    provider = PROVIDERS.get(device)
    if provider not in runtime.get_available_providers():
        raise ConfigError(f"device {device!r} cannot be used by this onnxruntime; choose cpu or auto")
    if not file.is_file():
        raise CheckpointError(f"{file}: there is no such model file; check the path")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    # Threads that spin while they wait gain 2 to 8 % alone and take as much from all else, as in a server.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors alone; they are raised as well
    try:
        session = runtime.InferenceSession(file, options, providers=[provider])
    except Exception as error:  # its exceptions share no other base
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{file}: is damaged or not an ONNX file ({reason})") from error
    header = read_header(session.get_modelmeta().custom_metadata_map.get(KEY), file)

    def run(images: Images) -> list[npt.NDArray[Any]]:
        outputs: list[npt.NDArray[Any]] = session.run(None, {"images": images})
        return outputs

    return run, header

"""OpenVINO's files, .xml with .bin beside it, in OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from fssd.errors import CheckpointError, ConfigError
from fssd.runtimes.cores import usable_cores
from fssd.runtimes.header import KEY, Header, read_header
from fssd.runtimes.packages import openvino_core
from fssd.runtimes.runner import Images, Session

SIZES_KEPT = 6


class OpenVinoSession:
    """A model, compiled for each batch size it meets: with fixed shapes OpenVINO runs faster.

    A stream has two sizes, its full batch and what is left at the end; a server has the powers of two below
    its largest. Six are kept, those last used.
    """

    def __init__(self, core: Any, model: Any, device: str, threads: int) -> None:
        self.core = core
        self.model = model
        self.device = device
        self.settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if device == "CPU":
            # Pinned to cores, the threads of two sessions would share one while another stands idle. Where
            # the processor has bfloat16, OpenVINO would use it by itself: 0.01 off in a score.
            self.settings |= {
                "INFERENCE_NUM_THREADS": threads,
                "ENABLE_CPU_PINNING": False,
                "INFERENCE_PRECISION_HINT": "f32",
            }
        self.requests: dict[int, Any] = {}

    def __call__(self, images: Images) -> list[npt.NDArray[Any]]:
        request = self._request(len(images))
        request.infer({0: images}, share_inputs=True)
        return [request.get_output_tensor(place).data.copy() for place in range(len(self.model.outputs))]

    def _request(self, batch: int) -> Any:
        request = self.requests.pop(batch, None)
        if request is None:
            if len(self.requests) == SIZES_KEPT:
                del self.requests[next(iter(self.requests))]
            model = self.model.clone()
            model.reshape([batch, *list(model.input(0).partial_shape)[1:]])
            compiled = self.core.compile_model(model, self.device, self.settings)
            request = compiled.create_infer_request()
        self.requests[batch] = request  # the last one is the one last used
        return request


def open_openvino(
    file: Path, device: str, threads: int | None, weights: Path | None = None
) -> tuple[Session, Header]:
    """A session and the header of a file. Raises CheckpointError, ConfigError; see `open_file`.

    weights: the .bin file, if it is not the one beside `file`.
    """
    core = openvino_core()
    weights = file.with_suffix(".bin") if weights is None else weights
    for needed in (file, weights):
        if not needed.is_file():
            raise CheckpointError(f"{needed}: there is no such file; an OpenVINO model is a .xml and a .bin")
    name = "CPU" if device in ("auto", "cpu") else device.upper()
    if name not in core.available_devices:
        known = ", ".join(core.available_devices).lower()
        raise ConfigError(f"device {device!r} cannot be used by OpenVINO here; choose auto or one of {known}")
    try:
        model = core.read_model(file, weights)
    except Exception as error:  # its exceptions share no other base
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{file}: is damaged or not an OpenVINO model ({reason})") from error
    text = str(model.get_rt_info([KEY]).value) if model.has_rt_info([KEY]) else None
    return OpenVinoSession(core, model, name, threads or usable_cores()), read_header(text, file)

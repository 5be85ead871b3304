"""OpenVINO's files, .xml with .bin beside it, in OpenVINO."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from torch import Tensor

from fssd.errors import CheckpointError, ConfigError
from fssd.runtimes.cores import usable_cores
from fssd.runtimes.header import KEY, Shape, read_header
from fssd.runtimes.packages import openvino_core, require_openvino
from fssd.runtimes.runner import FileRunner, Images
from fssd.runtimes.runtime import (
    GRAPH_PACKAGES,
    TAIL_PREFIX,
    Runtime,
    append_tail,
    single_images,
    total_products,
)
from fssd.weights.content import beside, damaged, is_intact, read_content, seal

if TYPE_CHECKING:
    import onnx

SIZES_KEPT = 6


class OpenVinoSession:
    """A model, compiled for each batch size it meets, because OpenVINO is faster with fixed shapes.

    A stream of images has two sizes, the full batch and the last one; a server has the powers of two up to
    its largest batch. The six most recently used are kept. Threads take turns: one image already uses all
    cores, and a request of OpenVINO's for each thread was no faster.
    """

    def __init__(self, core: Any, model: Any, device: str, threads: int) -> None:
        self.core = core
        self.model = model
        self.device = device
        self.settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if device == "CPU":
            # With pinning, the threads of two sessions would share one core while another is idle. By default
            # OpenVINO uses bfloat16 where the processor has it, which changes scores by up to 0.01.
            self.settings |= {
                "INFERENCE_NUM_THREADS": threads,
                "ENABLE_CPU_PINNING": False,
                "INFERENCE_PRECISION_HINT": "f32",
            }
        self.turn = threading.Lock()
        self.requests: dict[int, Any] = {}  # by batch size, the most recently used last

    def __call__(self, images: Images) -> list[npt.NDArray[Any]]:
        with self.turn:
            request = self._request(len(images))
            request.infer({0: images}, share_inputs=True)
            return [request.get_output_tensor(index).data.copy() for index in range(len(self.model.outputs))]

    def _request(self, batch: int) -> Any:
        request = self.requests.pop(batch, None)
        if request is None:
            if len(self.requests) == SIZES_KEPT:
                del self.requests[next(iter(self.requests))]
            model = self.model.clone()
            model.reshape([batch, *list(model.input(0).partial_shape)[1:]])
            request = self.core.compile_model(model, self.device, self.settings).create_infer_request()
        self.requests[batch] = request
        return request


class OpenVino(Runtime):
    """Two concurrent batches per core: one uses the core while the other has no parallel work for it."""

    name = "openvino"
    suffix = ".xml"
    beside = (".bin",)
    side_by_side = 2

    def open(self, file: Path, device: str, threads: int | None) -> FileRunner:
        core = openvino_core()
        weights = beside(file, ".bin")
        missing = next((path for path in (file, weights) if not path.is_file()), None)
        if missing is not None:
            raise CheckpointError(f"{missing}: is missing; an OpenVINO model is a .xml and a .bin")
        name = "CPU" if device in ("auto", "cpu") else device.upper()
        if name not in core.available_devices:
            known = ", ".join(core.available_devices).lower()
            raise ConfigError(f"OpenVINO cannot use device {device!r} here; choose auto or one of {known}")
        graph, constants = read_content(file), read_content(weights)
        if not is_intact(graph, constants):
            reason = "one of them is damaged, cut or of another export; copy both again"
            raise CheckpointError(f"{file}: does not fit {weights.name} beside it: {reason}")
        try:
            # By path, the .bin would be mapped, and the process die when it is cut.
            model = core.read_model(graph, constants)
        except Exception as error:  # OpenVINO's exceptions have no other common base
            reason = str(error).strip().splitlines()[-1]  # before it come places in OpenVINO's sources
            raise damaged(file, f"an OpenVINO model with {weights.name}", reason) from error
        text = str(model.get_rt_info([KEY]).value) if model.has_rt_info([KEY]) else None
        header = read_header(text, file, _shapes(model.inputs), _shapes(model.outputs))
        session = OpenVinoSession(core, model, name, threads or usable_cores())
        return FileRunner(session, header, partial(self.open, file.absolute(), device, threads))

    def write(
        self,
        graph: onnx.ModelProto,
        tail: onnx.ModelProto | None,
        header: str,
        out: Path,
        calibration: Tensor | None = None,
    ) -> None:
        model = as_openvino(append_tail(graph, tail))
        if calibration is not None:
            model = quantise_openvino(model, calibration)
        model.set_rt_info(header, [KEY])
        require_openvino().save_model(model, out, compress_to_fp16=False)  # writes the .bin as well
        out.write_bytes(seal(out.read_bytes(), out.with_suffix(".bin").read_bytes()))

    def needs(self, eight_bits: bool) -> dict[str, tuple[str, ...]]:
        return {"export": GRAPH_PACKAGES, "openvino": ("openvino", "nncf") if eight_bits else ("openvino",)}

    def multiply_adds(self, file: Path) -> int | None:
        return openvino_multiply_adds(openvino_core().read_model(file, beside(file, ".bin")))


def _shapes(ends: Any) -> dict[str, Shape]:
    return {
        end.any_name: tuple(None if size.is_dynamic else size.get_length() for size in end.partial_shape)
        for end in ends
    }


def as_openvino(model: onnx.ModelProto) -> Any:
    """The same graph as an `openvino.Model`, with constant parts computed. Raises ConfigError.

    ONNX reshapes the weights of depthwise convolutions in the graph. Without folding, OpenVINO's quantiser
    does not find these weights, and the convolutions stay in float, three times as slow.
    """
    graph = openvino_core().read_model(model.SerializeToString())
    passes = require_openvino("openvino.passes")
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(graph)
    return graph


def quantise_openvino(model: Any, images: Tensor) -> Any:
    """A model of `as_openvino` in eight bits, except the NMS. images: (N, 3, S, S) uint8 RGB.

    Raises ConfigError if nncf is missing.
    """
    nncf = require_openvino("nncf")
    nncf.set_log_level(logging.ERROR)
    return nncf.quantize(
        model,
        nncf.Dataset(list(single_images(images))),
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(patterns=[f"{TAIL_PREFIX}.*"], validate=False),
    )


def openvino_multiply_adds(model: Any) -> int | None:
    """Multiply-adds for one image of a model whose first input is a batch of images; it is not changed."""
    own = model.clone()
    own.reshape([1, *list(own.input(0).partial_shape)[1:]])
    return total_products({op.get_type_name() for op in own.get_ops()}, _products(own))


def _products(model: Any) -> Iterator[int]:
    for op in model.get_ops():
        kind = op.get_type_name()
        if kind == "Convolution":  # weights (C_out, C_in, H, W)
            yield prod(op.output(0).shape) * prod(op.input(1).get_shape()[1:])
        elif kind == "GroupConvolution":  # weights (groups, C_out, C_in, H, W)
            yield prod(op.output(0).shape) * prod(op.input(1).get_shape()[2:])
        elif kind == "MatMul":
            inner = -2 if op.get_attributes().get("transpose_a") else -1
            yield prod(op.output(0).shape) * op.input(0).get_shape()[inner]

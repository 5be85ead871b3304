"""TensorRT's engines, built from the ONNX graph for the GPU at hand.

An engine runs only on the kind of GPU and the version of TensorRT that it was built with. The file starts
with the metadata of `fssd.runtimes.header`: four bytes of their length, little endian, then the document.
Behind it lies what `trtexec --saveEngine` would write.
"""

from __future__ import annotations

import struct
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fssd.errors import CheckpointError, ConfigError, ExportError
from fssd.runtimes.header import Shape, read_header
from fssd.runtimes.packages import require
from fssd.runtimes.runner import FileRunner, Images
from fssd.runtimes.runtime import GRAPH_PACKAGES, Runtime, append_tail
from fssd.weights.content import damaged, is_intact, read_content, seal

if TYPE_CHECKING:
    import onnx

LENGTH = struct.Struct("<I")
MOST = 32  # images of a batch that an engine takes


class TensorRtSession:
    """An engine with one execution context; threads take turns."""

    def __init__(self, engine: Any, device: torch.device) -> None:
        self.engine, self.device = engine, device
        self.context = engine.create_execution_context()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self.outputs = [name for name in names if name != "images"]
        self.turn = threading.Lock()

    @torch.inference_mode()
    def __call__(self, images: Images) -> list[npt.NDArray[Any]]:
        parts = [self._run(images[start : start + MOST]) for start in range(0, len(images), MOST)]
        return [np.concatenate(rows) for rows in zip(*parts, strict=True)]

    def _run(self, images: Images) -> list[npt.NDArray[Any]]:
        with self.turn, torch.cuda.device(self.device):
            given = torch.from_numpy(images).to(self.device)
            self.context.set_input_shape("images", tuple(given.shape))
            self.context.set_tensor_address("images", given.data_ptr())
            made = [self._output(name) for name in self.outputs]
            stream = torch.cuda.current_stream()
            if not self.context.execute_async_v3(stream.cuda_stream):
                raise RuntimeError("TensorRT could not run the engine; its own message was printed above")
            return [one.cpu().numpy() for one in made]

    def _output(self, name: str) -> Tensor:
        kind = np.dtype(require("tensorrt", "tensorrt").nptype(self.engine.get_tensor_dtype(name)))
        empty = torch.from_numpy(np.empty(tuple(self.context.get_tensor_shape(name)), kind)).to(self.device)
        self.context.set_tensor_address(name, empty.data_ptr())
        return empty

    def shapes(self) -> tuple[dict[str, Shape], dict[str, Shape]]:
        """Those of the inputs and of the outputs, None for a free size."""
        found: dict[str, Shape] = {
            name: tuple(None if size < 0 else int(size) for size in self.engine.get_tensor_shape(name))
            for name in ("images", *self.outputs)
        }
        return {"images": found.pop("images")}, found


class TensorRt(Runtime):
    """For NVIDIA's GPUs."""

    name = "tensorrt"
    suffix = ".engine"
    can = frozenset({"nms", "fp16"})

    def open(self, file: Path, device: str, threads: int | None) -> FileRunner:
        del threads  # the GPU has its own
        tensorrt = require("tensorrt", "tensorrt")
        target = _device(device)
        content = read_content(file)
        if not is_intact(content):
            raise CheckpointError(f"{file}: is damaged or was changed after it was written; copy it again")
        text, plan = unpack(file, content)
        with torch.cuda.device(target):
            engine = tensorrt.Runtime(_logger(tensorrt)).deserialize_cuda_engine(plan)
        if engine is None:
            reason = "another GPU or another version of TensorRT than it was built with; export it here again"
            raise CheckpointError(
                f"{file}: TensorRT {tensorrt.__version__} cannot read it: it may be for {reason}"
            )
        session = TensorRtSession(engine, target)
        header = read_header(text, file, *session.shapes())
        return FileRunner(session, header, partial(self.open, file.absolute(), device, None))

    def write(
        self,
        graph: onnx.ModelProto,
        tail: onnx.ModelProto | None,
        header: str,
        out: Path,
        calibration: Tensor | None = None,
    ) -> None:
        del calibration  # see `can`
        tensorrt = require("tensorrt", "tensorrt")
        target = _device("auto")
        with torch.cuda.device(target):
            plan = build(tensorrt, append_tail(graph, tail))
        text = header.encode()
        out.write_bytes(seal(LENGTH.pack(len(text)) + text + plan))

    def needs(self, eight_bits: bool) -> dict[str, tuple[str, ...]]:  # noqa: ARG002 (OpenVINO uses it)
        return {"export": GRAPH_PACKAGES, "tensorrt": ("tensorrt",)}

    def multiply_adds(self, file: Path) -> int | None:  # noqa: ARG002 (an engine does not state them)
        return None


def build(tensorrt: Any, model: onnx.ModelProto) -> bytes:
    """The engine of an ONNX model, for 1 to `MOST` images, in the precision of the model without TF32.

    Raises ExportError with what TensorRT says about an operator that it cannot build.
    """
    builder = tensorrt.Builder(_logger(tensorrt))
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, _logger(tensorrt))
    if not parser.parse(model.SerializeToString()):
        reasons = "; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors))
        raise ExportError(f"TensorRT cannot read this graph ({reasons}); export to onnx instead")
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    _, *size = network.get_input(0).shape
    profile.set_shape("images", (1, *size), (8, *size), (MOST, *size))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError("TensorRT could not build an engine; its own message was printed above")
    return bytes(plan)


def unpack(file: Path, content: bytes) -> tuple[str, bytes]:
    """The document and the engine of a file. Raises CheckpointError."""
    start = LENGTH.size
    length = LENGTH.unpack(content[:start])[0] if len(content) > start else 0
    text, plan = content[start : start + length], content[start + length :]
    if not (text.startswith(b"{") and plan):
        raise damaged(file, "an engine of `fssd export --to tensorrt`", "it does not start with its metadata")
    return text.decode(errors="replace"), plan


def _logger(tensorrt: Any) -> Any:
    return tensorrt.Logger(tensorrt.Logger.ERROR)


def _device(name: str) -> torch.device:
    if name == "cpu" or not torch.cuda.is_available():
        raise ConfigError(
            "TensorRT needs a CUDA device; choose another runtime, or run it where there is one"
        )
    return torch.device("cuda" if name == "auto" else name)

"""ncnn's files, .param with .bin and .json beside it, in ncnn. The .json holds what other runtimes embed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fssd.errors import CheckpointError, ConfigError, ExportError, FssdError
from fssd.model.designs import read_size
from fssd.runtimes.cores import usable_cores
from fssd.runtimes.header import read_header
from fssd.runtimes.packages import require
from fssd.runtimes.runner import FileRunner, Images
from fssd.runtimes.runtime import GRAPH_PACKAGES, Runtime
from fssd.weights.content import beside, damaged, is_intact, read_content, seal

if TYPE_CHECKING:
    import onnx

LINES = 2  # at the start of a .param: its magic number, and how many layers and blobs follow
MAGIC = b"7767517"
LIMIT = 1800.0  # seconds after which a conversion that hangs is ended
# Axes of a sum in a .param, an array with its length first. pnnx writes none for a single one, which in these
# networks is that of channels; another would be seen by the comparison with PyTorch.
NO_AXES, ALL_CHANNELS = "-23303=0", "-23303=1,0"


class NcnnSession:
    """A net of ncnn in float32. Images are computed one by one, since ncnn has no batches.

    graph, weights: content of the .param and of the .bin. Raises ValueError if ncnn cannot read them.
    """

    def __init__(self, ncnn: Any, graph: bytes, weights: bytes, threads: int) -> None:
        self.ncnn, self.graph, self.weights = ncnn, graph, weights
        self.turn = threading.Lock()
        self.net = self._load(threads)
        self.outputs = list(self.net.output_names())

    def _load(self, threads: int) -> Any:
        self.process = os.getpid()
        net = self.ncnn.Net()
        options = net.opt
        options.num_threads = threads
        # By default ncnn rounds to 16 bits where the processor has them, which changes scores by up to 0.01.
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(options, name, False)
        with tempfile.TemporaryDirectory() as folder:  # ncnn for Python reads weights from files only
            param, model = Path(folder) / "model.param", Path(folder) / "model.bin"
            param.write_bytes(self.graph)
            model.write_bytes(self.weights)
            if net.load_param(str(param)) or net.load_model(str(model)):
                raise ValueError("ncnn cannot read it")
        return net

    def __call__(self, images: Images) -> list[npt.NDArray[Any]]:
        rows = [self._run(image) for image in images]
        return [np.stack(parts) for parts in zip(*rows, strict=True)]

    def _run(self, image: npt.NDArray[np.uint8]) -> list[npt.NDArray[Any]]:
        with self.turn:
            if os.getpid() != self.process:  # the threads of OpenMP do not survive a fork
                self.inherited, self.net = self.net, self._load(1)  # kept: its end would wait for its threads
        extractor = self.net.create_extractor()
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
        extractor.input("images", self.ncnn.Mat(pixels).clone())
        return [np.array(extractor.extract(name)[1]) for name in self.outputs]


class Ncnn(Runtime):
    """For phones and small boards. pnnx converts the ONNX graph."""

    name = "ncnn"
    suffix = ".param"
    beside = (".bin", ".json")
    can = frozenset()

    def open(self, file: Path, device: str, threads: int | None) -> FileRunner:
        ncnn = require("ncnn", "ncnn")
        if device not in ("auto", "cpu"):
            raise ConfigError(f"device {device!r} cannot be used by ncnn here; choose cpu or auto")
        paths = [file, *(beside(file, suffix) for suffix in self.beside)]
        missing = next((path for path in paths if not path.is_file()), None)
        if missing is not None:
            raise CheckpointError(f"{missing}: is missing; a model of ncnn is a .param, a .bin and a .json")
        graph, weights, text = map(read_content, paths)
        if not graph.startswith(MAGIC):
            raise damaged(file, "a model of ncnn", "it starts with other bytes than those of a .param")
        if not is_intact(text, graph + weights):
            raise CheckpointError(f"{file}: does not fit the files beside it: one is damaged; copy all again")
        try:
            document = json.loads(text)
            width, height = read_size(document["image_size"])
        except (ValueError, KeyError, TypeError, FssdError) as error:
            raise damaged(paths[2], "the description of a model of ncnn", repr(error)) from error
        try:
            session = NcnnSession(ncnn, graph, weights, threads or usable_cores())
        except ValueError as error:
            raise damaged(file, "a model of ncnn", str(error)) from error
        found = session(np.zeros((1, height, width, 3), np.uint8))  # the file does not state shapes
        outputs = {name: (None, *one.shape[1:]) for name, one in zip(session.outputs, found, strict=True)}
        header = read_header(json.dumps(document), file, {"images": (None, height, width, 3)}, outputs)
        return FileRunner(session, header, partial(self.open, file.absolute(), device, threads))

    def write(
        self,
        graph: onnx.ModelProto,
        tail: onnx.ModelProto | None,
        header: str,
        out: Path,
        calibration: Tensor | None = None,
    ) -> None:
        del tail, calibration  # see `can`
        names = {"in0": "images", **{f"out{i}": end.name for i, end in enumerate(graph.graph.output)}}
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "model.onnx"
            source.write_bytes(planar(graph).SerializeToString())
            convert(source, _input_shape(graph))
            converted = source.with_name("model.ncnn.param")
            out.write_text(renamed(converted.read_text(encoding="utf-8"), names), encoding="utf-8")
            shutil.copyfile(converted.with_suffix(".bin"), out.with_suffix(".bin"))
        content = out.read_bytes() + out.with_suffix(".bin").read_bytes()
        out.with_suffix(".json").write_bytes(seal(header.encode(), content))

    def needs(self, eight_bits: bool) -> dict[str, tuple[str, ...]]:  # noqa: ARG002 (OpenVINO uses it)
        return {"export": GRAPH_PACKAGES, "ncnn": ("pnnx", "ncnn")}

    def multiply_adds(self, file: Path) -> int | None:  # noqa: ARG002 (the file does not state shapes)
        return None


def planar(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy for one image: float32 (1, 3, H, W) RGB, 0 to 255, as ncnn's `from_pixels` makes it."""
    tools = require("onnx", "export")
    model = type(graph)()
    model.CopyFrom(graph)
    inner = model.graph
    height, width = _input_shape(graph)
    cast = next(node for node in inner.node if node.op_type == "Cast" and node.input[0] == "images")
    turn = tools.helper.make_node("Transpose", ["images"], list(cast.output), perm=[0, 2, 3, 1])
    nodes = [turn if node is cast else node for node in inner.node]
    del inner.node[:], inner.input[:], inner.value_info[:]
    inner.node.extend(nodes)
    shape = (1, 3, height, width)
    inner.input.append(tools.helper.make_tensor_value_info("images", tools.TensorProto.FLOAT, shape))
    for output in inner.output:
        output.type.tensor_type.shape.dim[0].dim_value = 1
    return model


def _input_shape(graph: onnx.ModelProto) -> tuple[int, int]:
    """Height and width of the input `images` (B, H, W, 3)."""
    sizes = graph.graph.input[0].type.tensor_type.shape.dim
    return sizes[1].dim_value, sizes[2].dim_value


def convert(source: Path, size: tuple[int, int]) -> None:
    """Let pnnx write `source`.ncnn.param and .ncnn.bin beside an ONNX file. Raises ExportError."""
    program = require("pnnx", "ncnn").EXEC_PATH
    shape = f"inputshape=[1,3,{size[0]},{size[1]}]f32"
    command = [program, source.name, shape, "fp16=0", "device=cpu"]
    done = subprocess.run(
        command, cwd=source.parent, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    if done.returncode or not source.with_name(f"{source.stem}.ncnn.param").is_file():
        last = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-1:]
        reason = last[0] if last else f"exit status {done.returncode}"
        raise ExportError(f"pnnx cannot convert this network to ncnn ({reason}); export to onnx instead")


def renamed(text: str, names: dict[str, str]) -> str:
    """A .param with other names of blobs, and with the axes of sums that pnnx leaves out.

    Raises ExportError for layers that ncnn does not have.
    """
    lines = text.splitlines()
    for at, line in enumerate(lines[LINES:], LINES):
        kind, name, ins, outs, *others = line.split()
        if "." in kind:  # pnnx writes what it cannot translate under PyTorch's name
            raise ExportError(
                f"ncnn has no layer for {kind}, which this network needs; export to onnx instead"
            )
        if kind == "Reduction":
            others = [ALL_CHANNELS if part == NO_AXES else part for part in others]
        blobs = int(ins) + int(outs)
        changed = [names.get(blob, blob) for blob in others[:blobs]]
        new = names.get(name, name) if kind == "Input" else name
        lines[at] = " ".join([f"{kind:<24} {new:<24} {ins} {outs}", *changed, *others[blobs:]])
    return "\n".join([*lines, ""])

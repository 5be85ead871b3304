"""ONNX files in ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fssd.errors import CheckpointError, ConfigError
from fssd.runtimes.cores import usable_cores
from fssd.runtimes.header import KEY, Shape, read_header
from fssd.runtimes.onnx_description import describe
from fssd.runtimes.packages import require
from fssd.runtimes.runner import FileRunner
from fssd.runtimes.runtime import GRAPH_PACKAGES, Runtime, append_tail, single_images, total_products
from fssd.weights.content import damaged, is_intact, read_content, seal

if TYPE_CHECKING:
    import onnx

IR = 8  # of the file; ONNX Runtime reads it since 1.10, and nothing in the graphs needs a later one
PROVIDERS = {"auto": "CPUExecutionProvider", "cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntime(Runtime):
    """One concurrent batch: sessions of ONNX Runtime are slower side by side than one after another."""

    name = "onnx"
    suffix = ".onnx"
    can = frozenset({"nms", "eight_bits", "fp16"})

    def open(self, file: Path, device: str, threads: int | None) -> FileRunner:
        runtime = require("onnxruntime", "export")
        provider = PROVIDERS.get(device)
        if provider not in runtime.get_available_providers():
            raise ConfigError(f"device {device!r} cannot be used by this onnxruntime; choose cpu or auto")
        content = read_content(file)
        if not is_intact(content):
            raise CheckpointError(f"{file}: is damaged or was changed after it was written; copy it again")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        # Threads that spin while they wait gain 2 to 8 % alone, but take it from everything else in a server.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors only, and those are raised as well
        try:
            session = runtime.InferenceSession(content, options, providers=[provider])
        except Exception as error:  # onnxruntime's exceptions have no other common base
            raise damaged(file, "an ONNX file", str(error).splitlines()[0]) from error
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        inputs, outputs = (_shapes(ends) for ends in (session.get_inputs(), session.get_outputs()))
        header = read_header(text, file, inputs, outputs)
        reopen = partial(self.open, file.absolute(), device, threads)
        return FileRunner(lambda images: session.run(None, {"images": images}), header, reopen)

    def write(
        self,
        graph: onnx.ModelProto,
        tail: onnx.ModelProto | None,
        header: str,
        out: Path,
        calibration: Tensor | None = None,
    ) -> None:
        tools = require("onnx", "export")
        if calibration is not None:
            with tempfile.TemporaryDirectory() as folder:
                graph = quantise_onnx(graph, calibration, Path(folder))
        model = append_tail(graph, tail)
        model.ir_version = IR
        # Joining graphs names a domain twice.
        versions = {imported.domain: imported.version for imported in model.opset_import}
        del model.metadata_props[:], model.opset_import[:]
        model.opset_import.extend(tools.helper.make_opsetid(*item) for item in versions.items())
        tools.helper.set_model_props(model, {KEY: header})
        describe(model, header)
        out.write_bytes(seal(model.SerializeToString()))

    def needs(self, eight_bits: bool) -> dict[str, tuple[str, ...]]:  # noqa: ARG002 (OpenVINO uses it)
        return {"export": (*GRAPH_PACKAGES, "onnxruntime")}

    def multiply_adds(self, file: Path) -> int | None:
        return onnx_multiply_adds(require("onnx", "export").load(file))


def _shapes(ends: Any) -> dict[str, Shape]:
    return {end.name: tuple(size if isinstance(size, int) else None for size in end.shape) for end in ends}


def quantise_onnx(model: onnx.ModelProto, images: Tensor, folder: Path) -> onnx.ModelProto:
    """The graph with convolutions and sums in eight bits, weights per channel.

    images: (N, 3, S, S) uint8 RGB. folder: for temporary files. The convolutions that predict stay in float:
    rounding their outputs costs more accuracy than it saves time. Only inputs are quantised: an output would
    be quantised before its activation clips it, over a far wider range than what remains afterwards.
    Raises ConfigError if onnxruntime is missing.
    """
    tools = require("onnxruntime.quantization", "export")
    out = folder / "quantised.onnx"
    rows = ({"images": image} for image in single_images(images))
    tools.quant_utils.add_pre_process_metadata(model)  # else a warning asks for what `trace` has done
    tools.quantize_static(
        model,
        out,
        SimpleNamespace(get_next=lambda: next(rows, None)),  # the interface of CalibrationDataReader
        quant_format=tools.QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Add"],
        nodes_to_exclude=_predictors(model),
        per_channel=True,
        activation_type=tools.QuantType.QUInt8,
        weight_type=tools.QuantType.QInt8,
        extra_options={"OpTypesToExcludeOutputQuantization": ["Conv", "Add"]},
    )
    quantised: onnx.ModelProto = require("onnx", "export").load(out)
    return quantised


def _predictors(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions whose results reach the outputs without further arithmetic."""
    makers = {output: node for node in model.graph.node for output in node.output}
    names: list[str] = []
    waiting = [makers[output.name] for output in model.graph.output]
    while waiting:
        node = waiting.pop()
        if node.op_type == "Conv":
            names.append(node.name)
        elif node.op_type in ("Concat", "Reshape", "Transpose", "Split"):
            waiting += [makers[name] for name in node.input if name in makers]
    return names


def onnx_multiply_adds(model: onnx.ModelProto) -> int | None:
    """Multiply-adds for one image of a model whose first input is a batch of images; it is not changed."""
    own = type(model)()
    own.CopyFrom(model)
    own.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del own.graph.value_info[:]  # inferred for any batch size; it would contradict the fixed one
    for output in own.graph.output:
        output.type.tensor_type.ClearField("shape")
    graph = require("onnx", "export").shape_inference.infer_shapes(own, data_prop=True).graph
    return total_products({node.op_type for node in graph.node}, _products(graph))


def _products(graph: Any) -> Iterator[int]:
    """Multiply-adds of each convolution and product; 0 where a size is unknown."""
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv":  # weights (C_out, C_in / groups, H, W)
            yield prod(shapes.get(node.output[0], [0])) * prod(shapes.get(node.input[1], [0])[1:])
        elif node.op_type == "MatMul":
            yield prod(shapes.get(node.output[0], [0])) * shapes.get(node.input[0], [0])[-1]

"""The graph of every exported file: image bytes in, the head's predictions out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fssd.errors import ConfigError
from fssd.heads.head import Raw
from fssd.model.fold import fold
from fssd.model.network import Network
from fssd.runtimes.packages import require

if TYPE_CHECKING:
    import onnx

OPSET = 18  # of ONNX: the first with all operators in the form used here; ONNX Runtime reads it since 1.14
# Attributes that opset 18 added, with the value that 17 takes for granted; None for any.
NEW_IN_18 = {"antialias": 0, "keep_aspect_ratio_policy": b"stretch", "num_outputs": None}


class Graph(nn.Module):
    """A folded network that reads images in the layout of image arrays.

    Input: (B, H, W, 3) uint8 RGB. Output: the predictions of the head, see `Head.outputs`.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        folded = fold(network)
        self.backbone, self.neck, self.heads = folded.backbone, folded.neck, folded.heads
        self.mean = None if not folded.mean.any() else _shortest(folded.mean)
        self.std = None if bool((folded.std == 1).all()) else _shortest(folded.std)

    def forward(self, images: Tensor) -> Raw:
        x = images.float()
        if self.mean is not None:
            x = x - self.mean
        if self.std is not None:
            x = x / self.std
        # Transposed last, so that a runtime whose convolutions use this layout moves no data.
        return tuple(self.heads(self.neck(self.backbone(x.permute(0, 3, 1, 2)))))


def _shortest(numbers: Tensor) -> Tensor:
    """One number per channel, or a single one if they are equal, with which runtimes are faster."""
    flat = numbers.flatten()
    return flat[0] if bool((flat == flat[0]).all()) else flat


def trace(network: Network, opset: int = OPSET) -> onnx.ModelProto:
    """The folded network as an ONNX model from `images` to the outputs of its head, for any batch size.

    opset: 18 or later; for an earlier one see `lowered`.

    Raises ConfigError if the package onnx or onnxscript is missing.
    """
    require("onnx", "export")
    require("onnxscript", "export")
    width, height = network.image_size
    images = torch.zeros((2, height, width, 3), dtype=torch.uint8)  # 2, because 1 would become a constant
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            Graph(network).eval(),
            (images,),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=["images"],
            output_names=list(network.heads.outputs),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    model = program.model_proto
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]  # the source line of each part, with paths of this machine
    return model


def lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model of opset 18 in opset 17, changed in place. Raises ConfigError for operators that differ."""
    tools = require("onnx", "export")
    for node in model.graph.node:
        for one in list(node.attribute):
            value = tools.helper.get_attribute_value(one)
            if one.name in NEW_IN_18 and NEW_IN_18[one.name] in (None, value):
                node.attribute.remove(one)
    for imported in model.opset_import:
        imported.version = OPSET - 1
    try:
        tools.checker.check_model(model)
    except tools.checker.ValidationError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"this network cannot be written in opset 17 ({reason}); take 18") from error
    return model


def in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose weights and arithmetic are in half precision; its inputs and outputs are as before.

    Raises ConfigError if the package onnxruntime is missing.
    """
    tools = require("onnxruntime.transformers.float16", "export")
    with _quiet():
        halved: onnx.ModelProto = tools.convert_float_to_float16(model, keep_io_types=True)
    _sort(halved)
    return halved


def _sort(model: onnx.ModelProto) -> None:
    """Put every node behind those that it reads from, as ONNX demands; the converter appends its casts."""
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    known = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    ordered: list[onnx.NodeProto] = []
    waiting = list(reversed(graph.node))
    while waiting:
        node = waiting[-1]
        missing = [makers[name] for name in node.input if name not in known]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        if node.output[0] not in known:
            ordered.append(node)
            known.update(node.output)
    copies = [type(node).FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's messages about missing packages and about internals of torch."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

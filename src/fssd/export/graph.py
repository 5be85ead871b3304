"""The graph that every exported file begins with: bytes of an image in, the head's predictions out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fssd.heads.head import Raw
from fssd.model.fold import fold
from fssd.model.network import Network
from fssd.runtimes.packages import require

if TYPE_CHECKING:
    import onnx

OPSET = 18  # of ONNX; the first with every operator as it is used here, and read by ONNX Runtime since 1.14


class Graph(nn.Module):
    """A folded network that reads images as they lie in memory.

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
        # Transposed last, next to the convolution: where that wants pixel by pixel, nothing is moved at all.
        return tuple(self.heads(self.neck(self.backbone(x.permute(0, 3, 1, 2)))))


def _shortest(numbers: Tensor) -> Tensor:
    """The numbers of the channels, or one that stands for all: runtimes are slow at three by three."""
    flat = numbers.flatten()
    return flat[0] if bool((flat == flat[0]).all()) else flat


def trace(network: Network) -> onnx.ModelProto:
    """The folded network as an ONNX model: `images` to the outputs of its head, any batch size.

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
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(network.heads.outputs),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    model = program.model_proto
    for part in (
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
    ):
        del part.metadata_props[:]  # where in the source each came from, with paths of this machine
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages and on torch's own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

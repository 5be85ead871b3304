"""The contract of a runtime: it opens and writes one kind of exported file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor

from fssd.errors import ConfigError
from fssd.runtimes.packages import require
from fssd.runtimes.runner import FileRunner, Images

if TYPE_CHECKING:
    import onnx

GRAPH_PACKAGES = ("onnx", "onnxscript")
TAIL_PREFIX = "nms/"  # of the names of a tail's nodes, so that quantisation can leave them out

# Products that `fssd export` writes only for a backbone of the user's own.
NOT_COUNTED = {"Gemm", "Einsum", "ConvTranspose", "ConvolutionBackpropData", "GroupConvolutionBackpropData"}


class Runtime:
    """One file holds everything about a runtime.

    name: for users. suffix: of its files. beside: suffixes of files that belong to one. side_by_side:
    concurrent batches per core that gave the best throughput in the server. can: what a file may have inside,
    of "nms", "eight_bits" and "fp16".
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    beside: ClassVar[tuple[str, ...]] = ()
    side_by_side: ClassVar[int] = 1
    can: ClassVar[frozenset[str]] = frozenset({"nms", "eight_bits"})

    def open(self, file: Path, device: str, threads: int | None) -> FileRunner:
        """Load a file.

        device: "auto", "cpu", or another that the runtime offers. threads: one per core if None.
        Raises CheckpointError for a file that is damaged or not from `fssd export`, ConfigError for a missing
        package or device.
        """
        raise NotImplementedError

    def write(
        self,
        graph: onnx.ModelProto,
        tail: onnx.ModelProto | None,
        header: str,
        out: Path,
        calibration: Tensor | None = None,
    ) -> None:
        """Write `out` and the files beside it. Raises ConfigError for a missing package.

        graph: images (B, H, W, 3) uint8 to predictions. tail: predictions to detections, if the file is to
        include NMS. header: from `write_header`, to be stored. calibration: (N, 3, H, W) uint8 images; with
        them `graph` is quantised to eight bits with the ranges of these images.
        """
        raise NotImplementedError

    def refuse(self, **wanted: bool) -> None:
        """Raise ConfigError for what a file of this runtime cannot have. wanted: for each name of `can`."""
        for name, value in wanted.items():
            if value and name not in self.can:
                flag = {"nms": "--nms", "eight_bits": "--int8", "fp16": "--fp16"}[name]
                raise ConfigError(f"files of {self.name} are written without {flag}; leave it out")

    def needs(self, eight_bits: bool) -> dict[str, tuple[str, ...]]:  # noqa: ARG002 (other runtimes use it)
        """The packages that `write` and `open` import, by the extra that installs them."""
        return {"export": GRAPH_PACKAGES}

    def multiply_adds(self, file: Path) -> int | None:
        """Multiply-adds for one image, counted in the file; None if an operator in it cannot be counted."""
        raise NotImplementedError


def append_tail(graph: onnx.ModelProto, tail: onnx.ModelProto | None) -> onnx.ModelProto:
    """`graph` with its outputs connected to the inputs of the same names of `tail`."""
    if tail is None:
        return graph
    tools = require("onnx", "export")
    tail = tools.compose.add_prefix(tail, TAIL_PREFIX, rename_inputs=False, rename_outputs=False)
    names = [value.name for value in tail.graph.input]
    joined: onnx.ModelProto = tools.compose.merge_models(graph, tail, io_map=[(n, n) for n in names])
    return joined


def single_images(images: Tensor) -> Iterator[Images]:
    """(N, 3, H, W) uint8 RGB one by one as (1, H, W, 3), to calibrate a quantiser with."""
    for image in images:
        yield np.ascontiguousarray(image.permute(1, 2, 0)[None].numpy())


def total_products(kinds: set[str], products: Iterable[int]) -> int | None:
    """Multiply-adds of a graph with these kinds of operators; None if one of them cannot be counted.

    products: of each convolution and matrix product, as `fssd.model.cost` counts; 0 where a size is unknown.
    """
    if kinds & NOT_COUNTED:
        return None
    found = [int(product) for product in products]
    return sum(found) if found and all(found) else None

"""The contract of a runtime: it opens and writes one kind of exported file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fssd.runtimes.header import Header
from fssd.runtimes.packages import require

if TYPE_CHECKING:
    import onnx

Images = npt.NDArray[np.uint8]  # (B, H, W, 3) RGB
Session = Callable[[Images], Sequence[npt.NDArray[Any]]]
"""Images to the outputs of the file, in order: the head's predictions, or boxes, scores, labels and count."""

TAIL_PREFIX = "nms/"  # of the names of a tail's nodes, so that quantisation can leave them out


class Opened(NamedTuple):
    """An exported file, opened in its runtime."""

    session: Session
    header: Header


class Runtime:
    """One file holds everything about a runtime.

    name: for users. suffix: of its files. beside: suffixes of files that belong to one. side_by_side:
    concurrent batches per core that gave the best throughput in the server.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    beside: ClassVar[tuple[str, ...]] = ()
    side_by_side: ClassVar[int] = 1

    def open(self, file: Path, device: str, threads: int | None) -> Opened:
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

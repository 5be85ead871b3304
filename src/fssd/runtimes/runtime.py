"""The contract of a runtime: what opens, and writes, one kind of exported file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from fssd.runtimes.session import Opened

if TYPE_CHECKING:
    import onnx


class Runtime:
    """One file holds all of a runtime.

    name: as users call it. suffix: of its files. beside: suffixes of files that belong to one. side_by_side:
    concurrent batches per core that gave the best throughput in the server.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    beside: ClassVar[tuple[str, ...]] = ()
    side_by_side: ClassVar[int] = 1

    def open(self, file: Path, device: str, threads: int | None) -> Opened:
        """A session, and the header of the file.

        device: "auto", "cpu", or what else the runtime offers. threads: None for one a core.
        Raises CheckpointError for a file that is damaged or not of `fssd export`, ConfigError for a missing
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
        """Write `out`, and the files beside it.

        graph: images (B, H, W, 3) uint8 to predictions. tail: predictions to detections, to end the file in;
        None for predictions. header: to be stored, see `write_header`. calibration: (N, 3, H, W) uint8
        images; with them `graph` is written in eight bits with the ranges that they show. Raises ConfigError
        for a missing package.
        """
        raise NotImplementedError

    def multiply_adds(self, file: Path) -> int | None:
        """Multiply-adds of one image, counted in the file; None if something in it cannot be counted."""
        raise NotImplementedError

"""One way to ask for detections, whatever computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fssd.errors import ConfigError
from fssd.heads.multibox.decode import Found, detect
from fssd.heads.multibox.priors import make_priors
from fssd.model.network import Network, Raw, channels_last
from fssd.runtimes.header import Header, Thresholds

Images = npt.NDArray[np.uint8]  # (B, S, S, 3) RGB
Session = Callable[[Images], Sequence[npt.NDArray[Any]]]
"""An opened file: images to its outputs in order, (offsets, logits) or (boxes, scores, labels, count)."""

EXPORTED = (".onnx", ".xml")


class Runner(Protocol):
    """A detector without class names, in two stages. image_size: side of its input, pixels."""

    image_size: int

    def predict(self, images: Tensor) -> Any:
        """What the network says of (B, 3, S, S) uint8 RGB; a value for `finish` alone to read."""

    def finish(self, predicted: Any, **settings: Any) -> list[Found]:
        """The detections in what `predict` gave; settings as in `fssd.heads.multibox.decode.detect`."""

    def rows(self, predicted: Any) -> list[Any]:
        """What `predict` gave, image by image; each is for `finish` by itself."""

    def find(self, images: Tensor, **settings: Any) -> list[Found]:
        """Detections of (B, 3, S, S) uint8 RGB: both stages."""
        return self.finish(self.predict(images), **settings)


class NetworkRunner(Runner):
    """A network, in evaluation mode, on its device."""

    def __init__(self, network: Network) -> None:
        self.network = channels_last(network).eval()
        self.image_size = network.image_size

    @torch.inference_mode()
    def predict(self, images: Tensor) -> Raw:
        """See `Runner`."""
        inputs = images.to(self.network.priors.device).float().contiguous(memory_format=torch.channels_last)
        return self.network(inputs)  # type: ignore[no-any-return]

    def rows(self, predicted: Raw) -> list[Raw]:
        """See `Runner`."""
        return [Raw(*row) for row in zip(*(torch.split(part, 1) for part in predicted), strict=True)]

    @torch.inference_mode()
    def finish(self, predicted: Raw, **settings: Any) -> list[Found]:
        """See `Runner`."""
        return detect(predicted, self.network.priors, **settings)


class FileRunner(Runner):
    """An exported file. NMS runs here or in the file, as the file has it."""

    def __init__(self, session: Session, header: Header) -> None:
        self.session = session
        self.thresholds = header.thresholds
        self.image_size = header.image_size
        self.priors = make_priors(header.levels)

    def predict(self, images: Tensor) -> Sequence[npt.NDArray[Any]]:
        """See `Runner`."""
        return self.session(np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()))

    def rows(self, predicted: Sequence[npt.NDArray[Any]]) -> list[Sequence[npt.NDArray[Any]]]:
        """See `Runner`."""
        return [[part[i : i + 1] for part in predicted] for i in range(len(predicted[0]))]

    @torch.inference_mode()
    def finish(self, predicted: Sequence[npt.NDArray[Any]], **settings: Any) -> list[Found]:
        """See `Runner`. Raises ConfigError for settings that a file with NMS inside cannot follow."""
        if self.thresholds is not None:
            wanted = _inside(self.thresholds, settings)
            return [_cut(wanted, *row) for row in zip(*predicted, strict=True)]
        offsets, logits = (torch.from_numpy(output) for output in predicted)
        return detect(Raw(offsets, logits), self.priors, **settings)


def open_file(path: Path, device: str, threads: int | None) -> tuple[FileRunner, Header]:
    """Open an exported model, .onnx with ONNX Runtime, .xml with OpenVINO.

    device: "auto", "cpu", or what else the runtime offers. threads: None for one a core.
    Raises CheckpointError for a file that is damaged or not of `fssd export`, ConfigError for a missing
    package or device.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is {threads}; it must be 1 or more")
    if path.suffix == ".onnx":
        from fssd.runtimes.onnx import open_onnx

        session, header = open_onnx(path, device, threads)
    else:
        from fssd.runtimes.openvino import open_openvino

        session, header = open_openvino(path, device, threads)
    return FileRunner(session, header), header


def _inside(own: Thresholds, settings: dict[str, Any]) -> Thresholds:
    """The settings that are wanted, if a graph made for `own` can follow them."""
    wanted = replace(own, **settings)
    same = (wanted.nms, wanted.top_k) == (own.nms, own.top_k)
    if same and wanted.score >= own.score and wanted.keep <= own.keep:
        return wanted
    fixed = ", ".join(f"{name} {value}" for name, value in asdict(own).items())
    raise ConfigError(
        f"this file has NMS inside, made for {fixed}; ask for a score no lower, a keep no higher and the same"
        " nms and top_k, or export with --raw"
    )


def _cut(wanted: Thresholds, boxes: Images, scores: Images, labels: Images, count: np.int64) -> Found:
    number = min(int(count), wanted.keep)
    number = int(np.count_nonzero(scores[:number] > wanted.score))
    return Found(*(torch.from_numpy(np.array(values[:number])) for values in (boxes, scores, labels)))

"""One way to ask for detections, whatever computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fssd.data.geometry import Geometry
from fssd.errors import ConfigError
from fssd.heads.head import Found, Raw, Thresholds
from fssd.model.network import Network, channels_last
from fssd.runtimes.header import Header
from fssd.runtimes.session import Session


class Runner(Protocol):
    """A detector without class names, in two stages. geometry: how images become its input."""

    geometry: Geometry

    def predict(self, images: Tensor) -> Any:
        """What the network says of (B, 3, H, W) uint8 RGB; a value for `finish` alone to read."""

    def finish(self, predicted: Any, **settings: Any) -> list[Found]:
        """The detections in what `predict` gave; settings: see `Thresholds`."""

    def rows(self, predicted: Any) -> list[Any]:
        """What `predict` gave, image by image; each is for `finish` by itself."""

    def find(self, images: Tensor, **settings: Any) -> list[Found]:
        """Detections of (B, 3, H, W) uint8 RGB: both stages."""
        return self.finish(self.predict(images), **settings)


class NetworkRunner(Runner):
    """A network, in evaluation mode, on its device."""

    def __init__(self, network: Network) -> None:
        self.network = channels_last(network).eval()
        self.geometry = network.geometry

    @torch.inference_mode()
    def predict(self, images: Tensor) -> Raw:
        """See `Runner`."""
        inputs = images.to(self.network.device).float().contiguous(memory_format=torch.channels_last)
        return self.network(inputs)  # type: ignore[no-any-return]

    def rows(self, predicted: Raw) -> list[Raw]:
        """See `Runner`."""
        return list(zip(*(torch.split(part, 1) for part in predicted), strict=True))

    @torch.inference_mode()
    def finish(self, predicted: Raw, **settings: Any) -> list[Found]:
        """See `Runner`."""
        return self.network.heads.detect(predicted, Thresholds(**settings))


class FileRunner(Runner):
    """An exported file. NMS runs here or in the file, as the file has it."""

    def __init__(self, session: Session, header: Header) -> None:
        self.session = session
        self.thresholds = header.thresholds
        self.geometry = header.geometry
        self.decode = header.decode

    def predict(self, images: Tensor) -> Sequence[npt.NDArray[Any]]:
        """See `Runner`."""
        return self.session(np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()))

    def rows(self, predicted: Sequence[npt.NDArray[Any]]) -> list[Sequence[npt.NDArray[Any]]]:
        """See `Runner`."""
        return [[part[i : i + 1] for part in predicted] for i in range(len(predicted[0]))]

    @torch.inference_mode()
    def finish(self, predicted: Sequence[npt.NDArray[Any]], **settings: Any) -> list[Found]:
        """See `Runner`. Raises ConfigError for settings that a file with NMS inside cannot follow."""
        if self.decode is not None:
            return self.decode(predicted, Thresholds(**settings))
        assert self.thresholds is not None  # one or the other, see `read_header`
        wanted = _inside(self.thresholds, settings)
        return [_cut(wanted, *row) for row in zip(*predicted, strict=True)]


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


def _cut(
    wanted: Thresholds,
    boxes: npt.NDArray[Any],
    scores: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    count: np.int64,
) -> Found:
    number = min(int(count), wanted.keep)
    number = int(np.count_nonzero(scores[:number] > wanted.score))
    return Found(*(torch.from_numpy(np.array(values[:number])) for values in (boxes, scores, labels)))

"""One interface to everything that computes detections: a network or an exported file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fssd.data.geometry import Geometry
from fssd.errors import CheckpointError, ConfigError
from fssd.heads.head import Found, Raw, Thresholds
from fssd.model.network import Network, channels_last
from fssd.runtimes.header import Header

Images = npt.NDArray[np.uint8]  # (B, H, W, 3) RGB
Arrays = Sequence[npt.NDArray[Any]]
Session = Callable[[Images], Arrays]
"""Images to the outputs of the file, in order: the head's predictions, or boxes, scores, labels and count."""


# The threads of OpenMP do not survive a fork: a child process that relied on them would wait for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class Runner(Protocol):
    """A detector without class names, in two stages. geometry: how an image becomes its input.

    Any number of threads may call it at the same time, also in a process that was forked while none did; and
    it can be pickled. defaults: the thresholds that `finish` takes where none are given.
    """

    geometry: Geometry
    defaults: Thresholds

    def predict(self, images: Tensor) -> Any:
        """Run the network on (B, 3, H, W) uint8 RGB; only `finish` and `rows` can read the result."""

    def finish(self, predicted: Any, **settings: Any) -> list[Found]:
        """Detections from the result of `predict`; settings: see `Thresholds`."""

    def rows(self, predicted: Any) -> list[Any]:
        """The result of `predict` split by image, each part in a form that `finish` takes."""


class NetworkRunner(Runner):
    """A network in evaluation mode, on its device."""

    def __init__(self, network: Network) -> None:
        self.network = channels_last(network).eval()
        self.geometry = network.geometry
        self.defaults = network.heads.thresholds

    @torch.inference_mode()
    def predict(self, images: Tensor) -> Raw:
        pixels = images.to(self.network.device, non_blocking=True).float()
        inputs = pixels.contiguous(memory_format=torch.channels_last)
        return self.network(inputs)  # type: ignore[no-any-return]

    def rows(self, predicted: Raw) -> list[Raw]:
        return list(zip(*(torch.split(part, 1) for part in predicted), strict=True))

    @torch.inference_mode()
    def finish(self, predicted: Raw, **settings: Any) -> list[Found]:
        return self.network.heads.detect(predicted, self.defaults.replaced(settings))


class FileRunner(Runner):
    """An exported file, with or without NMS inside.

    reopen: opens the file again, for pickling, which keeps the path and not the content.
    """

    def __init__(
        self, session: Session, header: Header, reopen: Callable[[], FileRunner] | None = None
    ) -> None:
        self.session = session
        self.reopen = reopen
        self.header = header
        self.thresholds = header.thresholds
        self.geometry = header.geometry
        self.decode = header.decode
        self.defaults = header.thresholds or header.defaults

    def predict(self, images: Tensor) -> Arrays:
        return self.session(np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()))

    def rows(self, predicted: Arrays) -> list[Arrays]:
        return [[part[i : i + 1] for part in predicted] for i in range(len(predicted[0]))]

    @torch.inference_mode()
    def finish(self, predicted: Arrays, **settings: Any) -> list[Found]:
        """Raises ConfigError for settings that a file with NMS inside cannot follow."""
        if self.decode is not None:
            return self.decode(predicted, self.defaults.replaced(settings))
        assert self.thresholds is not None  # exactly one of the two is set, see `read_header`
        wanted = within(self.thresholds, settings)
        return [_cut(wanted, *row) for row in zip(*predicted, strict=True)]

    def __reduce__(self) -> tuple[Any, ...]:
        if self.reopen is None:
            raise TypeError("this runner does not know its file and cannot be pickled")
        return _reopened, (self.reopen, self.header.digest)


def _reopened(reopen: Callable[[], FileRunner], digest: str) -> FileRunner:
    runner = reopen()
    if runner.header.digest != digest:
        raise CheckpointError("the file of this detector was replaced since it was pickled; load it again")
    return runner


def within(built_in: Thresholds, settings: Mapping[str, Any]) -> Thresholds:
    """The requested thresholds. Raises ConfigError if results for the built-in ones lack what they need."""
    wanted = built_in.replaced(settings)
    same = (wanted.nms, wanted.top_k) == (built_in.nms, built_in.top_k)
    if same and wanted.score >= built_in.score and wanted.keep <= built_in.keep:
        return wanted
    fixed = ", ".join(f"{name} {value}" for name, value in asdict(built_in).items())
    raise ConfigError(
        f"this file has NMS inside, made for {fixed}; ask for a score no lower, a keep no higher and the same"
        " nms and top_k, or export with --raw"
    )


def _cut(wanted: Thresholds, *row: Any) -> Found:
    """The detections that `wanted` keeps of an image. row: boxes, scores, labels (K, ...) and their count."""
    *values, count = row
    number = min(int(count), wanted.keep)
    number = int(np.count_nonzero(values[1][:number] > wanted.score))
    return Found(*(torch.from_numpy(np.array(part[:number])) for part in values))

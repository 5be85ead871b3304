"""Running a model and what was made of it on the same images, to compare what they find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fssd.export.images import fill_up
from fssd.export.parity import ROUNDING, Parity, Tolerance, compare
from fssd.heads.head import Found, Head, Raw, Thresholds
from fssd.model.network import Network
from fssd.runtimes.runner import Runner

BATCH = 8


def check(
    network: Network,
    runner: Runner,
    nms: Thresholds | None,
    images: Tensor | None,
    tolerance: Tolerance = ROUNDING,
) -> Parity:
    """Compare what `runner` finds with what `network` does; raises ExportError if it is not the same.

    nms: the settings built into the runner; None where it takes any, and then the least score falls until
    there is something to compare. images: (N, 3, H, W) uint8 RGB; made ones are added if they are few.
    """
    images = fill_up(images, network.image_size)
    raws = [_raw(network, batch) for batch in _batches(images)]
    thresholds = Thresholds() if nms is None else nms
    expected = _expected(raws, network.heads, thresholds)
    while nms is None and thresholds.score > 1e-6 and not any(len(found.scores) for found in expected):
        thresholds = Thresholds(score=thresholds.score / 10)
        expected = _expected(raws, network.heads, thresholds)
    candidates = (one for raw in raws for one in network.heads.candidates(raw))
    found = (one for batch in _batches(images) for one in runner.find(batch, **vars(thresholds)))
    return compare(expected, candidates, found, thresholds, tolerance)


def _batches(images: Tensor) -> Iterator[Tensor]:
    """The first image by itself, the others several at a time: a file takes any number."""
    yield images[:1]
    for start in range(1, len(images), BATCH):
        yield images[start : start + BATCH]


@torch.inference_mode()
def _raw(network: Network, images: Tensor) -> Raw:
    return network(images.float())  # type: ignore[no-any-return]


def _expected(raws: Sequence[Raw], head: Head, thresholds: Thresholds) -> list[Found]:
    return [found for raw in raws for found in head.detect(raw, thresholds)]

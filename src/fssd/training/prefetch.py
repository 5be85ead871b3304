"""Batches on the device, copied while the GPU still computes the step before."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import torch

from fssd.data.batch import Batch


def on_device(batches: Generator[Batch, None, None], device: torch.device) -> Generator[Batch, None, None]:
    """The batches with images and targets on the device. On a CPU they are given as they come.

    A step is queued long before the GPU has computed it, so the next batch is asked for while it computes.
    The copy is queued in a stream of its own, beside the step and not behind it; it needs pinned batches.
    """
    if device.type != "cuda":
        return batches
    return _copied(batches, device)


def _copied(batches: Generator[Batch, None, None], device: torch.device) -> Generator[Batch, None, None]:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with closing(batches):
        for batch in batches:
            with torch.cuda.stream(stream):
                images = batch.images.to(device, non_blocking=True)
                targets = {key: one.to(device, non_blocking=True) for key, one in batch.targets.items()}
            current = torch.cuda.current_stream(device)
            current.wait_stream(stream)
            for tensor in (images, *targets.values()):
                tensor.record_stream(current)  # else it is reused too early
            yield batch._replace(images=images, targets=targets)

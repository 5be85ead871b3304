"""Evaluation during a run: all processes detect, the first one measures."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import NamedTuple

from fssd.data.columns import take
from fssd.data.sample import DataSet
from fssd.errors import DataError, ImageError
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.model.network import Network
from fssd.training.distributed import Process, each, of_all, of_first, own_batches
from fssd.training.ema import Average, lent
from fssd.training.left_out import LeftOut
from fssd.training.stop import StopRequest

Batches = list[list[int]]  # indices of records


def saved_weights(
    network: Network, average: Average | None, process: Process
) -> AbstractContextManager[None]:
    """Lets `network` have the weights that are saved.

    Those are the average, if there is one, and of several processes the first one's: each has its own
    statistics of batch norms.
    """
    if average is None and process.world == 1:
        return nullcontext()
    return lent(network, of_first(network.state_dict() if average is None else average.tensors, process))


def detect_readable(
    detector: Detector,
    dataset: DataSet,
    left_out: LeftOut,
    stop: StopRequest,
    batch_size: int,
    workers: int,
    process: Process,
) -> tuple[DataSet, list[Detections]] | None:
    """The data set without broken images, and the detections on it; None if a stop was requested meanwhile.

    All processes get the same result. left_out: gets the broken images. Raises ImageError, in all processes,
    if they are more than it allows.
    """
    batches = own_batches(len(dataset), batch_size, process)
    own = _detect_own(detector, dataset, batches, left_out, stop, batch_size, workers)
    found, broken = of_all(own.found, process), of_all(own.broken, process)
    left_out.add(broken, loud=process.is_first)
    left_out.require_few()
    if any(each(own.stopped, process)):
        return None
    kept = [index for index, record in enumerate(dataset.records) if record.image_id not in broken]
    return replace(dataset, records=take(dataset.records, kept)), [found[index] for index in kept]


class _Own(NamedTuple):
    """What one process has found. found: by the record's index. broken: by image id. stopped: on request."""

    found: dict[int, Detections]
    broken: dict[str, DataError]
    stopped: bool


def _detect_own(
    detector: Detector,
    dataset: DataSet,
    batches: Batches,
    left_out: LeftOut,
    stop: StopRequest,
    batch_size: int,
    workers: int,
) -> _Own:
    """A broken image leaves its batch, and no other batch changes. Ends early if too many are broken."""
    found: dict[int, Detections] = {}
    broken: dict[str, DataError] = {}
    groups = [batches]  # in each only the last batch may be smaller than the others
    while groups and not left_out.would_be_too_many(broken):
        group = groups.pop(0)
        indices = [index for batch in group for index in batch]
        own = replace(dataset, records=take(dataset.records, indices))
        stream = detector.evaluate_on(own, batch_size=batch_size, workers=workers)
        try:
            for index, one in zip(indices, stream, strict=True):
                if stop.number:
                    return _Own(found, broken, True)
                found[index] = one
        except ImageError as error:
            bad = next(i for i in indices if i not in found and dataset.records[i].path == error.file)
            broken[dataset.records[bad].image_id] = error
            # With tiles, some images of a batch may be done.
            rest = [[index for index in batch if index not in found and index != bad] for batch in group]
            small = [[batch] for batch in rest if 0 < len(batch) < batch_size]
            whole = [batch for batch in rest if len(batch) == batch_size]
            groups[:0] = [*small, whole] if whole else small
    return _Own(found, broken, False)

"""Parts one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fssd.inference.detector import Detector
from fssd.parts.part_detector import PartDetector, PartJob

Report = Callable[[int, int], None]
"""Called with a part's number and how many of its rows have an error."""


def run_here(job: PartJob, missing: Iterable[int], report: Report, detector: Detector | None = None) -> None:
    """Compute and write the missing parts. detector: the model, if it is open already."""
    parts = PartDetector(job, detector)
    for index in missing:
        report(index, parts.write(index))

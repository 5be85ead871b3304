"""Detects in the rows of one part after another; what both engines run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from fssd.data.sample import Image
from fssd.errors import ConfigError, DataError
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector, size_of
from fssd.parts.film_reader import FilmReader
from fssd.parts.fingerprint import installed_version, model_digest
from fssd.parts.image_reader import read_ahead
from fssd.parts.part_plan import PartPlan
from fssd.parts.part_rows import FoundRow, write_part
from fssd.parts.plan_rows import PlanRow

Size = tuple[int, int]


@dataclass(frozen=True)
class PartJob:
    """All that a process needs to compute parts; it can be sent to another machine.

    model: as given on the command line. batch_size: images in a batch. device: as for `Detector.load`.
    """

    plan: PartPlan
    model: Path
    batch_size: int = 8
    device: str = "auto"


class PartDetector:
    """The model, opened once. Raises ConfigError if it is not the one that the plan was made for."""

    def __init__(self, job: PartJob, detector: Detector | None = None) -> None:
        self.job = job
        self._base = Path(job.plan.base)
        self._films = FilmReader(self._base)
        self._check_same()
        self._detector = detector or Detector.load(job.model, device=job.device)

    def _check_same(self) -> None:
        job = self.job
        made = job.plan.fingerprint
        if made.version != installed_version():
            own = installed_version()
            raise ConfigError(f"fssd {own} is installed here, the plan was made with {made.version}")
        digest = model_digest(job.model)
        if digest != made.model:
            raise ConfigError(f"{job.model}: is not the model that the plan was made with; copy that one")

    def write(self, index: int) -> int:
        """Compute a part and write it; returns how many of its rows have an error."""
        rows = self.rows(self.job.plan.part(index))
        write_part(self.job.plan.folder, index, rows)
        return sum(row.error is not None for row in rows)

    def rows(self, planned: Sequence[PlanRow]) -> list[FoundRow]:
        """The results of rows of the plan, in their order. A row that cannot be read is there with its error.

        Raises ConfigError if a store does not answer.
        """
        found: list[FoundRow] = []
        for is_film, group in groupby(planned, lambda row: row.kind == "film"):
            rows = list(group)
            found += map(self._film_row, rows) if is_film else self._image_rows(rows)
        return found

    def _image_rows(self, planned: Sequence[PlanRow]) -> list[FoundRow]:
        rows = [FoundRow(row.image) for row in planned]
        readable: list[FoundRow] = []
        windows = self._detector.windows(self.job.plan.fingerprint.settings)

        def images() -> Iterator[Image]:
            contents = read_ahead(planned, self._base, self.job.batch_size)
            for row, content in zip(rows, contents, strict=True):
                if isinstance(content, DataError):
                    row.error = str(content)
                    continue
                row.height, row.width = content.shape[:2]
                try:
                    windows(size_of(content))
                except DataError as error:  # too many tiles
                    row.error = str(error)
                    continue
                readable.append(row)
                yield content

        for index, found in enumerate(self._stream(images())):
            readable[index].found.append((None, found))
        return rows

    def _film_row(self, planned: PlanRow) -> FoundRow:
        row = FoundRow(planned.image)
        numbers: list[int] = []

        def images(frames: Iterator[tuple[int, Image]]) -> Iterator[Image]:
            for number, image in frames:
                numbers.append(number)
                row.height, row.width = image.shape[:2]
                yield image

        try:
            frames, require_whole = self._films.stretch(planned)
            for index, found in enumerate(self._stream(images(frames))):
                row.found.append((numbers[index], found))
            require_whole()
        except DataError as error:
            row.error = str(error)
        return row

    def _stream(self, images: Iterator[Image]) -> Iterator[Detections]:
        settings: Mapping[str, Any] = self.job.plan.fingerprint.settings
        return self._detector.stream(images, batch_size=self.job.batch_size, keep_image=False, **settings)

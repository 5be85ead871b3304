"""The work of `fssd detect` on files: how far it is, and the images; see detect_film.py for films."""

from __future__ import annotations

import errno
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fssd.cli.options import write_each
from fssd.errors import DataError, FssdError

if TYPE_CHECKING:
    from fssd.cli.detect_flags import Detect
    from fssd.data.sample import Image
    from fssd.evaluation.exact_rows import ExactRows
    from fssd.inference.detections import Detections
    from fssd.inference.detector import Detector
    from fssd.parts.unfinished import Unfinished

Result = TypeVar("Result")
FULL = {errno.ENOSPC, errno.EDQUOT}
EXACT = "unfinished.jsonl"  # what VOC's and COCO's files are made of


@dataclass
class DetectWork:
    """What to do, and how far it is. done: inputs without a fault. faulty: those that had one."""

    command: Detect
    detector: Detector
    total: int
    unfinished: Unfinished
    done: int = 0
    faulty: set[Path] = field(default_factory=set)

    def summary(self) -> str:
        return f"{self.done} of {self.total} inputs done, results in {self.command.out}"

    def stream(self, images: Iterable[Image], **others: Any) -> Iterator[Detections]:
        """others: settings that take the place of those on the command line."""
        thresholds = {**self.command.given(), **others}
        batch_size, scales = self.command.batch_size, self.command.scales or None
        return self.detector.stream(images, **thresholds, batch_size=batch_size, scales=scales)

    def attempt(self, file: Path, step: Callable[[], Result]) -> Result | None:
        """What a step of an input returns, or None after printing its error; raises that of a full disk."""
        try:
            return step()
        except FssdError as error:
            nameless = isinstance(error, DataError) and error.file is None
            text = f"{file}: {error}" if nameless else str(error)
        except OSError as error:
            if error.errno in FULL:
                raise
            text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        self.faulty.add(file)
        print(f"error: {text}", file=sys.stderr)
        return None

    def finish(self, file: Path, found: str) -> None:
        self.done += file not in self.faulty
        print(f"{file}: {found}")


def detect_stills(work: DetectWork, files: list[Path], names: list[str]) -> None:
    """Write the pictures and result files of the images, those that are done also after an exception."""
    from fssd.evaluation.exact_rows import ExactRows, exact_images
    from fssd.evaluation.results import DetectionsFile

    out, drawing = work.command.folder, work.command.pictures
    is_kept = work.command.voc or work.command.coco
    known = {str(file) for file in files if work.unfinished.is_kept(file)}
    if is_kept:
        known &= set(exact_images(out / EXACT))  # a kill may have come between the two
    going_on = work.unfinished.goes_on
    results = DetectionsFile(out / "detections.json", go_on=going_on, drawn=drawing, known=known)
    exact = ExactRows(out / EXACT, results.done) if is_kept else None
    work.unfinished.begin(is_pruned=True)
    waiting: deque[tuple[Path, str, tuple[int, int]]] = deque()
    try:
        with results:
            for found in work.stream(_unread(work, files, names, results.done, waiting)):
                file, name, size = waiting.popleft()
                picture = work.attempt(file, partial(_draw, out, name, found)) if drawing else None
                if exact is not None:
                    exact.add(str(file), found)
                results.add(str(file), size, found, picture)
                work.finish(file, _summary(found))
    finally:
        if exact is not None:
            _write_results(work, exact)


def _unread(
    work: DetectWork,
    files: list[Path],
    names: list[str],
    done: set[str],
    waiting: deque[tuple[Path, str, tuple[int, int]]],
) -> Iterator[Image]:
    """The images that are not done and can be read; for each, file, name and size are added to `waiting`."""
    from fssd.data.decode import count_pictures
    from fssd.inference.inputs import read_images

    windows = work.detector.windows(work.command.given())
    for file, name in zip(files, names, strict=True):
        if str(file) in done:
            work.done += 1
            continue
        sizes: list[tuple[int, int]] = []
        for image in read_images([file], [], sizes):
            if work.attempt(file, partial(windows, sizes[0])) is None:  # too many tiles
                continue
            if (pictures := count_pictures(file)) > 1:
                print(f"{file}: the first of {pictures:,} pictures", file=sys.stderr)
            waiting.append((file, name, sizes[0]))
            yield image


def _draw(folder: Path, name: str, found: Detections) -> str:
    from fssd.inference.draw import write_jpeg

    write_jpeg(folder / name, found.draw())
    return name


def _write_results(work: DetectWork, exact: ExactRows) -> None:
    from fssd.data.sample import DataSet, background_record
    from fssd.evaluation.results import write_coco_results, write_voc_results
    from fssd.inference.inputs import output_names

    files, out, classes = [Path(name) for name in exact.images()], work.command.folder, work.detector.classes
    ids = output_names(files, "")
    steps: list[Callable[[], object]] = []
    if work.command.voc:
        steps.append(partial(write_voc_results, out, ids, exact.read(classes), classes))
    if work.command.coco:
        records = tuple(background_record(stem, file) for stem, file in zip(ids, files, strict=True))
        facts = {"category_ids": tuple(range(1, len(classes) + 1))}
        dataset = DataSet(classes, records, facts=facts)
        steps.append(partial(write_coco_results, out / "coco.json", dataset, exact.read(classes)))
    write_each(*steps)


def _summary(found: Detections) -> str:
    counts = sorted(Counter(found.names).items())
    return ", ".join(f"{count} {name}" for name, count in counts) or "nothing"

"""The page of `fssd check --report`: what is in a data set, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fssd.data.check import CheckReport, Seen
from fssd.data.decode import read_image
from fssd.data.join import join_classes
from fssd.data.sample import Record
from fssd.errors import ImageError
from fssd.evaluation.pairing import Floats, Ints
from fssd.heads.multibox.priors import Level
from fssd.inference.draw import class_colour
from fssd.plots import require_matplotlib
from fssd.report import charts
from fssd.report.duplicates import Pair, Thumbnail, near_duplicates, thumbnail
from fssd.report.html import Html, file_link, join, tag, write_page
from fssd.report.layout import (
    TIMES,
    Card,
    Cell,
    Section,
    caption,
    details,
    document,
    gallery,
    grid,
    lead,
    percent,
    percent_cell,
    plural,
    table,
)
from fssd.report.shapes import (
    MATCHED,
    Share,
    band_names,
    bands,
    best_overlaps,
    prior_shapes,
    shares,
    sides,
)
from fssd.report.thumbnails import FALSE, Mark, around, figure, picture, whole

SAMPLES = 12  # images of each split
MISFITS = 18  # boxes that no prior matches
DUPLICATES = 24  # pairs shown
FINDINGS = 5000  # rows
BOXES = 20_000  # compared with the priors; drawn by lot where there are more
POINTS = 3000  # of the plot


class Priors(NamedTuple):
    """Of a model: its name, the side of its input in pixels, and the table of its levels."""

    model: str
    image_size: int
    levels: tuple[Level, ...]


class Survey:
    """Gathers what the page needs while `check_data` goes through the images."""

    def __init__(self) -> None:
        self.images: list[tuple[str, Record, tuple[int, int]]] = []
        self.names: list[tuple[str, ...]] = []
        self.thumbnails: dict[str, list[Thumbnail]] = {}
        self.places: dict[str, list[int]] = {}

    def visit(self, seen: Seen) -> None:
        """Take up one usable image."""
        self.places.setdefault(seen.split, []).append(len(self.images))
        self.images.append((seen.split, seen.record, (seen.header.width, seen.header.height)))
        self.names.append(seen.classes)
        if seen.image is not None:
            self.thumbnails.setdefault(seen.split, []).append(thumbnail(seen.image))

    def of_pair(self, pair: Pair) -> tuple[int, int]:
        """The images of a pair, as places in `images`."""
        (one, other), (first, second) = pair.splits, pair.places
        return self.places[one][first], self.places[other][second]


class _Boxes(NamedTuple):
    """All boxes, or as many as are looked at. image: (N,) place. box: (N, 4) pixels of the image.

    warped: (N, 4) pixels of the network's input. label: (N,) among the classes of all splits.
    """

    image: Ints
    box: Floats
    warped: Floats
    label: Ints
    total: int


def write_data_page(folder: Path, report: CheckReport, survey: Survey, priors: Priors) -> tuple[Path, int]:
    """Write the page. Returns the file, and how many images are near-duplicates of one in another split.

    Raises ConfigError without matplotlib.
    """
    require_matplotlib()
    classes = join_classes([list(counts.per_class) for counts in report.splits.values()], {})
    boxes = _gather(survey, classes, priors.image_size)
    overlap = best_overlaps(boxes.warped, priors.levels)
    pairs = [pair for pair in near_duplicates(dict(survey.thumbnails)) if not _same_file(survey, pair)]
    sections = [
        Section("findings", "Findings", _findings(report)),
        Section("counts", "Counts", _counts(report, classes)),
        Section("boxes", "Boxes and priors", _shapes(boxes, overlap, classes, priors)),
        Section("misfits", "Boxes that no prior matches", _misfits(folder, survey, boxes, overlap, classes)),
        Section("samples", "Samples", _samples(folder, survey, classes)),
        Section("duplicates", "Near-duplicates across splits", _duplicates(folder, survey, pairs)),
    ]
    matched = float((overlap >= MATCHED).mean()) if len(overlap) else float("nan")
    name = report.path.resolve().name
    body = document("check", name, [str(report.path)], _cards(report, matched, len(pairs)), sections)
    return write_page(folder, f"{name}: data set", body), len(pairs)


def _gather(survey: Survey, classes: Sequence[str], size: int) -> _Boxes:
    index = {name: label for label, name in enumerate(classes)}
    image, box, warped, label = [], [np.zeros((0, 4))], [np.zeros((0, 4))], []
    for place, ((_, record, (width, height)), names) in enumerate(
        zip(survey.images, survey.names, strict=True)
    ):
        own = record.boxes.astype(np.float64)
        image += [place] * len(own)
        box.append(own)
        warped.append(own * (np.array([size / width, size / height] * 2)))
        label += [index[names[number]] for number in record.labels]
    boxes = _Boxes(
        np.array(image, np.int64),
        np.concatenate(box),
        np.concatenate(warped),
        np.array(label, np.int64),
        len(image),
    )
    if boxes.total <= BOXES:
        return boxes
    drawn = np.sort(np.random.default_rng(0).choice(boxes.total, BOXES, replace=False))
    return _Boxes(boxes.image[drawn], boxes.box[drawn], boxes.warped[drawn], boxes.label[drawn], boxes.total)


def _same_file(survey: Survey, pair: Pair) -> bool:
    one, other = survey.of_pair(pair)
    return survey.images[one][1].path.resolve() == survey.images[other][1].path.resolve()


def _cards(report: CheckReport, matched: float, pairs: int) -> list[Card]:
    images = sum(counts.images for counts in report.splits.values())
    usable = sum(counts.usable for counts in report.splits.values())
    objects = sum(counts.objects for counts in report.splits.values())
    return [
        Card("images", f"{images:,}", f"{usable:,} usable, {plural(len(report.splits), 'split')}"),
        Card("objects", f"{objects:,}", f"{objects / usable if usable else 0:.1f} an image"),
        Card("errors", f"{report.errors:,}", "make an image unusable"),
        Card("warnings", f"{report.warnings:,}", "repaired, or only odd"),
        Card("boxes that a prior matches", f"{percent(matched)} %", f"overlap {MATCHED:.2f} or more"),
        Card("near-duplicates", f"{pairs:,}", "across splits"),
    ]


def _findings(report: CheckReport) -> Html:
    if not report.problems:
        return tag("p", "Nothing is wrong.", class_="empty")
    rows = [
        [
            tag("span", problem.severity, class_="bad" if problem.severity == "error" else None),
            Cell(str(problem.file), kind="file"),
            problem.place,
            Cell(problem.reason, kind="wide"),
        ]
        for problem in report.problems[:FINDINGS]
    ]
    left = len(report.problems) - len(rows)
    intro = lead(
        "Errors make an image unusable; warnings are repaired or only odd."
        + (f" The first {FINDINGS:,} of {len(report.problems):,}; --json has all." if left else "")
    )
    listed = table(("", "file", "place", "reason"), rows, label="Findings")
    return join([intro, listed if len(rows) <= 12 else details(f"All {len(rows):,}", listed)])


def _counts(report: CheckReport, classes: Sequence[str]) -> Html:
    splits = report.splits
    rows: list[Sequence[object]] = [
        [row, *(Cell(f"{getattr(counts, row):,}") for counts in splits.values()), Cell("")]
        for row in ("images", "usable", "backgrounds", "objects")
    ]
    totals = {name: sum(counts.per_class.get(name, 0) for counts in splits.values()) for name in classes}
    most = max(totals.values(), default=0) or 1
    of_classes: list[Sequence[object]] = [
        [
            name,
            *(Cell(f"{counts.per_class.get(name, 0):,}") for counts in splits.values()),
            Cell(f"{totals[name]:,}", bar=totals[name] / most, kind="n bar"),
        ]
        for name in classes
    ]
    intro = lead("Usable images have no error; backgrounds are usable images without an object.")
    return join(
        [
            intro,
            table(("", *splits, ""), rows, label="Images by split"),
            tag("h3", "Objects by class"),
            table(("class", *splits, "all"), of_classes, label="Objects by class"),
        ]
    )


def _shapes(boxes: _Boxes, overlap: Floats, classes: Sequence[str], priors: Priors) -> Html:
    if not len(overlap):
        return tag("p", "There is no box.", class_="empty")
    some = np.random.default_rng(0).permutation(len(overlap))[:POINTS]
    extent = boxes.warped[:, 2:] - boxes.warped[:, :2]
    shapes = prior_shapes(priors.levels)
    plots = [
        caption(
            charts.histogram(
                sides(boxes.warped),
                [level.min_size for level in priors.levels],
                "side, px of the input",
                [4, 8, 16, 32, 64, 128, 256, 512],
            ),
            "Side of a square of the box's area. The lines are the smallest priors of the levels.",
        ),
        caption(
            charts.histogram(
                extent[:, 0] / np.maximum(extent[:, 1], 1e-6),
                sorted({round(float(width / height), 3) for width, height in shapes}),
                "width / height",
                [0.125, 0.25, 0.5, 1, 2, 4, 8],
            ),
            "Shape of the boxes after images are warped to a square. The lines are the shapes of the priors.",
        ),
        caption(
            charts.scatter(extent[some], overlap[some], shapes, 512, MATCHED),
            f"Orange boxes overlap no prior by {MATCHED:.2f}; crosses are the priors. Beside size and shape"
            " it matters where a box lies, as priors stand on a grid.",
        ),
    ]
    drawn = f" {BOXES:,} of {boxes.total:,} boxes, drawn by lot." if boxes.total > BOXES else ""
    intro = lead(
        f"In pixels of the input of {priors.model}, {priors.image_size} {TIMES} {priors.image_size}, to which"
        f" images are warped. In training every object gets the prior that overlaps it most, and all those"
        f" that overlap it by {MATCHED:.2f}; without any of these it is learned from the one alone.{drawn}"
    )
    by_size = shares(bands(boxes.warped), overlap, len(band_names()))
    by_class = shares(boxes.label, overlap, len(classes))
    return join(
        [
            intro,
            grid(plots),
            tag("h3", "By size"),
            _share_table("side, px of the input", band_names(), by_size),
            tag("h3", "By class"),
            _share_table("class", classes, by_class),
        ]
    )


def _share_table(first: str, names: Sequence[str], found: Sequence[Share]) -> Html:
    rows = [
        [name, Cell(f"{share.boxes:,}"), percent_cell(share.matched)]
        for name, share in zip(names, found, strict=True)
    ]
    return table((first, "boxes", "matched by a prior, %"), rows, label=f"Boxes matched, by {first}")


def _misfits(folder: Path, survey: Survey, boxes: _Boxes, overlap: Floats, classes: Sequence[str]) -> Html:
    rows = [row for row in np.argsort(overlap, kind="stable") if overlap[row] < MATCHED]
    figures: list[Html] = []
    used: set[int] = set()
    for row in rows:
        image = int(boxes.image[row])
        if image in used or len(figures) == MISFITS:
            continue
        used.add(image)
        record = survey.images[image][1]
        try:
            pixels = read_image(record.path)
        except ImageError:
            continue
        name = classes[boxes.label[row]]
        width, height = boxes.warped[row, 2:] - boxes.warped[row, :2]
        told = f"{name}, {width:.0f} {TIMES} {height:.0f} px of the input, best overlap {overlap[row]:.2f}"
        view = around(pixels, boxes.box[row], [Mark(boxes.box[row], name, FALSE)])
        figures.append(figure(view, record.path, folder, told, told))
    intro = lead("Those that the priors fit least, one of an image at most.")
    return join([intro, gallery(figures, "small")])


def _samples(folder: Path, survey: Survey, classes: Sequence[str]) -> Html:
    index = {name: label for label, name in enumerate(classes)}
    parts: list[Html] = [lead("Images drawn by lot, so that each class occurs where there is room.")]
    for split, places in survey.places.items():
        figures = []
        for place in _choose(survey, places):
            record, names = survey.images[place][1], survey.names[place]
            labels = [index[names[label]] for label in record.labels]
            marks = [
                Mark(box, classes[label], class_colour(label))
                for box, label in zip(record.boxes.astype(np.float64), labels, strict=True)
            ]
            try:
                view = whole(read_image(record.path), marks, 400)
            except ImageError:
                continue
            told = f"{record.path.name}: {plural(len(labels), 'object')}"
            figures.append(figure(view, record.path, folder, told, told))
        parts += [tag("h3", split), gallery(figures)]
    return join(parts)


def _choose(survey: Survey, places: Sequence[int]) -> list[int]:
    """Images of one split: for each class in turn one that has it, then others, all by lot."""
    order = [places[number] for number in np.random.default_rng(0).permutation(len(places))]
    chosen: list[int] = []
    known: set[str] = set()
    for place in order:
        names = {survey.names[place][label] for label in survey.images[place][1].labels}
        if names - known:
            known |= names
            chosen.append(place)
    return [*chosen, *(place for place in order if place not in set(chosen))][:SAMPLES]


def _duplicates(folder: Path, survey: Survey, pairs: Sequence[Pair]) -> Html:
    if not survey.thumbnails:
        return tag("p", "Not looked for: the images were not decoded.", class_="empty")
    intro = lead(
        "Images that have one almost like them in an earlier split, mirrored or not, by the correlation of"
        " small grey copies. A model that has trained on one of them is not tested by the other."
        + (f" The {DUPLICATES} most alike of {len(pairs):,}." if len(pairs) > DUPLICATES else "")
    )
    figures = [_pair(folder, survey, pair) for pair in pairs[:DUPLICATES]]
    return join([intro, gallery(figures, "pairs")])


def _pair(folder: Path, survey: Survey, pair: Pair) -> Html:
    sides_of = []
    told = []
    for place in survey.of_pair(pair):
        split, record, _ = survey.images[place]
        told.append(f"{split}: {record.path.name}")
        shown = picture(whole(read_image(record.path), [], 300), told[-1])
        sides_of.append(tag("a", shown, href=file_link(record.path, folder)))
    mirrored = ", mirrored" if pair.mirrored else ""
    text = f"{'; '.join(told)}; correlation {pair.alike:.3f}{mirrored}"
    return tag("figure", tag("div", *sides_of, class_="two"), tag("figcaption", text))

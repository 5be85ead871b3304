"""The page of `fssd check --report`: the content of a data set, and its problems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fssd.counted import counted
from fssd.data.check import CheckReport, Seen
from fssd.data.decode import read_image
from fssd.data.duplicates import Pair, Thumbnail, near_duplicates, thumbnail
from fssd.data.geometry import Geometry
from fssd.data.join import join_classes
from fssd.errors import ImageError
from fssd.evaluation.pairing import Floats, Ints
from fssd.heads.multibox.match import MATCHED
from fssd.inference.draw import class_colour
from fssd.model.network import Network
from fssd.plots import require_matplotlib
from fssd.report import charts, layout
from fssd.report.html import Html, join, tag, write_page
from fssd.report.shapes import band_names, bands, shares, sides
from fssd.report.thumbnails import FALSE, Mark, around, figure, linked, picture, whole

SAMPLES = 12  # images of each split
MISFITS = 18  # boxes that no prior matches
DUPLICATES = 24  # pairs shown
FINDINGS = 5000  # rows
BOXES = 20_000  # compared with the priors; if there are more, a random sample of this size
POINTS = 3000  # in the plot


class Survey:
    """Collects what the page needs while `check_data` goes through the images."""

    def __init__(self, thumbnails: bool = True) -> None:
        """thumbnails: keep what near-duplicates are found by."""
        self._keeps_thumbnails = thumbnails
        self.images: list[Seen] = []  # without their pixels
        self.thumbnails: dict[str, list[Thumbnail]] = {}
        self.indices: dict[str, list[int]] = {}  # of the images of each split, in `images`

    def visit(self, seen: Seen) -> None:
        """Add one usable image."""
        self.indices.setdefault(seen.split, []).append(len(self.images))
        self.images.append(seen._replace(image=None))
        if seen.image is not None and self._keeps_thumbnails:
            self.thumbnails.setdefault(seen.split, []).append(thumbnail(seen.image))

    def input_boxes(self, geometry: Geometry) -> npt.NDArray[np.float32]:
        """(N, 4) boxes of all images, in pixels of a network's input."""
        sized = ((seen.record.boxes, (seen.header.width, seen.header.height)) for seen in self.images)
        parts = [geometry.apply_boxes(boxes, size) for boxes, size in sized]
        return np.concatenate([np.zeros((0, 4), np.float32), *parts])

    def labels(self, classes: Sequence[str]) -> list[Ints]:
        """The labels of each image, as indices in `classes`."""
        index = {name: label for label, name in enumerate(classes)}
        return [
            np.array([index[seen.classes[label]] for label in seen.record.labels], np.int64)
            for seen in self.images
        ]

    def of_pair(self, pair: Pair) -> tuple[Seen, Seen]:
        (one, other), (first, second) = pair.splits, pair.indices
        return self.images[self.indices[one][first]], self.images[self.indices[other][second]]


class _Boxes(NamedTuple):
    """All boxes, or a sample of them.

    image: (N,) index in `Survey.images`. box: (N, 4) pixels of the image. warped: (N, 4) pixels of the
    network's input. label: (N,) among the classes of all splits. total: boxes before sampling.
    """

    image: Ints
    box: Floats
    warped: Floats
    label: Ints
    total: int


def write_data_page(folder: Path, report: CheckReport, survey: Survey, network: Network) -> tuple[Path, int]:
    """Write the page for the input and priors of a network. Returns the file and how many near-duplicates."""
    require_matplotlib()
    classes = join_classes([list(counts.per_class) for counts in report.splits.values()], {})
    boxes = _gather(survey, classes, network.geometry)
    overlap = network.heads.best_overlaps(boxes.warped.astype(np.float32))
    fit = [] if overlap is None else _fit_sections(folder, survey, boxes, overlap, classes, network)
    pairs = [pair for pair in near_duplicates(dict(survey.thumbnails)) if not _same_file(survey, pair)]
    sections = [
        layout.Section("findings", "Findings", _findings(report)),
        layout.Section("counts", "Counts", _counts(report, classes)),
        *fit,
        layout.Section("samples", "Samples", _samples(folder, survey, classes)),
        layout.Section("duplicates", "Near-duplicates across splits", _duplicates(folder, survey, pairs)),
    ]
    matched = float("nan") if overlap is None or not len(overlap) else float((overlap >= MATCHED).mean())
    name = report.path.resolve().name
    body = layout.document("check", name, [str(report.path)], _cards(report, matched, len(pairs)), sections)
    return write_page(folder, f"{name}: data set", body), len(pairs)


def _fit_sections(
    folder: Path, survey: Survey, boxes: _Boxes, overlap: Floats, classes: Sequence[str], network: Network
) -> list[layout.Section]:
    """How the boxes fit a head with priors. overlap: (N,) with the best prior."""
    misfits = _misfits(folder, survey, boxes, overlap, classes)
    return [
        layout.Section("boxes", "Boxes and priors", _shapes(boxes, overlap, classes, network)),
        layout.Section("misfits", "Boxes that no prior matches", misfits),
    ]


def _gather(survey: Survey, classes: Sequence[str], geometry: Geometry) -> _Boxes:
    records = [seen.record for seen in survey.images]
    image = np.array([number for number, r in enumerate(records) for _ in r.labels], np.int64)
    box = np.concatenate([np.zeros((0, 4)), *(record.boxes for record in records)])
    warped = survey.input_boxes(geometry).astype(np.float64)
    label = np.concatenate([np.zeros(0, np.int64), *survey.labels(classes)])
    if len(image) <= BOXES:
        return _Boxes(image, box, warped, label, len(image))
    rows = np.sort(np.random.default_rng(0).choice(len(image), BOXES, replace=False))
    return _Boxes(image[rows], box[rows], warped[rows], label[rows], len(image))


def _same_file(survey: Survey, pair: Pair) -> bool:
    one, other = survey.of_pair(pair)
    return one.record.path.resolve() == other.record.path.resolve()


def _cards(report: CheckReport, matched: float, pairs: int) -> list[layout.Card]:
    splits = report.splits.values()
    images, usable = sum(counts.images for counts in splits), sum(counts.usable for counts in splits)
    objects = sum(counts.objects for counts in splits)
    of_images = f"{usable:,} usable, {counted(len(report.splits), 'split')}"
    least = f"overlap {MATCHED:.2f} or more"
    return [
        layout.Card("images", f"{images:,}", of_images),
        layout.Card("objects", f"{objects:,}", f"{objects / usable if usable else 0:.1f} per image"),
        layout.Card("errors", f"{report.errors:,}", "make an image unusable"),
        layout.Card("warnings", f"{report.warnings:,}", "repaired or unusual"),
        layout.Card("boxes that a prior matches", layout.share(matched), least),
        layout.Card("near-duplicates", f"{pairs:,}", "across splits"),
    ]


def _findings(report: CheckReport) -> Html:
    if not report.problems:
        return tag("p", "No problems.", class_="empty")
    rows = [
        [
            tag("span", problem.severity, class_="bad" if problem.severity == "error" else None),
            layout.Cell(str(problem.file), kind="file"),
            problem.place,
            layout.Cell(problem.reason, kind="wide"),
        ]
        for problem in report.problems[:FINDINGS]
    ]
    left = len(report.problems) - len(rows)
    intro = layout.lead(
        "Errors make an image unusable; warnings are repaired or only unusual."
        + (f" The first {FINDINGS:,} of {len(report.problems):,}; --json has all." if left else "")
    )
    listed = layout.table(("", "file", "place", "reason"), rows, label="Findings")
    return join([intro, listed if len(rows) <= 12 else layout.details(f"All {len(rows):,}", listed)])


def _counts(report: CheckReport, classes: Sequence[str]) -> Html:
    splits = report.splits
    names = ("images", "usable", "backgrounds", "objects")
    images = [[name, *(getattr(counts, name) for counts in splits.values()), ""] for name in names]
    by_class = {name: [counts.per_class.get(name, 0) for counts in splits.values()] for name in classes}
    most = max(map(sum, by_class.values()), default=0) or 1
    objects = [
        [name, *found, layout.Cell(f"{sum(found):,}", bar=sum(found) / most, kind="n bar")]
        for name, found in by_class.items()
    ]
    intro = layout.lead("Usable images have no error; backgrounds are usable images without an object.")
    by_split = layout.table(("", *splits, ""), images, label="Images by split")
    by_name = layout.table(("class", *splits, "all"), objects, label="Objects by class")
    return join([intro, by_split, tag("h3", "Objects by class"), by_name])


def _shapes(boxes: _Boxes, overlap: Floats, classes: Sequence[str], network: Network) -> Html:
    if not len(overlap):
        return tag("p", "There is no box.", class_="empty")
    sampled = f" {BOXES:,} of {boxes.total:,} boxes, sampled at random." if boxes.total > BOXES else ""
    width, height = network.image_size
    intro = layout.lead(
        f"In pixels of the input of {network.spec.name}, {width} {layout.TIMES} {height}, to which"
        f" images are brought by {network.geometry.name}. {network.heads.matching}{sampled}"
    )
    sizes = _share_table("side, px of the input", band_names(), bands(boxes.warped), overlap)
    named = _share_table("class", classes, boxes.label, overlap)
    plots = layout.grid(_shape_plots(boxes, overlap, network))
    return join([intro, plots, tag("h3", "By size"), sizes, tag("h3", "By class"), named])


def _shape_plots(boxes: _Boxes, overlap: Floats, network: Network) -> list[Html]:
    some = np.random.default_rng(0).permutation(len(overlap))[:POINTS]
    extent = boxes.warped[:, 2:] - boxes.warped[:, :2]
    shapes = network.heads.prior_shapes()
    assert shapes is not None  # as there are overlaps
    prior_sides = sorted({round(float(side), 1) for side in np.sqrt(shapes.prod(axis=1))})
    prior_ratios = sorted({round(float(width / height), 3) for width, height in shapes})
    ratios = extent[:, 0] / np.maximum(extent[:, 1], 1e-6)
    powers = _powers(max(network.image_size))
    return [
        layout.caption(
            charts.histogram(sides(boxes.warped), prior_sides, "side, px of the input", powers),
            "Side of a square with the area of the box. The lines are those of the priors.",
        ),
        layout.caption(
            charts.histogram(ratios, prior_ratios, "width / height", [0.125, 0.25, 0.5, 1, 2, 4, 8]),
            "Aspect ratio of the boxes in the network's input. The lines are the ratios of the priors.",
        ),
        layout.caption(
            charts.scatter(extent[some], overlap[some], shapes, powers[-1], MATCHED),
            f"Orange boxes overlap no prior by {MATCHED:.2f}; crosses are the priors.",
        ),
    ]


def _powers(side: int) -> list[int]:
    """The powers of two from 4 px to the first that is no shorter than a side."""
    return [2**power for power in range(2, max(side - 1, 4).bit_length() + 1)]


def _share_table(first: str, names: Sequence[str], groups: Ints, overlap: Floats) -> Html:
    found = zip(names, *shares(groups, overlap, len(names)), strict=True)
    rows = [[name, boxes, layout.percent_cell(matched)] for name, boxes, matched in found]
    return layout.table((first, "boxes", "matched by a prior, %"), rows, label=f"Boxes matched, by {first}")


def _misfits(folder: Path, survey: Survey, boxes: _Boxes, overlap: Floats, classes: Sequence[str]) -> Html:
    figures: list[Html] = []
    used: set[int] = set()
    for row in np.argsort(overlap, kind="stable"):
        image = int(boxes.image[row])
        if overlap[row] >= MATCHED or len(figures) == MISFITS:
            break
        if image in used:
            continue
        used.add(image)
        record = survey.images[image].record
        try:
            pixels = read_image(record.picture)
        except ImageError:
            continue
        name = classes[boxes.label[row]]
        width, height = boxes.warped[row, 2:] - boxes.warped[row, :2]
        size = f"{width:.0f} {layout.TIMES} {height:.0f} px of the input"
        text = f"{layout.isolated(name)}, {size}, best overlap {overlap[row]:.2f}"
        view = around(pixels, boxes.box[row], [Mark(boxes.box[row], name, FALSE)])
        figures.append(figure(view, record.picture, folder, text, text))
    intro = layout.lead("The boxes with the least overlap, at most one per image.")
    return join([intro, layout.gallery(figures, "small")])


def _samples(folder: Path, survey: Survey, classes: Sequence[str]) -> Html:
    labels = survey.labels(classes)
    parts: list[Html] = [layout.lead("Images sampled at random; as many classes as possible occur.")]
    for split, indices in survey.indices.items():
        figures = []
        for image in _choose(survey, indices):
            record = survey.images[image].record
            objects = zip(record.boxes.astype(np.float64), labels[image], strict=True)
            marks = [Mark(box, classes[label], class_colour(label)) for box, label in objects]
            try:
                view = whole(read_image(record.picture), marks, 400)
            except ImageError:
                continue
            text = f"{layout.isolated(record.path.name)}: {counted(len(marks), 'object')}"
            figures.append(figure(view, record.picture, folder, text, text))
        parts += [tag("h3", split), layout.gallery(figures)]
    return join(parts)


def _choose(survey: Survey, indices: Sequence[int]) -> list[int]:
    """Images of one split in random order; first those that add a class, then the others."""
    order = [indices[number] for number in np.random.default_rng(0).permutation(len(indices))]
    chosen: list[int] = []
    known: set[str] = set()
    for image in order:
        names = {survey.images[image].classes[label] for label in survey.images[image].record.labels}
        if names - known:
            known |= names
            chosen.append(image)
    return [*chosen, *(image for image in order if image not in set(chosen))][:SAMPLES]


def _duplicates(folder: Path, survey: Survey, pairs: Sequence[Pair]) -> Html:
    if not survey.thumbnails:
        return tag("p", "Not searched: the images were not decoded.", class_="empty")
    intro = layout.lead(
        "Images that are almost identical to one in an earlier split, mirrored or not, by the correlation of"
        " small grey copies. If a model was trained on one of them, the other is no fair test."
        + (f" The {DUPLICATES} most similar of {len(pairs):,}." if len(pairs) > DUPLICATES else "")
    )
    figures = [_pair(folder, survey, pair) for pair in pairs[:DUPLICATES]]
    return join([intro, layout.gallery(figures, "pairs")])


def _pair(folder: Path, survey: Survey, pair: Pair) -> Html:
    links, texts = [], []
    for seen in survey.of_pair(pair):
        path = seen.record.path
        texts.append(f"{layout.isolated(seen.split)}: {layout.isolated(path.name)}")
        shown = picture(whole(read_image(seen.record.picture), [], 300), texts[-1])
        links.append(linked(shown, seen.record.picture, folder))
    mirrored = ", mirrored" if pair.mirrored else ""
    text = f"{'; '.join(texts)}; correlation {pair.correlation:.3f}{mirrored}"
    return tag("figure", tag("div", *links, class_="two"), tag("figcaption", text))

"""Why a detection was made, and why an object was missed: `fssd why`.

    why = explain(detector, image, sought=[Sought((40, 30, 90, 80), "cat")], score=0.5)
    print(why.objects[0].verdict)

A detection is traced to the level, cell and prior that predicted it and to the maps that its level is made
of. An object is traced through the steps from priors to detections, up to the one that lost it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fssd.boxes import overlaps
from fssd.data.geometry import Geometry
from fssd.data.sample import Image
from fssd.errors import ConfigError, nearest
from fssd.heads.fates import Claim, Fate, Fates, trace_selection
from fssd.heads.head import Candidates, Origins, Thresholds
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.model.network import Network
from fssd.necks.neck import Cells

Box = tuple[float, float, float, float]
Floats = npt.NDArray[np.float32]
HIT = 0.5  # IoU from which a box counts as one of the object, as in VOC's evaluation
RUNNERS_UP = 3  # class scores that are told of a prediction


@dataclass(frozen=True)
class Sought:
    """An object that should be found. box: xyxy, pixels of the image. name: its class, None for any."""

    box: Box
    name: str | None = None


class LevelFacts(NamedTuple):
    """A level of the pyramid. cells: rows and columns. sources: names of the maps that it is made of."""

    cells: Cells
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Prediction:
    """One class at one candidate.

    box: pixels of the image, clipped. level, row, column: where it is predicted, from 0. prior: the box it is
    relative to, pixels of the image, clipped. prior_size: (width, height) of that, pixels of the input.
    prior_iou: how much the two overlap in the input. scores: the best classes at this candidate. without: its
    score where a source map is replaced by its mean, which no longer tells where anything is; for the
    sources that can be replaced.
    """

    name: str
    score: float
    box: Box
    level: int
    row: int
    column: int
    prior: Box
    prior_size: tuple[float, float]
    prior_iou: float
    fate: Fate
    scores: tuple[tuple[str, float], ...]
    without: dict[str, float]


@dataclass(frozen=True)
class ExplainedDetection:
    """A detection, and how many candidates of its class it suppressed."""

    prediction: Prediction
    suppressed: int


@dataclass(frozen=True)
class ExplainedObject:
    """What became of an object.

    verdict: one sentence. detection: the index of the detection that has it, None if it was missed.
    prior: what the prior that overlaps the object most predicted; prior_overlap: by how much. best: of the
    predictions that overlap the object by `HIT`, the one that scores most for its class, or was kept; where
    there is none, the one that overlaps it most. overlap: by how much. by: what suppressed it, if something
    did.
    """

    sought: Sought
    verdict: str
    detection: int | None
    prior: Prediction
    prior_overlap: float
    best: Prediction
    overlap: float
    by: Prediction | None


@dataclass(frozen=True)
class Explanation:
    """The explanation of an image. size, input_size: (width, height), pixels.

    class_scores: what the scores of each class must exceed, for those where it is not `thresholds.score`.
    """

    model: str
    size: tuple[int, int]
    input_size: tuple[int, int]
    thresholds: Thresholds
    class_scores: dict[str, float]
    classes: tuple[str, ...]
    levels: tuple[LevelFacts, ...]
    detections: tuple[ExplainedDetection, ...]
    objects: tuple[ExplainedObject, ...]

    def found(self) -> Detections:
        """The detections, as `Detector` returns them."""
        rows = [one.prediction for one in self.detections]
        return Detections(
            np.array([row.box for row in rows], np.float32).reshape(-1, 4),
            np.array([row.score for row in rows], np.float32),
            np.array([self.classes.index(row.name) for row in rows], np.int64),
            self.classes,
        )


@torch.inference_mode()
def explain(detector: Detector, image: Image, sought: Sequence[Sought] = (), **settings: Any) -> Explanation:
    """Explain the detections in an image, and what became of the objects in it.

    image: (H, W, 3) uint8 RGB. settings: see `Thresholds`; score is 0.5 by default, or what the model keeps
    for each class (`Detector.class_scores`). Raises ConfigError for an exported file, which has no network to
    look into, for a head that does not tell its origins, and for objects that cannot be in the image.
    """
    network = detector.network
    origins = network.heads.origins()
    thresholds = detector.runner.defaults.replaced({"score": 0.5, **settings})
    own = {} if "score" in settings else detector.class_scores
    size = (image.shape[1], image.shape[0])
    for one in sought:
        _check(one, size, detector.classes)
    inputs = detector.warp([image]).to(network.device).float()
    candidates, without = look(network, inputs)
    limits = _Limits(thresholds, [own.get(name, thresholds.score) for name in detector.classes])
    trace = _Trace(detector.classes, detector.geometry, size, origins, candidates, without, limits)
    sources = network.neck.level_sources() or [()] * len(network.neck.cells)
    cells = [_cells_of(origins, level) for level, _ in enumerate(sources)]
    return Explanation(
        network.spec.name,
        size,
        detector.image_size,
        thresholds,
        own,
        detector.classes,
        tuple(LevelFacts(*row) for row in zip(cells, sources, strict=True)),
        tuple(trace.detections()),
        tuple(trace.find(one) for one in sought),
    )


def look(network: Network, inputs: Tensor) -> tuple[Candidates, dict[str, Floats]]:
    """The candidates of one input (1, 3, H, W), and the scores (P, C) without each source map.

    A map that goes into several levels is replaced for all of them.
    """
    features = network.backbone((inputs - network.mean) / network.std)
    plain = _arrays(network.heads.candidates(network.heads(network.neck(features)))[0])
    named = {name: None for sources in network.neck.level_sources() for name in sources}
    without = {}
    for name in named:
        replaced: list[str] = []
        hook = network.neck.merging().register_forward_pre_hook(_flatten_map(name, replaced))
        try:
            raw = network.heads(network.neck(features))
        finally:
            hook.remove()
        if replaced:
            without[name] = _arrays(network.heads.candidates(raw)[0]).scores
    return plain, without


def _flatten_map(name: str, replaced: list[str]) -> Callable[[Any, Any], Any]:
    """A hook that replaces a map by its mean over all cells, and then adds its name to `replaced`."""

    def replace_map(_: Any, arguments: Any) -> Any:
        features = dict(arguments[0])
        if name not in features:
            return None
        replaced.append(name)
        x = features[name]
        features[name] = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
        return (features, *arguments[1:])

    return replace_map


def _arrays(candidates: Candidates) -> Any:
    return Candidates(*(part.detach().float().cpu().numpy() for part in candidates))  # type: ignore[arg-type]


def _cells_of(origins: Origins, level: int) -> Cells:
    here = origins.level == level
    return int(origins.row[here].max()) + 1, int(origins.column[here].max()) + 1


def _check(sought: Sought, size: tuple[int, int], classes: tuple[str, ...]) -> None:
    x1, y1, x2, y2 = sought.box
    if not (0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1]):
        shown = ",".join(f"{value:g}" for value in sought.box)
        raise ConfigError(
            f"the box {shown} does not lie in the image of {size[0]} x {size[1]} pixels; give x1,y1,x2,y2"
        )
    if sought.name is not None and sought.name not in classes:
        raise ConfigError(f"the model has no class {sought.name!r}{nearest(sought.name, classes)}")


class _Limits(NamedTuple):
    """least: (C,), what the scores of each class must exceed, in place of the score of `thresholds`."""

    thresholds: Thresholds
    least: list[float]


class _Trace:
    """One image: its candidates, what became of them, and how they are told."""

    def __init__(
        self,
        classes: tuple[str, ...],
        geometry: Geometry,
        size: tuple[int, int],
        origins: Origins,
        candidates: Any,
        without: dict[str, Floats],
        limits: _Limits,
    ) -> None:
        self.classes, self.geometry, self.size = classes, geometry, size
        self.origins, self.without, self.limits = origins, without, limits
        self.boxes: Floats = candidates.boxes
        self.scores: Floats = candidates.scores
        self.shown: Floats = geometry.undo(self.boxes, size)  # in pixels of the image
        self.fates: Fates = trace_selection(self.boxes, self.scores, *limits)

    def detections(self) -> list[ExplainedDetection]:
        return [
            ExplainedDetection(self._predicted(claim), self.fates.suppressed_by(claim))
            for claim in self.fates.kept
        ]

    def find(self, sought: Sought) -> ExplainedObject:
        box = np.array([sought.box], np.float32)
        prior_overlaps = overlaps(self.geometry.apply_boxes(box, self.size), self.origins.priors)[0]
        prior = int(prior_overlaps.argmax())
        shares = overlaps(box, self.shown)[0]
        claim = self._best_claim(shares, None if sought.name is None else self.classes.index(sought.name))
        fate = self.fates.of(claim)
        hit = bool(shares[claim.candidate] >= HIT)
        detection = fate.rank if hit and fate.outcome == "kept" else None
        by = None if fate.by is None else self._predicted(fate.by)
        own = Claim(prior, int(self.scores[prior].argmax()) if sought.name is None else claim.label)
        made = ExplainedObject(
            sought,
            "",
            detection,
            self._predicted(own),
            float(prior_overlaps[prior]),
            self._predicted(claim),
            float(shares[claim.candidate]),
            by,
        )
        limit = self.limits.least[claim.label]
        told = verdict(made, hit, replace(self.limits.thresholds, score=limit))
        others = [rank for rank, kept in enumerate(self.fates.kept) if shares[kept.candidate] >= HIT]
        if detection is None and others:
            there = self._predicted(self.fates.kept[others[0]])
            told = f"{told}; detection {others[0] + 1}, {there.name} {there.score:.3f}, lies there instead"
        return replace(made, verdict=told)

    def _best_claim(self, shares: Floats, label: int | None) -> Claim:
        """The claim that stands for an object. shares: (P,) how much each candidate overlaps it."""
        hits = np.flatnonzero(shares >= HIT)
        kept = [claim for claim in self.fates.kept if label in (None, claim.label)]
        for claim in kept:  # best first
            if shares[claim.candidate] >= HIT:
                return claim
        pool = hits if len(hits) else np.array([shares.argmax()])
        scores = self.scores[pool] if label is None else self.scores[pool][:, [label]]
        row, column = np.unravel_index(int(scores.argmax()), scores.shape)
        return Claim(int(pool[row]), int(column) if label is None else label)

    def _predicted(self, claim: Claim) -> Prediction:
        index, label = claim
        scores, prior = self.scores[index], self.origins.priors[index]
        order = np.argsort(-scores, kind="stable")[:RUNNERS_UP]
        with np.errstate(all="ignore"):
            prior_iou = float(overlaps(self.boxes[index][None], prior[None])[0, 0])
        return Prediction(
            self.classes[label],
            float(scores[label]),
            _box(self.shown[index]),
            int(self.origins.level[index]),
            int(self.origins.row[index]),
            int(self.origins.column[index]),
            _box(self.geometry.undo(prior[None], self.size)[0]),
            (float(prior[2] - prior[0]), float(prior[3] - prior[1])),
            prior_iou,
            self.fates.of(claim),
            tuple((self.classes[other], float(scores[other])) for other in order),
            {name: float(part[index, label]) for name, part in self.without.items()},
        )


def verdict(found: ExplainedObject, hit: bool, thresholds: Thresholds) -> str:
    """One sentence on what became of an object.

    hit: whether `found.best` overlaps it by `HIT`. thresholds: with the score of its class.
    """
    best, fate = found.best, found.best.fate
    told = f"{best.name} {best.score:.3f}"
    if not hit:
        text = f"missed: no prediction overlaps it by {HIT:.2f}; the nearest, {told}, overlaps it by"
        return f"{text} {found.overlap:.2f}{_lack(found.prior_overlap)}"
    if fate.outcome == "kept":
        assert fate.rank is not None
        return f"found: detection {fate.rank + 1}, {told}, overlaps it by {found.overlap:.2f}"
    if fate.outcome == "score":
        limit = f"does not score more than {thresholds.score:g}"
        text = f"missed: its best prediction, {told}, {limit}; a lower --score shows it"
        return f"{text}{_lack(found.prior_overlap)}"
    if fate.outcome == "top_k":
        limit = _more(thresholds.top_k, "candidate", " of its class")
        return f"missed: its best prediction, {told}, is left out because {limit}; raise --top-k"
    if fate.outcome == "keep":
        limit = _more(thresholds.keep, "detection")
        return f"missed: its best prediction, {told}, is left out because {limit}; raise --keep"
    assert found.by is not None and fate.iou is not None
    rival = f"{found.by.name} {found.by.score:.3f}"
    return (
        f"missed: its best prediction, {told}, was suppressed by {rival}, which overlaps that by"
        f" {fate.iou:.2f}, more than {thresholds.nms:g}; a higher --nms keeps both"
    )


def _lack(prior_overlap: float) -> str:
    """What to say of priors that do not fit an object."""
    if prior_overlap >= HIT:
        return ""
    lack = f"no prior fits it by {HIT:.2f} (best overlap {prior_overlap:.2f})"
    return f"; {lack}: try --priors fit or a larger --size in training"


def _more(count: int, noun: str, of: str = "") -> str:
    return f"one {noun}{of} scores more" if count == 1 else f"{count} {noun}s{of} score more"


def _box(row: Floats) -> Box:
    x1, y1, x2, y2 = (float(value) for value in row)
    return x1, y1, x2, y2

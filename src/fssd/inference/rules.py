"""Which detections of an image are kept, beyond the thresholds of a head: by class, over classes, softly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch

from fssd.boxes import suppress
from fssd.config.bounds import Share, check_number
from fssd.data.geometry import Size
from fssd.data.tiles import Window
from fssd.errors import ConfigError
from fssd.heads.head import Thresholds
from fssd.inference.detections import Detections, class_labels
from fssd.inference.image_pyramid import merge
from fssd.inference.seams import merge_tiles
from fssd.runtimes.runner import within

Soft = Literal["linear", "gaussian"]
Floats = npt.NDArray[np.float32]
SIGMA = 0.5  # of the Gaussian decay (Bodla et al. 2017, 5)


class Rules(NamedTuple):
    """thresholds: what is wanted in the end. asked: the thresholds that a head or file is asked for before.

    least: (C,) float64, each class keeps scores above it, infinite for those that are left out; None if
    `thresholds` say it all. agnostic: NMS over all classes together. soft: lower scores instead of dropping.
    """

    thresholds: Thresholds
    asked: dict[str, Any]
    least: npt.NDArray[np.float64] | None = None
    agnostic: bool = False
    soft: Soft | None = None

    def choose(self, parts: Sequence[Detections]) -> Detections:
        """The detections of one image from those of one or more views of it, best first."""
        if not (self.agnostic or self.soft):
            return self._cut(merge(parts, replace(self.thresholds, keep=self.asked["keep"])))
        boxes, scores, labels = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "labels")
        )
        order = np.argsort(-scores, kind="stable")
        if self.least is not None:  # before NMS: what is not wanted must not suppress what is
            order = order[scores[order] > self.least[labels[order]]]
        boxes, scores, labels = boxes[order], scores[order], labels[order]
        groups = np.zeros_like(labels) if self.agnostic else labels
        for group in np.unique(groups):
            rows = np.flatnonzero(groups == group)
            if self.soft:
                least = self.asked["score"]
                scores[rows] = soft_scores(boxes[rows], scores[rows], self.soft, self.thresholds.nms, least)
            else:
                scores[rows[~suppress(torch.from_numpy(boxes[rows]), self.thresholds.nms).numpy()]] = -1
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > self.asked["score"]]
        return self._cut(replace(parts[0], boxes=boxes[order], scores=scores[order], labels=labels[order]))

    def choose_tiles(
        self, windows: Sequence[Window], parts: Sequence[Sequence[Detections]], image_size: Size
    ) -> Detections:
        """The detections of one image from those of the views of each of its tiles, best first.

        Soft-NMS acts within a tile; over the seams boxes of one object are always merged.
        """
        chosen = [self.choose(views) for views in parts]
        if len(chosen) == 1:
            return chosen[0]
        merged = merge_tiles(windows, chosen, image_size, self.thresholds.nms, self.agnostic)
        return merged[: self.thresholds.keep]

    def _cut(self, found: Detections) -> Detections:
        if self.least is not None:
            found = found[found.scores > self.least[found.labels]]
        return found if len(found) <= self.thresholds.keep else found[: self.thresholds.keep]


def read_rules(
    settings: Mapping[str, Any], classes: Sequence[str], defaults: Thresholds, inside: Thresholds | None
) -> Rules:
    """The rules of settings: those of `Thresholds`, whose score may be a mapping of names, and `classes`
    (names to keep), `class_scores` (a mapping beside a score for all others), `agnostic`, `soft`.

    classes: of the model. inside: the thresholds of a file with NMS inside. Classes that a mapping does not
    name take the score for all, else that of `defaults`. Raises ConfigError, TypeError for an unknown
    setting.
    """
    plain = dict(settings)
    kept, agnostic, soft = plain.pop("classes", None), plain.pop("agnostic", False), plain.pop("soft", None)
    if not isinstance(agnostic, (bool, np.bool_)):
        raise ConfigError(f"agnostic is {agnostic!r}; it must be True or False")
    agnostic = bool(agnostic)
    if soft is not None and soft not in get_args(Soft):
        raise ConfigError(f"soft is {soft!r}; it must be one of {', '.join(get_args(Soft))}, or None")
    by_class = plain.pop("class_scores", None)
    if isinstance(plain.get("score"), Mapping):
        if by_class is not None:
            raise ConfigError("score and class_scores both map classes; give one mapping")
        by_class = plain.pop("score")
    if by_class is not None and not isinstance(by_class, Mapping):
        raise ConfigError(f"class_scores is {by_class!r}; it must map names of classes to numbers")
    thresholds = defaults.replaced(plain)
    if kept is None and not by_class and not agnostic and soft is None:
        _refuse_more(inside, vars(thresholds), agnostic, soft)
        return Rules(thresholds, {**vars(thresholds)})
    least = np.full(len(classes), thresholds.score, np.float64)
    for name, value in (by_class or {}).items():
        check_number(f"score of {name!r}", value, Share)
        least[class_labels([name], classes)] = value
    if kept is not None:
        labels = class_labels(kept, classes)
        if not labels:
            raise ConfigError("classes is an empty list, which keeps nothing; name at least one class")
        least[np.setdiff1d(np.arange(len(classes)), labels)] = np.inf
    asked = {**vars(thresholds), "score": float(least.min())}
    _refuse_more(inside, asked, agnostic, soft)
    asked["keep"] = len(classes) * thresholds.top_k if inside is None else inside.keep
    if agnostic or soft:
        asked["nms"] = 1.0  # every candidate: what NMS within a class drops may survive NMS over classes
    return Rules(thresholds, asked, least, agnostic, soft)


def _refuse_more(
    inside: Thresholds | None, asked: Mapping[str, Any], agnostic: bool, soft: Soft | None
) -> None:
    """Raise ConfigError for what a file with NMS inside has dropped already."""
    if inside is None:
        return
    if agnostic or soft:
        name = "agnostic" if agnostic else "soft"
        raise ConfigError(f"this file has NMS inside, which leaves nothing to {name}; export it with --raw")
    within(inside, asked)


def soft_scores(boxes: Floats, scores: Floats, kind: Soft, nms: float, least: float) -> Floats:
    """Soft-NMS (Bodla et al. 2017): each box lowers the scores of the worse ones by how far it overlaps them.

    boxes: (N, 4) xyxy. scores: (N,). kind: "linear" multiplies by 1 - IoU where that exceeds `nms`,
    "gaussian" by exp(-IoU^2 / 0.5). Boxes that score no more than `least` lower no others. Returns (N,).
    """
    scores, left = scores.copy(), np.ones(len(scores), bool)
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    while left.any():
        best = int(np.where(left, scores, -1).argmax())
        if scores[best] <= least:
            break
        left[best] = False
        low, high = np.maximum(boxes[:, :2], boxes[best, :2]), np.minimum(boxes[:, 2:], boxes[best, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        overlap = shared / np.maximum(area + area[best] - shared, np.finfo(np.float32).tiny)
        factor = (
            np.where(overlap > nms, 1 - overlap, 1) if kind == "linear" else np.exp(-(overlap**2) / SIGMA)
        )
        scores[left] *= factor[left]
    return scores

"""The detections of an image from those of its tiles.

Two tiles see one object differently where a seam cuts it, but they agree on what both of them see. So boxes
of two tiles are one object if they overlap within the part of the image that both tiles show: then a cut box
joins the whole one, and the pieces of an object that no tile holds become its whole box. Overlap of the
boxes themselves, or over the smaller box, would keep such pieces apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fssd.boxes import areas, intersections
from fssd.data.geometry import Size
from fssd.data.tiles import Window
from fssd.inference.detections import Detections

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]

NEAR = 0.02  # share of a tile's side: a box that ends so close to a seam is cut by it
CUT = 0.5  # what the score of a cut box counts beside that of a whole one, and least share in a hull
COVERED = 0.8  # share of a cut box that a box of the same class covers, above which it is a part of that


def merge_tiles(
    windows: Sequence[Window],
    parts: Sequence[Detections],
    image_size: Size,
    overlap: float,
    agnostic: bool = False,
) -> Detections:
    """All detections of an image, best first.

    windows: the tiles, and perhaps the whole image. parts: what was found in each, in pixels of the tile;
    a single one that is the image is returned as it is. overlap: IoU above which two boxes are one object.
    agnostic: whether also boxes of two classes can be one.

    Boxes that a seam cuts, and boxes of the whole image, are left to the tile that shows them whole. Of the
    others that are one object the best stays, where a cut box counts half; if that is cut, the hull of it
    and of all that score at least half as much. It takes the best score.
    """
    if len(parts) == 1:
        return parts[0]
    shifts = np.array([window[:2] * 2 for window in windows], np.float32)
    counts = [len(part) for part in parts]
    tile = np.repeat(np.arange(len(parts)), counts)
    boxes, scores, labels = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "labels")
    )
    seen = _Seen(np.array(windows, np.float32), image_size, boxes + shifts[tile], tile)
    order = np.flatnonzero(~seen.elsewhere())
    rank = scores * np.where(seen.cut, np.float32(CUT), np.float32(1))
    order = order[np.argsort(-rank[order], kind="stable")]
    groups = np.zeros_like(labels) if agnostic else labels
    kept: list[tuple[int, Floats, np.float32]] = []
    for group in np.unique(groups[order]):
        objects = _objects(seen, order[groups[order] == group], overlap)
        own = [(rows, _hull(seen, rows, scores)) for rows in objects]
        kept += [(int(rows[0]), box, scores[rows].max()) for rows, box in _uncovered(seen, own)]
    kept.sort(key=lambda row: (-row[2], row[0]))
    rows = np.array([row for row, _, _ in kept], np.intp)
    return replace(
        parts[0],
        boxes=np.array([box for _, box, _ in kept], np.float32).reshape(-1, 4),
        scores=np.array([score for _, _, score in kept], np.float32),
        labels=labels[rows],
    )


class _Seen:
    """Boxes and the tiles they are from.

    windows: (T, 4) of tiles. boxes: (N, 4), both in pixels of the image. tile: (N,) index of each box's tile.
    cut: (N,) whether a seam cuts it.
    """

    def __init__(self, windows: Floats, image_size: Size, boxes: Floats, tile: Rows) -> None:
        self.windows, self.boxes, self.tile = windows, boxes, tile
        near = NEAR * np.tile(windows[:, 2:] - windows[:, :2], 2)  # (T, 4)
        at_border = np.concatenate((windows[:, :2] <= 0, windows[:, 2:] >= np.array(image_size)), axis=1)
        # Tiles without the strip along their seams, in which a box counts as cut.
        margin = np.where(at_border, -np.inf, near) * np.array([1, 1, -1, -1])
        self.inner = (windows + margin).astype(np.float32)
        self.cut = ~_inside(boxes, self.inner[tile])

    def elsewhere(self) -> npt.NDArray[np.bool_]:
        """(N,) boxes that another tile shows whole, and that are cut or of a larger tile."""
        size = areas(self.windows)
        drop = np.zeros(len(self.boxes), bool)
        for index, inner in enumerate(self.inner):
            larger, other = size[self.tile] > size[index], self.tile != index
            drop |= (
                other & (larger | self.cut & (size[self.tile] == size[index])) & _inside(self.boxes, inner)
            )
        return drop

    def one_object(self, row: int, others: Rows, overlap: float) -> npt.NDArray[np.bool_]:
        """(M,) which of the boxes `others` (M,) show the object of the box `row`."""
        mine, boxes = self.boxes[row], self.boxes[others]
        shared = _clipped(self.windows[self.tile[others]], self.windows[self.tile[row]])
        part, parts = _clipped(mine, shared), _clipped(boxes, shared)
        cut = self.cut[row] | self.cut[others]
        one = np.where(cut[:, None], part, mine)
        other = np.where(cut[:, None], parts, boxes)
        low, high = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
        both = np.prod(np.maximum(high - low, 0), axis=1)
        union = areas(one) + areas(other) - both
        return np.asarray((both > overlap * union) & (self.tile[others] != self.tile[row]))


def _inside(boxes: Floats, windows: Floats) -> npt.NDArray[np.bool_]:
    low = (boxes[:, :2] >= windows[..., :2]).all(axis=1)
    return np.asarray(low & (boxes[:, 2:] <= windows[..., 2:]).all(axis=1))


def _clipped(boxes: Floats, limits: Floats) -> Floats:
    low = np.maximum(boxes[..., :2], limits[..., :2])
    high = np.minimum(boxes[..., 2:], limits[..., 2:])
    return np.asarray(np.concatenate((low, high), axis=-1), np.float32)


def _objects(seen: _Seen, left: Rows, overlap: float) -> list[Rows]:
    """The boxes of each object, that which leads first; `left`: boxes of a class, those that lead first."""
    objects = []
    while len(left):
        rows, left = [left[:1]], left[1:]
        waiting = [int(rows[0][0])]
        while waiting and len(left):
            same = seen.one_object(waiting.pop(), left, overlap)
            rows.append(left[same])
            # A cut box may be the piece between two others; of whole boxes only the leading one has a say.
            waiting += [int(row) for row in left[same] if seen.cut[row]]
            left = left[~same]
        objects.append(np.concatenate(rows))
    return objects


def _hull(seen: _Seen, rows: Rows, scores: Floats) -> Floats:
    """The box of an object from its boxes, of which the first leads."""
    if not seen.cut[rows[0]]:
        return np.asarray(seen.boxes[rows[0]])
    boxes = seen.boxes[rows[scores[rows] >= CUT * scores[rows[0]]]]
    return np.asarray(np.concatenate((boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0))))


def _uncovered(seen: _Seen, objects: list[tuple[Rows, Floats]]) -> list[tuple[Rows, Floats]]:
    """The objects of a class without cut ones that lie in a larger one."""
    pieces = [index for index, (rows, _) in enumerate(objects) if seen.cut[rows[0]]]
    if not pieces:
        return objects
    hulls = np.stack([hull for _, hull in objects])
    size = areas(hulls)
    inside = intersections(hulls[pieces], hulls) > COVERED * size[pieces, None]
    covered = np.flatnonzero((inside & (size > size[pieces, None])).any(axis=1))
    gone = {pieces[index] for index in covered}
    return [one for index, one in enumerate(objects) if index not in gone]

"""Box mathematics: IoU, the centre-size coder, and greedy NMS.

A box is (x1, y1, x2, y2) in pixels, unless the name of a function says otherwise. Most functions take
tensors; `areas`, `intersections` and `overlaps` take arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[Any]  # of floats

VARIANCES = (0.1, 0.1, 0.2, 0.2)
"""Divisors of the (cx, cy, w, h) offsets in the coder, as in the prior boxes of Caffe SSD."""


def to_center_size(boxes: Tensor) -> Tensor:
    """(..., 4) corners (x1, y1, x2, y2) to (..., 4) centre-size (cx, cy, w, h), same unit."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def area(boxes: Tensor) -> Tensor:
    """(..., 4) corners to (...) areas; an inverted box has area 0."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of all boxes of `a` (..., N, 4) with all of `b` (..., M, 4): (..., N, M); 0 for an empty union."""
    low = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    high = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    side = (high - low).clamp(min=0)
    shared = side[..., 0] * side[..., 1]
    union = area(a)[..., :, None] + area(b)[..., None, :] - shared
    return torch.where(union > 0, shared / union.clamp(min=torch.finfo(union.dtype).tiny), 0.0)


def areas(boxes: Floats) -> Floats:
    """(..., 4) corners to (...); an inverted box has area 0."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def intersections(a: Floats, b: Floats) -> Floats:
    """The area that every box of `a` (..., N, 4) shares with every box of `b` (M, 4): (..., N, M)."""
    x1, y1, x2, y2 = np.moveaxis(a[..., None, :], -1, 0)  # (..., N, 1); faster than rows of four
    left, top, right, bottom = b.T
    width = np.maximum(np.minimum(x2, right) - np.maximum(x1, left), 0)
    return np.asarray(width * np.maximum(np.minimum(y2, bottom) - np.maximum(y1, top), 0))


def overlaps(a: Floats, b: Floats) -> Floats:
    """`iou` of arrays: (..., N, 4) and (M, 4) to (..., N, M)."""
    shared = intersections(a, b)
    union = areas(a)[..., None] + areas(b) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def encode(boxes: Tensor, priors: Tensor) -> Tensor:
    """Offsets (..., 4) that turn `priors` into `boxes`, both (..., 4) corners in one unit.

    ((cx - cx_p) / w_p, (cy - cy_p) / h_p, log(w / w_p), log(h / h_p)) / VARIANCES, SSD eq. 2.
    The result does not depend on the unit. Boxes need positive width and height.
    """
    box, prior = to_center_size(boxes), to_center_size(priors)
    shift = (box[..., :2] - prior[..., :2]) / prior[..., 2:]
    scale = torch.log(box[..., 2:] / prior[..., 2:])
    return torch.cat((shift, scale), dim=-1) / boxes.new_tensor(VARIANCES)


def decode(offsets: Tensor, priors: Tensor) -> Tensor:
    """Boxes (..., 4) corners from `offsets` (..., 4) and `priors` (P, 4): the inverse of `encode`."""
    # One row for each coordinate, because operations on long rows are faster than on many short ones.
    low, high = priors.mT.contiguous().chunk(2, dim=-2)  # (2, P)
    scaled = offsets * offsets.new_tensor(VARIANCES)
    shift, growth = scaled.mT.contiguous().chunk(2, dim=-2)  # (..., 2, P)
    size = high - low
    center = (low + high) / 2 + shift * size
    half = size * torch.exp(growth) / 2
    return torch.cat((center - half, center + half), dim=-2).mT


def suppress(boxes: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression of boxes sorted by descending score: (..., K, 4) to (..., K) bool keep.

    A box is dropped if an earlier *kept* box overlaps it by IoU > `threshold` (Caffe keeps equality).
    Leading dimensions (classes, images) are independent. Padding boxes of area 0 suppress nothing.
    It runs on the device of the boxes, in float32 or more, with the same result on each; sets of more than
    2,048 boxes go to the CPU.
    """
    if not boxes.numel():
        return boxes.new_ones(boxes.shape[:-1], dtype=torch.bool)
    if boxes.device.type != "cpu" and boxes.shape[-2] <= MOST_ON_DEVICE:
        return suppress_together(boxes, threshold)
    single = boxes.detach().to("cpu", torch.promote_types(boxes.dtype, torch.float32)).numpy()
    sets = single.reshape(-1, *boxes.shape[-2:])
    space = torch.from_numpy(np.empty((4, max(PAIRS, sets.shape[1])), sets.dtype))
    with np.errstate(all="ignore"):  # boxes may be infinite or nan
        keep = np.stack([_suppress_set(one, threshold, space) for one in sets])
    return torch.from_numpy(keep.reshape(boxes.shape[:-1])).to(boxes.device)


PAIRS = 32768
"""How many pairs of boxes are compared at once. Torch would split more of them among its threads, and these
would then spin on cores that the network needs."""
FEW = 8192
"""Up to so many pairs numpy is faster than torch, because its calls have less overhead."""


MOST_ON_DEVICE = 2048  # boxes of a set: all its pairs are in memory at once, 4 million
DEVICE_PAIRS = 2**24  # pairs that a device compares at once, 64 MB for each of about five numbers
ROUNDS = 4  # between two questions whether the result is final, each of which waits for the device


def suppress_together(boxes: Tensor, threshold: float) -> Tensor:
    """`suppress` in PyTorch, for a device on which many sets at once are faster than one after the other.

    A box is kept if no kept box before it overlaps it. This is applied to all boxes at once until nothing
    changes: after n rounds the first n boxes of a set are final, and usually all are after a few.
    """
    exact = boxes.detach().to(torch.promote_types(boxes.dtype, torch.float32))
    sets = exact.reshape(-1, *boxes.shape[-2:])
    parts = torch.split(sets, max(1, DEVICE_PAIRS // sets.shape[1] ** 2))
    return torch.cat([_suppress_sets(part, threshold) for part in parts]).reshape(boxes.shape[:-1])


def _suppress_sets(boxes: Tensor, threshold: float) -> Tensor:
    """`suppress` of (N, K, 4) to (N, K)."""
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    # The formulas of `_few_overlaps`, step by step, so that both round equally. A box without area, or with
    # an infinite one, overlaps nothing: the comparison below is then False.
    size = (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)
    width = torch.minimum(x2[:, :, None], x2[:, None]) - torch.maximum(x1[:, :, None], x1[:, None])
    height = torch.minimum(y2[:, :, None], y2[:, None]) - torch.maximum(y1[:, :, None], y1[:, None])
    shared = width * height.clamp_(min=0)
    overlap = shared / (size[:, :, None] + size[:, None] - shared)
    rivals = (overlap > threshold).triu_(1)  # row i: the later boxes that i suppresses if it is kept
    keep = torch.ones_like(x1, dtype=torch.bool)
    while True:
        before = keep
        for _ in range(ROUNDS):
            before, keep = keep, ~(rivals & keep[:, :, None]).any(dim=1)
        if torch.equal(before, keep):
            return keep


def _suppress_set(boxes: Floats, threshold: float, space: Tensor) -> npt.NDArray[np.bool_]:
    """`suppress` of one set, (K, 4) to (K,): blocks of the best remaining boxes against all that remain."""
    # Rows: right, bottom, -left, -top, area. The side of an overlap is then the sum of two minima.
    planes = np.empty((5, len(boxes)), boxes.dtype)
    np.copyto(planes[:2], boxes[:, 2:].T)
    np.negative(boxes[:, :2].T, out=planes[2:4])
    width, height = np.maximum(planes[:2] + planes[2:4], 0)
    np.multiply(width, height, out=planes[4])
    keep: npt.NDArray[np.bool_] = ~(planes[4] > 0)  # boxes without area overlap nothing
    left = np.flatnonzero(~keep)
    planes = planes.take(left, axis=1)
    while len(left):
        count = min(len(left), max(1, PAIRS // len(left)))
        overlaps = _overlaps if count * len(left) > FEW else _few_overlaps
        rivals = overlaps(planes[:, :count], planes, space) > threshold  # (count, left)
        kept = _in_turn(rivals[:, :count])
        keep[left[:count][kept]] = True
        later = np.flatnonzero(~rivals[kept, count:].any(axis=0)) + count
        left, planes = left[later], planes.take(later, axis=1)
    return keep


def _few_overlaps(some: Floats, every: Floats, _: Tensor) -> Floats:
    """`iou`, bit for bit, of boxes with areas: planes (5, N), (5, M) to (N, M); below 0 where disjoint."""
    ends = np.minimum(some[:4, :, None], every[:4, None])
    width, height = ends[:2] + ends[2:]
    shared = width * np.maximum(height, 0)
    overlaps: Floats = shared / (some[4][:, None] + every[4] - shared)
    return overlaps


def _overlaps(some: Floats, every: Floats, space: Tensor) -> Floats:
    """`_few_overlaps` in the given memory `space` (4, N * M or more): allocation would take longer than the
    arithmetic.
    """
    shape = some.shape[1], every.shape[1]
    right, bottom, left, top = space[:, : shape[0] * shape[1]].view(4, *shape).unbind()
    own, other = torch.from_numpy(some)[:, :, None].unbind(), torch.from_numpy(every).unbind()
    torch.minimum(own[0], other[0], out=right)
    torch.minimum(own[1], other[1], out=bottom)
    torch.minimum(own[2], other[2], out=left)
    torch.minimum(own[3], other[3], out=top)
    shared = right.add_(left).mul_(bottom.add_(top).relu_())
    union = torch.add(own[4], other[4], out=bottom).sub_(shared)
    overlaps: Floats = shared.div_(union).numpy()
    return overlaps


def _in_turn(rivals: npt.NDArray[np.bool_]) -> slice | npt.NDArray[np.intp]:
    """Which of N boxes are kept, best first; rivals: (N, N), pairs of boxes that cannot both be kept.

    Each row becomes an int whose bits are the boxes that its box suppresses, because int bit operations are
    the fastest way to run this sequential loop in Python.
    """
    if np.count_nonzero(rivals) == np.count_nonzero(rivals.diagonal()):
        return slice(len(rivals))
    bits = np.packbits(rivals, axis=1, bitorder="little")
    kept: list[int] = []
    dropped = 0
    for box, row in enumerate(bits.view(f"V{bits.shape[1]}")[:, 0].tolist()):
        if not dropped >> box & 1:
            kept.append(box)
            dropped |= int.from_bytes(row, "little")
    return np.array(kept)

"""From raw predictions to detections on one thread: ours, the plain way, and ONNX Runtime's operator.

    python benchmarks/nms.py --repeats 50

The worst case: 8,732 priors, 20 classes, and in each of them 400 candidates for NMS. Each side does the whole
way: softmax, decoding, the best 400 of each class, greedy NMS within the class, the best 200 of all. Scores
are "scattered", so that most candidates stay, or "crowded" around one place of each class, so that more go.
First, with everything kept, all three have to find the same, else the script fails.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fssd.bench.machine import write_figures
from fssd.bench.measure import use_threads
from fssd.bench.timing import line, milliseconds, ratio, spread, take_turns
from fssd.boxes import VARIANCES, to_center_size
from fssd.heads.head import Thresholds
from fssd.heads.multibox.detect import detect
from fssd.heads.multibox.raw import Raw
from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.runtimes.packages import require
from fssd.runtimes.runtime import append_tail

CLASSES = 20
SETTINGS = Thresholds()
EVERYTHING = Thresholds(keep=CLASSES * SETTINGS.top_k)
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]  # boxes (N, 4), scores (N,), labels (N,)

IDENTITY = """
<ir_version: 10, opset_import: ["": 18]>
body (float[batch, {priors}, 4] a, float[batch, {priors}, {columns}] b) =>
     (float[batch, {priors}, 4] offsets, float[batch, {priors}, {columns}] logits)
{{ offsets = Identity(a) logits = Identity(b) }}
"""


def main() -> None:
    args = _arguments()
    use_threads(1)
    network = build_model("fssd300-lite", CLASSES, priors="voc")
    figures: dict[str, Any] = {}
    for case in ("scattered", "crowded"):
        raw = make_raw(network, case)
        sides: dict[str, Callable[[], Arrays]] = {
            "fssd": partial(ours, raw, network, SETTINGS),
            "plain": partial(plain, raw, network, SETTINGS),
            "onnxruntime": operator(raw, network, SETTINGS),
        }
        found = ours(raw, network, EVERYTHING)
        require_same(found, plain(raw, network, EVERYTHING), f"{case}: fssd and plain")
        require_same(found, operator(raw, network, EVERYTHING)(), f"{case}: fssd and onnxruntime")
        times = take_turns(dict(sides), args.repeats)
        figures[case] = {
            "kept": len(found[1]),
            "milliseconds": {name: milliseconds(spread(taken)) for name, taken in times.items()},
            "plain_over_fssd": ratio(times["plain"], times["fssd"]),
            "onnxruntime_over_fssd": ratio(times["onnxruntime"], times["fssd"]),
        }
        _print(case, figures[case])
    write_figures(args.json, {"threads": 1, "cases": figures}, threads=1)


def make_raw(network: Network, case: str, seed: int = 0) -> Raw:
    """Predictions with 400 candidates or more in each class."""
    rng = torch.Generator().manual_seed(seed)
    count = len(network.heads.priors)
    offsets = torch.randn(1, count, 4, generator=rng)
    logits = torch.randn(1, count, CLASSES + 1, generator=rng)
    if case == "crowded":
        place = torch.rand(CLASSES, 1, 2, generator=rng) * torch.tensor(network.image_size)
        centers = to_center_size(network.heads.priors)[None, :, :2]
        distance = (centers - place).norm(dim=-1).T  # (P, C)
        logits[0, :, 1:] += 4 * torch.exp(-distance / 40)
    scores = logits.softmax(dim=-1)[0, :, 1:]
    assert int((scores > SETTINGS.score).sum(dim=0).min()) >= SETTINGS.top_k
    return Raw(offsets, logits)


def ours(raw: Raw, network: Network, settings: Thresholds) -> Arrays:
    (found,) = detect(raw, network.heads.priors, **vars(settings))
    return found.boxes.numpy(), found.scores.numpy(), found.labels.numpy()


def plain(raw: Raw, network: Network, settings: Thresholds) -> Arrays:
    """Class after class, box after box, in numpy."""
    offsets, logits = raw.offsets[0].numpy(), raw.logits[0].numpy()
    prior = to_center_size(network.heads.priors).numpy()
    scaled = offsets * np.array(VARIANCES, np.float32)
    center = prior[:, :2] + scaled[:, :2] * prior[:, 2:]
    half = prior[:, 2:] * np.exp(scaled[:, 2:]) / 2
    boxes = np.concatenate([center - half, center + half], axis=1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = powers / powers.sum(axis=1, keepdims=True)
    rows: list[tuple[int, int]] = []
    for label in range(CLASSES):
        own = scores[:, label + 1]
        candidates = np.flatnonzero(own > settings.score)
        candidates = candidates[np.argsort(-own[candidates], kind="stable")][: settings.top_k]
        rows += [(label, int(row)) for row in candidates[greedy(boxes[candidates], settings.nms)]]
    labels, places = np.array(rows, np.int64).T
    best = scores[places, labels + 1]
    order = np.argsort(-best, kind="stable")[: settings.keep]
    return boxes[places[order]], best[order], labels[order]


def greedy(boxes: np.ndarray, threshold: float) -> np.ndarray:
    """Which of boxes (N, 4), best first, greedy NMS keeps."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    left = np.arange(len(boxes))
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[left, :2])
        high = np.minimum(boxes[best, 2:], boxes[left, 2:])
        shared = np.maximum(high - low, 0).prod(axis=1)
        left = left[shared / (areas[best] + areas[left] - shared) <= threshold]
    return np.array(kept)


def operator(raw: Raw, network: Network, settings: Thresholds) -> Callable[[], Arrays]:
    """The end of a graph that `fssd export --nms` writes, in ONNX Runtime on one thread."""
    onnx, runtime = require("onnx", "export"), require("onnxruntime", "export")
    text = IDENTITY.format(priors=len(network.heads.priors), columns=CLASSES + 1)
    body = onnx.parser.parse_model(text)
    tail = network.heads.nms_graph(settings, body.opset_import[0].version, body.ir_version)
    model = append_tail(body, tail)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {"a": raw.offsets.numpy(), "b": raw.logits.numpy()}

    def run() -> Arrays:
        boxes, scores, labels, count = session.run(None, inputs)
        number = int(count[0])
        return boxes[0, :number], scores[0, :number], labels[0, :number]

    return run


def require_same(one: Arrays, other: Arrays, what: str) -> None:
    """End the script unless both have the same detections, but for rounding and the order of ties."""
    for label in range(CLASSES):
        boxes, others = one[0][one[2] == label], other[0][other[2] == label]
        scores, other_scores = one[1][one[2] == label], other[1][other[2] == label]
        near = np.abs(boxes[:, None] - others[None]).max(axis=2) < 1e-2  # pixels
        near &= np.abs(scores[:, None] - other_scores[None]) < 1e-6
        if not ((near.sum(axis=0) == 1).all() and (near.sum(axis=1) == 1).all()):
            raise SystemExit(f"{what} do not find the same in class {label}")


def _print(case: str, figures: dict[str, Any]) -> None:
    candidates = CLASSES * SETTINGS.top_k
    print(f"{case}: {figures['kept']} of {candidates} candidates stay, the same on all sides")
    for name, figure in figures["milliseconds"].items():
        print(line(f"  {name}", figure, "ms"))
    for name in ("plain", "onnxruntime"):
        print(line(f"  {name} / fssd", figures[f"{name}_over_fssd"], "times"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=50, help="turns that count")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

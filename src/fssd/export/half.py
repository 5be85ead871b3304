"""A model file of about half the size, to be passed on: weights in half precision, no local paths."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from fssd.atomic import atomic_path
from fssd.errors import ExportError
from fssd.export.facts import portable
from fssd.export.parity import Parity, Tolerance
from fssd.export.verify import check
from fssd.export.write import check_suffix
from fssd.inference.detector import Detector
from fssd.runtimes.runner import NetworkRunner
from fssd.weights.checkpoint import load_model, save_model

# A halved weight keeps 11 bits, which moves a trained model's boxes by up to 0.3 px and its scores by 0.005;
# a third of a pixel on each side of a box of 21 px, the least prior, moves an overlap by 0.03.
HALVED = Tolerance(box=0.5, score=0.01, overlap=0.03, tie=0.01)


def export_half(detector: Detector, out: Path, images: Tensor | None = None) -> Parity:
    """Write `out`, a .safetensors file, if the model read back from it finds what `detector` finds.

    Loading widens the weights to float32 again, so the file is smaller, not quicker.
    images: (N, 3, H, W) uint8 RGB to compare on; made ones are added if they are few.

    Raises ExportError if the file fails, ConfigError for another suffix; `out` then stays as it was.
    """
    check_suffix(out, ".safetensors")
    network = deepcopy(detector.network).to("cpu")
    facts = {**portable(detector.facts), "precision": "fp16"}
    with atomic_path(out) as temporary:
        save_model(temporary, halved(network.state_dict()), network, detector.classes, facts)
        backbone = deepcopy(network.backbone) if network.spec.own_backbone else None
        return check(network, NetworkRunner(load_model(temporary, backbone).network), None, images, HALVED)


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that mix channels in half precision; they are nine tenths of the bytes or more.

    Biases and normalisation stay as they are, for a variance can leave the range of half precision, and so do
    depthwise convolutions: they have too few weights a channel for rounding to average out, and halving them
    moves boxes eight times as far as halving all the others. Raises ExportError for a weight out of range.
    """
    small: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        mixes = tensor.is_floating_point() and tensor.ndim > 1 and tensor.shape[1] > 1
        small[name] = tensor.half() if mixes else tensor
        if not bool(torch.isfinite(small[name]).all()):
            raise ExportError(
                f"{name!r} has a weight of {tensor.abs().max():.3g}, which half precision cannot hold, so"
                " nothing was written; export to onnx instead"
            )
    return small

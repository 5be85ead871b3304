"""A model file of about half the size, to pass on: weights in half precision, no local paths."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from fssd.atomic import atomic_path
from fssd.errors import ExportError
from fssd.export.parity import HALVED, Parity, check
from fssd.export.write import check_suffix, portable
from fssd.inference.detector import Detector
from fssd.runtimes.runner import NetworkRunner
from fssd.weights.checkpoint import load_model, save_model

FEW = 96  # values in a sum


def export_half(detector: Detector, out: Path, images: Tensor | None = None) -> Parity:
    """Write `out`, a .safetensors file, if the model loaded from it gives the detections of `detector`.

    images: (N, 3, H, W) uint8 RGB to compare on; synthetic ones are added to a small number.
    Raises ExportError if the file fails, ConfigError for another suffix. `out` is then left as it was.
    """
    check_suffix(out, ".safetensors")
    network = deepcopy(detector.network).to("cpu")
    facts = {**portable(detector.facts), "precision": "fp16"}
    with atomic_path(out) as temporary:
        save_model(temporary, halved(network.state_dict()), network, detector.classes, facts)
        backbone = deepcopy(network.backbone) if network.spec.own_backbone else None
        return check(network, NetworkRunner(load_model(temporary, backbone).network), None, images, HALVED)


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of sums over more than `FEW` values in half precision; they are nine tenths of the bytes.

    Biases and normalisation stay in float32, because a variance can exceed the range of half precision. So do
    depthwise convolutions and those of the first layers: their sums are too short for rounding errors to
    average out. Halving depthwise ones moves boxes eight times as far as halving all the others, and the
    first pointwise ones three times as far. Raises ExportError for a weight out of range.
    """
    small: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        is_long = tensor.is_floating_point() and tensor.ndim > 1 and tensor[0].numel() > FEW
        small[name] = tensor.half() if is_long else tensor
        if not bool(torch.isfinite(small[name]).all()):
            raise ExportError(
                f"{name!r} has a weight of {tensor.abs().max():.3g}, which half precision cannot hold, so"
                " nothing was written; export to onnx instead"
            )
    return small

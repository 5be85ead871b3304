"""Networks to export, traced once: that takes ten times as long as all else about a small export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fssd.export.graph import trace
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.model.network import Network

CLASSES = ("eight", "five", "zero")  # three of the digit scenes


def outspoken(network: Network) -> Network:
    """The network with class scores that differ from prior to prior, as after training."""
    generator = torch.Generator().manual_seed(7)
    for head in network.heads.conf:
        last = head[-1] if isinstance(head, nn.Sequential) else head
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        last.weight.data.mul_(4)
        last.bias.data.normal_(0, 1, generator=generator)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.running_mean is not None
        norm.running_mean.uniform_(-0.2, 0.2, generator=generator)
        if norm.affine and not norm.weight.any():  # a light block that starts as its shortcut alone
            norm.weight.data.uniform_(0.2, 0.6, generator=generator)
    return network.eval()


@pytest.fixture(scope="session")
def detectors(tiny_backbone: Callable[[], nn.Module]) -> dict[str, Detector]:
    """Untrained detectors: the two lite models, and FSSD's neck on a backbone that costs next to nothing."""
    made = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in ("fssd300-lite", "ssd300-lite"):
            network = outspoken(build_model(name, len(CLASSES)))
            made[name] = Detector(network, CLASSES, {"iteration": 7})
        tiny = build_model("fssd300-lite", len(CLASSES), backbone=tiny_backbone())
        made["tiny"] = Detector(outspoken(tiny), CLASSES, {"iteration": 7})
    return made


@pytest.fixture(scope="session")
def traced(detectors: dict[str, Detector]) -> Callable[[str], Any]:
    """Gives the ONNX graph of one of `detectors`, new each time."""
    pytest.importorskip("onnx", reason='needs onnx: pip install "fssd[export]"')
    pytest.importorskip("onnxscript", reason='needs onnxscript: pip install "fssd[export]"')
    kept: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in kept:
            kept[name] = trace(detectors[name].network)
        copy = type(kept[name])()
        copy.CopyFrom(kept[name])
        return copy

    return get

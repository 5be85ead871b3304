"""The graph that is exported: pixels as they lie in memory to offsets and logits, in few steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fssd.export.graph import Graph
from fssd.model.build import build_model

MEAN, STD = (123.0, 117.0, 104.0), (58.0, 57.0, 56.0)


@pytest.mark.parametrize(
    "options",
    [{}, {"mean": MEAN}, {"mean": MEAN, "std": STD}, {"mean": (9, 9, 9), "std": (8, 8, 8)}],
    ids=str,
)
@pytest.mark.parametrize("own", [True, False], ids=["own backbone", "lite"])
def test_it_normalises_as_the_network_does(
    tiny_backbone: Callable[[], nn.Module], own: bool, options: dict[str, Any]
) -> None:
    backbone = {"backbone": tiny_backbone()} if own else {}
    network = build_model("ssd300-lite", 2, **backbone, **options).eval()
    images = torch.randint(0, 256, (2, 3, 300, 300), generator=torch.Generator().manual_seed(2))
    graph = Graph(network).eval()
    with torch.no_grad():
        wanted = network(images.float())
        found = graph(images.byte().permute(0, 2, 3, 1))
    for one, other in zip(wanted, found, strict=True):
        spread = float(one.std())
        assert spread > 0.01, "else equality says little"
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5 * max(spread, 1))


def test_the_way_to_the_first_convolution(traced: Callable[[str], Any]) -> None:
    graph = traced("fssd300-lite").graph
    steps = [node.op_type for node in graph.node]
    assert steps[:4] == ["Cast", "Sub", "Transpose", "Conv"]
    assert "Pad" not in steps, "convolutions pad by themselves"
    assert "BatchNormalization" not in steps
    stem = next(node for node in graph.node if node.op_type == "Conv")
    assert [list(a.ints) for a in stem.attribute if a.name == "pads"] == [[0, 0, 1, 1]]  # 300 is even

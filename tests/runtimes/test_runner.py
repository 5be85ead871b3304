"""A batch cut into images: each finishes by itself as it does among the others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from fssd.data.geometry import Warp
from fssd.heads.head import Found
from fssd.heads.multibox.multibox_head import MultiboxHead
from fssd.heads.multibox.priors import Level, cell_shapes
from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.runtimes.header import Header
from fssd.runtimes.runner import FileRunner, Images, NetworkRunner

SETTINGS = {"score": 0.2, "nms": 0.45, "top_k": 50, "keep": 20}


def assert_same(found: Found, expected: Found) -> None:
    for part, other in zip(found, expected, strict=True):
        assert torch.equal(part, other)


def outspoken(tiny_backbone: Callable[[], nn.Module]) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = build_model("fssd300-lite", 3, backbone=tiny_backbone())
        for head in network.heads.conf:
            last = head[-1] if isinstance(head, nn.Sequential) else head
            assert isinstance(last, nn.Conv2d) and last.bias is not None
            last.bias.data.normal_(0, 1.0)
            last.weight.data.normal_(0, 0.2)
    return network


def test_rows_of_a_network(tiny_backbone: Callable[[], nn.Module]) -> None:
    runner = NetworkRunner(outspoken(tiny_backbone))
    images = torch.randint(0, 256, (3, 3, 300, 300), dtype=torch.uint8)
    predicted = runner.predict(images)
    together = runner.finish(predicted, **SETTINGS)
    assert all(len(found.scores) for found in together)
    rows = runner.rows(predicted)
    assert len(rows) == 3
    for row, expected in zip(rows, together, strict=True):
        (found,) = runner.finish(row, **SETTINGS)
        assert_same(found, expected)


def test_rows_of_a_file() -> None:
    level = Level(2, 2, (4.0, 4.0), cell_shapes(3.0, 5.0, (2.0,)))  # 2 x 2 cells with 4 priors: 16
    decode = MultiboxHead.decoder({"levels": [level._asdict()]})
    generator = np.random.default_rng(3)
    outputs = [
        generator.normal(size=(2, 16, 4)).astype(np.float32),
        generator.normal(0, 2, size=(2, 16, 3)).astype(np.float32),
    ]

    def session(images: Images) -> list[np.ndarray]:
        return outputs

    runner = FileRunner(session, Header(("a", "b"), Warp((8, 8)), decode, None, {}))
    predicted = runner.predict(Tensor(2, 3, 8, 8).to(torch.uint8))
    together = runner.finish(predicted, **SETTINGS)
    assert [len(found.scores) > 0 for found in together] == [True, True]
    assert not torch.equal(together[0].scores[:2], together[1].scores[:2])
    for row, expected in zip(runner.rows(predicted), together, strict=True):
        assert_same(runner.finish(row, **SETTINGS)[0], expected)

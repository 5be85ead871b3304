"""The maps that each level is said to be made of are those on which it depends."""

from __future__ import annotations

import pytest
import torch

from fssd.model.build import build_model
from fssd.necks.ssd import SSD

NETWORKS = [
    ("ssd300-lite", {}),
    ("fssd300-lite", {}),
    ("fssd300-lite", {"sources": ["stride8", "stride32"]}),
    ("fpn300-lite", {}),
    ("rssd300-lite", {}),
    ("rssd300-lite", {"concatenation": "pooling"}),
    ("rssd300-lite", {"concatenation": "deconvolution"}),
    ("dssd300-lite", {}),
    ("resskip300-lite", {}),
    ("single300-lite", {}),
    ("dsod300-small", {}),
    ("dsod300-small", {"front_end": "plain"}),
    ("yolov2-128", {}),
]


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_levels_depend_on_their_sources_alone(name: str, options: dict[str, object]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model(name, 1, **options).eval()
        side = network.image_size[0]
        with torch.no_grad():
            shapes = {key: x.shape for key, x in network.backbone(torch.zeros(1, 3, side, side)).items()}
        features = {key: torch.rand(shape).requires_grad_() for key, shape in shapes.items()}
    neck = network.neck
    levels = neck(features)
    told = neck.level_sources()
    assert len(told) == len(levels)
    for level, sources in zip(levels, told, strict=True):
        gradients = torch.autograd.grad(
            level.square().sum(), list(features.values()), retain_graph=True, allow_unused=True
        )
        used = {key for key, grad in zip(features, gradients, strict=True) if grad is not None and grad.any()}
        of_backbone = set(sources) & set(features)
        if isinstance(neck, SSD) and set(sources) - set(features):
            of_backbone.add(neck.start)  # what the appended layers read
        assert used == of_backbone, sources


def test_the_released_networks() -> None:
    with torch.device("meta"):
        fssd, ssd = build_model("fssd300-vgg16", 1), build_model("ssd300-vgg16", 1)
    assert fssd.neck.level_sources() == [("conv4_3", "fc7", "conv7_2")] * 6
    assert fssd.neck.merging() is not fssd.neck, "conv7_2 is appended inside the neck"
    names = ("conv4_3", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2")
    assert ssd.neck.level_sources() == [(name,) for name in names]

"""Norms of a single value are found without a real pass, whatever the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError
from fssd.model.build import build_model
from fssd.model.probe import lone_norms
from fssd.training.start import check_batch


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("ssd300-vgg16", {}, []),  # has none
        ("fssd300-vgg16", {}, []),  # one, on 38 x 38 cells
        ("dsod300-small", {}, []),  # the last level has 2 x 2
        ("single300-lite", {}, []),
        ("rssd300-lite", {}, ["neck.norms.5.0", "heads.loc.5.1", "heads.conf.5.1"]),
        ("ssd300-lite", {}, ["heads.loc.5.1", "heads.conf.5.1"]),
    ],
)  # fmt: skip
def test_layers_that_normalise_one_value(name: str, options: dict[str, Any], expected: list[str]) -> None:
    network = build_model(name, 2, size=300, **options)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    found = lone_norms(network)
    assert [key for key in found if not key.startswith("neck.extras")] == expected
    # and the probe left no trace
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert network.training


@pytest.mark.parametrize(("size", "refused"), [(128, True), (256, False)])
def test_it_agrees_with_torch(size: int, refused: bool) -> None:
    """A backbone whose norm sees 1 x 1 or 2 x 2."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine, self.coarse = nn.Conv2d(3, 4, 8, 8), nn.Conv2d(4, 4, 16, 16)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            fine = self.fine(images)
            return {"fine": fine + self.norm(self.coarse(fine)).mean(dim=(2, 3), keepdim=True)}

    network = build_model("single300-vgg16", 1, size=size, backbone=Normed())
    assert lone_norms(network) == ["backbone.norm"] * refused
    one = torch.rand(1, 3, size, size)
    if refused:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            network(one)
    else:
        network(one)
    config = TrainConfig(batch_size=1, model="single300-vgg16")
    if refused:
        with pytest.raises(ConfigError, match=r"batch_size is 1, but backbone.norm .* or --freeze-norm"):
            check_batch(config, network, 1)
        check_batch(TrainConfig(batch_size=1, model="single300-vgg16", freeze_norm=True), network, 1)
    else:
        check_batch(config, network, 1)


def test_a_backbone_that_looks_at_values_is_run(tiny_backbone: Callable[[], nn.Module]) -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_backbone()

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            assert float(images.mean()) < 1e9
            return self.inner(images)  # type: ignore[no-any-return]

    found = lone_norms(build_model("ssd300-lite", 1, backbone=Looks()))
    assert found[-2:] == ["heads.loc.5.1", "heads.conf.5.1"]


def test_the_message_counts_the_layers() -> None:
    network = build_model("ssd300-lite", 1)
    with pytest.raises(ConfigError, match=r"batch_size is 1, but \S+ and \d more layers of ssd300-lite"):
        check_batch(TrainConfig(batch_size=1, model="ssd300-lite"), network, 1)
    check_batch(TrainConfig(batch_size=2, model="ssd300-lite"), network, 2)

"""Adam: its update by hand, and a run that is stopped and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError
from fssd.model.build import build_model
from fssd.training.loop import train
from fssd.training.optim import make_optimizer, set_lr
from fssd.training.start import complete
from fssd.weights.checkpoint import read_tensors

MakeBackbone = Callable[[], nn.Module]


def test_two_updates_by_hand(tiny_backbone: MakeBackbone) -> None:
    """Kingma and Ba 2015, Algorithm 1, with the decay in the gradient and biases at twice the rate."""
    network = build_model("fssd300-lite", 1, backbone=tiny_backbone())
    optimizer = make_optimizer(network, momentum=0.8, weight_decay=0.5, kind="adam")
    set_lr(optimizer, 0.01)
    weight, bias = network.backbone.fine.weight, network.backbone.fine.bias
    assert bias is not None
    start = [float(weight.detach().flatten()[0]), float(bias.detach()[0])]
    expected, moments = list(start), [(0.0, 0.0), (0.0, 0.0)]
    for step, gradient in enumerate((0.3, -0.7), start=1):
        weight.grad, bias.grad = torch.full_like(weight, gradient), torch.full_like(bias, gradient)
        optimizer.step()
        for i, (decay, scale) in enumerate(((0.5, 1), (0, 2))):
            g = gradient + decay * expected[i]
            mean = 0.8 * moments[i][0] + 0.2 * g
            square = 0.999 * moments[i][1] + 0.001 * g * g
            moments[i] = (mean, square)
            root = (square / (1 - 0.999**step)) ** 0.5
            expected[i] -= 0.01 * scale * mean / (1 - 0.8**step) / (root + 1e-8)
    found = [float(weight.detach().flatten()[0]), float(bias.detach()[0])]
    assert found == pytest.approx(expected, abs=1e-6)


def test_stopped_and_resumed_ends_in_the_same_bytes(
    scenes: Path, tiny_backbone: MakeBackbone, tmp_path: Path
) -> None:
    fixed = {"start": "nothing", "batch_size": 2, "workers": 0, "amp": "off", "warmup": 0, "lr": 1e-3}
    out, reference = tmp_path / "run", tmp_path / "reference"
    config = TrainConfig(data=scenes, out=out, iterations=4, optimizer="adam", save_every=1, **fixed)
    train(config, backbone=tiny_backbone())
    state = read_tensors(out / "last.safetensors")[0]
    assert {key.split("/")[0] for key in state} >= {"adam-mean", "adam-square", "adam-step"}
    assert {float(t) for key, t in state.items() if key.startswith("adam-step")} == {4.0}
    out.rename(reference)
    for _ in range(3):
        assert not train(config, resume=out.exists(), minutes=0, backbone=tiny_backbone()).finished
    train(config, resume=True, backbone=tiny_backbone())
    for name in ("last.safetensors", "final.safetensors"):
        assert (out / name).read_bytes() == (reference / name).read_bytes(), name


def test_an_unknown_optimizer(tmp_path: Path) -> None:
    config = TrainConfig(data=tmp_path, out=tmp_path / "run", optimizer="adan")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="there is no optimizer 'adan'; did you mean 'adam'"):
        complete(config)

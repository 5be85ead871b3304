from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fssd.errors import CheckpointError
from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.weights.checkpoint import save_model
from fssd.weights.transfer import load_detector


def trained(tmp_path: Path, name: str, classes: tuple[str, ...]) -> tuple[Path, Network]:
    torch.manual_seed(1)
    network = build_model(name, len(classes))
    for parameter in network.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.01)
    path = tmp_path / "trained.safetensors"
    save_model(path, network.state_dict(), network, classes, {})
    return path, network.eval()


@pytest.mark.parametrize("name", ["fssd300-lite", "ssd300-vgg16"])
def test_shared_classes_keep_their_scores_and_others_are_fresh(tmp_path: Path, name: str) -> None:
    file, before = trained(tmp_path, name, ("cat", "dog", "cow"))
    torch.manual_seed(2)
    network = build_model(name, 2)
    fresh = {key: value.clone() for key, value in network.state_dict().items()}
    assert load_detector(network, ("horse", "cat"), file) == ("cat",)
    image = torch.rand(1, 3, 300, 300) * 255
    with torch.no_grad():
        old, new = before(image), network.eval()(image)
    torch.testing.assert_close(new.offsets, old.offsets)
    torch.testing.assert_close(new.logits[..., 0], old.logits[..., 0])  # background
    torch.testing.assert_close(new.logits[..., 2], old.logits[..., 1])  # cat
    assert not torch.allclose(new.logits[..., 1], old.logits[..., 2])
    last = max(key for key in fresh if key.startswith("heads.conf.5") and key.endswith("weight"))
    horse = network.state_dict()[last][1::3]  # anchors times (background, horse, cat)
    assert torch.equal(horse, fresh[last][1::3])


def test_another_network_is_refused(tmp_path: Path) -> None:
    file, _ = trained(tmp_path, "ssd300-lite", ("cat",))
    with pytest.raises(CheckpointError, match="is a ssd300-lite, not a fssd300-lite"):
        load_detector(build_model("fssd300-lite", 1), ("cat",), file)


def test_other_options_are_refused(tmp_path: Path) -> None:
    file, _ = trained(tmp_path, "fssd300-lite", ("cat",))
    with pytest.raises(CheckpointError, match="has shape"):
        load_detector(build_model("fssd300-lite", 1, merge="sum"), ("cat",), file)
